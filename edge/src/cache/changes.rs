//! What comes in, and what goes.
//!
//! Invariant: a file that the table has keeps its name: what is deleted because it left the table may be back before its file is
//! gone, and then has another one. So whoever gives or takes a name holds the lock of its digest, and asks the table under it.
//! It is never held while another is waited for.

use std::io;

use outport_core::oci::digest::Digest;
use outport_core::store::disk::Partial;
use parking_lot::{Mutex, MutexGuard};

use super::Cache;
use super::index::Change;
use super::table::{Admission, Home, Table};

/// Locks of the names of files, of which many digests share one.
#[derive(Debug)]
pub(super) struct Naming(Box<[Mutex<()>]>);

/// How many locks there are: a blob that is made durable holds one for as long as the disk takes.
const LOCKS: usize = 1 << u8::BITS;

// === impl Cache ===

impl Cache {
    /// Makes a file whose bytes hash to its digest durable, and takes it in. Blocks.
    ///
    /// A blob that is too large for the cache is deleted; whoever has it open can go on.
    pub fn publish(&self, partial: &Partial, size: u64, home: Home) -> io::Result<()> {
        let digest = *partial.digest();
        // What lies behind it is the download's.
        partial.truncate(size)?;
        // There may be no room on the disk before.
        let Some(evicted) = self.decide(|table| table.make_room(size)) else {
            tracing::info!(digest = %digest, size_bytes = size, "blob is too large for the cache, not kept");
            return partial.discard();
        };
        self.evicted(&evicted);
        let naming = self.0.naming.of(&digest);
        let blob = self.0.disk.publish(partial)?;
        // Of one that was there before.
        self.0.open.invalidate(&digest);
        let admitted = self.decide(|table| {
            let admission = table.admit(digest, size, home);
            if admission != Admission::TooLarge {
                let admitted = Change::Admitted { digest, size, home };
                self.0.index.note(admitted);
            }
            admission
        });
        drop(naming);
        match admitted {
            Some(evicted) => {
                self.evicted(&evicted);
                self.keep_open(&digest, &blob);
            }
            // What is pinned has grown meanwhile.
            None => self.delete(&[digest]),
        }
        self.0.filling.lock().succeeded();
        Ok(())
    }

    /// Has the table decide, and returns what left it if it admits.
    fn decide(&self, decide: impl FnOnce(&mut Table) -> Admission) -> Option<Vec<Digest>> {
        let mut table = self.0.table.lock();
        let Admission::Admitted { evicted } = decide(&mut table) else {
            return None;
        };
        self.note_removed(&evicted);
        Some(evicted)
    }

    /// Deletes what left the table for something else. Blocks.
    fn evicted(&self, evicted: &[Digest]) {
        self.0.metrics.evictions.inc_by(evicted.len() as u64);
        self.delete(evicted);
        self.count();
        self.0.index.flush();
    }

    /// Takes note of what left the table, which is still locked.
    pub(super) fn note_removed(&self, digests: &[Digest]) {
        for digest in digests {
            self.0.index.note(Change::Removed(*digest));
        }
    }

    /// Forgets a blob whose file is gone, or has another length; unless it has left the table since, or is back. Blocks.
    pub(super) fn forget_missing(&self, digest: &Digest) {
        {
            let _naming = self.0.naming.of(digest);
            let Ok(found) = self.0.disk.open_blob(digest) else {
                return;
            };
            let found = found.map(|blob| blob.size);
            let mut table = self.0.table.lock();
            let expected = table.size(digest);
            if expected.is_none() || expected == found {
                return;
            }
            tracing::warn!(%digest, expected, found, "cached file cut off or gone, forgotten");
            table.remove(digest);
            self.note_removed(&[*digest]);
        }
        self.delete(&[*digest]);
        self.count();
        self.0.index.flush();
    }

    /// Deletes what the table no longer has, with everything that hangs on it. Blocks.
    pub(super) fn delete(&self, digests: &[Digest]) {
        let mut gone = Vec::with_capacity(digests.len());
        for digest in digests {
            let _naming = self.0.naming.of(digest);
            if self.has(digest) {
                continue;
            }
            self.0.open.invalidate(digest);
            self.0.contents.invalidate(digest);
            if let Err(error) = self.0.disk.remove_blob(digest) {
                tracing::warn!(digest = %digest, error = %error, "evicted file not deleted");
            }
            gone.push(*digest);
        }
        // What is deleted takes room until nobody has it open.
        self.0.open.run_pending_tasks();
        self.0.names.forget(gone);
    }
}

// === impl Naming ===

impl Naming {
    /// Locks what a digest's file is called.
    pub(super) fn of(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        // It is as good as random.
        let first = digest.output().first().copied().unwrap_or_default();
        self.0[usize::from(first)].lock()
    }
}

impl Default for Naming {
    fn default() -> Self {
        Self((0..LOCKS).map(|_| Mutex::default()).collect())
    }
}
