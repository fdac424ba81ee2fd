//! The table and the directory of blobs, compared.
//!
//! What: [`take`] fills a table whose index lacks something from the whole directory, before the edge serves; [`Check`]
//! compares one folder after the other while it serves, after any start.
//!
//! Invariants: files that nobody knows are taken in while there is room, and deleted when there is none; entries without a
//! file are forgotten. A file that was written since the check began belongs to a download that is about to take it in.

use std::collections::HashSet;
use std::time::SystemTime;

use outport_core::oci::digest::{Algorithm, Digest};
use outport_core::store::disk::{Disk, Entry as File};

use super::Cache;
use super::index::{Change, Standing};
use super::table::{Admission, Entry, Home, Table, Trust};

/// A comparison that goes from folder to folder.
#[derive(Debug)]
pub(super) struct Check {
    cache: Cache,
    began: SystemTime,
    folders: Vec<(Algorithm, u8)>,
}

/// How many entries are looked at while the table is locked.
const PIECE: usize = 4_096;

/// Completes a table from the directory, if its index lacks something, and returns what must be deleted. Blocks.
///
/// What the table does not know counts as used in the order of the last reads.
pub(super) fn take(disk: &Disk, mut table: Table, standing: Standing) -> (Table, Vec<Digest>) {
    let mut gone = Vec::new();
    if standing == Standing::Lacking {
        let mut files = files(disk.entries());
        files.sort_by_key(|file| file.accessed.max(file.modified));
        let found: HashSet<_> = files.iter().map(|file| file.digest).collect();
        let known: Vec<_> = table.entries().iter().map(|entry| entry.digest).collect();
        for digest in known.iter().filter(|digest| !found.contains(digest)) {
            table.remove(digest);
        }
        for File { digest, size, .. } in files {
            if table.size(&digest) == Some(size) {
                table.mark_found(&digest);
                continue;
            }
            match table.admit(digest, size, Home::Here) {
                Admission::Admitted { evicted } => gone.extend(evicted),
                Admission::TooLarge => gone.push(digest),
            }
        }
        table.distrust_all();
    }
    // The capacity may have been lowered.
    if let Admission::Admitted { evicted } = table.make_room(0) {
        gone.extend(evicted);
    }
    (table, gone)
}

// === impl Check ===

impl Check {
    pub(super) fn new(cache: Cache, began: SystemTime) -> Self {
        let bytes = 0..=u8::MAX;
        let folders = Algorithm::ALL
            .into_iter()
            .flat_map(|algorithm| bytes.clone().map(move |byte| (algorithm, byte)));
        Self {
            cache,
            began,
            folders: folders.collect(),
        }
    }

    /// Compares one more folder and returns how many files it has; none after the last one. Blocks.
    pub(super) fn next_folder(&mut self) -> Option<usize> {
        let (algorithm, byte) = self.folders.pop()?;
        let files = files(self.cache.0.disk.entries_of(algorithm, byte));
        let mut gone = Vec::new();
        {
            let mut table = self.cache.0.table.lock();
            for file in &files {
                if !self.is_to_stay(&mut table, file) {
                    table.remove(&file.digest);
                    gone.push(file.digest);
                }
            }
            self.cache.note_removed(&gone);
        }
        self.finish(&gone);
        Some(files.len())
    }

    /// Forgets the entries whose files were not seen and are not there. Blocks.
    pub(super) fn forget_missing(&self) {
        let mut missing = self.not_found();
        missing.retain(|digest| matches!(self.cache.0.disk.open_blob(digest), Ok(None)));
        {
            let mut table = self.cache.0.table.lock();
            // Not one that has come in again since.
            missing.retain(|digest| table.entry(digest).is_some_and(|entry| !entry.is_found));
            for digest in &missing {
                table.remove(digest);
            }
            self.cache.note_removed(&missing);
        }
        self.finish(&missing);
    }

    /// Takes a file in, if need and room be.
    fn is_to_stay(&self, table: &mut Table, file: &File) -> bool {
        let File { digest, size, .. } = *file;
        let has_room = table.has_room(size);
        match table.size(&digest) {
            Some(known) if known == size => table.mark_found(&digest),
            _ if file.modified >= self.began => {}
            Some(_) => return false,
            None if !has_room => return false,
            None => {
                table.restore(Entry {
                    digest,
                    uses: 1,
                    home: Home::Here,
                    trust: Trust::Unverified,
                    is_found: true,
                    is_pinned: false,
                    size,
                    last_use: 0,
                });
                let home = Home::Here;
                let admitted = Change::Admitted { digest, size, home };
                self.cache.0.index.note(admitted);
            }
        }
        true
    }

    /// Returns the entries whose files were not seen; one that is moved into the place of another was looked at before.
    fn not_found(&self) -> Vec<Digest> {
        let mut missing = Vec::new();
        let mut end = self.cache.0.table.lock().len();
        while end > 0 {
            let table = self.cache.0.table.lock();
            end = end.min(table.len());
            let begin = end.saturating_sub(PIECE);
            let piece = table.entries()[begin..end].iter();
            missing.extend(
                piece
                    .filter(|entry| !entry.is_found)
                    .map(|entry| entry.digest),
            );
            end = begin;
        }
        missing
    }

    fn finish(&self, gone: &[Digest]) {
        if !gone.is_empty() {
            tracing::info!(
                count = gone.len(),
                "cached files and their index did not agree"
            );
            self.cache.delete(gone);
        }
        self.cache.count();
        self.cache.0.index.flush();
    }
}

/// Returns what could be read of a walk.
fn files(walk: impl Iterator<Item = std::io::Result<File>>) -> Vec<File> {
    let mut files = Vec::new();
    for file in walk {
        match file {
            Ok(file) => files.push(file),
            Err(error) => tracing::warn!(error = %error, "part of the cache directory not read"),
        }
    }
    files
}
