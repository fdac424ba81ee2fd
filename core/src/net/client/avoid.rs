//! Which URL to try first.
//!
//! What: the given order, with those that failed a moment ago behind the others, and those before them whose answers were no
//! good: the one first for which that is longest ago. They are still tried: a registry none of whose URLs worked a moment
//! ago may be back.

use std::time::Duration;

use tokio::time::Instant;

/// What is remembered of the URLs of a registry.
#[derive(Debug)]
pub(super) struct Avoid {
    until: Vec<Option<Instant>>,
    /// Of those whose answers broke off or were wrong. That they answer says nothing of that.
    spoilt_until: Vec<Option<Instant>>,
    /// How long one is avoided.
    time: Duration,
}

/// How many times as long one is avoided whose answers are no good: to find out that they are costs more.
const SPOILT_TIMES: u32 = 12;

// === impl Avoid ===

impl Avoid {
    pub(super) fn new(urls: usize, time: Duration) -> Self {
        Self {
            until: vec![None; urls],
            spoilt_until: vec![None; urls],
            time,
        }
    }

    /// Returns all of them, by their index, in the order in which to try them.
    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.until.len()).collect();
        let lasting = |until: Option<Instant>| until.filter(|&until| now < until);
        order.sort_by_key(|&index| {
            let has_failed = lasting(self.until[index]).is_some();
            (has_failed, lasting(self.spoilt_until[index]))
        });
        order
    }

    pub(super) fn works(&mut self, index: usize) {
        self.until[index] = None;
    }

    pub(super) fn fails(&mut self, index: usize, now: Instant) {
        self.until[index] = Some(now + self.time);
    }

    pub(super) fn spoils(&mut self, index: usize, now: Instant) {
        self.spoilt_until[index] = Some(now + SPOILT_TIMES * self.time);
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

    #[test]
    fn what_gave_no_good_answers_is_behind_even_if_it_answers() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut avoid = Avoid::new(3, 5 * second);
        avoid.spoils(0, start);
        avoid.works(0);
        assert_eq!(avoid.order(start + 59 * second), [1, 2, 0]);
        // Before who does not answer at all.
        avoid.fails(1, start);
        assert_eq!(avoid.order(start), [2, 0, 1]);
        for index in [1, 2] {
            avoid.works(index);
            avoid.spoils(index, start + second);
        }
        assert_eq!(avoid.order(start + second), [0, 1, 2]);
        assert_eq!(avoid.order(start + 60 * second), [0, 1, 2]);
    }
}
