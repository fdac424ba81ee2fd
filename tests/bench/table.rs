//! What was measured, as a table.

use std::fmt;

/// The measurements of one thing.
#[derive(Debug, Default)]
pub(crate) struct Series(Vec<f64>);

/// Rows of what was measured.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<String>);

// === impl Series ===

impl Series {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

// === impl Table ===

impl Table {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds throughputs in GB/s: ours, and that of `peer`.
    pub(crate) fn throughput(&mut self, what: &str, peer: &str, [ours, theirs]: &[Series; 2]) {
        let (ours, theirs) = (ours.median(), theirs.median());
        self.0.push(format!(
            "| {what} | {ours:.2} GB/s | {peer}: {theirs:.2} GB/s | {:.2} x its throughput |",
            ours / theirs
        ));
    }

    /// Adds seconds of processor for each GiB: ours, and that of `peer`.
    pub(crate) fn cost(&mut self, what: &str, peer: &str, [ours, theirs]: &[Series; 2]) {
        let (ours, theirs) = (ours.median(), theirs.median());
        self.0.push(format!(
            "| {what} | {ours:.2} s/GiB | {peer}: {theirs:.2} s/GiB | {:.2} x its cost |",
            ours / theirs
        ));
    }

    /// Adds times: ours, and that of `peer`.
    pub(crate) fn seconds(&mut self, what: &str, peer: &str, [ours, theirs]: &[Series; 2]) {
        let (ours, theirs) = (ours.median(), theirs.median());
        self.0.push(format!(
            "| {what} | {ours:.2} s | {peer}: {theirs:.2} s | {:.2} x its time |",
            ours / theirs
        ));
    }

    /// Adds rates of requests: ours, and that of `peer`.
    pub(crate) fn rate(&mut self, what: &str, peer: &str, [ours, theirs]: &[Series; 2]) {
        let (ours, theirs) = (ours.median(), theirs.median());
        self.0.push(format!(
            "| {what} | {ours:.0}/s | {peer}: {theirs:.0}/s | {:.1} x its rate |",
            ours / theirs
        ));
    }

    /// Adds short times: ours, and that of `peer`.
    pub(crate) fn milliseconds(&mut self, what: &str, peer: &str, [ours, theirs]: &[Series; 2]) {
        let (ours, theirs) = (ours.median() * 1e3, theirs.median() * 1e3);
        self.0.push(format!(
            "| {what} | {ours:.2} ms | {peer}: {theirs:.2} ms | {:.1} x its time |",
            ours / theirs
        ));
    }

    /// Adds a short time and its bound, in milliseconds.
    pub(crate) fn bounded_milliseconds(&mut self, what: &str, ours: &Series, bound: f64) {
        let ours = ours.median() * 1e3;
        self.0.push(format!(
            "| {what} | {ours:.2} ms | bound: {bound:.0} ms | {:.2} x the bound |",
            ours / bound
        ));
    }

    /// Adds a time and its bound.
    pub(crate) fn bounded_seconds(&mut self, what: &str, ours: &Series, bound: f64) {
        let ours = ours.median();
        self.0.push(format!(
            "| {what} | {ours:.2} s | bound: {bound:.2} s | {:.2} x the bound |",
            ours / bound
        ));
    }

    /// Adds a size and its bound.
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    pub(crate) fn bytes(&mut self, what: &str, bytes: u64, bound: u64) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        self.0.push(format!(
            "| {what} | {:.1} MiB | bound: {:.2} MiB | {:.2} x the bound |",
            mib(bytes),
            mib(bound),
            mib(bytes) / mib(bound)
        ));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | Outport | beside | ratio |\n|---|---|---|---|")?;
        for row in &self.0 {
            writeln!(f, "{row}")?;
        }
        Ok(())
    }
}
