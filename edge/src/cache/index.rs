//! What is on the cache disk and how popular it is, written down: so that an edge is ready at once after a restart, and knows
//! what it knew.
//!
//! What: `<cache>/index/<generation>.snapshot` is a whole table; `<generation>.journal`, of the same number and higher ones,
//! are what came in and went since it was begun. Snapshots are written from time to time while the edge serves, and at its
//! end. What is only used is in the next snapshot, not in a journal.
//!
//! Invariants: a blob is in the index only after its file and name are durable. A snapshot is clean if no journal follows it:
//! then the process ended well, and its entries are as much to be trusted as they say. The journals are bounded, because a
//! snapshot is due when they grow ([`Index::is_due`]).
//!
//! Failure: an index that cannot be read, or that another version wrote, is none, and the directory of blobs is walked. One
//! whose journal cannot be written lacks something: its snapshot is called `<generation>.lacking` until there is another, which
//! is due at once. The directory is walked then too, and what is in no directory, as the pins are, is still taken from it; a pin
//! that could not be written down is written down with the next change. Crash: the last changes may be missing, so whoever
//! opens an index after an unclean end compares it with the directory (`stock`), and trusts no entry.

mod record;
mod snapshot;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::table::{Entry, Table, Trust};
pub use record::Change;
pub use snapshot::Ending;

/// The written index.
#[derive(Debug)]
pub struct Index {
    directory: PathBuf,
    /// Changes that are not in a journal yet, in their order.
    noted: Mutex<Vec<Change>>,
    journal: Mutex<Journal>,
    /// Held while a snapshot is written: one at a time.
    writing: Mutex<()>,
}

/// What an index says.
#[derive(Debug)]
pub struct Loaded {
    /// The table, which may hold more than its capacity.
    pub table: Table,
    /// How far the table can be relied on.
    pub standing: Standing,
}

/// How far a loaded table can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was written at a good end.
    Clean,
    /// It has all that was known before a bad end.
    Unclean,
    /// It lacks something, or everything: the directory must be walked before it is used.
    Lacking,
}

#[derive(Debug)]
struct Journal {
    /// The generation of the next change.
    generation: u64,
    /// None until something changes.
    file: Option<File>,
    bytes: u64,
    is_synced: bool,
    /// The generation whose journal lacks something last; none when all is written down.
    lacking: Option<u64>,
    /// Whether the process ends, and what still changes is left to the next one to find.
    is_closed: bool,
}

/// The files of an index, by generation.
#[derive(Debug, Default)]
struct Files {
    snapshots: Vec<u64>,
    /// Snapshots after which something was not written down.
    lacking: Vec<u64>,
    journals: Vec<u64>,
}

/// What a journal begins with, before its generation.
const JOURNAL_FORMAT: &[u8; 18] = b"outport journal 1\n";

/// A snapshot that is being written.
const STAGED: &str = "staged";

/// How large journals grow before they are replaced by a snapshot, at least, and for each entry.
const JOURNAL_BYTES_MIN: u64 = 4 << 20;
const JOURNAL_BYTES_PER_ENTRY: u64 = 32;

/// The largest journal that is read.
const JOURNAL_BYTES_MAX: u64 = 1 << 30;

// === impl Index ===

impl Index {
    /// Reads the index in a directory, and takes note that from now on it may change. Blocks.
    pub fn open(directory: &Path, capacity: u64) -> io::Result<(Self, Loaded)> {
        fs::create_dir_all(directory)?;
        let files = Files::list(directory)?;
        let loaded = load(directory, &files, capacity);
        let snapshots = files.snapshots.iter().chain(&files.lacking);
        let last = snapshots.chain(&files.journals).max();
        let index = Self {
            directory: directory.to_owned(),
            noted: Mutex::default(),
            journal: Mutex::new(Journal {
                generation: last.map_or(0, |last| last + 1),
                file: None,
                bytes: 0,
                is_synced: true,
                lacking: None,
                is_closed: false,
            }),
            writing: Mutex::default(),
        };
        let mut journal = index.journal.lock();
        if loaded.standing == Standing::Clean
            && let Some(snapshot) = files.snapshots.iter().max()
        {
            // The journal that follows it, which says that it is no longer clean.
            journal.generation = *snapshot;
        }
        if let Err(error) = journal.begin(directory) {
            index.spoil(&mut journal, &error);
        }
        drop(journal);
        Ok((index, loaded))
    }

    /// Takes note of a change; to be called while the table is locked, so that changes are in order.
    pub fn note(&self, change: Change) {
        self.noted.lock().push(change);
    }

    /// Writes down what was noted. Blocks.
    pub fn flush(&self) {
        let mut journal = self.journal.lock();
        self.flush_to(&mut journal);
    }

    /// Makes durable what was written down. Blocks.
    pub fn sync(&self) {
        let mut journal = self.journal.lock();
        if let Some(file) = &journal.file
            && !journal.is_synced
            && let Err(error) = file.sync_data()
        {
            return self.spoil(&mut journal, &error);
        }
        journal.is_synced = true;
    }

    /// Whether the journals lack something, or have grown so much that a snapshot of so many entries would be better.
    pub fn is_due(&self, entries: usize) -> bool {
        let most = JOURNAL_BYTES_MIN.max(JOURNAL_BYTES_PER_ENTRY * entries as u64);
        let journal = self.journal.lock();
        journal.lacking.is_some() || journal.bytes > most
    }

    /// Writes a snapshot, and deletes what it replaces; returns whether it did. Blocks; the table can be used meanwhile.
    pub fn snapshot(&self, table: &Mutex<Table>, ending: Ending) -> bool {
        let _writing = self.writing.lock();
        let generation = {
            let mut journal = self.journal.lock();
            self.flush_to(&mut journal);
            journal.file = None;
            journal.bytes = 0;
            journal.generation += 1;
            journal.generation
        };
        if let Err(error) = self.write(table, generation, ending) {
            // The last one, with all journals since, says the same.
            tracing::warn!(error = %error, "snapshot of the cache's index not written");
            fs::remove_file(self.directory.join(STAGED)).ok();
            return false;
        }
        let mut journal = self.journal.lock();
        if journal.lacking.is_some_and(|lacking| lacking >= generation) {
            // What was not written down meanwhile may not be in it.
            self.mark_lacking();
        } else {
            journal.lacking = None;
        }
        true
    }

    /// Writes the last snapshot. What changes from now on is not written down: it is what the directory shows, which the next
    /// process compares with the index, and would have that trust nothing else.
    pub fn close(&self, table: &Mutex<Table>) {
        {
            let mut journal = self.journal.lock();
            self.flush_to(&mut journal);
            journal.is_closed = true;
        }
        self.snapshot(table, Ending::Clean);
    }

    /// Deletes the index of a directory of blobs that is gone. Blocks.
    pub fn erase(directory: &Path) -> io::Result<()> {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&self, table: &Mutex<Table>, generation: u64, ending: Ending) -> io::Result<()> {
        let staged = self.directory.join(STAGED);
        snapshot::write(table, File::create(&staged)?, generation, ending)?;
        fs::rename(staged, snapshot_path(&self.directory, generation))?;
        sync_directory(&self.directory)?;
        let files = Files::list(&self.directory)?;
        let is_old = |of: &&u64| **of < generation;
        for old in files.journals.iter().filter(is_old) {
            fs::remove_file(journal_path(&self.directory, *old))?;
        }
        for old in files.snapshots.iter().filter(is_old) {
            fs::remove_file(snapshot_path(&self.directory, *old))?;
        }
        for old in files.lacking.iter().filter(is_old) {
            fs::remove_file(lacking_path(&self.directory, *old))?;
        }
        Ok(())
    }

    fn flush_to(&self, journal: &mut Journal) {
        // Under the lock of the journal, so that what was noted first is written first.
        let noted = std::mem::take(&mut *self.noted.lock());
        if noted.is_empty() || journal.is_closed {
            return;
        }
        if let Err(error) = journal.append(&self.directory, &noted) {
            self.spoil(journal, &error);
            // What came in is found by a walk.
            let mut kept: Vec<_> = noted.into_iter().filter(Change::is_of_pins).collect();
            let mut since = self.noted.lock();
            kept.append(&mut since);
            *since = kept;
        }
    }

    /// Takes note that the index lacks something: the next start walks the directory, unless a snapshot is written before.
    fn spoil(&self, journal: &mut Journal, error: &io::Error) {
        tracing::warn!(error = %error, "index of the cache not written, the next start may take longer");
        journal.file = None;
        journal.lacking = Some(journal.generation);
        // The journal may end in the middle of a change.
        journal.generation += 1;
        self.mark_lacking();
    }

    /// Has the next start not rely on the snapshots that there are.
    fn mark_lacking(&self) {
        let Ok(files) = Files::list(&self.directory) else {
            return;
        };
        for of in files.snapshots {
            let (from, to) = (
                snapshot_path(&self.directory, of),
                lacking_path(&self.directory, of),
            );
            if fs::rename(&from, to).is_err() {
                fs::remove_file(from).ok();
            }
        }
    }
}

/// Reads what there is.
fn load(directory: &Path, files: &Files, capacity: u64) -> Loaded {
    let lacking = || Loaded {
        table: Table::new(capacity),
        standing: Standing::Lacking,
    };
    let newest = |of: &[u64]| of.iter().copied().max();
    let (snapshot, lacks) = (newest(&files.snapshots), newest(&files.lacking));
    let Some(generation) = snapshot.max(lacks) else {
        return lacking();
    };
    let is_whole = snapshot >= lacks;
    let path = if is_whole {
        snapshot_path(directory, generation)
    } else {
        lacking_path(directory, generation)
    };
    let read = File::open(path).and_then(|file| snapshot::read(file, generation, capacity));
    let (mut table, ending) = match read {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(error = %error, "index of the cache not used");
            return lacking();
        }
    };
    let mut journals = files.journals.clone();
    journals.retain(|journal| *journal >= generation);
    journals.sort_unstable();
    let mut standing = match ending {
        _ if !is_whole => Standing::Lacking,
        Ending::Clean if journals.is_empty() => Standing::Clean,
        _ => Standing::Unclean,
    };
    for journal in journals {
        if let Err(error) = replay(&journal_path(directory, journal), journal, &mut table) {
            tracing::warn!(error = %error, "journal of the cache's index is torn");
            standing = Standing::Lacking;
        }
    }
    if standing != Standing::Clean {
        table.distrust_all();
    }
    Loaded { table, standing }
}

/// Carries out the changes in a journal.
fn replay(path: &Path, generation: u64, table: &mut Table) -> io::Result<()> {
    let file = File::open(path)?;
    if file.metadata()?.len() > JOURNAL_BYTES_MAX {
        return Err(record::invalid("the journal is too large"));
    }
    let mut bytes = Vec::new();
    file.take(JOURNAL_BYTES_MAX).read_to_end(&mut bytes)?;
    let mut rest = &bytes[..];
    if record::read_array::<18>(&mut rest)? != *JOURNAL_FORMAT
        || record::read_u64(&mut rest)? != generation
    {
        return Err(record::invalid("another version wrote the journal"));
    }
    while !rest.is_empty() {
        match Change::read(generation, &mut rest)? {
            // It was written down while the snapshot was.
            Change::Admitted { digest, size, .. } if table.size(&digest) == Some(size) => {}
            Change::Admitted { digest, size, home } => table.restore(Entry {
                digest,
                uses: 1,
                home,
                trust: Trust::Unverified,
                is_found: false,
                is_pinned: false,
                size,
                last_use: table.clock(),
            }),
            Change::Removed(digest) => {
                table.remove(&digest);
            }
            Change::Pinned { image, digests } => table.pin(image, digests).unwrap_or_default(),
            Change::Unpinned(image) => {
                table.unpin(&image);
            }
        }
    }
    Ok(())
}

// === impl Journal ===

impl Journal {
    /// Begins the journal of this generation, durably.
    fn begin(&mut self, directory: &Path) -> io::Result<()> {
        let path = journal_path(directory, self.generation);
        let mut file = File::options().append(true).create(true).open(path)?;
        let mut head = JOURNAL_FORMAT.to_vec();
        head.extend_from_slice(&self.generation.to_le_bytes());
        file.write_all(&head)?;
        file.sync_data()?;
        self.file = Some(file);
        sync_directory(directory)
    }

    fn append(&mut self, directory: &Path, changes: &[Change]) -> io::Result<()> {
        if self.file.is_none() {
            self.begin(directory)?;
        }
        let mut records = Vec::with_capacity(changes.len() * record::CHANGE_BYTES);
        for change in changes {
            change.write(self.generation, &mut records);
        }
        self.bytes += records.len() as u64;
        self.is_synced = false;
        self.file
            .as_mut()
            .map_or(Ok(()), |file| file.write_all(&records))
    }
}

// === impl Files ===

impl Files {
    fn list(directory: &Path) -> io::Result<Self> {
        let mut files = Self::default();
        for file in fs::read_dir(directory)? {
            let name = file?.file_name();
            let Some((generation, kind)) = name.to_str().and_then(|name| name.split_once('.'))
            else {
                continue;
            };
            match (generation.parse(), kind) {
                (Ok(generation), "snapshot") => files.snapshots.push(generation),
                (Ok(generation), "lacking") => files.lacking.push(generation),
                (Ok(generation), "journal") => files.journals.push(generation),
                _ => {}
            }
        }
        Ok(files)
    }
}

fn snapshot_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("{generation}.snapshot"))
}

fn lacking_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("{generation}.lacking"))
}

fn journal_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("{generation}.journal"))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
