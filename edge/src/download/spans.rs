//! A set of the bytes of a blob, as ranges.
//!
//! Invariant: the ranges are not empty, do not overlap and do not touch, so that each set has one form. A download has a
//! few connections, each of which grows one range, so there are few.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of bytes, by their offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    /// The end of each range, by its start.
    ends: BTreeMap<u64, u64>,
}

// === impl Spans ===

impl Spans {
    /// Adds the bytes of `range`.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        while let Some((&other_start, &other_end)) = self.ends.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            start = start.min(other_start);
            end = end.max(other_end);
            self.ends.remove(&other_start);
        }
        self.ends.insert(start, end);
    }

    /// Takes the bytes of `range` out.
    pub(super) fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.ends.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            self.ends.remove(&start);
            if start < range.start {
                self.ends.insert(start, range.start);
            }
            if range.end < end {
                self.ends.insert(range.end, end);
            }
        }
    }

    /// Returns up to where the bytes from `offset` on are all in the set; `offset` itself when it is not.
    pub(super) fn end_from(&self, offset: u64) -> u64 {
        self.ends
            .range(..=offset)
            .next_back()
            .map_or(offset, |(_, &end)| end.max(offset))
    }

    /// Returns the first bytes from `offset` on and before `end` that are not in the set.
    pub(super) fn gap(&self, offset: u64, end: u64) -> Option<Range<u64>> {
        let start = self.end_from(offset);
        if start >= end {
            return None;
        }
        let next = self.ends.range(start..end).next();
        Some(start..next.map_or(end, |(&next, _)| next))
    }

    /// Returns how many bytes are in the set.
    pub(super) fn bytes(&self) -> u64 {
        self.ends.iter().map(|(start, end)| end - start).sum()
    }

    /// Returns the ranges, in order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.ends.iter().map(|(&start, &end)| start..end)
    }
}

impl FromIterator<Range<u64>> for Spans {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut spans = Self::default();
        for range in ranges {
            spans.insert(range);
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: usize = 40;

    fn spans(ranges: &[Range<u64>]) -> Spans {
        ranges.iter().cloned().collect()
    }

    #[test]
    fn neighbours_become_one() {
        let spans = spans(&[0..3, 7..9, 3..7]);
        assert_eq!(spans.ranges().next(), Some(0..9));
        assert_eq!(spans.ranges().count(), 1);
    }

    #[test]
    fn gaps_lie_between() {
        let spans = spans(&[2..4, 6..8]);
        assert_eq!(spans.gap(0, 10), Some(0..2));
        assert_eq!(spans.gap(2, 10), Some(4..6));
        assert_eq!(spans.gap(5, 10), Some(5..6));
        assert_eq!(spans.gap(7, 10), Some(8..10));
        assert_eq!(spans.gap(6, 8), None);
        assert_eq!(spans.gap(10, 10), None);
    }

    proptest! {
        /// The set agrees with one flag for each byte.
        #[test]
        fn behaves_like_a_list_of_flags(
            steps in proptest::collection::vec((any::<bool>(), 0..SIZE, 0..SIZE), 0..60),
            offset in 0..SIZE,
        ) {
            let mut spans = Spans::default();
            let mut flags = [false; SIZE];
            for (inserts, from, to) in steps {
                let range = from as u64..to as u64;
                if inserts {
                    spans.insert(range);
                } else {
                    spans.remove(&range);
                }
                if from < to {
                    flags[from..to].fill(inserts);
                }
            }
            let expected: Spans = (0..SIZE as u64).filter(|&at| flags[usize::try_from(at).unwrap()]).map(|at| at..at + 1).collect();
            prop_assert_eq!(&spans, &expected);
            prop_assert_eq!(spans.bytes(), flags.iter().filter(|&&flag| flag).count() as u64);
            let run = flags[offset..].iter().take_while(|&&flag| flag).count();
            prop_assert_eq!(spans.end_from(offset as u64), (offset + run) as u64);
            let gap = flags[offset..].iter().skip(run).take_while(|&&flag| !flag).count();
            let gap = (gap > 0).then(|| (offset + run) as u64..(offset + run + gap) as u64);
            prop_assert_eq!(spans.gap(offset as u64, SIZE as u64), gap);
        }
    }
}
