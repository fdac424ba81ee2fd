//! Making room on a disk that is full although the capacity is kept: it has less than that, or is not the cache's alone.

use super::Cache;

impl Cache {
    /// Makes room on the disk; returns whether there was anything to delete. Blocks.
    ///
    /// Damaged files go first, because nobody waits for them.
    pub fn relieve(&self, bytes: u64) -> bool {
        let cleared = self.clear_aside(bytes);
        let evicted = {
            let mut table = self.0.table.lock();
            let evicted = table.relieve(bytes.saturating_sub(cleared));
            self.note_removed(&evicted);
            evicted
        };
        tracing::warn!(
            bytes,
            evicted = evicted.len(),
            "cache disk is full before its capacity is reached"
        );
        self.0.metrics.evictions.inc_by(evicted.len() as u64);
        self.delete(&evicted);
        self.count();
        cleared > 0 || !evicted.is_empty()
    }

    /// Deletes damaged files, the oldest first, until they have given `bytes` back, and returns how many they gave.
    fn clear_aside(&self, bytes: u64) -> u64 {
        let mut aside = self.put_aside();
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
}
