//! What the origin said about names: which repository links which digest, and where tags point.
//!
//! What: [`Names`] remembers positive answers, in memory in front and in one file beside the cached blobs, so that an edge
//! that was restarted while the origin is away still serves what it holds. A warm hit reads memory only.
//!
//! Invariants: a link or tag that was dropped is not found by whoever asks after the drop returned, and no answer to a
//! question from before it brings it back (`fence`); memory is always at least as new as the file. Both are bounded: memory by the number of entries, the file by its number of rows and by
//! forgetting the links of blobs that left the cache.
//!
//! Failure: this is a cache. A file that is damaged is replaced by an empty one, at the start or, when it is found to be so
//! later, at the next one. One that the disk keeps from being written to is kept, read while it can be, and caught up with
//! (`writer`). A row that cannot be read counts as absent, and the origin is asked again.
//! Crash: what was written in the last moments may be lost; a drop that was lost with them comes back until the origin is
//! asked, which for tags is each time.

mod database;
mod fence;
mod file;
mod unhosted;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use moka::ops::compute::Op;
use moka::sync::Cache;
use outport_core::clock;
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::{RepoName, Tag};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use database::OpenError;
use fence::Fences;
pub use fence::Moment;
use file::{Change, NamesFile};
use unhosted::Known as KnownRepository;
pub use unhosted::Said;
pub use writer::NamesWriter;

/// Remembers links and tags; cheap to clone.
#[derive(Clone, Debug)]
pub struct Names(Arc<Inner>);

/// How much a [`Names`] remembers.
#[derive(Clone, Copy, Debug)]
pub struct NamesConfig {
    /// Links and tags in memory, each.
    pub entries_in_memory: u64,
    /// Links and tags in the file, each.
    pub rows_max: u64,
    /// Bytes of the file that are kept in memory.
    pub page_cache_bytes: usize,
}

/// As what a repository links a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// As a blob.
    Blob,
    /// As a manifest.
    Manifest,
    /// Not a repository, but the registry that the name is of: it has brought all of the blob.
    Possession,
}

/// A repository's link to a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkKey {
    /// The repository.
    pub repo: RepoName,
    /// The digest.
    pub digest: Digest,
    /// As what it links it.
    pub kind: LinkKind,
}

/// What is known of a linked digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The type that the origin gave it.
    pub content_type: HeaderValue,
    /// Its size in bytes.
    pub size: u64,
}

/// Where a tag points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointed {
    /// At what.
    pub digest: Digest,
    /// When the origin was asked, or told, that it does.
    pub asked: Asked,
    /// How long before that it was so: an origin may have an upstream's answer from before.
    pub age_then: Duration,
    /// Whether that was longer than it should be, because the upstream was away.
    pub is_stale: bool,
}

/// When something was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Asked {
    /// Since the start.
    At(Instant),
    /// Before it, to a minute.
    Before(SystemTime),
}

/// A link in memory.
#[derive(Clone, Debug)]
struct Linked {
    link: Link,
    /// Whether the file has it too, or is about to: it forgets those of what leaves the cache.
    is_written: bool,
}

/// A tag in memory.
#[derive(Clone, Copy, Debug)]
struct Known {
    pointed: Pointed,
    /// When it was last written down.
    written: Option<Instant>,
}

/// A list of an upstream's, when it was last asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// When that was.
    pub asked: SystemTime,
    /// What its content hashes to; none when there was none.
    pub content: Option<Digest>,
    /// The query with which it goes on.
    pub next: Option<String>,
    /// By what it was filtered.
    pub filters: Option<String>,
}

#[derive(Debug)]
struct Inner {
    links: Links,
    tags: Cache<(RepoName, Tag), Option<Known>>,
    repositories: Cache<RepoName, KnownRepository>,
    /// Those of links count by repository: who asks for a tag does not know yet which digest it is going to hear of.
    link_fences: Fences,
    tag_fences: Fences,
    file: Arc<NamesFile>,
    changes: mpsc::Sender<Queued>,
}

#[derive(Debug)]
struct Queued {
    change: Change,
    applied: Option<oneshot::Sender<()>>,
}

/// Links in memory. None: dropped, and not yet so in the file.
type Links = Cache<LinkKey, Option<Linked>>;

/// How many changes wait to be written down before further positive ones are left out.
const QUEUE_CHANGES: usize = 4096;

/// How often it is written down when a tag was asked for, as long as it does not move.
const WRITTEN_EVERY: Duration = Duration::from_mins(1);

// === impl Names ===

impl Names {
    /// Opens the file, or starts an empty one. Blocks.
    pub fn open(path: &Path, config: NamesConfig) -> Result<(Self, NamesWriter), OpenError> {
        let file = Arc::new(NamesFile::open(path, config)?);
        let (sender, receiver) = mpsc::channel(QUEUE_CHANGES);
        let links = Cache::new(config.entries_in_memory);
        let names = Self(Arc::new(Inner {
            links: links.clone(),
            tags: Cache::new(config.entries_in_memory),
            repositories: Cache::new(config.entries_in_memory),
            link_fences: Fences::new(),
            tag_fences: Fences::new(),
            file: Arc::clone(&file),
            changes: sender,
        }));
        Ok((names, NamesWriter::new(file, links, receiver)))
    }

    /// Completes when nobody holds these names any more: not who uses them, nor a job on a blocking thread that goes on when
    /// whoever waited for it has gone.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.file.closed()
    }

    /// Returns what is known of a link, or none when the repository is not known to link the digest.
    pub async fn link(&self, key: &LinkKey) -> Option<Link> {
        if let Some(known) = self.0.links.get(key) {
            let Linked { link, is_written } = known?;
            if !is_written {
                self.write_link_again(key);
            }
            return Some(link);
        }
        let (file, owned) = (Arc::clone(&self.0.file), key.clone());
        let found = Linked {
            link: blocking(move || file.link(&owned)).await??,
            is_written: true,
        };
        // Not over what was put or dropped meanwhile.
        let entry = self.0.links.entry_by_ref(key).or_insert(Some(found));
        entry.into_value().map(|linked| linked.link)
    }

    /// Returns what to remember a repository's links by, before the origin is asked for any.
    pub fn moment_of_links(&self, repo: &RepoName) -> Moment {
        self.0.link_fences.moment(repo)
    }

    /// Returns what to remember a tag by, before the origin is asked for it.
    pub fn moment_of_tag(&self, repo: &RepoName, tag: &Tag) -> Moment {
        self.0.tag_fences.moment(&(repo, tag))
    }

    /// Whether a tag was neither dropped nor moved since.
    pub fn has_kept_tag_since(&self, moment: Moment) -> bool {
        self.0.tag_fences.is_unchanged(moment)
    }

    /// Whether no link of the repository was dropped since.
    pub fn has_kept_links_since(&self, moment: Moment) -> bool {
        self.0.link_fences.is_unchanged(moment)
    }

    /// Remembers a link, unless one of the repository was dropped since `moment`; returns whether it did.
    pub fn put_link(&self, key: LinkKey, link: Link, moment: Moment) -> bool {
        self.0.link_fences.put(moment, || {
            // Also one that is known: it was asked for because the blob is not here, and what forgets the links of a blob that
            // left may be on its way to the file.
            self.write_link(key, link);
            false
        })
    }

    /// Remembers a link, and has it written down; to be called behind the fence.
    fn write_link(&self, key: LinkKey, link: Link) {
        let linked = Linked {
            link: link.clone(),
            is_written: true,
        };
        // First: the writer takes note of what it leaves out.
        self.0.links.insert(key.clone(), Some(linked));
        if !self.queue(Change::PutLink(key.clone(), link.clone())) {
            let is_written = false;
            self.0.links.insert(key, Some(Linked { link, is_written }));
        }
    }

    /// Has a link written down that the file has forgotten, and that is made use of still.
    fn write_link_again(&self, key: &LinkKey) {
        let moment = self.0.link_fences.moment(&key.repo);
        self.0.link_fences.put(moment, || {
            if let Some(Some(known)) = self.0.links.get(key)
                && !known.is_written
            {
                self.write_link(key.clone(), known.link);
            }
            false
        });
    }

    /// Drops a link.
    pub async fn drop_link(&self, key: LinkKey) {
        self.0.link_fences.change(&key.repo, || {
            self.0.links.insert(key.clone(), None);
        });
        self.apply(Change::DropLink(key)).await;
    }

    /// Forgets all links to digests that are no longer in the cache, soon.
    pub fn forget(&self, digests: Vec<Digest>) {
        if !digests.is_empty() {
            self.queue(Change::Forget(digests));
        }
    }

    /// Returns where a tag pointed when the origin was last asked.
    pub async fn tag(&self, repo: &RepoName, tag: &Tag) -> Option<Pointed> {
        let key = (repo.clone(), tag.clone());
        if let Some(known) = self.0.tags.get(&key) {
            return known.map(|known| known.pointed);
        }
        let (file, owned) = (Arc::clone(&self.0.file), key.clone());
        let (digest, asked) = blocking(move || file.tag(&owned.0, &owned.1)).await??;
        let found = Known {
            pointed: Pointed {
                digest,
                asked: Asked::Before(asked),
                age_then: Duration::ZERO,
                is_stale: false,
            },
            written: None,
        };
        let entry = self.0.tags.entry(key).or_insert(Some(found));
        entry.into_value().map(|known| known.pointed)
    }

    /// Returns where a tag points, as far as memory knows.
    pub fn tag_in_memory(&self, repo: &RepoName, tag: &Tag) -> Option<Pointed> {
        let known = self.0.tags.get(&(repo.clone(), tag.clone())).flatten();
        known.map(|known| known.pointed)
    }

    /// Remembers where a tag points, unless it was changed since `moment`; returns whether it did.
    pub fn put_tag(&self, repo: &RepoName, tag: &Tag, pointed: Pointed, moment: Moment) -> bool {
        self.0.tag_fences.put(moment, || {
            let key = (repo.clone(), tag.clone());
            let known = self.0.tags.get(&key).flatten();
            let is_new = known.is_none_or(|known| known.pointed.digest != pointed.digest);
            let written = known.and_then(|known| known.written);
            if is_new || written.is_none_or(|written| written.elapsed() >= WRITTEN_EVERY) {
                self.write_tag(key, pointed);
            } else {
                self.0.tags.insert(key, Some(Known { pointed, written }));
            }
            is_new
        })
    }

    /// Remembers where a tag was moved to by a request that was sent at `moment`, so that no question from before brings the
    /// old place back; returns whether it did. When it was changed by others since, nobody knows who came last.
    pub fn move_tag(&self, repo: &RepoName, tag: &Tag, pointed: Pointed, moment: Moment) -> bool {
        self.0.tag_fences.put(moment, || {
            self.write_tag((repo.clone(), tag.clone()), pointed);
            true
        })
    }

    /// Remembers a tag, and has it written down.
    fn write_tag(&self, key: (RepoName, Tag), pointed: Pointed) {
        let known = Known {
            pointed,
            written: Some(Instant::now()),
        };
        self.0.tags.insert(key.clone(), Some(known));
        let asked = pointed.asked.time();
        let asked = asked.checked_sub(pointed.age_then).unwrap_or(asked);
        self.queue(Change::PutTag(key.0, key.1, pointed.digest, asked));
    }

    /// Drops a tag.
    pub async fn drop_tag(&self, repo: &RepoName, tag: &Tag) {
        self.0.tag_fences.change(&(repo, tag), || {
            self.0.tags.insert((repo.clone(), tag.clone()), None);
        });
        self.apply(Change::DropTag(repo.clone(), tag.clone())).await;
    }

    /// Returns a list as it was when it was last asked for, by path and query.
    pub async fn list(&self, path: &str) -> Option<Listed> {
        let (file, path) = (Arc::clone(&self.0.file), path.to_owned());
        blocking(move || file.list(&path)).await?
    }

    /// Remembers a list.
    pub fn put_list(&self, path: &str, listed: Listed) {
        self.queue(Change::PutList(path.to_owned(), listed));
    }

    /// Makes durable what has been changed and waited for.
    pub async fn make_durable(&self) {
        make_durable(Arc::clone(&self.0.file)).await;
    }

    /// Writes a change down some time; when too many wait it is left out, and asked for again after a restart. Returns whether
    /// it is not.
    fn queue(&self, change: Change) -> bool {
        let queued = Queued {
            change,
            applied: None,
        };
        // A full queue, or a writer that is gone because the process ends.
        self.0.changes.try_send(queued).is_ok()
    }

    /// Writes a change down and waits until it can be read.
    async fn apply(&self, change: Change) {
        let (sender, receiver) = oneshot::channel();
        let queued = Queued {
            change,
            applied: Some(sender),
        };
        if self.0.changes.send(queued).await.is_ok() {
            receiver.await.ok();
        }
    }
}

// === impl Pointed ===

impl Pointed {
    /// Returns how long ago it was so.
    pub fn age(&self) -> Duration {
        self.asked.elapsed() + self.age_then
    }
}

// === impl Asked ===

impl Asked {
    /// Returns how long ago that was; no time, if it is still to come by a clock that was put back.
    pub fn elapsed(self) -> Duration {
        match self {
            Self::At(instant) => instant.elapsed(),
            Self::Before(time) => clock::now().duration_since(time).unwrap_or_default(),
        }
    }

    /// Returns how long ago that was, if it was since the start: what was asked for before it is asked for again.
    pub fn elapsed_since_start(self) -> Option<Duration> {
        match self {
            Self::At(instant) => Some(instant.elapsed()),
            Self::Before(_) => None,
        }
    }

    fn time(self) -> SystemTime {
        match self {
            Self::At(instant) => clock::now() - instant.elapsed(),
            Self::Before(time) => time,
        }
    }
}

/// Takes note that the file does not have a link.
fn mark_unwritten(links: &Links, key: &LinkKey) {
    // What was dropped meanwhile stays so.
    let entry = links.entry_by_ref(key).and_compute_with(|entry| {
        match entry.and_then(moka::Entry::into_value) {
            Some(linked) => Op::Put(Some(Linked {
                is_written: false,
                ..linked
            })),
            None => Op::Nop,
        }
    });
    drop(entry);
}

async fn make_durable(file: Arc<NamesFile>) {
    blocking(move || {
        if let Err(error) = file.flush() {
            tracing::warn!(error = %error, "names of the cache not made durable");
        }
    })
    .await;
}

/// Runs what blocks where it may; none when the runtime ends.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use outport_core::oci::digest::Algorithm;
    use outport_core::tasks::Tasks;

    const CONFIG: NamesConfig = NamesConfig {
        entries_in_memory: 100,
        rows_max: 10,
        page_cache_bytes: 1 << 20,
    };

    fn key(repo: &str, number: u8) -> LinkKey {
        LinkKey {
            repo: repo.parse().unwrap(),
            digest: Algorithm::Sha512.digest(&[number]),
            kind: LinkKind::Manifest,
        }
    }

    fn link() -> Link {
        Link {
            content_type: HeaderValue::from_static("application/json"),
            size: 7,
        }
    }

    struct Opened {
        names: Names,
        tasks: Tasks,
    }

    impl Opened {
        fn new(path: &Path) -> Self {
            let (names, writer) = Names::open(path, CONFIG).unwrap();
            let tasks = Tasks::new();
            drop(tasks.spawn("names", writer.run(tasks.clone())));
            Self { names, tasks }
        }

        async fn close(self) {
            self.tasks.cancel();
            self.tasks.drain(Duration::from_secs(9)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_restart_remembers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names");
        let (repo, tag): (RepoName, Tag) = ("a/b".parse().unwrap(), "v1".parse().unwrap());
        let digest = key("a", 1).digest;

        let opened = Opened::new(&path);
        let links = opened.names.moment_of_links(&repo);
        assert!(opened.names.put_link(key("a/b", 1), link(), links));
        assert!(opened.names.put_link(key("a/b", 2), link(), links));
        let moment = opened.names.moment_of_tag(&repo, &tag);
        let pointed = Pointed {
            digest,
            asked: Asked::At(Instant::now()),
            age_then: Duration::from_secs(7),
            is_stale: false,
        };
        assert!(opened.names.put_tag(&repo, &tag, pointed, moment));
        assert_eq!(opened.names.tag_in_memory(&repo, &tag), Some(pointed));
        opened.names.drop_link(key("a/b", 2)).await;
        opened.close().await;

        let opened = Opened::new(&path);
        assert_eq!(opened.names.link(&key("a/b", 1)).await, Some(link()));
        assert_eq!(opened.names.link(&key("a/b", 2)).await, None);
        assert_eq!(opened.names.link(&key("a/c", 1)).await, None);
        let as_blob = LinkKey {
            kind: LinkKind::Blob,
            ..key("a/b", 1)
        };
        assert_eq!(opened.names.link(&as_blob).await, None);
        assert_eq!(opened.names.tag_in_memory(&repo, &tag), None);
        let pointed = opened.names.tag(&repo, &tag).await.unwrap();
        assert_eq!(pointed.digest, digest);
        assert_eq!(pointed.asked.elapsed_since_start(), None);
        let age = pointed.age().as_secs();
        assert!((7..60).contains(&age), "{age}");
        opened.names.drop_tag(&repo, &tag).await;
        opened.names.forget(vec![digest]);
        opened.close().await;

        let opened = Opened::new(&path);
        assert_eq!(opened.names.link(&key("a/b", 1)).await, None);
        assert_eq!(opened.names.tag(&repo, &tag).await, None);
        opened.close().await;
    }

    #[tokio::test]
    async fn a_link_to_what_left_and_came_again_is_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names");
        let opened = Opened::new(&path);
        let names = &opened.names;
        let all = [key("asks", 1), key("looks", 1), key("dropped", 1)];
        let put = |key: &LinkKey| {
            let moment = names.moment_of_links(&key.repo);
            assert!(names.put_link(key.clone(), link(), moment));
        };
        all.iter().for_each(put);
        names.forget(vec![all[0].digest]);
        // It comes again for one repository, before that is written down, and is here for another then.
        put(&all[0]);
        names.drop_link(all[2].clone()).await;
        assert_eq!(names.link(&all[1]).await, Some(link()));
        assert_eq!(names.link(&all[2]).await, None);
        opened.close().await;

        let opened = Opened::new(&path);
        assert_eq!(opened.names.link(&all[0]).await, Some(link()));
        assert_eq!(opened.names.link(&all[1]).await, Some(link()));
        assert_eq!(opened.names.link(&all[2]).await, None);
        opened.close().await;
    }

    #[tokio::test]
    async fn what_was_made_durable_outlives_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let [path, left] = ["names", "left"].map(|name| directory.path().join(name));
        let (repo, tag): (RepoName, Tag) = ("a/b".parse().unwrap(), "v1".parse().unwrap());
        let opened = Opened::new(&path);
        let moment = opened.names.moment_of_tag(&repo, &tag);
        let pointed = Pointed {
            digest: key("a", 1).digest,
            asked: Asked::At(Instant::now()),
            age_then: Duration::ZERO,
            is_stale: false,
        };
        opened.names.put_tag(&repo, &tag, pointed, moment);
        // Behind it, so that it is written.
        opened.names.drop_link(key("a/b", 2)).await;
        opened.names.make_durable().await;
        for expected in [Some(pointed.digest), None] {
            // As a crash would leave it.
            std::fs::copy(&path, &left).unwrap();
            let after = Opened::new(&left);
            let found = after.names.tag(&repo, &tag).await;
            assert_eq!(found.map(|found| found.digest), expected);
            after.close().await;
            opened.names.drop_tag(&repo, &tag).await;
            opened.names.make_durable().await;
        }
        opened.close().await;
    }

    #[tokio::test]
    async fn the_file_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names");
        let opened = Opened::new(&path);
        for number in 0..50 {
            let key = key("a", number);
            let moment = opened.names.moment_of_links(&key.repo);
            assert!(opened.names.put_link(key, link(), moment));
        }
        opened.close().await;
        let opened = Opened::new(&path);
        let mut found = 0;
        for number in 0..50 {
            found += u64::from(opened.names.link(&key("a", number)).await.is_some());
        }
        assert!((1..=CONFIG.rows_max).contains(&found), "{found} rows");
        opened.close().await;
    }

    #[tokio::test]
    async fn a_file_that_makes_no_sense_is_a_cold_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names");
        std::fs::write(&path, vec![0x5a; 100_000]).unwrap();
        let opened = Opened::new(&path);
        assert_eq!(opened.names.link(&key("a", 1)).await, None);
        assert!(matches!(
            Names::open(&path, CONFIG),
            Err(OpenError::InUse { .. })
        ));
        opened.close().await;
    }
}
