//! Several origins that are the same registry, of which the first is not well.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tempfile::TempDir;
use tokio::time::Instant;

use super::origin::{Fault, ScriptedOrigin};
use super::{RunningEdge, blob_path, content};

const LAYER: usize = 5_000_000;

/// Two origins that have the same, and an edge in front of them.
struct Pair {
    first: Arc<ScriptedOrigin>,
    second: Arc<ScriptedOrigin>,
    edge: RunningEdge,
    _cache: TempDir,
}

impl Pair {
    async fn with(set: &[&str]) -> Self {
        let first = ScriptedOrigin::start().await;
        let second = ScriptedOrigin::start().await;
        let cache = TempDir::new().unwrap();
        let urls = [&first, &second].map(|origin| format!("\"http://{}\"", origin.address));
        let urls = format!("origin.urls=[{}]", urls.join(","));
        let sets = [&[&*urls], set].concat();
        Self {
            edge: RunningEdge::start(cache.path(), first.address, &sets).await,
            first,
            second,
            _cache: cache,
        }
    }

    fn put_blob(&self, blob: &Bytes) {
        for origin in [&self.first, &self.second] {
            origin.put_blob("a", blob);
        }
    }

    fn put_manifest(&self, tag: &str, manifest: &Bytes) {
        for origin in [&self.first, &self.second] {
            origin.put_manifest("a", tag, manifest);
        }
    }

    /// Pulls what is not here in each way, some times.
    async fn pull_all(&self) {
        for seed in 0..4 {
            let (tag, blob) = (seed.to_string(), content(100_000, seed));
            let manifest = Bytes::from(format!("{{\"schemaVersion\":2,\"seed\":{seed}}}"));
            self.put_manifest(&tag, &manifest);
            self.put_blob(&blob);
            let by_tag = self.edge.get(&format!("/v2/a/manifests/{tag}")).await;
            by_tag.is(200, &manifest, "fwd=miss");
            let path = blob_path("a", &blob);
            assert_eq!(self.edge.head(&path).await.status, 200);
            self.edge.get(&path).await.is(200, &blob, "fwd=miss");
        }
    }
}

#[tokio::test]
async fn cold_pulls_go_on_when_one_origin_cannot_answer() {
    for fault in [
        Fault::Silence,
        Fault::Status(500),
        Fault::Status(501),
        Fault::Status(502),
        Fault::Status(503),
        Fault::Status(504),
    ] {
        let pair = Pair::with(&["origin.avoid_for=1ms", "origin.overtake_after=50ms"]).await;
        pair.first.fail_always(fault);
        let began = Instant::now();
        pair.pull_all().await;
        assert!(began.elapsed() < Duration::from_secs(20), "{fault:?}");
        assert_ne!(pair.first.seen_all(), 0);
        pair.edge.stop().await;
    }
}

#[tokio::test]
async fn who_was_silent_until_a_question_was_given_up_is_asked_last() {
    let pair = Pair::with(&[
        "origin.overtake_after=1h",
        "origin.answer_timeout=600ms",
        "origin.avoid_for=1h",
    ])
    .await;
    pair.first.fail_always(Fault::Silence);
    assert_eq!(pair.edge.get("/v2/a/manifests/1").await.status, 503);
    pair.pull_all().await;
    assert_eq!(pair.first.seen_all(), 1);
    pair.edge.stop().await;
}

#[tokio::test]
async fn when_no_origin_can_answer_it_is_a_503() {
    let pair = Pair::with(&["origin.failures=1000"]).await;
    let blob = content(1000, 1);
    pair.put_blob(&blob);
    pair.first.fail_always(Fault::Status(503));
    pair.second.fail_always(Fault::Status(502));
    let answer = pair.edge.get(&blob_path("a", &blob)).await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"));
    assert_ne!(pair.second.seen_all(), 0);
    pair.edge.stop().await;
}

#[tokio::test]
async fn the_rest_of_a_blob_comes_from_another_origin() {
    for then in [Fault::Status(503), Fault::Silence] {
        let pair = Pair::with(&["origin.avoid_for=1ms"]).await;
        let blob = content(LAYER, 1);
        pair.put_blob(&blob);
        pair.first.fail_next(Fault::DieAt(2_000_000));
        pair.first.fail_always(then);
        let path = blob_path("a", &blob);
        pair.edge.get(&path).await.is(200, &blob, "fwd=miss");
        let rest = pair.second.seen(&Method::GET, &path);
        assert!(!rest.is_empty(), "{then:?}");
        assert!(rest.iter().all(|seen| seen.range.is_some()), "{then:?}");
        pair.edge.stop().await;
    }
}

#[tokio::test]
async fn the_rest_of_a_blob_is_had_when_an_origin_goes() {
    let pair = Pair::with(&["origin.avoid_for=1ms"]).await;
    let blob = content(LAYER, 1);
    pair.put_blob(&blob);
    pair.first.allow(2_000_000);
    let path = blob_path("a", &blob);
    let mut begun = pair.edge.begin(Method::GET, &path, &[]).await;
    let some = begun.some().await;
    pair.first.stop();
    let rest = begun.finish().await.body.unwrap();
    assert!([some, rest].concat() == blob);
    pair.edge.stop().await;
}

#[tokio::test]
async fn an_origin_whose_answers_stand_still_is_left_for_the_next() {
    // The second time nothing comes behind the head.
    for allowed in [100_000, 0] {
        let set = ["origin.stall_timeout=100ms", "downloads.retries=2"];
        let pair = Pair::with(&set).await;
        pair.first.allow(allowed);
        for seed in 0..3 {
            let blob = content(LAYER, seed);
            pair.put_blob(&blob);
            let path = blob_path("a", &blob);
            pair.edge.get(&path).await.is(200, &blob, "fwd=miss");
        }
        let asked = pair.first.seen(&Method::GET, "/blobs/").len();
        assert_eq!(asked, 1, "{allowed}");
        pair.edge.stop().await;
    }
}

#[tokio::test]
async fn an_origin_that_gives_wrong_bytes_is_left_for_the_next() {
    let pair = Pair::with(&[]).await;
    let blob = content(LAYER, 1);
    pair.put_blob(&blob);
    let path = blob_path("a", &blob);
    for _ in 0..9 {
        pair.first.fail_next(Fault::FlipAt(1000));
    }
    assert_eq!(pair.edge.get(&path).await.body, None);
    pair.edge.settle().await;
    pair.edge.get(&path).await.is(200, &blob, "fwd=miss");
    assert_eq!(pair.first.seen(&Method::GET, "/blobs/").len(), 1);
    pair.edge.stop().await;
}
