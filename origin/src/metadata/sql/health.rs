//! Whether the database can be reached, so that nobody waits long for one that cannot.
//!
//! What: a [`Monitor`] probes the database on a connection of its own, every now and then, and at once when an operation has
//! waited for longer than it should. When a probe fails, the operations that wait are given up, and those that come find out
//! at the next probe, a moment later. [`Health`] is what both sides share. [`Standing`] is pure.
//!
//! Invariants: an operation is given up only when neither a probe nor any other operation was answered for as long as a
//! probe may take; a database that is slow, or busy with others, is not away. What is reported changes only after probes in
//! a row have said the same, so that it does not flap.
//!
//! There is one health for reading and one for writing where these can fail by themselves: who holds the lock of a SQLite
//! file keeps writers out, and no readers.
//!
//! Failure: see above. Cancellation: a probe that is dropped closes its connection. Without a monitor all is taken to be well.
//!
//! Why not shorter timeouts: a push that waits its turn behind a hundred others is not to be refused, and a lock that others
//! hold for a second is no outage; how long an operation takes says little about whether there is a database.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use outport_core::net::respond::chain;
use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions as _, Row as _};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, Verdict};

/// How the database is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// How often, while nothing is suspicious.
    pub interval: Duration,
    /// How long it may take before the database counts as away.
    pub timeout: Duration,
}

/// What operations and their monitor know of each other; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Health(Arc<Inner>);

/// Counts a transaction that holds the lock of the database, for as long as it does.
#[derive(Debug)]
pub(super) struct Holding(Health);

/// The database was found to be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database is away")]
pub(super) struct Away;

/// Probes the database, to be run as a task.
#[derive(Debug)]
pub(super) struct Monitor {
    pub(super) health: Health,
    pub(super) probe: Probe,
    pub(super) config: ProbeConfig,
}

/// What a probe does, and the connection it does it on.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) engine: Engine,
    pub(super) options: AnyConnectOptions,
    /// What a connection starts with.
    pub(super) setup: String,
    /// Whether it asks for the lock that SQLite has for writers.
    pub(super) locks: bool,
    pub(super) connection: Option<AnyConnection>,
}

#[derive(Debug)]
struct Inner {
    seen: watch::Sender<Seen>,
    /// Asks for a probe now.
    doubts: Notify,
    /// Grows whenever the database has done something for somebody.
    answers: AtomicU64,
    /// Transactions that hold the lock of the database.
    holding: AtomicUsize,
}

/// What the probes have found.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    is_away: bool,
    /// Grows with each probe while it is away.
    probes: u64,
}

/// What is reported, and what speaks against it.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    is_away: bool,
    /// Probes in a row that say otherwise.
    against: u32,
}

/// How long an operation waits before there is doubt.
const PATIENCE: Duration = Duration::from_millis(250);

/// The pause between probes while the database is away, or what is reported is in doubt.
const PAUSE: Duration = Duration::from_millis(200);

/// How long an operation waits for the next probe's verdict while the database is away: more than the pause, so that a
/// database that is back is found at once, and one that refuses or is silent costs nobody more.
const VERDICT_PATIENCE: Duration = Duration::from_millis(300);

/// How many probes in a row change what is reported.
const BELIEVED: u32 = 2;

// === impl Health ===

impl Health {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            seen: watch::Sender::new(Seen::default()),
            doubts: Notify::new(),
            answers: AtomicU64::new(0),
            holding: AtomicUsize::new(0),
        }))
    }

    /// Lets an operation begin, unless the database is away and the next probe does not find it.
    pub(super) async fn admit(&self) -> Result<(), Away> {
        let seen = *self.0.seen.borrow();
        if !seen.is_away {
            return Ok(());
        }
        let mut later = self.0.seen.subscribe();
        let verdict = later.wait_for(|later| !later.is_away || later.probes > seen.probes);
        match timeout(VERDICT_PATIENCE, verdict).await {
            Ok(Ok(seen)) if !seen.is_away => Ok(()),
            _ => Err(Away),
        }
    }

    /// Completes when an operation that begins now is not worth waiting for any more; asks for a probe when it takes long.
    pub(super) async fn lost(&self) -> Away {
        sleep(PATIENCE).await;
        self.doubt();
        let mut seen = self.0.seen.subscribe();
        if seen.wait_for(|seen| seen.is_away).await.is_err() {
            // Not while this holds the sender.
            pending::<()>().await;
        }
        Away
    }

    /// Says that an operation found the database not to be well.
    pub(super) fn doubt(&self) {
        self.0.doubts.notify_one();
    }

    /// Says that the database has answered.
    pub(super) fn answered(&self) {
        self.0.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that a transaction holds the lock of the database from now on.
    pub(super) fn hold(&self) -> Holding {
        self.0.holding.fetch_add(1, Ordering::Relaxed);
        Holding(self.clone())
    }

    fn is_held(&self) -> bool {
        self.0.holding.load(Ordering::Relaxed) > 0
    }

    fn answers(&self) -> u64 {
        self.0.answers.load(Ordering::Relaxed)
    }

    fn probed(&self, is_away: bool) {
        self.0.seen.send_modify(|seen| {
            seen.is_away = is_away;
            seen.probes += 1;
        });
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let Self(health) = self;
        health.answered();
        health.0.holding.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Monitor ===

impl Monitor {
    /// Probes until `ending`; `report` is told whether the database is away, whenever that changes.
    pub(super) async fn run(mut self, ending: CancellationToken, report: impl Fn(bool) + Send) {
        let mut standing = Standing::default();
        let mut is_away = false;
        loop {
            let is_calm = !is_away && standing.is_settled();
            let pause = if is_calm { self.config.interval } else { PAUSE };
            tokio::select! {
                () = ending.cancelled() => return,
                () = self.health.0.doubts.notified(), if is_calm => {}
                () = sleep(pause) => {}
            }
            let failure = tokio::select! {
                () = ending.cancelled() => return,
                failure = self.probe() => failure,
            };
            match &failure {
                Some(error) if !is_away => {
                    tracing::warn!(
                        lane = self.lane(),
                        error = chain(&**error),
                        "database is away"
                    );
                }
                None if is_away => tracing::info!(lane = self.lane(), "database is back"),
                _ => {}
            }
            is_away = failure.is_some();
            self.health.probed(is_away);
            if standing.probed(is_away) {
                report(is_away);
            }
        }
    }

    /// Returns why the database counts as away, if it does.
    async fn probe(&mut self) -> Option<Box<dyn std::error::Error + Send + Sync>> {
        let before = self.health.answers();
        let error = match timeout(self.config.timeout, self.probe.run()).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => error.into(),
            Err(elapsed) => elapsed.into(),
        };
        // Others got through, or this process itself is who holds the lock.
        let is_well = self.health.answers() != before || self.health.is_held();
        (!is_well).then_some(error)
    }

    const fn lane(&self) -> &'static str {
        if self.probe.locks { "write" } else { "any" }
    }
}

// === impl Probe ===

impl Probe {
    /// Asks on the connection that there is, or on a new one when that has broken.
    async fn run(&mut self) -> Result<(), sqlx::Error> {
        if let Some(mut connection) = self.connection.take() {
            let outcome = self.ask(&mut connection).await;
            match &outcome {
                Err(error) if self.engine.verdict(error) == Verdict::Disconnected => {}
                _ => {
                    self.connection = Some(connection);
                    return outcome;
                }
            }
        }
        let mut connection = self.options.connect().await?;
        let setup = AssertSqlSafe(self.setup.clone());
        sqlx::raw_sql(setup).execute(&mut connection).await?;
        let outcome = self.ask(&mut connection).await;
        self.connection = Some(connection);
        outcome
    }

    async fn ask(&mut self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        if !self.locks {
            sqlx::query("SELECT 1").execute(connection).await?;
            return Ok(());
        }
        let before = data_version(connection).await?;
        let begin = sqlx::query(self.engine.begin());
        match begin.execute(&mut *connection).await {
            Ok(_) => sqlx::query("ROLLBACK").execute(connection).await.map(drop),
            // Another process writes, and gets along: it is only that this one was not lucky.
            Err(_) if data_version(connection).await? != before => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Returns a number that changes whenever another connection commits.
async fn data_version(connection: &mut AnyConnection) -> Result<i64, sqlx::Error> {
    let row = sqlx::query("PRAGMA data_version").fetch_one(connection);
    row.await?.try_get(0)
}

// === impl Standing ===

impl Standing {
    /// Takes what a probe has found; returns whether that changes what is reported.
    const fn probed(&mut self, is_away: bool) -> bool {
        if is_away == self.is_away {
            self.against = 0;
            return false;
        }
        self.against += 1;
        if self.against < BELIEVED {
            return false;
        }
        *self = Self {
            is_away,
            against: 0,
        };
        true
    }

    const fn is_settled(self) -> bool {
        self.against == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_does_not_flap() {
        let mut standing = Standing::default();
        let reported: Vec<_> = "o-o-o--o-o-oo-oo--oo"
            .chars()
            .filter_map(|probe| {
                let is_away = probe == '-';
                standing.probed(is_away).then_some(is_away)
            })
            .collect();
        assert_eq!(reported, [true, false, true, false]);
        assert!(standing.is_settled());
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_learns_what_the_next_probe_finds() {
        let health = Health::new();
        assert_eq!(health.admit().await, Ok(()));
        health.probed(true);
        assert_eq!(health.admit().await, Err(Away));
        for is_away in [true, false] {
            let (admitted, ()) = tokio::join!(health.admit(), async { health.probed(is_away) });
            assert_eq!(admitted.is_err(), is_away);
        }
        let (lost, ()) = tokio::join!(health.lost(), async {
            health.0.doubts.notified().await;
            health.probed(true);
        });
        assert_eq!(lost, Away);
    }
}
