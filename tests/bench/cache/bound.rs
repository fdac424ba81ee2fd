//! What a cache that knows all requests to come could hit.
//!
//! [`upper_bounds`] is PFOO-L of Berger, Beckmann, Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object
//! Sizes", SIGMETRICS 2018: keeping a thing from one request for it to the next costs its size times the time between; the
//! cheapest are kept until the cache's size times the length of the trace is spent. No policy that keeps to the capacity at
//! every moment hits more. [`belady`] is a policy: it drops what is asked for furthest in the future.

use std::collections::BTreeSet;

use super::trace::Trace;

/// Hits of a replay, or a bound of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hits {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// A thing that is asked for again.
struct Interval {
    length: u64,
    size: u64,
}

/// Returns bounds of the hits in objects and in bytes, each by a cache that wants nothing else.
pub(crate) fn upper_bounds(trace: &Trace, capacity: u64) -> Hits {
    let mut last = vec![None; trace.sizes.len()];
    let mut intervals = Vec::new();
    for (now, thing) in (0_u64..).zip(&trace.requests) {
        let size = trace.size(*thing);
        if let Some(before) = last[*thing as usize].replace(now)
            && size <= capacity
        {
            let length: u64 = now - before;
            intervals.push(Interval { length, size });
        }
    }
    let budget = u128::from(capacity) * trace.requests.len() as u128;
    intervals.sort_unstable_by_key(|interval| interval.length);
    let bytes = spend(&intervals, budget, |interval| interval.size);
    intervals.sort_unstable_by_key(Interval::cost);
    let objects = spend(&intervals, budget, |_| 1);
    Hits { objects, bytes }
}

/// Adds up what the first intervals are worth, as many as the budget allows, and one more.
fn spend(intervals: &[Interval], budget: u128, worth: impl Fn(&Interval) -> u64) -> u64 {
    let (mut spent, mut sum) = (0, 0);
    for interval in intervals {
        if spent >= budget {
            break;
        }
        spent += interval.cost();
        sum += worth(interval);
    }
    sum
}

impl Interval {
    fn cost(&self) -> u128 {
        u128::from(self.length) * u128::from(self.size)
    }
}

/// Replays a trace with a cache that drops what is asked for furthest in the future, the newcomer included.
pub(crate) fn belady(trace: &Trace, capacity: u64) -> Hits {
    let mut next = vec![usize::MAX; trace.requests.len()];
    let mut later = vec![usize::MAX; trace.sizes.len()];
    for (now, thing) in trace.requests.iter().enumerate().rev() {
        next[now] = std::mem::replace(&mut later[*thing as usize], now);
    }
    let mut kept: BTreeSet<(usize, u32)> = BTreeSet::new();
    let (mut hits, mut bytes) = (Hits::default(), 0);
    for (now, thing) in trace.requests.iter().enumerate() {
        let size = trace.size(*thing);
        if kept.remove(&(now, *thing)) {
            bytes -= size;
            hits.objects += 1;
            hits.bytes += size;
        }
        if next[now] < usize::MAX {
            kept.insert((next[now], *thing));
            bytes += size;
        }
        while bytes > capacity {
            let Some((_, furthest)) = kept.pop_last() else {
                break;
            };
            bytes -= trace.size(furthest);
        }
    }
    hits
}
