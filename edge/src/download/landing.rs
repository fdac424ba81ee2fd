//! A blob while it comes in: a growing file with one writer and many readers.
//!
//! What: [`Landing::new`] gives the one [`Writer`] and a [`Landing`], which is a handle for any number of readers, each at
//! its own offset. Bytes are hashed and written in batches on a blocking thread; then a watermark moves and readers go on.
//! A reader that keeps up is handed the very bytes that came from the source; one that does not reads the file.
//!
//! Invariants: no byte at or behind the watermark is given to anybody; the watermark stays [`HELD_BACK_BYTES`] short of the
//! end until all bytes are there and hash to the digest, so nobody ever gets the end of a wrong blob. What is kept in
//! memory is bounded by the writer's batches however large the blob.
//!
//! Failure: a source that fails, or wrong bytes, break the landing: readers get an error after the bytes before the
//! watermark, never an end. When the disk fails the landing is abandoned: it says how far it came and hands out the hasher,
//! so that each reader can go on by itself.
//!
//! Cancellation: a reader that goes away is not noticed by anybody. A writer that is dropped before [`Writer::finish`]
//! breaks the landing.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use outport_core::oci::digest::{Digest, Hasher};
use parking_lot::Mutex;
use tokio::sync::watch;

/// How many bytes at the end of a blob nobody gets before its digest has matched.
pub const HELD_BACK_BYTES: u64 = 64 << 10;

/// How many bytes that are written already are kept in memory for readers that keep up.
///
/// The last two batches, so that it follows the memory that a download may use; and so much at least.
const RECENT_BYTES_MIN: usize = 256 << 10;

/// A blob on its way in, to be read; cheap to clone.
#[derive(Clone, Debug)]
pub struct Landing(Arc<Inner>);

/// The one writer of a [`Landing`].
#[derive(Debug)]
pub struct Writer {
    landing: Landing,
    digest: Digest,
    position: Position,
    progress: watch::Sender<Progress>,
}

/// How far a landing has come.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The watermark: bytes before it may be read.
    pub released: u64,
    /// Whether there will be more.
    pub state: State,
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

/// Why a writer stopped.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk failed, and the landing is abandoned.
    #[error("write the cache file")]
    Disk(#[source] io::Error),
    /// The source sent more than it said.
    #[error("the source sent more bytes than the blob has")]
    TooLong,
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

#[derive(Debug)]
struct Inner {
    size: u64,
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
    recent: Mutex<Recent>,
}

/// The bytes that came last, in order and without gaps.
#[derive(Debug, Default)]
struct Recent {
    chunks: VecDeque<(u64, Bytes)>,
    bytes: usize,
}

// === impl Landing ===

impl Landing {
    /// Starts the landing of a blob of `size` bytes in an empty file.
    pub fn new(file: Arc<File>, size: u64, digest: Digest) -> (Writer, Self) {
        let (sender, receiver) = watch::channel(Progress {
            released: 0,
            state: State::Filling,
        });
        let landing = Self(Arc::new(Inner {
            size,
            file,
            progress: receiver,
            recent: Mutex::default(),
        }));
        let writer = Writer {
            landing: landing.clone(),
            digest,
            position: Position {
                offset: 0,
                hasher: Hasher::new(digest.algorithm()),
            },
            progress: sender,
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

    /// Follows the watermark.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.0.progress.clone()
    }

    /// Returns bytes from `offset` on if they came a moment ago and are still in memory.
    pub fn recent(&self, offset: u64) -> Option<Bytes> {
        self.0.recent.lock().get(offset)
    }
}

// === impl Writer ===

impl Writer {
    /// Returns how many bytes are written.
    pub const fn written(&self) -> u64 {
        self.position.offset
    }

    /// Returns the size of the blob in bytes.
    pub fn size(&self) -> u64 {
        self.landing.size()
    }

    /// Returns how many bytes are to come.
    pub fn missing(&self) -> u64 {
        self.landing.size() - self.position.offset
    }

    /// Hashes and writes the next bytes, and lets readers have them; blocks.
    pub fn write(&mut self, batch: Vec<Bytes>) -> Result<(), WriteError> {
        let mut offset = self.position.offset;
        let start = offset;
        for bytes in &batch {
            if bytes.len() as u64 > self.landing.size() - offset {
                return Err(WriteError::TooLong);
            }
            if let Err(error) = self.landing.0.file.write_all_at(bytes, offset) {
                self.abandon();
                return Err(WriteError::Disk(error));
            }
            offset += bytes.len() as u64;
        }
        for bytes in &batch {
            self.position.hasher.update(bytes);
        }
        self.position.offset = offset;
        self.landing.0.recent.lock().push(start, batch);
        let released = offset.min(self.landing.size().saturating_sub(HELD_BACK_BYTES));
        self.progress
            .send_modify(|progress| progress.released = released);
        Ok(())
    }

    /// Compares the digest, and lets readers have the end.
    pub fn finish(self) -> Result<(), Mismatch> {
        let size = self.landing.size();
        let actual = self.position.hasher.clone().finish();
        if actual != self.digest || self.position.offset != size {
            return Err(Mismatch {
                expected: self.digest,
                actual,
                length: self.position.offset,
            });
        }
        self.progress.send_replace(Progress {
            released: size,
            state: State::Complete,
        });
        Ok(())
    }

    /// Gives the landing up because of the disk; readers go on without it.
    pub fn abandon(&self) {
        self.progress.send_modify(|progress| {
            progress.state = State::Abandoned(Box::new(self.position.clone()));
        });
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.progress.send_if_modified(|progress| {
            let is_filling = matches!(progress.state, State::Filling);
            if is_filling {
                progress.state = State::Broken;
            }
            is_filling
        });
    }
}

// === impl Recent ===

impl Recent {
    fn push(&mut self, mut offset: u64, batch: Vec<Bytes>) {
        let batch_bytes: usize = batch.iter().map(Bytes::len).sum();
        let bytes_max = RECENT_BYTES_MIN.max(2 * batch_bytes);
        for bytes in batch {
            let length = bytes.len();
            self.chunks.push_back((offset, bytes));
            self.bytes += length;
            offset += length as u64;
        }
        while self.bytes > bytes_max
            && let Some((_, oldest)) = self.chunks.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    fn get(&self, offset: u64) -> Option<Bytes> {
        let after = self.chunks.partition_point(|(start, _)| *start <= offset);
        let (start, bytes) = self.chunks.get(after.checked_sub(1)?)?;
        let skip = usize::try_from(offset - start).ok()?;
        (skip < bytes.len()).then(|| bytes.slice(skip..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outport_core::oci::digest::Algorithm;

    fn landing(content: &[u8]) -> (Writer, Landing) {
        let file = Arc::new(tempfile::tempfile().unwrap());
        Landing::new(
            file,
            content.len() as u64,
            Algorithm::Sha256.digest(content),
        )
    }

    fn released(landing: &Landing) -> u64 {
        landing.progress().borrow().released
    }

    fn pieces(content: &[u8], length: usize) -> Vec<Vec<Bytes>> {
        let piece = |piece: &[u8]| vec![Bytes::copy_from_slice(piece)];
        content.chunks(length).map(piece).collect()
    }

    #[test]
    fn the_end_is_held_back_until_the_digest_matched() {
        let content: Vec<u8> = (0..=u8::MAX).cycle().take(200_000).collect();
        let (mut writer, landing) = landing(&content);
        for batch in pieces(&content, 10_000) {
            writer.write(batch).unwrap();
        }
        assert_eq!(released(&landing), 200_000 - HELD_BACK_BYTES);
        writer.finish().unwrap();
        assert_eq!(released(&landing), 200_000);
        assert!(matches!(landing.progress().borrow().state, State::Complete));
        assert_eq!(landing.recent(199_999).unwrap(), &content[199_999..]);
    }

    #[test]
    fn a_small_blob_is_held_whole() {
        let (mut writer, landing) = landing(b"small");
        writer.write(vec!["small".into()]).unwrap();
        assert_eq!(released(&landing), 0);
        writer.finish().unwrap();
        assert_eq!(released(&landing), 5);
    }

    #[test]
    fn wrong_and_short_content_breaks_it() {
        for wrong in ["smalL", "smal"] {
            let (mut writer, landing) = landing(b"small");
            writer.write(vec![wrong.into()]).unwrap();
            assert!(writer.finish().is_err());
            assert!(matches!(landing.progress().borrow().state, State::Broken));
            assert_eq!(released(&landing), 0);
        }
    }

    #[test]
    fn too_much_content_is_refused() {
        let (mut writer, _landing) = landing(b"small");
        assert!(matches!(
            writer.write(vec!["small".into(), "!".into()]),
            Err(WriteError::TooLong)
        ));
    }

    #[test]
    fn a_failing_disk_abandons_it_where_it_stands() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read_only = Arc::new(File::open(file.path()).unwrap());
        let (mut writer, landing) = Landing::new(read_only, 5, Algorithm::Sha256.digest(b"small"));
        assert!(matches!(
            writer.write(vec!["small".into()]),
            Err(WriteError::Disk(_))
        ));
        drop(writer);
        let State::Abandoned(position) = landing.progress().borrow().state.clone() else {
            panic!("not abandoned");
        };
        assert_eq!(position.offset, 0);
    }

    #[test]
    fn only_recent_bytes_stay_in_memory() {
        let content = vec![7; 4 * RECENT_BYTES_MIN];
        let (mut writer, landing) = landing(&content);
        for batch in pieces(&content, 100_000) {
            writer.write(batch).unwrap();
        }
        assert_eq!(landing.recent(0), None);
        assert!(landing.recent(content.len() as u64 - 1).is_some());
        assert_eq!(landing.recent(content.len() as u64), None);
        assert!(landing.0.recent.lock().bytes <= RECENT_BYTES_MIN);
    }
}
