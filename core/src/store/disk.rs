//! A directory of verified blobs that survives crashes: an origin's local location, and an edge's cache disk.
//!
//! What: [`Disk`] is the [`ContentStore`] of a directory laid out by [`Key`]; `cache` adds what an edge needs besides.
//!
//! Invariants: a file appears under `blobs/` by one rename, after its bytes hashed to its name and are durable; it is never
//! written to again. Whoever writes to a session's file holds its lock (`flock`, which the kernel releases when a process
//! dies), so that several processes can serve one directory.
//!
//! Failure: a full disk is [`StoreError::Full`], and what fitted is kept. Cancellation: see `append`. Crash: sessions go on
//! from their last value; what no value accounts for is cut off by the next append or by [`Disk::sweep_folders`].

mod append;
mod cache;
mod durable;
mod seal;
mod stamp;

use std::error::Error;
use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::task::spawn_blocking;

use crate::body::Body;
use crate::location::key::{Folder, Key};
use crate::oci::digest::{Algorithm, Digest, Hasher};
use crate::store::{
    AppendError, Appended, CommitError, Committed, Content, ContentStore, Staged, StoreError,
};

pub use cache::{BlobFile, Entry, Partial};
pub use seal::Seal;

/// What this version writes into the `format` file.
const FORMAT: &str = "outport 1\n";

/// How much all appends together may hold in memory while it is gathered for writing.
const GATHERED_BYTES_MAX: usize = 16 << 20;

/// The batch that one append gathers, whatever the others do.
const BATCH_BYTES: Range<usize> = 64 << 10..1 << 20;

/// How much of a blob is read at once when it has to be hashed again.
const HASH_READ_BYTES: usize = 1 << 20;

/// A directory of verified blobs.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Inner>);

/// A directory could not be opened as a [`Disk`].
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another version wrote it, in a way that this one does not know.
    #[error("{path} has the unknown format {found:?}")]
    UnknownFormat {
        /// The directory.
        path: PathBuf,
        /// What its `format` file says.
        found: String,
    },
    /// The file system said no.
    #[error("open the directory {path}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// How many appends are under way.
    appends: AtomicUsize,
}

/// Counts an append for as long as it is under way.
#[derive(Debug)]
struct UnderWay<'a>(&'a AtomicUsize);

/// The file of a session, which nobody else writes to.
#[derive(Debug)]
struct Locked {
    file: File,
    /// Whether the file is durable as it is: nothing was cut off, and an append flushed it.
    flushed: bool,
}

/// Why a file could not be locked.
#[derive(Debug)]
enum LockError {
    Busy,
    Gone,
    Io(io::Error),
}

// === impl Disk ===

impl Disk {
    /// Opens a directory, which is created when it is missing. Blocks.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let root = root.into();
        prepare(&root)?;
        Ok(Self(Arc::new(Inner {
            root,
            appends: AtomicUsize::new(0),
        })))
    }

    /// Deletes everything that any version keeps in a directory, so that [`Self::open`] finds a cold one. Blocks.
    pub fn erase(root: &Path) -> io::Result<()> {
        let folders = [
            Folder::Blobs,
            Folder::Uploads,
            Folder::Downloads,
            Folder::Quarantine,
        ];
        for folder in folders {
            match fs::remove_dir_all(root.join(folder.path())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Last: while it is there, a directory that was erased in part is not taken for a whole one.
        durable::remove(&root.join(Key::Format.path()))
    }

    /// Returns the directory.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Deletes the bytes of sessions, and damaged blobs, that nobody wrote to since `before`; returns how many. Blocks.
    pub fn sweep_folders(&self, before: SystemTime) -> io::Result<u64> {
        let mut count = 0;
        for folder in [Folder::Uploads, Folder::Quarantine] {
            for entry in fs::read_dir(self.0.root.join(folder.path()))? {
                let path = entry?.path();
                count += u64::from(sweep_file(&path, before)?);
            }
        }
        Ok(count)
    }

    fn path(&self, key: Key<'_>) -> PathBuf {
        self.0.root.join(key.path())
    }

    /// Runs `work`, which blocks, where that hurts nobody.
    async fn blocking<T, E>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let disk = self.clone();
        spawn_blocking(move || work(&disk))
            .await
            .unwrap_or_else(|error| Err(store_error(io::Error::other(error)).into()))
    }

    /// Opens and locks the file of a session, and cuts off what nobody accounts for.
    ///
    /// The lock is free between an append and the moment in which its value is written down, so an append of an older value
    /// may have come in between, and written other bytes over those that `staged` stands for. The stamp tells; when it is not
    /// that of `staged` the bytes are read again.
    fn lock_staged(&self, staged: &Staged) -> Result<Locked, LockError> {
        let size = staged.size();
        let (file, found) = open_locked(&self.path(Key::Upload(staged.id())), size == 0)?;
        if found < size {
            return Err(LockError::Gone);
        }
        if size > 0 && !stamp::is_of(&file, staged)? {
            let hasher = Hasher::new(staged.algorithm());
            if cache::hash_to(&file, hasher, size)? != staged.digest() {
                return Err(LockError::Gone);
            }
        }
        if found > size {
            file.set_len(size)?;
        }
        Ok(Locked {
            file,
            flushed: found == size && size > 0,
        })
    }

    /// Returns the digest of a session's bytes, reading them again only for an algorithm that was not computed.
    fn staged_digest(staged: &Staged, file: &File, algorithm: Algorithm) -> io::Result<Digest> {
        if staged.algorithm() == algorithm {
            return Ok(staged.digest());
        }
        cache::hash(file, Hasher::new(algorithm))
    }

    fn publish_staged(&self, staged: &Staged, digest: &Digest) -> Result<(), CommitError> {
        let from = self.path(Key::Upload(staged.id()));
        let to = self.path(Key::Blob(digest));
        let size = Some(staged.size());
        let proven = staged.algorithm() == digest.algorithm() && staged.digest() == *digest;
        let Locked { file, flushed } = match self.lock_staged(staged) {
            Ok(locked) => locked,
            // An earlier commit of these bytes got as far as the rename.
            Err(LockError::Gone) if proven && file_size(&to).map_err(store_error)? == size => {
                return sync_parent(&to).map_err(|error| store_error(error).into());
            }
            Err(error) => return Err(error.into()),
        };
        let actual = Self::staged_digest(staged, &file, digest.algorithm()).map_err(store_error)?;
        if actual != *digest {
            durable::remove(&from).map_err(store_error)?;
            return Err(CommitError::Mismatch {
                expected: *digest,
                actual,
            });
        }
        if !flushed {
            file.sync_data().map_err(store_error)?;
        }
        // A blob of another size is damaged, and is replaced.
        if file_size(&to).map_err(store_error)? == size {
            durable::remove(&from).map_err(store_error)?;
            sync_parent(&to).map_err(store_error)?;
        } else {
            durable::rename(&from, &to).map_err(store_error)?;
        }
        Ok(())
    }
}

#[async_trait]
impl ContentStore for Disk {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.path(Key::Blob(digest));
        self.blocking(move |_| file_size(&path).map_err(store_error))
            .await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Body>, StoreError> {
        let digest = *digest;
        let blob = self
            .blocking(move |disk| disk.open_blob(&digest).map_err(store_error))
            .await?;
        Ok(blob.map(|blob| blob.body(range)))
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        let digest = *digest;
        self.blocking(move |disk| disk.remove_blob(&digest).map_err(store_error))
            .await
    }

    async fn append(
        &self,
        staged: Staged,
        content: Content<'_>,
        destination: Option<&Digest>,
    ) -> Appended {
        let staged = staged.aimed_at(destination);
        let value = staged.clone();
        let locked = self
            .blocking(move |disk| {
                let Locked { file, flushed: _ } = disk.lock_staged(&value)?;
                let stamped = stamp::put(&file, value).map_err(store_error)?;
                if stamped.size() == 0 {
                    // What an append acknowledges must be found by its name after a crash.
                    sync_parent(&disk.path(Key::Upload(stamped.id()))).map_err(store_error)?;
                }
                Ok::<_, AppendError>((file, stamped))
            })
            .await;
        let (file, staged) = match locked {
            Ok(locked) => locked,
            Err(AppendError::Gone) => return Appended::gone(staged, content, destination).await,
            Err(error) => {
                return Appended {
                    staged,
                    outcome: Err(error),
                };
            }
        };
        let under_way = UnderWay::new(&self.0.appends);
        append::append(file, staged, content, || under_way.batch_bytes()).await
    }

    async fn commit(&self, staged: Staged, digest: &Digest) -> Result<Committed, CommitError> {
        let digest = *digest;
        self.blocking(move |disk| disk.publish_staged(&staged, &digest))
            .await?;
        Ok(Committed::Settled)
    }

    async fn discard(&self, staged: Staged) -> Result<(), StoreError> {
        let path = self.path(Key::Upload(staged.id()));
        self.blocking(move |_| durable::remove(&path).map_err(store_error))
            .await
    }

    async fn sweep(&self, before: SystemTime) -> Result<u64, StoreError> {
        self.blocking(move |disk| disk.sweep_folders(before).map_err(store_error))
            .await
    }
}

/// Makes sure of the directory's format and folders.
fn prepare(root: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io {
        path: root.to_owned(),
        source,
    };
    durable::create_directory(root).map_err(failed)?;
    let format = root.join(Key::Format.path());
    match fs::read(&format) {
        Ok(found) if found == FORMAT.as_bytes() => {}
        Ok(found) => {
            return Err(OpenError::UnknownFormat {
                path: root.to_owned(),
                found: String::from_utf8_lossy(&found).trim_end().to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            durable::write(&format, FORMAT.as_bytes()).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    create_folders(root).map_err(failed)
}

/// Creates every folder now, so that no commit has to make one durable.
fn create_folders(root: &Path) -> io::Result<()> {
    for folder in [Folder::Uploads, Folder::Downloads, Folder::Quarantine] {
        durable::create_directory(&root.join(folder.path()))?;
    }
    for algorithm in Algorithm::ALL {
        let parent = root.join(Folder::Algorithm(algorithm).path());
        durable::create_directory(&parent)?;
        for byte in 0..=u8::MAX {
            match fs::create_dir(root.join(Folder::Prefix(algorithm, byte).path())) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        durable::sync_directory(&parent)?;
    }
    Ok(())
}

/// Opens a file for writing and locks it, and returns its size.
fn open_locked(path: &Path, create: bool) -> Result<(File, u64), LockError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .open(path)?;
    file.try_lock()?;
    let metadata = file.metadata()?;
    // It may have been published or removed between opening and locking.
    let named = fs::symlink_metadata(path)?;
    if (named.dev(), named.ino()) != (metadata.dev(), metadata.ino()) {
        return Err(LockError::Gone);
    }
    Ok((file, metadata.len()))
}

fn file_size(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    durable::sync_directory(path.parent().unwrap_or(Path::new(".")))
}

fn sweep_file(path: &Path, before: SystemTime) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    // Whoever writes to it holds its lock, and may have been silent for long.
    if file.metadata()?.modified()? >= before || file.try_lock().is_err() {
        return Ok(false);
    }
    durable::remove(path)?;
    Ok(true)
}

/// Tells apart what a caller of the seam tells apart.
fn store_error(error: io::Error) -> StoreError {
    use io::ErrorKind as Kind;
    let kind = error.kind();
    let source: Box<dyn Error + Send + Sync> = error.into();
    match kind {
        Kind::StorageFull | Kind::QuotaExceeded => StoreError::Full(source),
        // Out of memory or of file descriptors, which passes.
        Kind::OutOfMemory | Kind::Interrupted | Kind::WouldBlock | Kind::TimedOut => {
            StoreError::Unavailable(source)
        }
        _ => StoreError::Failed(source),
    }
}

// === impl UnderWay ===

impl<'a> UnderWay<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }

    /// Returns this append's share of the memory; two batches of it are held at a time.
    fn batch_bytes(&self) -> usize {
        let share = GATHERED_BYTES_MAX / (2 * self.0.load(Ordering::Relaxed).max(1));
        share.clamp(BATCH_BYTES.start, BATCH_BYTES.end)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl LockError ===

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

impl From<TryLockError> for LockError {
    fn from(error: TryLockError) -> Self {
        match error {
            TryLockError::WouldBlock => Self::Busy,
            TryLockError::Error(error) => Self::Io(error),
        }
    }
}

impl From<LockError> for io::Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Busy => io::ErrorKind::WouldBlock.into(),
            LockError::Gone => io::ErrorKind::NotFound.into(),
            LockError::Io(error) => error,
        }
    }
}

impl From<LockError> for AppendError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Busy => Self::Busy,
            LockError::Gone => Self::Gone,
            LockError::Io(error) => store_error(error).into(),
        }
    }
}

impl From<LockError> for CommitError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Gone => Self::Gone,
            error => store_error(error.into()).into(),
        }
    }
}

#[cfg(test)]
mod tests;
