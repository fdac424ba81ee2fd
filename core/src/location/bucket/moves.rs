//! Blobs whose bytes are still those of an upload, and their way to where they belong.
//!
//! What: a bucket cannot rename, and to copy a large blob takes longer than clients wait for a commit. So the upload is
//! completed under a key of its own, and an empty object, the pointer, says that it is the blob: from then on the blob can be
//! read. Behind that somebody puts up a claim and copies; once that is done, and nobody can be reading the upload any more,
//! pointer, claims and upload are deleted.
//!
//! Invariants: a pointer is put after the upload it names, whose bytes were hashed and never change; the upload is deleted
//! after the pointer, and that a grace after the blob is in its place, where everybody looks first: whoever does not find it
//! there finds it by its pointer. A blob that is deleted does not come back: a claim names the multipart upload that is going
//! to put it in its place, is put up before its pointer is looked at again, and pointers are deleted before claims are
//! looked for, so either the copy ends by itself or it is aborted by whoever deletes.
//!
//! Failure, cancellation and crash: each step can be made again, by any instance. A claim of somebody who died is respected
//! for [`CLAIM_LIFETIME`]. Two that claim at once see each other, and the one with the higher id leaves.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, PutPayload};
use uuid::Uuid;

use crate::location::key::{CLAIM, Folder, Key};
use crate::oci::digest::Digest;
use crate::store::{CommitError, StoreError};

use super::Bucket;
use super::copy::Copy;
use super::error::store_error;

/// For how long a claim keeps others from copying since it was put up last. Meanwhile the blob is served.
const CLAIM_LIFETIME: Duration = Duration::from_hours(1);

/// How often a claim is put up again while the copy goes on.
const CLAIM_INTERVAL: Duration = Duration::from_mins(10);

/// What is said of a blob that is moving.
pub(super) struct Moves<'a> {
    bucket: &'a Bucket,
    digest: &'a Digest,
    /// The uploads that are the blob, by what pointers say.
    uploads: Vec<Uuid>,
    /// The claims, and when they were put up.
    claims: Vec<(Uuid, SystemTime)>,
    /// When something was said last.
    newest: SystemTime,
}

/// Publishes a completed upload as a blob.
pub(super) async fn publish(
    bucket: &Bucket,
    digest: &Digest,
    upload: Uuid,
) -> Result<(), CommitError> {
    let pointer = bucket.path(Key::Move(digest, upload));
    bucket.put(&pointer, PutPayload::new()).await?;
    // What was completed long ago can have been swept as nobody's until there was a pointer.
    let bytes = bucket.path(Key::Upload(upload));
    if bucket.object_size(&bytes).await?.is_some() {
        return Ok(());
    }
    bucket.remove(&pointer).await?;
    Err(CommitError::Gone)
}

/// Deletes a blob, wherever its bytes are.
pub(super) async fn delete(bucket: &Bucket, digest: &Digest) -> Result<(), StoreError> {
    let moves = Moves::of(bucket, digest).await?;
    moves.remove_pointers().await?;
    if !moves.is_empty() {
        // Who claims from now on finds no pointer.
        Moves::of(bucket, digest).await?.end_claims().await?;
    }
    bucket.remove(&bucket.path(Key::Blob(digest))).await?;
    moves.remove_uploads().await
}

/// Copies a blob to where it belongs, or deletes what is left once it is there.
pub(super) async fn settle(
    bucket: &Bucket,
    digest: &Digest,
    now: SystemTime,
) -> Result<(), StoreError> {
    let moves = Moves::of(bucket, digest).await?;
    if moves.is_empty() {
        return Ok(());
    }
    if moves.uploads.is_empty() {
        return moves.end_claims().await;
    }
    match bucket.object(&bucket.path(Key::Blob(digest))).await? {
        Some(blob) if moves.is_over(&blob, now) => {
            moves.remove_pointers().await?;
            moves.end_claims().await?;
            moves.remove_uploads().await
        }
        Some(_) => Ok(()),
        None if moves.is_claimed(now) => Ok(()),
        None => moves.run().await,
    }
}

/// Returns the blobs that are moving.
///
/// Why not ask for the folders only: that is one question of as many pages as it takes, and a bucket has the time of one page
/// for its answer.
pub(super) async fn all(bucket: &Bucket) -> Result<Vec<Digest>, StoreError> {
    let digest = |path: &Path| Folder::Moves.digest(path.as_ref().rsplit('/').nth(1)?);
    let moves = bucket.list(Folder::Moves);
    let digests = moves.try_filter_map(async |object| Ok(digest(&object.location)));
    let digests: HashSet<_> = digests.try_collect().await?;
    Ok(digests.into_iter().collect())
}

/// Returns the uploads that are blobs.
pub(super) async fn uploads(bucket: &Bucket) -> Result<Vec<Uuid>, StoreError> {
    let moves = bucket.list(Folder::Moves);
    let names = moves.try_filter_map(async |object| Ok(upload(&object.location)));
    names.try_collect().await
}

// === impl Moves ===

impl<'a> Moves<'a> {
    pub(super) async fn of(bucket: &'a Bucket, digest: &'a Digest) -> Result<Self, StoreError> {
        let mut moves = Self {
            bucket,
            digest,
            uploads: Vec::new(),
            claims: Vec::new(),
            newest: SystemTime::UNIX_EPOCH,
        };
        let mut listing = bucket.list(Folder::MovesOf(*digest));
        while let Some(object) = listing.try_next().await? {
            let since = object.last_modified.into();
            moves.newest = moves.newest.max(since);
            if let Some(upload) = upload(&object.location) {
                moves.uploads.push(upload);
            } else if let Some(claim) = claim(&object.location) {
                moves.claims.push((claim, since));
            }
        }
        Ok(moves)
    }

    /// Returns where the bytes of the blob may be, if not where they belong.
    pub(super) fn paths(&self) -> impl Iterator<Item = Path> {
        let path = |upload: &Uuid| self.bucket.path(Key::Upload(*upload));
        self.uploads.iter().map(path)
    }

    /// Whether a pointer says that an upload is the blob.
    pub(super) fn is_of(&self, upload: Uuid) -> bool {
        self.uploads.contains(&upload)
    }

    /// Returns the size of the blob, if one of the uploads is here.
    pub(super) async fn size(&self) -> Result<Option<u64>, StoreError> {
        for path in self.paths() {
            if let Some(size) = self.bucket.object_size(&path).await? {
                return Ok(Some(size));
            }
        }
        Ok(None)
    }

    const fn is_empty(&self) -> bool {
        self.uploads.is_empty() && self.claims.is_empty()
    }

    /// Whether somebody is copying.
    fn is_claimed(&self, now: SystemTime) -> bool {
        let claims = &mut self.claims.iter();
        claims.any(|(_, since)| now < *since + CLAIM_LIFETIME)
    }

    /// Whether nobody reads the uploads any more, when the blob is in its place.
    fn is_over(&self, blob: &ObjectMeta, now: SystemTime) -> bool {
        // An object can be as old as the beginning of the copy that it is of.
        let since = self.newest.max(blob.last_modified.into());
        since + self.bucket.0.limits.move_grace <= now
    }

    /// Copies the blob from an upload.
    async fn run(&self) -> Result<(), StoreError> {
        let Ok(_permit) = self.bucket.0.moves.acquire().await else {
            return Ok(());
        };
        // Whoever made them is dead.
        self.end_claims().await?;
        for upload in &self.uploads {
            let from = self.bucket.path(Key::Upload(*upload));
            if let Some(size) = self.bucket.object_size(&from).await? {
                return self.copy(*upload, &from, size).await;
            }
            // It was there before its pointer, so it has been deleted.
            let pointer = Key::Move(self.digest, *upload);
            self.bucket.remove(&self.bucket.path(pointer)).await?;
        }
        Ok(())
    }

    async fn copy(&self, upload: Uuid, from: &Path, size: u64) -> Result<(), StoreError> {
        let (bucket, claim) = (self.bucket, Uuid::now_v7());
        let to = bucket.path(Key::Blob(self.digest));
        let store = bucket.0.engine.multipart();
        let multipart = bucket.create(&to).await?;
        let path = bucket.path(Key::MoveClaim(self.digest, claim));
        let put_claim = async || bucket.put(&path, multipart.clone().into()).await;
        let copy = Copy {
            from,
            size,
            to: &to,
            multipart: &multipart,
        };
        let copied = async {
            put_claim().await?;
            let moves = Moves::of(bucket, self.digest).await?;
            if !moves.is_of(upload) || moves.claims.iter().any(|(other, _)| *other < claim) {
                return Ok(false);
            }
            let renewed = async || -> Infallible {
                loop {
                    tokio::time::sleep(CLAIM_INTERVAL).await;
                    if let Err(error) = put_claim().await {
                        tracing::debug!(%path, error = &error as &dyn std::error::Error, "renew a claim");
                    }
                }
            };
            let parts = tokio::select! {
                parts = copy.parts(bucket) => parts.map_err(store_error)?,
                never = renewed() => match never {},
            };
            let complete = store.complete_multipart(&to, &multipart, parts);
            complete.await.map_err(store_error)?;
            Ok(true)
        };
        match copied.await {
            // Readers of the upload may have come until now.
            Ok(true) => put_claim().await,
            outcome => {
                self.end_claim(claim, Some(&multipart)).await?;
                match outcome {
                    // Somebody has deleted the blob, and with it what was to become of it.
                    Err(_) if !Moves::of(bucket, self.digest).await?.is_of(upload) => Ok(()),
                    outcome => outcome.map(drop),
                }
            }
        }
    }

    async fn remove_pointers(&self) -> Result<(), StoreError> {
        for upload in &self.uploads {
            let pointer = Key::Move(self.digest, *upload);
            self.bucket.remove(&self.bucket.path(pointer)).await?;
        }
        Ok(())
    }

    async fn remove_uploads(&self) -> Result<(), StoreError> {
        for path in self.paths() {
            self.bucket.remove(&path).await?;
        }
        Ok(())
    }

    async fn end_claims(&self) -> Result<(), StoreError> {
        for (claim, _) in &self.claims {
            let path = self.bucket.path(Key::MoveClaim(self.digest, *claim));
            let content = self.bucket.content(&path).await?;
            let multipart = content.map(|content| String::from_utf8_lossy(&content).into_owned());
            self.end_claim(*claim, multipart.as_deref()).await?;
        }
        Ok(())
    }

    /// Makes sure that what was claimed is not done any more.
    async fn end_claim(&self, claim: Uuid, multipart: Option<&str>) -> Result<(), StoreError> {
        if let Some(multipart) = multipart {
            let to = self.bucket.path(Key::Blob(self.digest));
            self.bucket.abort(&to, multipart).await?;
        }
        let path = self.bucket.path(Key::MoveClaim(self.digest, claim));
        self.bucket.remove(&path).await
    }
}

/// Returns the upload that a pointer names.
fn upload(path: &Path) -> Option<Uuid> {
    path.filename()?.parse().ok()
}

fn claim(path: &Path) -> Option<Uuid> {
    path.filename()?.strip_suffix(CLAIM)?.parse().ok()
}
