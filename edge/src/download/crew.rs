//! The connections of one download: what the schedule says, done.
//!
//! What: [`Crew::run`] hands claims to connections until all bytes are there. Each asks the source for its range, gathers
//! what comes into batches and has them written while it goes on receiving.
//!
//! Failure: a connection that breaks off leaves the rest of its claim to the next one, after a pause that grows as long as
//! nothing comes in. Cancellation: dropping the future drops the connections; a batch that is being written is written.

use std::io;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use outport_core::body::{Body, BodyStream};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batch::{Batch, Writing};
use super::fill::Fill;
use super::giver::Giver;
use super::landing::{Landing, Writer};
use super::schedule::{ClaimId, Ramp, Schedule};
use super::switch::Switch;
use crate::source::sources::Patience;
use crate::source::{OriginError, Span};

/// The connections of one download.
pub(super) struct Crew<'a> {
    pub(super) fill: Fill<'a>,
    pub(super) landing: Landing,
    pub(super) writer: Arc<Writer>,
    pub(super) schedule: Mutex<Schedule>,
    /// What came in, of all connections.
    pub(super) received: AtomicU64,
    /// The batches that are being written.
    pub(super) writes: TaskTracker,
    /// Has the connections end that are open now.
    pub(super) halt: Mutex<CancellationToken>,
    pub(super) began: Instant,
    /// How fast the source answers.
    pub(super) round_trip: Mutex<Duration>,
}

/// Why a crew stopped before its work was done.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The source died and did not come back.
    Broken,
    /// The source contradicted itself.
    Wrong(&'static str),
    /// The disk failed.
    Disk(io::Error),
    /// Nobody waits for it.
    Deserted,
}

/// What became of one connection.
enum Fetched {
    /// It brought all of its claim, or what was left of it.
    Whole,
    /// It broke off after so many bytes.
    Short(u64),
    /// It was told to end.
    Halted,
    /// It could not be made.
    Unanswered(OriginError),
}

/// What has gone wrong in a row.
struct Trouble {
    failures: u32,
    /// No connection is made before.
    until: Instant,
    /// Whether the source has refused one beside another: then there is one at a time.
    is_one_at_a_time: bool,
}

/// How long fewer bytes wait for more: each batch costs every reader a wake-up.
const LINGER: Duration = Duration::from_millis(2);

/// A connection that brought fewer bytes than this counts as a failure in a row: as if it had brought nothing.
const PROGRESS_BYTES: u64 = 64 << 10;

/// How often the number of connections is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long a download goes before its rate says something.
pub(super) const RATE_MIN_MS: u64 = 1000;

/// What comes by itself in this time is not worth a connection of its own to a reader that waits for it: a herd that reads
/// from many places costs one transfer.
pub(super) const AHEAD_SECONDS: u64 = 3;

/// How long a claim of a further connection should last.
const SHARE_SECONDS: u64 = 2;

// === impl Crew ===

impl Crew<'_> {
    /// Brings in what is missing; `first` is the answer to the first claim, if the source has been asked for it.
    ///
    /// When this returns nothing is being written any more: the next download may go on in the same file.
    pub(super) async fn run(&self, first: Option<(Body, Giver)>) -> Result<(), Stopped> {
        let outcome = self.bring(first).await;
        self.writes.close();
        self.writes.wait().await;
        outcome
    }

    async fn bring(&self, first: Option<(Body, Giver)>) -> Result<(), Stopped> {
        let mut fetches = FuturesUnordered::new();
        let mut ramp = Ramp::new(self.fill.parts.config.connections_max, self.began);
        let mut trouble = Trouble {
            failures: 0,
            until: self.began,
            is_one_at_a_time: false,
        };
        if let Some(first) = first
            && let Some((id, range)) = self.schedule.lock().claim(u64::MAX)
        {
            fetches.push(self.fetch(id, range, Some(first)));
        }
        let mut deserted = pin!(self.deserted());
        let mut switch = Switch::new(self.began);
        loop {
            let now = Instant::now();
            self.look_elsewhere(&mut switch, now);
            if trouble.failures > self.fill.parts.config.retries {
                if fetches.is_empty() {
                    return Err(Stopped::Broken);
                }
            } else if now >= trouble.until {
                let claims = if trouble.is_one_at_a_time {
                    self.hand_out_one(fetches.is_empty())
                } else {
                    self.hand_out(&mut ramp, now)
                };
                for (id, range) in claims {
                    if trouble.failures > 0 {
                        self.fill.parts.metrics.resumes.inc();
                    }
                    fetches.push(self.fetch(id, range, None));
                }
            }
            if fetches.is_empty() && self.schedule.lock().first_gap().is_none() {
                return Ok(());
            }
            let look = trouble.until.max(now + LOOK_INTERVAL);
            tokio::select! {
                Some((id, outcome)) = fetches.next() => {
                    self.schedule.lock().close(id);
                    self.note(outcome?, fetches.is_empty(), &mut trouble);
                }
                () = self.landing.wanted() => {}
                () = sleep_until(look) => {}
                () = &mut deserted => return Err(Stopped::Deserted),
            }
        }
    }

    /// Returns the next claim, if there is no connection.
    fn hand_out_one(&self, is_alone: bool) -> Vec<(ClaimId, Range<u64>)> {
        let claim = is_alone.then(|| self.schedule.lock().claim(u64::MAX));
        claim.flatten().into_iter().collect()
    }

    /// Returns the claims that connections are to be made for.
    fn hand_out(&self, ramp: &mut Ramp, now: Instant) -> Vec<(ClaimId, Range<u64>)> {
        let received = self.received.load(Ordering::Relaxed);
        let missing = self.writer.size().saturating_sub(self.writer.arrived());
        let connections = ramp.connections(now, [received, missing], *self.round_trip.lock());
        let elapsed_ms = u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX);
        let rate = received.saturating_mul(1000) / elapsed_ms.max(1);
        let mut schedule = self.schedule.lock();
        let mut claims = Vec::new();
        // Before that, nobody knows how fast bytes come.
        if elapsed_ms >= RATE_MIN_MS {
            for wanted in self.landing.wants() {
                claims.extend(schedule.claim_for(&wanted, AHEAD_SECONDS * rate));
            }
        }
        if schedule.claims() == 0 {
            claims.extend(schedule.claim(u64::MAX));
        }
        while schedule.claims() < connections
            && let Some(claim) = schedule.share(SHARE_SECONDS * rate / connections as u64)
        {
            claims.push(claim);
        }
        claims
    }

    /// Remembers what became of a connection, which was the last one or not.
    fn note(&self, fetched: Fetched, was_last: bool, trouble: &mut Trouble) {
        let config = &self.fill.parts.config;
        let mut rest = Duration::ZERO;
        match fetched {
            Fetched::Whole | Fetched::Halted => {
                trouble.failures = 0;
                return;
            }
            Fetched::Short(bytes) => {
                if bytes >= PROGRESS_BYTES {
                    trouble.failures = 0;
                }
            }
            // There are those who let only one in at a time, or not at once.
            Fetched::Unanswered(error) if !was_last && !error.is_silence() => {
                tracing::info!(digest = %self.fill.key.digest, %error, "no connection beside another");
                trouble.is_one_at_a_time = true;
                return;
            }
            Fetched::Unanswered(error) if error.is_silence() || error.is_too_many() => {
                tracing::info!(digest = %self.fill.key.digest, error = %error, "download not resumed yet");
                if let OriginError::Resting(until) = error {
                    // The breaker may be open because of others.
                    rest = until;
                }
            }
            Fetched::Unanswered(error) => {
                tracing::info!(digest = %self.fill.key.digest, error = %error, "download cannot be resumed");
                trouble.failures = u32::MAX;
                return;
            }
        }
        let pause = config
            .retry_pause
            .saturating_mul(1 << trouble.failures.min(16));
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.until = Instant::now() + pause.min(config.retry_pause_max).max(rest);
    }

    /// Brings in a claim, from the answer to it or by asking for it.
    async fn fetch(
        &self,
        id: ClaimId,
        range: Range<u64>,
        answer: Option<(Body, Giver)>,
    ) -> (ClaimId, Result<Fetched, Stopped>) {
        let (body, giver) = match answer {
            Some(answer) => answer,
            None => match self.ask(&range).await {
                Ok(answer) => answer,
                Err(fetched) => return (id, fetched),
            },
        };
        let _open = self.fill.parts.connection();
        let stream = body.into_stream();
        let fetched = self.pump(id, range.start, (stream, &giver)).await;
        if matches!(fetched, Ok(Fetched::Short(_))) {
            self.fill.broke_off(&giver);
        }
        (id, fetched)
    }

    async fn ask(&self, range: &Range<u64>) -> Result<(Body, Giver), Result<Fetched, Stopped>> {
        let size = self.writer.size();
        // Beside another connection, what is thrown away would come for nothing.
        let is_alone = self.schedule.lock().claims() == 1;
        let span = if range.end == size && is_alone {
            Span::Rest(range.start)
        } else if range.end == size {
            Span::From(range.start)
        } else {
            Span::Within(range.clone())
        };
        let asked = self.fill.ask(span, Patience::Download).await;
        let (blob, giver) = asked.map_err(|error| Ok(Fetched::Unanswered(error)))?;
        if blob.size != size {
            return Err(Err(Stopped::Wrong("the blob changed its size")));
        }
        let mut round_trip = self.round_trip.lock();
        *round_trip = blob.round_trip.min(*round_trip);
        Ok((blob.body, giver))
    }

    /// Moves an answer's bytes into the landing, a batch at a time; no more than two are gathered while one is written.
    ///
    /// Receiving goes on while a batch is hashed and written.
    async fn pump(
        &self,
        id: ClaimId,
        start: u64,
        (mut body, giver): (BodyStream, &Giver),
    ) -> Result<Fetched, Stopped> {
        let mut received = 0;
        let mut written_to = start;
        let mut batch = Batch::default();
        // The first bytes do not wait for more.
        let mut linger_until = Instant::now();
        let mut writing = Writing(None);
        let halt = self.halt.lock().clone();
        let mut halted = pin!(halt.cancelled());
        let fetched = loop {
            let share = self.fill.parts.batch_bytes();
            if writing.0.is_none() && batch.is_due(share, linger_until) {
                writing = self.write(&mut batch, &mut written_to);
            }
            let is_writing = writing.0.is_some();
            tokio::select! {
                biased;
                done = writing.done(), if is_writing => done.map_err(Stopped::Disk)?,
                frame = body.next(), if batch.bytes < 2 * share => match frame {
                    Some(Ok(frame)) => {
                        if batch.bytes == 0 && received > 0 {
                            linger_until = Instant::now() + LINGER;
                        }
                        if received == 0 {
                            self.fill.gave(giver);
                        }
                        let length = frame.len() as u64;
                        let own = self.take(id, length);
                        received += own;
                        batch.push(frame, own);
                        if own < length || self.schedule.lock().rest(id) == 0 {
                            break Fetched::Whole;
                        }
                    }
                    Some(Err(error)) => {
                        tracing::info!(digest = %self.fill.key.digest, error = %error, "source broke off");
                        break Fetched::Short(received);
                    }
                    None => break Fetched::Short(received),
                },
                () = &mut halted => break Fetched::Halted,
                () = sleep_until(linger_until), if !is_writing && batch.bytes > 0 => {}
            }
        };
        writing.done().await.map_err(Stopped::Disk)?;
        let mut last = self.write(&mut batch, &mut written_to);
        last.done().await.map_err(Stopped::Disk)?;
        Ok(fetched)
    }

    /// Counts bytes that came for a claim, and returns how many of them are its own.
    fn take(&self, id: ClaimId, bytes: u64) -> u64 {
        self.fill.parts.metrics.bytes.inc_by(bytes);
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.schedule.lock().advance(id, bytes)
    }

    fn write(&self, batch: &mut Batch, written_to: &mut u64) -> Writing {
        batch.gather();
        let Batch { frames, bytes, .. } = std::mem::take(batch);
        let (offset, writer) = (*written_to, Arc::clone(&self.writer));
        *written_to += bytes as u64;
        let cache = self.fill.parts.cache.clone();
        let held = self.fill.parts.tasks.hold("write");
        Writing(Some(self.writes.spawn_blocking(move || {
            // Goes last: an edge that ends waits until nothing of its cache is held any more.
            let _held = held;
            let (writer, cache) = (writer, cache);
            let missing = writer.size().saturating_sub(writer.arrived());
            writer.write(offset, &frames, || cache.relieve(missing))
        })))
    }
}
