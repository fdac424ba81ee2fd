//! Blobs, as they come in and when they are here.

use futures_util::future::join_all;
use http::Method;

use super::{Rig, RunningEdge, blob_path, content, sha256};

/// Large enough to be moved in many batches.
const LAYER: usize = 5_000_000;

#[tokio::test]
async fn a_blob_comes_in_once_and_is_then_served_without_asking() {
    let rig = Rig::new().await;
    for length in [1, 65_536, 65_537, LAYER] {
        let blob = content(length, 1);
        rig.origin.put_blob("a/b", &blob);
        let path = blob_path("a/b", &blob);
        let cold = rig.edge.get(&path).await;
        cold.is(200, &blob, "fwd=miss");
        assert_eq!(
            cold.header("docker-content-digest"),
            sha256(&blob).to_string()
        );
        assert_eq!(cold.header("accept-ranges"), "bytes");
        rig.edge.settle().await;
        let asked = rig.origin.seen_all();
        rig.edge.get(&path).await.is(200, &blob, "hit");
        rig.edge
            .get_range(&path, "bytes=0-0")
            .await
            .is(206, &blob[..1], "hit");
        rig.edge.head(&path).await.is(200, b"", "hit");
        assert_eq!(rig.origin.seen_all(), asked, "a warm hit asked the origin");
        assert_eq!(rig.origin.seen(&Method::GET, &path).len(), 1);
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_crowd_costs_one_transfer() {
    let rig = Rig::new().await;
    let blob = content(LAYER, 2);
    for repo in ["a", "b"] {
        rig.origin.put_blob(repo, &blob);
    }
    rig.origin.allow(1_000_000);
    let crowd = join_all((0..50).map(async |number| {
        let repo = if number % 2 == 0 { "a" } else { "b" };
        let path = blob_path(repo, &blob);
        rig.edge.begin(Method::GET, &path, &[]).await
    }))
    .await;
    rig.origin.allow(u64::MAX);
    let answers = join_all(crowd.into_iter().map(super::Begun::finish)).await;
    let mut started = 0;
    for answer in &answers {
        let served = answer.header("cache-status");
        started += usize::from(served == "outport-edge-1; fwd=miss");
        let served = served.split_once("; ").unwrap().1.to_owned();
        answer.is(200, &blob, &served);
    }
    assert_eq!(started, 1);
    let path = sha256(&blob).to_string();
    assert_eq!(rig.origin.seen(&Method::GET, &path).len(), 1);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_late_joiner_reads_from_the_start_and_the_starter_may_leave() {
    let rig = Rig::new().await;
    let blob = content(LAYER, 3);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    rig.origin.allow(2_000_000);
    let mut starter = rig.edge.begin(Method::GET, &path, &[]).await;
    assert!(blob.starts_with(&starter.some().await));
    starter.leave();
    // Far behind the start, so that the joiner finds its first bytes on disk only.
    let mut joiner = rig.edge.begin(Method::GET, &path, &[]).await;
    assert!(blob.starts_with(&joiner.some().await));
    let joiner_headers = joiner.headers.clone();
    assert_eq!(
        joiner_headers["cache-status"],
        "outport-edge-1; fwd=miss; collapsed"
    );
    let middle = rig.edge.get_range(&path, "bytes=100-199").await;
    middle.is(206, &blob[100..200], "fwd=miss; collapsed");
    let tail = rig
        .edge
        .begin(Method::GET, &path, &[("range", "bytes=-10")])
        .await;
    let rest = rig
        .edge
        .begin(Method::GET, &path, &[("range", "bytes=4000000-")])
        .await;
    assert_eq!(
        rest.headers["content-range"],
        "bytes 4000000-4999999/5000000"
    );
    rig.origin.allow(u64::MAX);
    tail.finish()
        .await
        .is(206, &blob[LAYER - 10..], "fwd=miss; collapsed");
    rest.finish()
        .await
        .is(206, &blob[4_000_000..], "fwd=miss; collapsed");
    let answer = joiner.finish().await;
    assert!(blob.ends_with(&answer.body.unwrap()));
    assert_eq!(rig.origin.seen(&Method::GET, &path).len(), 1);
    rig.edge.stop().await;
}

#[tokio::test]
async fn the_end_waits_for_the_whole() {
    let rig = Rig::new().await;
    let blob = content(LAYER, 4);
    rig.origin.put_blob("a", &blob);
    rig.origin.fail_next(super::origin::Fault::FlipAt(17));
    let path = blob_path("a", &blob);
    let whole = rig.edge.get(&path).await;
    assert_eq!((whole.status.as_u16(), whole.body), (200, None));
    assert_eq!(
        rig.edge.metric("outport_edge_digest_mismatches_total"),
        Some(1.0)
    );
    rig.edge.settle().await;
    assert_eq!(rig.edge.metric("outport_edge_cache_blobs"), Some(0.0));
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn the_capacity_is_kept_and_what_is_evicted_comes_again() {
    let rig = Rig::with(&["cache.capacity=1MB"]).await;
    let blobs: Vec<_> = (0..6).map(|seed| content(300_000, 10 + seed)).collect();
    for blob in &blobs {
        rig.origin.put_blob("a", blob);
        rig.edge
            .get(&blob_path("a", blob))
            .await
            .is(200, blob, "fwd=miss");
        rig.edge.settle().await;
        assert!(rig.edge.metric("outport_edge_cache_bytes") <= Some(1_000_000.0));
    }
    assert_eq!(
        rig.edge.metric("outport_edge_cache_evictions_total"),
        Some(3.0)
    );
    rig.edge
        .get(&blob_path("a", &blobs[5]))
        .await
        .is(200, &blobs[5], "hit");
    rig.edge
        .get(&blob_path("a", &blobs[0]))
        .await
        .is(200, &blobs[0], "fwd=miss");
    let large = content(1_000_001, 20);
    rig.origin.put_blob("a", &large);
    rig.edge
        .get(&blob_path("a", &large))
        .await
        .is(200, &large, "fwd=miss");
    rig.edge.settle().await;
    assert_eq!(rig.edge.metric("outport_edge_cache_blobs"), Some(3.0));
    rig.edge.stop().await;
}

#[tokio::test]
async fn leftovers_of_a_crash_are_dropped_and_a_cut_file_is_fetched_again() {
    let rig = Rig::new().await;
    let blob = content(100_000, 5);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    rig.edge.settle().await;
    let file = rig.cached_file(&blob);
    rig.edge.stop().await;

    let edge = RunningEdge::start(rig.cache.path(), rig.origin.address, &[]).await;
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(10)
        .unwrap();
    edge.get(&path).await.is(200, &blob, "fwd=miss");
    edge.settle().await;
    edge.get(&path).await.is(200, &blob, "hit");
    edge.stop().await;
}
