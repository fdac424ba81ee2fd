//! How soon things are asked for again, learnt from how soon others were.
//!
//! What: things are told apart by how often they were used and how long ago. For each such state, [`Reuse`] counts how many
//! were used again then and how many were not, and ranks it by the most uses per unit of time that keeping the thing for
//! some while can be expected to bring: the Gittins index of the bet that it is used again. Times are numbers of uses of the
//! whole cache.
//!
//! Why not a fixed rule: what is right depends on the load. Where popularity never changes, counting uses is best; where new
//! versions replace old ones, the time of the last use is; a scan is neither. What is learnt here comes close to the better
//! of them on each, which none of the fixed rules did (`tests/bench/cache.rs`). It is a kin of LHD (Beckmann et al., "LHD:
//! Improving Cache Hit Rate by Maximizing Hit Density", NSDI 2018); sizes are left out because bytes are what counts: a byte
//! of a large blob is worth as much as one of a small blob.

/// What was learnt.
#[derive(Clone, Debug)]
pub(super) struct Reuse {
    /// How many were used again at an age.
    again: Grid,
    /// How many were given up at an age.
    never: Grid,
    ranks: Grid,
}

/// One number for each number of uses and each age.
type Grid = Vec<[f32; AGES]>;

/// Classes of numbers of uses: 1, 2 to 3, 4 to 7, and so on.
const USES: usize = 8;

/// Classes of ages: two to each doubling.
const AGES: usize = 64;

/// How much a class that has not seen much is taken to be like all others: as if it had seen so many of their cases.
const PRIOR: f32 = 8.0;

// === impl Reuse ===

impl Reuse {
    /// Returns one that ranks by uses over age.
    pub(super) fn new() -> Self {
        let mut ranks = grid();
        let mut uses = 1.0;
        for of_class in &mut ranks {
            for (age, rank) in of_class.iter_mut().enumerate() {
                *rank = uses / age_of(age);
            }
            uses *= 2.0;
        }
        Self {
            again: grid(),
            never: grid(),
            ranks,
        }
    }

    /// Counts that something was used again.
    pub(super) fn used_again(&mut self, uses: u16, age: u64) {
        self.again[class_of_uses(uses)][class_of_age(age)] += 1.0;
    }

    /// Counts that something was not used again for so long, and is forgotten.
    pub(super) fn given_up(&mut self, uses: u16, age: u64) {
        self.never[class_of_uses(uses)][class_of_age(age)] += 1.0;
    }

    /// Returns how much it is worth to keep something.
    pub(super) fn rank(&self, uses: u16, age: u64) -> f32 {
        self.ranks[class_of_uses(uses)][class_of_age(age)]
    }

    /// Ranks anew, given those that are waited for: uses, age, and for how many they stand. Of what was counted, the part
    /// `kept` counts on.
    pub(super) fn learn(&mut self, waiting: impl Iterator<Item = (u16, u64, f32)>, kept: f32) {
        let mut not_yet = self.never.clone();
        for (uses, age, count) in waiting {
            not_yet[class_of_uses(uses)][class_of_age(age)] += count;
        }
        let all_again = column_sums(&self.again);
        let all_not_yet = column_sums(&not_yet);
        let all: f32 = all_again.iter().chain(&all_not_yet).sum();
        let like_all = PRIOR / all.max(PRIOR);
        for (class, ranks) in self.ranks.iter_mut().enumerate() {
            let mut again = self.again[class];
            let mut never = not_yet[class];
            for age in 0..AGES {
                again[age] += like_all * all_again[age];
                never[age] += like_all * all_not_yet[age];
            }
            *ranks = best_rates(&again, &never);
        }
        for count in self.again.iter_mut().chain(&mut self.never).flatten() {
            *count *= kept;
        }
    }

    /// Returns what was counted, as one list.
    pub(super) fn counts(&self) -> impl Iterator<Item = f32> {
        self.again.iter().chain(&self.never).flatten().copied()
    }

    /// Takes what [`Self::counts`] gave; what is missing is zero.
    pub(super) fn set_counts(&mut self, counts: impl IntoIterator<Item = f32>) {
        let all = self.again.iter_mut().chain(&mut self.never).flatten();
        for (count, given) in all.zip(counts) {
            *count = if given.is_finite() {
                given.max(0.0)
            } else {
                0.0
            };
        }
    }
}

/// Returns, for each age, the most uses per time that keeping on from there, up to any later age, brings.
fn best_rates(again: &[f32; AGES], never: &[f32; AGES]) -> [f32; AGES] {
    let mut left = [0.0; AGES + 1];
    for age in (0..AGES).rev() {
        left[age] = left[age + 1] + again[age] + never[age];
    }
    let mut best = [0.0; AGES];
    for (from, best) in best.iter_mut().enumerate() {
        let (mut uses, mut time) = (0.0, 0.0);
        for age in from..AGES {
            if left[age] <= f32::EPSILON {
                break;
            }
            uses += again[age];
            // Those that end in this class of ages do so halfway through it.
            let through = f32::midpoint(left[age], left[age + 1]);
            time += through * (age_of(age + 1) - age_of(age));
            *best = f32::max(*best, uses / time);
        }
    }
    best
}

fn grid() -> Grid {
    vec![[0.0; AGES]; USES]
}

fn column_sums(grid: &Grid) -> [f32; AGES] {
    let mut sums = [0.0; AGES];
    for row in grid {
        for (sum, count) in sums.iter_mut().zip(row) {
            *sum += count;
        }
    }
    sums
}

fn class_of_uses(uses: u16) -> usize {
    (uses.max(1).ilog2() as usize).min(USES - 1)
}

fn class_of_age(age: u64) -> usize {
    let age = age.max(1);
    let doublings = age.ilog2();
    let half = doublings
        .checked_sub(1)
        .map_or(0, |before| (age >> before) & 1);
    (2 * doublings as usize + usize::from(half == 1)).min(AGES - 1)
}

/// Returns the least age of a class.
#[expect(
    clippy::cast_precision_loss,
    reason = "a power of two, or 1.5 times one"
)]
fn age_of(class: usize) -> f32 {
    let doubled = (1_u64 << (class / 2)) as f32;
    if class.is_multiple_of(2) {
        doubled
    } else {
        1.5 * doubled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_ages_are_in_order_and_begin_where_they_say() {
        let mut last = 0;
        for age in 1..100_000_u32 {
            let class = class_of_age(u64::from(age));
            assert!((last..=last + 2).contains(&class), "{age}");
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let age = age as f32;
            assert!(age_of(class) <= age && age < age_of(class + 1), "{age}");
            last = class;
        }
        assert_eq!(class_of_age(u64::MAX), AGES - 1);
    }

    #[test]
    fn nothing_learnt_is_least_recently_used() {
        let reuse = Reuse::new();
        assert!(reuse.rank(1, 10) > reuse.rank(1, 100));
        assert!(reuse.rank(4, 100) > reuse.rank(1, 100));
    }

    #[test]
    fn what_comes_back_late_outranks_what_never_does() {
        let mut reuse = Reuse::new();
        for _ in 0..1_000 {
            reuse.given_up(1, 5_000);
            reuse.used_again(4, 900);
        }
        reuse.learn(std::iter::empty(), 0.9);
        // Used 600 ago, and due; against the newest of those that are used once.
        assert!(reuse.rank(4, 600) > 4.0 * reuse.rank(1, 10));
        // Overdue.
        assert!(reuse.rank(4, 600) > reuse.rank(4, 3_000));
    }

    #[test]
    fn those_waited_for_count_as_not_used() {
        let mut reuse = Reuse::new();
        for _ in 0..10 {
            reuse.used_again(1, 100);
        }
        let mut patient = reuse.clone();
        reuse.learn(std::iter::empty(), 0.9);
        patient.learn(std::iter::once((1, 200, 1_000.0)), 0.9);
        assert!(patient.rank(1, 50) < reuse.rank(1, 50) / 10.0);
    }

    #[test]
    fn counts_round_trip_and_garbage_does_no_harm() {
        let mut reuse = Reuse::new();
        reuse.used_again(3, 70);
        reuse.given_up(1, 7);
        let mut other = Reuse::new();
        other.set_counts(reuse.counts());
        assert_eq!(
            other.counts().collect::<Vec<_>>(),
            reuse.counts().collect::<Vec<_>>()
        );
        other.set_counts([f32::NAN, f32::INFINITY, -1.0]);
        other.learn(std::iter::empty(), 0.9);
        assert!(other.rank(1, 1).is_finite());
    }
}
