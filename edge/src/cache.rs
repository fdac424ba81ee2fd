//! The cache disk, with memory in front: whole, verified blobs and manifests under their digest.
//!
//! What: [`Cache`] carries out what its [`Table`] decides. A file stays open from one hit to the next; manifests and small
//! blobs are held in memory besides, and cost no system call.
//!
//! Invariants: what is in the table is on disk, or was when last looked; a file is opened only if the table has it. Bytes on
//! disk stay within the capacity, plus what downloads in flight have written and what is kept of earlier ones and of damaged
//! files. Whether a caller may see a digest is not asked here.
//!
//! Failure: a file that is gone or has another length is forgotten, and counts as a miss; one that somebody wrote to is
//! doubtful until it was hashed again, as all are after a bad end; a damaged one is put aside. A disk that cannot take more
//! rests for a while ([`Cache::may_fill`]), and downloads pass by it. Crash: the table is filled from the [`index`], or else
//! from the directory.

mod aside;
mod changes;
pub mod index;
pub mod lock;
mod relief;
pub mod scrub;
mod stock;
pub mod table;
mod tend;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outport_core::breaker::{Breaker, BreakerConfig, Permit};
use outport_core::location::key::Lane;
use outport_core::oci::digest::Digest;
use outport_core::store::disk::{BlobFile, Disk, Entry, OpenError, Partial};
use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::metrics::CacheMetrics;
use crate::names::Names;
use changes::Naming;
use index::{Index, Standing};
use lock::Locked;
use table::{Home, Table, Trust};

/// The cached blobs and manifests; cheap to clone.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Inner>);

/// A blob that is here.
#[derive(Clone, Debug)]
pub enum Found {
    /// Something small, whose bytes were hashed when they were taken into memory.
    Held(Bytes),
    /// As it was when it was hashed.
    Sound(BlobFile),
    /// Maybe written to since; to be given to nobody before it was hashed again.
    Doubtful(BlobFile),
}

/// How much a [`Cache`] keeps.
#[derive(Clone, Copy, Debug)]
pub struct CacheConfig {
    /// Bytes of blobs and manifests on disk.
    pub capacity_bytes: u64,
    /// Bytes of manifests and small blobs in memory.
    pub memory_bytes: u64,
    /// Files that are kept open between requests.
    pub open_files: u64,
    /// How long a disk that failed to take a blob is left alone.
    pub disk_rest: Duration,
    /// How much of what is on disk is hashed again in a second; nothing when zero.
    pub scrub_bytes_per_second: u64,
    /// How many files a second are compared with the index after the start.
    pub checks_per_second: u64,
}

#[derive(Debug)]
struct Inner {
    /// Goes before the names, which tell when all has gone.
    #[expect(dead_code, reason = "it is there to be dropped")]
    locked: Locked,
    disk: Disk,
    table: Mutex<Table>,
    index: Index,
    /// Whether the directory has to be compared with the table yet.
    standing: Standing,
    checks_per_second: u64,
    /// Held while what a file is called and what the table says of it are made to agree.
    naming: Naming,
    open: moka::sync::Cache<Digest, BlobFile>,
    contents: moka::sync::Cache<Digest, Bytes>,
    filling: Mutex<Breaker>,
    /// How many bytes went when the disk was full; locked while they go.
    last_relief: Mutex<u64>,
    names: Names,
    metrics: CacheMetrics,
}

// === impl Cache ===

impl Cache {
    /// Opens the directory, and its index or else takes stock of it, without reading the blobs. Blocks.
    pub fn open(
        locked: Locked,
        config: CacheConfig,
        names: Names,
        metrics: CacheMetrics,
    ) -> Result<Self, OpenError> {
        let root = &locked.root;
        let disk = open_disk(root)?;
        let (index, loaded) = open_index(root, config.capacity_bytes)?;
        let (table, evicted) = stock::take(&disk, loaded.table, loaded.standing);
        metrics.capacity_bytes.set(level(config.capacity_bytes));
        let rest = BreakerConfig {
            failures: 1,
            min_rest: config.disk_rest,
            max_rest: config.disk_rest,
        };
        let cache = Self(Arc::new(Inner {
            locked,
            disk,
            table: Mutex::new(table),
            index,
            standing: loaded.standing,
            checks_per_second: config.checks_per_second,
            naming: Naming::default(),
            open: moka::sync::Cache::new(config.open_files),
            contents: moka::sync::Cache::builder()
                .max_capacity(config.memory_bytes)
                .weigher(|_, content: &Bytes| {
                    u32::try_from(content.len() + ENTRY_BYTES).unwrap_or(u32::MAX)
                })
                .build(),
            filling: Mutex::new(Breaker::new(rest)),
            last_relief: Mutex::new(0),
            names,
            metrics,
        }));
        cache.delete(&evicted);
        cache.count();
        Ok(cache)
    }

    /// Returns a blob, in memory or open, or none when it is not here.
    pub async fn blob(&self, digest: &Digest) -> Option<Found> {
        let (size, trust) = self.0.table.lock().touch(digest)?;
        if size <= HELD_BYTES_MAX {
            return self.held(digest, size, trust).await.map(Found::Held);
        }
        let (blob, trust) = self.opened(digest, size, trust).await?;
        Some(match trust {
            Trust::Verified => Found::Sound(blob),
            Trust::Unverified => Found::Doubtful(blob),
        })
    }

    /// Returns the file of a blob that the table has, and how far it is trusted now that it was looked at.
    async fn opened(&self, digest: &Digest, size: u64, trust: Trust) -> Option<(BlobFile, Trust)> {
        let kept = self.0.open.get(digest);
        let is_kept = kept.is_some();
        let opened = match kept {
            Some(blob) => Ok(Some(blob)),
            None => self.open_blob(digest).await?,
        };
        match opened.and_then(|blob| blob.map(|blob| Ok((blob.is_sealed()?, blob))).transpose()) {
            Ok(Some((true, blob))) if trust == Trust::Verified && blob.size == size => {
                if !is_kept {
                    self.keep_open(digest, &blob);
                }
                Some((blob, Trust::Verified))
            }
            Ok(Some((_, blob))) if blob.file.metadata().is_ok_and(|file| file.len() == size) => {
                Some((blob, Trust::Unverified))
            }
            Ok(_) => {
                let (cache, owned) = (self.clone(), *digest);
                spawn_blocking(move || cache.forget_missing(&owned))
                    .await
                    .ok();
                None
            }
            Err(error) => {
                tracing::warn!(%digest, %error, "cached file not opened");
                None
            }
        }
    }

    async fn open_blob(&self, digest: &Digest) -> Option<io::Result<Option<BlobFile>>> {
        let (disk, owned) = (self.0.disk.clone(), *digest);
        spawn_blocking(move || disk.open_blob(&owned)).await.ok()
    }

    /// Takes a doubtful blob for sound, after it was hashed. Blocks.
    pub fn vouch(&self, digest: &Digest, blob: &BlobFile) {
        if let Err(error) = blob.put_seal() {
            tracing::warn!(%digest, %error, "cached file not sealed");
            return;
        }
        self.mark_verified(digest);
        self.keep_open(digest, blob);
    }

    /// Takes note that a blob could not be read: it is hashed again before it is given to anybody, and then put aside.
    pub fn doubt(&self, digest: &Digest) {
        tracing::warn!(%digest, "cached file not read to its end, to be hashed again");
        self.0.table.lock().mark_unverified(digest);
        self.0.open.invalidate(digest);
    }

    /// Keeps a file open for the next request, unless it was evicted meanwhile, or another one has its name: nobody would close it
    /// then.
    fn keep_open(&self, digest: &Digest, blob: &BlobFile) {
        self.0.open.insert(*digest, blob.clone());
        if !self.has(digest) || !self.0.disk.is_current(digest, blob).unwrap_or(false) {
            self.0.open.invalidate(digest);
        }
    }

    /// Returns the whole content of something small, or none when it is not here or is larger than `size_max`.
    pub async fn content(&self, digest: &Digest, size_max: u64) -> Option<Bytes> {
        let known = self.0.table.lock().touch(digest);
        match known {
            Some((size, trust)) if size <= size_max => self.held(digest, size, trust).await,
            Some(_) => None,
            // The disk may not have taken it.
            None => self.0.contents.get(digest),
        }
    }

    /// Returns the whole content of something small from memory, or else from the disk.
    async fn held(&self, digest: &Digest, size: u64, trust: Trust) -> Option<Bytes> {
        if let Some(content) = self.0.contents.get(digest) {
            return Some(content);
        }
        Box::pin(self.take_in(digest, size, trust)).await
    }

    async fn take_in(&self, digest: &Digest, size: u64, trust: Trust) -> Option<Bytes> {
        // It is hashed here, so one that is not trusted does.
        let (blob, _) = self.opened(digest, size, trust).await?;
        let (cache, owned) = (self.clone(), *digest);
        let read = spawn_blocking(move || {
            let content = read_whole(&blob)?;
            // Small enough to be looked at again, so what rotted on disk is not served.
            let is_sound = owned.algorithm().digest(&content) == owned;
            if !is_sound {
                cache.condemn_file(&owned, &blob);
            }
            Ok::<_, io::Error>(is_sound.then_some(content))
        });
        match read.await.ok()? {
            Ok(content) => {
                let content = content?;
                self.0.contents.insert(*digest, content.clone());
                Some(content)
            }
            Err(error) => {
                tracing::warn!(digest = %digest, error = %error, "cached file not read");
                None
            }
        }
    }

    /// Keeps something small whose bytes hash to `digest`; when the disk cannot take it, in memory only.
    pub async fn put_content(&self, digest: Digest, content: Bytes) {
        self.0.contents.insert(digest, content.clone());
        if self.0.table.lock().size(&digest).is_some() || !self.may_fill() {
            return;
        }
        let cache = self.clone();
        let outcome = spawn_blocking(move || {
            let partial = cache.0.disk.partial(&digest, Lane::default())?;
            partial.truncate(0)?;
            partial.write_at(&content, 0)?;
            cache.publish(&partial, content.len() as u64, Home::Here)
        })
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(error) = outcome
            // Another request is keeping the same.
            && error.kind() != io::ErrorKind::WouldBlock
        {
            self.fill_failed(&error);
        }
    }

    /// Whether a blob is here, as far as is known.
    pub fn has(&self, digest: &Digest) -> bool {
        self.0.table.lock().size(digest).is_some()
    }

    /// Returns how many bytes of blobs and manifests are kept on disk at most.
    pub fn capacity_bytes(&self) -> u64 {
        self.0.table.lock().capacity()
    }

    /// Whether the disk takes new blobs, as far as is known.
    pub fn may_fill(&self) -> bool {
        self.0.filling.lock().ask(Instant::now()) == Permit::Go
    }

    /// Reports that the disk did not take a blob.
    pub fn fill_failed(&self, error: &io::Error) {
        self.0.metrics.disk_failures.inc();
        if is_of_one_path(error) {
            tracing::warn!(error = %error, "cache disk did not take a blob: something is in its place");
            return;
        }
        tracing::warn!(error = %error, "cache disk takes no more, left alone for a while");
        self.0.filling.lock().failed(Instant::now());
    }

    /// Opens the file of a blob on its way in from a registry, with what an earlier download left. Blocks.
    pub fn partial(&self, digest: &Digest, lane: Lane) -> io::Result<Partial> {
        self.0.disk.partial(digest, lane)
    }

    /// Returns the files of interrupted downloads, and of those under way. Blocks.
    pub fn partials(&self) -> Vec<Entry> {
        self.0.disk.partials().flatten().collect()
    }

    fn count(&self) {
        let (bytes, blobs) = {
            let table = self.0.table.lock();
            (table.bytes(), table.len())
        };
        self.0.metrics.bytes.set(level(bytes));
        self.0.metrics.blobs.set(level(blobs as u64));
    }
}

/// The largest blob that is held in memory: configurations of images, which are asked for as often as their manifests. For a
/// larger one, the system calls that this saves are few beside what it costs to send it.
const HELD_BYTES_MAX: u64 = 16 << 10;

/// The folder of the index, in the cache's directory.
const INDEX_FOLDER: &str = "index";

/// What an entry in memory costs beside its content.
const ENTRY_BYTES: usize = 300;

/// Opens the directory; one that another version wrote is emptied, because a cache may be cold but must not be wrong.
fn open_disk(root: &Path) -> Result<Disk, OpenError> {
    match Disk::open(root) {
        Err(OpenError::UnknownFormat { path, found }) => {
            tracing::warn!(path = %path.display(), found, "cache was written by another version, starting cold");
            Index::erase(&root.join(INDEX_FOLDER))
                .and_then(|()| Disk::erase(root))
                .map_err(|source| OpenError::Io { path, source })?;
            Disk::open(root)
        }
        opened => opened,
    }
}

/// Opens the index that is beside the blobs.
fn open_index(root: &Path, capacity: u64) -> Result<(Index, index::Loaded), OpenError> {
    let path = root.join(INDEX_FOLDER);
    Index::open(&path, capacity).map_err(|source| OpenError::Io { path, source })
}

/// Whether an error is about what has one name, and says nothing of the disk.
fn is_of_one_path(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::IsADirectory | Kind::NotADirectory | Kind::DirectoryNotEmpty | Kind::AlreadyExists
    )
}

fn read_whole(blob: &BlobFile) -> io::Result<Bytes> {
    use std::os::unix::fs::FileExt as _;
    let mut content = vec![0; usize::try_from(blob.size).map_err(io::Error::other)?];
    blob.file.read_exact_at(&mut content, 0)?;
    Ok(content.into())
}

fn level(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
