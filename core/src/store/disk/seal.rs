//! The seal on a cached blob's file, which says that nobody wrote to it since its bytes were hashed.
//!
//! What: the file's time of modification is set to one that no clock shows; whatever writes to the file, or cuts it off,
//! breaks the seal. Looking costs one system call on an open file, and there is nothing to keep beside the file.
//!
//! Why not remember the time: it would have to be written down for each file, and be as durable as the file itself.

use std::fs::{File, Metadata};
use std::io;
use std::time::{Duration, SystemTime};

/// The time of modification that is the seal: so long after the beginning of 1970.
const SEAL_AFTER: Duration = Duration::from_secs(1);

/// Puts the seal on a file whose bytes have been hashed.
pub(super) fn put(file: &File) -> io::Result<()> {
    file.set_modified(seal())
}

/// Whether the seal is there.
pub(super) fn is_whole(metadata: &Metadata) -> bool {
    metadata.modified().is_ok_and(|modified| modified == seal())
}

/// Whether nobody wrote to an open file since it was sealed; what cannot be looked at is not said to be whole.
pub fn is_sealed(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| is_whole(&metadata))
}

fn seal() -> SystemTime {
    SystemTime::UNIX_EPOCH + SEAL_AFTER
}
