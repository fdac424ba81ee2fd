use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use outport_core::oci::digest::{Algorithm, Digest};
use tempfile::TempDir;

use super::*;
use crate::cache::table::{Admission, Home};

const CAPACITY: u64 = 1_000;

/// An index, and the table that it is of.
struct Rig {
    root: TempDir,
    index: Index,
    table: Mutex<Table>,
    standing: Standing,
}

impl Rig {
    fn new() -> Self {
        Self::open(TempDir::new().unwrap())
    }

    fn open(root: TempDir) -> Self {
        let (index, Loaded { table, standing }) = Index::open(root.path(), CAPACITY).unwrap();
        Self {
            root,
            index,
            table: Mutex::new(table),
            standing,
        }
    }

    /// Ends as a process that is killed does.
    fn kill(self) -> Self {
        Self::open(self.root)
    }

    /// Ends well.
    fn close(self) -> Self {
        self.index.snapshot(&self.table, Ending::Clean);
        Self::open(self.root)
    }

    fn admit(&self, number: u32, size: u64) {
        let mut table = self.table.lock();
        let (digest, home) = (digest(number), home(number));
        let Admission::Admitted { evicted } = table.admit(digest, size, home) else {
            return;
        };
        self.index.note(Change::Admitted { digest, size, home });
        for digest in evicted {
            self.index.note(Change::Removed(digest));
        }
        drop(table);
        self.index.flush();
    }

    /// Uses a blob as a pull does.
    fn pull(&self, number: u32, size: u64) {
        let is_here = self.table.lock().touch(&digest(number)).is_some();
        if !is_here {
            self.admit(number, size);
        }
    }

    fn pin(&self, image: &str, numbers: Range<u32>) {
        let digests: BTreeSet<_> = numbers.map(digest).collect();
        let image = image.to_owned();
        let pinning = self.table.lock().pin(image.clone(), digests.clone());
        pinning.unwrap();
        self.index.note(Change::Pinned { image, digests });
        self.index.flush();
    }

    fn unpin(&self, image: &str) {
        self.table.lock().unpin(image).unwrap();
        self.index.note(Change::Unpinned(image.to_owned()));
        self.index.flush();
    }

    fn sizes(&self) -> HashMap<Digest, u64> {
        let table = self.table.lock();
        let sizes = table
            .entries()
            .iter()
            .map(|entry| (entry.digest, entry.size));
        sizes.collect()
    }

    fn files(&self) -> (usize, usize) {
        let files = Files::list(self.root.path()).unwrap();
        (files.snapshots.len(), files.journals.len())
    }
}

fn digest(number: u32) -> Digest {
    Algorithm::Sha256.digest(&number.to_be_bytes())
}

fn home(number: u32) -> Home {
    if number.is_multiple_of(2) {
        Home::Here
    } else {
        Home::Sibling
    }
}

/// Has a table that remembers something of everything.
fn busy() -> Rig {
    let rig = Rig::new();
    assert_eq!(rig.standing, Standing::Lacking);
    for round in 0..20 {
        for number in 0..60 {
            rig.pull(number, u64::from(number));
            rig.pull(1_000 + 100 * round + number, 3);
        }
    }
    rig.pin("a:1", 7..9);
    rig
}

#[test]
fn a_good_end_keeps_everything() {
    let rig = busy();
    let before: Vec<Entry> = rig.table.lock().entries().to_vec();
    let ghosts = |rig: &Rig| {
        let table = rig.table.lock();
        let ghosts = (0..table.ghost_count()).filter_map(|index| table.ghost(index));
        ghosts.collect::<Vec<_>>()
    };
    let left = ghosts(&rig);
    let learnt = rig.table.lock().learnt();
    let clock = rig.table.lock().clock();
    let rig = rig.close();
    assert_eq!(rig.standing, Standing::Clean);
    assert!(!left.is_empty() && learnt.iter().any(|count| *count > 0.0));
    assert_eq!(ghosts(&rig), left);
    assert_eq!(rig.table.lock().learnt(), learnt);
    assert_eq!(rig.table.lock().clock(), clock);
    let table = rig.table.lock();
    assert!(table.pins().contains(&digest(7)));
    assert_eq!(table.len(), before.len());
    for entry in before {
        let is_found = false;
        assert_eq!(
            table.entry(&entry.digest),
            Some(&Entry { is_found, ..entry })
        );
    }
}

#[test]
fn a_bad_end_keeps_what_is_here_and_trusts_nothing() {
    let rig = busy().close();
    rig.pull(5_000, 30);
    rig.table.lock().remove(&digest(1));
    rig.index.note(Change::Removed(digest(1)));
    rig.index.flush();
    let before = rig.sizes();
    let mut rig = rig.kill();
    for _ in 0..3 {
        assert_eq!(rig.standing, Standing::Unclean);
        assert_eq!(rig.sizes(), before);
        let is_distrusted = |entry: &Entry| entry.trust == Trust::Unverified;
        assert!(rig.table.lock().entries().iter().all(is_distrusted));
        assert!(rig.table.lock().pins().contains(&digest(7)));
        rig = rig.kill();
    }
    // What was hashed once is trusted from a good end on, and only that.
    rig.table.lock().mark_verified(&digest(5_000));
    let rig = rig.close();
    assert_eq!(rig.standing, Standing::Clean);
    let trusted = rig
        .table
        .lock()
        .entries()
        .iter()
        .filter(|entry| entry.trust == Trust::Verified)
        .count();
    assert_eq!(trusted, 1);
}

/// However the process ends, and whatever of it is in a snapshot and what in a journal.
#[test]
fn what_images_pin_outlives_the_process() {
    let mut rig = busy();
    rig.pin("b:1", 7..8);
    rig.pin("b:1", 8..20);
    rig.pin("c:1", 0..1);
    rig.unpin("c:1");
    let pinned = rig.table.lock().pins().images().clone();
    assert_eq!(pinned.len(), 2);
    for _ in 0..2 {
        rig.index.snapshot(&rig.table, Ending::Unclean);
        rig.pin("d:1", 30..33);
        rig = rig.kill();
        rig.unpin("d:1");
        rig = rig.kill();
        assert_eq!(*rig.table.lock().pins().images(), pinned);
        rig = rig.close();
        assert_eq!(*rig.table.lock().pins().images(), pinned);
    }
}

/// What was pinned before images were remembered is that of images that are called by the digest.
#[test]
fn a_snapshot_of_before_is_read() {
    let rig = busy().close();
    rig.unpin("a:1");
    rig.index.snapshot(&rig.table, Ending::Clean);
    let path = snapshot_path(
        rig.root.path(),
        Files::list(rig.root.path()).unwrap().snapshots[0],
    );
    let mut content = fs::read(&path).unwrap();
    content.truncate(content.len() - 33);
    for number in [7, 8] {
        content.push(3);
        record::write_digest(&digest(number), &mut content);
    }
    content.push(0);
    let sum = Algorithm::Sha256.digest(&content);
    content.extend_from_slice(sum.output());
    fs::write(&path, content).unwrap();
    let rig = rig.kill();
    assert_eq!(rig.standing, Standing::Clean);
    let images: HashSet<_> = rig.table.lock().pins().images().keys().cloned().collect();
    let named = [7, 8].map(|number| digest(number).to_string());
    assert_eq!(images, HashSet::from(named));
    rig.unpin(&digest(7).to_string());
    assert!(!rig.kill().table.lock().pins().contains(&digest(7)));
}

#[test]
fn what_changes_while_a_snapshot_is_written_is_not_lost() {
    let rig = busy();
    for round in 0..50 {
        std::thread::scope(|scope| {
            scope.spawn(|| rig.index.snapshot(&rig.table, Ending::Unclean));
            for number in 0..30 {
                rig.pull(10_000 + 30 * round + number, 20);
            }
        });
    }
    let before = rig.sizes();
    let rig = rig.kill();
    assert_eq!(rig.standing, Standing::Unclean);
    assert_eq!(rig.sizes(), before);
}

#[test]
fn a_snapshot_takes_the_place_of_what_was_before() {
    let rig = busy();
    rig.index.snapshot(&rig.table, Ending::Unclean);
    assert_eq!(rig.files(), (1, 0));
    rig.pull(9_000, 1);
    let rig = rig.kill();
    assert_eq!(rig.files(), (1, 2));
    for number in 0..200_000 {
        rig.pull(20_000 + number, 500);
        if rig.index.is_due(2) {
            rig.index.snapshot(&rig.table, Ending::Unclean);
            assert_eq!(rig.files(), (1, 0));
            return;
        }
    }
    panic!("a snapshot was never due");
}

#[test]
fn a_change_after_a_good_end_makes_it_a_bad_one() {
    let rig = busy();
    rig.index.snapshot(&rig.table, Ending::Clean);
    rig.pull(9_000, 1);
    let rig = rig.kill();
    assert_eq!(rig.standing, Standing::Unclean);
    assert_eq!(rig.sizes().get(&digest(9_000)), Some(&1));
}

/// Whatever happens to the files: no panic, and nothing that was not there.
#[test]
fn damage_is_found() {
    let rig = busy().close();
    rig.pull(5_000, 30);
    let known: HashSet<_> = (0..6_000).map(digest).collect();
    let directory = rig.root.path();
    let names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(names.len(), 2);
    for path in names {
        let whole = fs::read(&path).unwrap();
        let is_snapshot = path.extension().is_some_and(|kind| kind == "snapshot");
        let step = whole.len() / 40 + 1;
        for at in (0..whole.len()).step_by(step) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            for damaged in [&whole[..at], &flipped] {
                fs::write(&path, damaged).unwrap();
                let files = Files::list(directory).unwrap();
                let Loaded { table, standing } = load(directory, &files, CAPACITY);
                // A journal may end early without anybody's noticing, between two records.
                assert!(standing == Standing::Lacking || !is_snapshot, "{at}");
                for entry in table.entries() {
                    assert!(known.contains(&entry.digest), "{at}");
                    assert_eq!(entry.trust, Trust::Unverified);
                }
            }
        }
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn another_version_s_index_is_none() {
    let rig = busy().close();
    let path = snapshot_path(
        rig.root.path(),
        Files::list(rig.root.path()).unwrap().snapshots[0],
    );
    let mut content = fs::read(&path).unwrap();
    content.truncate(content.len() - 32);
    content[14] = b'2';
    let sum = Algorithm::Sha256.digest(&content);
    content.extend_from_slice(sum.output());
    fs::write(&path, content).unwrap();
    let rig = rig.kill();
    assert_eq!(rig.standing, Standing::Lacking);
    assert_eq!(rig.sizes().len(), 0);
}

#[test]
fn an_index_that_cannot_be_written_is_relied_on_for_pins_only() {
    let mut rig = busy().close();
    for round in 0..2 {
        rig.index.snapshot(&rig.table, Ending::Unclean);
        let unwritable = || {
            let next = rig.index.journal.lock().generation;
            journal_path(rig.root.path(), next)
        };
        // A directory is where the next journal should be.
        let in_the_way = unwritable();
        fs::create_dir(&in_the_way).unwrap();
        assert!(!rig.index.is_due(1_000));
        rig.unpin("a:1");
        fs::remove_dir(in_the_way).unwrap();
        assert!(rig.index.is_due(1_000));
        let in_the_way = unwritable();
        fs::create_dir(&in_the_way).unwrap();
        rig.pin("a:1", 3..5);
        fs::remove_dir(in_the_way).unwrap();
        // With this, what could not be written is.
        rig.pull(9_000 + round, 1);
        rig = rig.kill();
        assert_eq!(rig.standing, Standing::Lacking);
        let pinned = HashMap::from([("a:1".to_owned(), (3..5).map(digest).collect())]);
        let images = rig.table.lock().pins().images().clone();
        assert_eq!(images.into_iter().collect::<HashMap<_, _>>(), pinned);
    }
    rig.index.snapshot(&rig.table, Ending::Unclean);
    let rig = rig.kill();
    assert_eq!(rig.standing, Standing::Unclean);
    let rig = rig.close();
    assert_eq!(rig.standing, Standing::Clean);
    assert_eq!(fs::read_dir(rig.root.path()).unwrap().count(), 2);
}
