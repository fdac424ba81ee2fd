//! Connections, transactions, and the one place where they are tried again.
//!
//! What: [`Database::read`] runs a piece of work on a connection, [`Database::write`] in a transaction. Work is a function
//! of a [`Session`], so that it can be run again.
//!
//! Invariants: work is run again only when nothing of the attempt before can have been committed. SQLite writes through
//! one connection of this process, so that waiting writers queue in fairness instead of polling for the file's lock.
//!
//! Failure: a transaction that lost against another is run again after a moment. On a broken connection, or one whose
//! server became read-only (SQLSTATE 25006, a demoted primary), every connection as old is closed, and the work runs again
//! on a new one: after a restart or a failover the first request already works. A connection that breaks during COMMIT is
//! not tried again: nobody knows whether it took. Everything together has one deadline, and ends before it when the database
//! is found to be away (`health`).
//!
//! Cancellation and crash: a session that is dropped before its end closes its connection; the engine rolls back.

use std::fmt;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture};
use parking_lot::Mutex;
use sqlx::any::{Any, AnyConnectOptions, AnyPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, ConnectOptions as _};
use tokio::time::{Instant, sleep, timeout};

use super::DatabaseConfig;
use super::engine::{Engine, Verdict};
use super::health::{Health, Holding, Monitor, Probe, ProbeConfig};
use crate::metadata::MetadataError;

/// The pools of one database.
#[derive(Clone)]
pub(super) struct Database {
    engine: Engine,
    readers: AnyPool,
    writers: AnyPool,
    evictions: Evictions,
    operation_timeout: Duration,
    reading: Health,
    writing: Health,
    options: AnyConnectOptions,
    probe: ProbeConfig,
}

/// A connection that is being used, for work that may borrow for `'a`.
pub(super) struct Session<'a> {
    connection: PoolConnection<Any>,
    engine: Engine,
    /// Whether the connection is fit to be used by others.
    idle: bool,
    /// Of a transaction that keeps others out.
    holding: Option<Holding>,
    /// Lets [`Database::write`] say that work's future may hold what outlives the session.
    borrows: PhantomData<&'a ()>,
}

/// Work was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The database said so.
    Database(sqlx::Error),
    /// A row holds what was never written there.
    Corrupt(&'static str),
}

/// Remembers when connections were last found to be of no more use.
#[derive(Clone, Default)]
struct Evictions(Arc<Mutex<Option<Instant>>>);

#[derive(Debug, thiserror::Error)]
#[error("no answer from the database within {0:?}")]
struct Timeout(Duration);

/// What is run in a session, perhaps several times.
pub(super) trait Work<'a, T>:
    for<'s> Fn(&'s mut Session<'a>) -> BoxFuture<'s, Result<T, Failure>> + Send + Sync
{
}

impl<'a, T, F> Work<'a, T> for F where
    F: for<'s> Fn(&'s mut Session<'a>) -> BoxFuture<'s, Result<T, Failure>> + Send + Sync
{
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
}

/// An attempt failed.
struct Attempt {
    failure: Failure,
    /// Whether it may have been committed nevertheless.
    in_doubt: bool,
}

/// How often work is run at most.
const ATTEMPTS: u32 = 5;

/// How long one waits who lost the race to migrate, times the number of attempts.
const MIGRATION_PAUSE: Duration = Duration::from_millis(50);

/// How long the loser of a conflict waits, times the number of its attempts.
const CONFLICT_PAUSE: Duration = Duration::from_millis(5);

// === impl Database ===

impl Database {
    /// Connects, and brings the schema up to date.
    pub(super) async fn open(config: &DatabaseConfig) -> Result<Self, MetadataError> {
        sqlx::any::install_default_drivers();
        let engine = config.url.engine();
        let options: AnyConnectOptions = config
            .url
            .to_connect_url()
            .parse()
            .map_err(|error: sqlx::Error| MetadataError::Failed(error.into()))?;
        let options = options.disable_statement_logging();
        migrate(engine, &options, config.acquire_timeout).await?;

        let evictions = Evictions::default();
        let pool = |connections: u32| {
            pool_options(config, &evictions)
                .max_connections(connections)
                .connect_lazy_with(options.clone())
        };
        let readers = pool(config.max_connections);
        let reading = Health::new();
        let (writers, writing) = match engine {
            Engine::Sqlite => (pool(1), Health::new()),
            Engine::Postgres => (readers.clone(), reading.clone()),
        };
        Ok(Self {
            engine,
            readers,
            writers,
            evictions,
            operation_timeout: config.operation_timeout,
            reading,
            writing,
            options,
            probe: config.probe,
        })
    }

    /// Returns what finds out whether the database can be read, and written to if that is another matter.
    pub(super) fn monitors(&self) -> (Monitor, Option<Monitor>) {
        let monitor = |health: &Health, locks| Monitor {
            health: health.clone(),
            probe: Probe {
                engine: self.engine,
                options: self.options.clone(),
                setup: self.engine.probe_setup(self.probe.timeout),
                locks,
                connection: None,
            },
            config: self.probe,
        };
        let writing = match self.engine {
            Engine::Sqlite => Some(monitor(&self.writing, true)),
            Engine::Postgres => None,
        };
        (monitor(&self.reading, false), writing)
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }

    /// Runs `work` on a connection, each of its statements by itself.
    pub(super) async fn read<'a, T: Send>(
        &'a self,
        work: impl Work<'a, T>,
    ) -> Result<T, MetadataError> {
        self.run(Mode::Read, work).await
    }

    /// Runs `work` in a transaction.
    pub(super) async fn write<'a, T: Send>(
        &'a self,
        work: impl Work<'a, T>,
    ) -> Result<T, MetadataError> {
        self.run(Mode::Write, work).await
    }

    async fn run<'a, T: Send>(
        &'a self,
        mode: Mode,
        work: impl Work<'a, T>,
    ) -> Result<T, MetadataError> {
        let health = self.health(mode);
        let away = |away| MetadataError::Unavailable(Box::new(away));
        health.admit().await.map_err(away)?;
        let attempts = pin!(self.attempts(mode, &work));
        let outcome = tokio::select! {
            outcome = timeout(self.operation_timeout, attempts) => outcome,
            lost = health.lost() => return Err(away(lost)),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome.map_err(|failure| explain(self.engine, failure)),
            Err(_) => Err(MetadataError::Unavailable(Box::new(Timeout(
                self.operation_timeout,
            )))),
        };
        match &outcome {
            Err(MetadataError::Unavailable(_)) => health.doubt(),
            Ok(_) | Err(_) => health.answered(),
        }
        outcome
    }

    const fn health(&self, mode: Mode) -> &Health {
        match mode {
            Mode::Read => &self.reading,
            Mode::Write => &self.writing,
        }
    }

    async fn attempts<'a, T: Send>(
        &'a self,
        mode: Mode,
        work: &impl Work<'a, T>,
    ) -> Result<T, Failure> {
        let mut attempt = 1;
        loop {
            let failed = match self.attempt(mode, work).await {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            let verdict = failed.failure.verdict(self.engine);
            if verdict == Verdict::Disconnected {
                self.evictions.evict();
            }
            let again = match verdict {
                Verdict::Conflict => true,
                Verdict::Disconnected => !failed.in_doubt,
                Verdict::Unavailable | Verdict::Failed => false,
            };
            if !again || attempt == ATTEMPTS {
                return Err(failed.failure);
            }
            if verdict == Verdict::Conflict {
                sleep(CONFLICT_PAUSE * attempt).await;
            }
            attempt += 1;
        }
    }

    async fn attempt<'a, T: Send>(
        &'a self,
        mode: Mode,
        work: &impl Work<'a, T>,
    ) -> Result<T, Attempt> {
        let pool = match mode {
            Mode::Read => &self.readers,
            Mode::Write => &self.writers,
        };
        let connection = pool.acquire().await.map_err(Attempt::lost)?;
        let mut session = Session {
            connection,
            engine: self.engine,
            idle: false,
            holding: None,
            borrows: PhantomData,
        };
        if mode == Mode::Write {
            let begin = self.engine.begin();
            session.execute(begin).await.map_err(Attempt::lost)?;
            if self.engine == Engine::Sqlite {
                session.holding = Some(self.writing.hold());
            }
        }
        let outcome = work(&mut session).await;
        match (mode, &outcome) {
            (Mode::Read, _) => session.idle = true,
            (Mode::Write, Ok(_)) => {
                session.execute("COMMIT").await.map_err(Attempt::in_doubt)?;
                session.idle = true;
            }
            (Mode::Write, Err(_)) => session.idle = session.execute("ROLLBACK").await.is_ok(),
        }
        outcome.map_err(Attempt::lost)
    }
}

/// Brings the schema up to date, on a connection of its own: a migration may take longer than an operation.
///
/// Several processes may try at once. PostgreSQL lets one after the other in; in SQLite all but one fail, and find it done
/// when they try again.
async fn migrate(
    engine: Engine,
    options: &AnyConnectOptions,
    connect_timeout: Duration,
) -> Result<(), MetadataError> {
    let mut attempt = 1;
    loop {
        let outcome = match timeout(connect_timeout, options.connect()).await {
            Ok(Ok(connection)) => engine.migrate(connection).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        };
        let Err(error) = outcome else { return Ok(()) };
        if attempt == ATTEMPTS || engine == Engine::Postgres {
            return Err(explain(engine, Failure::Database(error)));
        }
        sleep(MIGRATION_PAUSE * attempt).await;
        attempt += 1;
    }
}

fn explain(engine: Engine, failure: Failure) -> MetadataError {
    let verdict = failure.verdict(engine);
    match failure {
        Failure::Corrupt(what) => MetadataError::Corrupt(what),
        Failure::Database(error) if verdict == Verdict::Failed => {
            MetadataError::Failed(Box::new(error))
        }
        Failure::Database(error) => MetadataError::Unavailable(Box::new(error)),
    }
}

fn pool_options(config: &DatabaseConfig, evictions: &Evictions) -> AnyPoolOptions {
    let setup = config.url.engine().session_setup(config.operation_timeout);
    let setup: Arc<str> = setup.into();
    let (before, after) = (evictions.clone(), evictions.clone());
    let options = AnyPoolOptions::new()
        .acquire_timeout(config.acquire_timeout)
        // Broken connections are found by using them, and the work is run again.
        .test_before_acquire(false)
        .before_acquire(move |_, is| future::ready(Ok(!before.covers(is.age))).boxed())
        .after_release(move |_, is| future::ready(Ok(!after.covers(is.age))).boxed())
        .after_connect(move |connection, _| {
            let setup = AssertSqlSafe(Arc::clone(&setup));
            async move { sqlx::raw_sql(setup).execute(connection).await.map(drop) }.boxed()
        });
    match config.url.engine() {
        // Opening the file again costs, and keeping it open does not.
        Engine::Sqlite => options.idle_timeout(None).max_lifetime(None),
        Engine::Postgres => options,
    }
}

// === impl Session ===

impl Session<'_> {
    /// Returns the connection, for a statement to be executed on.
    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }

    /// Returns which engine's SQL the connection speaks.
    pub(super) const fn engine(&self) -> Engine {
        self.engine
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        let statement = sqlx::query(statement);
        statement.execute(self.connection()).await.map(drop)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if !self.idle {
            self.connection.close_on_drop();
        }
    }
}

// === impl Failure ===

impl Failure {
    fn verdict(&self, engine: Engine) -> Verdict {
        match self {
            Self::Database(error) => engine.verdict(error),
            Self::Corrupt(_) => Verdict::Failed,
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

// === impl Attempt ===

impl Attempt {
    fn lost(failure: impl Into<Failure>) -> Self {
        Self {
            failure: failure.into(),
            in_doubt: false,
        }
    }

    fn in_doubt(failure: impl Into<Failure>) -> Self {
        Self {
            failure: failure.into(),
            in_doubt: true,
        }
    }
}

// === impl Evictions ===

impl Evictions {
    /// Condemns every connection made until now.
    fn evict(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Whether a connection of that age is condemned.
    fn covers(&self, age: Duration) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() <= age)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Database");
        shown.field("engine", &self.engine).finish_non_exhaustive()
    }
}
