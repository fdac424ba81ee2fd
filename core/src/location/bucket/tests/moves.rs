//! Blobs whose bytes are still those of an upload.

use futures_util::future;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use tokio::sync::RwLockWriteGuard;

use super::*;
use crate::clock;
use crate::location::key::CLAIM;
use crate::oci::digest::Digest;
use crate::store::Committed;

const HOUR: Duration = Duration::from_hours(1);

/// A large blob, just committed by one of two instances, whose digest was not known when it came.
struct Rig {
    engine: Arc<MemoryEngine>,
    one: Bucket,
    other: Bucket,
    content: Bytes,
    digest: Digest,
    /// What was committed.
    staged: Staged,
}

impl Rig {
    async fn new() -> Self {
        let engine = Arc::new(MemoryEngine::default());
        let bucket = || Bucket::new(Arc::<MemoryEngine>::clone(&engine), "prefix", LIMITS);
        let (one, other) = (bucket(), bucket());
        let content = fresh(1_000_001);
        let digest = Algorithm::Sha256.digest(&content);
        let appended = one.append(staged(), frames(&content, 50_000), None).await;
        appended.outcome.unwrap();
        let staged = appended.staged;
        let committed = one.commit(staged.clone(), &digest).await;
        assert_eq!(committed.unwrap(), Committed::PutOff);
        Self {
            engine,
            one,
            other,
            content,
            digest,
            staged,
        }
    }

    fn copied(&self) -> usize {
        self.engine.copied.swap(0, Ordering::Relaxed)
    }

    /// Returns how many objects there are, and how many of them are blobs.
    async fn objects(&self) -> (usize, usize) {
        let all: Vec<_> = self.engine.store.list(None).try_collect().await.unwrap();
        let blobs = all
            .iter()
            .filter(|object| object.location.as_ref().starts_with("prefix/blobs/"));
        (all.len(), blobs.count())
    }

    async fn assert_here(&self) {
        for bucket in [&self.one, &self.other] {
            let size = self.content.len() as u64;
            assert_eq!(bucket.size(&self.digest).await.unwrap(), Some(size));
            let read = bucket.read(&self.digest, 0..size).await.unwrap().unwrap();
            assert!(read.collect_limited(size).await.unwrap() == self.content);
        }
    }

    /// Begins to settle, and returns when the copy is under way, which ends when the lock is given back.
    async fn begin(
        &self,
    ) -> (
        impl Future<Output = Result<(), StoreError>>,
        RwLockWriteGuard<'_, ()>,
    ) {
        let lock = self.engine.copying.write().await;
        let mut settle = Box::pin(self.one.settle(&self.digest, clock::now()));
        self.copied();
        while self.engine.copied.load(Ordering::Relaxed) == 0 {
            assert!(future::poll_immediate(&mut settle).await.is_none());
        }
        self.copied();
        (settle, lock)
    }
}

#[tokio::test]
async fn a_commit_copies_no_more_than_a_tail_and_what_follows_is_one_copy() {
    let rig = Rig::new().await;
    assert!(rig.copied() < LIMITS.part_bytes);
    assert_eq!(rig.objects().await.1, 0);
    rig.assert_here().await;
    let again = rig.other.commit(rig.staged.clone(), &rig.digest);
    let settled =
        join_all([&rig.one, &rig.other].map(|bucket| bucket.settle(&rig.digest, clock::now())));
    let (again, settled) = future::join(again, settled).await;
    again.unwrap();
    settled.into_iter().collect::<Result<(), _>>().unwrap();
    assert_eq!(rig.copied(), rig.content.len());
    assert_eq!(rig.objects().await.1, 1);
    rig.assert_here().await;
}

#[tokio::test]
async fn what_it_moved_from_stays_for_a_grace() {
    let rig = Rig::new().await;
    rig.one.settle(&rig.digest, clock::now()).await.unwrap();
    let before_grace = clock::now() + LIMITS.move_grace - Duration::from_mins(1);
    rig.other.settle(&rig.digest, before_grace).await.unwrap();
    // The upload, its pointer, a claim, and the blob.
    assert_eq!(rig.objects().await, (4, 1));
    assert_eq!(rig.other.unsettled().await.unwrap(), [rig.digest]);
    let after_grace = clock::now() + LIMITS.move_grace;
    rig.other.settle(&rig.digest, after_grace).await.unwrap();
    assert_eq!(rig.objects().await, (1, 1));
    assert_eq!(rig.other.unsettled().await.unwrap(), []);
    rig.assert_here().await;
}

#[tokio::test]
async fn a_sweep_leaves_what_is_a_blob() {
    let rig = Rig::new().await;
    let old = rig.one.append(staged(), frames(b"old", 3), None).await;
    old.outcome.unwrap();
    let swept = rig.other.sweep(clock::now() + HOUR).await.unwrap();
    assert_eq!(swept, 1);
    rig.assert_here().await;
}

#[tokio::test]
async fn nothing_is_put_off_of_a_blob_that_is_small_or_came_under_its_name() {
    let bucket = Bucket::new(Arc::new(MemoryEngine::default()), "prefix", LIMITS);
    for (size, is_named) in [(100_000, false), (100_000, true), (1_000_001, true)] {
        let content = fresh(size);
        let digest = Algorithm::Sha256.digest(&content);
        let destination = is_named.then_some(&digest);
        let appended = bucket
            .append(staged(), frames(&content, 50_000), destination)
            .await;
        let committed = bucket.commit(appended.staged, &digest).await;
        assert_eq!(committed.unwrap(), Committed::Settled, "{size}, {is_named}");
        assert_eq!(bucket.unsettled().await.unwrap(), []);
    }
}

/// As between two steps of a commit: the upload is complete, and nothing says yet whose bytes it is.
#[tokio::test]
async fn a_sweep_leaves_what_is_about_to_be_a_blob() {
    let rig = Rig::new().await;
    let moves = rig.one.path_of(&Folder::MovesOf(rig.digest).path());
    let remove_pointers = async || {
        let objects = rig.engine.store.list(Some(&moves));
        let pointers: Vec<_> = objects.try_collect().await.unwrap();
        for pointer in pointers {
            rig.one.remove(&pointer.location).await.unwrap();
        }
    };
    let later = clock::now() + HOUR;
    remove_pointers().await;
    assert_eq!(rig.other.sweep(later).await.unwrap(), 0);
    rig.one
        .commit(rig.staged.clone(), &rig.digest)
        .await
        .unwrap();
    assert_eq!(rig.other.sweep(later).await.unwrap(), 0);
    rig.assert_here().await;
    // Of one whose commit was given up nothing stays.
    remove_pointers().await;
    assert_eq!(rig.other.sweep(later).await.unwrap(), 0);
    assert_eq!(rig.other.sweep(later).await.unwrap(), 1);
    assert_eq!(rig.objects().await, (0, 0));
}

#[tokio::test]
async fn a_blob_deleted_while_it_moves_does_not_come_back() {
    let rig = Rig::new().await;
    let (settle, lock) = rig.begin().await;
    rig.other.delete(&rig.digest).await.unwrap();
    drop(lock);
    settle.await.unwrap();
    assert_eq!(rig.one.size(&rig.digest).await.unwrap(), None);
    assert_eq!(rig.objects().await, (0, 0));
    let again = rig.one.commit(rig.staged.clone(), &rig.digest).await;
    assert!(matches!(again, Err(CommitError::Gone)), "{again:?}");
}

#[tokio::test]
async fn a_move_is_left_to_who_claims_it_until_he_must_be_dead() {
    let rig = Rig::new().await;
    let (settle, lock) = rig.begin().await;
    drop((settle, lock));
    rig.assert_here().await;
    rig.other.settle(&rig.digest, clock::now()).await.unwrap();
    assert_eq!(rig.copied(), 0);
    rig.other
        .settle(&rig.digest, clock::now() + HOUR)
        .await
        .unwrap();
    assert_eq!(rig.copied(), rig.content.len());
    rig.assert_here().await;
    assert_eq!(rig.objects().await.1, 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_takes_long_stays_claimed() {
    let rig = Rig::new().await;
    let (settle, lock) = rig.begin().await;
    let mut settle = Box::pin(settle);
    let claimed_at = async || {
        let moves = rig.one.list(Folder::MovesOf(rig.digest));
        let moves: Vec<_> = moves.try_collect().await.unwrap();
        let claim = |object: &&ObjectMeta| object.location.as_ref().ends_with(CLAIM);
        moves.iter().find(claim).unwrap().last_modified
    };
    let before = claimed_at().await;
    tokio::time::advance(HOUR / 2).await;
    assert!(future::poll_immediate(&mut settle).await.is_none());
    assert!(claimed_at().await > before);
    drop(lock);
    settle.await.unwrap();
    assert_eq!(rig.objects().await.1, 1);
}

/// As after a sweep between the two looks of a commit at an upload that an earlier one has completed.
#[tokio::test]
async fn an_upload_that_is_not_there_does_not_become_a_blob() {
    let rig = Rig::new().await;
    let digest = Algorithm::Sha256.digest(b"other");
    let published = super::super::moves::publish(&rig.one, &digest, Uuid::now_v7()).await;
    assert!(matches!(published, Err(CommitError::Gone)), "{published:?}");
    assert_eq!(rig.one.unsettled().await.unwrap(), [rig.digest]);
}

/// However many there are, a bucket has the time for its answer that a page of them takes.
#[tokio::test(start_paused = true)]
async fn all_that_move_are_found_one_after_the_other() {
    const COUNT: u8 = 9;
    let slow = ThrottleConfig {
        wait_list_per_entry: LIMITS.answer_timeout / 2,
        wait_list_with_delimiter_per_call: LIMITS.answer_timeout / 2 * COUNT.into(),
        ..ThrottleConfig::default()
    };
    let engine = Slow(ThrottledStore::new(InMemory::new(), slow));
    let bucket = Bucket::new(Arc::new(engine), "prefix", LIMITS);
    let digests: HashSet<_> = (0..COUNT).map(|n| Algorithm::Sha512.digest(&[n])).collect();
    for digest in &digests {
        for upload in [1, 2].map(Uuid::from_u128) {
            let path = bucket.path(Key::Move(digest, upload));
            bucket.put(&path, PutPayload::new()).await.unwrap();
        }
    }
    let found = bucket.unsettled().await.unwrap();
    assert_eq!(found.len(), digests.len());
    assert_eq!(HashSet::from_iter(found), digests);
}

/// An engine that takes its time.
#[derive(Debug)]
struct Slow(ThrottledStore<InMemory>);

#[async_trait]
impl Engine for Slow {
    fn objects(&self) -> &dyn ObjectStore {
        &self.0
    }

    fn multipart(&self) -> &dyn MultipartStore {
        unreachable!("nothing is put in parts")
    }

    async fn copy_part(&self, _copy: CopyPart<'_>) -> Result<PartId> {
        unreachable!("nothing is copied")
    }
}

/// Two appends of one session bring other bytes of the same size, and nobody heard what became of the first commit.
#[tokio::test]
async fn an_upload_that_is_complete_already_is_not_taken_for_another() {
    let engine = Arc::new(MemoryEngine::default());
    let bucket = Bucket::new(Arc::<MemoryEngine>::clone(&engine), "", LIMITS);
    let head = fresh(100_000);
    let start = bucket
        .append(staged(), frames(&head, 50_000), None)
        .await
        .staged;
    let mut values = Vec::new();
    for _ in 0..2 {
        let tail = fresh(300_000);
        let appended = bucket
            .append(start.clone(), frames(&tail, 50_000), None)
            .await;
        let digest = Algorithm::Sha256.digest(&[&head[..], &tail].concat());
        values.push((appended.staged, digest));
    }
    let (last, last_digest) = values.pop().unwrap();
    let (first, first_digest) = values.pop().unwrap();
    bucket.commit(last.clone(), &last_digest).await.unwrap();
    let refused = bucket.commit(first, &first_digest).await;
    assert!(matches!(refused, Err(CommitError::Gone)), "{refused:?}");
    assert_eq!(bucket.size(&first_digest).await.unwrap(), None);

    // The pointer is lost, and found again by what the upload holds.
    let moves = bucket.path_of(&Folder::MovesOf(last_digest).path());
    let pointers: Vec<_> = engine.store.list(Some(&moves)).try_collect().await.unwrap();
    for pointer in pointers {
        bucket.remove(&pointer.location).await.unwrap();
    }
    bucket.commit(last, &last_digest).await.unwrap();
    assert_eq!(bucket.size(&last_digest).await.unwrap(), Some(400_000));
}
