//! The seal on a cached blob's file, which says that nobody wrote to it since its bytes were hashed.
//!
//! What: the file's time of modification is set to one that no clock shows, and that depends on the digest; whatever writes
//! to the file, or cuts it off, breaks the seal, and under another blob's name it is none. Looking costs one system call on an
//! open file, and there is nothing to keep beside the file.
//!
//! Why not remember the time: it would have to be written down for each file, and be as durable as the file itself. Why whole
//! seconds, and an even number: some file systems keep no more of a time than that.

use std::fs::{File, Metadata};
use std::io;
use std::time::{Duration, SystemTime};

use crate::oci::digest::Digest;

/// The seal on the file of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The time of modification that it is.
    modified: SystemTime,
}

/// How many seals there are: one for every other second of the first 29 years that a clock can show.
const SEALS: u32 = 29 * 365 * 24 * 60 * 60 / 2;

// === impl Seal ===

impl Seal {
    /// Returns the seal on the file of a blob.
    pub fn of(digest: &Digest) -> Self {
        let number = digest
            .output()
            .first_chunk()
            .map_or(0, |first| u32::from_be_bytes(*first) % SEALS);
        // That of no digest is the very beginning, which a file without a time may show.
        let seconds = 2 * (u64::from(number) + 1);
        Self {
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    /// Puts it on a file whose bytes have been hashed.
    pub fn put_on(self, file: &File) -> io::Result<()> {
        file.set_modified(self.modified)
    }

    /// Whether nobody wrote to an open file since it was put on; what cannot be looked at is not said to be whole.
    pub fn is_on(self, file: &File) -> bool {
        file.metadata()
            .is_ok_and(|metadata| self.is_whole(&metadata))
    }

    /// Whether it is there.
    pub(super) fn is_whole(self, metadata: &Metadata) -> bool {
        let modified = metadata.modified();
        modified.is_ok_and(|modified| modified == self.modified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::digest::Algorithm;

    #[test]
    fn it_is_that_of_one_digest_and_older_than_what_a_clock_shows() {
        let file = tempfile::tempfile().unwrap();
        let seals = (0..100_u8).map(|number| Seal::of(&Algorithm::Sha512.digest(&[number])));
        let seals: Vec<_> = seals.collect();
        for (index, seal) in seals.iter().enumerate() {
            assert!(!seal.is_on(&file));
            seal.put_on(&file).unwrap();
            let are_on: Vec<_> = seals.iter().map(|seal| seal.is_on(&file)).collect();
            assert_eq!(are_on.iter().filter(|is_on| **is_on).count(), 1);
            assert!(are_on[index]);
            let since = seal.modified.duration_since(SystemTime::UNIX_EPOCH);
            let seconds = since.unwrap().as_secs();
            // Before the year 2000.
            assert!(seconds > 0 && seconds % 2 == 0 && seconds < 946_684_800);
        }
    }
}
