//! Making room on a disk that is full although the capacity is kept: it has less than that, or is not the cache's alone.
//!
//! Invariant: nothing goes for a blob that has no place here even when all has gone. For another, little by little: how
//! long it is going to be is only what its source says. Damaged files go first, because nobody waits for them.

use outport_core::store::disk::Entry;

use super::Cache;

/// How much goes at a time. The connections of a download run into the full disk together, each with a batch that is much
/// less than this.
const RELIEF_BYTES: u64 = 128 << 20;

impl Cache {
    /// Makes room for the next part of a blob of which `missing` bytes are to come; returns whether it did. Blocks.
    pub fn relieve(&self, missing: u64) -> bool {
        let wanted = missing.min(RELIEF_BYTES);
        let has_waited = self.0.last_relief.is_locked();
        let mut last_relief = self.0.last_relief.lock();
        // Whoever was at it has just made room for this one too.
        if has_waited && *last_relief >= wanted {
            return true;
        }
        *last_relief = 0;
        let aside = self.put_aside();
        let aside_bytes: u64 = aside.iter().map(|entry| entry.occupied).sum();
        let evictable_bytes = self.0.table.lock().evictable_bytes();
        if missing > aside_bytes + evictable_bytes {
            tracing::warn!(missing, "cache disk is full, and has no place for this");
            return false;
        }
        let cleared = self.clear(aside, wanted);
        *last_relief = cleared + self.evict(wanted.saturating_sub(cleared));
        *last_relief > 0
    }

    /// Deletes damaged files, the oldest first, until they have given `bytes` back, and returns how many they gave.
    fn clear(&self, mut aside: Vec<Entry>, bytes: u64) -> u64 {
        aside.sort_by_key(|entry| entry.modified);
        let mut cleared = 0;
        for entry in aside {
            if cleared >= bytes {
                break;
            }
            self.delete_put_aside(&entry.digest);
            cleared += entry.occupied;
        }
        cleared
    }

    /// Deletes the least promising blobs, `bytes` of them, and returns how many they had.
    fn evict(&self, bytes: u64) -> u64 {
        let (evicted, evicted_bytes) = {
            let mut table = self.0.table.lock();
            let before = table.bytes();
            let evicted = table.relieve(bytes);
            self.note_removed(&evicted);
            (evicted, before - table.bytes())
        };
        tracing::warn!(
            bytes,
            evicted = evicted.len(),
            "cache disk is full before its capacity is reached"
        );
        self.0.metrics.evictions.inc_by(evicted.len() as u64);
        self.delete(&evicted);
        self.count();
        evicted_bytes
    }
}
