//! Writes names down, behind the requests.
//!
//! What: one task takes changes from a queue, applies those that wait together, and makes them durable from time to time.
//!
//! Failure: after an error of the disk the file is opened again at once, so that it can be read, and has lost what was not
//! durable. So all of that is kept, and applied again after a rest, as often as it takes. Bounded: of what comes while the disk
//! takes nothing, too much is left out. Links that are made use of are written down when they are asked for again, and tags
//! too; a link or tag that was dropped comes back after a restart, until the origin is asked.

use std::sync::Arc;
use std::time::Duration;

use outport_core::tasks::Tasks;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::file::{Change, NamesFile};
use super::{Links, Queued, blocking, mark_unwritten};

/// Writes changes down; to be run as a task.
#[derive(Debug)]
pub struct NamesWriter {
    file: Arc<NamesFile>,
    links: Links,
    changes: mpsc::Receiver<Queued>,
    /// What is not known to be durable, in its order.
    unsettled: Vec<Change>,
    /// When the file is written to again, after an error.
    retry_at: Option<Instant>,
}

/// How many changes are written down together.
const BATCH_CHANGES: usize = 256;

/// How often changes are made durable: only a cache's memory is lost with them.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// How many changes may be lost at most before they are made durable, and wait at most for the disk to take them.
const UNSETTLED_MAX: usize = 8192;

/// How long the disk is left alone after an error.
const REST: Duration = Duration::from_secs(5);

// === impl NamesWriter ===

impl NamesWriter {
    pub(super) const fn new(
        file: Arc<NamesFile>,
        links: Links,
        changes: mpsc::Receiver<Queued>,
    ) -> Self {
        Self {
            file,
            links,
            changes,
            unsettled: Vec::new(),
            retry_at: None,
        }
    }

    /// Writes changes down in their order until told to end, then makes the last ones durable.
    pub async fn run(mut self, tasks: Tasks) {
        let mut flush_at: Option<Instant> = None;
        let mut batch = Vec::new();
        loop {
            let far = Instant::now() + FLUSH_INTERVAL;
            let due = self.retry_at.or(flush_at);
            tokio::select! {
                () = sleep_until(due.unwrap_or(far)), if due.is_some() => {
                    self.settle().await;
                    flush_at = None;
                }
                () = self.file.unread(), if self.retry_at.is_none() => self.recover().await,
                _ = self.changes.recv_many(&mut batch, BATCH_CHANGES) => {
                    self.write(std::mem::take(&mut batch)).await;
                    flush_at.get_or_insert(far);
                    if self.unsettled.len() >= UNSETTLED_MAX {
                        flush_at = Some(Instant::now());
                    }
                }
                () = tasks.cancelled() => break,
            }
        }
        self.changes.close();
        while self.changes.recv_many(&mut batch, BATCH_CHANGES).await > 0 {
            self.write(std::mem::take(&mut batch)).await;
        }
        self.settle().await;
        if self.retry_at.is_some() {
            self.settle().await;
        }
    }

    async fn write(&mut self, batch: Vec<Queued>) {
        let (mut changes, applied): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|queued| (queued.change, queued.applied))
            .unzip();
        let mut is_written = true;
        if self.retry_at.is_none() {
            (changes, is_written) = self.apply(changes, false).await;
        } else {
            self.leave_out(&mut changes);
        }
        for applied in applied.into_iter().flatten() {
            applied.send(()).ok();
        }
        self.unsettled.append(&mut changes);
        if !is_written {
            self.recover().await;
        }
    }

    /// Leaves out what is too much of what waits for the disk.
    fn leave_out(&self, changes: &mut Vec<Change>) {
        let waiting = self.unsettled.len();
        changes.retain(|change| match change {
            Change::PutLink(key, _) if waiting >= UNSETTLED_MAX => {
                mark_unwritten(&self.links, key);
                false
            }
            // These are few: somebody deletes or pushes each of them.
            Change::DropLink(_) | Change::DropTag(..) => waiting < 2 * UNSETTLED_MAX,
            _ => waiting < UNSETTLED_MAX,
        });
    }

    /// Makes durable what is not; after an error, all of it is applied again first.
    async fn settle(&mut self) {
        let has_failed = self.retry_at.take().is_some();
        if self.unsettled.is_empty() {
            return;
        }
        let again = if has_failed {
            std::mem::take(&mut self.unsettled)
        } else {
            Vec::new()
        };
        let (mut changes, is_durable) = self.apply(again, true).await;
        if is_durable {
            self.unsettled.clear();
        } else {
            self.unsettled.append(&mut changes);
            self.recover().await;
        }
    }

    /// Applies changes, makes all so far durable if told to, and returns them with whether that worked.
    async fn apply(&self, changes: Vec<Change>, is_last: bool) -> (Vec<Change>, bool) {
        let (file, links) = (Arc::clone(&self.file), self.links.clone());
        let applied = blocking(move || {
            let outcome = file.apply(&changes).and_then(|forgotten| {
                for key in &forgotten {
                    mark_unwritten(&links, key);
                }
                if is_last { file.flush() } else { Ok(()) }
            });
            if let Err(error) = &outcome {
                tracing::warn!(error = %error, "names of the cache not written down, to be tried again");
            }
            (changes, outcome.is_ok())
        });
        // The runtime ends.
        applied.await.unwrap_or_default()
    }

    /// Has the file read again, and written to later.
    async fn recover(&mut self) {
        let file = Arc::clone(&self.file);
        blocking(move || {
            if let Err(error) = file.reopen() {
                tracing::warn!(error = %error, "names of the cache not opened again");
            }
        })
        .await;
        self.retry_at = Some(Instant::now() + REST);
    }
}
