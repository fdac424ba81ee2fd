//! Numbers that are the same in every run: a seeded generator and the distributions that traces are made of.

/// A seeded generator (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

/// Ranks from 0 on, the chance of rank `r` being proportional to `1 / (r + 1)^exponent`.
#[derive(Clone, Debug)]
pub(crate) struct Zipf(Vec<f64>);

// === impl Random ===

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number in `0..1`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) const fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a number in `0..end`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "far below 2^53"
    )]
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    /// Returns a number whose logarithm is normal around that of `median`.
    pub(crate) fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
        median * (sigma * normal).exp()
    }

    /// Returns how long the next event of a Poisson process is away.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

// === impl Zipf ===

impl Zipf {
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    pub(crate) fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = (1..=count)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        for so_far in &mut sums {
            *so_far /= sum;
        }
        Self(sums)
    }

    pub(crate) fn sample(&self, random: &mut Random) -> usize {
        let at = random.unit();
        self.0
            .partition_point(|sum| *sum <= at)
            .min(self.0.len() - 1)
    }

    /// Returns the chance of a rank.
    pub(crate) fn chance(&self, rank: usize) -> f64 {
        self.0[rank] - rank.checked_sub(1).map_or(0.0, |before| self.0[before])
    }
}
