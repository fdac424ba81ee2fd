//! What is remembered of blobs that are no longer there: how often and when they were used.
//!
//! Invariants: no more than it was told are remembered, those that left last; one that is asked for is forgotten. A blob is
//! known by eight bytes of its digest: two that share them are taken for one, which costs a wrong guess and nothing else.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use outport_core::oci::digest::Digest;

/// The memory of blobs that left.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    /// In the order in which they left.
    queue: VecDeque<Ghost>,
    /// How many have left the front of the queue, modulo 2^32.
    first: u32,
    /// Numbers in the order of leaving, modulo 2^32.
    places: HashTable<u32>,
    hasher: RandomState,
}

/// What is remembered of a blob that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ghost {
    /// The first bytes of its digest.
    pub print: u64,
    /// When it was used last.
    pub last_use: u64,
    /// How often it was used; 0 when it is back.
    pub uses: u16,
}

// === impl Ghosts ===

impl Ghosts {
    /// Remembers a blob that left.
    pub(super) fn insert(&mut self, ghost: Ghost) {
        self.take_print(ghost.print);
        let number = self.number(self.queue.len());
        self.queue.push_back(ghost);
        let Self {
            queue,
            first,
            places,
            hasher,
        } = self;
        let hash = |number: &u32| hasher.hash_one(queue[place(*first, *number)].print);
        places.insert_unique(hash(&number), number, hash);
    }

    /// Returns what is remembered of a blob, and forgets it.
    pub(super) fn take(&mut self, digest: &Digest) -> Option<Ghost> {
        self.take_print(print(digest))
    }

    fn take_print(&mut self, print: u64) -> Option<Ghost> {
        let (queue, first) = (&self.queue, self.first);
        let found = self
            .places
            .find_entry(self.hasher.hash_one(print), |number| {
                queue[place(first, *number)].print == print
            });
        let (number, _) = found.ok()?.remove();
        let ghost = &mut self.queue[place(first, number)];
        let found = *ghost;
        ghost.uses = 0;
        Some(found)
    }

    /// Forgets the one that left first, when there are more than `count_max`.
    pub(super) fn give_up(&mut self, count_max: usize) -> Option<Ghost> {
        while self.queue.len() > count_max {
            let oldest = *self.queue.front()?;
            if oldest.uses > 0 {
                self.take_print(oldest.print);
            }
            self.queue.pop_front();
            self.first = self.first.wrapping_add(1);
            if oldest.uses > 0 {
                return Some(oldest);
            }
        }
        None
    }

    /// Returns how many places there are; some are of those that are back.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns the one at a place, or none when it is back.
    pub(super) fn get(&self, index: usize) -> Option<Ghost> {
        self.queue
            .get(index)
            .copied()
            .filter(|ghost| ghost.uses > 0)
    }

    fn number(&self, index: usize) -> u32 {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.first.wrapping_add(index)
    }
}

const fn place(first: u32, number: u32) -> usize {
    number.wrapping_sub(first) as usize
}

/// Returns by what a digest is remembered.
pub(super) fn print(digest: &Digest) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.output()[..8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The memory agrees with a list that is searched from end to end.
        #[test]
        fn behaves_like_a_plain_list(steps in proptest::collection::vec((0..3_u8, 0..20_u64), 0..300)) {
            let mut ghosts = Ghosts { first: u32::MAX - 5, ..Ghosts::default() };
            let mut list: Vec<Ghost> = Vec::new();
            for (now, (step, print)) in (1..).zip(steps) {
                let found = list.iter().position(|ghost| ghost.print == print && ghost.uses > 0);
                match step {
                    0 => {
                        let ghost = Ghost { print, last_use: now, uses: 1 };
                        if let Some(at) = found {
                            list[at].uses = 0;
                        }
                        list.push(ghost);
                        ghosts.insert(ghost);
                    }
                    1 => {
                        let expected = found.map(|at| list[at]);
                        if let Some(at) = found {
                            list[at].uses = 0;
                        }
                        prop_assert_eq!(ghosts.take_print(print), expected);
                    }
                    _ => {
                        let mut expected = None;
                        while list.len() > 10 && expected.is_none() {
                            expected = Some(list.remove(0)).filter(|ghost| ghost.uses > 0);
                        }
                        prop_assert_eq!(ghosts.give_up(10), expected);
                    }
                }
                prop_assert_eq!(ghosts.len(), list.len());
                prop_assert_eq!(ghosts.places.len(), list.iter().filter(|ghost| ghost.uses > 0).count());
            }
        }
    }
}
