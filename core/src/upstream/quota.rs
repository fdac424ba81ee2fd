//! How much of an upstream's quota is left, and how much less often it is asked as that shrinks.
//!
//! What: Docker Hub says with its answers how many pulls are left of how many, in a window of so many seconds
//! (`ratelimit-limit: 100;w=21600`), also with those to HEADs, which it does not count. What is told last counts, until its
//! window is over. There is one quota for each upstream, because each is asked by one user, or by nobody.
//!
//! Invariant: while half of it or more is left, nothing is asked less often; the less is left, the more, up to a bound.

use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use tokio::time::Instant;

/// What an upstream said of its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many pulls there are in a window.
    pub limit: u64,
    /// How many of them are left.
    pub remaining: u64,
    /// Until when this is of any use.
    until: Instant,
}

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");

/// Docker Hub's own, when none is told.
const WINDOW: Duration = Duration::from_hours(6);

/// The longest window that is believed in.
const WINDOW_MAX: Duration = Duration::from_hours(24);

/// How many times as long as usual is waited at most.
const STRETCH_MAX: u64 = 64;

// === impl Quota ===

impl Quota {
    /// Reads what is told at `now`; none when nothing is, or nothing that makes sense.
    pub(super) fn told(headers: &HeaderMap, now: Instant) -> Option<Self> {
        let (limit, window) = parse(headers.get(LIMIT)?)?;
        let (remaining, _) = parse(headers.get(REMAINING)?)?;
        let window = window.unwrap_or(WINDOW).min(WINDOW_MAX);
        (limit > 0).then(|| Self {
            limit,
            remaining: remaining.min(limit),
            until: now + window,
        })
    }

    /// Returns how many times as long as usual is to be waited before the next question that may use it up.
    pub fn stretch(&self, now: Instant) -> u32 {
        if now >= self.until {
            return 1;
        }
        let times = (self.limit / 2)
            .checked_div(self.remaining)
            .unwrap_or(STRETCH_MAX);
        // Not more than 64.
        u32::try_from(times.clamp(1, STRETCH_MAX)).unwrap_or(1)
    }
}

/// Reads a number, and the window behind it.
fn parse(value: &HeaderValue) -> Option<(u64, Option<Duration>)> {
    let mut parts = value.to_str().ok()?.split(';');
    let number = parts.next()?.trim().parse().ok()?;
    let window = parts.find_map(|part| part.trim().strip_prefix("w="));
    let seconds = window.and_then(|seconds| seconds.parse().ok());
    Some((number, seconds.map(Duration::from_secs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(limit: &'static str, remaining: &'static str, now: Instant) -> Option<Quota> {
        let headers = [(LIMIT, limit), (REMAINING, remaining)];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        Quota::told(&headers.into_iter().collect(), now)
    }

    #[test]
    fn the_less_is_left_the_less_is_asked() {
        let now = Instant::now();
        for (remaining, expected) in [
            ("100;w=21600", 1),
            ("50;w=21600", 1),
            ("26;w=21600", 1),
            ("25;w=21600", 2),
            ("5;w=21600", 10),
            ("0;w=21600", 64),
            ("7000;w=21600", 1),
        ] {
            let quota = told("100;w=21600", remaining, now).unwrap();
            assert_eq!(quota.stretch(now), expected, "{remaining}");
            let later = now + Duration::from_hours(6);
            assert_eq!(quota.stretch(later), 1, "{remaining}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_not_told() {
        let now = Instant::now();
        for (limit, remaining) in [("0", "0"), ("a", "1"), ("1", ""), ("-1", "1"), ("", "")] {
            assert_eq!(told(limit, remaining, now), None);
        }
        let long = told("1", "0;w=99999999999999", now).unwrap();
        assert_eq!(long.stretch(now + WINDOW_MAX), 1);
        assert_eq!(told("1;w=x", "0", now).unwrap().stretch(now), 64);
    }
}
