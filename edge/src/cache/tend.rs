//! What a cache does beside serving: it keeps its index, compares it with the directory, and says whom to trust and to keep.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use outport_core::oci::digest::Digest;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Cache;
use super::index::{Change, Ending, Standing};
use super::stock::Check;
use super::table::TooManyPins;

/// How often the journal of the index is made durable.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// How often a snapshot of the index is written: as much of what is popular is forgotten with a crash.
const SNAPSHOT_INTERVAL: Duration = Duration::from_mins(10);

/// How long the disk is left alone that did not take a snapshot.
const SNAPSHOT_REST: Duration = Duration::from_mins(1);

// === impl Cache ===

impl Cache {
    /// Compares the index with the directory, then keeps it until told to end; `now` is the time of day.
    pub async fn tend(self, now: SystemTime, ending: CancellationToken) {
        let tending = async {
            if self.0.standing != Standing::Clean {
                self.clone().snapshot(Ending::Unclean).await;
            }
            tokio::join!(self.check(now), self.keep_index());
        };
        tokio::select! {
            () = tending => {}
            () = ending.cancelled() => {}
        }
    }

    /// Writes everything down, so that the next process trusts it; what comes in afterwards is for that one to find.
    pub async fn close(self) {
        let closed = spawn_blocking(move || self.0.index.close(&self.0.table));
        closed.await.ok();
    }

    /// Takes note that the bytes of a blob were hashed to its digest; known until the next bad end.
    pub fn mark_verified(&self, digest: &Digest) {
        self.0.table.lock().mark_verified(digest);
    }

    /// Keeps what an image is made of, which may still have to come, from being evicted, and of what it pinned before only
    /// that; after a restart too. Pins nothing when that would be too much. Blocks.
    pub fn pin(&self, image: String, digests: BTreeSet<Digest>) -> Result<(), TooManyPins> {
        {
            let mut table = self.0.table.lock();
            table.pin(image.clone(), digests.clone())?;
            self.0.index.note(Change::Pinned { image, digests });
        }
        self.0.index.flush();
        Ok(())
    }

    /// Returns what is pinned.
    pub fn pins(&self) -> BTreeSet<Digest> {
        self.0.table.lock().pins().digests().copied().collect()
    }

    /// Returns what an image pins, or none when it is not pinned.
    pub fn pins_of(&self, image: &str) -> Option<BTreeSet<Digest>> {
        self.0.table.lock().pins().images().get(image).cloned()
    }

    /// Returns the images that pin anything.
    pub fn pinned_images(&self) -> Vec<String> {
        let table = self.0.table.lock();
        table.pins().images().keys().cloned().collect()
    }

    /// Lets what an image pinned be evicted again, unless another pins it too; returns it, or none when it is not pinned.
    /// Blocks.
    pub fn unpin(&self, image: &str) -> Option<BTreeSet<Digest>> {
        let released = {
            let mut table = self.0.table.lock();
            let released = table.unpin(image)?;
            self.0.index.note(Change::Unpinned(image.to_owned()));
            released
        };
        self.0.index.flush();
        Some(released)
    }

    /// Writes a snapshot of the index, and returns whether it did.
    async fn snapshot(self, ending: Ending) -> bool {
        let written = spawn_blocking(move || self.0.index.snapshot(&self.0.table, ending));
        written.await.unwrap_or(false)
    }

    /// Compares the index with the directory, not faster than it was told.
    async fn check(&self, now: SystemTime) {
        let mut check = Check::new(self.clone(), now);
        loop {
            let one = spawn_blocking(move || {
                let seen = check.next_folder();
                (check, seen)
            });
            let Ok((rest, seen)) = one.await else {
                return;
            };
            check = rest;
            let Some(seen) = seen else {
                break;
            };
            let files = u32::try_from(seen).unwrap_or(u32::MAX);
            let per_second = u32::try_from(self.0.checks_per_second).unwrap_or(u32::MAX);
            sleep(Duration::from_secs(1) * files / per_second.max(1)).await;
        }
        let forgotten = spawn_blocking(move || check.forget_missing());
        forgotten.await.ok();
        tracing::debug!("index of the cache compared with its files");
    }

    async fn keep_index(&self) {
        let mut snapshot_at = Instant::now() + SNAPSHOT_INTERVAL;
        let mut rested_at = Instant::now();
        loop {
            sleep(SYNC_INTERVAL).await;
            let cache = self.clone();
            let synced = spawn_blocking(move || cache.0.index.sync());
            synced.await.ok();
            let entries = self.0.table.lock().len();
            let is_due = self.0.index.is_due(entries) && Instant::now() >= rested_at;
            if is_due || Instant::now() >= snapshot_at {
                if !self.clone().snapshot(Ending::Unclean).await {
                    rested_at = Instant::now() + SNAPSHOT_REST;
                }
                snapshot_at = Instant::now() + SNAPSHOT_INTERVAL;
            }
        }
    }
}
