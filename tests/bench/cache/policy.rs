//! The edge's table and other policies, each behind the same question: was it there? Then it is, unless it is too large.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use outport_core::oci::digest::{Algorithm, Digest};
use outport_edge::cache::table::{Home, Table};

use super::trace::Trace;

/// A cache that is asked for things.
pub(crate) trait Policy {
    /// Says whether a thing was there.
    fn request(&mut self, thing: u32, size: u64) -> bool;
}

/// The edge's table.
pub(crate) struct Tabled {
    table: Table,
    digests: Vec<Digest>,
}

/// Drops what ranks lowest; a rank stays as it is until the next use.
pub(crate) struct Ranked {
    capacity: u64,
    bytes: u64,
    kept: HashMap<u32, Kept>,
    order: BTreeSet<(u64, u32)>,
    now: f64,
    /// The rank of what was dropped last.
    dropped: f64,
    rank: Box<dyn Fn(&Use) -> f64>,
}

/// What a rank may go by.
struct Use {
    thing: u32,
    size: f64,
    now: f64,
    /// How often it was used since it came in.
    uses: f64,
    dropped: f64,
}

struct Kept {
    /// The bits of a positive number, which are in its order.
    rank: u64,
    uses: f64,
    size: u64,
}

/// Moka, which the edge uses for its memory.
pub(crate) struct Moka(moka::sync::Cache<u32, u32>);

/// S3-FIFO (Yang et al., SOSP 2023) with sizes: a tenth is the small queue, and the ghosts are as large as the cache.
pub(crate) struct S3Fifo {
    capacity: u64,
    small: Queue,
    main: Queue,
    ghosts: Queue,
    ghost_set: HashSet<u32>,
    kept: HashMap<u32, u8>,
}

#[derive(Default)]
struct Queue {
    things: VecDeque<(u32, u64)>,
    bytes: u64,
}

// === impl Tabled ===

impl Tabled {
    pub(crate) fn new(capacity: u64, trace: &Trace) -> Self {
        let digest = |number: usize| Algorithm::Sha256.digest(&number.to_le_bytes());
        Self {
            table: Table::new(capacity),
            digests: (0..trace.sizes.len()).map(digest).collect(),
        }
    }
}

impl Policy for Tabled {
    fn request(&mut self, thing: u32, size: u64) -> bool {
        let digest = self.digests[thing as usize];
        let hit = self.table.touch(&digest).is_some();
        if !hit {
            self.table.admit(digest, size, Home::Here);
        }
        hit
    }
}

// === impl Ranked ===

impl Ranked {
    pub(crate) fn by_last_use(capacity: u64) -> Self {
        Self::new(capacity, |asked| asked.now)
    }

    /// Ranks by a popularity that somebody knows.
    pub(crate) fn by_rates(capacity: u64, rates: Vec<f64>) -> Self {
        Self::new(capacity, move |asked| rates[asked.thing as usize])
    }

    /// GDSF (Cherkasova, 1998): frequency over size, and ageing.
    pub(crate) fn by_frequency_and_size(capacity: u64) -> Self {
        Self::new(capacity, |asked| asked.dropped + asked.uses / asked.size)
    }

    fn new(capacity: u64, rank: impl Fn(&Use) -> f64 + 'static) -> Self {
        Self {
            capacity,
            bytes: 0,
            kept: HashMap::new(),
            order: BTreeSet::new(),
            now: 0.0,
            dropped: 0.0,
            rank: Box::new(rank),
        }
    }

    fn drop_lowest(&mut self) {
        if let Some((rank, thing)) = self.order.pop_first() {
            self.bytes -= self.kept.remove(&thing).unwrap().size;
            self.dropped = f64::from_bits(rank);
        }
    }
}

impl Policy for Ranked {
    fn request(&mut self, thing: u32, size: u64) -> bool {
        let before = self.kept.remove(&thing);
        if let Some(Kept { rank, size, .. }) = &before {
            self.order.remove(&(*rank, thing));
            self.bytes -= size;
        }
        if size > self.capacity {
            return false;
        }
        while self.bytes > self.capacity - size {
            self.drop_lowest();
        }
        self.now += 1.0;
        let uses = before.as_ref().map_or(0.0, |before| before.uses) + 1.0;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let asked = Use {
            thing,
            size: size as f64,
            now: self.now,
            uses,
            dropped: self.dropped,
        };
        let rank = (self.rank)(&asked).to_bits();
        self.order.insert((rank, thing));
        self.kept.insert(thing, Kept { rank, uses, size });
        self.bytes += size;
        before.is_some()
    }
}

// === impl Moka ===

impl Moka {
    /// Moka weighs in 32 bits, so it is told whole KiB.
    pub(crate) fn new(capacity: u64) -> Self {
        let cache = moka::sync::Cache::builder()
            .max_capacity(capacity >> 10)
            .weigher(|_, kib: &u32| *kib)
            .build();
        Self(cache)
    }
}

impl Policy for Moka {
    fn request(&mut self, thing: u32, size: u64) -> bool {
        let hit = self.0.get(&thing).is_some();
        if !hit {
            let kib = u32::try_from(size.div_ceil(1 << 10)).unwrap_or(u32::MAX);
            self.0.insert(thing, kib);
        }
        self.0.run_pending_tasks();
        hit
    }
}

// === impl S3Fifo ===

impl S3Fifo {
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            small: Queue::default(),
            main: Queue::default(),
            ghosts: Queue::default(),
            ghost_set: HashSet::new(),
            kept: HashMap::new(),
        }
    }

    fn evict(&mut self) {
        if self.small.bytes > self.capacity / 10 || self.main.bytes == 0 {
            self.evict_small();
        } else {
            self.evict_main();
        }
    }

    fn evict_small(&mut self) {
        let Some((thing, size)) = self.small.pop() else {
            return;
        };
        if self.kept[&thing] > 0 {
            self.kept.insert(thing, 0);
            self.main.push(thing, size);
            return;
        }
        self.kept.remove(&thing);
        self.ghosts.push(thing, size);
        self.ghost_set.insert(thing);
        while self.ghosts.bytes > self.capacity {
            if let Some((oldest, _)) = self.ghosts.pop() {
                self.ghost_set.remove(&oldest);
            }
        }
    }

    fn evict_main(&mut self) {
        while let Some((thing, size)) = self.main.pop() {
            let uses = self.kept[&thing];
            if uses == 0 {
                self.kept.remove(&thing);
                return;
            }
            self.kept.insert(thing, uses - 1);
            self.main.push(thing, size);
        }
    }
}

impl Policy for S3Fifo {
    fn request(&mut self, thing: u32, size: u64) -> bool {
        if let Some(uses) = self.kept.get_mut(&thing) {
            *uses = (*uses + 1).min(3);
            return true;
        }
        if size > self.capacity {
            return false;
        }
        while self.small.bytes + self.main.bytes > self.capacity - size {
            self.evict();
        }
        let queue = if self.ghost_set.contains(&thing) {
            &mut self.main
        } else {
            &mut self.small
        };
        queue.push(thing, size);
        self.kept.insert(thing, 0);
        false
    }
}

// === impl Queue ===

impl Queue {
    fn push(&mut self, thing: u32, size: u64) {
        self.things.push_back((thing, size));
        self.bytes += size;
    }

    fn pop(&mut self) -> Option<(u32, u64)> {
        let (thing, size) = self.things.pop_front()?;
        self.bytes -= size;
        Some((thing, size))
    }
}
