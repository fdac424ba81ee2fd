//! What an edge needs of its cache disk beside the seam: open files, files that grow, and a walk over what is here.
//!
//! Everything here blocks for as long as the file system does, so long calls ([`Disk::publish`], [`Disk::entries`],
//! [`BlobFile::verify`]) belong on a blocking thread.
//!
//! Invariant: at most one [`Partial`] of a digest and a lane is open at a time, in any process; it is locked like a session's
//! file.
//! Crash: a partial stays, whatever had been written to it, and is found by [`Disk::partials`]; its bytes are durable only
//! up to the last [`Partial::sync`], and nothing is known about holes in them.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::body::Body;
use crate::location::key::{Folder, Key, Lane};
use crate::oci::digest::{Algorithm, Digest, Hasher};

use super::{Disk, HASH_READ_BYTES, LockError, Seal, durable, open_locked};

/// A blob, open for reading; it can be read to its end also after it was deleted.
#[derive(Clone, Debug)]
pub struct BlobFile {
    /// The file, which is shared: read it at positions.
    pub file: Arc<File>,
    /// Its size in bytes.
    pub size: u64,
    /// What is on it as long as nobody writes to it.
    pub seal: Seal,
}

/// A blob that is being brought in: a file with one writer, at any positions, and many readers.
#[derive(Clone, Debug)]
pub struct Partial {
    file: Arc<File>,
    path: PathBuf,
    digest: Digest,
}

/// What a walk over the directory finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub digest: Digest,
    /// Of a partial, its lane.
    pub lane: Lane,
    /// The size of the file in bytes, holes included.
    pub size: u64,
    /// How many bytes of the disk it takes.
    pub occupied: u64,
    /// When it was written, or given its name.
    pub modified: SystemTime,
    /// When it was read last, as far as the file system keeps count.
    pub accessed: SystemTime,
}

/// How often a partial that is deleted while it is opened is created again.
const OPEN_TRIES: u32 = 100;

/// What `stat` counts in, whatever the blocks of the file system are.
const STAT_BLOCK_BYTES: u64 = 512;

// === impl Disk ===

impl Disk {
    /// Opens a blob, or returns none when it is not here.
    pub fn open_blob(&self, digest: &Digest) -> io::Result<Option<BlobFile>> {
        let file = match File::open(self.path(Key::Blob(digest))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let size = file.metadata()?.len();
        Ok(Some(BlobFile {
            file: Arc::new(file),
            size,
            seal: Seal::of(digest),
        }))
    }

    /// Whether a blob's file still has its name: it may have been deleted, or replaced, since it was opened.
    pub fn is_current(&self, digest: &Digest, blob: &BlobFile) -> io::Result<bool> {
        let named = match fs::symlink_metadata(self.path(Key::Blob(digest))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            named => named?,
        };
        let opened = blob.file.metadata()?;
        Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino()))
    }

    /// Deletes a blob; deleting what is not here succeeds.
    ///
    /// A crash of the machine may bring it back.
    pub fn remove_blob(&self, digest: &Digest) -> io::Result<()> {
        durable::remove(&self.path(Key::Blob(digest)))
    }

    /// Takes a damaged blob out of service and keeps it for a look, until [`Self::remove_quarantined`].
    pub fn quarantine(&self, digest: &Digest) -> io::Result<()> {
        let (from, to) = (
            self.path(Key::Blob(digest)),
            self.path(Key::Quarantined(digest)),
        );
        match durable::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Walks over the damaged blobs that are kept for a look.
    pub fn quarantined(&self) -> impl Iterator<Item = io::Result<Entry>> + use<'_> {
        self.list(Folder::Quarantine)
    }

    /// Deletes a damaged blob that was kept for a look.
    pub fn remove_quarantined(&self, digest: &Digest) -> io::Result<()> {
        durable::remove(&self.path(Key::Quarantined(digest)))
    }

    /// Walks over the blobs that are here, in no order, without reading them.
    pub fn entries(&self) -> impl Iterator<Item = io::Result<Entry>> + use<'_> {
        let bytes = 0..=u8::MAX;
        Algorithm::ALL
            .into_iter()
            .flat_map(move |algorithm| bytes.clone().map(move |byte| (algorithm, byte)))
            .flat_map(|(algorithm, byte)| self.entries_of(algorithm, byte))
    }

    /// Walks over the part of them whose digest is of one algorithm and begins with `byte`.
    pub fn entries_of(
        &self,
        algorithm: Algorithm,
        byte: u8,
    ) -> impl Iterator<Item = io::Result<Entry>> + use<> {
        self.list(Folder::Prefix(algorithm, byte))
    }

    /// Opens the partial of a digest in a lane, empty or as an earlier process left it; fails with `WouldBlock` while it is open.
    pub fn partial(&self, digest: &Digest, lane: Lane) -> io::Result<Partial> {
        let path = self.path(Key::Download(digest, lane));
        let mut tries = OPEN_TRIES;
        let (file, _size) = loop {
            match open_locked(&path, true) {
                // Whoever took it for a leftover deleted it between opening and locking.
                Err(LockError::Gone) if tries > 0 => tries -= 1,
                opened => break opened?,
            }
        };
        Ok(Partial {
            file: Arc::new(file),
            path,
            digest: *digest,
        })
    }

    /// Walks over the partials that are here, open ones included.
    pub fn partials(&self) -> impl Iterator<Item = io::Result<Entry>> + use<'_> {
        self.list(Folder::Downloads)
    }

    /// Makes a partial durable, seals it and gives it its name; the caller has hashed every byte of it.
    ///
    /// Readers of the partial go on reading the same file.
    pub fn publish(&self, partial: &Partial) -> io::Result<BlobFile> {
        let seal = Seal::of(&partial.digest);
        partial.file.sync_data()?;
        seal.put_on(&partial.file)?;
        durable::rename(&partial.path, &self.path(Key::Blob(&partial.digest)))?;
        let size = partial.file.metadata()?.len();
        Ok(BlobFile {
            file: Arc::clone(&partial.file),
            size,
            seal,
        })
    }

    fn list(&self, folder: Folder) -> impl Iterator<Item = io::Result<Entry>> + use<> {
        let (listing, failure) = match fs::read_dir(self.root().join(folder.path())) {
            Ok(listing) => (Some(listing), None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
            Err(error) => (None, Some(Err(error))),
        };
        listing
            .into_iter()
            .flatten()
            .filter_map(move |file| entry(folder, file).transpose())
            .chain(failure)
    }
}

/// Returns none for what is not one of our files, or vanished meanwhile.
fn entry(folder: Folder, file: io::Result<fs::DirEntry>) -> io::Result<Option<Entry>> {
    let file = file?;
    let name = file.file_name();
    let Some((digest, lane)) = name
        .to_str()
        .and_then(|name| Some((folder.digest(name)?, folder.lane(name))))
    else {
        return Ok(None);
    };
    let metadata = match file.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    if !metadata.is_file() {
        return Ok(None);
    }
    // Of a sealed file, the time of modification says nothing.
    let changed = Duration::new(
        u64::try_from(metadata.ctime()).unwrap_or_default(),
        u32::try_from(metadata.ctime_nsec()).unwrap_or_default(),
    );
    let modified = metadata.modified()?.max(SystemTime::UNIX_EPOCH + changed);
    Ok(Some(Entry {
        digest,
        lane,
        size: metadata.len(),
        occupied: metadata.blocks().saturating_mul(STAT_BLOCK_BYTES),
        modified,
        accessed: metadata.accessed().unwrap_or(modified),
    }))
}

/// Hashes a whole file, whatever the position of its cursor.
pub(super) fn hash(file: &File, hasher: Hasher) -> io::Result<Digest> {
    hash_to(file, hasher, u64::MAX)
}

/// Hashes the bytes of a file before `end`.
pub(super) fn hash_to(file: &File, mut hasher: Hasher, end: u64) -> io::Result<Digest> {
    let mut buffer = vec![0; HASH_READ_BYTES];
    let mut offset = 0;
    loop {
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let wanted = wanted.min(HASH_READ_BYTES);
        match file.read_at(&mut buffer[..wanted], offset) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

// === impl BlobFile ===

impl BlobFile {
    /// Returns the bytes of `range`, which lies within the file.
    pub fn body(self, range: Range<u64>) -> Body {
        Body::file(self.file, range)
    }

    /// Whether the file is as it was when its bytes were hashed: sealed, and as long.
    pub fn is_sealed(&self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        Ok(metadata.len() == self.size && self.seal.is_whole(&metadata))
    }

    /// Seals the file; the caller has hashed every byte of it.
    pub fn put_seal(&self) -> io::Result<()> {
        self.seal.put_on(&self.file)
    }

    /// Reads the blob and says whether it hashes to `digest`.
    pub fn verify(&self, digest: &Digest) -> io::Result<bool> {
        Ok(hash(&self.file, Hasher::new(digest.algorithm()))? == *digest)
    }
}

// === impl Partial ===

impl Partial {
    /// Returns the digest it is to have.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Returns the file, for reading at positions that were written.
    pub const fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Returns how long the file is, holes included.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Cuts the file off behind `size` bytes.
    pub fn truncate(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    /// Makes what is written durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Lets others open it, also while readers have it open still.
    pub fn release(&self) -> io::Result<()> {
        self.file.unlock()
    }

    /// Deletes it; readers that have it open can go on.
    pub fn discard(&self) -> io::Result<()> {
        durable::remove(&self.path)
    }
}
