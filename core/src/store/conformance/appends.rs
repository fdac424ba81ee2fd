//! What brings bytes: appends of all sizes, that go on elsewhere, break off, meet or come to nothing.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};
use uuid::Uuid;

use super::{Instances, all, append, assert_gone, commit_and_read, frames, fresh, stage, thawed};
use crate::oci::digest::Algorithm;
use crate::store::{AppendError, Content, StagedRecord};

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
        // Nobody takes them when the first append found the second one at it.
        frames_tx.send(Ok(content.slice(10_000..15_000))).ok();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let second = stores
            .other
            .append(start.clone(), frames(&fresh(77), 10), None)
            .await;
        frames_tx.send(Ok(content.slice(15_000..))).ok();
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
    assert_gone(stores, record.try_into().unwrap()).await;
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
