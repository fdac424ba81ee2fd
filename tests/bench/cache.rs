//! The edge's cache table on traces, beside other policies and beside what a cache could do that knew the future.
//!
//! A cache of a tenth of the working set (the bytes of all different things that a trace asks for) starts empty. What counts
//! is the byte hit ratio: the share of the bytes that did not have to cross the region's border. What it cannot reach has
//! three parts: things that are asked for for the first time, which no cache has; what only the future tells (where
//! popularity never changes, even a cache that knows it exactly stays below the bound by that); and what the policy lacks.

mod bound;
mod policy;
mod random;
mod ready;
mod trace;

use std::fmt::Write as _;

use bound::Hits;
use policy::{Moka, Policy, Ranked, S3Fifo, Tabled};
use trace::Trace;

/// The figures that the table is held to, in points of the byte hit ratio.
const ABOVE_LRU: f64 = 5.0;
const BELOW_BOUND: f64 = 5.0;

/// The seed of all traces.
const SEED: u64 = 1;

/// Replays everything, measures the rest, and returns what came out as a table.
pub(crate) async fn report() -> String {
    let mut text = String::new();
    for trace in trace::all(SEED) {
        replay_all(&trace, &mut text);
    }
    text.push_str(&ready::report().await);
    text
}

fn replay_all(trace: &Trace, text: &mut String) {
    let (things, working_set) = trace.working_set();
    let capacity = working_set / 10;
    let asked: u64 = trace.requests.iter().map(|thing| trace.size(*thing)).sum();
    let total = Hits {
        objects: trace.requests.len() as u64,
        bytes: asked,
    };
    writeln!(
        text,
        "\n### {}: {}\n\n{} requests for {things} things of {} GB; 1% of the things get {:.0}% of the requests; {:.1}% of the \
         bytes are not asked for the first time.\n\n| policy | byte hit ratio | object hit ratio |\n|---|---|---|",
        trace.name,
        trace.about,
        trace.requests.len(),
        working_set / 1_000_000_000,
        100.0 * trace.share_of_top_hundredth(),
        100.0 - percent(working_set, asked),
    )
    .unwrap();
    let mut row = |name: &str, hits: Hits| {
        let bytes = percent(hits.bytes, total.bytes);
        let objects = percent(hits.objects, total.objects);
        writeln!(text, "| {name} | {bytes:.1}% | {objects:.1}% |").unwrap();
        bytes
    };
    let bound = row(
        "no cache hits more (PFOO-L)",
        bound::upper_bounds(trace, capacity),
    );
    row("knows the future (Belady)", bound::belady(trace, capacity));
    if let Some(rates) = &trace.rates {
        let known = Ranked::by_rates(capacity, rates.clone());
        row("knows the popularity (LFU)", replay(trace, known));
    }
    let ours = row(
        "**the edge's table**",
        replay(trace, Tabled::new(capacity, trace)),
    );
    let lru = row("LRU", replay(trace, Ranked::by_last_use(capacity)));
    row("W-TinyLFU (moka)", replay(trace, Moka::new(capacity)));
    row("S3-FIFO", replay(trace, S3Fifo::new(capacity)));
    row(
        "GDSF",
        replay(trace, Ranked::by_frequency_and_size(capacity)),
    );
    writeln!(
        text,
        "\nThe table: {:+.1} points over LRU (goal {ABOVE_LRU:+.1}: {}), {:.1} below the bound (goal {BELOW_BOUND:.1}: {}); LRU itself is \
         {:.1} below the bound.",
        ours - lru,
        reached(ours - lru >= ABOVE_LRU),
        bound - ours,
        reached(bound - ours <= BELOW_BOUND),
        bound - lru,
    )
    .unwrap();
}

fn replay(trace: &Trace, mut policy: impl Policy) -> Hits {
    let mut hits = Hits::default();
    for thing in &trace.requests {
        let size = trace.size(*thing);
        if policy.request(*thing, size) {
            hits.objects += 1;
            hits.bytes += size;
        }
    }
    hits
}

const fn reached(is_so: bool) -> &'static str {
    if is_so { "reached" } else { "missed" }
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
const fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}
