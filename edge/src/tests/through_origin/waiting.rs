//! How long clients wait for an upstream by way of the origin.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use outport_core::body::Body;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::Through;
use crate::tests::origin::{Fault, ScriptedOrigin};
use crate::tests::upstreams::scripted::{Behaviour, ScriptedUpstream};
use crate::tests::upstreams::{STALE_MAX, manifest};
use crate::tests::{PATIENCE, RunningEdge, sha256};

/// Returns an edge that has pulled what paths lead to, and an origin that never has.
async fn pulled_before(
    paths: &[&str],
    upstream: &ScriptedUpstream,
    (cache, set): (&Path, &[&str]),
) -> (Through, RunningEdge) {
    let before = Through::start_with(upstream, set).await;
    let edge = before.edge(cache, set).await;
    for path in paths {
        assert_eq!(edge.get(path).await.status, 200);
    }
    edge.stop().await;
    let origin = Through::start_with(upstream, set).await;
    let edge = origin.edge(cache, set).await;
    (origin, edge)
}

/// Which takes longer than anybody waits for a step, and is none that an edge sees.
#[tokio::test]
async fn an_upstream_that_gets_on_is_waited_for_by_way_of_the_origin() {
    let upstream = ScriptedUpstream::start().await;
    upstream.ask_for_tokens(None);
    upstream.put_manifest("org/app", "1", &manifest("a"));
    upstream.delay("/org/", Duration::from_millis(600));
    let set = [
        "upstreams.tags_fresh_for=0s",
        "upstreams.stale_after=1s",
        "upstreams.answer_timeout=30s",
    ];
    let origin = Through::start_with(&upstream, &set).await;
    let cache = TempDir::new().unwrap();
    let edge = origin.edge(cache.path(), &set).await;
    let path = "/v2/hub/org/app/manifests/1";
    edge.get(path).await.is(200, &manifest("a"), "fwd=miss");
    let tags = "/v2/hub/org/app/tags/list";
    let [before, after] =
        ["1", "2"].map(|tag| Bytes::from(format!("{{\"name\":\"org/app\",\"tags\":[\"{tag}\"]}}")));
    upstream.put_list("/v2/org/app/tags/list", &before, "");
    assert_eq!(edge.get(tags).await.body, Some(before));
    // What cannot be had of others says nothing of these.
    upstream.script("/refused", |_| {
        let mut refusal = http::Response::new(Body::empty());
        *refusal.status_mut() = http::StatusCode::FORBIDDEN;
        refusal
    });
    for repo in ["refused/a/manifests/1", "org/app/manifests/refused"] {
        assert_eq!(edge.get(&format!("/v2/hub/{repo}")).await.status, 403);
    }
    upstream.put_manifest("org/app", "1", &manifest("b"));
    upstream.put_list("/v2/org/app/tags/list", &after, "");
    edge.get(path).await.is(200, &manifest("b"), "fwd=miss");
    assert_eq!(edge.get(tags).await.body, Some(after));
    edge.stop().await;
}

/// Its clients wait in vain each time that they ask.
#[tokio::test]
async fn one_that_is_silent_behind_the_origin_hurries_nobody_else() {
    let upstream = ScriptedUpstream::start().await;
    upstream.ask_for_tokens(None);
    upstream.delay("/silent/", Duration::from_hours(1));
    upstream.delay("/org/", Duration::from_millis(600));
    let set = ["upstreams.tags_fresh_for=0s", "upstreams.stale_after=1s"];
    let of_origin = [&set[..], &["upstreams.answer_timeout=3s"]].concat();
    let origin = Through::start_with(&upstream, &of_origin).await;
    let cache = TempDir::new().unwrap();
    let of_edge = [&set[..], &["upstreams.answer_timeout=30s"]].concat();
    let edge = origin.edge(cache.path(), &of_edge).await;
    let (path, silent) = (
        "/v2/hub/org/app/manifests/1",
        "/v2/hub/silent/a/manifests/1",
    );
    upstream.put_manifest("org/app", "1", &manifest("a"));
    edge.get(path).await.is(200, &manifest("a"), "fwd=miss");
    // The origin says what it is.
    assert_eq!(edge.get(silent).await.status, 503);
    upstream.put_manifest("org/app", "1", &manifest("b"));
    let moved = async {
        // The other is not waited for any longer by then, as far as that is up to this edge.
        tokio::time::sleep(Duration::from_millis(1300)).await;
        edge.get(path).await.is(200, &manifest("b"), "fwd=miss");
    };
    let (again, ()) = tokio::join!(edge.get(silent), moved);
    assert_eq!(again.status, 503);
    edge.stop().await;
}

#[tokio::test]
async fn an_origin_that_did_not_answer_says_nothing_of_whom_it_asks() {
    let upstream = ScriptedUpstream::start().await;
    upstream.ask_for_tokens(None);
    upstream.delay("/org/", Duration::from_millis(600));
    let set = [
        "upstreams.tags_fresh_for=0s",
        "upstreams.stale_after=1s",
        "upstreams.answer_timeout=30s",
        "upstreams.question_timeout=3s",
    ];
    let origin = Through::start_with(&upstream, &set).await;
    let cache = TempDir::new().unwrap();
    let edge = origin.edge(cache.path(), &set).await;
    let path = "/v2/hub/org/app/manifests/1";
    upstream.put_manifest("org/app", "1", &manifest("a"));
    edge.get(path).await.is(200, &manifest("a"), "fwd=miss");
    origin.hangs.store(true, Ordering::Relaxed);
    let answer = edge.get(path).await;
    answer.is(200, &manifest("a"), "fwd=stale; detail=origin-unreachable");
    origin.hangs.store(false, Ordering::Relaxed);
    // By this it is well again.
    upstream.put_manifest("other/app", "1", &manifest("a"));
    let other = edge.get("/v2/hub/other/app/manifests/1").await;
    assert_eq!(other.body, Some(manifest("a")));
    upstream.put_manifest("org/app", "1", &manifest("b"));
    edge.get(path).await.is(200, &manifest("b"), "fwd=miss");
    edge.stop().await;
}

#[tokio::test]
async fn an_origin_that_waits_in_vain_is_heard_out() {
    let upstream = ScriptedUpstream::start().await;
    let set = ["upstreams.tags_fresh_for=0s", "upstreams.stale_after=1s"];
    let origin = Through::start_with(&upstream, &set).await;
    let caches = [(); 2].map(|()| TempDir::new().unwrap());
    let first = origin.edge(caches[0].path(), &set).await;
    let second = origin.edge(caches[1].path(), &set).await;
    let path = "/v2/hub/org/app/manifests/1";
    for (edge, image) in [(&first, manifest("a")), (&second, manifest("b"))] {
        upstream.put_manifest("org/app", "1", &image);
        edge.get(path).await.is(200, &image, "fwd=miss");
    }
    upstream.behave(Behaviour::Silent);
    // It knows better than who was there before.
    let answer = first.get(path).await;
    answer.is(200, &manifest("b"), "fwd=stale; detail=origin-unreachable");
    first.stop().await;
    second.stop().await;
}

/// The origin may be asked in vain by then, and is not to be taken for one that is far away.
#[tokio::test]
async fn what_stands_in_for_an_answer_makes_nobody_wait_for_longer() {
    let upstream = ScriptedUpstream::start().await;
    let set = ["upstreams.tags_fresh_for=0s", "upstreams.stale_after=1s"];
    let origin = Through::start_with(&upstream, &set).await;
    let caches = [(); 2].map(|()| TempDir::new().unwrap());
    let set = [&set[..], &["upstreams.answer_timeout=30s"]].concat();
    let edges = [
        origin.edge(caches[0].path(), &set).await,
        origin.edge(caches[1].path(), &set).await,
    ];
    let paths = ["manifests/1", "tags/list"]
        .map(|about| ["app", "other"].map(|repo| format!("/v2/hub/org/{repo}/{about}")));
    for repo in ["org/app", "org/other"] {
        upstream.put_manifest(repo, "1", &manifest("a"));
        let list = Bytes::from(format!("{{\"name\":\"{repo}\",\"tags\":[\"1\"]}}"));
        upstream.put_list(&format!("/v2/{repo}/tags/list"), &list, "");
    }
    for (edge, paths) in edges.iter().zip(&paths) {
        for path in paths {
            assert_eq!(edge.get(path).await.status, 200);
        }
    }
    let stale = async |edge: &RunningEdge, path: &str| {
        let began = Instant::now();
        let answer = edge.get(path).await;
        assert!(answer.headers.contains_key("warning"), "{path}");
        began.elapsed()
    };
    upstream.behave(Behaviour::Silent);
    for (edge, [path, _]) in edges.iter().zip(&paths) {
        stale(edge, path).await;
    }
    origin.hangs.store(true, Ordering::Relaxed);
    for (edge, [_, path]) in edges.iter().zip(&paths) {
        let took = stale(edge, path).await;
        assert!(took < Duration::from_secs(10), "{path} {took:?}");
    }
    for edge in edges {
        edge.stop().await;
    }
}

#[tokio::test]
async fn a_hung_origin_is_waited_for_once_for_what_is_here() {
    const LIMIT: Duration = Duration::from_secs(2);
    let upstream = ScriptedUpstream::start().await;
    let image = manifest("a");
    let origin = Through::start(&upstream).await;
    let cache = TempDir::new().unwrap();
    let set = [
        "upstreams.tags_fresh_for=0s",
        "upstreams.stale_after=200ms",
        "upstreams.answer_timeout=2s",
        "upstreams.question_timeout=1h",
    ];
    let edge = origin.edge(cache.path(), &set).await;
    let path = |tag: &str| format!("/v2/hub/org/app/manifests/{tag}");
    for tag in ["1", "2"] {
        upstream.put_manifest("org/app", tag, &image);
        edge.get(&path(tag)).await.is(200, &image, "fwd=miss");
    }
    // That it is quick for the other is no reason to wait for less.
    upstream.delay("/manifests/3", Duration::from_millis(300));
    upstream.put_manifest("org/app", "3", &image);
    edge.get(&path("3")).await.is(200, &image, "fwd=miss");
    origin.hangs.store(true, Ordering::Relaxed);
    let soon = Duration::ZERO..LIMIT / 2;
    for (tag, expected) in [("1", LIMIT..2 * LIMIT), ("1", soon.clone()), ("2", soon)] {
        let began = Instant::now();
        let answer = edge.get(&path(tag)).await;
        let took = began.elapsed();
        answer.is(200, &image, "fwd=stale; detail=origin-unreachable");
        assert!(expected.contains(&took), "{tag} {took:?}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_list_of_a_hung_origin_is_waited_for_once() {
    const LIMIT: Duration = Duration::from_secs(2);
    let upstream = ScriptedUpstream::start().await;
    let origin = Through::start(&upstream).await;
    let cache = TempDir::new().unwrap();
    let set = [
        "upstreams.stale_after=200ms",
        "upstreams.answer_timeout=2s",
        "upstreams.question_timeout=1h",
    ];
    let edge = origin.edge(cache.path(), &set).await;
    // So that it is known to take its time.
    upstream.delay("/org/app/tags/", Duration::from_millis(300));
    let path = |repo: &str| format!("/v2/hub/org/{repo}/tags/list");
    for repo in ["app", "other"] {
        let list = Bytes::from(format!("{{\"name\":\"org/{repo}\",\"tags\":[\"1\"]}}"));
        upstream.put_list(&format!("/v2/org/{repo}/tags/list"), &list, "");
        assert_eq!(edge.get(&path(repo)).await.body, Some(list));
    }
    origin.hangs.store(true, Ordering::Relaxed);
    let soon = Duration::ZERO..LIMIT / 2;
    for (repo, expected) in [
        ("app", LIMIT..2 * LIMIT),
        ("app", soon.clone()),
        ("other", soon),
    ] {
        let began = Instant::now();
        let answer = edge.get(&path(repo)).await;
        let took = began.elapsed();
        assert!(answer.headers.contains_key("warning"), "{repo}");
        assert!(expected.contains(&took), "{repo} {took:?}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_origin_that_was_quick_is_not_waited_for_when_it_hangs() {
    let upstream = ScriptedUpstream::start().await;
    // Which says nothing of tags.
    upstream.delay("/tags/list", Duration::from_millis(300));
    let tags = Bytes::from_static(b"{\"name\":\"org/app\",\"tags\":[\"1\"]}");
    upstream.put_list("/v2/org/app/tags/list", &tags, "");
    let image = manifest("a");
    upstream.put_manifest("org/app", "1", &image);
    let origin = Through::start(&upstream).await;
    let cache = TempDir::new().unwrap();
    let set = ["upstreams.tags_fresh_for=0s", "upstreams.stale_after=100ms"];
    let edge = origin.edge(cache.path(), &set).await;
    let path = "/v2/hub/org/app/manifests/1";
    edge.get(path).await.is(200, &image, "fwd=miss");
    assert_eq!(edge.get("/v2/hub/org/app/tags/list").await.body, Some(tags));
    origin.hangs.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let began = Instant::now();
        let answer = edge.get(path).await;
        let took = began.elapsed();
        answer.is(200, &image, "fwd=stale; detail=origin-unreachable");
        assert!(took < STALE_MAX, "{took:?}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn who_has_nothing_to_answer_with_does_not_say_so() {
    let upstream = ScriptedUpstream::start().await;
    let image = manifest("a");
    upstream.put_manifest("org/app", "1", &image);
    let cache = TempDir::new().unwrap();
    let set = ["upstreams.tags_fresh_for=0s", "upstreams.stale_if_error=0s"];
    let path = "/v2/hub/org/app/manifests/1";
    let (_origin, edge) = pulled_before(&[path], &upstream, (cache.path(), &set)).await;
    upstream.delay("/", Duration::from_millis(400));
    edge.get(path).await.is(200, &image, "fwd=miss");
    edge.stop().await;
}

#[tokio::test]
async fn what_the_origin_calls_stale_is_asked_for_again_before_long() {
    let upstream = ScriptedUpstream::start().await;
    upstream.put_manifest("org/app", "1", &manifest("a"));
    let origin = Through::start_with(&upstream, &["upstreams.tags_fresh_for=0s"]).await;
    let caches = [(); 2].map(|()| TempDir::new().unwrap());
    let set = ["upstreams.tags_fresh_for=1h", "upstreams.absent_for=1ms"];
    let first = origin.edge(caches[0].path(), &set).await;
    let second = origin.edge(caches[1].path(), &set).await;
    let path = "/v2/hub/org/app/manifests/1";
    first.get(path).await.is(200, &manifest("a"), "fwd=miss");
    upstream.behave(Behaviour::Status(500));
    let answer = second.get(path).await;
    answer.is(200, &manifest("a"), "fwd=stale; detail=origin-unreachable");
    upstream.put_manifest("org/app", "1", &manifest("b"));
    upstream.behave(Behaviour::Well);
    let moved = async {
        while second.get(path).await.body != Some(manifest("b")) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, moved).await.unwrap();
    first.stop().await;
    second.stop().await;
}

/// The origin does not have the edge wait that could answer with what it has; where the edge asks, nobody knows why it waits.
#[tokio::test]
async fn nobody_waits_for_what_the_origin_waits_for_in_vain() {
    let upstream = ScriptedUpstream::start().await;
    let image = manifest("a");
    for tag in ["1", "slow"] {
        upstream.put_manifest("org/app", tag, &image);
    }
    let list = Bytes::from_static(b"{\"name\":\"org/app\",\"tags\":[\"1\"]}");
    for repo in ["app", "slow"] {
        upstream.put_list(&format!("/v2/org/{repo}/tags/list"), &list, "");
    }
    upstream.delay("slow", Duration::from_millis(300));
    let cache = TempDir::new().unwrap();
    let set = ["upstreams.tags_fresh_for=0s", "upstreams.stale_after=200ms"];
    let paths = ["/v2/hub/org/app/manifests/1", "/v2/hub/org/app/tags/list"];
    let (_origin, edge) = pulled_before(&paths, &upstream, (cache.path(), &set)).await;
    // The edge would wait for as long as a question may take.
    for path in ["app/manifests/slow", "slow/tags/list"] {
        let answer = edge.get(&format!("/v2/hub/org/{path}")).await;
        assert_eq!(answer.status, 200);
    }
    upstream.behave(Behaviour::Silent);
    for (path, expected) in paths.iter().zip([&image, &list]) {
        for _ in 0..3 {
            let began = Instant::now();
            let answer = edge.get(path).await;
            let took = began.elapsed();
            answer.is(200, expected, "fwd=stale; detail=origin-unreachable");
            assert!(took < STALE_MAX, "{path} {took:?}");
        }
    }
    // Who has nothing waits as ever.
    let answer = edge.get("/v2/hub/org/app/manifests/2").await;
    assert_eq!(answer.status, 503);
    edge.stop().await;
}

/// A client may show what it has, and not be out for anything but news.
#[tokio::test]
async fn only_an_edge_is_spared_the_wait_for_what_it_shows() {
    let upstream = ScriptedUpstream::start().await;
    let image = manifest("a");
    upstream.put_manifest("org/app", "1", &image);
    upstream.delay("/", Duration::from_millis(400));
    let origin = Through::start(&upstream).await;
    let cache = TempDir::new().unwrap();
    let client = origin.edge(cache.path(), &[]).await;
    let etag = format!("\"{}\"", sha256(b"before"));
    let headers = (&[("if-none-match", &*etag)][..], Bytes::new());
    let path = "/v2/hub/org/app/manifests/1";
    let asked = client.try_send_to(origin.address, Method::GET, path, headers);
    let answer = asked.await.unwrap().finish().await;
    assert_eq!((answer.status.as_u16(), answer.body), (200, Some(image)));
    client.stop().await;
}

#[tokio::test]
async fn clients_hear_for_how_long_an_upstream_is_to_be_left_alone() {
    let upstream = ScriptedUpstream::start().await;
    upstream.behave(Behaviour::Status(429));
    let origin = Through::start(&upstream).await;
    let cache = TempDir::new().unwrap();
    let edge = origin.edge(cache.path(), &[]).await;
    let answer = edge.get("/v2/hub/org/app/manifests/1").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), "7");
    edge.stop().await;
}

#[tokio::test]
async fn an_origin_that_hangs_is_not_waited_for() {
    let origin = ScriptedOrigin::start().await;
    let cache = TempDir::new().unwrap();
    let set = [
        "upstream.0.name=hub",
        "upstream.0.url=http://127.0.0.1:1",
        "upstreams.question_timeout=100ms",
        "upstreams.min_rest=1m",
        "upstreams.max_rest=1m",
    ];
    let edge = RunningEdge::start(cache.path(), origin.address, &set).await;
    origin.fail_always(Fault::Silence);
    for number in 0..6 {
        let path = format!("/v2/hub/org/app/manifests/{number}");
        assert_eq!(edge.get(&path).await.status, 503);
    }
    assert_eq!(origin.seen(&Method::GET, "/manifests/").len(), 3);
    let up = edge.metric("outport_edge_upstream_up{upstream=\"hub\"}");
    assert_eq!(up, Some(0.0));
    edge.stop().await;
}
