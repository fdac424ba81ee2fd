//! The course of one download: ask, land, verify, publish.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use outport_core::body::Body;
use outport_core::oci::reference::RepoName;
use outport_core::store::disk::{BlobFile, Partial};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::attendance::Attendance;
use super::crew::{Crew, Stopped};
use super::giver::Giver;
use super::journal::{Journal, Left};
use super::landing::{Landing, Writer};
use super::schedule::Schedule;
use super::spans::Spans;
use super::{Head, Inner, Key};
use crate::cache::Found;
use crate::metrics::{Outcome, SourceKind};
use crate::names::Moment;
use crate::source::sources::Reach;
use crate::source::{IncomingBlob, OriginError};

/// One download.
#[derive(Clone, Copy)]
pub(super) struct Fill<'a> {
    /// What it works with.
    pub(super) parts: &'a Inner,
    /// The repository that it asks through.
    pub(super) repo: &'a RepoName,
    /// When it was started.
    pub(super) moment: Moment,
    /// The blob, and the registry that it comes from.
    pub(super) key: &'a Key,
    /// Who may be asked.
    pub(super) reach: Reach,
    /// Who gave bytes.
    pub(super) gave: &'a Mutex<Vec<Giver>>,
    /// Whether a sibling has broken off.
    pub(super) has_sick_sibling: &'a AtomicBool,
    /// Who waits for it.
    pub(super) attendance: &'a Attendance,
}

/// How a download ended.
pub(super) enum Ended {
    /// Before bytes came in: the last word to those who wait.
    Early(Head),
    /// Verified and kept.
    Kept,
    /// Verified, and here already: it came to show that its registry has it.
    Shown,
    /// Verified, and not kept because the disk failed at the end.
    NotKept,
    /// The bytes were wrong.
    Mismatch,
    /// The source died and did not come back.
    Broken,
    /// The disk failed on the way.
    Disk,
    /// Nobody waited for it any more.
    Deserted,
    /// The edge goes down.
    Cancelled,
}

/// What a download begins with.
struct Start {
    size: u64,
    here: Spans,
    /// The answer to the first question, from the first byte that is not here on, and who gave it; none when all are.
    first: Option<(Body, Giver)>,
    round_trip: Duration,
}

/// How often, and after which pauses, a file that another download has open is tried to be opened.
const OPEN_TRIES: u32 = 50;
const OPEN_PAUSE: Duration = Duration::from_millis(10);

// === impl Fill ===

impl Fill<'_> {
    /// Brings the blob in.
    pub(super) async fn run(self, head: &watch::Sender<Head>) -> Ended {
        // What is here needs no turn: it takes no connection, and those who bring something in may take their time.
        if let Some(ended) = self.look(head).await {
            return ended;
        }
        let turn = self.parts.turns.take(self.key.upstream.as_deref());
        let Ok(Some(_turn)) = timeout(self.parts.config.turn_timeout, turn).await else {
            return Ended::Early(Head::Failed(OriginError::Busy));
        };
        head.send_replace(Head::Asking);
        // It may have come in meanwhile.
        if let Some(ended) = self.look(head).await {
            return ended;
        }
        match self.open().await {
            Ok((partial, left)) => self.fill(partial, left, head).await,
            Err(error) => self.pass(&error),
        }
    }

    /// Looks whether the blob is here, and hashes it if that is in doubt; none when it has to come, be it to show that its
    /// registry has it.
    async fn look(&self, head: &watch::Sender<Head>) -> Option<Ended> {
        let found = self.parts.cache.blob(&self.key.digest).await?;
        let resolver = &self.parts.resolver;
        if !Box::pin(resolver.may_give(self.repo, &self.key.digest)).await {
            return None;
        }
        match found {
            Found::Held(_) | Found::Sound(_) => Some(Ended::Early(Head::Here)),
            Found::Doubtful(blob) => Some(self.verify(blob, head).await),
        }
    }

    /// Has every reader go on by itself, because the disk takes nothing.
    fn pass(&self, error: &io::Error) -> Ended {
        if error.kind() != io::ErrorKind::WouldBlock {
            self.parts.cache.fill_failed(error);
        }
        Ended::Early(Head::Passing)
    }

    async fn fill(
        &self,
        mut partial: Partial,
        left: Option<Left>,
        head: &watch::Sender<Head>,
    ) -> Ended {
        let mut resumed = Ok(None);
        if let Some(left) = left {
            resumed = self.resume(left).await;
            if matches!(resumed, Ok(None)) {
                partial = match self.anew(partial).await {
                    Ok(partial) => partial,
                    Err(error) => return self.pass(&error),
                };
            }
        }
        let start = match resumed {
            Ok(None) => {
                let asked = self.ask_first(0).await;
                asked.map(|answer| Start::new(Spans::default(), answer))
            }
            Ok(Some(start)) => Ok(start),
            Err(error) => Err(error),
        };
        let ended = match start {
            Ok(start) => self.land(start, &partial, head).await,
            Err(error) => Ended::Early(Head::Failed(error)),
        };
        self.put_away(partial, &ended).await;
        ended
    }

    /// Deletes what an earlier download left, and opens another file: readers of that one may have it open.
    async fn anew(&self, left: Partial) -> io::Result<Partial> {
        let (cache, digest, lane) = (self.parts.cache.clone(), self.key.digest, self.key.lane());
        blocking(move || {
            left.discard()?;
            cache.partial(&digest, lane)
        })
        .await
    }

    /// Hashes a blob that is here and doubtful, while readers follow.
    async fn verify(&self, blob: BlobFile, head: &watch::Sender<Head>) -> Ended {
        let here = std::iter::once(0..blob.size).collect();
        let (writer, landing) = Landing::new(
            Arc::clone(&blob.file),
            None,
            blob.size,
            self.key.digest,
            here,
        );
        landing.doubt();
        head.send_replace(Head::Landing(landing, SourceKind::Disk));
        // Those who read have their status, and what comes before the end, by then.
        let Ok(_turn) = self.parts.verifying.acquire().await else {
            return Ended::Cancelled;
        };
        let writer = writer.until(self.parts.tasks.token());
        let (cache, digest) = (self.parts.cache.clone(), self.key.digest);
        let counted = self.parts.tasks.hold("verify");
        let verified = blocking(move || {
            let outcome = writer.hash_rest();
            let is_sound = outcome.is_ok() && writer.finish().is_ok();
            if is_sound {
                cache.vouch(&digest, &blob);
            } else if !writer.is_cancelled() {
                cache.condemn_file(&digest, &blob);
            }
            drop(counted);
            outcome.map(|()| is_sound)
        });
        match verified.await {
            Ok(true) => Ended::Kept,
            Ok(false) => Ended::Mismatch,
            Err(error) => {
                tracing::warn!(digest = %self.key.digest, %error, "cached file not read");
                Ended::Disk
            }
        }
    }

    /// Opens the file, with what an earlier download left of the blob.
    async fn open(&self) -> io::Result<(Partial, Option<Left>)> {
        let mut tries = OPEN_TRIES;
        loop {
            let opened = self.try_open().await;
            match opened {
                // An earlier download of the blob is just being put away.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries > 0 => {
                    tries -= 1;
                    sleep(OPEN_PAUSE).await;
                }
                opened => return opened,
            }
        }
    }

    async fn try_open(&self) -> io::Result<(Partial, Option<Left>)> {
        let (cache, digest, lane) = (self.parts.cache.clone(), self.key.digest, self.key.lane());
        blocking(move || {
            let partial = cache.partial(&digest, lane)?;
            if let Some(left) = Journal::read(&partial) {
                return Ok((partial, Some(left)));
            }
            // A reader of an earlier download may still have it open: it must not be cut off.
            if partial.size()? > 0 {
                partial.discard()?;
                return Ok((cache.partial(&digest, lane)?, None));
            }
            Ok((partial, None))
        })
        .await
    }

    /// Asks for what an earlier download has left to bring; none when that cannot be made use of.
    ///
    /// The source may have lied about the size then, or know no ranges: what is here is not to keep the blob from coming.
    async fn resume(&self, left: Left) -> Result<Option<Start>, OriginError> {
        let Left { size, here, of } = left;
        // As a version before left it, where all had one lane.
        if of != self.key.upstream {
            return Ok(None);
        }
        if let Some(gap) = here.gap(0, size) {
            return match self.ask_first(gap.start).await {
                Ok(answer) if answer.0.size == size => Ok(Some(Start::new(here, answer))),
                Ok(_) | Err(OriginError::Nonsense(_)) => Ok(None),
                Err(error) if error.is_out_of_range() => Ok(None),
                Err(error) => Err(error),
            };
        }
        let resolver = &self.parts.resolver;
        let (link, _) = resolver.blob_link(self.repo, &self.key.digest).await?;
        Ok((link.size == size).then_some(Start {
            size,
            here,
            first: None,
            round_trip: Duration::MAX,
        }))
    }

    /// Fills the landing, verifies it and publishes it.
    async fn land(&self, start: Start, partial: &Partial, head: &watch::Sender<Head>) -> Ended {
        let Start {
            size,
            here,
            first,
            round_trip,
        } = start;
        let parts = self.parts;
        let resolver = &parts.resolver;
        resolver.learn_blob(self.repo, &self.key.digest, size, self.moment);
        let file = Arc::clone(partial.file());
        let journal = Journal::new(size, self.key.upstream.clone());
        let (writer, landing) = Landing::new(file, journal, size, self.key.digest, here.clone());
        let writer = Arc::new(writer.until(parts.tasks.token()));
        let kind = first.as_ref().map(|(_, giver)| giver.kind);
        let kind = kind.unwrap_or(SourceKind::Origin);
        head.send_replace(Head::Landing(landing.clone(), kind));
        let is_resumed = here != Spans::default();
        if is_resumed {
            tracing::info!(digest = %self.key.digest, here_bytes = here.bytes(), "download resumed");
        }
        let crew = Crew {
            fill: *self,
            landing,
            writer: Arc::clone(&writer),
            schedule: Mutex::new(Schedule::new(size, here, parts.config.connections_max)),
            received: AtomicU64::new(0),
            writes: TaskTracker::new(),
            halt: Mutex::default(),
            began: Instant::now(),
            round_trip: Mutex::new(round_trip),
        };
        let hashed = hash_rest(&writer, is_resumed);
        match tokio::join!(crew.run(first), hashed) {
            (Ok(()), Ok(())) => match writer.finish() {
                Ok(()) => {
                    resolver.learn_possession(self.repo, &self.key.digest, size);
                    parts.sources.note_right(self.repo, &self.key.digest);
                    self.publish(partial, size).await
                }
                Err(mismatch) => self.mismatch(&mismatch.to_string(), is_resumed),
            },
            (Err(Stopped::Wrong(reason)), _) => self.mismatch(reason, is_resumed),
            (Err(Stopped::Broken), _) => Ended::Broken,
            (Err(Stopped::Deserted), _) => Ended::Deserted,
            (Err(Stopped::Disk(error)), _) | (Ok(()), Err(error)) => {
                parts.cache.fill_failed(&error);
                Ended::Disk
            }
        }
    }

    async fn publish(&self, partial: &Partial, size: u64) -> Ended {
        if let Some(Found::Held(_) | Found::Sound(_)) =
            self.parts.cache.blob(&self.key.digest).await
        {
            return Ended::Shown;
        }
        let (cache, partial) = (self.parts.cache.clone(), partial.clone());
        let home = self.parts.sources.home(&self.key.digest);
        // The download may be cancelled meanwhile, and the index is not to be closed before.
        let held = self.parts.tasks.hold("publish");
        let published = blocking(move || {
            let outcome = cache.publish(&partial, size, home);
            drop(held);
            outcome
        });
        match published.await {
            Ok(()) => Ended::Kept,
            Err(error) => {
                self.parts.cache.fill_failed(&error);
                Ended::NotKept
            }
        }
    }

    /// Keeps the file of a download that may go on, and deletes that of one that may not.
    async fn put_away(&self, partial: Partial, ended: &Ended) {
        let goes_on = match ended {
            Ended::Kept => return,
            Ended::Broken | Ended::Deserted | Ended::Early(_) => true,
            Ended::Shown | Ended::NotKept | Ended::Mismatch | Ended::Disk | Ended::Cancelled => {
                false
            }
        };
        blocking(move || {
            if goes_on && Journal::read(&partial).is_some() {
                return partial.release();
            }
            partial.discard()
        })
        .await
        .ok();
    }

    fn mismatch(&self, reason: &str, is_resumed: bool) -> Ended {
        tracing::warn!(digest = %self.key.digest, reason, is_resumed, "wrong bytes, nothing kept");
        if is_resumed {
            // Nobody knows which of them gave what was left. It begins anew, and who lies is found out then.
            self.parts.sources.count_mismatch(self.repo);
        } else {
            self.blame();
        }
        Ended::Mismatch
    }
}

// === impl Start ===

impl Start {
    fn new(here: Spans, (blob, giver): (IncomingBlob, Giver)) -> Self {
        Self {
            size: blob.size,
            here,
            round_trip: blob.round_trip,
            first: Some((blob.body, giver)),
        }
    }
}

// === impl Ended ===

impl Ended {
    pub(super) const fn label(&self) -> Outcome {
        match self {
            Self::Early(Head::Passing) | Self::Disk => Outcome::Disk,
            Self::Early(Head::Here) | Self::Kept | Self::Shown => Outcome::Kept,
            Self::Early(_) => Outcome::Refused,
            Self::NotKept => Outcome::NotKept,
            Self::Mismatch => Outcome::Mismatch,
            Self::Broken => Outcome::Broken,
            Self::Deserted => Outcome::Deserted,
            Self::Cancelled => Outcome::Ended,
        }
    }
}

/// Hashes what an earlier process left.
async fn hash_rest(writer: &Arc<Writer>, is_resumed: bool) -> io::Result<()> {
    if !is_resumed {
        return Ok(());
    }
    let writer = Arc::clone(writer);
    blocking(move || writer.hash_rest()).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
