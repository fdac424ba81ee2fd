//! The contract between origin and edges: what they say to one another beside the OCI API.

use std::fmt;

/// A position in the feed: the number of an event.
///
/// Numbers have no gaps and become visible in order: whoever has seen `n` has seen all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

// === impl Sequence ===

impl Sequence {
    /// The position before the first event.
    pub const START: Self = Self(0);

    /// Returns the position after `events` events.
    pub const fn new(events: u64) -> Self {
        Self(events)
    }

    /// Returns the position as a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
