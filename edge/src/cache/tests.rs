use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::SystemTime;

use outport_core::clock;
use outport_core::location::key::Lane;
use outport_core::oci::digest::Algorithm;
use outport_core::tasks::Tasks;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::names::NamesConfig;

const NAMES: NamesConfig = NamesConfig {
    entries_in_memory: 100,
    rows_max: 100,
    page_cache_bytes: 1 << 20,
};

/// Returns a cache in a directory.
pub(crate) fn open(root: &TempDir, capacity_bytes: u64) -> Cache {
    try_open(root, capacity_bytes).unwrap()
}

fn try_open(root: &TempDir, capacity_bytes: u64) -> Result<Cache, OpenError> {
    try_open_with(root, capacity_bytes, 0)
}

fn try_open_with(root: &TempDir, capacity_bytes: u64, open_files: u64) -> Result<Cache, OpenError> {
    // Of its own: nothing here asks it.
    let directory = TempDir::new().unwrap();
    let (names, _writer) = Names::open(&directory.path().join("names"), NAMES).unwrap();
    let config = CacheConfig {
        scrub_bytes_per_second: 0,
        capacity_bytes,
        memory_bytes: 0,
        open_files,
        disk_rest: Duration::ZERO,
        checks_per_second: u64::MAX,
    };
    let locked = Locked::take(root.path())?;
    Cache::open(locked, config, names, CacheMetrics::default())
}

/// Takes a blob for damaged that is here.
pub(crate) fn condemn(cache: &Cache, digest: &Digest) {
    let blob = cache.0.disk.open_blob(digest).unwrap().unwrap();
    cache.condemn_file(digest, &blob);
}

/// Loses the file of a blob.
pub(crate) fn lose(cache: &Cache, digest: &Digest) {
    cache.0.disk.remove_blob(digest).unwrap();
    cache.forget_missing(digest);
}

fn content(number: u8) -> Vec<u8> {
    vec![number; 100]
}

fn digest(number: u8) -> Digest {
    Algorithm::Sha256.digest(&content(number))
}

fn publish(cache: &Cache, number: u8) {
    let partial = cache.partial(&digest(number), Lane::default()).unwrap();
    partial.write_at(&content(number), 0).unwrap();
    cache.publish(&partial, 100, Home::Here).unwrap();
}

fn path(root: &TempDir, number: u8) -> PathBuf {
    let hex = digest(number).hex();
    root.path()
        .join(format!("blobs/sha256/{}/{hex}", &hex[..2]))
}

/// Whether the bytes of a blob must be hashed before they are used.
fn needs_verification(cache: &Cache, number: u8) -> bool {
    let table = cache.0.table.lock();
    let entry = table.entry(&digest(number));
    entry.is_some_and(|entry| entry.trust == Trust::Unverified)
}

async fn is_here(cache: &Cache, number: u8) -> bool {
    cache.blob(&digest(number)).await.is_some()
}

/// Compares all of the index with the directory.
async fn check(cache: &Cache, now: SystemTime) {
    let mut check = stock::Check::new(cache.clone(), now);
    let whole = spawn_blocking(move || {
        while check.next_folder().is_some() {}
        check.forget_missing();
    });
    whole.await.unwrap();
}

#[tokio::test]
async fn a_good_end_is_trusted_and_a_bad_one_is_not() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 10_000);
    (0..3).for_each(|number| publish(&cache, number));
    assert!(!needs_verification(&cache, 0));
    cache.close().await;

    let cache = open(&root, 10_000);
    assert!(!needs_verification(&cache, 0));
    assert!(is_here(&cache, 0).await);
    drop(cache);

    let cache = open(&root, 10_000);
    for number in 0..3 {
        assert!(needs_verification(&cache, number));
    }
    cache.mark_verified(&digest(1));
    cache.close().await;

    let cache = open(&root, 10_000);
    let needed: Vec<_> = (0..3)
        .filter(|number| needs_verification(&cache, *number))
        .collect();
    assert_eq!(needed, [0, 2]);
    assert!(!needs_verification(&cache, 9), "it is not here");
}

#[tokio::test]
async fn what_comes_in_behind_a_good_end_does_not_make_it_a_bad_one() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 10_000);
    (0..3).for_each(|number| publish(&cache, number));
    cache.clone().close().await;
    publish(&cache, 3);
    lose(&cache, &digest(2));
    drop(cache);

    let cache = open(&root, 10_000);
    assert_eq!(cache.0.standing, Standing::Clean);
    assert!(!needs_verification(&cache, 0) && is_here(&cache, 0).await);
    assert!(!is_here(&cache, 2).await);
    check(&cache, clock::now() + Duration::from_hours(1)).await;
    assert!(is_here(&cache, 3).await && needs_verification(&cache, 3));
}

#[tokio::test]
async fn without_an_index_the_directory_is_walked() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 10_000);
    (0..5).for_each(|number| publish(&cache, number));
    cache.close().await;
    std::fs::remove_dir_all(root.path().join(INDEX_FOLDER)).unwrap();
    let cache = open(&root, 10_000);
    assert_eq!(cache.0.standing, Standing::Lacking);
    for number in 0..5 {
        assert!(is_here(&cache, number).await);
        assert!(needs_verification(&cache, number));
    }
}

#[tokio::test]
async fn files_and_index_are_brought_together() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 550);
    (0..3).for_each(|number| publish(&cache, number));
    cache.close().await;
    std::fs::remove_file(path(&root, 1)).unwrap();
    for number in [3, 4, 5, 6] {
        std::fs::write(path(&root, number), content(number)).unwrap();
    }
    let cache = open(&root, 550);
    let now = clock::now();
    // Younger than the check: somebody is about to take it in.
    std::fs::write(path(&root, 7), content(7)).unwrap();
    let young = std::fs::File::options().write(true).open(path(&root, 7));
    // The clock of the file system is coarse.
    young.unwrap().set_modified(now).unwrap();
    check(&cache, now).await;
    assert!(!is_here(&cache, 1).await);
    assert!(is_here(&cache, 0).await && is_here(&cache, 2).await);
    assert!(path(&root, 7).try_exists().unwrap());
    let mut taken_in = 0;
    for number in [3, 4, 5, 6] {
        let is_known = cache.0.table.lock().size(&digest(number)).is_some();
        assert_eq!(is_known, path(&root, number).try_exists().unwrap());
        assert_eq!(is_known, needs_verification(&cache, number));
        taken_in += usize::from(is_known);
    }
    // As many as there was room for.
    assert_eq!(taken_in, 2);
    assert_eq!(cache.0.table.lock().bytes(), 400);
    // They are in the index as well.
    drop(cache);
    assert_eq!(open(&root, 550).0.table.lock().len(), 4);
}

#[tokio::test]
async fn a_smaller_capacity_holds_from_the_start() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 1_000);
    (0..10).for_each(|number| publish(&cache, number));
    cache.pin("a:1".to_owned(), [digest(2)].into()).unwrap();
    cache.close().await;
    let cache = open(&root, 300);
    assert_eq!(cache.0.table.lock().len(), 3);
    assert!(is_here(&cache, 2).await);
    let left = (0..10).filter(|number| path(&root, *number).try_exists().unwrap());
    assert_eq!(left.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_tended_forgets_no_more_than_the_last_minutes() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 10_000);
    (0..9).for_each(|number| publish(&cache, number));
    for number in (0..9).cycle().take(90) {
        assert!(is_here(&cache, number).await);
    }
    let uses = cache.0.table.lock().entry(&digest(0)).unwrap().uses;
    assert!(uses > 5);
    let (tasks, ending) = (Tasks::new(), CancellationToken::new());
    let tending = tasks.spawn("cache", cache.clone().tend(clock::now(), ending.clone()));
    let directory = root.path().join(INDEX_FOLDER);
    let has_snapshot = || {
        let files = std::fs::read_dir(&directory).unwrap();
        let mut names = files.map(|file| file.unwrap().file_name());
        names.any(|name| name.to_str().unwrap().ends_with(".snapshot"))
    };
    while !has_snapshot() {
        tokio::task::yield_now().await;
    }
    ending.cancel();
    tending.await.unwrap();
    drop(cache);
    let cache = open(&root, 10_000);
    assert_eq!(cache.0.table.lock().entry(&digest(0)).unwrap().uses, uses);
}

#[tokio::test]
async fn what_is_back_before_its_file_is_gone_stays() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 10_000);
    publish(&cache, 0);
    cache.0.table.lock().remove(&digest(0));
    publish(&cache, 0);
    cache.delete(&[digest(0)]);
    assert!(is_here(&cache, 0).await);
    // Somebody found it gone in between.
    cache.forget_missing(&digest(0));
    assert!(is_here(&cache, 0).await);
    std::fs::remove_file(path(&root, 0)).unwrap();
    assert!(!is_here(&cache, 0).await && !cache.has(&digest(0)));
}

#[tokio::test]
async fn what_was_put_aside_goes_first_when_the_disk_is_full() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 10_000);
    (0..5).for_each(|number| publish(&cache, number));
    condemn(&cache, &digest(0));
    let occupied = cache.put_aside()[0].occupied;
    assert!(cache.relieve(occupied));
    assert_eq!(cache.put_aside(), []);
    assert_eq!(cache.0.table.lock().len(), 4);

    condemn(&cache, &digest(1));
    // One blob besides.
    assert!(cache.relieve(occupied + 100));
    assert_eq!(cache.put_aside(), []);
    assert_eq!(cache.0.table.lock().len(), 2);
}

#[tokio::test]
async fn nothing_goes_for_what_has_no_place_anyway() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 10_000);
    (0..5).for_each(|number| publish(&cache, number));
    cache.pin("a:1".to_owned(), [digest(0)].into()).unwrap();
    // More than the cache may have, than it has, and than may go of that.
    for missing in [u64::MAX, 501, 401] {
        assert!(!cache.relieve(missing));
        assert_eq!(cache.0.table.lock().len(), 5);
    }
    assert!(cache.relieve(101));
    assert_eq!(cache.0.table.lock().len(), 3);
}

/// Two downloads may end at a time, and one end while a file from before is hashed.
#[tokio::test]
async fn a_file_without_a_name_is_not_kept_open() {
    let root = TempDir::new().unwrap();
    // That keeps files open.
    let cache = try_open_with(&root, 1 << 20, 100).unwrap();
    let content = vec![1; 100_000];
    let digest = Algorithm::Sha256.digest(&content);
    let publish = || {
        let partial = cache.partial(&digest, Lane::default()).unwrap();
        partial.write_at(&content, 0).unwrap();
        cache.publish(&partial, 100_000, Home::Here).unwrap();
    };
    let served = async || match cache.blob(&digest).await {
        Some(Found::Sound(blob)) => blob,
        _ => panic!("not here"),
    };
    publish();
    let old = served().await;
    publish();
    cache.vouch(&digest, &old);
    assert!(cache.0.disk.is_current(&digest, &served().await).unwrap());
}

/// Tries to take a directory when it is woken.
struct Next {
    root: PathBuf,
    outcome: Mutex<Option<Result<Locked, OpenError>>>,
}

impl Wake for Next {
    fn wake(self: Arc<Self>) {
        *self.outcome.lock() = Some(Locked::take(&self.root));
    }
}

#[test]
fn who_hears_that_all_has_gone_can_have_the_directory() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 1000);
    let next = Arc::new(Next {
        root: root.path().to_owned(),
        outcome: Mutex::default(),
    });
    let waker = Waker::from(Arc::clone(&next));
    let mut gone = pin!(cache.0.names.closed());
    let polled = gone.as_mut().poll(&mut Context::from_waker(&waker));
    assert_eq!(polled, Poll::Pending);
    drop(cache);
    // Woken in the midst of it.
    next.outcome.lock().take().unwrap().unwrap();
}

#[tokio::test]
async fn what_a_source_promises_costs_no_more_than_the_next_part_of_it() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 1 << 40);
    let large = 1 << 30;
    for number in 0..8 {
        let partial = cache.partial(&digest(number), Lane::default()).unwrap();
        // A hole: nobody looks at its bytes.
        partial.truncate(large).unwrap();
        cache.publish(&partial, large, Home::Here).unwrap();
    }
    assert!(cache.relieve(5 * large));
    assert_eq!(cache.0.table.lock().len(), 7);
}

#[tokio::test]
async fn one_directory_is_that_of_one_cache_whatever_becomes_of_the_names() {
    let root = TempDir::new().unwrap();
    let cache = open(&root, 1000);
    let second = try_open(&root, 1000).unwrap_err();
    let reason = std::error::Error::source(&second).unwrap().to_string();
    assert!(reason.contains("in use by another node"), "{reason}");
    drop(cache);
    open(&root, 1000);
}
