//! Cached files that somebody wrote to, or that rotted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use http::Method;

use super::{Rig, blob_path, content};

const LAYER: usize = 3_000_000;

/// Has a blob brought in, and returns where it is.
async fn cached(rig: &Rig, blob: &Bytes) -> PathBuf {
    rig.origin.put_blob("a", blob);
    let path = blob_path("a", blob);
    rig.edge.get(&path).await.is(200, blob, "fwd=miss");
    rig.edge.settle().await;
    rig.cached_file(blob)
}

fn write(file: &PathBuf, bytes: &[u8], offset: u64) -> File {
    let file = File::options().write(true).open(file).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file
}

#[tokio::test]
async fn a_file_that_was_written_to_is_hashed_before_its_end_leaves() {
    let rig = Rig::new().await;
    let blob = content(LAYER, 1);
    let file = cached(&rig, &blob).await;
    let path = blob_path("a", &blob);
    write(&file, b"rotten", 1000);
    let wrong = rig.edge.get(&path).await;
    assert_eq!((wrong.status.as_u16(), wrong.body), (200, None));
    rig.edge.settle().await;
    assert_eq!(
        rig.edge.metric("outport_edge_cache_damaged_total"),
        Some(1.0)
    );
    assert!(!file.try_exists().unwrap());
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn no_part_of_a_file_that_was_written_to_ends_before_it_is_hashed() {
    let rig = Rig::new().await;
    let blob = content(LAYER, 5);
    let file = cached(&rig, &blob).await;
    let path = blob_path("a", &blob);
    for range in ["bytes=0-9999", "bytes=500-1999999", "bytes=100000-"] {
        write(&file, b"rotten", 100_500);
        let wrong = rig.edge.get_range(&path, range).await;
        assert_eq!((wrong.status.as_u16(), wrong.body), (206, None), "{range}");
        rig.edge.settle().await;
        rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
        rig.edge.settle().await;
    }
    // What turns out to be right comes whole.
    write(&file, &blob[5..10], 5);
    let part = rig.edge.get_range(&path, "bytes=500-1999999").await;
    assert_eq!(part.body, Some(blob.slice(500..2_000_000)));
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_file_that_was_touched_and_is_right_is_served_without_asking() {
    let rig = Rig::new().await;
    let blob = content(LAYER, 2);
    let file = cached(&rig, &blob).await;
    let path = blob_path("a", &blob);
    write(&file, &blob[5..10], 5);
    rig.origin.stop();
    for _ in 0..2 {
        rig.edge.get(&path).await.is(200, &blob, "hit");
        rig.edge.settle().await;
        rig.edge.head(&path).await.is(200, b"", "hit");
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_file_that_is_cut_off_or_deleted_is_fetched_again() {
    let rig = Rig::new().await;
    let blob = content(LAYER, 3);
    let path = blob_path("a", &blob);
    let file = cached(&rig, &blob).await;
    let open = File::options().write(true).open(&file).unwrap();
    open.set_len(10).unwrap();
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    rig.edge.settle().await;
    // The open file outlives its name, and is as good.
    std::fs::remove_file(&file).unwrap();
    rig.edge.get(&path).await.is(200, &blob, "hit");
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_file_that_was_cut_off_without_a_trace_while_the_edge_was_down_is_fetched_again() {
    let rig = Rig::new().await;
    let blob = content(LAYER, 6);
    let path = blob_path("a", &blob);
    let file = cached(&rig, &blob).await;
    rig.edge.stop().await;
    let modified = file.metadata().unwrap().modified().unwrap();
    let open = File::options().write(true).open(&file).unwrap();
    open.set_len(1_000_000).unwrap();
    open.set_modified(modified).unwrap();
    let edge = super::RunningEdge::start(rig.cache.path(), rig.origin.address, &[]).await;
    edge.get(&path).await.is(200, &blob, "fwd=miss");
    edge.stop().await;
}

#[tokio::test]
async fn a_file_that_was_cut_off_before_the_index_was_lost_is_fetched_again() {
    for known in [true, false] {
        let rig = Rig::with(&["cache.scrub=0B"]).await;
        let blob = content(LAYER, 7);
        let path = blob_path("a", &blob);
        let file = cached(&rig, &blob).await;
        rig.edge.stop().await;
        let open = File::options().write(true).open(&file).unwrap();
        open.set_len(1_000_000).unwrap();
        std::fs::remove_dir_all(rig.cache.path().join("index")).unwrap();
        if !known {
            std::fs::remove_file(rig.cache.path().join("names.redb")).unwrap();
        }
        let set = ["cache.scrub=0B"];
        let edge = super::RunningEdge::start(rig.cache.path(), rig.origin.address, &set).await;
        let head = edge.head(&path).await;
        head.is(200, b"", "fwd=miss");
        assert_eq!(head.header("content-length"), blob.len().to_string());
        let part = edge.get_range(&path, "bytes=2000000-2000009").await;
        // Until it has been hashed, the source may be as wrong.
        part.is(206, &blob[2_000_000..2_000_010], "fwd=bypass");
        edge.settle().await;
        edge.get(&path).await.is(200, &blob, "fwd=miss");
        edge.stop().await;
    }
}

#[tokio::test]
async fn two_files_that_changed_places_are_not_served_as_each_other() {
    let rig = Rig::with(&["cache.scrub=0B"]).await;
    let blobs = [content(LAYER, 8), content(LAYER, 9)];
    let files = [cached(&rig, &blobs[0]).await, cached(&rig, &blobs[1]).await];
    rig.edge.stop().await;
    let aside = rig.cache.path().join("aside");
    std::fs::rename(&files[0], &aside).unwrap();
    std::fs::rename(&files[1], &files[0]).unwrap();
    std::fs::rename(&aside, &files[1]).unwrap();
    let set = ["cache.scrub=0B"];
    let edge = super::RunningEdge::start(rig.cache.path(), rig.origin.address, &set).await;
    for blob in &blobs {
        let path = blob_path("a", blob);
        let wrong = edge.get(&path).await;
        assert_eq!((wrong.status.as_u16(), wrong.body), (200, None));
        edge.settle().await;
        edge.get(&path).await.is(200, blob, "fwd=miss");
    }
    edge.stop().await;
}

#[tokio::test]
async fn what_rots_without_a_trace_is_found() {
    let rig = Rig::with(&["cache.scrub=1GiB"]).await;
    let blob = content(LAYER, 4);
    let file = cached(&rig, &blob).await;
    let modified = file.metadata().unwrap().modified().unwrap();
    let written = write(&file, b"rotten", 2_000_000);
    written.set_modified(modified).unwrap();
    let found = async {
        while rig.edge.metric("outport_edge_cache_damaged_total") != Some(1.0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::PATIENCE, found).await.unwrap();
    let path = blob_path("a", &blob);
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    assert_eq!(rig.origin.seen(&Method::GET, &path).len(), 2);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_small_blob_that_rotted_is_given_to_nobody() {
    let rig = Rig::new().await;
    let blob = content(1_000, 5);
    let file = cached(&rig, &blob).await;
    let path = blob_path("a", &blob);
    write(&file, b"rotten", 500);
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    assert_eq!(
        rig.edge.metric("outport_edge_cache_damaged_total"),
        Some(1.0)
    );
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_small_blob_is_held_in_memory() {
    let rig = Rig::new().await;
    let blob = content(1_000, 6);
    let file = cached(&rig, &blob).await;
    let path = blob_path("a", &blob);
    rig.edge.get(&path).await.is(200, &blob, "hit");
    write(&file, b"rotten", 500);
    rig.edge.get(&path).await.is(200, &blob, "hit");
    let part = rig.edge.get_range(&path, "bytes=10-19").await;
    part.is(206, &blob[10..20], "hit");
    rig.edge.head(&path).await.is(200, b"", "hit");
    let elsewhere = blob_path("b", &blob);
    assert_eq!(rig.edge.get(&elsewhere).await.status, 404);
    rig.edge.stop().await;
}
