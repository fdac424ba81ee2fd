//! What every [`ContentStore`] must do, as functions that panic when one does not.
//!
//! Each function takes two instances over one storage, as two processes would have them, and uses fresh content, so that
//! they can run at the same time over one storage. [`content_store_tests!`](crate::content_store_tests) makes a test of each.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a suite of tests: it panics when a store does not conform"
)]

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};
use http_body_util::BodyExt as _;
use uuid::Uuid;

use crate::clock;
use crate::oci::digest::{Algorithm, Digest};
use crate::store::{
    AppendError, Appended, CommitError, Content, ContentStore, Staged, StagedRecord,
};

/// Two instances over one storage.
#[derive(Clone, Debug)]
pub struct Instances {
    /// The one that most calls go to.
    pub one: Arc<dyn ContentStore>,
    /// The one that goes on where the other stopped.
    pub other: Arc<dyn ContentStore>,
    /// Enough content for the store to treat it as large.
    pub large_bytes: usize,
}

/// Makes a `#[tokio::test]` of every function of the suite.
///
/// `$instances` is a function that returns a future of [`Instances`] and something that
/// is dropped behind the test.
#[macro_export]
macro_rules! content_store_tests {
    ($instances:path) => {
        $crate::content_store_tests!(@each $instances;
            small_chunks, one_append, many_tiny_appends, frames_of_all_sizes, large, empty, empty_without_append,
            mismatch, resume_elsewhere, resume_over_unaccounted, overtaken, resume_large_elsewhere, commit_twice, append_after_commit, commit_same_digest_at_once,
            commit_what_is_here, ranges, missing, delete, discard, sha512_staged, sha512_named_late,
            settle, settle_after_delete, discard_after_commit, settle_at_once,
            broken_content, broken_large_content, dropped_append, one_append_at_a_time, gone);
    };
    (@each $instances:path; $($name:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let (stores, _guard) = $instances().await;
                $crate::store::conformance::$name(&stores).await;
            }
        )+
    };
}

/// Several appends and a commit publish their bytes.
pub async fn small_chunks(stores: &Instances) {
    let content = fresh(100_000);
    let mut staged = stage(Algorithm::Sha256);
    for chunk in content.chunks(30_000) {
        staged = append(stores, staged, chunk).await;
    }
    assert_eq!(staged.size(), 100_000);
    commit_and_read(stores, staged, &content).await;
}

/// One append that knows its destination, and a commit.
pub async fn one_append(stores: &Instances) {
    let content = fresh(1_000);
    let digest = Algorithm::Sha256.digest(&content);
    let staged = stage(Algorithm::Sha256);
    let appended = stores
        .one
        .append(staged, frames(&content, 400), Some(&digest));
    commit_and_read(stores, all(appended.await), &content).await;
}

/// Appends of a byte or so.
pub async fn many_tiny_appends(stores: &Instances) {
    let content = fresh(60);
    let mut staged = stage(Algorithm::Sha256);
    for chunk in content.chunks(3) {
        staged = append(stores, staged, chunk).await;
    }
    commit_and_read(stores, staged, &content).await;
}

/// Frames of no bytes, of one, and of many.
pub async fn frames_of_all_sizes(stores: &Instances) {
    let content = fresh(3_000_000);
    let sizes = [0, 1, 1, 0, 5_000, 1, 2_000_000, 0];
    let mut rest = content.clone();
    let mut frames: Vec<_> = sizes.iter().map(|size| Ok(rest.split_to(*size))).collect();
    frames.push(Ok(rest));
    let staged = stage(Algorithm::Sha256);
    let appended = stores
        .one
        .append(staged, Box::pin(stream::iter(frames)), None);
    commit_and_read(stores, all(appended.await), &content).await;
}

/// Content that does not fit into one part, once with its destination known and once not.
pub async fn large(stores: &Instances) {
    for known in [true, false] {
        let content = fresh(stores.large_bytes);
        let digest = Algorithm::Sha256.digest(&content);
        let staged = stage(Algorithm::Sha256);
        let destination = known.then_some(&digest);
        let appended = stores
            .one
            .append(staged, frames(&content, 70_000), destination);
        commit_and_read(stores, all(appended.await), &content).await;
    }
}

/// A blob of no bytes, by an append of none.
pub async fn empty(stores: &Instances) {
    let staged = append(stores, stage(Algorithm::Sha256), b"").await;
    commit_and_read(stores, staged, &Bytes::new()).await;
}

/// A blob of no bytes, by no append.
pub async fn empty_without_append(stores: &Instances) {
    commit_and_read(stores, stage(Algorithm::Sha512), &Bytes::new()).await;
}

/// A wrong digest publishes nothing, under either name, and leaves nothing to go on with.
pub async fn mismatch(stores: &Instances) {
    for known in [true, false] {
        for size in [1_000, stores.large_bytes] {
            let content = fresh(size);
            let (right, wrong) = (
                Algorithm::Sha256.digest(&content),
                Algorithm::Sha256.digest(&fresh(9)),
            );
            let staged = stage(Algorithm::Sha256);
            let destination = known.then_some(&wrong);
            let staged = all(stores
                .one
                .append(staged, frames(&content, 70_000), destination)
                .await);
            let refused = stores.one.commit(staged.clone(), &wrong).await;
            assert!(
                matches!(refused, Err(CommitError::Mismatch { expected, actual }) if expected == wrong && actual == right)
            );
            assert_eq!(stores.one.size(&wrong).await.unwrap(), None);
            assert_eq!(stores.one.size(&right).await.unwrap(), None);
            let again = stores.other.commit(staged, &right).await;
            assert!(matches!(again, Err(CommitError::Gone)), "{again:?}");
        }
    }
}

/// A session goes on in another instance, from what was written down.
pub async fn resume_elsewhere(stores: &Instances) {
    let content = fresh(50_001);
    let staged = append(stores, stage(Algorithm::Sha256), &content[..20_000]).await;
    let staged = all(stores
        .other
        .append(thawed(&staged), frames(&content[20_000..], 999), None)
        .await);
    commit_and_read(stores, thawed(&staged), &content).await;
}

/// Bytes that no value accounts for are overwritten.
pub async fn resume_over_unaccounted(stores: &Instances) {
    let content = fresh(40_000);
    let kept = append(stores, stage(Algorithm::Sha256), &content[..10_000]).await;
    // As long as what follows, longer, and shorter; the last is what a commit must cut off.
    for lost in [30_000, 70_000, 5] {
        let _lost = append(stores, kept.clone(), &fresh(lost)).await;
    }
    let staged = append(stores, kept, &content[10_000..39_000]).await;
    let _lost = append(stores, staged.clone(), &content[39_000..]).await;
    commit_and_read(stores, staged, &content.slice(..39_000)).await;
}

/// A large session goes on in another instance, in chunks that are not whole parts.
pub async fn resume_large_elsewhere(stores: &Instances) {
    let content = fresh(stores.large_bytes);
    let mut staged = stage(Algorithm::Sha256);
    let mut rest = content.clone();
    for part in [2, 3, 2] {
        let chunk = rest.split_to(rest.len() / part + 1);
        let _lost = append(stores, staged.clone(), &fresh(100)).await;
        staged = all(stores
            .other
            .append(thawed(&staged), frames(&chunk, 1 << 20), None)
            .await);
    }
    staged = append(stores, staged, &rest).await;
    commit_and_read(stores, thawed(&staged), &content).await;
}

/// A commit whose answer was lost can be made again.
pub async fn commit_twice(stores: &Instances) {
    for size in [0, 1_000, stores.large_bytes] {
        let content = fresh(size);
        let digest = Algorithm::Sha256.digest(&content);
        let staged = append(stores, stage(Algorithm::Sha256), &content).await;
        stores.one.commit(staged.clone(), &digest).await.unwrap();
        stores.other.commit(staged, &digest).await.unwrap();
        assert_eq!(read(stores, &digest, 0..size as u64).await, content);
    }
}

/// Several sessions bring the same blob at the same time.
pub async fn commit_same_digest_at_once(stores: &Instances) {
    let content = fresh(200_000);
    let digest = Algorithm::Sha256.digest(&content);
    let push = async |store: &Arc<dyn ContentStore>| {
        let staged = stage(Algorithm::Sha256);
        let staged = all(store
            .append(staged, frames(&content, 9_000), Some(&digest))
            .await);
        store.commit(staged, &digest).await.unwrap();
    };
    let pushes = (0..8).map(|n| {
        push(if n % 2 == 0 {
            &stores.one
        } else {
            &stores.other
        })
    });
    future::join_all(pushes).await;
    assert_eq!(read(stores, &digest, 0..200_000).await, content);
}

/// A blob that is here can be brought again, by a session that knows its destination and one that does not.
pub async fn commit_what_is_here(stores: &Instances) {
    let content = fresh(stores.large_bytes);
    let digest = Algorithm::Sha256.digest(&content);
    for destination in [None, Some(&digest), None] {
        let staged = stage(Algorithm::Sha256);
        let staged = all(stores
            .one
            .append(staged, frames(&content, 70_000), destination)
            .await);
        commit_and_read(stores, staged, &content).await;
    }
}

/// Any range that lies within a blob can be read.
pub async fn ranges(stores: &Instances) {
    let content = fresh(700_000);
    let digest = put(stores, &content).await;
    for range in [
        0..1,
        0..700_000,
        699_999..700_000,
        1..2,
        262_143..262_145,
        300_000..700_000,
        5..5,
        0..0,
    ] {
        let expected = content.slice(index(&range));
        assert_eq!(read(stores, &digest, range).await, expected);
    }
}

/// A blob that is not here is absent, not an error.
pub async fn missing(stores: &Instances) {
    for algorithm in Algorithm::ALL {
        let digest = algorithm.digest(&fresh(10));
        assert_eq!(stores.one.size(&digest).await.unwrap(), None);
        assert!(stores.one.read(&digest, 0..1).await.unwrap().is_none());
        assert!(stores.one.read(&digest, 0..0).await.unwrap().is_none());
    }
}

/// A deleted blob is gone, can be deleted again, and can come back.
pub async fn delete(stores: &Instances) {
    let content = fresh(1_000);
    let digest = put(stores, &content).await;
    for _ in 0..2 {
        stores.other.delete(&digest).await.unwrap();
        assert_eq!(stores.one.size(&digest).await.unwrap(), None);
    }
    assert_eq!(put(stores, &content).await, digest);
}

/// A discarded session is gone, and can be discarded again.
pub async fn discard(stores: &Instances) {
    for size in [1_000, stores.large_bytes] {
        let content = fresh(size);
        let staged = append(stores, stage(Algorithm::Sha256), &content).await;
        stores.other.discard(thawed(&staged)).await.unwrap();
        stores.one.discard(staged.clone()).await.unwrap();
        stores.one.discard(stage(Algorithm::Sha256)).await.unwrap();
        let appended = stores
            .one
            .append(staged.clone(), frames(b"more", 4), None)
            .await;
        assert!(
            matches!(appended.outcome, Err(AppendError::Gone)),
            "{appended:?}"
        );
        let committed = stores
            .one
            .commit(staged, &Algorithm::Sha256.digest(&content))
            .await;
        assert!(matches!(committed, Err(CommitError::Gone)), "{committed:?}");
    }
}

/// Nothing is to be seen of what a commit has put off, whoever does it and when, and in the end nothing is left of it.
pub async fn settle(stores: &Instances) {
    for size in [1_000, stores.large_bytes] {
        let content = fresh(size);
        let digest = put(stores, &content).await;
        for now in [NOW, NOW, LATER] {
            for store in [&stores.one, &stores.other] {
                assert_eq!(store.size(&digest).await.unwrap(), Some(size as u64));
                assert!(read(stores, &digest, 0..size as u64).await == content);
                store.settle(&digest, now()).await.unwrap();
            }
        }
        assert!(read(stores, &digest, 0..size as u64).await == content);
        let unsettled = stores.one.unsettled().await.unwrap();
        assert!(!unsettled.contains(&digest));
    }
}

/// A deleted blob does not come back, and can be brought back.
pub async fn settle_after_delete(stores: &Instances) {
    let content = fresh(stores.large_bytes);
    for is_settled in [false, true, false] {
        let digest = put(stores, &content).await;
        if is_settled {
            stores.one.settle(&digest, NOW()).await.unwrap();
        }
        stores.other.delete(&digest).await.unwrap();
        for now in [NOW, LATER] {
            stores.one.settle(&digest, now()).await.unwrap();
            assert_eq!(stores.one.size(&digest).await.unwrap(), None);
            assert!(stores.one.read(&digest, 0..9).await.unwrap().is_none());
        }
    }
}

/// Several settle the same blob while it is read.
pub async fn settle_at_once(stores: &Instances) {
    let content = fresh(stores.large_bytes);
    let size = content.len() as u64;
    let digest = put(stores, &content).await;
    let settle = async |store: &Arc<dyn ContentStore>| {
        store.settle(&digest, NOW()).await.unwrap();
    };
    let reads = future::join_all((0..4).map(|_| read(stores, &digest, 0..size)));
    let settled = future::join3(
        settle(&stores.one),
        settle(&stores.other),
        settle(&stores.one),
    );
    let (read_meanwhile, _) = future::join(reads, settled).await;
    for bytes in read_meanwhile {
        assert!(bytes == content);
    }
    stores.one.settle(&digest, LATER()).await.unwrap();
    assert!(read(stores, &digest, 0..size).await == content);
}

/// A session is forgotten after a commit that nobody heard of, and its blob stays.
pub async fn discard_after_commit(stores: &Instances) {
    for size in [1_000, stores.large_bytes] {
        let content = fresh(size);
        let digest = Algorithm::Sha256.digest(&content);
        let staged = append(stores, stage(Algorithm::Sha256), &content).await;
        stores.one.commit(staged.clone(), &digest).await.unwrap();
        stores.other.discard(thawed(&staged)).await.unwrap();
        assert!(read(stores, &digest, 0..size as u64).await == content);
        // By its other name, which takes nothing from the first.
        let other = Algorithm::Sha512.digest(&content);
        for digest in [other, Algorithm::Sha512.digest(b"wrong")] {
            drop(stores.one.commit(staged.clone(), &digest).await);
        }
        assert!(read(stores, &digest, 0..size as u64).await == content);
    }
}

/// A session that computes SHA-512 from its start.
pub async fn sha512_staged(stores: &Instances) {
    let content = fresh(90_000);
    let staged = append(stores, stage(Algorithm::Sha512), &content[..40_000]).await;
    let staged = append(stores, thawed(&staged), &content[40_000..]).await;
    commit_and_read(stores, staged, &content).await;
}

/// A session that computed another algorithm than the one it is named by in the end.
pub async fn sha512_named_late(stores: &Instances) {
    for size in [0, 5_000, stores.large_bytes] {
        let content = fresh(size);
        let digest = Algorithm::Sha512.digest(&content);
        let staged = append(stores, stage(Algorithm::Sha256), &content).await;
        let wrong = stores
            .one
            .commit(staged, &Algorithm::Sha512.digest(b"wrong"))
            .await;
        assert!(
            matches!(wrong, Err(CommitError::Mismatch { actual, .. }) if actual == digest),
            "{wrong:?}"
        );
        let staged = append(stores, stage(Algorithm::Sha256), &content).await;
        stores.other.commit(staged, &digest).await.unwrap();
        assert_eq!(read(stores, &digest, 0..size as u64).await, content);
    }
}

/// The last append is made again after a commit that nobody heard of: it names the same bytes, and no others.
pub async fn append_after_commit(stores: &Instances) {
    for size in [1_000, stores.large_bytes] {
        let content = fresh(size);
        let digest = Algorithm::Sha256.digest(&content);
        let (head, tail) = content.split_at(size / 2);
        let start = append(stores, stage(Algorithm::Sha256), head).await;
        let last = stores
            .one
            .append(start.clone(), frames(tail, 70_000), Some(&digest))
            .await;
        stores.one.commit(all(last), &digest).await.unwrap();

        for (tail, is_same) in [
            (Bytes::copy_from_slice(tail), true),
            (fresh(tail.len()), false),
            (Bytes::new(), false),
        ] {
            let again = stores
                .other
                .append(thawed(&start), frames(&tail, 70_000), Some(&digest))
                .await;
            assert!(
                matches!(again.outcome, Ok(()) | Err(AppendError::Gone)),
                "{again:?}"
            );
            let is_gone = again.outcome.is_err();
            let committed = stores.other.commit(again.staged.clone(), &digest).await;
            assert_eq!(committed.is_ok(), is_same, "{committed:?}");
            let own = Algorithm::Sha256.digest(&[head, &tail[..]].concat());
            if is_gone && !is_same {
                let committed = stores.other.commit(again.staged, &own).await;
                assert!(matches!(committed, Err(CommitError::Gone)), "{committed:?}");
            }
            assert_eq!(read(stores, &digest, 0..size as u64).await, content);
        }
    }
}

/// Two appends of one value, one after the other, as of two requests that read the session at once: whichever is committed,
/// nothing is published that does not hash to its name.
pub async fn overtaken(stores: &Instances) {
    let large = stores.large_bytes;
    for (head_bytes, tail_bytes) in [(1_000, 500), (1_000, large), (large, 500), (large, large)] {
        let head = fresh(head_bytes);
        let start = append(stores, stage(Algorithm::Sha256), &head).await;
        let mut values = Vec::new();
        for store in [&stores.one, &stores.other] {
            let tail = fresh(tail_bytes);
            let appended = store
                .append(thawed(&start), frames(&tail, 70_000), None)
                .await;
            if appended.outcome.is_ok() {
                values.push((appended.staged, [&head[..], &tail].concat()));
            }
        }
        let mut published = Vec::new();
        for (staged, content) in values {
            let digest = Algorithm::Sha256.digest(&content);
            let committed = stores.one.commit(thawed(&staged), &digest).await;
            let size = stores.other.size(&digest).await.unwrap();
            assert_eq!(size.is_some(), committed.is_ok(), "{committed:?}");
            if committed.is_ok() {
                published.push((digest, content));
            }
            // Also what was published before.
            for (digest, content) in &published {
                let range = 0..content.len() as u64;
                assert!(read(stores, digest, range).await == *content);
            }
        }
    }
}

/// Content that breaks off: what came before is kept, and the session goes on behind it.
pub async fn broken_content(stores: &Instances) {
    break_off(stores, 10_000, 7_000).await;
}

/// Large content that breaks off.
pub async fn broken_large_content(stores: &Instances) {
    break_off(stores, stores.large_bytes, stores.large_bytes * 2 / 3).await;
}

/// An append whose future is dropped leaves the old value good.
pub async fn dropped_append(stores: &Instances) {
    let content = fresh(30_000);
    let kept = append(stores, stage(Algorithm::Sha256), &content[..10_000]).await;
    let stuck = stream::iter([Ok(fresh(5_000))]).chain(stream::pending());
    let mut append = stores.one.append(kept.clone(), Box::pin(stuck), None);
    assert!(future::poll_immediate(&mut append).await.is_none());
    drop(append);
    let appended = loop {
        let appended = stores
            .other
            .append(kept.clone(), frames(&content[10_000..], 100), None)
            .await;
        // The first append may still be finding out that nobody waits for it.
        match appended.outcome {
            Err(AppendError::Busy) => tokio::task::yield_now().await,
            _ => break appended,
        }
    };
    commit_and_read(stores, all(appended), &content).await;
}

/// A second append to a session fails while one is under way, or the session goes on from one of them.
pub async fn one_append_at_a_time(stores: &Instances) {
    let content = fresh(20_000);
    let start = append(stores, stage(Algorithm::Sha256), &content[..10_000]).await;
    let (frames_tx, frames_rx) = tokio::sync::mpsc::unbounded_channel();
    let slow: Content<'_> = Box::pin(stream::unfold(frames_rx, async |mut frames| {
        frames.recv().await.map(|frame| (frame, frames))
    }));
    let first = stores.one.append(start.clone(), slow, None);
    let second = async {
        frames_tx.send(Ok(content.slice(10_000..15_000))).unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let second = stores
            .other
            .append(start.clone(), frames(&fresh(77), 10), None)
            .await;
        frames_tx.send(Ok(content.slice(15_000..))).unwrap();
        drop(frames_tx);
        second
    };
    let (first, second) = future::join(first, second).await;
    match (&first.outcome, &second.outcome) {
        // Where there is no lock, each append is good for itself, and the caller keeps one.
        (Ok(()), Ok(()) | Err(AppendError::Busy)) => {
            commit_and_read(stores, all(first), &content).await;
        }
        // The second one was the first to get the lock.
        (Err(AppendError::Busy), Ok(())) => {}
        outcomes => panic!("{outcomes:?}"),
    }
}

/// A session whose bytes are not here cannot go on.
pub async fn gone(stores: &Instances) {
    let staged = append(stores, stage(Algorithm::Sha256), &fresh(1_000)).await;
    let record = StagedRecord {
        id: Uuid::now_v7(),
        ..staged.to_record()
    };
    stores.one.discard(staged).await.unwrap();
    let staged = Staged::try_from(record).unwrap();
    let digest = staged.digest();
    let appended = stores
        .one
        .append(staged.clone(), frames(b"more", 4), None)
        .await;
    assert!(
        matches!(appended.outcome, Err(AppendError::Gone)),
        "{appended:?}"
    );
    let committed = stores.one.commit(staged, &digest).await;
    assert!(matches!(committed, Err(CommitError::Gone)), "{committed:?}");
}

/// When blobs are settled: now, and when everything that is put off is due.
const NOW: fn() -> SystemTime = clock::now;
const LATER: fn() -> SystemTime = || clock::now() + Duration::from_hours(24);

/// Returns bytes that no other call returns.
pub fn fresh(size: usize) -> Bytes {
    // Its random half.
    seeded(Uuid::now_v7().as_u64_pair().1, size)
}

/// Returns the bytes that belong to a seed.
pub fn seeded(seed: u64, size: usize) -> Bytes {
    let mut state = seed;
    let mut content = Vec::with_capacity(size + 8);
    while content.len() < size {
        // Splitmix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        content.extend((word ^ (word >> 31)).to_le_bytes());
    }
    content.truncate(size);
    content.into()
}

/// Returns content that comes in frames of one size.
pub fn frames(content: &[u8], frame_bytes: usize) -> Content<'static> {
    let frames: Vec<_> = content
        .chunks(frame_bytes)
        .map(|frame| Ok(Bytes::copy_from_slice(frame)))
        .collect();
    Box::pin(stream::iter(frames))
}

/// Publishes a blob.
pub async fn put(stores: &Instances, content: &Bytes) -> Digest {
    let digest = Algorithm::Sha256.digest(content);
    let staged = append(stores, stage(Algorithm::Sha256), content).await;
    stores.one.commit(staged, &digest).await.unwrap();
    digest
}

async fn break_off(stores: &Instances, size: usize, broken_at: usize) {
    let content = fresh(size);
    let broken = stream::iter([Err(io::ErrorKind::ConnectionReset.into())]);
    let broken = frames(&content[..broken_at], 50_000).chain(broken);
    let appended = stores
        .one
        .append(stage(Algorithm::Sha256), Box::pin(broken), None)
        .await;
    assert!(
        matches!(&appended.outcome, Err(AppendError::Content(_))),
        "{appended:?}"
    );
    // Everything had come, and nothing hindered the store.
    assert_eq!(appended.staged.size(), broken_at as u64);
    let staged = thawed(&appended.staged);
    let staged = all(stores
        .other
        .append(staged, frames(&content[broken_at..], 50_000), None)
        .await);
    commit_and_read(stores, staged, &content).await;
}

fn stage(algorithm: Algorithm) -> Staged {
    Staged::new(Uuid::now_v7(), algorithm)
}

async fn append(stores: &Instances, staged: Staged, content: &[u8]) -> Staged {
    all(stores
        .one
        .append(staged, frames(content, 4_096), None)
        .await)
}

#[track_caller]
fn all(appended: Appended) -> Staged {
    appended.outcome.unwrap();
    appended.staged
}

/// Writes a value down and reads it again.
#[track_caller]
fn thawed(staged: &Staged) -> Staged {
    let record = serde_json::to_string(&staged.to_record()).unwrap();
    let record: StagedRecord = serde_json::from_str(&record).unwrap();
    record.try_into().unwrap()
}

async fn commit_and_read(stores: &Instances, staged: Staged, content: &Bytes) {
    let digest = staged.algorithm().digest(content);
    stores.one.commit(staged, &digest).await.unwrap();
    let size = content.len() as u64;
    assert_eq!(stores.other.size(&digest).await.unwrap(), Some(size));
    assert!(
        read(stores, &digest, 0..size).await == *content,
        "other bytes came back"
    );
}

async fn read(stores: &Instances, digest: &Digest, range: Range<u64>) -> Bytes {
    let body = stores.other.read(digest, range).await.unwrap().unwrap();
    body.collect().await.unwrap().to_bytes()
}

fn index(range: &Range<u64>) -> Range<usize> {
    range.start.try_into().unwrap()..range.end.try_into().unwrap()
}
