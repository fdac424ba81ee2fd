//! Keeps what was true before a change from being remembered after it.
//!
//! What: who asks the origin takes a [`Moment`] first. When a name is dropped or moved meanwhile, because a push or delete
//! went through here, the answer may be from before that, and is not put down.
//!
//! Invariants: putting a name down and changing it never overlap; no change is missed, however long the answer takes. Names
//! are spread over a fixed number of counters, so memory is bounded: those that share one cost each other a question more.

use std::hash::{BuildHasher as _, Hash, RandomState};

use parking_lot::Mutex;

/// When a question was asked, as far as changes of one name go.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    slot: usize,
    changes: u64,
}

/// Counts changes.
#[derive(Debug)]
pub(super) struct Fences {
    slots: Box<[Mutex<u64>]>,
    hashes: RandomState,
}

/// So many that of the questions that are under way together few share one.
const SLOTS: usize = 1 << 14;

// === impl Fences ===

impl Fences {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Mutex::default()).collect(),
            hashes: RandomState::new(),
        }
    }

    /// Returns the present moment of a name.
    pub(super) fn moment(&self, name: &impl Hash) -> Moment {
        let slot = self.slot(name);
        let changes = *self.slots[slot].lock();
        Moment { slot, changes }
    }

    /// Whether nothing has changed since.
    pub(super) fn is_unchanged(&self, moment: Moment) -> bool {
        *self.slots[moment.slot].lock() == moment.changes
    }

    /// Changes a name.
    pub(super) fn change(&self, name: &impl Hash, apply: impl FnOnce()) {
        let mut changes = self.slots[self.slot(name)].lock();
        *changes += 1;
        apply();
    }

    /// Puts something down unless the name has changed since; `apply` says whether this is a change too. Returns whether it
    /// was put down.
    pub(super) fn put(&self, moment: Moment, apply: impl FnOnce() -> bool) -> bool {
        let mut changes = self.slots[moment.slot].lock();
        if *changes != moment.changes {
            return false;
        }
        *changes += u64::from(apply());
        true
    }

    fn slot(&self, name: &impl Hash) -> usize {
        // The remainder is less than the number of slots.
        usize::try_from(self.hashes.hash_one(name) % SLOTS as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_before_a_change_is_not_put_after_it() {
        let fences = Fences::new();
        let before = fences.moment(&"a");
        assert!(fences.put(before, || false));
        assert!(fences.is_unchanged(before));
        fences.change(&"a", || {});
        assert!(!fences.is_unchanged(before));
        assert!(!fences.put(before, || unreachable!("is put")));

        // Of two that change it, the second one does not know which came first.
        let both = fences.moment(&"a");
        assert!(fences.put(both, || true));
        assert!(!fences.put(both, || unreachable!("is put")));
        assert!(fences.put(fences.moment(&"a"), || true));
    }
}
