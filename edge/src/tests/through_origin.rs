//! Edges that ask upstreams by way of the origin.

mod waiting;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use outport_core::access::Caller;
use outport_core::body::Body;
use outport_core::config::Sources;
use outport_core::net::respond::error_response;
use outport_core::net::serve::{self, Server};
use outport_core::oci::error::ErrorCode;
use outport_core::oci::route::Route;
use outport_core::tasks::Tasks;
use outport_core::telemetry::Metrics;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::origin::{ScriptedOrigin, TASKS};
use super::upstreams::manifest;
use super::upstreams::scripted::{Behaviour, ScriptedUpstream};
use super::{RunningEdge, content, sha256};
use crate::config::PullThroughConfig;
use crate::pull_through::PullThrough;
use crate::source::{OUTPORT_HOPS, OUTPORT_UPSTREAM};

/// What an origin has for upstreams, on a port of its own.
struct Through {
    address: SocketAddr,
    /// Whether it takes requests and does not answer.
    hangs: Arc<AtomicBool>,
    down: CancellationToken,
    _cache: TempDir,
}

impl Through {
    async fn start(upstream: &ScriptedUpstream) -> Self {
        Self::start_with(upstream, &["upstreams.tags_fresh_for=1m"]).await
    }

    async fn start_with(upstream: &ScriptedUpstream, more: &[&str]) -> Self {
        let cache = TempDir::new().unwrap();
        let mut set = vec![
            format!("cache.path={}", cache.path().display()),
            "upstream.0.name=hub".to_owned(),
            format!("upstream.0.url=http://{}", upstream.address),
            "upstreams.min_rest=1ms".to_owned(),
            "upstreams.max_rest=1ms".to_owned(),
        ];
        set.extend(more.iter().map(|&set| set.to_owned()));
        let sources = Sources {
            file: None,
            env: &[],
            set: &set,
            read_file: &|path| std::fs::read_to_string(path),
        };
        let read = outport_core::config::read(sources, |section| {
            PullThroughConfig::read_of_origin(section, "origin".to_owned(), None)
        });
        let config = read.unwrap().config;
        let metrics = Metrics::new();
        let built = PullThrough::build(&config, (&metrics, "origin"), &Tasks::new()).await;
        let pulls = built.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let down = CancellationToken::new();
        let server = Server::new("origin", serve::Config::default(), &metrics);
        let hangs = Arc::new(AtomicBool::new(false));
        let (end, is_hung) = (down.clone(), Arc::clone(&hangs));
        drop(TASKS.spawn("origin", async move {
            let call = move |request| answer(pulls.clone(), request, Arc::clone(&is_hung));
            server.run(listener, call, end).await;
        }));
        Self {
            address,
            hangs,
            down,
            _cache: cache,
        }
    }

    async fn edge(&self, cache: &Path, set: &[&str]) -> RunningEdge {
        let all = [
            &[
                "upstream.0.name=hub",
                // Nobody is there.
                "upstream.0.url=http://127.0.0.1:1",
                "upstreams.min_rest=1ms",
                "upstreams.max_rest=1ms",
                // This machine may have other things to do.
                "upstreams.stale_after=2s",
            ],
            set,
        ];
        RunningEdge::start(cache, self.address, &all.concat()).await
    }
}

/// Answers as an origin does.
async fn answer(
    pulls: PullThrough,
    mut request: http::Request<Body>,
    hangs: Arc<AtomicBool>,
) -> http::Response<Body> {
    if hangs.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let headers = request.headers_mut();
    headers.remove(OUTPORT_HOPS);
    let Some(name) = headers.remove(OUTPORT_UPSTREAM) else {
        return pulls.call(request).await;
    };
    let routed = Route::parse(request.method(), request.uri()).unwrap();
    if !pulls.asks(&name, &routed.route, &Caller::Anybody) {
        return error_response(&ErrorCode::Unavailable.into());
    }
    let mut response = pulls.call_for_edge(request).await;
    response.headers_mut().insert(OUTPORT_UPSTREAM, name);
    response
}

impl Drop for Through {
    fn drop(&mut self) {
        self.down.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pulls_by_four_edges_cost_the_upstream_one() {
    const PULLS: usize = 1000;
    let upstream = ScriptedUpstream::start().await;
    upstream.ask_for_tokens(None);
    let (index, child) = (manifest("index"), manifest("child"));
    upstream.put_manifest("org/app", "latest", &index);
    upstream.put_manifest("org/app", "child", &child);
    let blobs: Vec<Bytes> = (0..3).map(|seed| content(100_000, seed)).collect();
    for blob in &blobs {
        upstream.put_blob("org/app", blob);
    }
    let origin = Through::start(&upstream).await;
    let caches: Vec<_> = (0..4).map(|_| TempDir::new().unwrap()).collect();
    let mut edges = Vec::new();
    for cache in &caches {
        edges.push(origin.edge(cache.path(), &[]).await);
    }
    let pull = async |edge: &RunningEdge| {
        let get = async |path: String, expected: &Bytes| {
            let answer = edge.get(&format!("/v2/hub/org/app/{path}")).await;
            assert_eq!(answer.body.as_ref(), Some(expected), "{path}");
        };
        get("manifests/latest".to_owned(), &index).await;
        get(format!("manifests/{}", sha256(&child)), &child).await;
        for blob in &blobs {
            get(format!("blobs/{}", sha256(blob)), blob).await;
        }
    };
    // As many at a time as there are file descriptors for.
    for begin in (0..PULLS).step_by(250) {
        let edges = &edges;
        join_all((begin..begin + 250).map(|number| pull(&edges[number % 4]))).await;
    }
    assert_eq!(upstream.counted_let_in("/manifests/latest"), 1);
    let by_digest = format!("/manifests/{}", sha256(&child));
    assert_eq!(upstream.counted_let_in(&by_digest), 1);
    assert_eq!(upstream.counted_let_in("/blobs/"), blobs.len());
    assert_eq!(upstream.count("GET", "/token"), 1);
    for edge in edges {
        edge.stop().await;
    }
}

#[tokio::test]
async fn edges_agree_on_where_a_tag_points_and_go_on_without_either() {
    let upstream = ScriptedUpstream::start().await;
    let image = manifest("a");
    upstream.put_manifest("org/app", "1", &image);
    let origin = Through::start(&upstream).await;
    let path = "/v2/hub/org/app/manifests/1";
    let caches = [(); 2].map(|()| TempDir::new().unwrap());
    let set = ["upstreams.tags_fresh_for=0s"];
    let first = origin.edge(caches[0].path(), &set).await;
    let second = origin.edge(caches[1].path(), &set).await;
    first.get(path).await.is(200, &image, "fwd=miss");
    // It moves, and all see what the first was told, until the origin asks again.
    upstream.put_manifest("org/app", "1", &manifest("b"));
    for edge in [&first, &second] {
        assert_eq!(edge.get(path).await.body, Some(image.clone()));
    }
    upstream.behave(Behaviour::Status(503));
    for _ in 0..5 {
        assert_eq!(first.get("/v2/hub/org/app/manifests/2").await.status, 503);
    }
    assert_eq!(first.get(path).await.body, Some(image.clone()));
    drop(origin);
    let gone = async {
        loop {
            let answer = first.get(path).await;
            assert_eq!(answer.body, Some(image.clone()));
            if answer.headers.contains_key("warning") {
                return;
            }
        }
    };
    timeout(super::PATIENCE, gone).await.unwrap();
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn blobs_may_come_from_the_upstream_itself() {
    let upstream = ScriptedUpstream::start().await;
    let (image, blob) = (manifest("a"), content(100_000, 1));
    upstream.put_manifest("org/app", "1", &image);
    upstream.put_blob("org/app", &blob);
    let names_only = ScriptedUpstream::start().await;
    names_only.put_manifest("org/app", "1", &image);
    let origin = Through::start(&names_only).await;
    let cache = TempDir::new().unwrap();
    let url = format!("upstream.0.url=http://{}", upstream.address);
    let edge = origin
        .edge(cache.path(), &[&url, "upstreams.blobs_from=upstream"])
        .await;
    let path = "/v2/hub/org/app/manifests/1";
    edge.get(path).await.is(200, &image, "fwd=miss");
    let blob_path = format!("/v2/hub/org/app/blobs/{}", sha256(&blob));
    edge.get(&blob_path).await.is(200, &blob, "fwd=miss");
    assert_eq!(names_only.seen("/blobs/").len(), 0);
    assert_eq!(upstream.seen("/manifests/").len(), 0);
    edge.stop().await;
}

#[tokio::test]
async fn a_layer_of_an_upstream_enters_a_region_once() {
    let upstream = ScriptedUpstream::start().await;
    let blob = content(300_000, 1);
    upstream.put_blob("org/app", &blob);
    let listeners = [
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    ];
    let addresses = [0, 1].map(|own: usize| listeners[own].local_addr().unwrap());
    let caches = [(); 2].map(|()| TempDir::new().unwrap());
    let mut edges = Vec::new();
    for (own, listener) in listeners.into_iter().enumerate() {
        let set = [
            format!("name=node-{own}"),
            format!("sibling.0.name=node-{}", 1 - own),
            format!("sibling.0.url=http://{}", addresses[1 - own]),
            "siblings.overtake_after=1m".to_owned(),
            "origin.urls=[]".to_owned(),
            "upstream.0.name=hub".to_owned(),
            format!("upstream.0.url=http://{}", upstream.address),
        ];
        let set: Vec<_> = set.iter().map(String::as_str).collect();
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        edges.push(RunningEdge::start_on(listener, caches[own].path(), nobody, &set).await);
    }
    let path = format!("/v2/hub/org/app/blobs/{}", sha256(&blob));
    for edge in &edges {
        let answer = edge.get(&path).await;
        assert_eq!(
            (answer.status, answer.body),
            (200.try_into().unwrap(), Some(blob.clone()))
        );
        edge.settle().await;
    }
    assert_eq!(upstream.count("GET", "/blobs/"), 1);
    for edge in edges {
        edge.stop().await;
    }
}

#[tokio::test]
async fn what_the_origin_holds_is_served_and_as_old_as_it_is() {
    let upstream = ScriptedUpstream::start().await;
    let image = manifest("a");
    upstream.put_manifest("org/app", "1", &image);
    let origin = Through::start_with(&upstream, &["upstreams.tags_fresh_for=0s"]).await;
    let caches = [(); 2].map(|()| TempDir::new().unwrap());
    let set = ["upstreams.min_rest=1h", "upstreams.max_rest=1h"];
    let first = origin.edge(caches[0].path(), &set).await;
    let second = origin.edge(caches[1].path(), &set).await;
    let path = "/v2/hub/org/app/manifests/1";
    first.get(path).await.is(200, &image, "fwd=miss");
    for behaviour in [Behaviour::Status(503), Behaviour::Status(403)] {
        upstream.behave(behaviour);
        // That the upstream is away, or does not let them in, is not the origin's fault.
        for _ in 0..5 {
            assert_ne!(second.get("/v2/hub/org/app/manifests/2").await.status, 404);
        }
        let answer = second.get(path).await;
        answer.is(200, &image, "fwd=stale; detail=origin-unreachable");
        assert!(answer.headers.contains_key("warning"));
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn what_the_origin_calls_stale_is_not_asked_for_with_each_pull() {
    let upstream = ScriptedUpstream::start().await;
    let image = manifest("a");
    upstream.put_manifest("org/app", "1", &image);
    let origin = Through::start_with(&upstream, &["upstreams.tags_fresh_for=0s"]).await;
    let cache = TempDir::new().unwrap();
    let path = "/v2/hub/org/app/manifests/1";
    let edge = origin
        .edge(cache.path(), &["upstreams.tags_fresh_for=1h"])
        .await;
    edge.get(path).await.is(200, &image, "fwd=miss");
    edge.stop().await;
    // One that has it from before asks for it again, once.
    let edge = origin
        .edge(cache.path(), &["upstreams.tags_fresh_for=1h"])
        .await;
    upstream.behave(Behaviour::Status(500));
    for _ in 0..5 {
        let answer = edge.get(path).await;
        answer.is(200, &image, "fwd=stale; detail=origin-unreachable");
        assert!(answer.headers.contains_key("warning"));
    }
    let questions = "outport_edge_upstream_questions_total{upstream=\"hub\"}";
    assert_eq!(edge.metric(questions), Some(1.0));
    edge.stop().await;
}

#[tokio::test]
async fn an_edge_keeps_to_its_own_list_of_what_may_be_pulled() {
    let upstream = ScriptedUpstream::start().await;
    upstream.put_manifest("secret/app", "1", &manifest("a"));
    let origin = Through::start(&upstream).await;
    let cache = TempDir::new().unwrap();
    let edge = origin
        .edge(cache.path(), &["upstream.0.deny=[\"secret/*\"]"])
        .await;
    let answer = edge.get("/v2/hub/secret/app/manifests/1").await;
    assert_eq!(answer.status, 403);
    assert_eq!(upstream.seen("/").len(), 0);
    edge.stop().await;
}

#[tokio::test]
async fn only_an_origin_that_asks_an_upstream_speaks_for_it() {
    let upstream = ScriptedUpstream::start().await;
    let image = manifest("a");
    upstream.put_manifest("org/app", "1", &image);
    let cache = TempDir::new().unwrap();
    let url = format!("upstream.0.url=http://{}", upstream.address);
    // One that does not know that upstream, and one that knows none, but has a repository of that name.
    let other = Through::start(&upstream).await;
    let hosting = ScriptedOrigin::start().await;
    hosting.put_manifest("theirs/org/app", "1", &manifest("pushed"));
    let path = "/v2/theirs/org/app/manifests/1";
    let set = ["upstream.0.name=theirs", &url];
    let itself = ["upstreams.names_from=upstream"];
    let all = [&set[..], &itself].concat();
    let edge = RunningEdge::start(cache.path(), hosting.address, &all).await;
    edge.get(path).await.is(200, &image, "fwd=miss");
    edge.stop().await;
    for address in [other.address, hosting.address] {
        let edge = RunningEdge::start(cache.path(), address, &set).await;
        let answer = edge.get(path).await;
        answer.is(200, &image, "fwd=stale; detail=origin-unreachable");
        assert_eq!(edge.get("/v2/theirs/org/app/manifests/2").await.status, 503);
        edge.stop().await;
    }
}
