//! A disk of a few megabytes, in memory.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk, mounted until this is dropped.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

// === impl Tmpfs ===

impl Tmpfs {
    /// Mounts one of so many MiB on a directory, which is created.
    pub fn mount(directory: &Path, mib: u32) -> Self {
        std::fs::create_dir_all(directory).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(directory)
            .status()
            .unwrap();
        assert!(status.success(), "a tmpfs cannot be mounted");
        Self(directory.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still have it open.
        Command::new("umount")
            .arg("--lazy")
            .arg(&self.0)
            .status()
            .ok();
    }
}
