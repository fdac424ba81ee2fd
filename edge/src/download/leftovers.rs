//! What is kept beside the cache: what downloads that were interrupted left, so that the next request for the blob begins
//! with it, and damaged files, for a look.
//!
//! Invariant: after each round, what is kept is within its bounds in bytes and in age. A file that a download has open is
//! locked, and stays.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use outport_core::clock;
use outport_core::location::key::Lane;
use outport_core::oci::digest::Digest;
use outport_core::store::disk::{Entry, Partial};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::Downloads;
use super::journal::Journal;
use crate::cache::Cache;

/// How much is kept of interrupted downloads and damaged files.
#[derive(Clone, Copy, Debug)]
pub struct LeftoverConfig {
    /// Bytes that they all take of the disk.
    pub bytes_max: u64,
    /// How long one is kept.
    pub age_max: Duration,
}

/// What a file is that is kept beside the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What an interrupted download left.
    Leftover,
    /// A damaged file that was put aside.
    Damaged,
}

/// How often leftovers are looked at.
const INTERVAL: Duration = Duration::from_mins(1);

impl Downloads {
    /// Returns what is on its way, and in which lane.
    fn running(&self) -> HashSet<(Digest, Lane)> {
        let running = self.0.running.lock();
        let keys = running.keys();
        keys.map(|key| (key.digest, key.lane())).collect()
    }

    /// Deletes leftovers that are too old or too many, until the process ends.
    pub async fn mind_leftovers(self) {
        let ending = self.0.tasks.token();
        let mut last_round = clock::now();
        let mut rounds = interval(INTERVAL);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while ending.run_until_cancelled(rounds.tick()).await.is_some() {
            let running = self.running();
            let (cache, config) = (self.0.cache.clone(), self.0.config.leftovers);
            let sweeping = spawn_blocking(move || sweep(&cache, config, &running, last_round));
            drop(sweeping.await);
            last_round = clock::now();
        }
    }
}

/// Deletes what is too old or too many, and what is of no use and was written before `before`: later ones are just being
/// written by whoever keeps a manifest, or by a download that began since.
fn sweep(
    cache: &Cache,
    config: LeftoverConfig,
    running: &HashSet<(Digest, Lane)>,
    before: SystemTime,
) {
    let is_running = |entry: &Entry| running.contains(&(entry.digest, entry.lane));
    let mut leftovers = cache.partials();
    leftovers.retain(|entry| !is_running(entry));
    let leftovers = leftovers.into_iter().map(|entry| (Kind::Leftover, entry));
    let damaged = cache.put_aside().into_iter();
    let kept = leftovers.chain(damaged.map(|entry| (Kind::Damaged, entry)));
    for (kind, entry) in superfluous(kept.collect(), config, clock::now()) {
        match kind {
            // A download may use it before it is deleted; then its file is locked, or has a new age.
            Kind::Leftover => delete(cache, &entry, |_| true),
            Kind::Damaged => cache.delete_put_aside(&entry.digest),
        }
    }
    for entry in cache.partials() {
        if entry.modified < before && !is_running(&entry) {
            delete(cache, &entry, |partial| Journal::read(partial).is_none());
        }
    }
}

/// Deletes a leftover that `goes`, unless a download has it open.
fn delete(cache: &Cache, Entry { digest, lane, .. }: &Entry, goes: impl Fn(&Partial) -> bool) {
    let Ok(partial) = cache.partial(digest, *lane) else {
        return;
    };
    if goes(&partial)
        && let Err(error) = partial.discard()
    {
        tracing::warn!(%digest, %error, "leftover of a download not deleted");
    }
}

/// Returns what has to go: what is too old, and of the rest the oldest beyond the bound.
///
/// What they take counts, and not how long they are: what says which bytes are there lies behind all that are to come.
fn superfluous(
    mut kept: Vec<(Kind, Entry)>,
    config: LeftoverConfig,
    now: SystemTime,
) -> Vec<(Kind, Entry)> {
    kept.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.modified));
    let mut bytes = 0;
    let mut superfluous = Vec::new();
    for (kind, entry) in kept {
        let age = now.duration_since(entry.modified).unwrap_or_default();
        if age > config.age_max || bytes + entry.occupied > config.bytes_max {
            superfluous.push((kind, entry));
        } else {
            bytes += entry.occupied;
        }
    }
    superfluous
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::table::Home;
    use crate::cache::tests::{condemn, open};
    use outport_core::oci::digest::Algorithm;

    fn kept(kind: Kind, number: u8, occupied: u64, age_hours: u64) -> (Kind, Entry) {
        let entry = Entry {
            digest: Algorithm::Sha256.digest(&[number]),
            lane: Lane::default(),
            size: 1 << 40,
            occupied,
            modified: now() - Duration::from_hours(age_hours),
            accessed: now(),
        };
        (kind, entry)
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(1000)
    }

    #[test]
    fn the_old_go_and_the_oldest_beyond_the_bound() {
        let files = vec![
            kept(Kind::Leftover, 0, 1, 25),
            kept(Kind::Damaged, 1, 60, 3),
            kept(Kind::Leftover, 2, 50, 2),
            kept(Kind::Damaged, 3, 40, 4),
            kept(Kind::Leftover, 4, 20, 5),
        ];
        let config = LeftoverConfig {
            bytes_max: 100,
            age_max: Duration::from_hours(24),
        };
        let gone = superfluous(files, config, now());
        let gone: Vec<_> = gone
            .into_iter()
            .map(|(kind, entry)| (kind, entry.digest))
            .collect();
        let expected = [(Kind::Damaged, 1), (Kind::Leftover, 4), (Kind::Leftover, 0)];
        assert_eq!(
            gone,
            expected.map(|(kind, number)| (kind, Algorithm::Sha256.digest(&[number])))
        );
    }

    #[tokio::test]
    async fn damaged_files_and_leftovers_are_bounded_together() {
        let root = tempfile::tempdir().unwrap();
        let cache = open(&root, 1 << 30);
        let contents: Vec<_> = (0..4).map(|number| vec![number; 100_000]).collect();
        for content in &contents {
            let digest = Algorithm::Sha256.digest(content);
            let partial = cache.partial(&digest, Lane::of("hub")).unwrap();
            partial.write_at(content, 0).unwrap();
            let size = content.len() as u64;
            cache.publish(&partial, size, Home::Here).unwrap();
            // As it is when it rots without a trace: sealed, so its time of modification says nothing.
            condemn(&cache, &digest);
        }
        let digest = Algorithm::Sha256.digest(b"interrupted");
        let partial = cache.partial(&digest, Lane::of("hub")).unwrap();
        partial.write_at(&contents[0], 0).unwrap();
        let here = std::iter::once(0..100_000).collect();
        let journal = Journal::new(1 << 33, None).unwrap();
        journal.record(partial.file(), &here).unwrap();
        drop(partial);

        // Of another registry.
        let running = HashSet::from([(digest, Lane::default())]);
        let sweep = |bytes_max| {
            let age_max = Duration::from_hours(24);
            let config = LeftoverConfig { bytes_max, age_max };
            sweep(&cache, config, &running, SystemTime::UNIX_EPOCH);
            (cache.put_aside().len(), cache.partials().len())
        };
        assert_eq!(sweep(1 << 20), (4, 1));
        // Whichever go, for what came within a moment: two stay.
        let (damaged, leftovers) = sweep(250_000);
        assert_eq!(damaged + leftovers, 2);
        assert_eq!(sweep(0), (0, 0));
    }
}
