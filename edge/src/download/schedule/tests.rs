//! The schedule and the ramp, without a connection.

use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn schedule(mib: u64) -> Schedule {
    Schedule::new(mib * MIB, Spans::default(), 8)
}

/// Returns a claim's range in MiB.
fn mib(claimed: Option<(ClaimId, Range<u64>)>) -> Option<Range<u64>> {
    claimed.map(|(_, range)| range.start / MIB..range.end / MIB)
}

#[test]
fn the_first_claim_is_everything() {
    let mut schedule = schedule(100);
    assert_eq!(mib(schedule.claim(u64::MAX)), Some(0..100));
    assert_eq!(schedule.claim(u64::MAX), None);
}

#[test]
fn what_is_here_is_not_claimed() {
    let here = [0..10 * MIB, 20 * MIB..30 * MIB].into_iter().collect();
    let mut schedule = Schedule::new(40 * MIB, here, 8);
    assert_eq!(schedule.first_gap(), Some(10 * MIB));
    assert_eq!(mib(schedule.claim(u64::MAX)), Some(10..20));
    assert_eq!(mib(schedule.claim(u64::MAX)), Some(30..40));
    assert_eq!(schedule.first_gap(), None);
}

#[test]
fn a_claim_that_ends_early_is_claimed_again() {
    let mut schedule = schedule(100);
    let (id, _) = schedule.claim(u64::MAX).unwrap();
    assert_eq!(schedule.advance(id, 30 * MIB), 30 * MIB);
    schedule.close(id);
    assert_eq!(mib(schedule.claim(u64::MAX)), Some(30..100));
}

#[test]
fn shares_come_from_the_front() {
    let mut schedule = schedule(1000);
    let (first, _) = schedule.claim(u64::MAX).unwrap();
    schedule.advance(first, 10 * MIB);
    assert_eq!(mib(schedule.share(16 * MIB)), Some(26..42));
    assert_eq!(schedule.rest(first), 16 * MIB);
    assert_eq!(mib(schedule.share(16 * MIB)), Some(42..58));
    // What the first connection is sent beyond its claim is not its own any more.
    assert_eq!(schedule.advance(first, 20 * MIB), 16 * MIB);
    assert_eq!(schedule.rest(first), 0);
}

#[test]
fn the_last_claim_is_halved_while_that_is_worth_a_request() {
    let mut schedule = schedule(8);
    schedule.claim(u64::MAX).unwrap();
    assert_eq!(mib(schedule.share(64 * MIB)), Some(4..8));
    assert_eq!(mib(schedule.share(64 * MIB)), Some(6..8));
    assert_eq!(mib(schedule.share(64 * MIB)), Some(2..4));
    assert_eq!(mib(schedule.share(64 * MIB)), None);
}

#[test]
fn a_reader_far_ahead_gets_a_claim() {
    let mut schedule = schedule(100);
    let (first, _) = schedule.claim(u64::MAX).unwrap();
    let wanted = 60 * MIB..100 * MIB;
    assert_eq!(mib(schedule.claim_for(&wanted, 60 * MIB)), None);
    assert_eq!(mib(schedule.claim_for(&wanted, 59 * MIB)), Some(60..100));
    assert_eq!(schedule.rest(first), 60 * MIB);
    // It is on its way.
    assert_eq!(mib(schedule.claim_for(&wanted, 0)), None);
}

#[test]
fn a_reader_of_a_few_bytes_leaves_the_rest_to_others() {
    let mut schedule = schedule(100);
    schedule.claim(u64::MAX).unwrap();
    let wanted = 60 * MIB..60 * MIB + 10;
    assert_eq!(mib(schedule.claim_for(&wanted, 0)), Some(60..62));
    assert_eq!(mib(schedule.claim(u64::MAX)), Some(62..100));
    // Nobody brings these.
    let mut schedule = self::schedule(100);
    assert_eq!(mib(schedule.claim_for(&wanted, u64::MAX)), Some(60..62));
    assert_eq!(mib(schedule.claim_for(&wanted, 0)), None);
}

proptest! {
    /// Whatever is asked for and however connections end, each byte is brought once.
    #[test]
    fn each_byte_is_brought_once(
        steps in proptest::collection::vec((0..5_u8, 0..64_u64, 0..64_u64), 0..100),
        size in 1..64 * MIB,
    ) {
        let mut schedule = Schedule::new(size, Spans::default(), usize::MAX);
        let mut brought = Spans::default();
        let mut open: Vec<(ClaimId, u64)> = Vec::new();
        let bring = |schedule: &mut Schedule, brought: &mut Spans, claim: &mut (ClaimId, u64), bytes: u64| {
            let own = schedule.advance(claim.0, bytes);
            let range = claim.1..claim.1 + own;
            assert_eq!(brought.gap(range.start, range.end), (own > 0).then(|| range.clone()));
            brought.insert(range);
            claim.1 += own;
        };
        for (step, a, b) in steps {
            let claimed = match step {
                0 => schedule.claim(a * MIB + 1),
                1 => schedule.share(a * MIB),
                2 => schedule.claim_for(&((a * MIB + 7) % size..size), b * MIB),
                _ => None,
            };
            open.extend(claimed.map(|(id, range)| (id, range.start)));
            if step > 2 && !open.is_empty() {
                let at = usize::try_from(a).unwrap() % open.len();
                bring(&mut schedule, &mut brought, &mut open[at], b * MIB / 3);
                if step == 4 {
                    schedule.close(open.remove(at).0);
                }
            }
        }
        while let Some((id, range)) = schedule.claim(u64::MAX) {
            open.push((id, range.start));
        }
        for claim in &mut open {
            bring(&mut schedule, &mut brought, claim, u64::MAX);
            prop_assert_eq!(schedule.rest(claim.0), 0);
        }
        prop_assert_eq!(brought.end_from(0), size);
    }
}

/// Plays a link of `link` bytes a second, of which a connection gets `cap` at most; returns what the ramp comes to.
fn settle(link: u64, cap: u64, round_trip: Duration) -> usize {
    let mut now = Instant::now();
    let mut ramp = Ramp::new(16, now);
    let mut received = 0;
    for _ in 0..100 {
        let connections = ramp.connections(now, [received, u64::MAX], round_trip);
        now += Duration::from_secs(1);
        received += link.min(cap * connections as u64);
    }
    ramp.connections
}

#[test]
fn connections_are_added_while_they_pay() {
    let long = Duration::from_millis(100);
    assert_eq!(settle(100_000_000, 10_000_000, long), 16);
    assert_eq!(settle(40_000_000, 10_000_000, long), 8);
    assert_eq!(settle(10_000_000, 10_000_000, long), 2);
    // Nobody has answered yet.
    assert_eq!(settle(100_000_000, 10_000_000, Duration::MAX), 1);
    let short = Duration::from_millis(1);
    assert_eq!(settle(100_000_000, 10_000_000, short), 1);
}

#[test]
fn the_end_of_a_blob_is_not_worth_a_connection() {
    let mut now = Instant::now();
    let mut ramp = Ramp::new(16, now);
    now += Duration::from_secs(1);
    let round_trip = Duration::from_millis(100);
    assert_eq!(ramp.connections(now, [1_000_000, 900_000], round_trip), 1);
    now += Duration::from_secs(1);
    assert_eq!(ramp.connections(now, [2_000_000, 9_000_000], round_trip), 2);
}
