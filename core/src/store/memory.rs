//! A store in memory, for tests.
//!
//! Clones share their contents, as two processes share a location.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::body::Body;
use crate::oci::digest::Digest;
use crate::store::{
    AppendError, Appended, CommitError, Committed, Content, ContentStore, Staged, StoreError,
};

/// A store in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    blobs: HashMap<Digest, Bytes>,
    uploads: HashMap<Uuid, Vec<u8>>,
    /// The sessions that are being appended to.
    busy: HashSet<Uuid>,
}

/// Keeps others from appending to a session.
#[derive(Debug)]
struct Lock<'a> {
    state: &'a Mutex<State>,
    id: Uuid,
}

// === impl Memory ===

impl Memory {
    /// Returns the digests of the blobs that are here, in order.
    pub fn digests(&self) -> Vec<Digest> {
        let mut digests: Vec<_> = self.0.lock().blobs.keys().copied().collect();
        digests.sort();
        digests
    }

    /// Returns how many sessions have bytes here.
    pub fn uploads(&self) -> usize {
        self.0.lock().uploads.len()
    }

    /// Replaces the bytes of a blob, whatever they hash to.
    pub fn corrupt(&self, digest: &Digest, bytes: Bytes) {
        self.0.lock().blobs.insert(*digest, bytes);
    }

    fn lock(&self, staged: &Staged) -> Result<Lock<'_>, AppendError> {
        let mut state = self.0.lock();
        if state.busy.contains(&staged.id()) {
            return Err(AppendError::Busy);
        }
        if staged.size() == 0 {
            state.uploads.insert(staged.id(), Vec::new());
        }
        let bytes = state.uploads.get_mut(&staged.id());
        let bytes = bytes.ok_or(AppendError::Gone)?;
        if (bytes.len() as u64) < staged.size() {
            return Err(AppendError::Gone);
        }
        bytes.truncate(index(staged.size()));
        state.busy.insert(staged.id());
        Ok(Lock {
            state: &self.0,
            id: staged.id(),
        })
    }
}

#[async_trait]
impl ContentStore for Memory {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let state = self.0.lock();
        Ok(state.blobs.get(digest).map(|blob| blob.len() as u64))
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Body>, StoreError> {
        let blob = self.0.lock().blobs.get(digest).cloned();
        Ok(blob.map(|blob| blob.slice(index(range.start)..index(range.end)).into()))
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.0.lock().blobs.remove(digest);
        Ok(())
    }

    async fn append(
        &self,
        staged: Staged,
        mut content: Content<'_>,
        destination: Option<&Digest>,
    ) -> Appended {
        let staged = staged.aimed_at(destination);
        let lock = match self.lock(&staged) {
            Ok(lock) => lock,
            Err(AppendError::Gone) => return Appended::gone(staged, content, destination).await,
            Err(error) => {
                return Appended {
                    staged,
                    outcome: Err(error),
                };
            }
        };
        let (mut size, mut hasher) = (staged.size(), staged.hasher().clone());
        let outcome = loop {
            match content.next().await {
                Some(Ok(frame)) => {
                    hasher.update(&frame);
                    size += frame.len() as u64;
                    lock.extend(&frame);
                }
                Some(Err(error)) => break Err(AppendError::Content(error)),
                None => break Ok(()),
            }
        };
        Appended {
            staged: staged.advanced(size, hasher),
            outcome,
        }
    }

    async fn commit(&self, staged: Staged, digest: &Digest) -> Result<Committed, CommitError> {
        let state = &mut *self.0.lock();
        let Some(mut bytes) = state
            .uploads
            .remove(&staged.id())
            .or_else(|| empty(&staged))
        else {
            // An earlier commit may have done it.
            let done = state.blobs.contains_key(digest) && staged.digest() == *digest;
            return done.then_some(Committed::Settled).ok_or(CommitError::Gone);
        };
        if (bytes.len() as u64) < staged.size() {
            return Err(CommitError::Gone);
        }
        bytes.truncate(index(staged.size()));
        let actual = digest.algorithm().digest(&bytes);
        if actual != *digest {
            return Err(CommitError::Mismatch {
                expected: *digest,
                actual,
            });
        }
        state.blobs.entry(*digest).or_insert_with(|| bytes.into());
        Ok(Committed::Settled)
    }

    async fn discard(&self, staged: Staged) -> Result<(), StoreError> {
        self.0.lock().uploads.remove(&staged.id());
        Ok(())
    }

    /// Deletes nothing: what is staged in memory ends with the process.
    async fn sweep(&self, _before: SystemTime) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// Returns what a session holds that nothing was ever appended to.
fn empty(staged: &Staged) -> Option<Vec<u8>> {
    (staged.size() == 0).then(Vec::new)
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

// === impl Lock ===

impl Lock<'_> {
    fn extend(&self, frame: &[u8]) {
        let mut state = self.state.lock();
        state.uploads.entry(self.id).or_default().extend(frame);
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        self.state.lock().busy.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use super::*;
    use crate::store::conformance::Instances;

    fn instances() -> Ready<(Instances, ())> {
        let store = Memory::default();
        let instances = Instances {
            one: Arc::new(store.clone()),
            other: Arc::new(store),
            large_bytes: 3_000_001,
        };
        ready((instances, ()))
    }

    crate::content_store_tests!(instances);
}
