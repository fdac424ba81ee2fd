//! Which URL to try first.
//!
//! What: the given order, with those that failed a moment ago behind the others. They are still tried: a registry none of
//! whose URLs worked a moment ago may be back.

use std::time::Duration;

use tokio::time::Instant;

/// What is remembered of the URLs of a registry.
#[derive(Debug)]
pub(super) struct Avoid {
    until: Vec<Option<Instant>>,
    avoid_for: Duration,
}

// === impl Avoid ===

impl Avoid {
    pub(super) fn new(urls: usize, avoid_for: Duration) -> Self {
        Self {
            until: vec![None; urls],
            avoid_for,
        }
    }

    /// Returns all of them, by their index, in the order in which to try them.
    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.until.len()).collect();
        order.sort_by_key(|&index| self.until[index].is_some_and(|until| now < until));
        order
    }

    pub(super) fn works(&mut self, index: usize) {
        self.until[index] = None;
    }

    pub(super) fn fails(&mut self, index: usize, now: Instant) {
        self.until[index] = Some(now + self.avoid_for);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_comes_last_for_a_while() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut avoid = Avoid::new(3, 5 * second);
        assert_eq!(avoid.order(start), [0, 1, 2]);
        avoid.fails(0, start);
        assert_eq!(avoid.order(start + 4 * second), [1, 2, 0]);
        assert_eq!(avoid.order(start + 5 * second), [0, 1, 2]);
        avoid.fails(1, start);
        assert_eq!(avoid.order(start), [2, 0, 1]);
        avoid.works(0);
        assert_eq!(avoid.order(start), [0, 2, 1]);
    }
}
