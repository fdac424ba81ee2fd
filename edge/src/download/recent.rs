//! The bytes of a landing that came a moment ago, for readers that keep up: they need not read the file.
//!
//! Bound: two batches of the writers, or [`RECENT_BYTES_MIN`] where that is more.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

/// How many bytes that are written already are kept in memory for readers that keep up.
///
/// The last two batches, so that it follows the memory that a download may use; and so much at least.
pub(super) const RECENT_BYTES_MIN: usize = 256 << 10;

/// The batches that came last.
#[derive(Debug, Default)]
pub(super) struct Recent {
    chunks: BTreeMap<u64, Bytes>,
    /// Where they begin, the oldest first.
    order: VecDeque<u64>,
    /// How many they are.
    pub(super) bytes: usize,
}

// === impl Recent ===

impl Recent {
    /// Keeps a batch that was written at `offset`, and forgets the oldest for it.
    pub(super) fn push(&mut self, mut offset: u64, batch: &[Bytes]) {
        let batch_bytes: usize = batch.iter().map(Bytes::len).sum();
        let bytes_max = RECENT_BYTES_MIN.max(2 * batch_bytes);
        for bytes in batch {
            self.chunks.insert(offset, bytes.clone());
            self.order.push_back(offset);
            self.bytes += bytes.len();
            offset += bytes.len() as u64;
        }
        while self.bytes > bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            let oldest = self.chunks.remove(&oldest);
            self.bytes -= oldest.map_or(0, |bytes| bytes.len());
        }
    }

    /// Returns what is kept from `offset` on, up to where the source's own piece ends.
    pub(super) fn get(&self, offset: u64) -> Option<Bytes> {
        let (start, bytes) = self.chunks.range(..=offset).next_back()?;
        let skip = usize::try_from(offset - start).ok()?;
        (skip < bytes.len()).then(|| bytes.slice(skip..))
    }
}
