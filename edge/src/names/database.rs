//! The database in the file of names: open to be written to, or to be read only, or not at all.
//!
//! Failure: what is damaged is replaced by an empty one. What the disk or the process is at fault for (it is full, or fails, or
//! may only be read; there are no more file descriptors) says nothing of what is in the file: that is kept, and read if it can
//! be. Whoever wants to write opens it again then.

use std::ffi::OsString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase,
    ReadableTable as _, Table, TableDefinition, TableHandle as _,
};

use super::NamesConfig;
use super::file::is_of_blob;

/// The names file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another edge in this one, works with it.
    #[error("{path} is in use by another node: each needs a cache.path of its own")]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

/// How the file is open.
#[derive(Default)]
pub(super) enum Opened {
    /// To be read and written to.
    ToWrite(Database),
    /// To be read.
    ToRead(ReadOnlyDatabase),
    /// Not at all, for now.
    #[default]
    Not,
}

pub(super) type TableOf = TableDefinition<'static, &'static [u8], &'static [u8]>;
pub(super) type Rows<'a> = Table<'a, &'static [u8], &'static [u8]>;

pub(super) const LINKS: TableOf = TableDefinition::new("links");
pub(super) const TAGS: TableOf = TableDefinition::new("tags");
pub(super) const LISTS: TableOf = TableDefinition::new("lists");
pub(super) const UNHOSTED: TableOf = TableDefinition::new("unhosted");
pub(super) const FORMAT: TableDefinition<'_, (), u64> = TableDefinition::new("format");

/// What this version writes; a file that says otherwise is replaced, unless it is of the one before.
const FORMAT_VERSION: u64 = 2;

/// The same, but links to blobs may be those of repositories that do not have them: they were a sibling's word that was wrong.
pub(super) const VERSION_OF_WRONG_LINKS: u64 = 1;

// === impl Opened ===

impl Opened {
    /// Opens the file, or an empty one in the place of one that is damaged.
    pub(super) fn open(path: &Path, config: NamesConfig) -> Result<Self, OpenError> {
        // Opened first also when it is marked: another edge may work with it.
        let opened = guarded(|| open_database(path, config));
        let mut opened = opened.and_then(|database| refuse_marked(database, path));
        if let Err(error) = &opened
            && is_damage(error)
        {
            tracing::warn!(path = %path.display(), error = %error, "names of the cache are of no use, starting without");
            let removed = remove(path).map_err(redb::Error::from);
            opened = removed.and_then(|()| guarded(|| open_database(path, config)));
        }
        match opened {
            Ok(database) => Ok(Self::ToWrite(database)),
            Err(error) if is_in_use(&error) => Err(OpenError::InUse {
                path: path.to_owned(),
            }),
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %error, "names of the cache cannot be written to");
                Ok(Self::open_to_read(path, config))
            }
        }
    }

    fn open_to_read(path: &Path, config: NamesConfig) -> Self {
        let opened = guarded(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(config.page_cache_bytes);
            let database = builder.open_read_only(path)?;
            if !is_of_this_version(&database)? {
                return Err(DatabaseError::UpgradeRequired(0).into());
            }
            Ok(database)
        });
        match opened {
            Ok(database) if matches!(mark(path).try_exists(), Ok(false)) => Self::ToRead(database),
            Ok(_) => Self::Not,
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %error, "names of the cache cannot be read");
                Self::Not
            }
        }
    }

    /// Returns the database to be written to, or that it has to be opened again before.
    pub(super) const fn to_write(&self) -> Result<&Database, redb::Error> {
        match self {
            Self::ToWrite(database) => Ok(database),
            Self::ToRead(_) | Self::Not => Err(redb::Error::PreviousIo),
        }
    }

    /// Reads a row.
    pub(super) fn row(&self, table: TableOf, row: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
        let reading = match self {
            Self::ToWrite(database) => database.begin_read()?,
            Self::ToRead(database) => database.begin_read()?,
            Self::Not => return Err(redb::Error::PreviousIo),
        };
        let table = reading.open_table(table)?;
        Ok(table.get(row)?.map(|value| value.value().to_vec()))
    }

    /// Closes the file; fails only when that shows it to be damaged.
    pub(super) fn close(self) -> Result<(), redb::Error> {
        guarded(|| {
            drop(self);
            Ok(())
        })
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ToWrite(_) => "ToWrite",
            Self::ToRead(_) => "ToRead",
            Self::Not => "Not",
        })
    }
}

/// Does what redb may panic over, and makes an error of that.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    // What the panic left behind is used no more, but to close it.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        let said = said.unwrap_or("it does not say why");
        Err(redb::Error::Corrupted(format!("redb panicked: {said}")))
    })
}

/// Whether the file is at fault, and not the disk or the process: that may be so for a while only.
pub(super) fn is_damage(error: &redb::Error) -> bool {
    use io::ErrorKind as Kind;
    match error {
        redb::Error::PreviousIo => false,
        // Nonsense in a file has redb ask the system for nonsense, or be told of the file's end.
        redb::Error::Io(error) => {
            let is_nonsense = matches!(error.kind(), Kind::InvalidInput | Kind::FileTooLarge);
            error.raw_os_error().is_none() || is_nonsense
        }
        error => !is_in_use(error),
    }
}

const fn is_in_use(error: &redb::Error) -> bool {
    matches!(
        error,
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch
    )
}

/// Returns the database again, unless an earlier process found it damaged: then closes it.
fn refuse_marked(database: Database, path: &Path) -> Result<Database, redb::Error> {
    if !mark(path).try_exists()? {
        return Ok(database);
    }
    Opened::ToWrite(database).close()?;
    let reason = "found to be damaged earlier".to_owned();
    Err(redb::Error::Corrupted(reason))
}

/// Removes a file of no use, and the mark that says so last.
fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)?;
    match std::fs::remove_file(mark(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns where a file is marked as damaged.
pub(super) fn mark(path: &Path) -> PathBuf {
    let mut mark = OsString::from(path);
    mark.push(".damaged");
    mark.into()
}

fn open_database(path: &Path, config: NamesConfig) -> Result<Database, redb::Error> {
    let database = Database::builder()
        .set_cache_size(config.page_cache_bytes)
        .create(path)?;
    // What is there is not written again: the disk may be full.
    if is_of_this_version(&database)? {
        return Ok(database);
    }
    let transaction = database.begin_write()?;
    {
        let mut format = transaction.open_table(FORMAT)?;
        let found = format.get(())?.map(|version| version.value());
        if found == Some(VERSION_OF_WRONG_LINKS) {
            let mut links = transaction.open_table(LINKS)?;
            links.retain(|row, _| !is_of_blob(row))?;
        }
        format.insert((), FORMAT_VERSION)?;
        for table in [LINKS, TAGS, LISTS, UNHOSTED] {
            transaction.open_table(table)?;
        }
    }
    transaction.commit()?;
    Ok(database)
}

/// Whether a database has all that this version needs; fails when another one wrote it.
fn is_of_this_version(database: &impl ReadableDatabase) -> Result<bool, redb::Error> {
    let reading = database.begin_read()?;
    let names = [LINKS, TAGS, LISTS, UNHOSTED].map(|table| table.name().to_owned());
    let found: Vec<_> = reading
        .list_tables()?
        .map(|table| table.name().to_owned())
        .collect();
    if !found.iter().any(|name| name == FORMAT.name()) {
        return Ok(false);
    }
    match found_version(&reading)? {
        None | Some(VERSION_OF_WRONG_LINKS) => Ok(false),
        Some(FORMAT_VERSION) => Ok(names.iter().all(|name| found.contains(name))),
        Some(_) => Err(DatabaseError::UpgradeRequired(0).into()),
    }
}

fn found_version(reading: &ReadTransaction) -> Result<Option<u64>, redb::Error> {
    let format = reading.open_table(FORMAT)?;
    Ok(format.get(())?.map(|version| version.value()))
}
