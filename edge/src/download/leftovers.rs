//! What is kept of downloads that were interrupted, so that the next request for the blob begins with it.
//!
//! Invariant: after each round, what is kept is within its bounds in bytes and in age. A file that a download has open is
//! locked, and stays.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use outport_core::clock;
use outport_core::oci::digest::Digest;
use outport_core::store::disk::{Entry, Partial};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::Downloads;
use super::journal::Journal;
use crate::cache::Cache;

/// How much is kept of interrupted downloads.
#[derive(Clone, Copy, Debug)]
pub struct LeftoverConfig {
    /// Bytes that they all take of the disk.
    pub bytes_max: u64,
    /// How long one is kept.
    pub age_max: Duration,
}

/// How often leftovers are looked at.
const INTERVAL: Duration = Duration::from_mins(1);

impl Downloads {
    /// Deletes leftovers that are too old or too many, until the process ends.
    pub async fn mind_leftovers(self) {
        let ending = self.0.tasks.token();
        let mut last_round = clock::now();
        let mut rounds = interval(INTERVAL);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while ending.run_until_cancelled(rounds.tick()).await.is_some() {
            let running = self.0.running.lock().keys().copied().collect();
            let (cache, config) = (self.0.cache.clone(), self.0.config.leftovers);
            let sweeping = spawn_blocking(move || sweep(&cache, config, &running, last_round));
            drop(sweeping.await);
            last_round = clock::now();
        }
    }
}

/// Deletes what is too old or too many, and what is of no use and was written before `before`: later ones are just being
/// written by whoever keeps a manifest, or by a download that began since.
fn sweep(cache: &Cache, config: LeftoverConfig, running: &HashSet<Digest>, before: SystemTime) {
    if let Some(long_ago) = clock::now().checked_sub(config.age_max) {
        cache.sweep(long_ago);
    }
    let mut leftovers = cache.partials();
    leftovers.retain(|entry| !running.contains(&entry.digest));
    // A download may use one before it is deleted; then its file is locked, or has a new age.
    for digest in superfluous(leftovers, config, clock::now()) {
        delete(cache, &digest, |_| true);
    }
    for entry in cache.partials() {
        if entry.modified < before && !running.contains(&entry.digest) {
            delete(cache, &entry.digest, |partial| {
                Journal::read(partial).is_none()
            });
        }
    }
}

/// Deletes a leftover that `goes`, unless a download has it open.
fn delete(cache: &Cache, digest: &Digest, goes: impl Fn(&Partial) -> bool) {
    let Ok(partial) = cache.partial(digest) else {
        return;
    };
    if goes(&partial)
        && let Err(error) = partial.discard()
    {
        tracing::warn!(%digest, %error, "leftover of a download not deleted");
    }
}

/// Returns the leftovers that have to go: those that are too old, and of the others the oldest beyond the bound.
///
/// What they take counts, and not how long they are: what says which bytes are there lies behind all that are to come.
fn superfluous(mut leftovers: Vec<Entry>, config: LeftoverConfig, now: SystemTime) -> Vec<Digest> {
    leftovers.sort_by_key(|entry| std::cmp::Reverse(entry.modified));
    let mut bytes = 0;
    let mut superfluous = Vec::new();
    for entry in leftovers {
        let age = now.duration_since(entry.modified).unwrap_or_default();
        if age > config.age_max || bytes + entry.occupied > config.bytes_max {
            superfluous.push(entry.digest);
        } else {
            bytes += entry.occupied;
        }
    }
    superfluous
}

#[cfg(test)]
mod tests {
    use super::*;
    use outport_core::oci::digest::Algorithm;

    #[test]
    fn the_old_go_and_the_oldest_beyond_the_bound() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1000);
        let leftover = |number: u8, occupied, age_hours| Entry {
            digest: Algorithm::Sha256.digest(&[number]),
            size: 1 << 40,
            occupied,
            modified: now - Duration::from_hours(age_hours),
            accessed: now,
        };
        let leftovers = vec![
            leftover(0, 1, 25),
            leftover(1, 60, 3),
            leftover(2, 50, 2),
            leftover(3, 40, 4),
        ];
        let config = LeftoverConfig {
            bytes_max: 100,
            age_max: Duration::from_hours(24),
        };
        let gone = superfluous(leftovers, config, now);
        assert_eq!(
            gone,
            [1, 0].map(|number| Algorithm::Sha256.digest(&[number]))
        );
    }
}
