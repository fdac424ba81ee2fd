//! Several edges of one region.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::origin::{Fault, ScriptedOrigin};
use super::{RunningEdge, blob_path, content};

const LAYER: usize = 5_000_000;
const NODES: usize = 3;

/// A region, and where its edges have their caches.
struct Region {
    origin: Arc<ScriptedOrigin>,
    edges: Vec<RunningEdge>,
    caches: Vec<TempDir>,
}

impl Region {
    async fn new() -> Self {
        let origin = ScriptedOrigin::start().await;
        let mut listeners = Vec::new();
        for _ in 0..NODES {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses: Vec<_> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        let (mut edges, mut caches) = (Vec::new(), Vec::new());
        for (own, listener) in listeners.into_iter().enumerate() {
            let mut set = vec![
                format!("name=node-{own}"),
                "siblings.overtake_after=1m".to_owned(),
            ];
            let others = (0..NODES).filter(|&other| other != own);
            for (index, other) in others.enumerate() {
                set.push(format!("sibling.{index}.name=node-{other}"));
                set.push(format!("sibling.{index}.url=http://{}", addresses[other]));
            }
            let set: Vec<_> = set.iter().map(String::as_str).collect();
            let cache = tempfile::tempdir().unwrap();
            edges.push(RunningEdge::start_on(listener, cache.path(), origin.address, &set).await);
            caches.push(cache);
        }
        Self {
            origin,
            edges,
            caches,
        }
    }

    /// Has a blob brought in through every edge in turn; returns what they say of it.
    async fn pull_everywhere(&self, blob: &Bytes) -> Vec<String> {
        let path = blob_path("a", blob);
        let mut said = Vec::new();
        for edge in &self.edges {
            let answer = edge.get(&path).await;
            assert!(answer.body.as_ref() == Some(blob));
            edge.settle().await;
            said.push(answer.header("cache-status").to_owned());
        }
        said
    }

    async fn stop(self) {
        for edge in self.edges {
            edge.stop().await;
        }
        drop(self.caches);
    }
}

#[tokio::test]
async fn a_layer_enters_the_region_once() {
    let region = Region::new().await;
    let blob = content(LAYER, 1);
    region.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    region.origin.allow(1_000_000);
    let crowd = region.edges.iter().cycle().take(10 * NODES);
    let crowd = join_all(crowd.map(async |edge| edge.begin(Method::GET, &path, &[]).await)).await;
    region.origin.allow(u64::MAX);
    for answer in join_all(crowd.into_iter().map(super::Begun::finish)).await {
        assert_eq!(answer.status, 200);
        assert!(answer.body.as_ref() == Some(&blob));
    }
    assert_eq!(region.origin.seen(&Method::GET, &path).len(), 1);
    region.stop().await;
}

#[tokio::test]
async fn a_node_says_that_a_sibling_helped() {
    let region = Region::new().await;
    let blob = content(LAYER, 2);
    region.origin.put_blob("a", &blob);
    let said = region.pull_everywhere(&blob).await;
    // The owner fetched it itself, or had fetched it when it was asked by its own clients.
    let helped = said
        .iter()
        .filter(|status| status.contains("detail=sibling"));
    assert!(helped.count() >= NODES - 2, "{said:?}");
    let path = blob_path("a", &blob);
    assert_eq!(region.origin.seen(&Method::GET, &path).len(), 1);
    region.stop().await;
}

#[tokio::test]
async fn a_sibling_serves_only_those_who_may() {
    let region = Region::new().await;
    let blob = content(LAYER, 4);
    region.origin.put_blob("a", &blob);
    region.pull_everywhere(&blob).await;
    let path = blob_path("stranger", &blob);
    for edge in &region.edges {
        assert_eq!(edge.get(&path).await.status, 404);
    }
    region.stop().await;
}

#[tokio::test]
async fn an_owner_that_dies_costs_nothing_but_speed() {
    let mut region = Region::new().await;
    for seed in 10.. {
        let blob = content(LAYER, seed);
        region.origin.put_blob("a", &blob);
        let path = blob_path("a", &blob);
        region.origin.allow(2_000_000);
        let begun = region.edges[0].begin(Method::GET, &path, &[]).await;
        let status = begun.headers["cache-status"].to_str().unwrap().to_owned();
        if !status.contains("detail=sibling") {
            // This node is the owner itself: another blob.
            region.origin.allow(u64::MAX);
            begun.finish().await;
            continue;
        }
        // Both others go: one of them was the source.
        for edge in region.edges.drain(1..) {
            edge.stop().await;
        }
        region.origin.allow(u64::MAX);
        let answer = begun.finish().await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.as_ref() == Some(&blob));
        break;
    }
    region.stop().await;
}

/// An edge with a sibling that does as it is told.
struct Beside {
    origin: Arc<ScriptedOrigin>,
    sibling: Arc<ScriptedOrigin>,
    edge: RunningEdge,
    _cache: TempDir,
}

impl Beside {
    async fn with(set: &[&str]) -> Self {
        let (origin, sibling) = (ScriptedOrigin::start().await, ScriptedOrigin::start().await);
        let cache = TempDir::new().unwrap();
        let url = format!("sibling.0.url=http://{}", sibling.address);
        let beside = ["name=node-0", "sibling.0.name=node-1", &url];
        let set = [&beside[..], set].concat();
        let edge = RunningEdge::start(cache.path(), origin.address, &set).await;
        Self {
            origin,
            sibling,
            edge,
            _cache: cache,
        }
    }

    /// Puts a blob where both have it.
    fn put(&self, seed: u64) -> Bytes {
        let blob = content(3_000_000, seed);
        for node in [&self.origin, &self.sibling] {
            node.put_blob("a", &blob);
        }
        blob
    }
}

#[tokio::test]
async fn a_sibling_that_breaks_off_again_and_again_is_given_up() {
    let beside = Beside::with(&[]).await;
    let Beside { sibling, edge, .. } = &beside;
    // Of several, some are the sibling's.
    for seed in 0..8 {
        let blob = beside.put(100 + seed);
        for _ in 0..8 {
            sibling.fail_next(Fault::DieAt(100_000));
        }
        let answer = edge.get(&blob_path("a", &blob)).await;
        assert!(answer.body.as_ref() == Some(&blob));
    }
    let asked = sibling.seen(&Method::GET, "/blobs/");
    assert!((1..=8).contains(&asked.len()), "{asked:?}");
    beside.edge.stop().await;
}

/// It breaks off itself when it sees that what it brought is wrong. Whose that was, the next pull tells.
#[tokio::test]
async fn a_sibling_that_broke_off_is_not_blamed_for_wrong_bytes() {
    let beside = Beside::with(&[]).await;
    let Beside {
        origin,
        sibling,
        edge,
        ..
    } = &beside;
    for seed in 0..8 {
        let blob = beside.put(300 + seed);
        sibling.fail_next(Fault::DieAt(1_000_000));
        origin.fail_next(Fault::FlipAt(2_900_000));
        assert_eq!(edge.get(&blob_path("a", &blob)).await.body, None);
        edge.settle().await;
    }
    let asked = sibling.seen(&Method::GET, "/blobs/");
    assert!(asked.len() > 1, "{asked:?}");
    beside.edge.stop().await;
}

#[tokio::test]
async fn a_sibling_that_is_left_is_blamed_for_what_it_gave() {
    let beside = Beside::with(&["siblings.stall_timeout=1h"]).await;
    let Beside {
        origin,
        sibling,
        edge,
        ..
    } = &beside;
    sibling.allow(100_000);
    // Of several, some are the sibling's.
    for seed in 0..8 {
        let blob = beside.put(300 + seed);
        origin.fail_next(Fault::FlipAt(2_900_000));
        assert_eq!(edge.get(&blob_path("a", &blob)).await.body, None);
        edge.settle().await;
    }
    let asked = sibling.seen(&Method::GET, "/blobs/");
    assert_eq!(asked.len(), 1, "{asked:?}");
    beside.edge.stop().await;
}

#[tokio::test]
async fn a_sibling_that_lies_and_breaks_off_spoils_one_pull() {
    let beside = Beside::with(&[]).await;
    let Beside { sibling, edge, .. } = &beside;
    for _ in 0..100 {
        sibling.fail_next(Fault::FlipAndDieAt(1_000_000));
    }
    let mut spoilt = 0;
    // Of several, some are the sibling's.
    for seed in 0..8 {
        let blob = beside.put(400 + seed);
        let path = blob_path("a", &blob);
        while edge.get(&path).await.body.as_ref() != Some(&blob) {
            spoilt += 1;
            edge.settle().await;
            assert_eq!(spoilt, 1);
        }
    }
    assert_eq!(spoilt, 1);
    beside.edge.stop().await;
}

#[tokio::test]
async fn a_sibling_that_hardly_brings_anything_is_left_for_the_origin() {
    let beside = Beside::with(&["siblings.stall_timeout=1h"]).await;
    let Beside { sibling, edge, .. } = &beside;
    sibling.allow(100_000);
    // Of several, some are the sibling's.
    for seed in 0..8 {
        let blob = beside.put(200 + seed);
        let answer = edge.get(&blob_path("a", &blob)).await;
        assert!(answer.body.as_ref() == Some(&blob));
    }
    assert!(!sibling.seen(&Method::GET, "/blobs/").is_empty());
    beside.edge.stop().await;
}

#[tokio::test]
async fn a_sick_region_is_passed_by() {
    let mut region = Region::new().await;
    for edge in region.edges.drain(1..) {
        edge.stop().await;
    }
    for seed in 30..36 {
        let blob = content(100_000, seed);
        region.origin.put_blob("a", &blob);
        let answer = region.edges[0].get(&blob_path("a", &blob)).await;
        answer.headers.get("cache-status").unwrap();
        assert!(answer.body.as_ref() == Some(&blob));
    }
    // What the origin refuses is refused, whoever was asked before.
    region.origin.fail_next(Fault::Status(401));
    let blob = content(10, 40);
    region.origin.put_blob("a", &blob);
    assert_eq!(
        region.edges[0].get(&blob_path("a", &blob)).await.status,
        401
    );
    region.stop().await;
}
