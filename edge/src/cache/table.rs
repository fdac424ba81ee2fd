//! The brain of the cache disk: which blobs are there, and which must go.
//!
//! What: a pure table over digests and sizes. It answers *what to delete*; its caller deletes. When room is needed, the blob
//! goes whose state (how often it was used, and how long ago) promises the fewest uses for the time that it would be kept,
//! as learnt from all others (`reuse`); looked for among a sample. Blobs that left are remembered for a while, and go on
//! where they were when they come back. When blobs that were used once only fill too much of the cache, it is one of them
//! that goes, whatever was learnt: so a scan cannot flush what is used again and again.
//!
//! Invariants: the sizes of all entries add up to [`Table::bytes`], which is at most the capacity after every call; a pinned
//! blob leaves only by [`Table::remove`]; nothing goes while what is to come fits beside it. Memory is bounded by the number
//! of entries: for each, two blobs that left are remembered at most.
//!
//! Time is counted in uses of the whole cache. A use right after another of the same blob, by a client that reads it in parts
//! or by a crowd, is the same use.
//!
//! Why not a policy behind a trait: there is one.

mod ghosts;
mod pins;
mod reuse;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use outport_core::oci::digest::Digest;

pub use ghosts::Ghost;
pub use pins::{PINS_MAX, Pins, TooManyPins};
pub use slots::{Entry, Home, Trust};

use ghosts::Ghosts;
use reuse::Reuse;
use slots::Slots;

/// The blobs on the cache disk.
#[derive(Debug)]
pub struct Table {
    capacity: u64,
    bytes: u64,
    pinned_bytes: u64,
    /// Of those that were used once.
    once_bytes: u64,
    slots: Slots,
    ghosts: Ghosts,
    reuse: Reuse,
    /// What must stay, whether it is here or not.
    pins: Pins,
    /// How many uses there were.
    clock: u64,
    /// How many uses until it is learnt again.
    learn_in: usize,
    random: u64,
}

/// What to do for a blob that is about to be kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is room for it, because these are no longer in the table: they must be deleted.
    Admitted {
        /// The blobs to delete.
        evicted: Vec<Digest>,
    },
    /// It is larger than the whole cache, or than what pins leave of it: do not keep it.
    TooLarge,
}

/// Among how many the least promising is looked for: it is then one of the worst 3% nearly always.
const SAMPLE: usize = 64;

/// How many stand for all when it is learnt who is waited for.
const LEARN_SAMPLE: usize = 2_048;

/// A use so few uses after another of the same blob is the same use: a client reads a few layers at once, each in parts.
const SAME_USE: u64 = 4;

/// How much of the cache may be of blobs that were used once before one of them goes first: one part in so many. With less,
/// new versions of images do not stay long enough to be used again.
const ONCE_PART: u64 = 4;

/// What a blob is worth that a sibling keeps for the region: it can be had again in a fraction of the time.
const SIBLING_WORTH: f32 = 0.25;

/// To how many bytes the round trips of a miss come that a client waits for: what arrives in 20 ms at 25 Mbit/s. It keeps
/// manifests, which are next to nothing, and leaves layers as they are.
const ROUND_TRIP_BYTES: u64 = 64 << 10;

/// How many blobs that left are remembered, for each that is here, at least, and at most.
const GHOSTS_PER_ENTRY: usize = 2;
const GHOSTS: std::ops::Range<usize> = 4_096..2_000_000;

/// After how many uses to learn again, at least; a table of many blobs learns after a sixteenth of their number, so that a scan
/// is found out before it has replaced much.
const LEARN_AFTER_MIN: usize = 64;
const LEARN_AFTER_PART: usize = 16;

/// Over how many uses is learnt, at least, and for each blob that is here: what comes back much later is lost anyway.
const LEARN_FROM_MIN: usize = 8_192;
const LEARN_FROM_PER_ENTRY: usize = 8;

// === impl Table ===

impl Table {
    /// Returns how many bytes all entries may have together.
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Returns an empty table that keeps to `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            bytes: 0,
            pinned_bytes: 0,
            once_bytes: 0,
            slots: Slots::default(),
            ghosts: Ghosts::default(),
            reuse: Reuse::new(),
            pins: Pins::default(),
            clock: 0,
            learn_in: LEARN_AFTER_MIN,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Returns how many bytes the entries have.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how many entries there are.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.slots.entries().len()
    }

    /// Returns the size of a blob, without counting it as used.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.slots.get(digest).map(|entry| entry.size)
    }

    /// Returns what is known of a blob, without counting it as used.
    pub fn entry(&self, digest: &Digest) -> Option<&Entry> {
        self.slots.get(digest)
    }

    /// Returns all entries; when one is removed, the last takes its place.
    pub fn entries(&self) -> &[Entry] {
        self.slots.entries()
    }

    /// Counts a use of a blob and returns its size, and whether its bytes can be relied on; none when it is not there.
    pub fn touch(&mut self, digest: &Digest) -> Option<(u64, Trust)> {
        let entry = self.slots.get_mut(digest)?;
        let (size, trust) = (entry.size, entry.trust);
        let age = self.clock - entry.last_use;
        if age >= SAME_USE {
            self.reuse.used_again(entry.uses, age);
            if entry.uses == 1 {
                self.once_bytes -= size;
            }
            self.clock += 1;
            entry.uses = entry.uses.saturating_add(1);
            entry.last_use = self.clock;
            self.learn_when_due();
        }
        Some((size, trust))
    }

    /// Whether a blob fits without another's going.
    pub const fn has_room(&self, size: u64) -> bool {
        size <= self.capacity.saturating_sub(self.bytes)
    }

    /// Makes room for a blob that is still on its way, so that it can be written down before it is taken in.
    pub fn make_room(&mut self, size: u64) -> Admission {
        if size > self.capacity - self.pinned_bytes.min(self.capacity) {
            return Admission::TooLarge;
        }
        let mut evicted = Vec::new();
        while self.bytes > self.capacity - size {
            let Some(victim) = self.least_promising() else {
                break;
            };
            self.remove(&victim);
            evicted.push(victim);
        }
        Admission::Admitted { evicted }
    }

    /// Returns how many bytes of entries may go.
    pub const fn evictable_bytes(&self) -> u64 {
        self.bytes - self.pinned_bytes
    }

    /// Lets go of `bytes`, or of all that may go, though the capacity is kept: the disk has less than that.
    pub fn relieve(&mut self, bytes: u64) -> Vec<Digest> {
        let enough = self.bytes.saturating_sub(bytes);
        let mut evicted = Vec::new();
        while self.bytes > enough
            && let Some(victim) = self.least_promising()
        {
            self.remove(&victim);
            evicted.push(victim);
        }
        evicted
    }

    /// Takes a blob in, as used now, and says which others must go for it.
    pub fn admit(&mut self, digest: Digest, size: u64, home: Home) -> Admission {
        self.remove(&digest);
        let admission = self.make_room(size);
        if admission == Admission::TooLarge {
            return admission;
        }
        self.clock += 1;
        let mut uses = 1;
        if let Some(ghost) = self.ghosts.take(&digest) {
            self.reuse.used_again(ghost.uses, self.age(&ghost));
            uses = ghost.uses.saturating_add(1);
        }
        self.insert(Entry {
            digest,
            uses,
            home,
            trust: Trust::Verified,
            is_found: true,
            is_pinned: false,
            size,
            last_use: self.clock,
        });
        self.learn_when_due();
        admission
    }

    /// Forgets that a blob is here and returns its size, or none when it is not.
    pub fn remove(&mut self, digest: &Digest) -> Option<u64> {
        let entry = self.take(digest)?;
        self.ghosts.insert(Ghost {
            print: ghosts::print(digest),
            last_use: entry.last_use,
            uses: entry.uses,
        });
        self.give_up_ghosts();
        Some(entry.size)
    }

    /// Keeps what an image is made of, which may still have to come, from being evicted, and of what it pinned before only that.
    pub fn pin(&mut self, image: String, digests: BTreeSet<Digest>) -> Result<(), TooManyPins> {
        let mut changed = digests.clone();
        changed.append(&mut self.pins.set(image, digests)?);
        self.follow_pins(&changed);
        Ok(())
    }

    /// Lets what an image pinned be evicted again, unless another pins it too; returns it, or none when it is not pinned.
    pub fn unpin(&mut self, image: &str) -> Option<BTreeSet<Digest>> {
        let released = self.pins.release(image)?;
        self.follow_pins(&released);
        Some(released)
    }

    /// Returns what is pinned.
    pub const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Brings entries whose pins have changed up to date.
    fn follow_pins(&mut self, digests: &BTreeSet<Digest>) {
        for digest in digests {
            let is_pinned = self.pins.contains(digest);
            if let Some(entry) = self.slots.get_mut(digest)
                && entry.is_pinned != is_pinned
            {
                entry.is_pinned = is_pinned;
                self.pinned_bytes -= if is_pinned { 0 } else { entry.size };
                self.pinned_bytes += if is_pinned { entry.size } else { 0 };
            }
        }
    }

    /// Trusts the bytes of a blob.
    pub fn mark_verified(&mut self, digest: &Digest) {
        if let Some(entry) = self.slots.get_mut(digest) {
            entry.trust = Trust::Verified;
        }
    }

    /// Does not trust the bytes of a blob any more.
    pub fn mark_unverified(&mut self, digest: &Digest) {
        if let Some(entry) = self.slots.get_mut(digest) {
            entry.trust = Trust::Unverified;
        }
    }

    /// Trusts the bytes of no blob.
    pub fn distrust_all(&mut self) {
        self.slots.for_each(|entry| entry.trust = Trust::Unverified);
    }

    /// Takes note that the file of a blob was seen.
    pub fn mark_found(&mut self, digest: &Digest) {
        if let Some(entry) = self.slots.get_mut(digest) {
            entry.is_found = true;
        }
    }

    fn insert(&mut self, entry: Entry) {
        let is_pinned = self.pins.contains(&entry.digest);
        let Entry { size, uses, .. } = entry;
        self.bytes += size;
        self.pinned_bytes += if is_pinned { size } else { 0 };
        self.once_bytes += if uses == 1 { size } else { 0 };
        self.slots.insert(Entry { is_pinned, ..entry });
    }

    fn take(&mut self, digest: &Digest) -> Option<Entry> {
        let entry = self.slots.remove(digest)?;
        let Entry { size, uses, .. } = entry;
        self.bytes -= size;
        self.pinned_bytes -= if entry.is_pinned { size } else { 0 };
        self.once_bytes -= if uses == 1 { size } else { 0 };
        Some(entry)
    }

    /// Returns the blob that should go first, as far as a sample shows; none when all that is here must stay.
    fn least_promising(&mut self) -> Option<Digest> {
        let count = self.len();
        // One in a row when there are few, so that none is missed; and so that one is found when nearly all are pinned.
        let sampled = (0..SAMPLE).map(|number| {
            if count <= SAMPLE {
                number
            } else {
                self.below(count)
            }
        });
        let sampled: Vec<_> = sampled.filter(|index| *index < count).collect();
        let entries = self.slots.entries();
        let of_sample = sampled.into_iter().map(|index| &entries[index]);
        self.least_promising_of(of_sample)
            .or_else(|| self.least_promising_of(entries.iter()))
    }

    fn least_promising_of<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Option<Digest> {
        let once_first = self.once_bytes > self.capacity / ONCE_PART;
        let promise = |entry: &Entry| {
            let is_kept = !(once_first && entry.uses == 1);
            let rank = self.reuse.rank(entry.uses, self.clock - entry.last_use);
            let worth = match entry.home {
                Home::Here => 1.0,
                Home::Sibling => SIBLING_WORTH,
            };
            (is_kept, rank * worth * worth_per_byte(entry.size))
        };
        entries
            .filter(|entry| !entry.is_pinned)
            .map(|entry| (promise(entry), entry))
            .min_by(
                |((is_kept, rank), first), ((other_is_kept, other_rank), second)| {
                    is_kept
                        .cmp(other_is_kept)
                        .then(rank.total_cmp(other_rank))
                        .then(first.last_use.cmp(&second.last_use))
                },
            )
            .map(|(_, entry)| entry.digest)
    }

    fn learn_when_due(&mut self) {
        self.learn_in = self.learn_in.saturating_sub(1);
        if self.learn_in > 0 {
            return;
        }
        self.learn_in = (self.len() / LEARN_AFTER_PART).max(LEARN_AFTER_MIN);
        let learn_from = (LEARN_FROM_PER_ENTRY * self.len()).max(LEARN_FROM_MIN);
        let kept = 1.0 - ratio(self.learn_in, learn_from);
        let mut waiting = Vec::with_capacity(2 * LEARN_SAMPLE);
        for (index, count) in self.sample(self.len()) {
            let Entry { uses, last_use, .. } = self.slots.entries()[index];
            waiting.push((uses, self.clock - last_use, count));
        }
        for (index, count) in self.sample(self.ghosts.len()) {
            if let Some(ghost) = self.ghosts.get(index) {
                waiting.push((ghost.uses, self.age(&ghost), count));
            }
        }
        self.reuse.learn(waiting.into_iter(), kept);
    }

    /// Returns places of which each stands for so many of `count`.
    fn sample(&mut self, count: usize) -> Vec<(usize, f32)> {
        if count <= LEARN_SAMPLE {
            return (0..count).map(|index| (index, 1.0)).collect();
        }
        let each = ratio(count, LEARN_SAMPLE);
        (0..LEARN_SAMPLE)
            .map(|_| (self.below(count), each))
            .collect()
    }

    fn give_up_ghosts(&mut self) {
        let count_max = (GHOSTS_PER_ENTRY * self.len()).clamp(GHOSTS.start, GHOSTS.end);
        while let Some(ghost) = self.ghosts.give_up(count_max) {
            self.reuse.given_up(ghost.uses, self.age(&ghost));
        }
    }

    const fn age(&self, ghost: &Ghost) -> u64 {
        self.clock.saturating_sub(ghost.last_use)
    }

    /// Returns a number below `end`, by xorshift: which, does not matter much.
    fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let scaled = (u128::from(self.random) * end as u128) >> 64;
        usize::try_from(scaled).unwrap_or(0)
    }
}

/// Returns what each byte of a blob is worth: the round trips that it saves are spread over fewer of them in a small one.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
const fn worth_per_byte(size: u64) -> f32 {
    1.0 + ROUND_TRIP_BYTES as f32 / (size + 1) as f32
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
const fn ratio(part: usize, whole: usize) -> f32 {
    part as f32 / whole as f32
}

// === What outlives the process ===

impl Table {
    /// Returns how many uses there were.
    pub const fn clock(&self) -> u64 {
        self.clock
    }

    /// Returns how many blobs that left are remembered, about.
    pub fn ghost_count(&self) -> usize {
        self.ghosts.len()
    }

    /// Returns one of the blobs that left, in the order in which they did; none when it is back.
    pub fn ghost(&self, index: usize) -> Option<Ghost> {
        self.ghosts.get(index)
    }

    /// Returns what was learnt.
    pub fn learnt(&self) -> Vec<f32> {
        self.reuse.counts().collect()
    }

    /// Makes room in memory for what will be restored.
    pub fn reserve(&mut self, count: usize) {
        self.slots.reserve(count);
    }

    /// Takes back the number of uses; before all else.
    pub const fn restore_clock(&mut self, clock: u64) {
        self.clock = clock;
    }

    /// Takes back what was learnt.
    pub fn restore_learnt(&mut self, learnt: Vec<f32>) {
        self.reuse.set_counts(learnt);
        self.learn_in = 1;
    }

    /// Takes back an entry of an earlier table, whatever the capacity: [`Self::make_room`] of nothing restores the invariant.
    pub fn restore(&mut self, entry: Entry) {
        let last_use = entry.last_use.min(self.clock);
        let uses = entry.uses.max(1);
        self.take(&entry.digest);
        self.insert(Entry {
            uses,
            last_use,
            ..entry
        });
    }

    /// Takes back a blob that had left, unless there are too many; the one that left last comes last.
    pub fn restore_ghost(&mut self, ghost: Ghost) {
        if ghost.uses > 0 && self.ghosts.len() < GHOSTS.end {
            self.ghosts.insert(ghost);
        }
    }
}
