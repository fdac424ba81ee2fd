//! Whose a cache's directory is.
//!
//! Why not the lock that the file of names has: an edge can do without that file, and opens it again after an error of the disk.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use outport_core::store::disk::OpenError;

/// A directory that nobody else has as long as this lives, but where the file system knows no locks.
#[derive(Debug)]
pub struct Locked {
    pub(super) root: PathBuf,
    #[expect(dead_code, reason = "it is there to be dropped")]
    directory: File,
}

// === impl Locked ===

impl Locked {
    /// Locks a directory, unless another node has it.
    pub fn take(root: &Path) -> Result<Self, OpenError> {
        let locked = File::open(root).and_then(|directory| match directory.try_lock() {
            Ok(()) => Ok(directory),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "in use by another node: each needs a cache.path of its own",
            )),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %root.display(), %error, "the cache's directory cannot be locked");
                Ok(directory)
            }
        });
        let root = root.to_owned();
        match locked {
            Ok(directory) => Ok(Self { root, directory }),
            Err(source) => Err(OpenError::Io { path: root, source }),
        }
    }
}
