//! The brain of a download: which connection brings which bytes.
//!
//! What: a [`Schedule`] hands out claims, each a range of the blob for one connection, so that no byte is fetched twice. The
//! first claim is all that is missing; a claim is cut short when another connection is to bring its end, because a reader
//! waits there or because several connections are faster than one. [`Ramp`] says how many those are.
//!
//! Invariants: claims do not overlap, with each other or with what is here; a byte that is neither here nor claimed is
//! handed out by the next claim.
//!
//! Why chunks from the front, and not halves: a reader that started at the first byte then gets the sum of all
//! connections, not the rate of one until it comes to the middle.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::spans::Spans;

/// Which connection brings which bytes of a blob.
#[derive(Debug)]
pub(super) struct Schedule {
    size: u64,
    connections_max: usize,
    /// What is here, and what is claimed.
    taken: Spans,
    claims: BTreeMap<ClaimId, Claim>,
    next_id: u64,
}

/// Names a claim of a [`Schedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClaimId(u64);

/// What one connection is still to bring.
#[derive(Clone, Copy, Debug)]
struct Claim {
    at: u64,
    end: u64,
    /// Whether a reader that waits far ahead is what it is for.
    is_for_reader: bool,
}

/// How many connections a download should have, found out by trying.
///
/// Only on a long link: there a connection is held down by its window, or by a cap, and a further one brings as much again. On
/// a short one it would take from the others what it brings. The number doubles for as long as that pays.
#[derive(Debug)]
pub(super) struct Ramp {
    connections: usize,
    connections_max: usize,
    since: Instant,
    received: u64,
    /// What came in a second with half as many.
    rate: f64,
    is_settled: bool,
}

/// Where a claim of a reader's or a chunk may begin: holes in the file are whole blocks.
const ALIGNMENT: u64 = 64 << 10;

/// The fewest bytes that are worth a request of their own.
const SHARE_BYTES_MIN: u64 = 2 << 20;

/// The most bytes that a further connection claims at a time.
const SHARE_BYTES_MAX: u64 = 64 << 20;

/// A source that answers in less than this is near.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(20);

/// How many round trips, and how long at least, a number of connections is tried for.
const TRIAL_ROUND_TRIPS: u32 = 4;
const TRIAL_MIN: Duration = Duration::from_millis(400);

/// How much faster twice as many connections have to be.
const GAIN: f64 = 1.25;

/// A further connection is not worth it for what comes anyway in this time.
const REST_SECONDS: f64 = 1.0;

// === impl Schedule ===

impl Schedule {
    /// Returns the schedule of a blob of `size` bytes, of which `here` need not be fetched.
    ///
    /// At most `connections_max` claims are open at a time, except that the first is always given.
    pub(super) const fn new(size: u64, here: Spans, connections_max: usize) -> Self {
        Self {
            size,
            connections_max,
            taken: here,
            claims: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// Returns how many claims are open, those for readers left out.
    pub(super) fn claims(&self) -> usize {
        let claims = self.claims.values();
        claims.filter(|claim| !claim.is_for_reader).count()
    }

    /// Returns the first byte that is neither here nor claimed.
    pub(super) fn first_gap(&self) -> Option<u64> {
        Some(self.taken.gap(0, self.size)?.start)
    }

    /// Claims the first bytes that nobody brings, `bytes_max` at most.
    pub(super) fn claim(&mut self, bytes_max: u64) -> Option<(ClaimId, Range<u64>)> {
        let gap = self.taken.gap(0, self.size)?;
        let end = gap.end.min(gap.start.saturating_add(bytes_max));
        Some(self.open(gap.start..end, false))
    }

    /// Claims bytes for one more connection: those that nobody brings, or else the end of the longest claim.
    pub(super) fn share(&mut self, bytes: u64) -> Option<(ClaimId, Range<u64>)> {
        if self.claims.len() >= self.connections_max {
            return None;
        }
        let bytes = bytes.clamp(SHARE_BYTES_MIN, SHARE_BYTES_MAX);
        if self.taken.gap(0, self.size).is_none() {
            let longest = self.claims.values_mut().max_by_key(|claim| claim.rest())?;
            if longest.rest() < 2 * SHARE_BYTES_MIN {
                return None;
            }
            let kept = bytes.min(longest.rest() / 2);
            let cut = aligned(longest.at + kept);
            self.taken.remove(&(cut..longest.end));
            longest.end = cut;
        }
        self.claim(bytes)
    }

    /// Claims bytes that a reader waits for, unless no more than `patience` bytes come before them anyway.
    pub(super) fn claim_for(
        &mut self,
        wanted: &Range<u64>,
        patience: u64,
    ) -> Option<(ClaimId, Range<u64>)> {
        if self.claims.len() >= self.connections_max {
            return None;
        }
        let mut start = aligned(wanted.start);
        let ahead = self
            .claims
            .values_mut()
            .find(|claim| (claim.at..claim.end).contains(&wanted.start));
        if let Some(claim) = ahead {
            if wanted.start - claim.at <= patience.max(SHARE_BYTES_MIN) {
                return None;
            }
            self.taken.remove(&(start..claim.end));
            claim.end = start;
        } else {
            let gap = self.taken.gap(start, self.size)?;
            if !gap.contains(&wanted.start) {
                return None;
            }
            start = gap.start;
        }
        let end = self.taken.gap(start, self.size)?.end;
        let end = end.min(wanted.end.max(start + SHARE_BYTES_MIN));
        Some(self.open(start..end, true))
    }

    /// Takes note of `bytes` that came for a claim, and returns how many of them are its own.
    pub(super) fn advance(&mut self, id: ClaimId, bytes: u64) -> u64 {
        let Some(claim) = self.claims.get_mut(&id) else {
            return 0;
        };
        let own = bytes.min(claim.rest());
        claim.at += own;
        own
    }

    /// Returns how many bytes a claim still has.
    pub(super) fn rest(&self, id: ClaimId) -> u64 {
        self.claims.get(&id).map_or(0, Claim::rest)
    }

    /// Ends a claim; what it has not brought can be claimed again.
    pub(super) fn close(&mut self, id: ClaimId) {
        if let Some(claim) = self.claims.remove(&id) {
            self.taken.remove(&(claim.at..claim.end));
        }
    }

    fn open(&mut self, range: Range<u64>, is_for_reader: bool) -> (ClaimId, Range<u64>) {
        let id = ClaimId(self.next_id);
        self.next_id += 1;
        self.taken.insert(range.clone());
        let claim = Claim {
            at: range.start,
            end: range.end,
            is_for_reader,
        };
        self.claims.insert(id, claim);
        (id, range)
    }
}

const fn aligned(offset: u64) -> u64 {
    offset - offset % ALIGNMENT
}

// === impl Claim ===

impl Claim {
    const fn rest(&self) -> u64 {
        self.end - self.at
    }
}

// === impl Ramp ===

impl Ramp {
    pub(super) const fn new(connections_max: usize, now: Instant) -> Self {
        Self {
            connections: 1,
            connections_max,
            since: now,
            received: 0,
            rate: 0.0,
            is_settled: false,
        }
    }

    /// Returns how many connections there should be, `received` bytes having come in and `missing` being to come, from a
    /// source that answers within `round_trip`.
    #[expect(clippy::cast_precision_loss, reason = "rates are estimates")]
    pub(super) fn connections(
        &mut self,
        now: Instant,
        [received, missing]: [u64; 2],
        round_trip: Duration,
    ) -> usize {
        let trial = TRIAL_MIN.max(round_trip.saturating_mul(TRIAL_ROUND_TRIPS));
        let elapsed = now - self.since;
        if self.is_settled || round_trip < LONG_ROUND_TRIP || elapsed < trial {
            return self.connections;
        }
        let rate = (received - self.received) as f64 / elapsed.as_secs_f64();
        (self.since, self.received) = (now, received);
        if missing as f64 <= rate * REST_SECONDS {
            return self.connections;
        }
        let has_gained = rate >= self.rate * GAIN;
        self.is_settled = !has_gained || self.connections == self.connections_max;
        if has_gained {
            self.rate = rate;
            self.connections = (2 * self.connections).min(self.connections_max);
        }
        self.connections
    }
}

#[cfg(test)]
mod tests;
