//! A bucket of an object store, as a [`ContentStore`].
//!
//! What: content is cut into parts of a multipart upload. What does not fill a part at the end of an append is kept as an
//! object of its own, the tail, and begins the next part. When the destination is known from the start, the upload is made for
//! the blob's own key and completing it publishes the blob; otherwise it is made for a key of its own, completed there, and
//! a small blob is copied within the store, while a large one is read from there until it has moved (`moves`). A small blob
//! with a known destination is one `PUT`.
//!
//! Invariants: nothing is at a blob's key that did not hash to its name before it was put there, completed or copied. The
//! cutting depends on offsets only, and every tail has its own key, so that an append that was thought dead does no harm to
//! the one that replaced it, as long as both carry the same bytes.
//!
//! Failure: what was put is accounted for, in order, up to the first failure. Cancellation and crash: parts and tails that no
//! value accounts for are replaced by the next append, or stay until the bucket's own rules abort old multipart uploads
//! (set such a rule: a dropped append can leave one behind that nobody knows) and [`ContentStore::sweep`] deletes old tails.

mod append;
mod copy;
mod error;
mod gathered;
mod moves;
mod prompt;
mod publish;
mod state;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectMeta, ObjectStoreExt as _, PutPayload};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::body::Body;
use crate::location::engine::Engine;
use crate::location::key::{Folder, Key};
use crate::oci::digest::Digest;
use crate::store::{Appended, CommitError, Committed, Content, ContentStore, Staged, StoreError};

use self::error::{found, store_error};
use self::moves::Moves;
use self::prompt::Prompt;
use self::state::State;

/// The bounds of what a bucket is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The size of a part, at least 5 MiB, which stores insist on; an append holds one in memory. Those of a large blob are
    /// up to [`Self::GROWTH_MAX`] times as large.
    pub part_bytes: usize,
    /// How many parts of one append may be under way; a larger one counts as several, and when there is room for no second
    /// part, it is alone.
    pub parts_in_flight: usize,
    /// How many parts of all appends may be under way, in the same way.
    pub parts_in_flight_total: usize,
    /// The largest object that a store copies by one request; larger ones are copied in ranges of this size at most.
    pub copy_bytes: u64,
    /// How many ranges of one object are copied at a time.
    pub copies_in_flight: usize,
    /// How long the head of an answer may take, where it does not take as long as bytes do.
    pub answer_timeout: Duration,
    /// The largest blob that a commit waits for the copy of, when there has to be one.
    pub copy_now_bytes: u64,
    /// How long the bytes of an upload stay when the blob has moved from there: as long as somebody may be reading them.
    pub move_grace: Duration,
}

/// A bucket of an object store.
#[derive(Clone, Debug)]
pub struct Bucket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Arc<dyn Engine>,
    prefix: String,
    limits: Limits,
    prompt: Prompt,
    /// Who holds a permit may have a part under way.
    parts: Semaphore,
    /// Who holds a permit may copy a blob to where it belongs.
    moves: Semaphore,
    /// Complete uploads that were no blob's at the last sweep. Only such are swept, because an upload is complete, and may look
    /// as old as its first part, a moment before a commit says whose bytes it is.
    suspects: Mutex<HashSet<Uuid>>,
}

/// An object of this size takes no longer than one of no bytes.
const SMALL_BYTES: usize = 64 << 10;

/// How many objects are looked at in one sweep.
const SWEPT_MAX: usize = 10_000;

/// How many blobs are copied to where they belong at a time.
const MOVES_IN_FLIGHT: usize = 2;

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            part_bytes: 5 << 20,
            parts_in_flight: 4,
            parts_in_flight_total: 8,
            copy_bytes: 1 << 30,
            copies_in_flight: 8,
            answer_timeout: Duration::from_millis(1500),
            copy_now_bytes: 16 << 20,
            move_grace: Duration::from_hours(1),
        }
    }
}

impl Limits {
    /// How many times as large as the first part of a blob its last can be.
    pub const GROWTH_MAX: usize = state::GROWTH_MAX;

    /// Returns how many parts a part of `bytes` counts as, and how many permits it takes: there are no more than that.
    fn units(&self, bytes: usize) -> (usize, u32) {
        let units = bytes.div_ceil(self.part_bytes.max(1)).max(1);
        let permits = units.min(self.parts_in_flight_total.max(1));
        (units, u32::try_from(permits).unwrap_or(u32::MAX))
    }
}

// === impl Bucket ===

impl Bucket {
    /// Returns the part of an engine's bucket whose keys begin with `prefix`.
    pub fn new(engine: Arc<dyn Engine>, prefix: &str, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            engine,
            prefix: prefix.to_owned(),
            prompt: Prompt::new(limits.answer_timeout),
            parts: Semaphore::new(limits.parts_in_flight_total.max(1)),
            moves: Semaphore::new(MOVES_IN_FLIGHT),
            suspects: Mutex::default(),
            limits,
        }))
    }

    fn path(&self, key: Key<'_>) -> Path {
        self.path_of(&key.path())
    }

    fn path_of(&self, key: &str) -> Path {
        // Both are made of valid parts already, and need no encoding.
        let parts = self.0.prefix.split('/').chain(key.split('/'));
        parts.filter(|part| !part.is_empty()).collect()
    }

    /// Returns the key that the multipart upload of a session is for.
    fn multipart_path(&self, state: &State, session: Uuid) -> Path {
        let destination = state.destination();
        destination.as_ref().map_or_else(
            || self.path(Key::Upload(state.upload_of(session))),
            |digest| self.path(Key::Blob(digest)),
        )
    }

    async fn object(&self, path: &Path) -> Result<Option<ObjectMeta>, StoreError> {
        let head = self.0.engine.objects().head(path);
        found(self.0.prompt.ask(head).await)
    }

    async fn object_size(&self, path: &Path) -> Result<Option<u64>, StoreError> {
        Ok(self.object(path).await?.map(|object| object.size))
    }

    /// Returns the bytes of a small object.
    async fn content(&self, path: &Path) -> Result<Option<Bytes>, StoreError> {
        let get = async { self.0.engine.objects().get(path).await?.bytes().await };
        found(self.0.prompt.ask(get).await)
    }

    /// Puts an object.
    async fn put(&self, path: &Path, payload: PutPayload) -> Result<(), StoreError> {
        let is_small = payload.content_length() <= SMALL_BYTES;
        let put = self.0.engine.objects().put(path, payload);
        let put = if is_small {
            self.0.prompt.ask(put).await
        } else {
            put.await
        };
        put.map(drop).map_err(store_error)
    }

    /// Begins a multipart upload.
    async fn create(&self, path: &Path) -> Result<String, StoreError> {
        let create = self.0.engine.multipart().create_multipart(path);
        self.0.prompt.ask(create).await.map_err(store_error)
    }

    /// Lists the objects of a folder.
    fn list(&self, folder: Folder) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        let folder = self.path_of(&folder.path());
        let listing = self.0.engine.objects().list(Some(&folder));
        let objects = stream::try_unfold(listing, async |mut listing| {
            let object = self.0.prompt.ask(listing.try_next()).await;
            Ok(object.map_err(store_error)?.map(|object| (object, listing)))
        });
        objects.boxed()
    }

    /// Aborts a multipart upload; aborting one that is complete, or aborted, succeeds and does nothing.
    async fn abort(&self, path: &Path, multipart: &str) -> Result<(), StoreError> {
        let (store, multipart) = (self.0.engine.multipart(), multipart.to_owned());
        let abort = store.abort_multipart(path, &multipart);
        found(self.0.prompt.ask(abort).await).map(drop)
    }

    async fn open(&self, path: &Path, range: Range<u64>) -> Result<Option<Body>, StoreError> {
        let length = range.end - range.start;
        let options = GetOptions {
            range: Some(range.into()),
            ..GetOptions::default()
        };
        let object = self.0.engine.objects().get_opts(path, options);
        let Some(object) = found(self.0.prompt.ask(object).await)? else {
            return Ok(None);
        };
        let frames = object.into_stream().map_err(std::io::Error::from);
        Ok(Some(Body::stream(frames).with_exact_len(length)))
    }

    /// Deletes an object; deleting what is not there succeeds.
    async fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let delete = self.0.engine.objects().delete(path);
        found(self.0.prompt.ask(delete).await).map(drop)
    }
}

#[async_trait]
impl ContentStore for Bucket {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let size = self.object_size(&self.path(Key::Blob(digest))).await?;
        match size {
            Some(size) => Ok(Some(size)),
            None => Moves::of(self, digest).await?.size().await,
        }
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Body>, StoreError> {
        if range.is_empty() {
            // Stores refuse a range of no bytes.
            let size = self.size(digest).await?;
            return Ok(size.map(|_| Body::empty()));
        }
        let blob = self.path(Key::Blob(digest));
        if let Some(body) = self.open(&blob, range.clone()).await? {
            return Ok(Some(body));
        }
        for path in Moves::of(self, digest).await?.paths() {
            if let Some(body) = self.open(&path, range.clone()).await? {
                return Ok(Some(body));
            }
        }
        Ok(None)
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        moves::delete(self, digest).await
    }

    async fn append(
        &self,
        staged: Staged,
        content: Content<'_>,
        destination: Option<&Digest>,
    ) -> Appended {
        append::append(self, staged.aimed_at(destination), content, destination).await
    }

    async fn commit(&self, staged: Staged, digest: &Digest) -> Result<Committed, CommitError> {
        publish::commit(self, &staged, digest).await
    }

    async fn discard(&self, staged: Staged) -> Result<(), StoreError> {
        publish::forget(self, &staged).await
    }

    async fn settle(&self, digest: &Digest, now: SystemTime) -> Result<(), StoreError> {
        moves::settle(self, digest, now).await
    }

    async fn unsettled(&self) -> Result<Vec<Digest>, StoreError> {
        moves::all(self).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        // One page of it, which a bucket refuses that is none, or does not know us.
        self.list(Folder::Uploads).try_next().await.map(drop)
    }

    /// Multipart uploads are not objects: the bucket's own rules must abort old ones.
    async fn sweep(&self, before: SystemTime) -> Result<u64, StoreError> {
        let old = self.list(Folder::Uploads).try_filter(|object| {
            std::future::ready(SystemTime::from(object.last_modified) < before)
        });
        let old: Vec<_> = old.take(SWEPT_MAX).try_collect().await?;
        if old.is_empty() {
            return Ok(0);
        }
        // Only now, so that what became a blob meanwhile is known as one.
        let blobs: HashSet<_> = moves::uploads(self).await?.into_iter().collect();
        let mut suspects = HashSet::new();
        let mut count = 0;
        for ObjectMeta { location, .. } in old {
            let upload = location.filename().and_then(|name| name.parse().ok());
            if let Some(upload) = upload.filter(|id| location == self.path(Key::Upload(*id))) {
                if blobs.contains(&upload) {
                    continue;
                }
                let is_suspect = self.0.suspects.lock().contains(&upload);
                if !is_suspect {
                    suspects.insert(upload);
                    continue;
                }
                // There are few of these, and what is before this one may have taken its time.
                if moves::uploads(self).await?.contains(&upload) {
                    continue;
                }
            }
            self.remove(&location).await?;
            count += 1;
        }
        *self.0.suspects.lock() = suspects;
        Ok(count)
    }

    fn min_chunk_size(&self) -> u64 {
        self.0.limits.part_bytes as u64
    }
}

/// Whether an error says that a thing is not there.
const fn is_missing(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. })
}

#[cfg(test)]
mod tests;
