mod crash;

use std::future::{Ready, ready};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tempfile::TempDir;

use super::*;
use crate::location::key::Lane;
use crate::store::conformance::{Instances, frames, fresh, put};
use uuid::Uuid;

fn instances() -> Ready<(Instances, TempDir)> {
    let root = TempDir::new().unwrap();
    let instances = Instances {
        one: Arc::new(Disk::open(root.path()).unwrap()),
        other: Arc::new(Disk::open(root.path()).unwrap()),
        large_bytes: 40_000_001,
    };
    ready((instances, root))
}

mod conformance {
    crate::content_store_tests!(super::instances);
}

fn blob_path(root: &TempDir, digest: &Digest) -> PathBuf {
    root.path().join(Key::Blob(digest).path())
}

#[test]
fn an_unknown_format_is_told_and_can_be_erased() {
    let root = TempDir::new().unwrap();
    drop(Disk::open(root.path()).unwrap());
    fs::write(root.path().join("format"), "outport 99\n").unwrap();
    let refused = Disk::open(root.path());
    assert!(
        matches!(refused, Err(OpenError::UnknownFormat { found, .. }) if found == "outport 99")
    );
    Disk::erase(root.path()).unwrap();
    let disk = Disk::open(root.path()).unwrap();
    assert_eq!(disk.entries().count(), 0);
}

#[tokio::test]
async fn a_walk_finds_blobs_only() {
    let (stores, root) = instances().await;
    let digest = put(&stores, &fresh(5_000)).await;
    let beside = blob_path(&root, &digest).with_file_name("something-else");
    fs::write(&beside, "x").unwrap();
    let misplaced = root.path().join("blobs/sha256/00").join("ff".repeat(32));
    fs::write(&misplaced, "x").unwrap();
    let disk = Disk::open(root.path()).unwrap();
    let entries: Vec<_> = disk.entries().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].digest, entries[0].size), (digest, 5_000));
}

#[tokio::test]
async fn a_damaged_blob_is_found_quarantined_and_replaced() {
    let (stores, root) = instances().await;
    let content = fresh(5_000);
    let digest = put(&stores, &content).await;
    let disk = Disk::open(root.path()).unwrap();
    assert!(
        disk.open_blob(&digest)
            .unwrap()
            .unwrap()
            .verify(&digest)
            .unwrap()
    );
    fs::write(blob_path(&root, &digest), "short").unwrap();
    assert!(
        !disk
            .open_blob(&digest)
            .unwrap()
            .unwrap()
            .verify(&digest)
            .unwrap()
    );
    // One that is too short is replaced even without anybody's noticing.
    put(&stores, &content).await;
    assert!(
        disk.open_blob(&digest)
            .unwrap()
            .unwrap()
            .verify(&digest)
            .unwrap()
    );
    disk.quarantine(&digest).unwrap();
    disk.quarantine(&digest).unwrap();
    assert!(disk.open_blob(&digest).unwrap().is_none());
    let later = fs::metadata(root.path()).unwrap().modified().unwrap() + Duration::from_hours(1);
    assert_eq!(disk.sweep_folders(later).unwrap(), 1);
}

#[test]
fn holes_of_a_partial_take_no_room() {
    let root = TempDir::new().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    let digest = Algorithm::Sha256.digest(b"x");
    let partial = disk.partial(&digest, Lane::default()).unwrap();
    partial.write_at(&[7; 10_000], 0).unwrap();
    partial.write_at(&[7; 10_000], 50_000_000).unwrap();
    partial.sync().unwrap();
    let found = disk.partials().next().unwrap().unwrap();
    assert_eq!((found.digest, found.size), (digest, 50_010_000));
    let occupied = found.occupied;
    assert!((20_000..1_000_000).contains(&occupied), "{occupied}");
}

#[test]
fn a_blob_that_was_replaced_is_told_from_the_one_that_was_opened() {
    let root = TempDir::new().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    let digest = Algorithm::Sha256.digest(b"x");
    let publish = || {
        let partial = disk.partial(&digest, Lane::default()).unwrap();
        partial.write_at(b"x", 0).unwrap();
        disk.publish(&partial).unwrap()
    };
    let old = publish();
    assert!(disk.is_current(&digest, &old).unwrap());
    let new = publish();
    assert!(!disk.is_current(&digest, &old).unwrap());
    assert!(disk.is_current(&digest, &new).unwrap());
    disk.remove_blob(&digest).unwrap();
    assert!(!disk.is_current(&digest, &new).unwrap());
}

#[tokio::test]
async fn an_open_blob_outlives_its_deletion() {
    let (stores, root) = instances().await;
    let content = fresh(300_000);
    let digest = put(&stores, &content).await;
    let disk = Disk::open(root.path()).unwrap();
    let blob = disk.open_blob(&digest).unwrap().unwrap();
    disk.remove_blob(&digest).unwrap();
    let body = blob.body(100..300_000).collect().await.unwrap();
    assert_eq!(body.to_bytes(), content.slice(100..));
}

#[test]
fn a_partial_can_be_opened_while_leftovers_are_deleted() {
    let root = TempDir::new().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    let digest = Algorithm::Sha256.digest(b"x");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                durable::remove(&disk.path(Key::Download(&digest, Lane::default()))).unwrap();
                // Now and then: one that does nothing else deletes it each time.
                thread::sleep(Duration::from_millis(1));
            }
        });
        let failed = (0..2_000).find_map(|_| disk.partial(&digest, Lane::default()).err());
        is_over.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "{failed:?}");
    });
}

#[test]
fn a_partial_is_found_again_and_published() {
    let root = TempDir::new().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    let content = fresh(10_000);
    let digest = Algorithm::Sha256.digest(&content);
    let partial = disk.partial(&digest, Lane::default()).unwrap();
    partial.write_at(&content[4_000..], 4_000).unwrap();
    let second = disk.partial(&digest, Lane::default()).unwrap_err();
    assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
    drop(partial);
    let left: Vec<_> = disk.partials().map(Result::unwrap).collect();
    assert_eq!((left[0].digest, left[0].size), (digest, 10_000));
    // Of another registry it is another one.
    let lane = Lane::of("hub");
    let other = disk.partial(&digest, lane).unwrap();
    let lanes: Vec<_> = disk.partials().map(|entry| entry.unwrap().lane).collect();
    assert!(lanes.len() == 2 && lanes.contains(&lane), "{lanes:?}");
    other.discard().unwrap();
    let partial = disk.partial(&digest, Lane::default()).unwrap();
    partial.write_at(&content[..4_000], 0).unwrap();
    let blob = disk.publish(&partial).unwrap();
    assert!(blob.verify(&digest).unwrap());
    assert_eq!(disk.partials().count(), 0);
    assert_eq!(disk.entries().count(), 1);
}

#[tokio::test]
async fn a_sweep_leaves_what_is_written_to() {
    let root = TempDir::new().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    let idle = Staged::new(Uuid::now_v7(), Algorithm::Sha256);
    let busy = Staged::new(Uuid::now_v7(), Algorithm::Sha256);
    disk.append(idle, frames(b"idle", 4), None)
        .await
        .outcome
        .unwrap();
    let locked = disk.lock_staged(&busy).unwrap();
    let (past, future) = (SystemTime::UNIX_EPOCH, Duration::from_hours(24));
    let written = locked.file.metadata().unwrap().modified().unwrap();
    assert_eq!(disk.sweep_folders(past).unwrap(), 0);
    assert_eq!(disk.sweep_folders(written + future).unwrap(), 1);
    drop(locked);
    assert_eq!(disk.sweep_folders(written + future).unwrap(), 1);
}

#[tokio::test]
async fn batches_shrink_when_many_append() {
    let count = AtomicUsize::new(0);
    let first = UnderWay::new(&count);
    assert_eq!(first.batch_bytes(), BATCH_BYTES.end);
    let more: Vec<_> = (0..1_000).map(|_| UnderWay::new(&count)).collect();
    assert_eq!(first.batch_bytes(), BATCH_BYTES.start);
    drop(more);
    assert_eq!(first.batch_bytes(), BATCH_BYTES.end);
}
