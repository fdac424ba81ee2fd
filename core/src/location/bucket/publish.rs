//! Staged content on its way to its name, or away.
//!
//! Crash: each step can be made again. An upload that is complete already shows as an object of the right size.

use futures_util::TryStreamExt as _;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};
use uuid::Uuid;

use crate::location::engine::CopyPart;
use crate::location::key::{Folder, Key};
use crate::oci::digest::{Digest, Hasher};
use crate::store::{CommitError, Committed, ContentStore as _, Staged, StoreError};

use super::copy::Copy;
use super::error::{commit_error, store_error};
use super::moves::{self, Moves};
use super::state::State;
use super::{Bucket, is_missing};

/// Publishes what is staged under `digest`, after comparing.
pub(super) async fn commit(
    bucket: &Bucket,
    staged: &Staged,
    digest: &Digest,
) -> Result<Committed, CommitError> {
    let session = Session {
        bucket,
        staged,
        state: State::of(staged)?,
    };
    let (actual, assembled) = if staged.algorithm() == digest.algorithm() {
        (staged.digest(), None)
    } else {
        // Bytes are read again, and they must be one object for that.
        let assembled = session.assemble(None).await?;
        let actual = session.hash(assembled.path.as_ref(), digest).await?;
        (actual, Some(assembled))
    };
    if actual != *digest {
        session.forget_all(assembled).await?;
        return Err(CommitError::Mismatch {
            expected: *digest,
            actual,
        });
    }
    let (left, committed) = session.publish(digest, assembled).await?;
    if let Err(error) = session.forget_all(left).await {
        // The blob is there, and that is what was asked; the leavings are swept one day.
        tracing::debug!(%digest, error = &error as &dyn std::error::Error, "delete what was staged");
    }
    Ok(committed)
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

/// What is staged, as one object.
struct Assembled {
    /// Its key; none when there are no bytes.
    path: Option<Path>,
    /// The upload that it is, if it has been completed just now.
    completed: Option<Uuid>,
}

struct Session<'a> {
    bucket: &'a Bucket,
    staged: &'a Staged,
    state: State,
}

// === impl Session ===

impl Session<'_> {
    /// Makes one object of what is staged.
    ///
    /// `verified` is the digest that the bytes have, when that is known.
    async fn assemble(&self, verified: Option<&Digest>) -> Result<Assembled, CommitError> {
        let as_it_is = |path| Assembled {
            path,
            completed: None,
        };
        if self.staged.size() == 0 {
            return Ok(as_it_is(None));
        }
        let destination = self.state.destination();
        if self.state.published {
            let digest = destination.ok_or(CommitError::Gone)?;
            return Ok(as_it_is(Some(self.bucket.path(Key::Blob(&digest)))));
        }
        let Some(multipart) = &self.state.multipart else {
            let tail = self.tail().ok_or(CommitError::Gone)?;
            return Ok(as_it_is(Some(tail)));
        };
        let path = self.bucket.multipart_path(&self.state, self.staged.id());
        // Completing it puts the bytes under this digest's key, so they must have this digest.
        if destination.is_some() && destination.as_ref() != verified {
            return Err(CommitError::Gone);
        }
        match self.complete(&path, multipart).await {
            Ok(()) => Ok(Assembled {
                path: Some(path),
                completed: self.upload(),
            }),
            Err(error) if is_missing(&error) => {
                self.check_completed(&path, verified).await?;
                Ok(as_it_is(Some(path)))
            }
            Err(error) => Err(commit_error(error)),
        }
    }

    /// Makes sure that what an earlier commit may have completed is what is staged now, and not what another append of the
    /// same session brought: of its parts only one list can be completed, and the object does not say which.
    async fn check_completed(
        &self,
        path: &Path,
        verified: Option<&Digest>,
    ) -> Result<(), CommitError> {
        if self.bucket.object_size(path).await? != Some(self.staged.size()) {
            return Err(CommitError::Gone);
        }
        match verified {
            Some(digest)
                if self.upload().is_some() && self.hash(Some(path), digest).await? != *digest =>
            {
                Err(CommitError::Gone)
            }
            _ => Ok(()),
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

    /// Publishes what is staged, and is known to have this digest; returns what is not needed any more.
    async fn publish(
        &self,
        digest: &Digest,
        assembled: Option<Assembled>,
    ) -> Result<(Option<Assembled>, Committed), CommitError> {
        let (bucket, size) = (self.bucket, self.staged.size());
        let is_published = self.state.published && self.state.is_for(digest);
        if is_published || bucket.size(digest).await? == Some(size) {
            return Ok((assembled, Committed::Settled));
        }
        let to = bucket.path(Key::Blob(digest));
        let assembled = match assembled {
            Some(assembled) => assembled,
            None => self.assemble(Some(digest)).await?,
        };
        match (&assembled.path, self.upload()) {
            (None, _) => bucket.put(&to, PutPayload::new()).await?,
            (Some(from), _) if *from == to => {}
            // Only by the digest that is in `staged` can one find out later that there is a pointer to its upload.
            (Some(_), Some(upload))
                if size > bucket.0.limits.copy_now_bytes && self.staged.digest() == *digest =>
            {
                moves::publish(bucket, digest, upload).await?;
                return Ok((None, Committed::PutOff));
            }
            (Some(from), _) => self.copy(from, &to).await?,
        }
        Ok((Some(assembled), Committed::Settled))
    }

    /// Returns what the multipart upload is called, when it is not for a blob's key.
    fn upload(&self) -> Option<Uuid> {
        let is_own = self.state.multipart.is_some() && self.state.destination.is_none();
        is_own.then(|| self.state.upload_of(self.staged.id()))
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
        let multipart = self.bucket.create(to).await?;
        let copy = Copy {
            from,
            size: self.staged.size(),
            to,
            multipart: &multipart,
        };
        let complete = async {
            let parts = copy.parts(self.bucket).await?;
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
    ///
    /// An upload that is complete stays: it may be what a blob's bytes are, or be about to.
    async fn forget(&self) -> Result<(), StoreError> {
        if let Some(multipart) = &self.state.multipart {
            let path = self.bucket.multipart_path(&self.state, self.staged.id());
            self.bucket.abort(&path, multipart).await?;
        }
        if self.state.had_tail {
            let mut tails = self.bucket.list(Folder::Tails(self.staged.id()));
            while let Some(tail) = tails.try_next().await? {
                self.bucket.remove(&tail.location).await?;
            }
        }
        Ok(())
    }

    /// Deletes also the upload that has been completed just now.
    async fn forget_all(&self, left: Option<Assembled>) -> Result<(), StoreError> {
        self.forget().await?;
        let Some(upload) = left.and_then(|left| left.completed) else {
            return Ok(());
        };
        // Another commit may have found it, and it is good for that.
        let digest = self.staged.digest();
        if Moves::of(self.bucket, &digest).await?.is_of(upload) {
            return Ok(());
        }
        let path = self.bucket.path(Key::Upload(upload));
        self.bucket.remove(&path).await
    }
}

const fn part_id(content_id: String) -> PartId {
    PartId { content_id }
}
