//! What makes bytes a blob: commits of the right digest and the wrong one, made again, and against each other.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future;

use super::{
    Instances, all, append, assert_gone, commit_and_read, frames, fresh, read, stage, thawed,
};
use crate::oci::digest::Algorithm;
use crate::store::{AppendError, CommitError, ContentStore};

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

/// A discarded session is gone, and can be discarded again.
pub async fn discard(stores: &Instances) {
    for size in [1_000, stores.large_bytes] {
        let content = fresh(size);
        let staged = append(stores, stage(Algorithm::Sha256), &content).await;
        stores.other.discard(thawed(&staged)).await.unwrap();
        stores.one.discard(staged.clone()).await.unwrap();
        stores.one.discard(stage(Algorithm::Sha256)).await.unwrap();
        assert_gone(stores, staged).await;
    }
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
