//! The entries of the table, dense in memory and found by their digest.
//!
//! Why not a map from digests: it would hold each of them, 65 bytes, a second time.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use outport_core::oci::digest::Digest;

/// A blob on the cache disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub digest: Digest,
    /// How many uses of it are known of.
    pub uses: u16,
    /// From where it can be had again.
    pub home: Home,
    /// How far it is trusted to be what its name says.
    pub trust: Trust,
    /// Whether its file was seen since the table was filled.
    pub is_found: bool,
    /// Whether it must stay.
    pub is_pinned: bool,
    /// Its size in bytes.
    pub size: u64,
    /// When it was used last, in uses of the whole cache.
    pub last_use: u64,
}

/// From where a blob can be had again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// From outside of the region only: this node is the one that keeps it for the region.
    #[default]
    Here,
    /// From a sibling, which keeps it for the region.
    Sibling,
}

/// How far a blob on disk is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its bytes hashed to its name, and what came between cannot have changed them.
    Verified,
    /// Its bytes must be hashed before they are used: the last process did not end well.
    Unverified,
}

/// The entries, in no order.
#[derive(Debug, Default)]
pub(super) struct Slots {
    entries: Vec<Entry>,
    places: HashTable<u32>,
    hasher: RandomState,
}

// === impl Slots ===

impl Slots {
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&Entry> {
        let place = self.place(digest)?;
        Some(&self.entries[place as usize])
    }

    pub(super) fn get_mut(&mut self, digest: &Digest) -> Option<&mut Entry> {
        let place = self.place(digest)?;
        Some(&mut self.entries[place as usize])
    }

    /// Adds an entry whose digest is not there.
    pub(super) fn insert(&mut self, entry: Entry) {
        // A table of 2^32 blobs would not fit in memory.
        let place = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(entry);
        let Self {
            entries,
            places,
            hasher,
        } = self;
        let hash = |place: &u32| hasher.hash_one(entries[*place as usize].digest);
        places.insert_unique(hash(&place), place, hash);
    }

    /// Removes an entry; the last one takes its place.
    pub(super) fn remove(&mut self, digest: &Digest) -> Option<Entry> {
        let entries = &self.entries;
        let found = self
            .places
            .find_entry(self.hasher.hash_one(digest), |place| {
                entries[*place as usize].digest == *digest
            });
        let (place, _) = found.ok()?.remove();
        let last = u32::try_from(entries.len() - 1).unwrap_or(u32::MAX);
        if place != last {
            let moved = self.hasher.hash_one(entries[last as usize].digest);
            if let Some(of_last) = self.places.find_mut(moved, |other| *other == last) {
                *of_last = place;
            }
        }
        Some(self.entries.swap_remove(place as usize))
    }

    pub(super) fn reserve(&mut self, count: usize) {
        self.entries.reserve_exact(count);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.places.reserve(count, |place| {
            hasher.hash_one(entries[*place as usize].digest)
        });
    }

    pub(super) fn for_each(&mut self, change: impl FnMut(&mut Entry)) {
        self.entries.iter_mut().for_each(change);
    }

    fn place(&self, digest: &Digest) -> Option<u32> {
        let hash = self.hasher.hash_one(digest);
        let is_it = |place: &u32| self.entries[*place as usize].digest == *digest;
        self.places.find(hash, is_it).copied()
    }
}
