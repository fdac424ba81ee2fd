//! A range of an open file as a body.
//!
//! What: 224 KiB at a time by `preadv2(RWF_NOWAIT)`, which takes what is in the page cache and never waits for the disk; a
//! cold page goes to the blocking pool. Measured against every other way: mapping a chunk of this size costs as much as
//! copying it, and one of 1 MiB, which takes a quarter less time, would be held by every stream that stalls, besides being
//! `unsafe` and a fault on the reactor for a cold page. `sendfile` and `splice` cost the server less, and a client that reads
//! from the page cache what nobody has had in the processor's cache that much more: half the throughput here.
//!
//! Invariants: one chunk per body is in memory. Bytes come from the range and nowhere else. Failure: a file shorter than
//! its range is `UnexpectedEof`, so that a cut file can never end cleanly.
//!
//! Why buffers are recycled: an allocation of this size goes back to the kernel when it is freed, and the page faults and
//! the zeroes of the next one cost as much as the copy.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::store::disk::Seal;

/// How much is read at a time. With what hyper holds besides, a stream that stalls takes 256 KiB.
pub(super) const CHUNK_BYTES: usize = 224 * 1024;

/// Where chunks come from.
static CHUNKS: Pool = Pool::of(CHUNK_BYTES);

/// Where chunks come from on a way that holds as much itself.
static SMALL_CHUNKS: Pool = Pool::of(64 * 1024);

/// How many buffers that nobody uses are kept.
const SPARE_BUFFERS: usize = 16;

/// For how long what a file was found to be when it was opened is good for its only chunk: most are read at once. One may have
/// to wait: for the parts before it, or for the window of its stream.
const LOOKED_AT_FOR: Duration = Duration::from_millis(10);

/// Buffers of one size that nobody uses.
#[derive(Debug)]
struct Pool {
    /// How large each is.
    bytes: usize,
    spare: Mutex<Vec<Vec<u8>>>,
}

/// What is left of a range of an open file.
#[derive(Debug)]
pub(super) struct FileBody {
    file: Arc<File>,
    range: Range<u64>,
    /// A read that had to wait for the disk.
    waiting: Option<JoinHandle<io::Result<Bytes>>>,
    /// Whether the file system can say that it would have to wait.
    nowait: bool,
    chunks: &'static Pool,
    /// What is on the file as long as it is as it was, which is looked at before the last chunk is given, unless that is read
    /// at once; with when that was known.
    seal: Option<(Seal, Instant)>,
    is_begun: bool,
    failure: Option<OnFailure>,
}

/// What is done when the file cannot be read.
struct OnFailure(Box<dyn FnOnce() + Send>);

/// A buffer, of which `filled` bytes have been read; goes back to the spare ones when it is dropped.
struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
    pool: &'static Pool,
}

// === impl FileBody ===

impl FileBody {
    pub(super) const fn new(file: Arc<File>, range: Range<u64>) -> Self {
        Self {
            file,
            range,
            waiting: None,
            nowait: true,
            chunks: &CHUNKS,
            seal: None,
            is_begun: false,
            failure: None,
        }
    }

    pub(super) fn on_failure(&mut self, tell: Box<dyn FnOnce() + Send>) {
        self.failure = Some(OnFailure(tell));
    }

    pub(super) fn as_long_as(&mut self, seal: Seal) {
        self.seal = Some((seal, Instant::now()));
    }

    pub(super) const fn in_small_chunks(&mut self) {
        self.chunks = &SMALL_CHUNKS;
    }

    pub(super) const fn remaining(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let mut polled = self.poll_read(cx);
        if matches!(&polled, Poll::Ready(Some(Ok(_)))) {
            let is_spoilt = |(seal, since): (Seal, Instant)| {
                let is_late = self.is_begun || since.elapsed() > LOOKED_AT_FOR;
                is_late && !seal.is_on(&self.file)
            };
            if self.remaining() == 0 && self.seal.is_some_and(is_spoilt) {
                let error = io::Error::new(io::ErrorKind::InvalidData, "the file was written to");
                polled = Poll::Ready(Some(Err(error)));
            }
            self.is_begun = true;
        }
        if matches!(&polled, Poll::Ready(Some(Err(_))))
            && let Some(OnFailure(tell)) = self.failure.take()
        {
            tell();
        }
        polled
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.remaining() == 0 {
            return Poll::Ready(None);
        }
        if self.waiting.is_none() && self.nowait {
            match read_chunk(self.chunks, &self.file, &self.range, ReadWriteFlags::NOWAIT) {
                Ok(bytes) => return Poll::Ready(Some(self.take(bytes))),
                Err(Errno::AGAIN) => {}
                // Not every file system can say: all reads of this file go to the pool then.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => self.nowait = false,
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
        let waiting = self.waiting.get_or_insert_with(|| {
            let file = Arc::clone(&self.file);
            let (chunks, range) = (self.chunks, self.range.clone());
            tokio::task::spawn_blocking(move || {
                read_chunk(chunks, &file, &range, ReadWriteFlags::empty()).map_err(io::Error::from)
            })
        });
        let read = ready!(Pin::new(waiting).poll(cx));
        self.waiting = None;
        Poll::Ready(Some(
            read.map_err(io::Error::other)
                .flatten()
                .and_then(|bytes| self.take(bytes)),
        ))
    }

    fn take(&mut self, bytes: Bytes) -> io::Result<Bytes> {
        if bytes.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("file ends {} bytes early", self.remaining()),
            ));
        }
        self.range.start += bytes.len() as u64;
        Ok(bytes)
    }
}

/// Reads the first chunk of `range`, or as much of it as is at hand; nothing at the end of the file.
fn read_chunk(
    pool: &'static Pool,
    file: &File,
    range: &Range<u64>,
    flags: ReadWriteFlags,
) -> Result<Bytes, Errno> {
    let wanted = usize::try_from(range.end - range.start)
        .map_or(pool.bytes, |remaining| remaining.min(pool.bytes));
    if wanted < pool.bytes {
        let mut bytes = vec![0; wanted];
        let filled = read_at(file, &mut bytes, range.start, flags)?;
        bytes.truncate(filled);
        return Ok(bytes.into());
    }
    let mut buffer = pool.take();
    buffer.filled = read_at(file, &mut buffer.bytes, range.start, flags)?;
    Ok(Bytes::from_owner(buffer))
}

fn read_at(
    file: &File,
    bytes: &mut [u8],
    offset: u64,
    flags: ReadWriteFlags,
) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| {
        rustix::io::preadv2(file.as_fd(), &mut [IoSliceMut::new(bytes)], offset, flags)
    })
}

// === impl OnFailure ===

impl fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnFailure")
    }
}

// === impl Pool ===

impl Pool {
    const fn of(bytes: usize) -> Self {
        Self {
            bytes,
            spare: Mutex::new(Vec::new()),
        }
    }

    fn take(&'static self) -> Buffer {
        let spare = self.spare.lock().pop();
        Buffer {
            bytes: spare.unwrap_or_else(|| vec![0; self.bytes]),
            filled: 0,
            pool: self,
        }
    }
}

// === impl Buffer ===

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = self.pool.spare.lock();
        if spare.len() < SPARE_BUFFERS {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}
