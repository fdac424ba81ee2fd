//! A bucket of an object store, as a [`ContentStore`].
//!
//! What: content is cut into parts of a multipart upload. What does not fill a part at the end of an append is kept as an
//! object of its own, the tail, and begins the next part. When the destination is known from the start, the upload is made for
//! the blob's own key and completing it publishes the blob; otherwise it is made for the session's key, completed there, and
//! copied within the store. A small blob with a known destination is one `PUT`.
//!
//! Invariants: nothing is at a blob's key that did not hash to its name before it was put there, completed or copied. The
//! cutting depends on offsets only, and every tail has its own key, so that an append that was thought dead does no harm to
//! the one that replaced it, as long as both carry the same bytes.
//!
//! Failure: what was put is accounted for, in order, up to the first failure. Cancellation and crash: parts and tails that no
//! value accounts for are replaced by the next append, or stay until the bucket's own rules abort old multipart uploads
//! (set such a rule: a dropped append can leave one behind that nobody knows) and [`ContentStore::sweep`] deletes old tails.

mod append;
mod error;
mod publish;
mod state;

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStoreExt as _};
use tokio::sync::Semaphore;

use crate::body::Body;
use crate::location::engine::Engine;
use crate::location::key::{Folder, Key};
use crate::oci::digest::Digest;
use crate::store::{Appended, CommitError, Content, ContentStore, Staged, StoreError};

use self::error::{found, store_error};

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
}

/// A bucket of an object store.
#[derive(Clone, Debug)]
pub struct Bucket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Arc<dyn Engine>,
    prefix: String,
    limits: Limits,
    /// Who holds a permit may have a part under way.
    parts: Semaphore,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            part_bytes: 8 << 20,
            parts_in_flight: 4,
            parts_in_flight_total: 8,
            copy_bytes: 1 << 30,
            copies_in_flight: 8,
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
            parts: Semaphore::new(limits.parts_in_flight_total.max(1)),
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

    async fn object_size(&self, path: &Path) -> Result<Option<u64>, StoreError> {
        let head = self.0.engine.objects().head(path).await;
        Ok(found(head)?.map(|object| object.size))
    }

    /// Deletes an object; deleting what is not there succeeds.
    async fn remove(&self, path: &Path) -> Result<(), StoreError> {
        found(self.0.engine.objects().delete(path).await).map(drop)
    }
}

#[async_trait]
impl ContentStore for Bucket {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        self.object_size(&self.path(Key::Blob(digest))).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Body>, StoreError> {
        let length = range.end - range.start;
        if length == 0 {
            // Stores refuse a range of no bytes.
            let size = self.size(digest).await?;
            return Ok(size.map(|_| Body::empty()));
        }
        let options = GetOptions {
            range: Some(range.into()),
            ..GetOptions::default()
        };
        let path = self.path(Key::Blob(digest));
        let object = self.0.engine.objects().get_opts(&path, options).await;
        let Some(object) = found(object)? else {
            return Ok(None);
        };
        let frames = object.into_stream().map_err(std::io::Error::from);
        Ok(Some(Body::stream(frames).with_exact_len(length)))
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.remove(&self.path(Key::Blob(digest))).await
    }

    async fn append(
        &self,
        staged: Staged,
        content: Content<'_>,
        destination: Option<&Digest>,
    ) -> Appended {
        append::append(self, staged.aimed_at(destination), content, destination).await
    }

    async fn commit(&self, staged: Staged, digest: &Digest) -> Result<(), CommitError> {
        publish::commit(self, &staged, digest).await
    }

    async fn discard(&self, staged: Staged) -> Result<(), StoreError> {
        publish::forget(self, &staged).await
    }

    /// Multipart uploads are not objects: the bucket's own rules must abort old ones.
    async fn sweep(&self, before: SystemTime) -> Result<u64, StoreError> {
        let objects = self.0.engine.objects();
        let folder = self.path_of(&Folder::Uploads.path());
        let mut listing = objects.list(Some(&folder));
        let mut count = 0;
        while let Some(object) = listing.try_next().await.map_err(store_error)? {
            if SystemTime::from(object.last_modified) < before {
                self.remove(&object.location).await?;
                count += 1;
            }
        }
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
