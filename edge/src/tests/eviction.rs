//! A cache that is much smaller than what is asked for.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

use std::path::Path;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::Method;

use super::origin::ScriptedOrigin;
use super::{Answer, Rig, RunningEdge, blob_path, content, sha256};

/// How many clients pull at once.
const CLIENTS: usize = 8;

/// Returns what the files of blobs have, all together.
fn bytes_on_disk(cache: &Path) -> u64 {
    let folders = std::fs::read_dir(cache.join("blobs/sha256")).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    // One that is gone meanwhile has none.
    let sizes = files.filter_map(|file| Some(file.unwrap().metadata().ok()?.len()));
    sizes.sum()
}

fn is_hit(answer: &Answer) -> bool {
    assert_eq!(answer.status, 200);
    answer.header("cache-status") == "outport-edge-1; hit"
}

/// Pulls blobs one after the other, and returns how many were there.
async fn pull_all(edge: &RunningEdge, blobs: &[Bytes]) -> usize {
    let mut hits = 0;
    for blob in blobs {
        let answer = edge.get(&blob_path("a", blob)).await;
        assert!(answer.body.as_ref() == Some(blob));
        hits += usize::from(is_hit(&answer));
        edge.settle().await;
    }
    hits
}

fn put_all(origin: &ScriptedOrigin, seeds: std::ops::Range<u64>, length: usize) -> Vec<Bytes> {
    let blobs: Vec<_> = seeds.map(|seed| content(length, seed)).collect();
    for blob in &blobs {
        origin.put_blob("a", blob);
    }
    blobs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_the_capacity_goes_through_without_a_failed_pull() {
    const CAPACITY: u64 = 2_000_000;
    const LARGEST: usize = 250_000;
    let rig = Rig::with(&["cache.capacity=2MB"]).await;
    let mut blobs = Vec::new();
    for seed in 0..300_u64 {
        // From 1 kB to the largest, evenly by their logarithms.
        let share = (seed * 7919 % 300) as f64 / 300.0;
        let length = (1e3 * (LARGEST as f64 / 1e3).powf(share)) as usize;
        let blob = content(length, 1_000 + seed);
        rig.origin.put_blob("a", &blob);
        blobs.push(blob);
    }
    let all: usize = blobs.iter().map(Bytes::len).sum();
    assert!(all as u64 > 6 * CAPACITY, "{all}");
    let in_flight = (CLIENTS * LARGEST) as u64;
    let mut state = 88_172_645_463_325_252_u64;
    let picks = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Zipf, of exponent one: the logarithm of the rank is even.
        let share = (state >> 11) as f64 / (1_u64 << 53) as f64;
        (300_f64.powf(share) - 1.0) as usize
    });
    let mut pulls = stream::iter(picks.take(2_500))
        .map(|pick| {
            let (edge, blob) = (&rig.edge, &blobs[pick]);
            async move { (edge.get(&blob_path("a", blob)).await, blob) }
        })
        .buffer_unordered(CLIENTS);
    let (mut pulled, mut hits, mut bytes) = (0, 0, 0);
    while let Some((answer, blob)) = pulls.next().await {
        assert!(answer.body.as_ref() == Some(blob));
        hits += usize::from(is_hit(&answer));
        pulled += 1;
        bytes += blob.len() as u64;
        if pulled % 50 == 0 {
            let on_disk = bytes_on_disk(rig.cache.path());
            assert!(on_disk <= CAPACITY + in_flight, "{on_disk}");
            let counted = rig.edge.metric("outport_edge_cache_bytes");
            assert!(counted <= Some(CAPACITY as f64), "{counted:?}");
        }
    }
    drop(pulls);
    assert!(bytes > 10 * CAPACITY, "{bytes}");
    assert!(hits > pulled / 4, "{hits} of {pulled}");
    rig.edge.settle().await;
    assert!(bytes_on_disk(rig.cache.path()) <= CAPACITY);
    assert!(rig.edge.metric("outport_edge_cache_evictions_total") > Some(100.0));
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_scan_does_not_flush_what_is_pulled_again_and_again() {
    let rig = Rig::with(&["cache.capacity=1MB"]).await;
    let hot = put_all(&rig.origin, 0..20, 20_000);
    for _ in 0..3 {
        pull_all(&rig.edge, &hot).await;
    }
    let scanned = put_all(&rig.origin, 100..300, 20_000);
    assert_eq!(pull_all(&rig.edge, &scanned).await, 0);
    assert_eq!(pull_all(&rig.edge, &hot).await, hot.len());
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_pin_holds_and_outlives_the_process() {
    let rig = Rig::with(&["cache.capacity=200KB"]).await;
    let pinned = put_all(&rig.origin, 0..2, 20_000);
    pull_all(&rig.edge, &pinned[..1]).await;
    // Also one that has to come yet.
    let digests = pinned.iter().map(|blob| sha256(blob)).collect();
    rig.edge.cache.pin("a:1".to_owned(), digests).unwrap();
    pull_all(&rig.edge, &pinned[1..]).await;
    let others = put_all(&rig.origin, 100..140, 20_000);
    pull_all(&rig.edge, &others).await;
    assert_eq!(pull_all(&rig.edge, &pinned).await, 2);
    rig.edge.stop().await;

    let set = ["cache.capacity=200KB"];
    let edge = RunningEdge::start(rig.cache.path(), rig.origin.address, &set).await;
    pull_all(&edge, &others).await;
    assert_eq!(pull_all(&edge, &pinned).await, 2);
    assert!(edge.cache.unpin("a:1").is_some());
    let larger = put_all(&rig.origin, 200..201, 190_000);
    pull_all(&edge, &larger).await;
    assert_eq!(pull_all(&edge, &pinned).await, 0);
    edge.stop().await;
}

#[tokio::test]
async fn a_reader_outlives_the_eviction_of_what_it_reads() {
    const LARGE: usize = 40_000_000;
    let rig = Rig::with(&["cache.capacity=41MB"]).await;
    let blobs = put_all(&rig.origin, 1..3, LARGE);
    pull_all(&rig.edge, &blobs[..1]).await;
    let path = blob_path("a", &blobs[0]);
    let mut reader = rig.edge.begin(Method::GET, &path, &[]).await;
    assert_eq!(reader.headers["cache-status"], "outport-edge-1; hit");
    let mut read = reader.some().await.to_vec();
    pull_all(&rig.edge, &blobs[1..]).await;
    let file = rig.cached_file(&blobs[0]);
    assert!(!file.try_exists().unwrap(), "it was not evicted");
    read.extend(
        reader
            .finish()
            .await
            .body
            .expect("the reader was cut short"),
    );
    assert!(read == blobs[0]);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_manifest_whose_blob_was_evicted_brings_it_again() {
    let rig = Rig::with(&["cache.capacity=200KB"]).await;
    let manifest = content(500, 1);
    rig.origin.put_manifest("a", "v1", &manifest);
    let layer = put_all(&rig.origin, 2..3, 90_000);
    let by_digest = format!("/v2/a/manifests/{}", sha256(&manifest));
    let pull = async || {
        let found = rig.edge.get(&by_digest).await;
        assert!(found.body.as_ref() == Some(&manifest));
        is_hit(&found)
    };
    assert!(!pull().await);
    pull_all(&rig.edge, &layer).await;
    for _ in 0..3 {
        // Asked for again and again, while layers come and go.
        pull_all(&rig.edge, &put_all(&rig.origin, 10..14, 90_000)).await;
        assert!(pull().await);
    }
    let asked = || {
        rig.origin
            .seen(&Method::GET, &blob_path("a", &layer[0]))
            .len()
    };
    assert_eq!(asked(), 1);
    assert_eq!(pull_all(&rig.edge, &layer).await, 0);
    assert_eq!(asked(), 2);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_restart_remembers_what_is_popular() {
    let set = ["cache.capacity=1MB"];
    let rig = Rig::with(&set).await;
    let hot = put_all(&rig.origin, 0..20, 20_000);
    for _ in 0..3 {
        pull_all(&rig.edge, &hot).await;
    }
    rig.edge.stop().await;
    let edge = RunningEdge::start(rig.cache.path(), rig.origin.address, &set).await;
    let scanned = put_all(&rig.origin, 100..300, 20_000);
    pull_all(&edge, &scanned).await;
    assert_eq!(pull_all(&edge, &hot).await, hot.len());
    for blob in &hot {
        let asked = rig.origin.seen(&Method::GET, &blob_path("a", blob));
        assert_eq!(asked.len(), 1);
    }
    edge.stop().await;
}
