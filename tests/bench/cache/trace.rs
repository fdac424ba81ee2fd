//! Requests as an edge sees them, made after what was published of production registries.
//!
//! What is taken from where:
//! - Anwar et al., "Improving Docker Registry Design based on Production Workload Analysis", FAST 2018 (75 days of five IBM
//!   data centres): 65% of the layers that are asked for are smaller than 1 MB and 80% smaller than 10 MB; 1% of the
//!   layers get 42% of the requests in one data centre and 59% in another; 90 to 95% of the requests are pulls; clients
//!   hold layers, so that most of the pulls of a known image ask for little more than its manifest.
//! - Zhao et al., "Large-Scale Analysis of the Docker Hub Dataset", CLUSTER 2019, and TPDS 2021: 90% of the layers are
//!   smaller than 63 MB compressed, the largest have gigabytes; half of the images have no more than 8 layers and 90% no
//!   more than 18; 90% of the layers are in one image only, which leaves those of popular bases.
//! - What has no published figure is chosen, and said so at its constant.
//!
//! These were fixed before any policy was run on them.

use super::random::{Random, Zipf};

/// Requests, and the things that they are for.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// The sizes of the things, by their numbers.
    pub(crate) sizes: Vec<u64>,
    /// The numbers of what is asked for.
    pub(crate) requests: Vec<u32>,
    /// How often each is asked for from beginning to end, on average, where that never changes.
    pub(crate) rates: Option<Vec<f64>>,
}

/// Makes things, and lists of requests for them.
struct Maker {
    random: Random,
    sizes: Vec<u64>,
    bases: Vec<Vec<u32>>,
    base_chances: Zipf,
}

/// An image: what a pull of it asks for.
#[derive(Clone, Debug)]
struct Image {
    manifest: u32,
    /// The layers of its base, which many clients hold.
    base: Vec<u32>,
    own: Vec<u32>,
}

/// The sizes of layers in bytes below which such a share of them is (FAST 2018 up to 10 MB, CLUSTER 2019 above).
const SIZES: [(f64, f64); 8] = [
    (0.0, 100.0),
    (0.30, 1e3),
    (0.50, 1e5),
    (0.65, 1e6),
    (0.80, 1e7),
    (0.90, 6.3e7),
    (0.99, 5e8),
    (1.0, 4e9),
];

/// Layers of an image: the median, and the spread that puts 90% of the images at 18 or fewer (CLUSTER 2019).
const LAYERS_MEDIAN: f64 = 8.0;
const LAYERS_SIGMA: f64 = 0.633;

/// How many bases there are, how many layers each has, and how unequally they are used; chosen so that 90% of all layers are
/// in one image (CLUSTER 2019).
const BASES: usize = 60;
const BASE_LAYERS: usize = 3;
const BASE_SKEW: f64 = 1.0;

/// How often a client has to ask for the layers of a base: chosen, after "clients hold layers" (FAST 2018).
const BASE_ASKED: f64 = 0.3;

/// The skew of images that puts about half of the requests on 1% of the layers (FAST 2018: 42% and 59%).
const IMAGE_SKEW: f64 = 0.9;

/// Bytes of a manifest, about.
const MANIFEST_BYTES: f64 = 3e3;

/// Images, and pulls of them, in a trace in which nothing changes: chosen so that a third of the images is pulled at most once.
const IMAGES: usize = 8_000;
const PULLS: usize = 60_000;

/// Repositories of a trace with new versions, and pulls; chosen.
const REPOSITORIES: usize = 1_200;
const VERSION_PULLS: f64 = 90_000.0;

/// Days of a trace with new versions (FAST 2018: 75).
const DAYS: f64 = 75.0;

/// Days between versions of a repository: chosen, popular ones move faster.
const VERSION_DAYS: std::ops::Range<f64> = 1.0..40.0;

/// How many pulls of a version come from clients that hold the one before, and ask soon after the push: chosen.
const UPDATES: f64 = 0.5;
/// How soon, in days.
const UPDATE_DELAY_DAYS: f64 = 0.25;

/// How many requests of a trace with scans are for what is asked for once, and how many of those come in a row: chosen.
const SCANNED: f64 = 0.25;
const SCAN_LENGTH: usize = 4_000;

/// Returns every kind of trace.
pub(crate) fn all(seed: u64) -> Vec<Trace> {
    vec![
        stationary(seed),
        versions(seed + 1),
        with_scans(stationary(seed + 2), seed, "stationary+scans"),
        with_scans(versions(seed + 3), seed, "versions+scans"),
        bursts(seed + 4),
    ]
}

/// Images of fixed popularity.
fn stationary(seed: u64) -> Trace {
    let mut maker = Maker::new(seed);
    let images: Vec<_> = (0..IMAGES).map(|_| maker.image()).collect();
    let chances = Zipf::new(IMAGES, IMAGE_SKEW);
    let mut requests = Vec::new();
    for _ in 0..PULLS {
        let image = &images[chances.sample(&mut maker.random)];
        image.pull(&mut maker.random, &mut requests);
    }
    let mut rates = vec![0.0; maker.sizes.len()];
    for (rank, image) in images.iter().enumerate() {
        let chance = chances.chance(rank);
        rates[image.manifest as usize] += chance;
        for layer in &image.own {
            rates[*layer as usize] += chance;
        }
        for layer in &image.base {
            rates[*layer as usize] += chance * BASE_ASKED;
        }
    }
    Trace {
        name: "stationary",
        about: "images of fixed popularity",
        sizes: maker.sizes,
        requests,
        rates: Some(rates),
    }
}

/// Repositories whose new versions are pulled much just after their push, and then less.
fn versions(seed: u64) -> Trace {
    let mut maker = Maker::new(seed);
    let chances = Zipf::new(REPOSITORIES, IMAGE_SKEW);
    let mut pulls: Vec<(f64, Vec<u32>)> = Vec::new();
    for rank in 0..REPOSITORIES {
        let per_day = chances.chance(rank) * VERSION_PULLS / DAYS;
        let median_days = (VERSION_DAYS.end / (1.0 + 20.0 * per_day)).max(VERSION_DAYS.start);
        let mean_days = maker.random.lognormal(median_days, 0.7);
        let mut image = maker.image();
        let mut held: Vec<u32> = Vec::new();
        let mut pushed = -maker.random.exponential(mean_days);
        while pushed < DAYS {
            let until = pushed + maker.random.exponential(mean_days);
            let asking = Asking {
                image: &image,
                held: &held,
                pushed,
                until,
            };
            asking.pulls(&mut maker.random, per_day, &mut pulls);
            held.clone_from(&image.own);
            image = maker.next_version(&image);
            pushed = until;
        }
    }
    let about = "new versions, pulled much just after their push";
    Trace::in_order(("versions", about), maker.sizes, pulls)
}

/// Fleets that pull what was just pushed all at once.
fn bursts(seed: u64) -> Trace {
    let mut maker = Maker::new(seed);
    let chances = Zipf::new(REPOSITORIES, IMAGE_SKEW);
    let mut pulls: Vec<(f64, Vec<u32>)> = Vec::new();
    for rank in 0..REPOSITORIES {
        let fleet = (chances.chance(rank) * VERSION_PULLS / 10.0).ceil();
        let mut image = maker.image();
        for _ in 0..10 {
            let began = maker.random.unit() * DAYS;
            let mut sent = 0.0;
            while sent < fleet {
                // An hour, whatever the size of the fleet.
                let at = began + maker.random.unit() / 24.0;
                let mut asked = Vec::new();
                image.pull(&mut maker.random, &mut asked);
                pulls.push((at, asked));
                sent += 1.0;
            }
            image = maker.next_version(&image);
        }
    }
    let about = "fleets that pull what was just pushed within an hour";
    Trace::in_order(("bursts", about), maker.sizes, pulls)
}

/// Puts runs of requests between those of a trace, for things that are asked for once.
fn with_scans(trace: Trace, seed: u64, name: &'static str) -> Trace {
    let mut maker = Maker::new(seed);
    let Trace {
        mut sizes,
        requests: calm,
        rates,
        ..
    } = trace;
    let mut requests = Vec::new();
    let period = |share: f64| usize_of(usize_to_f64(SCAN_LENGTH) * (1.0 - share) / share);
    for calm in calm.chunks(period(SCANNED)) {
        requests.extend_from_slice(calm);
        for _ in 0..SCAN_LENGTH {
            requests.push(u32_of(sizes.len()));
            sizes.push(layer_size(&mut maker.random));
        }
    }
    let rates = rates.map(|mut rates| {
        rates.resize(sizes.len(), 0.0);
        rates
    });
    Trace {
        name,
        about: "a quarter of the requests in runs for what nobody asks for again",
        sizes,
        requests,
        rates,
    }
}

/// A version of an image while it is the current one.
struct Asking<'a> {
    image: &'a Image,
    /// The layers of the version before.
    held: &'a [u32],
    pushed: f64,
    until: f64,
}

impl Asking<'_> {
    fn pulls(&self, random: &mut Random, per_day: f64, pulls: &mut Vec<(f64, Vec<u32>)>) {
        let mut at = self.pushed;
        loop {
            at += random.exponential(1.0 / per_day);
            if at >= self.until {
                return;
            }
            let is_update = random.unit() < UPDATES;
            let when = if is_update {
                self.pushed + random.exponential(UPDATE_DELAY_DAYS)
            } else {
                at
            };
            let mut asked = Vec::new();
            self.image.pull(random, &mut asked);
            if is_update {
                asked.retain(|layer| !self.held.contains(layer));
            }
            pulls.push((when, asked));
        }
    }
}

// === impl Maker ===

impl Maker {
    fn new(seed: u64) -> Self {
        let mut maker = Self {
            random: Random::new(seed),
            sizes: Vec::new(),
            bases: Vec::new(),
            base_chances: Zipf::new(BASES, BASE_SKEW),
        };
        for _ in 0..BASES {
            let base = (0..BASE_LAYERS).map(|_| maker.layer()).collect();
            maker.bases.push(base);
        }
        maker
    }

    fn thing(&mut self, size: f64) -> u32 {
        self.sizes.push(u64_of(size));
        u32_of(self.sizes.len() - 1)
    }

    fn layer(&mut self) -> u32 {
        let size = layer_size(&mut self.random);
        self.sizes.push(size);
        u32_of(self.sizes.len() - 1)
    }

    fn manifest(&mut self) -> u32 {
        let size = self.random.lognormal(MANIFEST_BYTES, 0.5);
        self.thing(size)
    }

    fn image(&mut self) -> Image {
        let count = usize_of(self.random.lognormal(LAYERS_MEDIAN, LAYERS_SIGMA)).clamp(1, 120);
        let base = self.base_chances.sample(&mut self.random);
        let base = self.bases[base][..BASE_LAYERS.min(count - 1)].to_vec();
        Image {
            manifest: self.manifest(),
            own: (base.len()..count).map(|_| self.layer()).collect(),
            base,
        }
    }

    /// Returns the image with its upper layers built anew.
    fn next_version(&mut self, image: &Image) -> Image {
        let mut next = image.clone();
        next.manifest = self.manifest();
        let from = self.random.below(next.own.len());
        for at in from..next.own.len() {
            next.own[at] = self.layer();
        }
        next
    }
}

/// Returns a size whose logarithm lies between those of [`SIZES`].
fn layer_size(random: &mut Random) -> u64 {
    let share = random.unit();
    let at = SIZES.partition_point(|(below, _)| *below <= share).min(7);
    let ((low_share, low), (high_share, high)) = (SIZES[at - 1], SIZES[at]);
    let part = (share - low_share) / (high_share - low_share);
    u64_of(low * (high / low).powf(part))
}

// === impl Image ===

impl Image {
    fn pull(&self, random: &mut Random, requests: &mut Vec<u32>) {
        requests.push(self.manifest);
        if random.unit() < BASE_ASKED {
            requests.extend_from_slice(&self.base);
        }
        requests.extend_from_slice(&self.own);
    }
}

// === impl Trace ===

impl Trace {
    fn in_order(
        (name, about): (&'static str, &'static str),
        sizes: Vec<u64>,
        mut pulls: Vec<(f64, Vec<u32>)>,
    ) -> Self {
        pulls.retain(|(at, _)| (0.0..DAYS).contains(at));
        pulls.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        Self {
            name,
            about,
            sizes,
            requests: pulls.into_iter().flat_map(|(_, asked)| asked).collect(),
            rates: None,
        }
    }

    pub(crate) fn size(&self, thing: u32) -> u64 {
        self.sizes[thing as usize]
    }

    /// Returns how many different things are asked for, and their bytes.
    pub(crate) fn working_set(&self) -> (usize, u64) {
        let mut seen = vec![false; self.sizes.len()];
        for thing in &self.requests {
            seen[*thing as usize] = true;
        }
        let sizes = self.sizes.iter().zip(&seen);
        let asked = sizes.filter(|(_, seen)| **seen).map(|(size, _)| *size);
        (asked.clone().count(), asked.sum())
    }

    /// Returns the share of the requests that the most popular hundredth of the things gets.
    pub(crate) fn share_of_top_hundredth(&self) -> f64 {
        let mut counts = vec![0_usize; self.sizes.len()];
        for thing in &self.requests {
            counts[*thing as usize] += 1;
        }
        counts.retain(|count| *count > 0);
        counts.sort_unstable_by(|one, other| other.cmp(one));
        let top: usize = counts[..counts.len().div_ceil(100)].iter().sum();
        usize_to_f64(top) / usize_to_f64(self.requests.len())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes are positive and below 2^53"
)]
const fn u64_of(number: f64) -> u64 {
    number as u64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are positive and small"
)]
const fn usize_of(number: f64) -> usize {
    number as usize
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
pub(crate) const fn usize_to_f64(number: usize) -> f64 {
    number as f64
}

fn u32_of(number: usize) -> u32 {
    u32::try_from(number).unwrap()
}
