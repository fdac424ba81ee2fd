//! Bringing a blob in: one download per digest and registry, which every request for it there follows.
//!
//! What: [`Downloads`] starts a task for a digest that is not here, or that its registry has not shown to have, or lets a request
//! join the one under way. The task asks the registry, fills a [`Landing`] and publishes it; requests read the landing each at
//! its own pace. One connection brings a blob from the front; a reader that waits far ahead, or a long link, gets more of them.
//!
//! Invariants: at most one download per digest and registry (the origin, or an upstream) is under way; it belongs to no request.
//! What two registries have comes from both when it is asked of both at a time: so neither one that is slow or lies, nor who may
//! read there, is the other's matter. A blob is published only after its bytes hashed to its digest. The number of downloads is
//! bounded: one more waits for a while, and then is refused.
//!
//! Failure: a source that dies is asked for the rest, with growing pauses, as long as it brings something in between; when
//! it does not come back, readers break off and what is here is kept for the next download; when the bytes are wrong,
//! nothing is. When the disk fails readers go on without it. Cancellation: a download that its last reader left goes on for a
//! while, and to its end when most of it is here or several wanted it, unless it is larger than the cache or hardly moves.
//! Crash, and the end of the process: the next download begins with what is here.

pub mod attendance;
mod batch;
mod crew;
mod fill;
pub mod follower;
mod giver;
mod journal;
pub mod landing;
pub mod leftovers;
mod recent;
mod schedule;
mod spans;
mod switch;
mod turns;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use outport_core::location::key::Lane;
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::RepoName;
use outport_core::tasks::Tasks;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::cache::Cache;
use crate::coalesce::Role;
use crate::metrics::{DownloadMetrics, OutcomeLabel, SourceKind};
use crate::names::Moment;
use crate::resolve::Resolver;
use crate::source::OriginError;
use crate::source::sources::{Reach, Sources};
use attendance::{Attendance, Attendee};
use landing::Landing;
use leftovers::LeftoverConfig;
use turns::Turns;

/// The downloads of an edge; cheap to clone.
#[derive(Clone, Debug)]
pub struct Downloads(Arc<Inner>);

/// The bounds of downloads.
#[derive(Clone, Copy, Debug)]
pub struct DownloadConfig {
    /// How many are under way at a time.
    pub concurrent_max: usize,
    /// How long one more waits for its turn.
    pub turn_timeout: Duration,
    /// How often in a row a source that died is asked again without bringing anything.
    pub retries: u32,
    /// The pause before the first such try; each further one is twice as long.
    pub retry_pause: Duration,
    /// The longest pause.
    pub retry_pause_max: Duration,
    /// How many connections may bring one blob.
    pub connections_max: usize,
    /// How long one that nobody waits for goes on.
    pub grace: Duration,
    /// From how many percent on it goes on to its end.
    pub finish_percent: u32,
    /// From how many requests on it goes on to its end.
    pub popular_min: usize,
    /// What is kept of those that were interrupted.
    pub leftovers: LeftoverConfig,
}

/// A download under way, and a request that waits for it.
#[derive(Debug)]
pub struct Download {
    repo: RepoName,
    moment: Moment,
    head: watch::Receiver<Head>,
    attendee: Attendee,
}

/// A download, as long as it is under way.
#[derive(Debug)]
struct Entry {
    id: u64,
    repo: RepoName,
    /// When it was started: its source said, or is going to say, that `repo` linked the blob then.
    moment: Moment,
    head: watch::Receiver<Head>,
    attendance: Attendance,
}

/// What a download has come to.
#[derive(Clone, Debug)]
pub enum Head {
    /// It waits for its turn.
    Waiting,
    /// The source has not answered yet.
    Asking,
    /// Bytes are coming in here, the first of them from such a source.
    Landing(Landing, SourceKind),
    /// The blob was here already.
    Here,
    /// The disk takes nothing: every reader is on its own.
    Passing,
    /// The source could not be asked, or said no.
    Failed(OriginError),
}

/// What a download works with.
#[derive(Debug)]
struct Inner {
    sources: Sources,
    cache: Cache,
    resolver: Resolver,
    tasks: Tasks,
    config: DownloadConfig,
    turns: Turns,
    /// Those that hash what is here.
    verifying: Semaphore,
    running: Mutex<HashMap<Key, Entry>>,
    ids: AtomicU64,
    /// How many connections bring something in.
    connections: AtomicUsize,
    metrics: DownloadMetrics,
}

/// What a download begins with.
struct Begin {
    repo: RepoName,
    moment: Moment,
    reach: Reach,
    attendance: Attendance,
}

/// What a download brings, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    digest: Digest,
    /// The name of the upstream that it comes from, if it is not the origin.
    upstream: Option<String>,
}

/// Takes a download out when it ends, whichever way; not one that has followed it.
struct Running {
    downloads: Downloads,
    key: Key,
    id: u64,
}

/// Counts a connection that brings something in.
struct Connection<'a>(&'a AtomicUsize);

/// How much all downloads together may hold in memory.
const GATHERED_BYTES_MAX: usize = 32 << 20;

/// How many blobs that are here are hashed at a time: more than there are disks and processors is slower.
const VERIFYING_MAX: usize = 16;

/// How many batches a connection holds: two being gathered, two being written, two for readers that keep up.
const BATCHES_HELD: usize = 6;

/// The batch that a connection gathers, whatever the others do.
const BATCH_BYTES: std::ops::Range<usize> = 64 << 10..1 << 20;

// === impl Downloads ===

impl Downloads {
    /// Returns one with no downloads under way.
    pub fn new(
        sources: Sources,
        resolver: Resolver,
        tasks: Tasks,
        config: DownloadConfig,
        metrics: DownloadMetrics,
    ) -> Self {
        Self(Arc::new(Inner {
            sources,
            cache: resolver.cache().clone(),
            resolver,
            tasks,
            config,
            turns: Turns::new(config.concurrent_max),
            verifying: Semaphore::new(VERIFYING_MAX),
            running: Mutex::default(),
            ids: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            metrics,
        }))
    }

    /// Returns where blobs come from.
    pub fn sources(&self) -> &Sources {
        &self.0.sources
    }

    fn key(&self, digest: &Digest, repo: &RepoName) -> Key {
        Key {
            digest: *digest,
            upstream: self.0.sources.upstream(repo),
        }
    }

    /// Whether a blob is on its way from the registry that a repository is of.
    pub fn is_running(&self, digest: &Digest, repo: &RepoName) -> bool {
        let running = self.0.running.lock();
        let entry = running.get(&self.key(digest, repo));
        entry.is_some_and(Entry::is_sound)
    }

    /// Returns the download of a blob that is under way, or else starts it from what `repo` links and `reach` allows.
    pub fn follow(&self, digest: &Digest, repo: &RepoName, reach: Reach) -> (Download, Role) {
        let key = self.key(digest, repo);
        let mut running = self.0.running.lock();
        if let Some(download) = running.get(&key).and_then(Entry::join) {
            return (download, Role::Joined);
        }
        let (sender, head) = watch::channel(Head::Waiting);
        let attendance = Attendance::new();
        let moment = self.0.resolver.moment_of_links(repo);
        let entry = Entry {
            id: self.0.ids.fetch_add(1, Ordering::Relaxed),
            repo: repo.clone(),
            moment,
            head: head.clone(),
            attendance: attendance.clone(),
        };
        let guard = Running {
            downloads: self.clone(),
            key: key.clone(),
            id: entry.id,
        };
        running.insert(key, entry);
        drop(running);
        let attendee = attendance.first();
        let begin = Begin {
            repo: repo.clone(),
            moment,
            reach,
            attendance,
        };
        let task = self.clone().run(guard, begin, sender);
        drop(self.0.tasks.spawn("download", task));
        let download = Download {
            repo: repo.clone(),
            moment,
            head,
            attendee,
        };
        (download, Role::Asked)
    }

    async fn run(self, entry: Running, begin: Begin, head: watch::Sender<Head>) {
        let Begin {
            repo,
            moment,
            reach,
            attendance,
        } = begin;
        self.0.metrics.running.inc();
        let ending = self.0.tasks.token();
        let fill = fill::Fill {
            parts: &self.0,
            repo: &repo,
            moment,
            key: &entry.key,
            reach,
            gave: &Mutex::default(),
            has_sick_sibling: &AtomicBool::new(false),
            attendance: &attendance,
        };
        let outcome = tokio::select! {
            outcome = fill.run(&head) => outcome,
            () = ending.cancelled() => fill::Ended::Cancelled,
        };
        self.0.metrics.running.dec();
        let label = OutcomeLabel {
            outcome: outcome.label(),
        };
        self.0.metrics.finished.get_or_create(&label).inc();
        tracing::info!(digest = %entry.key.digest, repo = %repo, outcome = label.outcome.as_str(), "download ended");
        // Before anybody hears of it, so that whoever tries again starts another.
        drop(entry);
        if let fill::Ended::Early(last) = outcome {
            head.send_replace(last);
        }
    }
}

// === impl Key ===

impl Key {
    /// Returns the lane of its file.
    fn lane(&self) -> Lane {
        self.upstream.as_deref().map_or(Lane::default(), Lane::of)
    }
}

// === impl Inner ===

impl Inner {
    /// Returns how many bytes a connection gathers before they are written: its share of the memory for all of them.
    ///
    /// Each batch costs a hand-over between threads and every reader a wake-up, so a lone connection writes large ones.
    fn batch_bytes(&self) -> usize {
        let connections = self.connections.load(Ordering::Relaxed).max(1);
        (GATHERED_BYTES_MAX / (BATCHES_HELD * connections))
            .clamp(BATCH_BYTES.start, BATCH_BYTES.end)
    }

    /// Counts a connection for as long as what is returned lives.
    fn connection(&self) -> Connection<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connection(&self.connections)
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Entry ===

impl Entry {
    /// Whether joining it makes sense.
    fn is_sound(&self) -> bool {
        match &*self.head.borrow() {
            Head::Landing(landing, _) => landing.is_sound(),
            Head::Waiting | Head::Asking => self.head.has_changed().is_ok(),
            Head::Here | Head::Passing | Head::Failed(_) => false,
        }
    }

    fn join(&self) -> Option<Download> {
        if !self.is_sound() {
            return None;
        }
        Some(Download {
            repo: self.repo.clone(),
            moment: self.moment,
            head: self.head.clone(),
            attendee: self.attendance.enter()?,
        })
    }
}

// === impl Download ===

impl Download {
    /// Whether it was started from what `repo` links, and nothing was deleted there since.
    pub fn is_of(&self, repo: &RepoName, resolver: &Resolver) -> bool {
        self.repo == *repo && resolver.has_kept_links_since(self.moment)
    }

    /// Returns what it has come to once the source has answered, or that it does not within `limit`, whatever comes later.
    pub async fn head(&mut self, limit: Duration) -> Head {
        match self.after(|head| matches!(head, Head::Waiting)).await {
            Head::Asking => {}
            head => return head,
        }
        let answer = self.after(|head| matches!(head, Head::Waiting | Head::Asking));
        let answer = timeout(limit, answer).await;
        answer.unwrap_or(Head::Failed(OriginError::Slow(limit)))
    }

    /// Returns what it has come to when that is something else.
    async fn after(&mut self, is_before: impl Fn(&Head) -> bool) -> Head {
        let head = self.head.wait_for(|head| !is_before(head)).await;
        head.map_or(Head::Failed(OriginError::Ending), |head| head.clone())
    }

    /// Returns the word that somebody waits for it.
    pub fn attendee(&self) -> Attendee {
        self.attendee.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.downloads.0.running.lock();
        if running
            .get(&self.key)
            .is_some_and(|entry| entry.id == self.id)
        {
            running.remove(&self.key);
        }
    }
}
