//! What differs from one database engine to the next: URLs, session setup, how writers begin, JSON, and what errors mean.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AnyConnection, Connection as _, SqlSafeStr as _};

/// Where the database is: `sqlite:data/origin.db` or `postgres://user:password@host/database`.
///
/// Its `Debug` and `Display` show no password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Place);

/// Why a string is no database URL. Says nothing of the URL, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// No engine of that scheme is built in.
    #[error("a database URL starts with sqlite: or postgres://")]
    UnknownEngine,
    /// SQLite without a file: several connections would each see a database of their own.
    #[error("sqlite: is followed by the path of a file")]
    NoFile,
    /// The rest of the URL is not what PostgreSQL takes.
    #[error("not a postgres:// URL")]
    BadPostgres,
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

/// A database engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Sqlite,
    Postgres,
}

/// What an error says about the transaction and the connection it happened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The transaction lost against another: the same again may succeed at once.
    Conflict,
    /// The connection is of no more use, nor is any that is as old.
    Disconnected,
    /// The database cannot right now.
    Unavailable,
    /// The statement was wrong, or the data.
    Failed,
}

// What a path may hold as it is in the URL that sqlx takes apart.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_');

// === impl DatabaseUrl ===

impl DatabaseUrl {
    /// Returns the URL of the SQLite database in a file.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self(Place::Sqlite(path.into()))
    }

    pub(super) const fn engine(&self) -> Engine {
        match &self.0 {
            Place::Sqlite(_) => Engine::Sqlite,
            Place::Postgres(_) => Engine::Postgres,
        }
    }

    /// Returns the file the database is in, when it is in one.
    pub(super) fn file(&self) -> Option<&Path> {
        match &self.0 {
            Place::Sqlite(path) => Some(path),
            Place::Postgres(_) => None,
        }
    }

    /// Returns what sqlx connects to.
    pub(super) fn to_connect_url(&self) -> String {
        match &self.0 {
            Place::Sqlite(path) => {
                let path = path.to_string_lossy();
                format!("sqlite:{}?mode=rwc", utf8_percent_encode(&path, PATH))
            }
            Place::Postgres(url) => url.clone(),
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" | ":memory:" => Err(DatabaseUrlError::NoFile),
                path => Ok(Self::sqlite(path)),
            };
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(DatabaseUrlError::UnknownEngine);
        }
        match text.parse::<PgConnectOptions>() {
            Ok(_) => Ok(Self(Place::Postgres(text.to_owned()))),
            Err(_) => Err(DatabaseUrlError::BadPostgres),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Place::Postgres(url) => {
                // Neither user information nor options, where passwords may be.
                let rest = url.split_once("://").map_or("", |(_, rest)| rest);
                let rest = rest.split('?').next().unwrap_or("");
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                write!(f, "postgres://{host}")
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Engine ===

impl Engine {
    /// Brings the schema up to date.
    pub(super) async fn migrate(self, mut connection: AnyConnection) -> Result<(), sqlx::Error> {
        if self == Self::Sqlite {
            // Stays with the file. Readers go on while somebody writes.
            let mode = sqlx::query("PRAGMA journal_mode = WAL");
            mode.execute(&mut connection).await?;
        }
        self.migrator().run(&mut connection).await?;
        connection.close().await
    }

    fn migrator(self) -> Migrator {
        let registry = match self {
            Self::Sqlite => include_str!("../../../migrations/sqlite/0001_registry.sql"),
            Self::Postgres => include_str!("../../../migrations/postgres/0001_registry.sql"),
        };
        let history = [(1, "registry", registry)];
        Migrator::with_migrations(
            history
                .into_iter()
                .map(|(version, name, sql)| {
                    let kind = MigrationType::Simple;
                    Migration::new(version, name.into(), kind, sql.into_sql_str(), false)
                })
                .collect(),
        )
    }

    /// Returns the statements that every new connection starts with.
    pub(super) fn session_setup(self, operation_timeout: Duration) -> String {
        match self {
            // FULL: with WAL, what was committed survives a power cut only if each commit is synced.
            Self::Sqlite => "PRAGMA synchronous = FULL; \
                 PRAGMA foreign_keys = ON; \
                 PRAGMA busy_timeout = 5000; \
                 PRAGMA temp_store = MEMORY;"
                .to_owned(),
            // An origin that vanishes in the middle of a transaction must not keep the feed's row locked for the others.
            Self::Postgres => {
                let timeout_ms = operation_timeout.as_millis();
                format!(
                    "SET statement_timeout = {timeout_ms}; \
                     SET idle_in_transaction_session_timeout = {timeout_ms}; \
                     SET timezone = 'UTC';"
                )
            }
        }
    }

    /// Returns the statements that the connection of a probe starts with, which is to end within `timeout`.
    pub(super) fn probe_setup(self, timeout: Duration) -> String {
        match self {
            // Less, so that it is the file's lock that is blamed.
            Self::Sqlite => format!("PRAGMA busy_timeout = {}", timeout.as_millis() * 3 / 4),
            Self::Postgres => format!("SET statement_timeout = {}", timeout.as_millis()),
        }
    }

    /// Returns the statement that starts a transaction which is going to write.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            // Takes the write lock now: a reader that turns into a writer later can only fail.
            Self::Sqlite => "BEGIN IMMEDIATE",
            // Said, because a server may have another default, and the feed relies on seeing what was committed while
            // waiting for its row.
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// Returns what locks the selected rows against other writers (not against references to them).
    pub(super) const fn lock_rows(self) -> &'static str {
        match self {
            // Holds the whole database already.
            Self::Sqlite => "",
            Self::Postgres => "FOR NO KEY UPDATE",
        }
    }

    /// Returns a table expression with a column `value`: the strings of the JSON array in `parameter`.
    pub(super) fn json_strings(self, parameter: &str) -> String {
        match self {
            Self::Sqlite => format!("json_each({parameter})"),
            Self::Postgres => format!("json_array_elements_text({parameter}::json)"),
        }
    }

    /// Returns a table expression with a column `value`: the objects of the JSON array in `parameter`.
    pub(super) fn json_objects(self, parameter: &str) -> String {
        match self {
            Self::Sqlite => format!("json_each({parameter})"),
            Self::Postgres => format!("json_array_elements({parameter}::json)"),
        }
    }

    /// Returns what is to be done about an error.
    pub(super) fn verdict(self, error: &sqlx::Error) -> Verdict {
        match error {
            sqlx::Error::Database(error) => {
                let code = error.code();
                let code = code.as_deref().unwrap_or("");
                match self {
                    Self::Sqlite => sqlite_verdict(code),
                    Self::Postgres => postgres_verdict(code),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => Verdict::Disconnected,
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Verdict::Unavailable,
            _ => Verdict::Failed,
        }
    }
}

/// `code` is SQLite's extended result code, whose low byte is the primary one.
fn sqlite_verdict(code: &str) -> Verdict {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const FULL: u32 = 13;
    match code.parse::<u32>().map(|code| code & 0xff) {
        Ok(BUSY | LOCKED) => Verdict::Conflict,
        Ok(FULL) => Verdict::Unavailable,
        _ => Verdict::Failed,
    }
}

/// `code` is an SQLSTATE.
fn postgres_verdict(code: &str) -> Verdict {
    match code {
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Verdict::Conflict,
        // read_only_sql_transaction: a primary that was demoted; admin_shutdown, crash_shutdown, cannot_connect_now;
        // idle_in_transaction_session_timeout
        "25006" | "57P01" | "57P02" | "57P03" | "25P03" => Verdict::Disconnected,
        // query_canceled (by statement_timeout), lock_not_available
        "57014" | "55P03" => Verdict::Unavailable,
        // Connection exceptions; insufficient resources (disk, memory, connections).
        code if code.starts_with("08") => Verdict::Disconnected,
        code if code.starts_with("53") => Verdict::Unavailable,
        _ => Verdict::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        #[track_caller]
        fn check(text: &str, shown: &str) {
            assert_eq!(text.parse::<DatabaseUrl>().unwrap().to_string(), shown);
        }
        check("sqlite:data/origin.db", "sqlite:data/origin.db");
        check("sqlite://data/origin.db", "sqlite:data/origin.db");
        check("sqlite:///var/lib/o.db", "sqlite:/var/lib/o.db");
        check("postgres://u:secret@db:5432/o", "postgres://db:5432/o");
        check("postgresql://db/o?password=secret", "postgres://db/o");
    }

    #[test]
    fn refuses_other_urls() {
        #[track_caller]
        fn check(text: &str, expected: DatabaseUrlError) {
            assert_eq!(text.parse::<DatabaseUrl>(), Err(expected), "{text}");
        }
        check("", DatabaseUrlError::UnknownEngine);
        check("data/origin.db", DatabaseUrlError::UnknownEngine);
        check("mysql://db/o", DatabaseUrlError::UnknownEngine);
        check("sqlite:", DatabaseUrlError::NoFile);
        check("sqlite::memory:", DatabaseUrlError::NoFile);
        check("postgres://db:port/o", DatabaseUrlError::BadPostgres);
    }

    #[test]
    fn verdicts() {
        assert_eq!(sqlite_verdict("517"), Verdict::Conflict);
        assert_eq!(sqlite_verdict("2067"), Verdict::Failed);
        assert_eq!(sqlite_verdict("13"), Verdict::Unavailable);
        assert_eq!(postgres_verdict("40P01"), Verdict::Conflict);
        assert_eq!(postgres_verdict("25006"), Verdict::Disconnected);
        assert_eq!(postgres_verdict("53300"), Verdict::Unavailable);
        assert_eq!(postgres_verdict("23505"), Verdict::Failed);
        assert_eq!(postgres_verdict(""), Verdict::Failed);
    }
}
