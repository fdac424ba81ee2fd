//! An edge with an origin, and an upstream for what that does not know.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use tempfile::TempDir;
use tokio::time::Instant;

use super::origin::{MANIFEST_TYPE, ScriptedOrigin};
use super::upstreams::scripted::ScriptedUpstream;
use super::upstreams::{STALE_MAX, manifest};
use super::{RunningEdge, blob_path, content, sha256};

struct Rig {
    origin: Arc<ScriptedOrigin>,
    upstream: ScriptedUpstream,
    edge: RunningEdge,
    cache: TempDir,
}

impl Rig {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(set: &[&str]) -> Self {
        let origin = ScriptedOrigin::start().await;
        let upstream = ScriptedUpstream::start().await;
        let cache = TempDir::new().unwrap();
        let edge = start(&cache, (&origin, &upstream), set).await;
        Self {
            origin,
            upstream,
            edge,
            cache,
        }
    }

    async fn restart(self) -> Self {
        self.edge.stop().await;
        let edge = start(&self.cache, (&self.origin, &self.upstream), &[]).await;
        Self { edge, ..self }
    }
}

/// Starts an edge that asks the origin each time, and the upstream itself.
async fn start(
    cache: &TempDir,
    (origin, upstream): (&ScriptedOrigin, &ScriptedUpstream),
    set: &[&str],
) -> RunningEdge {
    let url = format!("upstream.0.url=http://{}", upstream.address);
    let sets = [
        "upstream.0.name=hub",
        &url,
        "upstreams.default=hub",
        "upstreams.names_from=upstream",
        "upstreams.tags_fresh_for=0s",
        "origin.answer_timeout=1m",
        "origin.names=[\"registry.example\"]",
    ];
    let sets = [&sets, set].concat();
    RunningEdge::start(cache.path(), origin.address, &sets).await
}

#[tokio::test]
async fn what_the_origin_does_not_have_comes_from_the_upstream_each_time() {
    let rig = Rig::new().await;
    let (image, blob) = (manifest("a"), content(100_000, 8));
    rig.upstream.put_manifest("org/app", "1", &image);
    rig.upstream.put_blob("org/app", &blob);
    for served in ["fwd=miss", "hit"] {
        let answer = rig.edge.get("/v2/org/app/manifests/1").await;
        assert_eq!(answer.body, Some(image.clone()));
        let path = blob_path("org/app", &blob);
        rig.edge.get(&path).await.is(200, &blob, served);
        rig.edge.settle().await;
    }
    // A layer of another image of it.
    rig.upstream.put_blob("org/other", &blob);
    let path = blob_path("org/other", &blob);
    assert_eq!(rig.edge.get(&path).await.body, Some(blob));
    // Who pushes asks so, and would leave out what the origin does not have.
    let head = rig.edge.begin(Method::HEAD, &path, &[]).await;
    assert_eq!(head.status, 404);
    let by_digest = format!("/v2/org/app/manifests/{}", sha256(&image));
    let head = rig.edge.begin(Method::HEAD, &by_digest, &[]).await;
    assert_eq!(head.status, 404);
    assert_eq!(rig.edge.get(&by_digest).await.body, Some(image));
    // And lists.
    let list = Bytes::from_static(b"{\"name\":\"org/app\",\"tags\":[\"1\"]}");
    let link = "</v2/org/app/tags/list?next=x>; rel=\"next\"";
    rig.upstream.put_list("/v2/org/app/tags/list", &list, link);
    let answer = rig.edge.get("/v2/org/app/tags/list").await;
    assert_eq!(answer.body, Some(list));
    let expected = "</v2/org/app/tags/list?next=x>; rel=\"next\"";
    assert_eq!(
        answer.headers["link"], expected,
        "by the name that it was asked for by"
    );
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_is_hosted_is_nobody_elses_matter() {
    let rig = Rig::new().await;
    let (hosted, theirs) = (content(1000, 9), manifest("theirs"));
    rig.upstream.put_manifest("team/app", "1", &theirs);
    rig.upstream.put_manifest("team/app", "2", &theirs);
    rig.origin
        .put_manifest("team/app", "1", &manifest("hosted"));
    rig.origin.put_blob("team/app", &hosted);
    let answer = rig.edge.get("/v2/team/app/manifests/1").await;
    answer.is(200, &manifest("hosted"), "fwd=miss");
    let answer = rig.edge.get(&blob_path("team/app", &hosted)).await;
    answer.is(200, &hosted, "fwd=miss");
    rig.origin.stop();
    let answer = rig.edge.get("/v2/team/app/manifests/1").await;
    assert_eq!(answer.body, Some(manifest("hosted")));
    assert_eq!(rig.edge.get("/v2/team/app/manifests/2").await.status, 503);
    assert_eq!(rig.upstream.seen("team").len(), 0);
    rig.edge.stop().await;
}

#[tokio::test]
async fn while_the_origin_is_away_only_what_is_here_is_the_upstreams() {
    let rig = Rig::new().await;
    let (image, blob) = (manifest("a"), content(1000, 1));
    rig.upstream.put_manifest("org/app", "1", &image);
    rig.upstream.put_manifest("org/app", "2", &manifest("b"));
    rig.upstream.put_blob("org/app", &blob);
    let tag = "/v2/org/app/manifests/1";
    rig.edge.get(tag).await.is(200, &image, "fwd=miss");
    rig.edge.get(&blob_path("org/app", &blob)).await;
    rig.edge.settle().await;
    // Somebody pushes to it elsewhere, just before.
    rig.origin.stop();
    let mut rig = rig;
    for _ in 0..2 {
        let before = rig.upstream.seen("/").len();
        let answer = rig.edge.get(tag).await;
        answer.is(200, &image, "fwd=stale; detail=origin-unreachable");
        let answer = rig.edge.get(&blob_path("org/app", &blob)).await;
        answer.is(200, &blob, "hit");
        assert_eq!(rig.edge.get("/v2/org/app/manifests/2").await.status, 503);
        assert_eq!(rig.edge.get("/v2/org/new/manifests/1").await.status, 503);
        assert_eq!(rig.upstream.seen("/").len(), before);
        // Also after a restart.
        rig = rig.restart().await;
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_a_silent_origin_whose_word_is_known() {
    let rig = Rig::new().await;
    let image = manifest("a");
    rig.upstream.put_manifest("org/app", "1", &image);
    let tag = "/v2/org/app/manifests/1";
    rig.edge.get(tag).await.is(200, &image, "fwd=miss");
    let tags = "/v2/org/app/tags/list";
    let [before, after] =
        ["1", "2"].map(|tag| Bytes::from(format!("{{\"name\":\"org/app\",\"tags\":[\"{tag}\"]}}")));
    rig.upstream.put_list(tags, &before, "");
    assert_eq!(rig.edge.get(tags).await.body, Some(before.clone()));
    rig.upstream.put_list(tags, &after, "");
    let held = rig.origin.hold(Method::GET, tags);
    let by_digest = format!("/v2/org/app/manifests/{}", sha256(&image));
    for (path, expected) in [(by_digest.as_str(), &image), (tag, &image), (tags, &before)] {
        let began = Instant::now();
        assert_eq!(rig.edge.get(path).await.body.as_ref(), Some(expected));
        let took = began.elapsed();
        assert!(took < STALE_MAX, "{path}: {took:?}");
    }
    // What is here is asked for when the origin has spoken.
    let asked = rig.upstream.count("GET", tags);
    held.release();
    while rig.upstream.count("GET", tags) == asked {
        tokio::task::yield_now().await;
    }
    rig.edge.stop().await;
}

/// A slow origin and a silent upstream take no more of a client's time together than one of them.
#[tokio::test]
async fn nobody_waits_for_the_one_after_the_other() {
    let rig = Rig::new().await;
    let image = manifest("a");
    rig.upstream.put_manifest("org/app", "1", &image);
    let list = Bytes::from_static(b"{\"name\":\"org/app\",\"tags\":[\"1\"]}");
    rig.upstream.put_list("/v2/org/app/tags/list", &list, "");
    let paths = ["/v2/org/app/manifests/1", "/v2/org/app/tags/list"];
    for (path, expected) in paths.into_iter().zip([&image, &list]) {
        assert_eq!(rig.edge.get(path).await.body.as_ref(), Some(expected));
        rig.edge.settle().await;
        let held = rig.origin.hold(Method::GET, "/v2/org/app/tags/list");
        let (_asked, _answer) = rig.upstream.hold_next();
        let released = async {
            tokio::time::sleep(STALE_MAX / 2).await;
            held.release();
        };
        let began = Instant::now();
        let (answer, ()) = tokio::join!(rig.edge.get(path), released);
        let took = began.elapsed();
        answer.is(200, expected, "fwd=stale; detail=origin-unreachable");
        assert!(took < STALE_MAX, "{path}: {took:?}");
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn an_upstream_that_gets_on_is_waited_for_by_a_bare_name() {
    let set = ["upstreams.stale_after=1s", "upstreams.answer_timeout=30s"];
    let rig = Rig::with(&set).await;
    let path = "/v2/org/app/manifests/1";
    // Without a token, and then with one.
    rig.upstream.ask_for_tokens(None);
    rig.upstream
        .delay("/", std::time::Duration::from_millis(600));
    rig.upstream.put_manifest("org/app", "1", &manifest("a"));
    rig.edge.get(path).await.is(200, &manifest("a"), "fwd=miss");
    rig.upstream.put_manifest("org/app", "1", &manifest("b"));
    // By HEAD, and then by GET.
    rig.edge.get(path).await.is(200, &manifest("b"), "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn an_origin_that_takes_its_time_is_waited_for_when_nothing_is_here() {
    let rig = Rig::new().await;
    for tag in ["1", "2"] {
        rig.upstream.put_manifest("org/app", tag, &manifest(tag));
    }
    let path = |tag: &str| format!("/v2/org/app/manifests/{tag}");
    rig.edge
        .get(&path("1"))
        .await
        .is(200, &manifest("1"), "fwd=miss");
    rig.upstream
        .put_manifest("org/app", "1", &manifest("moved"));
    let held = rig.origin.hold(Method::GET, "/v2/org/app/tags/list");
    // What is here is answered, and asked for when the origin has spoken.
    let answer = rig.edge.get(&path("1")).await;
    answer.is(200, &manifest("1"), "fwd=stale; detail=origin-unreachable");
    let second = path("2");
    let waiting = rig.edge.get(&second);
    let released = async {
        tokio::time::sleep(2 * STALE_MAX).await;
        held.release();
    };
    let (answer, ()) = tokio::join!(waiting, released);
    answer.is(200, &manifest("2"), "fwd=miss");
    let moved = async {
        while rig.edge.get(&path("1")).await.body != Some(manifest("moved")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::PATIENCE, moved).await.unwrap();
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_is_pushed_is_hosted_from_then_on() {
    let rig = Rig::new().await;
    let (theirs, own) = (manifest("theirs"), manifest("own"));
    rig.upstream.put_manifest("org/app", "1", &theirs);
    let tag = "/v2/org/app/manifests/1";
    rig.edge.get(tag).await.is(200, &theirs, "fwd=miss");
    // Elsewhere.
    rig.origin.put_manifest("org/app", "1", &own);
    rig.edge.get(tag).await.is(200, &own, "fwd=miss");
    // What the upstream has under that name is not what this repository has.
    let by_digest = format!("/v2/org/app/manifests/{}", sha256(&theirs));
    assert_eq!(rig.edge.get(&by_digest).await.status, 404);
    let rig = rig.restart().await;
    rig.origin.stop();
    assert_eq!(rig.edge.get(tag).await.body, Some(own));
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_was_pinned_without_the_upstream_s_name_is_let_go_without_asking() {
    let rig = Rig::new().await;
    rig.upstream.put_manifest("app", "1", &manifest("a"));
    let path = "/pins?image=app:1";
    assert_eq!(rig.edge.operate(Method::POST, path).await.status, 200);
    let images = rig.edge.operate(Method::GET, "/pins/images").await;
    assert_eq!(images.body.unwrap(), "[\"hub/app:1\"]");
    let asked = (rig.origin.seen_all(), rig.upstream.seen("/").len());
    assert_eq!(rig.edge.operate(Method::DELETE, path).await.status, 200);
    assert_eq!(rig.edge.operate(Method::DELETE, path).await.status, 404);
    let left = rig.edge.operate(Method::GET, "/pins").await;
    assert_eq!(left.body.unwrap(), "[]");
    assert_eq!((rig.origin.seen_all(), rig.upstream.seen("/").len()), asked);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_tag_of_an_upstream_is_not_moved_by_a_push_to_what_is_called_so() {
    let rig = Rig::new().await;
    let (theirs, hosted) = (manifest("theirs"), manifest("hosted"));
    let path = "/v2/hub/org/app/manifests/1";
    rig.upstream.put_manifest("org/app", "1", &theirs);
    rig.origin.put_manifest("hub/org/app", "1", &hosted);
    assert_eq!(rig.edge.get(path).await.body, Some(theirs.clone()));
    let asked = rig.upstream.seen("/").len();
    let by_ns = format!("{path}?ns=registry.example");
    let pushed = manifest("pushed");
    let pushed = rig.edge.put(&by_ns, MANIFEST_TYPE, &pushed).await;
    assert_eq!(pushed.status, 400);
    let deleted = rig.edge.begin(Method::DELETE, &by_ns, &[]).await;
    assert_eq!(deleted.status, 400);
    // Nor is what the origin hosts, by a name that is taken, looked for at the upstream.
    assert_eq!(rig.edge.get(&by_ns).await.status, 400);
    assert_eq!(rig.upstream.seen("/").len(), asked);
    for method in [Method::PUT, Method::DELETE] {
        assert!(rig.origin.seen(&method, "/").is_empty());
    }
    assert_eq!(rig.edge.get(path).await.body, Some(theirs));
    rig.edge.stop().await;
}
