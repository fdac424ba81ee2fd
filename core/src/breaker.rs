//! When to stop asking somebody who does not answer.
//!
//! What: a pure table of states. Closed: every request goes. After some failures in a row it opens: none goes, so that
//! nobody waits for a timeout that the one before already waited for. After a rest one request goes as a probe, and its
//! outcome closes the breaker, or opens it for longer. Who says for how long not to ask is not asked for so long.
//!
//! Invariant: in each rest at most one request goes; a probe that never reports back is followed by another.

use std::time::Duration;

use tokio::time::Instant;

/// How a [`Breaker`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long the first rest lasts; each one after a failed probe is twice as long.
    pub min_rest: Duration,
    /// The longest rest.
    pub max_rest: Duration,
}

/// Remembers whether somebody answers.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    /// How many probes failed alone since the last answer.
    alone: u32,
}

/// Whether a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It may.
    Go,
    /// Not before so long.
    Rest(Duration),
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Requests go.
    Closed { failures: u32 },
    /// None goes before `until`.
    Open { until: Instant, rest: Duration },
    /// None goes before `until`, whatever those that are on their way bring: so it was said.
    Told { until: Instant },
    /// One is on its way; it is given up, and another one goes, at `until`.
    Probing { until: Instant, rest: Duration },
}

/// How many probes may fail alone until there is an answer.
const ALONE_MAX: u32 = 16;

// === impl Breaker ===

impl Breaker {
    /// Returns a closed breaker.
    pub const fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: State::Closed { failures: 0 },
            alone: 0,
        }
    }

    /// Asks whether a request may go; one that may must report back.
    pub fn ask(&mut self, now: Instant) -> Permit {
        match self.state {
            State::Closed { .. } => Permit::Go,
            State::Open { until, .. } | State::Told { until } | State::Probing { until, .. }
                if now < until =>
            {
                Permit::Rest(until - now)
            }
            State::Told { .. } => {
                let rest = self.config.min_rest;
                let until = now + rest;
                self.state = State::Probing { until, rest };
                Permit::Go
            }
            State::Open { rest, .. } | State::Probing { rest, .. } => {
                let until = now + rest;
                self.state = State::Probing { until, rest };
                Permit::Go
            }
        }
    }

    /// Reports an answer.
    pub const fn succeeded(&mut self) {
        self.alone = 0;
        if !matches!(self.state, State::Told { .. }) {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// Reports that there was no answer, or only that there cannot be one.
    pub fn failed(&mut self, now: Instant) {
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < self.config.failures => State::Closed {
                failures: failures + 1,
            },
            State::Closed { .. } => open(now, self.config.min_rest),
            // One that went before it opened says nothing new.
            State::Open { .. } | State::Told { .. } => self.state,
            State::Probing { rest, .. } => open(now, (rest * 2).min(self.config.max_rest)),
        };
    }

    /// Reports what says of a probe that what it asked for cannot be had, and little of anything else: the next one goes as soon
    /// as the first one did, unless that has happened too often since there was an answer.
    pub fn failed_alone(&mut self, now: Instant) {
        if matches!(self.state, State::Probing { .. }) && self.alone < ALONE_MAX {
            self.alone += 1;
            self.state = open(now, self.config.min_rest);
        } else {
            self.failed(now);
        }
    }

    /// Opens it, if it is closed: somebody else's failures say enough.
    pub fn open(&mut self, now: Instant) {
        if self.is_closed() {
            self.state = open(now, self.config.min_rest);
        }
    }

    /// Opens it for the longest rest: there was an answer, which is not to be asked again.
    pub fn trip(&mut self, now: Instant) {
        self.state = open(now, self.config.max_rest);
    }

    /// Opens it for as long as was said.
    pub fn rest(&mut self, now: Instant, rest: Duration) {
        self.state = State::Told { until: now + rest };
    }

    /// Whether none goes now.
    pub fn is_resting(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => false,
            State::Open { until, .. } | State::Told { until } | State::Probing { until, .. } => {
                now < until
            }
        }
    }

    /// Whether there was a failure since the last answer.
    pub const fn has_failed(&self) -> bool {
        !matches!(self.state, State::Closed { failures: 0 })
    }

    /// Returns how long none goes yet because it was said so, whatever those that are on their way bring.
    pub fn told_rest(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Told { until } if now < until => Some(until - now),
            State::Told { .. }
            | State::Closed { .. }
            | State::Open { .. }
            | State::Probing { .. } => None,
        }
    }

    /// Whether requests go freely.
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }
}

fn open(now: Instant, rest: Duration) -> State {
    State::Open {
        until: now + rest,
        rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: BreakerConfig = BreakerConfig {
        failures: 3,
        min_rest: Duration::from_secs(1),
        max_rest: Duration::from_secs(3),
    };

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(CONFIG);
        for _ in 0..CONFIG.failures {
            assert_eq!(breaker.ask(now), Permit::Go);
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row() {
        let now = Instant::now();
        let mut breaker = Breaker::new(CONFIG);
        for _ in 0..5 {
            breaker.failed(now);
            breaker.failed(now);
            assert!(breaker.has_failed());
            breaker.succeeded();
            assert!(!breaker.has_failed());
        }
        assert_eq!(breaker.ask(now), Permit::Go);
        assert_eq!(opened(now).ask(now), Permit::Rest(CONFIG.min_rest));
    }

    #[test]
    fn one_probe_goes_and_closes_it() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        now += CONFIG.min_rest;
        assert_eq!(breaker.ask(now), Permit::Go);
        assert!(matches!(breaker.ask(now), Permit::Rest(_)));
        breaker.succeeded();
        assert!(breaker.is_closed());
    }

    #[test]
    fn failed_probes_lengthen_the_rest_up_to_a_limit() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for rest in [1, 2, 3, 3] {
            let rest = Duration::from_secs(rest);
            assert_eq!(breaker.ask(now), Permit::Rest(rest));
            // Those that were on their way all along change nothing.
            breaker.failed(now);
            assert_eq!(breaker.ask(now), Permit::Rest(rest));
            now += rest;
            assert_eq!(breaker.ask(now), Permit::Go);
            breaker.failed(now);
        }
    }

    #[test]
    fn a_probe_that_failed_alone_lengthens_no_rest() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for _ in 0..=ALONE_MAX {
            assert_eq!(breaker.ask(now), Permit::Rest(CONFIG.min_rest));
            now += CONFIG.min_rest;
            assert_eq!(breaker.ask(now), Permit::Go);
            breaker.failed_alone(now);
        }
        // So many say something of all.
        assert_eq!(breaker.ask(now), Permit::Rest(2 * CONFIG.min_rest));
        breaker.succeeded();
        for _ in 0..CONFIG.failures {
            assert_eq!(breaker.ask(now), Permit::Go);
            breaker.failed_alone(now);
        }
        assert_eq!(breaker.ask(now), Permit::Rest(CONFIG.min_rest));
        // They are counted from the last answer on.
        now += CONFIG.min_rest;
        assert_eq!(breaker.ask(now), Permit::Go);
        breaker.failed_alone(now);
        assert_eq!(breaker.ask(now), Permit::Rest(CONFIG.min_rest));
    }

    #[test]
    fn a_trip_is_a_long_rest() {
        let now = Instant::now();
        let mut breaker = Breaker::new(CONFIG);
        breaker.trip(now);
        assert_eq!(breaker.ask(now), Permit::Rest(CONFIG.max_rest));
    }

    #[test]
    fn who_is_found_out_by_others_rests_as_any() {
        let now = Instant::now();
        let mut breaker = Breaker::new(CONFIG);
        breaker.open(now);
        assert_eq!(breaker.ask(now), Permit::Rest(CONFIG.min_rest));
        breaker.trip(now);
        breaker.open(now);
        assert_eq!(breaker.ask(now), Permit::Rest(CONFIG.max_rest));
    }

    #[test]
    fn a_rest_that_was_asked_for_is_kept() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(CONFIG);
        let minute = Duration::from_mins(1);
        breaker.rest(now, minute);
        // Those that were on their way.
        breaker.succeeded();
        breaker.failed(now);
        assert_eq!(breaker.ask(now), Permit::Rest(minute));
        assert_eq!(breaker.told_rest(now), Some(minute));
        now += minute;
        assert_eq!(breaker.told_rest(now), None);
        assert_eq!(breaker.ask(now), Permit::Go);
        assert_eq!(breaker.ask(now), Permit::Rest(CONFIG.min_rest));
        breaker.succeeded();
        assert!(breaker.is_closed());
    }

    #[test]
    fn a_lost_probe_is_followed_by_another() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for _ in 0..2 {
            now += CONFIG.min_rest;
            assert_eq!(breaker.ask(now), Permit::Go);
        }
    }
}
