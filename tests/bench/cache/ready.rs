//! What a million entries cost: memory, and the time until an edge is ready.
//!
//! Memory is the growth of what is resident, the memory of blobs that left included. Ready is what a started edge says of
//! itself: the index is read, and each blob can be asked for. The index has a million entries; of their files the first hundred thousand are
//! there, so that the comparison with the directory, which goes on after, has something to do and to forget.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::process::Process;
use outport_core::oci::digest::{Algorithm, Digest};
use outport_edge::cache::index::{Change, Ending, Index};
use outport_edge::cache::table::{Home, Table};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::time::Instant;

const ENTRIES: u64 = 1_000_000;
const FILES: u64 = 100_000;

/// The bounds that are promised.
const BYTES_PER_ENTRY: u64 = 300;
const READY_IN: Duration = Duration::from_secs(2);

/// Measures, and returns what came out as a table.
pub(crate) async fn report() -> String {
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
    start(directory.path()).await;
    put_files(directory.path());
    let unclean = start(directory.path()).await;
    let killed = Index::open(&index_path, ENTRIES).unwrap().0;
    put_journal(&killed);
    drop(killed);
    let with_journal = start(directory.path()).await;
    fs::remove_dir_all(&index_path).unwrap();
    let walked = start(directory.path()).await;
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

/// Starts an edge over a directory, and returns how long it took until it was ready; then kills it.
async fn start(path: &Path) -> Duration {
    let mut args = vec!["--set".to_owned(), format!("cache.path={}", path.display())];
    for set in [
        "listen=127.0.0.1:0".to_owned(),
        "admin_listen=127.0.0.1:0".to_owned(),
        "cache.scrub=0B".to_owned(),
        format!("cache.capacity={}B", 2 * ENTRIES),
    ] {
        args.extend(["--set".to_owned(), set]);
    }
    let began = Instant::now();
    let mut edge = Process::start("edge", &args, path).await;
    let took = began.elapsed();
    edge.kill();
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
