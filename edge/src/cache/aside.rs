//! Damaged files, which are put aside for a look.
//!
//! Invariant: nobody is served from one. They are kept for as long as, and within the same bytes as, what is left of
//! interrupted downloads; see `leftovers`.

use outport_core::oci::digest::Digest;
use outport_core::store::disk::{BlobFile, Entry};

use super::Cache;

impl Cache {
    /// Takes a blob out of service whose file was found damaged, unless it has another by now: that one was hashed when it
    /// came. Blocks.
    pub fn condemn_file(&self, digest: &Digest, blob: &BlobFile) {
        let _naming = self.0.naming.of(digest);
        // One of which that cannot be told goes: it can be had again.
        if !self.0.disk.is_current(digest, blob).unwrap_or(true) {
            tracing::info!(%digest, "damaged file was replaced or deleted meanwhile");
            return;
        }
        tracing::warn!(%digest, "cached file is damaged, put aside");
        self.0.metrics.damaged.inc();
        {
            let mut table = self.0.table.lock();
            table.remove(digest);
            self.note_removed(&[*digest]);
        }
        self.0.open.invalidate(digest);
        self.0.contents.invalidate(digest);
        if let Err(error) = self.0.disk.quarantine(digest) {
            tracing::warn!(%digest, %error, "damaged file not put aside");
        }
        self.count();
    }

    /// Returns the damaged files that were put aside. Blocks.
    pub fn put_aside(&self) -> Vec<Entry> {
        self.0.disk.quarantined().flatten().collect()
    }

    /// Deletes a damaged file that was put aside. Blocks.
    pub fn delete_put_aside(&self, digest: &Digest) {
        if let Err(error) = self.0.disk.remove_quarantined(digest) {
            tracing::warn!(%digest, %error, "damaged file not deleted");
        }
    }
}
