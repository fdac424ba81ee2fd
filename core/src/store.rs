//! The seam between the registry and the places that keep bytes under their digest.
//!
//! What: a [`ContentStore`] keeps whole, verified blobs, and staged ones on their way.
//!
//! Invariants: a blob can be read only after its bytes hashed to its name; publishing is atomic and durable before
//! [`ContentStore::commit`] returns; a digest's bytes never change.
//!
//! Staging is resumable by anybody who holds the [`Staged`] value: the store keeps the bytes, the caller keeps the value
//! (the origin in its database, so that any instance goes on with a session). [`ContentStore::append`] takes the old value
//! and returns the next; bytes that no value accounts for do not exist and are overwritten by the next append.
//!
//! Failure: an append that breaks off returns a value that accounts for every byte that is durable, so that nothing
//! acknowledged is lost. Cancellation: an append whose future is dropped leaves the old value good. Crash: as cancellation.
//!
//! Commit never reads a blob again: the digest was computed as bytes went by. The one exception is a client that staged
//! without saying which algorithm it will name the blob by, and then names another than the default.

pub mod conformance;
pub mod disk;
pub mod faulty;
pub mod memory;

use std::fmt;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::body::Body;
use crate::oci::digest::{Algorithm, Digest, Hasher};

/// A place that keeps blobs under their digest.
#[async_trait]
pub trait ContentStore: fmt::Debug + Send + Sync + 'static {
    /// Returns the size of a blob in bytes, or none when it is not here.
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError>;

    /// Opens the bytes of `range`, which lies within the blob, for reading, or returns none when the blob is not here.
    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Body>, StoreError>;

    /// Deletes a blob; deleting what is not here succeeds.
    async fn delete(&self, digest: &Digest) -> Result<(), StoreError>;

    /// Appends `content` behind `staged.size()` and makes it durable.
    ///
    /// `destination` is the digest that the content is going to be committed under with this append, when it is known:
    /// a store that can only write a name once then writes the final one.
    ///
    /// An earlier commit may have taken the staged bytes away without anybody hearing of it, and the same content comes
    /// again. It is [`AppendError::Gone`] then, and with a `destination` the value that comes back stands for no bytes, but
    /// has the digest of all of them: a commit of it succeeds if just those bytes were published, and is refused otherwise.
    async fn append(
        &self,
        staged: Staged,
        content: Content<'_>,
        destination: Option<&Digest>,
    ) -> Appended;

    /// Publishes what is staged under `digest`, after comparing.
    ///
    /// Idempotent: a blob that is already here stays as it is. After a mismatch nothing is left of what was staged.
    async fn commit(&self, staged: Staged, digest: &Digest) -> Result<Committed, CommitError>;

    /// Forgets what is staged; forgetting what is not here succeeds. A blob that was published of it stays.
    async fn discard(&self, staged: Staged) -> Result<(), StoreError>;

    /// Goes on with what the commit of a blob has put off: to be called when one says so, and again for what
    /// [`Self::unsettled`] names. Nothing is to be seen of it: the blob is published already.
    ///
    /// Any number of instances may do so at once; what another one is at is left to it. When the future is dropped, or
    /// fails, another call goes on.
    async fn settle(&self, _digest: &Digest, _now: SystemTime) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns the blobs of which something has been put off, by any instance.
    async fn unsettled(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(Vec::new())
    }

    /// Asks whether the store can be used, as cheaply as can be: whether it is there, and takes our word for who we are.
    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Deletes what is staged and was not written to since `before`; returns how much that was.
    ///
    /// For what a crash left behind that no [`Staged`] is of.
    async fn sweep(&self, before: SystemTime) -> Result<u64, StoreError>;

    /// Returns the fewest bytes an append that is not the last should bring, sent as `OCI-Chunk-Min-Length`.
    fn min_chunk_size(&self) -> u64 {
        0
    }
}

/// A blob on its way into a store: all that must be remembered from one append to the next.
#[derive(Clone, Debug)]
pub struct Staged {
    id: Uuid,
    size: u64,
    hasher: Hasher,
    engine: serde_json::Value,
}

/// A [`Staged`] as it is written down between requests.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedRecord {
    /// The session.
    pub id: Uuid,
    /// How many bytes are staged.
    pub size_bytes: u64,
    /// The algorithm that is being computed.
    pub algorithm: String,
    /// The frozen hasher, in hex.
    pub hasher: String,
    /// What the store wants to remember.
    pub engine: serde_json::Value,
}

/// Bytes on their way in.
pub type Content<'a> = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + 'a>>;

/// What an append came to.
#[derive(Debug)]
pub struct Appended {
    /// The value to go on with: accounts for every byte that is durable.
    pub staged: Staged,
    /// Whether all of the content was taken.
    pub outcome: Result<(), AppendError>,
}

/// A store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room.
    #[error("no room left")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Worth trying again.
    #[error("store unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not worth trying again.
    #[error("store failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An append broke off.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The bytes stopped coming.
    #[error("read the content")]
    Content(#[source] io::Error),
    /// Somebody else is appending to the same session.
    #[error("another append to the same upload is under way")]
    Busy,
    /// What was staged is gone: the session cannot go on.
    #[error("the staged bytes are gone")]
    Gone,
    /// The content is larger than a blob can be here.
    #[error("the blob is larger than the store can keep")]
    TooLarge,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a commit has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// All there is to do.
    Settled,
    /// The blob is published, and [`ContentStore::settle`] is to go on.
    PutOff,
}

/// A commit was refused.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The bytes hash to another digest.
    #[error("content hashes to {actual}, not {expected}")]
    Mismatch {
        /// The digest asked for.
        expected: Digest,
        /// The digest of the staged bytes.
        actual: Digest,
    },
    /// What was staged is gone.
    #[error("the staged bytes are gone")]
    Gone,
    /// The store failed; what is staged is still there.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A written-down [`Staged`] does not make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the record of a staged blob")]
pub struct BadStagedRecord;

// === impl Staged ===

impl Staged {
    /// Starts a new one, with no bytes in it and nothing in any store yet.
    pub fn new(id: Uuid, algorithm: Algorithm) -> Self {
        Self {
            id,
            size: 0,
            hasher: Hasher::new(algorithm),
            engine: serde_json::Value::Null,
        }
    }

    /// Returns the session it belongs to.
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Returns how many bytes are staged.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the algorithm computed as bytes go by.
    pub const fn algorithm(&self) -> Algorithm {
        self.hasher.algorithm()
    }

    /// Returns the hasher of the bytes that are staged.
    pub(crate) const fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Returns the digest of the bytes that are staged.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Returns what the store wants to remember.
    pub(crate) const fn engine(&self) -> &serde_json::Value {
        &self.engine
    }

    /// Computes the algorithm of `destination` from now on, if no bytes came before.
    #[must_use]
    pub(crate) fn aimed_at(self, destination: Option<&Digest>) -> Self {
        match destination {
            Some(digest) if self.size == 0 => Self {
                hasher: Hasher::new(digest.algorithm()),
                ..self
            },
            _ => self,
        }
    }

    /// Replaces what the store wants to remember.
    #[must_use]
    pub(crate) fn with_engine(self, engine: serde_json::Value) -> Self {
        Self { engine, ..self }
    }

    /// Accounts for bytes up to `size`, which `hasher` has seen.
    #[must_use]
    pub(crate) fn advanced(self, size: u64, hasher: Hasher) -> Self {
        Self {
            size,
            hasher,
            ..self
        }
    }

    /// Returns the value as it is written down.
    pub fn to_record(&self) -> StagedRecord {
        StagedRecord {
            id: self.id,
            size_bytes: self.size,
            algorithm: self.algorithm().to_string(),
            hasher: hex::encode(self.hasher.freeze()),
            engine: self.engine.clone(),
        }
    }
}

impl TryFrom<StagedRecord> for Staged {
    type Error = BadStagedRecord;

    fn try_from(record: StagedRecord) -> Result<Self, BadStagedRecord> {
        let StagedRecord {
            id,
            size_bytes,
            algorithm,
            hasher,
            engine,
        } = record;
        let algorithm = algorithm.parse().or(Err(BadStagedRecord))?;
        let hasher = hex::decode(hasher).or(Err(BadStagedRecord))?;
        Ok(Self {
            id,
            size: size_bytes,
            hasher: Hasher::thaw(algorithm, &hasher).or(Err(BadStagedRecord))?,
            engine,
        })
    }
}

// === impl Appended ===

impl Appended {
    /// Ends an append to bytes that are gone; `content` is what is left of what would follow `staged`.
    ///
    /// The value gets an id of its own, under which there is nothing that could be mistaken for its bytes.
    pub(crate) async fn gone(
        staged: Staged,
        mut content: Content<'_>,
        destination: Option<&Digest>,
    ) -> Self {
        let (mut size, mut hasher) = (staged.size, staged.hasher.clone());
        while destination.is_some() {
            match content.next().await {
                Some(Ok(frame)) => {
                    hasher.update(&frame);
                    size += frame.len() as u64;
                }
                Some(Err(error)) => {
                    return Self {
                        staged,
                        outcome: Err(AppendError::Content(error)),
                    };
                }
                None => break,
            }
        }
        let nothing = Staged::new(Uuid::now_v7(), staged.algorithm());
        Self {
            staged: nothing.advanced(size, hasher),
            outcome: Err(AppendError::Gone),
        }
    }
}

// === impl StoreError ===

impl StoreError {
    /// Whether trying again may help.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Unavailable(_))
    }
}
