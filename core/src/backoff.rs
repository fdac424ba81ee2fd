//! How long to wait before trying again: exponential, jittered, bounded.
//!
//! Pure: it returns durations and sleeps nowhere, and its randomness comes of a seed. A retry loop asks
//! [`Delays::next_after`] once per failure that is worth trying again, and gives up when there is no delay left.
//!
//! Each delay is drawn between half of its step and all of it: enough spread that clients which failed together do not
//! come back together, and never so short that a retry is in vain.

use std::time::Duration;

/// A policy of waiting; checked when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

/// The delays of one retry loop.
#[derive(Clone, Debug)]
pub struct Delays {
    policy: Backoff,
    /// What the next delay is drawn below.
    step: Duration,
    left: u32,
    random: SplitMix,
}

/// Why there is no such policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBackoff {
    /// Doubling nothing stays nothing.
    #[error("the first delay is zero")]
    NoDelay,
    /// The delays would shrink.
    #[error("the longest delay is shorter than the first")]
    Shrinks,
    /// Not even the first try is made.
    #[error("there are no attempts")]
    NoAttempts,
}

/// The generator of Steele, Lea and Flood, which needs no more than a number to start and is random enough to spread retries.
#[derive(Clone, Debug)]
struct SplitMix(u64);

// === impl Backoff ===

impl Backoff {
    /// Returns a policy of so many attempts in all, with delays that double from `first` up to `longest`.
    pub const fn try_new(
        first: Duration,
        longest: Duration,
        attempts: u32,
    ) -> Result<Self, BadBackoff> {
        if first.is_zero() {
            return Err(BadBackoff::NoDelay);
        }
        if longest.as_nanos() < first.as_nanos() {
            return Err(BadBackoff::Shrinks);
        }
        if attempts == 0 {
            return Err(BadBackoff::NoAttempts);
        }
        Ok(Self {
            first,
            longest,
            attempts,
        })
    }

    /// Returns how often something is tried at most, the first time included.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the delays of one retry loop: one fewer than there are attempts.
    pub const fn delays(&self, seed: u64) -> Delays {
        Delays {
            policy: *self,
            step: self.first,
            left: self.attempts - 1,
            random: SplitMix(seed),
        }
    }
}

// === impl Delays ===

impl Delays {
    /// Returns the next delay, not shorter than the other side asked for, or none when it is time to give up.
    ///
    /// Who asks for more patience than the policy has is not waited for, and not hammered either.
    pub fn next_after(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let delay = self.next()?;
        match asked {
            Some(asked) if asked > self.policy.longest => None,
            Some(asked) => Some(delay.max(asked)),
            None => Some(delay),
        }
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.policy.longest);
        Some(step.mul_f64(0.5 + self.random.next_unit() / 2.0))
    }
}

// === impl SplitMix ===

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from zero up to, but not including, one.
    fn next_unit(&mut self) -> f64 {
        let bits = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn refuses_what_cannot_be_waited() {
        assert_eq!(
            Backoff::try_new(Duration::ZERO, MS, 1),
            Err(BadBackoff::NoDelay)
        );
        assert_eq!(Backoff::try_new(2 * MS, MS, 1), Err(BadBackoff::Shrinks));
        assert_eq!(Backoff::try_new(MS, MS, 0), Err(BadBackoff::NoAttempts));
    }

    #[test]
    fn one_attempt_waits_for_nothing() {
        let mut delays = Backoff::try_new(MS, MS, 1).unwrap().delays(0);
        assert_eq!(delays.next(), None);
        assert_eq!(delays.next(), None);
    }

    #[test]
    fn seeds_differ_and_repeat() {
        let backoff = Backoff::try_new(100 * MS, 10_000 * MS, 9).unwrap();
        let delays = |seed| backoff.delays(seed).collect::<Vec<_>>();
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }

    #[test]
    fn the_other_side_is_heard() {
        let backoff = Backoff::try_new(100 * MS, 1000 * MS, 9).unwrap();
        assert_eq!(backoff.delays(1).next_after(Some(700 * MS)), Some(700 * MS));
        assert!(backoff.delays(1).next_after(Some(MS)).unwrap() >= 50 * MS);
        assert_eq!(backoff.delays(1).next_after(Some(1001 * MS)), None);
    }

    proptest! {
        #[test]
        fn delays_are_bounded(first_ms in 1_u64..5000, more_ms in 0_u64..100_000, attempts in 1_u32..40, seed: u64) {
            let (first, longest) = (Duration::from_millis(first_ms), Duration::from_millis(first_ms + more_ms));
            let backoff = Backoff::try_new(first, longest, attempts).unwrap();
            let delays: Vec<_> = backoff.delays(seed).collect();
            prop_assert_eq!(delays.len(), attempts as usize - 1);
            let mut step = first;
            for delay in delays {
                prop_assert!(delay >= step.mul_f64(0.49) && delay <= step);
                step = (2 * step).min(longest);
            }
        }

        #[test]
        fn never_panics(first: Duration, longest: Duration, attempts in 0_u32..100, seed: u64) {
            if let Ok(backoff) = Backoff::try_new(first, longest, attempts) {
                prop_assert_eq!(backoff.delays(seed).count(), attempts as usize - 1);
            }
        }
    }
}
