//! Bytes of an upload session on their way to the disk.
//!
//! What: receiving, hashing and writing overlap. Frames are gathered into a batch while the batch before is hashed and
//! written on a blocking thread, and while the kernel flushes what was written before that, so that the last flush is short
//! whatever the size of the blob. No thread is held while a client is slow.
//!
//! Failure: what was written before an error is made durable and accounted for; after a failed flush, only what an earlier
//! flush covered. Cancellation: the batch in hand is written to its end, unaccounted for, and only then the lock is released.

use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::oci::digest::Hasher;
use crate::store::{AppendError, Appended, Content, Staged, StoreError};

use super::store_error;

/// How much is written before a flush of it is started.
const FLUSH_BYTES: u64 = 32 << 20;

/// How much may be written while a flush is under way: bounds what the last flush has to do.
const UNFLUSHED_BYTES_MAX: u64 = 256 << 20;

/// The most frames that go into one batch, which are the most slices one system call takes.
const BATCH_FRAMES_MAX: usize = 1024;

/// Takes all of `content` into the locked file of a session.
pub(super) async fn append(
    file: File,
    staged: Staged,
    content: Content<'_>,
    batch_bytes: impl Fn() -> usize + Send,
) -> Appended {
    let mut writer = Writer::new(file, &staged);
    let taken = writer.take(content, batch_bytes).await;
    let flushed = writer.finish().await;
    let Position { size, hasher } = writer.durable;
    Appended {
        staged: staged.advanced(size, hasher),
        outcome: taken.and(flushed.map_err(AppendError::from)),
    }
}

/// How far bytes have come.
#[derive(Clone)]
struct Position {
    size: u64,
    hasher: Hasher,
}

/// Frames that are written with one system call.
struct Batch {
    frames: Vec<Bytes>,
    bytes: usize,
}

struct Writer {
    file: Arc<File>,
    /// What is written, except by the job that is under way.
    written: Position,
    /// What a flush has covered.
    durable: Position,
    write: Option<JoinHandle<(Position, io::Result<()>)>>,
    flush: Option<Flush>,
}

struct Flush {
    covers: Position,
    job: JoinHandle<io::Result<()>>,
}

// === impl Writer ===

impl Writer {
    fn new(file: File, staged: &Staged) -> Self {
        let position = Position {
            size: staged.size(),
            hasher: staged.hasher().clone(),
        };
        Self {
            file: Arc::new(file),
            written: position.clone(),
            durable: position,
            write: None,
            flush: None,
        }
    }

    async fn take(
        &mut self,
        mut content: Content<'_>,
        batch_bytes: impl Fn() -> usize,
    ) -> Result<(), AppendError> {
        loop {
            let (batch, end) = Batch::gather(&mut content, batch_bytes()).await;
            self.settle_write().await?;
            self.mind_flush().await?;
            if batch.bytes > 0 {
                self.start_write(batch);
            }
            if let Some(end) = end {
                self.settle_write().await?;
                return end.map_err(AppendError::Content);
            }
        }
    }

    /// Makes everything that is written durable.
    async fn finish(&mut self) -> Result<(), StoreError> {
        self.settle_write().await?;
        self.settle_flush().await?;
        if self.written.size > self.durable.size {
            self.start_flush();
            self.settle_flush().await?;
        }
        Ok(())
    }

    fn start_write(&mut self, batch: Batch) {
        let file = Arc::clone(&self.file);
        let mut position = self.written.clone();
        self.write = Some(spawn_blocking(move || {
            let outcome = batch.write(&file, &mut position);
            // The lock goes with the file: it must be released before anybody learns that this is done.
            drop(file);
            (position, outcome)
        }));
    }

    async fn settle_write(&mut self) -> Result<(), StoreError> {
        let Some(job) = self.write.take() else {
            return Ok(());
        };
        let (position, outcome) = job.await.map_err(io::Error::other).map_err(store_error)?;
        self.written = position;
        outcome.map_err(store_error)
    }

    /// Starts a flush when there is enough for one, and waits when the disk has fallen far behind.
    async fn mind_flush(&mut self) -> Result<(), StoreError> {
        let unflushed = self.written.size - self.durable.size;
        if let Some(flush) = &self.flush
            && (flush.job.is_finished() || unflushed >= UNFLUSHED_BYTES_MAX)
        {
            self.settle_flush().await?;
        }
        if self.flush.is_none() && self.written.size - self.durable.size >= FLUSH_BYTES {
            self.start_flush();
        }
        Ok(())
    }

    fn start_flush(&mut self) {
        let file = Arc::clone(&self.file);
        self.flush = Some(Flush {
            covers: self.written.clone(),
            job: spawn_blocking(move || {
                let outcome = file.sync_data();
                drop(file);
                outcome
            }),
        });
    }

    async fn settle_flush(&mut self) -> Result<(), StoreError> {
        let Some(Flush { covers, job }) = self.flush.take() else {
            return Ok(());
        };
        job.await
            .map_err(io::Error::other)
            .flatten()
            .map_err(store_error)?;
        self.durable = covers;
        Ok(())
    }
}

// === impl Batch ===

impl Batch {
    /// Gathers frames up to about `bytes_max`, and says how the content ended if it did.
    async fn gather(content: &mut Content<'_>, bytes_max: usize) -> (Self, Option<io::Result<()>>) {
        let mut batch = Self {
            frames: Vec::new(),
            bytes: 0,
        };
        while batch.bytes < bytes_max && batch.frames.len() < BATCH_FRAMES_MAX {
            match content.next().await {
                Some(Ok(frame)) if frame.is_empty() => {}
                Some(Ok(frame)) => {
                    batch.bytes += frame.len();
                    batch.frames.push(frame);
                }
                Some(Err(error)) => return (batch, Some(Err(error))),
                None => return (batch, Some(Ok(()))),
            }
        }
        (batch, None)
    }

    /// Writes the frames behind `position`, which moves behind what was written.
    fn write(self, file: &File, position: &mut Position) -> io::Result<()> {
        let start = position.size;
        let outcome = self.write_slices(file, &mut position.size);
        let mut written = usize::try_from(position.size - start).unwrap_or(self.bytes);
        for frame in self.frames {
            let taken = frame.len().min(written);
            position.hasher.update(&frame[..taken]);
            written -= taken;
        }
        outcome
    }

    fn write_slices(&self, file: &File, end: &mut u64) -> io::Result<()> {
        let mut slices: Vec<_> = self
            .frames
            .iter()
            .map(|frame| IoSlice::new(frame))
            .collect();
        let mut slices = slices.as_mut_slice();
        while !slices.is_empty() {
            match rustix::io::pwritev(file, slices, *end) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    *end += count as u64;
                    IoSlice::advance_slices(&mut slices, count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
