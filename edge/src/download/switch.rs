//! Having the origin asked when a sibling's bytes hardly come, and leaving a download that nobody waits for.
//!
//! What: a download that comes from a sibling which is as good as dead has the origin asked, and the sibling again when that is
//! no faster.
//!
//! Invariant: each is tried once, so that nobody goes to and fro.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::crew::{AHEAD_SECONDS, Crew, RATE_MIN_MS};

/// Since when whoever is asked has been, and what had come before.
pub(super) struct Switch {
    since: Instant,
    received: u64,
    /// How much came in a second of the siblings when they were left, if it is not settled yet whether the origin is faster.
    left_at: Option<u64>,
    /// Whether they have been left once.
    has_left: bool,
}

/// A sibling from which less comes in a second is as good as dead, as it is near; or it waits for the origin itself, which is
/// no faster then.
const SIBLING_RATE_MIN: u64 = 256 << 10;

/// What a download that nobody waits for has to bring in a second to go on.
const DESERTED_RATE_MIN: u64 = 16 << 10;

/// For how long that is measured at least.
const DESERTED_TRIAL_MIN: Duration = Duration::from_secs(10);

// === impl Switch ===

impl Switch {
    pub(super) const fn new(began: Instant) -> Self {
        Self {
            since: began,
            received: 0,
            left_at: None,
            has_left: false,
        }
    }
}

// === impl Crew ===

impl Crew<'_> {
    /// Has the origin asked when the bytes of a sibling hardly come, and the sibling again when that is no faster.
    pub(super) fn look_elsewhere(&self, switch: &mut Switch, now: Instant) {
        let elapsed_ms = u64::try_from((now - switch.since).as_millis()).unwrap_or(u64::MAX);
        if elapsed_ms < RATE_MIN_MS {
            return;
        }
        let received = self.received.load(Ordering::Relaxed);
        let rate = (received - switch.received).saturating_mul(1000) / elapsed_ms;
        let missing = self.writer.size().saturating_sub(self.writer.arrived());
        let is_dead = rate < SIBLING_RATE_MIN && missing > rate.saturating_mul(AHEAD_SECONDS);
        match switch.left_at.take() {
            Some(before) if rate < before => self.fill.leave_siblings(false),
            _ if is_dead && !switch.has_left && self.fill.has_from_siblings() => {
                (switch.has_left, switch.left_at) = (true, Some(rate));
                self.fill.leave_siblings(true);
            }
            _ => return,
        }
        (switch.since, switch.received) = (now, received);
        let halted = std::mem::take(&mut *self.halt.lock());
        halted.cancel();
    }

    /// Waits until nobody has waited for the blob for so long that it need not come.
    pub(super) async fn deserted(&self) {
        let config = &self.fill.parts.config;
        let attendance = self.fill.attendance;
        loop {
            attendance.deserted().await;
            let size = self.writer.size();
            let is_wanted = attendance.ever() >= config.popular_min
                || self.writer.arrived() >= size / 100 * u64::from(config.finish_percent);
            // Larger ones can be declared than can ever be kept.
            let is_worth_it = is_wanted && size <= self.fill.parts.cache.capacity_bytes();
            let wait = if is_worth_it {
                config.grace.max(DESERTED_TRIAL_MIN)
            } else {
                config.grace
            };
            let before = self.writer.arrived();
            tokio::select! {
                () = attendance.joined() => {}
                () = sleep(wait) => {
                    let brought = self.writer.arrived() - before;
                    let goes_on = is_worth_it && is_moving(brought, wait);
                    if !goes_on && attendance.close() {
                        return;
                    }
                }
            }
        }
    }
}

/// Whether so much in such a time is worth a connection that nobody waits for.
fn is_moving(brought: u64, time: Duration) -> bool {
    brought >= DESERTED_RATE_MIN.saturating_mul(time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drips_does_not_move() {
        for (brought, seconds, expected) in [
            (0, 10, false),
            (30, 30, false),
            (30 * DESERTED_RATE_MIN - 1, 30, false),
            (30 * DESERTED_RATE_MIN, 30, true),
            (1 << 30, 30, true),
            (u64::MAX - 1, u64::MAX, false),
        ] {
            let time = Duration::from_secs(seconds);
            assert_eq!(is_moving(brought, time), expected, "{brought} {seconds}");
        }
    }
}
