//! A blob while it comes in: a growing file with several writers and many readers.
//!
//! What: `Landing::new` gives the [`Writer`] and a [`Landing`], which is a handle for any number of readers, each at its own
//! offset. Bytes are written in batches on blocking threads, in any order; as soon as they are, readers get them. They are
//! hashed in order: a batch that continues what is hashed from memory, one that came ahead from the file, later. A reader
//! that keeps up is handed the very bytes that came from the source; one that does not reads the file.
//!
//! Invariants: the last [`HELD_BACK_BYTES`] are given to nobody before all bytes are there and hash to the digest, so nobody
//! ever gets the end of a wrong blob. What is kept in memory is bounded by the writers' batches however large the blob.
//!
//! Failure: a source that fails, or wrong bytes, break the landing: readers get an error after the bytes that were there,
//! never an end. When the disk fails the landing is abandoned: it says how far it is hashed and hands out the hasher, so
//! that each reader can go on by itself.
//!
//! Cancellation: a reader that goes away is not noticed by anybody. A writer of which the last handle is dropped before
//! `Writer::finish` breaks the landing.
//!
//! Crash: what is in the file is written down behind it, see `journal`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use outport_core::oci::digest::{Digest, Hasher};
use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::recent::Recent;
use super::spans::Spans;

/// How many bytes at the end of a blob nobody gets before its digest has matched.
pub const HELD_BACK_BYTES: u64 = 64 << 10;

/// How much of the file is read at once when it has to be hashed.
const HASH_READ_BYTES: usize = 1 << 20;

/// A blob on its way in, to be read; cheap to clone.
#[derive(Clone, Debug)]
pub struct Landing(Arc<Inner>);

/// Fills a [`Landing`], and hashes what is there until it is told to end.
#[derive(Debug)]
pub struct Writer {
    landing: Landing,
    ending: CancellationToken,
}

/// Whether more bytes will come.
#[derive(Clone, Debug)]
pub enum State {
    /// They will.
    Filling,
    /// All are there, and hash to the digest.
    Complete,
    /// The source failed or the bytes were wrong.
    Broken,
    /// The disk failed: whoever wants the rest fetches it from here.
    Abandoned(Box<Position>),
}

/// A place in a blob, with the hasher that has seen all bytes before it.
#[derive(Clone, Debug)]
pub struct Position {
    /// How many bytes lie before it.
    pub offset: u64,
    /// Has seen them.
    pub hasher: Hasher,
}

/// The bytes of a landing are not the blob's.
#[derive(Debug, thiserror::Error)]
#[error("content of {length} bytes hashes to {actual}, not {expected}")]
pub struct Mismatch {
    /// The digest asked for.
    pub expected: Digest,
    /// The digest of what came.
    pub actual: Digest,
    /// How much came.
    pub length: u64,
}

/// A reader's word that it waits for bytes; taken back when it is dropped.
#[derive(Debug)]
pub struct Want {
    landing: Landing,
    id: u64,
}

#[derive(Debug)]
struct Inner {
    size: u64,
    digest: Digest,
    file: Arc<File>,
    journal: Option<Journal>,
    arrived: Mutex<Arrived>,
    hashed: Mutex<Position>,
    state: watch::Sender<State>,
    wants: Mutex<Wants>,
    wanted: Notify,
}

/// What is there.
#[derive(Debug)]
struct Arrived {
    spans: Spans,
    recent: Recent,
    is_verified: bool,
    /// Whether all bytes were here before, and may have been written to since: then no reader gets the end of what it reads, were
    /// it in the middle, before it is known that they were not.
    is_doubtful: bool,
}

#[derive(Debug, Default)]
struct Wants {
    ranges: BTreeMap<u64, Range<u64>>,
    next_id: u64,
}

// === impl Landing ===

impl Landing {
    /// Starts the landing of a blob of `size` bytes in a file that holds those of `here` already, unhashed.
    ///
    /// With a journal, what arrives is written down there.
    pub(super) fn new(
        file: Arc<File>,
        journal: Option<Journal>,
        size: u64,
        digest: Digest,
        here: Spans,
    ) -> (Writer, Self) {
        let landing = Self(Arc::new(Inner {
            size,
            digest,
            file,
            journal,
            arrived: Mutex::new(Arrived {
                spans: here,
                recent: Recent::default(),
                is_verified: false,
                is_doubtful: false,
            }),
            hashed: Mutex::new(Position::start(digest)),
            state: watch::Sender::new(State::Filling),
            wants: Mutex::default(),
            wanted: Notify::new(),
        }));
        let writer = Writer {
            landing: landing.clone(),
            ending: CancellationToken::new(),
        };
        (writer, landing)
    }

    /// Returns the size of the blob in bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Returns the growing file.
    pub fn file(&self) -> &Arc<File> {
        &self.0.file
    }

    /// Follows whether more will come; changes also whenever something has.
    pub fn state(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
    }

    /// Whether it is, or may become, the blob.
    pub fn is_sound(&self) -> bool {
        matches!(&*self.0.state.borrow(), State::Filling | State::Complete)
    }

    /// Has the end of whatever is read held back until all bytes have been hashed, as they may have been written to.
    pub(super) fn doubt(&self) {
        self.0.arrived.lock().is_doubtful = true;
    }

    /// Returns up to where the bytes of a range may be read; where it starts when none may.
    pub fn readable(&self, range: &Range<u64>) -> u64 {
        let arrived = self.0.arrived.lock();
        let readable = arrived.readable(range.start, self.0.size);
        if arrived.is_doubtful && !arrived.is_verified {
            let held = range.end.saturating_sub(HELD_BACK_BYTES);
            return readable.min(held).max(range.start);
        }
        readable.min(range.end)
    }

    /// Returns bytes from `offset` on, if they may be read, came a moment ago and are still in memory.
    pub fn recent(&self, offset: u64) -> Option<Bytes> {
        let arrived = self.0.arrived.lock();
        let bytes = arrived.recent.get(offset)?;
        let readable = arrived.readable(offset, self.0.size) - offset;
        match usize::try_from(readable) {
            Ok(0) => None,
            Ok(readable) if readable < bytes.len() => Some(bytes.slice(..readable)),
            _ => Some(bytes),
        }
    }

    /// Says that a reader waits for the bytes of `range`, of which the first are not there.
    pub fn want(&self, range: Range<u64>) -> Want {
        let id = {
            let mut wants = self.0.wants.lock();
            let id = wants.next_id;
            wants.next_id += 1;
            wants.ranges.insert(id, range);
            id
        };
        self.0.wanted.notify_one();
        Want {
            landing: self.clone(),
            id,
        }
    }

    /// Waits until another reader waits for bytes.
    pub(super) async fn wanted(&self) {
        self.0.wanted.notified().await;
    }

    /// Returns what readers wait for.
    pub(super) fn wants(&self) -> Vec<Range<u64>> {
        self.0.wants.lock().ranges.values().cloned().collect()
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        self.landing.0.wants.lock().ranges.remove(&self.id);
    }
}

// === impl Writer ===

impl Writer {
    /// Has it hash no more of the file when the edge ends: of a large blob, that would take long.
    pub(super) fn until(mut self, ending: CancellationToken) -> Self {
        self.ending = ending;
        self
    }

    /// Whether it was told to end.
    pub(super) fn is_cancelled(&self) -> bool {
        self.ending.is_cancelled()
    }

    /// Returns the size of the blob in bytes.
    pub(super) fn size(&self) -> u64 {
        self.landing.size()
    }

    /// Returns how many bytes are there.
    pub(super) fn arrived(&self) -> u64 {
        self.landing.0.arrived.lock().spans.bytes()
    }

    /// Writes bytes at `offset`, lets readers have them, and hashes what can be; blocks.
    ///
    /// When the disk is full, and `relieve` has made room, once more; when it fails the landing is abandoned.
    pub(crate) fn write(
        &self,
        offset: u64,
        batch: &[Bytes],
        relieve: impl FnOnce() -> bool,
    ) -> io::Result<()> {
        let mut outcome = self.try_write(offset, batch);
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        if outcome.as_ref().is_err_and(is_full) && relieve() {
            outcome = self.try_write(offset, batch);
        }
        if outcome.is_err() {
            self.abandon();
        }
        outcome
    }

    /// Hashes what is there and follows on what is hashed; blocks.
    pub(super) fn hash_rest(&self) -> io::Result<()> {
        let outcome = self.hash(u64::MAX, &[]);
        if outcome.is_err() {
            self.abandon();
        }
        outcome
    }

    /// Compares the digest, and lets readers have the end.
    pub(super) fn finish(&self) -> Result<(), Mismatch> {
        let inner = &*self.landing.0;
        let Position { offset, hasher } = inner.hashed.lock().clone();
        let actual = hasher.finish();
        if actual != inner.digest || offset != inner.size {
            return Err(Mismatch {
                expected: inner.digest,
                actual,
                length: offset,
            });
        }
        {
            let mut arrived = inner.arrived.lock();
            arrived.is_verified = true;
            // Readers that come late are many, and stay long; the page cache has it too.
            arrived.recent = Recent::default();
        }
        inner.state.send_replace(State::Complete);
        Ok(())
    }

    /// Gives the landing up because of the disk; readers go on without it.
    pub(crate) fn abandon(&self) {
        let position = self.landing.0.hashed.lock().clone();
        self.landing.0.arrived.lock().recent = Recent::default();
        let abandoned = State::Abandoned(Box::new(position));
        self.landing.0.state.send_replace(abandoned);
    }

    fn try_write(&self, offset: u64, batch: &[Bytes]) -> io::Result<()> {
        let inner = &*self.landing.0;
        let end = write_all(&inner.file, offset, batch)?;
        let spans = {
            let mut arrived = inner.arrived.lock();
            arrived.spans.insert(offset..end);
            arrived.recent.push(offset, batch);
            inner.journal.as_ref().map(|_| arrived.spans.clone())
        };
        if let (Some(journal), Some(spans)) = (&inner.journal, spans) {
            journal.record(&inner.file, &spans)?;
        }
        inner.state.send_modify(|_| {});
        self.hash(offset, batch)
    }

    /// Hashes the batch if it comes next, and then what came ahead.
    ///
    /// One writer at a time does; whoever finds another at it can go: that one looks again when it is done.
    fn hash(&self, offset: u64, batch: &[Bytes]) -> io::Result<()> {
        let inner = &*self.landing.0;
        loop {
            let Some(mut position) = inner.hashed.try_lock() else {
                return Ok(());
            };
            if position.offset == offset {
                for bytes in batch {
                    position.hasher.update(bytes);
                    position.offset += bytes.len() as u64;
                }
            }
            let mut end = self.arrived_from(position.offset);
            while position.offset < end {
                if self.is_cancelled() {
                    return Err(io::Error::other("the edge ends"));
                }
                position.hash_file(&inner.file, end)?;
                end = self.arrived_from(position.offset);
            }
            let hashed_to = position.offset;
            drop(position);
            if self.arrived_from(hashed_to) == hashed_to {
                return Ok(());
            }
        }
    }

    fn arrived_from(&self, offset: u64) -> u64 {
        self.landing.0.arrived.lock().spans.end_from(offset)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.landing.0.arrived.lock().recent = Recent::default();
        self.landing.0.state.send_if_modified(|state| {
            let is_filling = matches!(state, State::Filling);
            if is_filling {
                *state = State::Broken;
            }
            is_filling
        });
    }
}

/// Writes all of the batch and returns where it ends.
fn write_all(file: &File, mut offset: u64, batch: &[Bytes]) -> io::Result<u64> {
    let mut slices: Vec<_> = batch.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let mut slices = slices.as_mut_slice();
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match rustix::io::pwritev(file, &slices[..slices.len().min(SLICES_MAX)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count as u64;
                IoSlice::advance_slices(&mut slices, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(offset)
}

/// The most slices that one system call takes.
const SLICES_MAX: usize = 1024;

// === impl Position ===

impl Position {
    /// Returns the start of the blob.
    pub fn start(digest: Digest) -> Self {
        Self {
            offset: 0,
            hasher: Hasher::new(digest.algorithm()),
        }
    }

    fn hash_file(&mut self, file: &File, end: u64) -> io::Result<()> {
        let wanted = usize::try_from(end - self.offset).unwrap_or(usize::MAX);
        let mut buffer = vec![0; wanted.min(HASH_READ_BYTES)];
        file.read_exact_at(&mut buffer, self.offset)?;
        self.hasher.update(&buffer);
        self.offset += buffer.len() as u64;
        Ok(())
    }
}

// === impl Arrived ===

impl Arrived {
    fn readable(&self, offset: u64, size: u64) -> u64 {
        let end = self.spans.end_from(offset);
        if self.is_verified {
            return end;
        }
        end.min(size.saturating_sub(HELD_BACK_BYTES)).max(offset)
    }
}

#[cfg(test)]
pub(crate) mod tests;
