//! What a million entries cost: memory, and the time until an edge is ready.
//!
//! Memory is the growth of what is resident, the memory of blobs that left included. Ready is an opened cache: the index is
//! read, and each blob can be asked for. The index has a million entries; of their files the first hundred thousand are
//! there, so that the comparison with the directory, which goes on after, has something to do and to forget.

use std::fs;
use std::path::Path;
use std::time::Duration;

use outport_core::oci::digest::{Algorithm, Digest};
use outport_core::telemetry;
use outport_edge::cache::index::{Change, Ending, Index};
use outport_edge::cache::table::{Home, Table};
use outport_edge::cache::{Cache, CacheConfig};
use outport_edge::metrics::Metrics;
use outport_edge::names::{Names, NamesConfig};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::time::Instant;

const ENTRIES: u64 = 1_000_000;
const FILES: u64 = 100_000;

/// The bounds that are promised.
const BYTES_PER_ENTRY: u64 = 300;
const READY_IN: Duration = Duration::from_secs(2);

/// Measures, and returns what came out as a table.
pub(crate) fn report() -> String {
    let directory = TempDir::new().unwrap();
    let index_path = directory.path().join("index");
    let (index, _) = Index::open(&index_path, ENTRIES).unwrap();
    let before = resident_bytes();
    let table = Mutex::new(full_table());
    let per_entry = (resident_bytes() - before) / ENTRIES;
    let began = Instant::now();
    index.snapshot(&table, Ending::Clean);
    let written_in = began.elapsed();
    drop((table, index));
    let bytes = fs::metadata(index_path.join("1.snapshot")).unwrap().len();
    // The directories are made by the first to open it.
    open(directory.path());
    put_files(directory.path());
    let unclean = open(directory.path());
    let killed = Index::open(&index_path, ENTRIES).unwrap().0;
    put_journal(&killed);
    drop(killed);
    let with_journal = open(directory.path());
    fs::remove_dir_all(&index_path).unwrap();
    let walked = open(directory.path());
    format!(
        "\n### {ENTRIES} entries\n\n| what | measured | bound |\n|---|---|---|\n\
         | memory for each entry, two that left included | {per_entry} B | {BYTES_PER_ENTRY} B |\n\
         | ready after the start | {unclean:.2?} | {READY_IN:?} |\n\
         | ready with a journal of {FILES} changes | {with_journal:.2?} | {READY_IN:?} |\n\
         | ready without an index, by walking {FILES} files | {walked:.2?} | {READY_IN:?} |\n\
         | a snapshot, written while the table is in use | {written_in:.2?}, {} MB | |\n",
        bytes / 1_000_000
    )
}

/// Returns a table that is full and has forgotten as many as it remembers.
fn full_table() -> Table {
    let mut table = Table::new(ENTRIES);
    for number in (0..4 * ENTRIES).rev() {
        table.admit(digest(number), 1, Home::Here);
    }
    assert_eq!(table.len() as u64, ENTRIES);
    table
}

fn put_files(cache: &Path) {
    for number in 0..FILES {
        let hex = digest(number).hex();
        fs::write(cache.join(format!("blobs/sha256/{}/{hex}", &hex[..2])), "x").unwrap();
    }
}

fn put_journal(index: &Index) {
    for number in 0..FILES {
        let change = Change::Admitted {
            digest: digest(5 * ENTRIES + number),
            size: 1,
            home: Home::Here,
        };
        index.note(change);
    }
    index.flush();
}

/// Opens a cache as an edge does, and returns how long that took.
fn open(path: &Path) -> Duration {
    let metrics = Metrics::default();
    telemetry::Metrics::new().register(|registry| metrics.register(registry));
    let names = NamesConfig {
        entries_in_memory: 1_000,
        rows_max: 1_000,
        page_cache_bytes: 1 << 20,
    };
    let config = CacheConfig {
        capacity_bytes: 2 * ENTRIES,
        memory_bytes: 1 << 20,
        open_files: 128,
        disk_rest: Duration::from_secs(1),
        scrub_bytes_per_second: 0,
        checks_per_second: 10_000,
    };
    let began = Instant::now();
    let (names, _writer) = Names::open(&path.join("names.redb"), names).unwrap();
    let cache = Cache::open(path, config, names, metrics.cache).unwrap();
    let took = began.elapsed();
    drop(cache);
    took
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

fn digest(number: u64) -> Digest {
    Algorithm::Sha256.digest(&number.to_le_bytes())
}
