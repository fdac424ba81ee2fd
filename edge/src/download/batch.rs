//! Bytes that are gathered, to be written together.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Bytes that are written together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) frames: Vec<Bytes>,
    /// Those of the last frames, if they were small.
    small: BytesMut,
    pub(super) bytes: usize,
}

/// A batch that is being written, if one is.
pub(super) struct Writing(pub(super) Option<JoinHandle<io::Result<()>>>);

/// Frames that are smaller are copied together, so many bytes at a time: each frame costs as much as this to keep.
const SMALL_BYTES: usize = 2 << 10;
const GATHERED_BYTES: usize = 64 << 10;

// === impl Batch ===

impl Batch {
    /// Adds the first `own` bytes of a frame.
    pub(super) fn push(&mut self, mut frame: Bytes, own: u64) {
        if let Ok(own) = usize::try_from(own) {
            frame.truncate(own);
        }
        self.bytes += frame.len();
        if frame.len() < SMALL_BYTES {
            self.small.extend_from_slice(&frame);
        }
        if frame.len() >= SMALL_BYTES || self.small.len() >= GATHERED_BYTES {
            self.gather();
        }
        if frame.len() >= SMALL_BYTES {
            self.frames.push(frame);
        }
    }

    pub(super) fn gather(&mut self) {
        if !self.small.is_empty() {
            self.frames.push(self.small.split().freeze());
        }
    }

    pub(super) fn is_due(&self, share: usize, linger_until: Instant) -> bool {
        self.bytes >= share || (self.bytes > 0 && Instant::now() >= linger_until)
    }
}

// === impl Writing ===

impl Writing {
    /// Waits until the batch is written.
    pub(super) async fn done(&mut self) -> io::Result<()> {
        let Some(job) = &mut self.0 else {
            return Ok(());
        };
        let outcome = job
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        self.0 = None;
        outcome
    }
}
