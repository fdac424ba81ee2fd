//! Forgets upload sessions that nobody has touched for long, and goes on with what commits have put off.
//!
//! What: a task that wakes up every now and then, asks the metadata for sessions older than the expiry, and drops what they
//! have staged, then the session; then it settles what the store names. Any number of origins may do so at once.
//!
//! Failure: logged, and tried again at the next turn. Crash: what was dropped without its session is dropped again.

use std::sync::Arc;
use std::time::Duration;

use outport_core::clock;
use outport_core::net::respond::chain;
use outport_core::store::ContentStore;
use outport_core::tasks::Tasks;

use crate::metadata::Metadata;

/// When a session is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepConfig {
    /// How long a session lives since it was last touched.
    pub expiry: Duration,
    /// How often is looked for such sessions.
    pub interval: Duration,
}

/// Forgets sessions.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) store: Arc<dyn ContentStore>,
    pub(crate) config: SweepConfig,
}

/// Sessions forgotten per question to the database.
const BATCH: u32 = 100;

/// How much more stale a session becomes that is about to be forgotten.
const STALE: Duration = Duration::from_secs(1);

/// The shortest and the longest time between two touches of a session.
const TOUCH_INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_mins(1));

// === impl SweepConfig ===

impl SweepConfig {
    /// Returns how often a session has to be touched that is to be kept.
    pub(crate) fn touch_interval(&self) -> Duration {
        let (shortest, longest) = TOUCH_INTERVALS;
        (self.expiry / 4).clamp(shortest, longest)
    }
}

// === impl Sweep ===

impl Sweep {
    /// Runs until `tasks` are cancelled.
    pub(crate) fn spawn(self, tasks: &Tasks) {
        let token = tasks.token();
        drop(tasks.spawn("sweep", async move {
            let mut turns = tokio::time::interval(self.config.interval);
            loop {
                tokio::select! {
                    () = token.cancelled() => return,
                    _ = turns.tick() => {}
                }
                match token.run_until_cancelled(self.turn()).await {
                    None => return,
                    Some(Ok(0)) => {}
                    Some(Ok(forgotten)) => {
                        tracing::info!(uploads = forgotten, "forgot stale uploads");
                    }
                    Some(Err(error)) => {
                        tracing::warn!(error = chain(&*error), "forget stale uploads");
                    }
                }
                if token.run_until_cancelled(self.settle()).await.is_none() {
                    return;
                }
            }
        }));
    }

    /// Forgets every session that is due; returns how many those were.
    async fn turn(&self) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
        let before = clock::now() - self.config.expiry;
        let mut forgotten = 0;
        loop {
            let stale = self.metadata.stale_uploads(before, BATCH).await?;
            if stale.is_empty() {
                break;
            }
            for (repository, upload) in stale {
                let (id, staged) = (upload.staged.id(), &upload.staged);
                let metadata = &self.metadata;
                // Whoever has it in hand must not be told that he brought it further.
                if !metadata
                    .advance_upload(id, upload.revision, staged, before - STALE)
                    .await?
                {
                    continue;
                }
                if let Err(error) = self.store.discard(upload.staged).await {
                    if error.is_transient() {
                        return Err(error.into());
                    }
                    // One that cannot be discarded (of another engine, say) must not keep the others.
                    tracing::warn!(upload.id = %id, error = chain(&error), "discard a stale upload");
                }
                self.metadata.delete_upload(&repository, id).await?;
                forgotten += 1;
            }
        }
        // What a crash left behind: bytes of no session.
        forgotten += self.store.sweep(before).await?;
        Ok(forgotten)
    }

    /// Goes on with everything that the store has put off.
    async fn settle(&self) {
        let unsettled = match self.store.unsettled().await {
            Ok(unsettled) => unsettled,
            Err(error) => {
                tracing::warn!(error = chain(&error), "look for unsettled blobs");
                return;
            }
        };
        for digest in unsettled {
            if let Err(error) = self.store.settle(&digest, clock::now()).await {
                tracing::warn!(%digest, error = chain(&error), "settle a blob");
            }
        }
    }
}
