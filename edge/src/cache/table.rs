//! The brain of the cache disk: which blobs are there, and which must go.
//!
//! What: a pure table over digests and sizes. It answers *what to delete*; its caller deletes.
//!
//! Invariants: the sizes of all entries add up to [`Table::bytes`], which is at most the capacity after every call; the
//! order of entries is the order of their last use.
//!
//! Why not a policy behind a trait: there is one. It is the least recently used now, and whatever replaces it keeps these
//! methods.

use std::collections::HashMap;

use outport_core::oci::digest::Digest;

/// The blobs on the cache disk, in the order of their last use.
#[derive(Debug)]
pub struct Table {
    capacity: u64,
    bytes: u64,
    slots: Vec<Slot>,
    /// Slots that hold nothing, to be used again.
    free: Vec<u32>,
    places: HashMap<Digest, u32>,
    newest: u32,
    oldest: u32,
}

/// What to do for a blob that is about to be kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is room for it, because these are no longer in the table: they must be deleted.
    Admitted {
        /// The blobs to delete.
        evicted: Vec<Digest>,
    },
    /// It is larger than the whole cache: do not keep it.
    TooLarge,
}

#[derive(Debug)]
struct Slot {
    digest: Digest,
    size: u64,
    newer: u32,
    older: u32,
}

/// No slot: the end of the list.
const NONE: u32 = u32::MAX;

// === impl Table ===

impl Table {
    /// Returns an empty table that keeps to `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            bytes: 0,
            slots: Vec::new(),
            free: Vec::new(),
            places: HashMap::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Returns how many bytes the entries have.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how many entries there are.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns the size of a blob, without counting it as used.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let place = *self.places.get(digest)?;
        Some(self.slots[place as usize].size)
    }

    /// Counts a use of a blob and returns its size, or none when it is not there.
    pub fn touch(&mut self, digest: &Digest) -> Option<u64> {
        let place = *self.places.get(digest)?;
        if self.newest != place {
            self.unchain(place);
            self.chain_newest(place);
        }
        Some(self.slots[place as usize].size)
    }

    /// Makes room for a blob that is still on its way, so that it can be written down before it is taken in.
    pub fn make_room(&mut self, size: u64) -> Admission {
        if size > self.capacity {
            return Admission::TooLarge;
        }
        let mut evicted = Vec::new();
        while self.bytes > self.capacity - size {
            let victim = self.slots[self.oldest as usize].digest;
            self.remove(&victim);
            evicted.push(victim);
        }
        Admission::Admitted { evicted }
    }

    /// Takes a blob in as the most recently used, and says which others must go for it.
    pub fn admit(&mut self, digest: Digest, size: u64) -> Admission {
        self.remove(&digest);
        let admission = self.make_room(size);
        if admission != Admission::TooLarge {
            self.insert(digest, size);
        }
        admission
    }

    /// Forgets a blob and returns its size, or none when it is not there.
    pub fn remove(&mut self, digest: &Digest) -> Option<u64> {
        let place = self.places.remove(digest)?;
        self.unchain(place);
        self.free.push(place);
        let size = self.slots[place as usize].size;
        self.bytes -= size;
        Some(size)
    }

    fn insert(&mut self, digest: Digest, size: u64) {
        let slot = Slot {
            digest,
            size,
            newer: NONE,
            older: NONE,
        };
        let place = if let Some(place) = self.free.pop() {
            self.slots[place as usize] = slot;
            place
        } else {
            self.slots.push(slot);
            // A table of 2^32 blobs would not fit in memory.
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
        };
        self.places.insert(digest, place);
        self.chain_newest(place);
        self.bytes += size;
    }

    fn chain_newest(&mut self, place: u32) {
        let second = self.newest;
        {
            let slot = &mut self.slots[place as usize];
            slot.newer = NONE;
            slot.older = second;
        }
        match second {
            NONE => self.oldest = place,
            second => self.slots[second as usize].newer = place,
        }
        self.newest = place;
    }

    fn unchain(&mut self, place: u32) {
        let Slot { newer, older, .. } = self.slots[place as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outport_core::oci::digest::Algorithm;
    use proptest::prelude::*;

    fn digest(number: u8) -> Digest {
        Algorithm::Sha256.digest(&[number])
    }

    #[test]
    fn the_least_recently_used_goes() {
        let mut table = Table::new(10);
        for number in 0..3 {
            assert_eq!(
                table.admit(digest(number), 3),
                Admission::Admitted { evicted: vec![] }
            );
        }
        assert_eq!(table.touch(&digest(0)), Some(3));
        assert_eq!(
            table.admit(digest(9), 5),
            Admission::Admitted {
                evicted: vec![digest(1), digest(2)]
            }
        );
        assert_eq!((table.bytes(), table.len()), (8, 2));
    }

    #[test]
    fn what_is_larger_than_the_cache_flushes_nothing() {
        let mut table = Table::new(10);
        table.admit(digest(0), 10);
        assert_eq!(table.admit(digest(1), 11), Admission::TooLarge);
        assert_eq!(table.size(&digest(0)), Some(10));
    }

    #[test]
    fn an_entry_is_counted_once() {
        let mut table = Table::new(10);
        table.admit(digest(0), 4);
        table.admit(digest(0), 4);
        assert_eq!((table.bytes(), table.len()), (4, 1));
        assert_eq!(table.remove(&digest(0)), Some(4));
        assert_eq!(table.remove(&digest(0)), None);
        assert_eq!((table.bytes(), table.len()), (0, 0));
    }

    proptest! {
        /// The table agrees with a list that is searched from end to end.
        #[test]
        fn behaves_like_a_plain_list(steps in proptest::collection::vec((0..3_u8, 0..12_u8, 0..60_u64), 0..200)) {
            let mut table = Table::new(100);
            let mut list: Vec<(Digest, u64)> = Vec::new();
            for (step, number, size) in steps {
                let digest = digest(number);
                let found = list.iter().position(|(other, _)| *other == digest);
                match step {
                    0 => {
                        list.retain(|(other, _)| *other != digest);
                        let mut expected = Vec::new();
                        while list.iter().map(|(_, size)| size).sum::<u64>() + size > 100 {
                            expected.push(list.remove(0).0);
                        }
                        list.push((digest, size));
                        prop_assert_eq!(table.admit(digest, size), Admission::Admitted { evicted: expected });
                    }
                    1 => {
                        let expected = found.map(|at| list.remove(at));
                        list.extend(expected);
                        prop_assert_eq!(table.touch(&digest), expected.map(|(_, size)| size));
                    }
                    _ => {
                        let expected = found.map(|at| list.remove(at).1);
                        prop_assert_eq!(table.remove(&digest), expected);
                    }
                }
                prop_assert_eq!(table.bytes(), list.iter().map(|(_, size)| size).sum::<u64>());
                prop_assert_eq!(table.len(), list.len());
            }
        }
    }
}
