//! Upstreams that answer, and not as they should.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Response, StatusCode};
use outport_core::body::Body;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::origin::{MANIFEST_TYPE, ScriptedOrigin};
use super::upstreams::scripted::ScriptedUpstream;
use super::upstreams::{Rig, UNAVAILABLE_MAX, manifest};
use super::{RunningEdge, blob_path, content, sha256};
use crate::cache::tests::lose;

fn answer(status: u16, ty: Option<&str>, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(ty) = ty {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, ty.parse().unwrap());
    }
    response
}

/// Returns a body whose bytes come one by one.
fn drip(content: Bytes, pause: Duration) -> Body {
    let bytes = stream::iter(content).then(move |byte| async move {
        tokio::time::sleep(pause).await;
        Ok(Bytes::from(vec![byte]))
    });
    Body::stream(bytes)
}

/// Says that there is more than there can be.
fn lying(_: &Method) -> Response<Body> {
    let mut response = answer(200, None, drip(content(1000, 2), Duration::from_millis(10)));
    let length = 8_000_000_000_000_u64;
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

#[tokio::test]
async fn what_is_no_manifest_does_not_become_the_tag() {
    let rig = Rig::new(&["upstreams.absent_for=0s"]).await;
    let good = manifest("good");
    rig.upstream.put_manifest("org/app", "1", &good);
    let path = "/v2/hub/org/app/manifests/1";
    assert_eq!(rig.edge.get(path).await.body, Some(good.clone()));
    let cut = good.slice(..good.len() - 10);
    for said in [
        Bytes::from_static(b"{\"message\": \"maintenance\"}"),
        Bytes::from_static(b"{ this is no json"),
        cut,
    ] {
        // None of them says what it hashes to.
        rig.upstream.script("/manifests/1", move |_| {
            answer(200, Some("application/json"), said.clone())
        });
        let answer = rig.edge.get(path).await;
        assert_eq!(answer.body, Some(good.clone()));
        assert!(answer.header("cache-status").contains("fwd=stale"));
    }
    // One that is a manifest does, and may leave out its type.
    let next = Bytes::from(format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST_TYPE}\",\"text\":\"next\"}}"
    ));
    let said = next.clone();
    rig.upstream
        .script("/manifests/1", move |_| answer(200, None, said.clone()));
    let answer = rig.edge.get(path).await;
    assert_eq!(answer.header("content-type"), MANIFEST_TYPE);
    assert_eq!(answer.body, Some(next));
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_page_that_says_that_nothing_is_here_is_no_word_of_the_registry() {
    let rig = Rig::new(&["upstreams.absent_for=0s"]).await;
    let good = manifest("good");
    rig.upstream.put_manifest("org/app", "1", &good);
    let path = "/v2/hub/org/app/manifests/1";
    assert_eq!(rig.edge.get(path).await.status, 200);
    let page = |_: &Method| answer(404, Some("text/html"), "default backend - 404");
    rig.upstream.script("/manifests/", page);
    assert_eq!(rig.edge.get(path).await.body, Some(good));
    let other = rig.edge.get("/v2/hub/org/app/manifests/2").await;
    assert_eq!(other.status, 503);
    rig.edge.stop().await;
}

#[tokio::test]
async fn one_broken_repository_does_not_close_the_upstream() {
    let rig = Rig::new(&["upstreams.max_rest=1m", "upstreams.min_rest=1m"]).await;
    rig.upstream.script("/v2/bad/", |_| answer(500, None, ""));
    let closed = format!("http://127.0.0.1:1/{}", "x");
    rig.upstream.script("/v2/moved/", move |_| {
        let mut response = answer(307, None, "");
        response
            .headers_mut()
            .insert("location", closed.parse().unwrap());
        response
    });
    let good = manifest("good");
    for seed in 0..10 {
        let app = format!("app-{seed}");
        rig.upstream.put_manifest(&app, "1", &good);
        for bad in ["bad", "moved"] {
            let bad = rig.edge.get(&format!("/v2/hub/{bad}/a/manifests/1")).await;
            assert_eq!(bad.status, 503);
        }
        let answer = rig.edge.get(&format!("/v2/hub/{app}/manifests/1")).await;
        assert_eq!(answer.body, Some(good.clone()), "{seed}");
    }
    // Which are left alone themselves.
    assert_eq!(rig.upstream.count("GET", "/v2/bad/a/"), 3);
    assert_eq!(rig.upstream.count("GET", "/v2/moved/a/"), 3);
    rig.edge.stop().await;
}

#[tokio::test]
async fn one_silent_repository_does_not_close_the_upstream() {
    let rests = ["upstreams.max_rest=1m", "upstreams.min_rest=1m"];
    let times = [
        "upstreams.question_timeout=100ms",
        "upstreams.stale_after=1ms",
    ];
    let rig = Rig::new(&[rests, times].concat()).await;
    rig.upstream.script("/v2/away/", |_| answer(503, None, ""));
    rig.upstream.delay("/v2/silent/", super::PATIENCE);
    let good = manifest("good");
    for bad in ["away", "silent"] {
        // Nobody else asks meanwhile.
        for number in 0..10 {
            let bad = format!("/v2/hub/{bad}/a/manifests/{number}");
            assert_eq!(rig.edge.get(&bad).await.status, 503);
        }
        rig.upstream.put_manifest("app", bad, &good);
        let answer = rig.edge.get(&format!("/v2/hub/app/manifests/{bad}")).await;
        assert_eq!(answer.body, Some(good.clone()), "{bad}");
    }
    assert_eq!(rig.upstream.count("GET", "/v2/away/a/"), 3);
    assert_eq!(rig.upstream.count("GET", "/v2/silent/a/"), 3);
    // Three in a row of which nothing is heard are the upstream's matter.
    for number in 0..3 {
        let away = format!("/v2/hub/away/{number}/manifests/1");
        assert_eq!(rig.edge.get(&away).await.status, 503);
    }
    let last = rig.edge.get("/v2/hub/app/manifests/last").await;
    assert_eq!(last.status, 503);
    assert_eq!(rig.upstream.seen("/last").len(), 0);
    rig.edge.stop().await;
}

#[tokio::test]
async fn who_was_found_out_is_not_what_finds_out_about_others() {
    let rig = Rig::new(&["upstreams.max_rest=1m", "upstreams.min_rest=100ms"]).await;
    rig.upstream.script("/v2/bad/", |_| answer(503, None, ""));
    let good = manifest("good");
    rig.upstream.put_manifest("app", "1", &good);
    for number in 0..3 {
        let bad = format!("/v2/hub/bad/{number}/manifests/1");
        assert_eq!(rig.edge.get(&bad).await.status, 503);
    }
    let name = "outport_edge_upstream_up{upstream=\"hub\"}";
    assert_eq!(rig.edge.metric(name), Some(0.0));
    // When it has rested it goes by itself, and leaves the others theirs.
    let again = async {
        while rig.upstream.seen("/bad/0").len() < 2 {
            let bad = rig.edge.get("/v2/hub/bad/0/manifests/1").await;
            assert_eq!(bad.status, 503);
        }
    };
    timeout(super::PATIENCE, again).await.unwrap();
    let answer = rig.edge.get("/v2/hub/app/manifests/1").await;
    assert_eq!(answer.body, Some(good));
    assert_eq!(rig.edge.metric(name), Some(1.0));
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_silent_upstream_is_found_out_while_all_its_requests_are_taken() {
    let rests = ["upstreams.max_rest=1m", "upstreams.min_rest=1m"];
    let bounds = ["upstreams.requests=1", "upstreams.question_timeout=200ms"];
    let rig = Rig::new(&[rests, bounds].concat()).await;
    rig.upstream.delay("/", super::PATIENCE);
    let name = "outport_edge_upstream_up{upstream=\"hub\"}";
    let asking = (0..3).map(async |client| {
        // So that there is always one that waits for its turn.
        while rig.upstream.seen("/").len() < client {
            tokio::task::yield_now().await;
        }
        for number in 0.. {
            let path = format!("/v2/hub/app-{client}-{number}/manifests/1");
            assert_eq!(rig.edge.get(&path).await.status, 503);
            if rig.edge.metric(name) == Some(0.0) {
                break;
            }
        }
    });
    let found_out = timeout(super::PATIENCE, join_all(asking));
    found_out.await.unwrap();
    rig.edge.stop().await;
}

#[tokio::test]
async fn that_elsewhere_is_asked_too_often_is_the_business_of_one_image() {
    let elsewhere = ScriptedUpstream::start().await;
    elsewhere.script("/", |_| {
        let mut response = answer(429, None, "");
        let headers = response.headers_mut();
        headers.insert("retry-after", "3600".parse().unwrap());
        response
    });
    let rig = Rig::new(&["upstreams.max_rest=1m", "upstreams.min_rest=1m"]).await;
    let (blob, good) = (content(1000, 1), manifest("good"));
    rig.upstream.put_manifest("app", "1", &good);
    rig.upstream
        .redirect_blobs(&format!("http://{}/x", elsewhere.address));
    for seed in 1..5 {
        let path = blob_path("hub/org/app", &content(1000, seed));
        assert_eq!(rig.edge.get(&path).await.status, 503);
    }
    let answer = rig.edge.get("/v2/hub/app/manifests/1").await;
    assert_eq!(answer.body, Some(good));
    // Which is left alone itself.
    let asked = rig.upstream.seen("/blobs/").len();
    let path = blob_path("hub/org/app", &blob);
    let answer = rig.edge.get(&path).await;
    assert_eq!(answer.status, 503);
    assert_eq!(rig.upstream.seen("/blobs/").len(), asked);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_list_is_not_waited_for_longer_than_anything_else() {
    let set = ["upstreams.answer_timeout=1s", "upstreams.stale_after=900ms"];
    let rig = Rig::new(&set).await;
    rig.upstream.delay("/tags/list", super::PATIENCE);
    let (answer, took) = rig.timed("/v2/hub/org/app/tags/list").await;
    assert_eq!(answer.status, 503);
    assert!(took < Duration::from_millis(1800), "{took:?}");
    rig.edge.stop().await;
}

#[tokio::test]
async fn lists_that_nobody_has_keep_no_image_away() {
    let rig = Rig::new(&["upstreams.max_rest=1m", "upstreams.min_rest=1m"]).await;
    let good = manifest("good");
    let unknown = sha256(b"anything");
    for (status, app) in [(500, "a"), (501, "b"), (503, "c")] {
        rig.upstream
            .script("/referrers/", move |_| answer(status, None, ""));
        rig.upstream.put_manifest(app, "1", &good);
        for _ in 0..4 {
            let path = format!("/v2/hub/{app}/referrers/{unknown}");
            assert_eq!(rig.edge.get(&path).await.status, 503);
        }
        let answer = rig.edge.get(&format!("/v2/hub/{app}/manifests/1")).await;
        assert_eq!(answer.body, Some(good.clone()), "{status}");
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_blob_without_a_length_is_asked_for_its_size() {
    let rig = Rig::new(&[]).await;
    let blob = content(300_000, 1);
    rig.upstream.put_blob("org/app", &blob);
    let in_chunks = |content: &Bytes| {
        let pieces = content.chunks(50_000).map(Bytes::copy_from_slice).map(Ok);
        let pieces: Vec<_> = pieces.collect();
        answer(200, None, Body::stream(stream::iter(pieces)))
    };
    let whole = blob.clone();
    rig.upstream.script("/org/app/blobs/", move |method| {
        if *method == Method::HEAD {
            return answer(405, None, "");
        }
        in_chunks(&whole)
    });
    let path = blob_path("hub/org/app", &blob);
    // It says so nowhere: it cannot be had.
    assert_eq!(rig.edge.get(&path).await.status, 503);
    let (whole, size) = (blob.clone(), blob.len());
    rig.upstream.script("/org/app/blobs/", move |method| {
        if *method == Method::HEAD {
            let mut response = answer(200, None, "");
            response.headers_mut().insert(CONTENT_LENGTH, size.into());
            return response;
        }
        in_chunks(&whole)
    });
    let told = rig.edge.head(&path).await;
    assert_eq!(told.header("content-length"), size.to_string());
    assert_eq!(rig.edge.get(&path).await.body, Some(blob));
    rig.edge.stop().await;
}

/// As upstreams that fetch it themselves first.
#[tokio::test]
async fn what_begins_late_comes_to_who_asks_again() {
    let set = [
        "upstreams.answer_timeout=200ms",
        "upstreams.stale_after=100ms",
    ];
    let rig = Rig::new(&set).await;
    let blob = content(300_000, 1);
    rig.upstream.put_blob("org/app", &blob);
    let tags = Bytes::from(r#"{"name":"org/app","tags":["1"]}"#);
    rig.upstream.put_list("/v2/org/app/tags/list", &tags, "");
    for part in ["/blobs/", "/tags/list"] {
        rig.upstream.delay(part, Duration::from_millis(700));
    }
    for (path, expected) in [
        (blob_path("hub/org/app", &blob), blob),
        ("/v2/hub/org/app/tags/list".to_owned(), tags),
    ] {
        let (answer, time) = rig.timed(&path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(time < UNAVAILABLE_MAX, "{time:?}");
        let began = Instant::now();
        loop {
            let answer = rig.edge.get(&path).await;
            if answer.status == 200 {
                assert_eq!(answer.body, Some(expected));
                break;
            }
            assert!(began.elapsed() < super::PATIENCE);
        }
    }
    assert_eq!(rig.upstream.count("GET", "/blobs/"), 1);
    rig.edge.stop().await;
}

/// An origin that hosts a blob, and an upstream that has it too.
struct Both {
    origin: Arc<ScriptedOrigin>,
    upstream: ScriptedUpstream,
    edge: RunningEdge,
    blob: Bytes,
    _cache: TempDir,
}

impl Both {
    async fn new() -> Self {
        let (origin, upstream) = (
            ScriptedOrigin::start().await,
            ScriptedUpstream::start().await,
        );
        let blob = content(3_000_000, 1);
        origin.put_blob("team/app", &blob);
        let cache = TempDir::new().unwrap();
        let url = format!("upstream.0.url=http://{}", upstream.address);
        let set = ["upstream.0.name=hub", &url, "upstreams.names_from=upstream"];
        let edge = RunningEdge::start(cache.path(), origin.address, &set).await;
        Self {
            origin,
            upstream,
            edge,
            blob,
            _cache: cache,
        }
    }

    /// Pulls what is hosted while another client pulls the same from the upstream.
    async fn pull_beside(&self) {
        let theirs = blob_path("hub/org/app", &self.blob);
        let begun = self.edge.try_begin(Method::GET, &theirs, &[]);
        let asked = async {
            while self.upstream.count("GET", "/blobs/") == 0 {
                tokio::task::yield_now().await;
            }
            let own = blob_path("team/app", &self.blob);
            self.edge.get(&own).await
        };
        let (begun, own) = tokio::join!(begun, asked);
        assert_eq!(own.status, 200);
        assert_eq!(own.header("content-length"), self.blob.len().to_string());
        assert!(own.body.as_ref() == Some(&self.blob), "{own:?}");
        drop(begun);
    }
}

#[tokio::test]
async fn a_slow_upstream_holds_up_nobody_who_can_have_it_elsewhere() {
    let both = Both::new().await;
    let (size, slow) = (both.blob.len(), both.blob.clone());
    both.upstream.script("/blobs/", move |_| {
        let mut response = answer(200, None, drip(slow.clone(), Duration::from_millis(1)));
        response.headers_mut().insert(CONTENT_LENGTH, size.into());
        response
    });
    let began = Instant::now();
    both.pull_beside().await;
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(both.origin.seen(&Method::GET, "/blobs/").len(), 1);
    both.edge.stop().await;
}

#[tokio::test]
async fn a_silent_upstream_holds_up_nobody_who_can_have_it_elsewhere() {
    let both = Both::new().await;
    both.upstream.delay("/blobs/", Duration::from_mins(1));
    both.pull_beside().await;
    both.edge.stop().await;
}

#[tokio::test]
async fn an_upstream_that_lies_about_a_length_is_believed_by_nobody_else() {
    let both = Both::new().await;
    both.upstream.script("/blobs/", lying);
    both.pull_beside().await;
    both.edge.stop().await;
}

#[tokio::test]
async fn an_upstream_that_lies_spoils_no_download_of_another() {
    let both = Both::new().await;
    both.upstream.script("/blobs/", lying);
    // So that it is under way for long enough.
    both.origin.allow(1000);
    let own = blob_path("team/app", &both.blob);
    let begun = both.edge.begin(Method::GET, &own, &[]).await;
    let theirs = blob_path("hub/org/app", &both.blob);
    let theirs = both.edge.begin(Method::GET, &theirs, &[]).await;
    let asked = async {
        while both.upstream.count("GET", "/blobs/") < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(super::PATIENCE, asked).await.unwrap();
    both.origin.allow(u64::MAX);
    assert!(begun.finish().await.body.as_ref() == Some(&both.blob));
    theirs.leave();
    both.edge.stop().await;
}

#[tokio::test]
async fn what_is_larger_than_the_cache_does_not_come_in_for_nobody() {
    let set = [
        "downloads.popular=1",
        "downloads.grace=10ms",
        "cache.capacity=1GiB",
    ];
    let rig = Rig::new(&set).await;
    // And comes fast enough for what could be kept.
    rig.upstream.script("/blobs/", |_| {
        let pieces = stream::repeat(Bytes::from(vec![0; 64 << 10])).then(async |piece| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(piece)
        });
        let mut response = answer(200, None, Body::stream(pieces));
        let length = 8_000_000_000_000_u64;
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        response
    });
    let path = blob_path("hub/org/app", b"endless");
    rig.edge.begin(Method::GET, &path, &[]).await.leave();
    rig.edge.settle().await;
    let deserted = "outport_edge_downloads_finished_total{outcome=\"deserted\"}";
    assert_eq!(rig.edge.metric(deserted), Some(1.0));
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_frozen_tag_stays_when_its_manifest_is_gone_from_here() {
    let rig = Rig::new(&["cache.memory=0B"]).await;
    let (good, bad) = (manifest("good"), manifest("bad"));
    rig.upstream.put_manifest("org/app", "1", &good);
    let path = "/v2/hub/org/app/manifests/1";
    assert_eq!(rig.edge.get(path).await.body, Some(good.clone()));
    assert_eq!(rig.edge.operate(Method::PUT, "/frozen").await.status, 204);
    rig.upstream.put_manifest("org/app", "1", &bad);
    let purge = "/purge?image=hub/org/app:1";
    assert_eq!(rig.edge.operate(Method::POST, purge).await.status, 412);
    assert_eq!(rig.edge.get(path).await.body, Some(good.clone()));
    // As when it has been evicted.
    lose(&rig.edge.cache, &sha256(&good));
    assert_eq!(rig.edge.get(path).await.body, Some(good.clone()));
    assert_eq!(
        rig.edge.operate(Method::DELETE, "/frozen").await.status,
        204
    );
    assert_eq!(rig.edge.get(path).await.body, Some(bad));
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_question_under_way_does_not_move_a_tag_that_was_frozen_since() {
    let rig = Rig::new(&["upstreams.stale_after=10ms"]).await;
    let (good, bad) = (manifest("good"), manifest("bad"));
    rig.upstream.put_manifest("org/app", "1", &good);
    let path = "/v2/hub/org/app/manifests/1";
    assert_eq!(rig.edge.get(path).await.body, Some(good.clone()));
    rig.upstream.put_manifest("org/app", "1", &bad);
    let (is_in, go) = rig.upstream.hold_next();
    // By HEAD, to which the answer is held.
    assert_eq!(rig.edge.get(path).await.body, Some(good.clone()));
    is_in.await.unwrap();
    assert_eq!(rig.edge.operate(Method::PUT, "/frozen").await.status, 204);
    go.send(()).unwrap();
    // Kept before it is found out that the tag is not to move.
    while !rig.edge.cache.has(&sha256(&bad)) {
        assert_eq!(rig.edge.get(path).await.body, Some(good.clone()));
    }
    for _ in 0..3 {
        assert_eq!(rig.edge.get(path).await.body, Some(good.clone()));
    }
    rig.edge.stop().await;
}
