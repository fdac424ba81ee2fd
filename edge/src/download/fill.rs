//! The course of one download: ask, land, verify, publish.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use outport_core::body::{Body, BodyStream};
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::RepoName;
use outport_core::store::disk::Partial;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::landing::{Landing, WriteError, Writer};
use super::{Head, Inner};
use crate::metrics::Outcome;
use crate::source::{IncomingBlob, OriginError, Span};

/// One download.
pub(super) struct Fill<'a> {
    /// What it works with.
    pub(super) parts: &'a Inner,
    /// The repository that it asks through.
    pub(super) repo: &'a RepoName,
    /// The blob.
    pub(super) digest: &'a Digest,
}

/// How a download ended.
pub(super) enum Ended {
    /// Before bytes came in: the last word to those who wait.
    Early(Head),
    /// Verified and kept.
    Kept,
    /// Verified, and not kept because the disk failed at the end.
    NotKept,
    /// The bytes were wrong.
    Mismatch,
    /// The source died and did not come back.
    Broken,
    /// The disk failed on the way.
    Disk,
    /// The edge goes down.
    Cancelled,
}

/// How far one answer of the source has brought a download.
enum Pumped {
    /// To its end.
    Whole,
    /// Not to its end.
    Short,
}

/// Bytes that are written together.
#[derive(Default)]
struct Batch {
    frames: Vec<Bytes>,
    bytes: usize,
}

/// A writer, in hand or at work on the blocking pool.
enum Hand {
    Free(Box<Writer>),
    Busy(JoinHandle<Result<Box<Writer>, WriteError>>),
}

/// How long fewer bytes wait for more: each batch costs every reader a wake-up.
const LINGER: Duration = Duration::from_millis(2);

/// A try that brought fewer bytes than this counts as one in a row.
const PROGRESS_BYTES: u64 = 1 << 20;

// === impl Fill ===

impl Fill<'_> {
    /// Brings the blob in.
    pub(super) async fn run(self, head: &watch::Sender<Head>) -> Ended {
        let turn = timeout(
            self.parts.config.turn_timeout,
            Arc::clone(&self.parts.turns).acquire_owned(),
        );
        let Ok(Ok(_turn)) = turn.await else {
            return Ended::Early(Head::Failed(OriginError::Busy));
        };
        // It may have come in since whoever asked for it looked.
        if self.parts.cache.blob(self.digest).await.is_some() {
            return Ended::Early(Head::Here);
        }
        let IncomingBlob { size, body } = match self.ask(0).await {
            Ok(blob) => blob,
            Err(error) => return Ended::Early(Head::Failed(error)),
        };
        self.parts.resolver.learn_blob(self.repo, self.digest, size);
        let (cache, owned) = (self.parts.cache.clone(), *self.digest);
        let partial = match blocking(move || cache.partial(&owned)).await {
            Ok(partial) => partial,
            Err(error) => {
                self.parts.cache.fill_failed(&error);
                return Ended::Early(Head::Passing(size));
            }
        };
        let (writer, landing) = Landing::new(Arc::clone(partial.file()), size, *self.digest);
        head.send_replace(Head::Landing(landing));
        let ended = self.land(writer, body, &partial).await;
        if !matches!(ended, Ended::Kept) {
            blocking(move || partial.discard()).await.ok();
        }
        ended
    }

    /// Fills the landing, from as many answers as it takes.
    async fn land(&self, writer: Writer, mut body: Body, partial: &Partial) -> Ended {
        let mut failures = 0;
        let mut writer = Box::new(writer);
        loop {
            let start = writer.written();
            let pumped;
            (writer, pumped) = match self.pump(writer, body.into_stream()).await {
                Ok(pumped) => pumped,
                Err(WriteError::Disk(error)) => {
                    self.parts.cache.fill_failed(&error);
                    return Ended::Disk;
                }
                Err(WriteError::TooLong) => return self.mismatch("too long"),
            };
            if matches!(pumped, Pumped::Whole) {
                break;
            }
            if writer.written() - start >= PROGRESS_BYTES {
                failures = 0;
            }
            body = match self.resume(&writer, &mut failures).await {
                Ok(body) => body,
                Err(ended) => return ended,
            };
        }
        let size = writer.written();
        if let Err(mismatch) = writer.finish() {
            return self.mismatch(&mismatch.to_string());
        }
        let (cache, partial) = (self.parts.cache.clone(), partial.clone());
        match blocking(move || cache.publish(&partial, size)).await {
            Ok(()) => Ended::Kept,
            Err(error) => {
                self.parts.cache.fill_failed(&error);
                Ended::NotKept
            }
        }
    }

    /// Asks for the rest until there is an answer or it is no use.
    async fn resume(&self, writer: &Writer, failures: &mut u32) -> Result<Body, Ended> {
        let config = &self.parts.config;
        // The breaker may be open because of others.
        let mut rest = Duration::ZERO;
        while *failures < config.retries {
            let pause = config.retry_pause.saturating_mul(1 << (*failures).min(16));
            *failures += 1;
            sleep(pause.min(config.retry_pause_max).max(rest)).await;
            self.parts.metrics.resumes.inc();
            let from = writer.written();
            match self.ask(from).await {
                Ok(blob) if blob.size == writer.size() => return Ok(blob.body),
                Ok(_) => return Err(self.mismatch("the blob changed its size")),
                Err(error) if error.is_silence() => {
                    tracing::info!(digest = %self.digest, from_bytes = from, error = %error, "download not resumed yet");
                    rest = match error {
                        OriginError::Resting(rest) => rest,
                        _ => Duration::ZERO,
                    };
                }
                Err(_) => break,
            }
        }
        Err(Ended::Broken)
    }

    /// Moves one answer's bytes into the landing, a batch at a time; no more than two are gathered while one is written.
    ///
    /// Receiving goes on while a batch is hashed and written.
    async fn pump(
        &self,
        writer: Box<Writer>,
        mut body: BodyStream,
    ) -> Result<(Box<Writer>, Pumped), WriteError> {
        let missing = writer.missing();
        let mut received = 0;
        let mut batch = Batch::default();
        // The first bytes do not wait for more.
        let mut linger_until = Instant::now();
        let mut hand = Hand::Free(writer);
        let pumped = loop {
            let share = self.parts.batch_bytes();
            hand = match hand {
                Hand::Free(writer) if batch.is_due(share, linger_until) => {
                    let frames = std::mem::take(&mut batch).frames;
                    Hand::Busy(spawn_blocking(move || writer.written_with(frames)))
                }
                hand => hand,
            };
            let is_busy = matches!(hand, Hand::Busy(_));
            tokio::select! {
                biased;
                writer = hand.freed(), if is_busy => hand = Hand::Free(writer?),
                frame = body.next(), if batch.bytes < 2 * share => match frame {
                    Some(Ok(frame)) => {
                        received += frame.len() as u64;
                        self.parts.metrics.bytes.inc_by(frame.len() as u64);
                        if batch.bytes == 0 && received > frame.len() as u64 {
                            linger_until = Instant::now() + LINGER;
                        }
                        batch.push(frame);
                        if received > missing {
                            return Err(WriteError::TooLong);
                        }
                    }
                    Some(Err(error)) => {
                        tracing::info!(error = %error, "source broke off");
                        break Pumped::Short;
                    }
                    None if received < missing => break Pumped::Short,
                    None => break Pumped::Whole,
                },
                () = sleep_until(linger_until), if !is_busy && batch.bytes > 0 => {}
            }
        };
        let writer = match hand {
            Hand::Free(writer) => writer,
            mut busy @ Hand::Busy(_) => busy.freed().await?,
        };
        let last = spawn_blocking(move || writer.written_with(batch.frames));
        Ok((Hand::Busy(last).freed().await?, pumped))
    }

    async fn ask(&self, from: u64) -> Result<IncomingBlob, OriginError> {
        let span = Span::From(from);
        self.parts.origin.blob(self.repo, self.digest, span).await
    }

    fn mismatch(&self, reason: &str) -> Ended {
        tracing::warn!(digest = %self.digest, reason, "source sent wrong bytes, nothing kept");
        self.parts.origin.count_mismatch();
        Ended::Mismatch
    }
}

// === impl Ended ===

impl Ended {
    pub(super) const fn label(&self) -> Outcome {
        match self {
            Self::Early(Head::Passing(_)) | Self::Disk => Outcome::Disk,
            Self::Early(Head::Here) | Self::Kept => Outcome::Kept,
            Self::Early(_) => Outcome::Refused,
            Self::NotKept => Outcome::NotKept,
            Self::Mismatch => Outcome::Mismatch,
            Self::Broken => Outcome::Broken,
            Self::Cancelled => Outcome::Ended,
        }
    }
}

// === impl Batch ===

impl Batch {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push(frame);
    }

    fn is_due(&self, share: usize, linger_until: Instant) -> bool {
        self.bytes >= share || (self.bytes > 0 && Instant::now() >= linger_until)
    }
}

// === impl Hand ===

impl Hand {
    /// Waits for the writer to be free; not to be asked of one that is.
    async fn freed(&mut self) -> Result<Box<Writer>, WriteError> {
        match self {
            Self::Busy(job) => job
                .await
                .unwrap_or_else(|error| Err(WriteError::Disk(io::Error::other(error)))),
            Self::Free(_) => std::future::pending().await,
        }
    }
}

// === impl Writer ===

impl Writer {
    fn written_with(mut self: Box<Self>, frames: Vec<Bytes>) -> Result<Box<Self>, WriteError> {
        self.write(frames)?;
        Ok(self)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
