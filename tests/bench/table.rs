//! What was measured, as a table.

use std::fmt;

/// The measurements of one thing.
#[derive(Debug, Default)]
pub(crate) struct Series(Vec<f64>);

/// What a number is of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    /// Seconds.
    Seconds,
    /// Seconds, which are few and shown as milliseconds.
    Milliseconds,
    /// Requests a second.
    Rate,
    /// GB a second.
    Throughput,
    /// Seconds of processor for each GiB.
    Cost,
    /// Bytes, which are many and shown as MiB.
    Mebibytes,
}

/// Rows of what was measured.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<String>);

// === impl Series ===

impl Series {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn median(&self) -> f64 {
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

// === impl Unit ===

impl Unit {
    /// Returns how much of it one of what was measured is, how many decimals are shown, and what it is called.
    const fn format(self) -> (f64, usize, &'static str) {
        match self {
            Self::Seconds => (1.0, 2, " s"),
            Self::Milliseconds => (1e3, 2, " ms"),
            Self::Rate => (1.0, 0, "/s"),
            Self::Throughput => (1.0, 2, " GB/s"),
            Self::Cost => (1.0, 2, " s/GiB"),
            Self::Mebibytes => (1.0 / (1 << 20) as f64, 1, " MiB"),
        }
    }

    /// Returns what a ratio is of.
    const fn noun(self) -> &'static str {
        match self {
            Self::Seconds | Self::Milliseconds => "its time",
            Self::Rate => "its rate",
            Self::Throughput => "its throughput",
            Self::Cost => "its cost",
            Self::Mebibytes => "its size",
        }
    }

    fn show(self, value: f64) -> String {
        let (scale, decimals, name) = self.format();
        format!("{:.decimals$}{name}", value * scale)
    }
}

// === impl Table ===

impl Table {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what was measured of us, and of `peer`.
    pub(crate) fn beside(&mut self, unit: Unit, what: &str, peer: &str, series: &[Series; 2]) {
        let [ours, theirs] = series.each_ref().map(Series::median);
        self.row(unit, what, (ours, theirs), (peer, unit.noun()));
    }

    /// Adds what was measured, and its bound.
    pub(crate) fn bounded(&mut self, unit: Unit, what: &str, ours: f64, bound: f64) {
        self.row(unit, what, (ours, bound), ("bound", "the bound"));
    }

    /// Adds a size in bytes and its bound.
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    pub(crate) fn bytes(&mut self, what: &str, bytes: u64, bound: u64) {
        self.bounded(Unit::Mebibytes, what, bytes as f64, bound as f64);
    }

    fn row(
        &mut self,
        unit: Unit,
        what: &str,
        (ours, theirs): (f64, f64),
        (peer, of): (&str, &str),
    ) {
        self.0.push(format!(
            "| {what} | {} | {peer}: {} | {:.2} x {of} |",
            unit.show(ours),
            unit.show(theirs),
            ours / theirs
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
