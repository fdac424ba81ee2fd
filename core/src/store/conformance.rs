//! What every [`ContentStore`] must do, as functions that panic when one does not.
//!
//! Each function takes two instances over one storage, as two processes would have them, and uses fresh content, so that
//! they can run at the same time over one storage. [`content_store_tests!`](crate::content_store_tests) makes a test of each.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a suite of tests: it panics when a store does not conform"
)]

mod appends;
mod blobs;
mod commits;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt as _;
use uuid::Uuid;

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

pub use appends::*;
pub use blobs::*;
pub use commits::*;

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

/// Nothing can be done with what is staged: its bytes are not here.
async fn assert_gone(stores: &Instances, staged: Staged) {
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
