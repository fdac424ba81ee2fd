//! Names: the metadata's hot reads, from memory and yet never stale.
//!
//! What: tags, manifests and blob records are kept in memory and answered from there. Before any answer, the feed's position
//! is asked of the database, and the memory is brought up to it. Such a question serves every request that was waiting when
//! it was asked, so a thousand concurrent pulls cost a few one-row reads, and any number of origins over one database
//! agree at every moment: what one acknowledged, the next request to another sees.
//!
//! Invariants: a request is answered from a state at least as new as the moment it came in; only what exists is remembered
//! (a push needs to invalidate nothing); memory is bounded by [`NamesConfig::memory`].
//!
//! Failure: when the database cannot be asked, nothing is answered from memory: the caller gets the error.
//! Cancellation: a caller that leaves changes nothing; questions are asked by a task of their own.
//! Crash: memory only.
//!
//! Why not a time to live: a tag that was moved would be served wrongly for as long. Why not `LISTEN/NOTIFY`: a message may
//! be late, and SQLite has none.

use std::sync::Arc;

use moka::sync::Cache;
use outport_core::cluster::Sequence;
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::{RepoName, Tag};
use outport_core::tasks::Tasks;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::metadata::{
    BlobRecord, Change, Event, ManifestRecord, Metadata, MetadataError, TagRecord,
};

/// How much of the names is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamesConfig {
    /// Bytes of manifests, and a sixteenth of it each for tags and blob records.
    pub memory: u64,
}

/// A handle to the names.
#[derive(Clone, Debug)]
pub struct Names(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    metadata: Arc<dyn Metadata>,
    questions: mpsc::UnboundedSender<oneshot::Sender<Answer>>,
    memory: Memory,
}

/// What the feed's position was, or why it could not be asked: shared by all who waited for it.
type Answer = Result<(), Arc<MetadataError>>;

/// What is remembered. All of it is as of `applied`, or newer.
#[derive(Debug)]
struct Memory {
    /// The lock is held while an event is applied or a value put in, so that a value read before an event can not be put in
    /// after it.
    applied: Mutex<Sequence>,
    tags: Cache<(RepoName, Tag), TagRecord>,
    manifests: Cache<(RepoName, Digest), Arc<ManifestRecord>>,
    blobs: Cache<(RepoName, Digest), BlobRecord>,
}

/// Answers the questions for the feed's position, all that wait at once.
struct Asker {
    inner: std::sync::Weak<Inner>,
    questions: mpsc::UnboundedReceiver<oneshot::Sender<Answer>>,
}

/// The names could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("read the names")]
pub struct NamesError(#[source] pub Arc<MetadataError>);

/// Events applied one by one before the memory is rather emptied.
const EVENTS_PER_CATCH_UP: u32 = 1_000;

/// Questions answered at once at most: bounds the wait of the first of them for the others' wake-ups.
const QUESTIONS_AT_ONCE: usize = 1_024;

// === impl Names ===

impl Names {
    /// Returns the names of `metadata`; the questions are asked by one of `tasks`.
    pub fn new(metadata: Arc<dyn Metadata>, config: NamesConfig, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            metadata,
            questions: sender,
            memory: Memory::new(config),
        });
        let asker = Asker {
            inner: Arc::downgrade(&inner),
            questions: receiver,
        };
        tasks.spawn("names", asker.run());
        Self(inner)
    }

    /// Returns what a tag points at.
    pub async fn tag(
        &self,
        repository: &RepoName,
        tag: &Tag,
    ) -> Result<Option<TagRecord>, NamesError> {
        self.catch_up().await?;
        let Inner {
            metadata, memory, ..
        } = &*self.0;
        let key = (repository.clone(), tag.clone());
        if let Some(record) = memory.tags.get(&key) {
            return Ok(Some(record));
        }
        let before = memory.position();
        let record = metadata.tag(repository, tag).await?;
        if let Some(record) = &record {
            memory.put(before, || memory.tags.insert(key, record.clone()));
        }
        Ok(record)
    }

    /// Returns a manifest that the repository holds.
    pub async fn manifest(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<Arc<ManifestRecord>>, NamesError> {
        self.catch_up().await?;
        self.manifest_as_of_now(repository, digest).await
    }

    /// Returns the manifest that a tag points at.
    pub async fn tagged_manifest(
        &self,
        repository: &RepoName,
        tag: &Tag,
    ) -> Result<Option<Arc<ManifestRecord>>, NamesError> {
        match self.tag(repository, tag).await? {
            Some(record) => self.manifest_as_of_now(repository, &record.digest).await,
            None => Ok(None),
        }
    }

    /// Returns a blob that the repository links.
    pub async fn blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<BlobRecord>, NamesError> {
        self.catch_up().await?;
        let Inner {
            metadata, memory, ..
        } = &*self.0;
        let key = (repository.clone(), *digest);
        if let Some(record) = memory.blobs.get(&key) {
            return Ok(Some(record));
        }
        let before = memory.position();
        let record = metadata.blob(repository, digest).await?;
        if let Some(record) = record {
            memory.put(before, || memory.blobs.insert(key, record));
        }
        Ok(record)
    }

    async fn manifest_as_of_now(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<Arc<ManifestRecord>>, NamesError> {
        let Inner {
            metadata, memory, ..
        } = &*self.0;
        let key = (repository.clone(), *digest);
        if let Some(record) = memory.manifests.get(&key) {
            return Ok(Some(record));
        }
        let before = memory.position();
        let record = metadata.manifest(repository, digest).await?.map(Arc::new);
        if let Some(record) = &record {
            memory.put(before, || memory.manifests.insert(key, Arc::clone(record)));
        }
        Ok(record)
    }

    /// Waits until the memory is as new as this call.
    async fn catch_up(&self) -> Result<(), NamesError> {
        let stopped = || NamesError(Arc::new(MetadataError::Unavailable("shutting down".into())));
        let (sender, receiver) = oneshot::channel();
        self.0
            .questions
            .send(sender)
            .map_err(|_stopped| stopped())?;
        match receiver.await {
            Ok(answer) => answer.map_err(NamesError),
            Err(_stopped) => Err(stopped()),
        }
    }
}

impl From<MetadataError> for NamesError {
    fn from(error: MetadataError) -> Self {
        Self(Arc::new(error))
    }
}

// === impl Asker ===

impl Asker {
    async fn run(mut self) {
        let mut waiting = Vec::new();
        while self
            .questions
            .recv_many(&mut waiting, QUESTIONS_AT_ONCE)
            .await
            > 0
        {
            let Some(inner) = self.inner.upgrade() else {
                return;
            };
            let answer = inner.catch_up().await.map_err(Arc::new);
            for sender in waiting.drain(..) {
                // Who has left needs no answer.
                sender.send(answer.clone()).ok();
            }
        }
    }
}

// === impl Inner ===

impl Inner {
    async fn catch_up(&self) -> Result<(), MetadataError> {
        let position = self.metadata.position().await?;
        let mut applied = self.memory.position();
        if position == applied {
            return Ok(());
        }
        let behind = position.get().saturating_sub(applied.get());
        // A position that went back is another database's (restored, or failed over with loss): nothing is known of it.
        if position < applied || behind > u64::from(EVENTS_PER_CATCH_UP) {
            self.memory.forget(position);
            return Ok(());
        }
        while applied < position {
            let events = self.metadata.events(applied, EVENTS_PER_CATCH_UP).await?;
            let Some(last) = events.last() else { break };
            applied = last.sequence;
            self.memory.apply(events);
        }
        Ok(())
    }
}

// === impl Memory ===

impl Memory {
    fn new(NamesConfig { memory }: NamesConfig) -> Self {
        const ENTRY: u64 = 256;
        let small = memory / 16;
        Self {
            applied: Mutex::new(Sequence::START),
            tags: Cache::new(small / ENTRY),
            manifests: Cache::builder()
                .max_capacity(memory)
                .weigher(|_, record: &Arc<ManifestRecord>| {
                    u32::try_from(record.body.len() as u64 + ENTRY).unwrap_or(u32::MAX)
                })
                .build(),
            blobs: Cache::new(small / ENTRY),
        }
    }

    fn position(&self) -> Sequence {
        *self.applied.lock()
    }

    /// Puts in what was read after `before`, unless something has happened since that the value may lack.
    fn put(&self, before: Sequence, insert: impl FnOnce()) {
        let applied = self.applied.lock();
        if *applied == before {
            insert();
        }
    }

    fn apply(&self, events: Vec<Event>) {
        let mut applied = self.applied.lock();
        for Event {
            sequence,
            repository,
            change,
            ..
        } in events
        {
            match change {
                Change::TagMoved(tag, _) | Change::TagDeleted(tag, _) => {
                    self.tags.invalidate(&(repository, tag));
                }
                // One that is published again may have another type.
                Change::ManifestDeleted(digest) | Change::ManifestPublished(digest) => {
                    self.manifests.invalidate(&(repository, digest));
                }
                Change::BlobUnlinked(digest) => self.blobs.invalidate(&(repository, digest)),
            }
            *applied = sequence;
        }
    }

    fn forget(&self, position: Sequence) {
        let mut applied = self.applied.lock();
        self.tags.invalidate_all();
        self.manifests.invalidate_all();
        self.blobs.invalidate_all();
        *applied = position;
    }
}
