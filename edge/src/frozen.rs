//! Whether the tags of upstreams stay where they are: the switch for an incident at one of them.
//!
//! Invariant: it survives a restart; that it does is written down before it is said. Crash: a file is there or not.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The switch; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Frozen(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    is_set: AtomicBool,
    /// There while it is.
    path: PathBuf,
}

/// The file, in the cache's directory.
const FILE: &str = "frozen";

// === impl Frozen ===

impl Frozen {
    /// Returns the switch of the edge whose cache is in `cache`, as it was left. Blocks.
    pub fn open(cache: &Path) -> io::Result<Self> {
        let path = cache.join(FILE);
        Ok(Self(Arc::new(Inner {
            is_set: AtomicBool::new(path.try_exists()?),
            path,
        })))
    }

    /// Whether tags stay where they are.
    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::Relaxed)
    }

    /// Throws it. Blocks.
    pub fn set(&self, is_set: bool) -> io::Result<()> {
        let Inner { path, .. } = &*self.0;
        if is_set {
            File::create(path)?.sync_all()?;
        } else if path.try_exists()? {
            fs::remove_file(path)?;
        }
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.0.is_set.store(is_set, Ordering::Relaxed);
        tracing::warn!(is_set, "freeze of the tags of upstreams");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_as_it_was_left() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Frozen::open(directory.path()).unwrap();
        let frozen = open();
        assert!(!frozen.is_set());
        for is_set in [false, true, true, false] {
            frozen.set(is_set).unwrap();
            assert_eq!((frozen.is_set(), open().is_set()), (is_set, is_set));
        }
    }
}
