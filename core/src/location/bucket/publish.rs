//! Staged content on its way to its name, or away.
//!
//! Crash: each step can be made again. An upload that is complete already shows as an object of the right size.

use std::ops::Range;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};

use crate::location::engine::CopyPart;
use crate::location::key::{Folder, Key};
use crate::oci::digest::{Digest, Hasher};
use crate::store::{CommitError, Staged, StoreError};

use super::error::{commit_error, found, store_error};
use super::state::{PARTS_MAX, State};
use super::{Bucket, is_missing};

/// Publishes what is staged under `digest`, after comparing.
pub(super) async fn commit(
    bucket: &Bucket,
    staged: &Staged,
    digest: &Digest,
) -> Result<(), CommitError> {
    let session = Session {
        bucket,
        staged,
        state: State::of(staged)?,
    };
    let (actual, object) = if staged.algorithm() == digest.algorithm() {
        (staged.digest(), None)
    } else {
        // The only case in which bytes are read again, and they must be one object for that.
        let object = session.assemble(None).await?;
        let actual = session.hash(object.as_ref(), digest).await?;
        (actual, Some(object))
    };
    if actual != *digest {
        session.forget().await?;
        return Err(CommitError::Mismatch {
            expected: *digest,
            actual,
        });
    }
    let path = bucket.path(Key::Blob(digest));
    let published = session.state.published && session.state.is_for(digest);
    if !published && bucket.object_size(&path).await? != Some(staged.size()) {
        let object = match object {
            Some(object) => object,
            None => session.assemble(Some(digest)).await?,
        };
        session.publish(object, &path).await?;
    }
    if let Err(error) = session.forget().await {
        // The blob is there, and that is what was asked; the leavings are swept one day.
        tracing::debug!(%digest, error = &error as &dyn std::error::Error, "delete what was staged");
    }
    Ok(())
}

/// Deletes what is staged.
pub(super) async fn forget(bucket: &Bucket, staged: &Staged) -> Result<(), StoreError> {
    let state = State::of(staged)?;
    Session {
        bucket,
        staged,
        state,
    }
    .forget()
    .await
}

struct Session<'a> {
    bucket: &'a Bucket,
    staged: &'a Staged,
    state: State,
}

// === impl Session ===

impl Session<'_> {
    /// Makes one object of what is staged and returns its key; none when there are no bytes.
    ///
    /// `verified` is the digest that the bytes have, when that is known.
    async fn assemble(&self, verified: Option<&Digest>) -> Result<Option<Path>, CommitError> {
        if self.staged.size() == 0 {
            return Ok(None);
        }
        let destination = self.state.destination();
        if self.state.published {
            let digest = destination.ok_or(CommitError::Gone)?;
            return Ok(Some(self.bucket.path(Key::Blob(&digest))));
        }
        let Some(multipart) = &self.state.multipart else {
            return self.tail().map(Some).ok_or(CommitError::Gone);
        };
        let path = match &destination {
            None => self.bucket.path(Key::Upload(self.staged.id())),
            // Completing it puts the bytes under this digest's key, so they must have this digest.
            Some(digest) if verified == Some(digest) => self.bucket.path(Key::Blob(digest)),
            Some(_) => return Err(CommitError::Gone),
        };
        match self.complete(&path, multipart).await {
            Err(error) if is_missing(&error) => {
                // An earlier commit may have completed it.
                let size = self.bucket.object_size(&path).await?;
                (size == Some(self.staged.size()))
                    .then_some(Some(path))
                    .ok_or(CommitError::Gone)
            }
            outcome => outcome.map(|()| Some(path)).map_err(commit_error),
        }
    }

    /// Completes the multipart upload, with the tail as its last part.
    async fn complete(&self, path: &Path, multipart: &str) -> object_store::Result<()> {
        let engine = &self.bucket.0.engine;
        let mut parts: Vec<_> = self.state.parts.iter().cloned().map(part_id).collect();
        if let Some(tail) = self.tail() {
            let copy = CopyPart {
                from: &tail,
                range: 0..self.staged.size() - self.state.parts_bytes,
                to: path,
                multipart,
                index: parts.len(),
            };
            parts.push(engine.copy_part(copy).await?);
        }
        let (store, multipart) = (engine.multipart(), multipart.to_owned());
        let complete = store.complete_multipart(path, &multipart, parts);
        complete.await.map(drop)
    }

    fn tail(&self) -> Option<Path> {
        let append = self.state.tail?;
        Some(self.bucket.path(Key::UploadTail(self.staged.id(), append)))
    }

    /// Reads an object, or nothing, and returns its digest by the algorithm of `digest`.
    async fn hash(&self, object: Option<&Path>, digest: &Digest) -> Result<Digest, CommitError> {
        let mut hasher = Hasher::new(digest.algorithm());
        if let Some(path) = object {
            let object = self.bucket.0.engine.objects().get(path).await;
            let mut frames = object.map_err(commit_error)?.into_stream();
            while let Some(frame) = frames.try_next().await.map_err(store_error)? {
                hasher.update(&frame);
            }
        }
        Ok(hasher.finish())
    }

    /// Puts the bytes of an object, or none, under their name.
    async fn publish(&self, object: Option<Path>, to: &Path) -> Result<(), CommitError> {
        match object {
            None => {
                let put = self.bucket.0.engine.objects().put(to, PutPayload::new());
                put.await.map_err(store_error)?;
            }
            Some(from) if from == *to => {}
            Some(from) => self.copy(&from, to).await?,
        }
        Ok(())
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<(), CommitError> {
        let size = self.staged.size();
        if size <= self.bucket.0.limits.copy_bytes {
            let copy = self.bucket.0.engine.objects().copy(from, to);
            copy.await.map_err(commit_error)?;
        } else {
            self.copy_ranges(from, to).await?;
        }
        // Stores can report the failure of a copy in the body of a 200.
        if self.bucket.object_size(to).await? == Some(size) {
            return Ok(());
        }
        let error = std::io::Error::other("the copy has another size, or is missing");
        Err(StoreError::Unavailable(error.into()).into())
    }

    async fn copy_ranges(&self, from: &Path, to: &Path) -> Result<(), CommitError> {
        let store = self.bucket.0.engine.multipart();
        let multipart = store.create_multipart(to).await.map_err(store_error)?;
        let ranges = copy_ranges(self.staged.size(), self.bucket.0.limits.copy_bytes);
        let copies = ranges.enumerate().map(|(index, range)| {
            self.bucket.0.engine.copy_part(CopyPart {
                from,
                range,
                to,
                multipart: &multipart,
                index,
            })
        });
        let parts = stream::iter(copies)
            .buffered(self.bucket.0.limits.copies_in_flight.max(1))
            .try_collect();
        let complete = async {
            let parts: Vec<PartId> = parts.await?;
            store.complete_multipart(to, &multipart, parts).await
        };
        if let Err(error) = complete.await {
            // Its parts cost money until it is aborted; when this fails too, the bucket's own rules do it.
            drop(store.abort_multipart(to, &multipart).await);
            return Err(commit_error(error));
        }
        Ok(())
    }

    /// Deletes what is staged, and what lost appends left beside it.
    async fn forget(&self) -> Result<(), StoreError> {
        if let Some(multipart) = &self.state.multipart {
            let upload = self.bucket.path(Key::Upload(self.staged.id()));
            let destination = self.state.destination();
            let path = match &destination {
                Some(digest) => self.bucket.path(Key::Blob(digest)),
                None => upload.clone(),
            };
            let store = self.bucket.0.engine.multipart();
            // A completed upload is not there, nor is one that was aborted before.
            found(store.abort_multipart(&path, multipart).await)?;
            if destination.is_none() {
                self.bucket.remove(&upload).await?;
            }
        }
        if self.state.had_tail {
            let folder = Folder::Tails(self.staged.id()).path();
            let folder = self.bucket.path_of(&folder);
            let mut tails = self.bucket.0.engine.objects().list(Some(&folder));
            while let Some(tail) = tails.try_next().await.map_err(store_error)? {
                self.bucket.remove(&tail.location).await?;
            }
        }
        Ok(())
    }
}

const fn part_id(content_id: String) -> PartId {
    PartId { content_id }
}

/// Cuts an object into ranges of about `bytes`, or larger ones when there would be too many.
fn copy_ranges(size: u64, bytes: u64) -> impl Iterator<Item = Range<u64>> + Send {
    let bytes = bytes.max(size.div_ceil(PARTS_MAX as u64)).max(1);
    (0..size.div_ceil(bytes)).map(move |index| index * bytes..size.min((index + 1) * bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_object() {
        #[track_caller]
        fn check(size: u64, bytes: u64, count: usize) {
            let ranges: Vec<_> = copy_ranges(size, bytes).collect();
            assert_eq!(ranges.len(), count);
            assert_eq!(ranges.first().map(|range| range.start), Some(0));
            assert_eq!(ranges.last().map(|range| range.end), Some(size));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(ranges.iter().all(|range| !range.is_empty()));
        }
        check(1, 5, 1);
        check(10, 5, 2);
        check(11, 5, 3);
        check(1_000_000, 5, 10_000);
    }
}
