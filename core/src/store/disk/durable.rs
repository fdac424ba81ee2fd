//! The few sequences of system calls that make a change of a directory survive a crash.
//!
//! A file's bytes are durable after `fdatasync`; its name only after `fsync` of the directory that holds it, and that
//! directory's name after `fsync` of its own parent.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use uuid::Uuid;

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Creates a directory with its parents, all durable; succeeds when it is there.
pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    // The parent of a relative path of one part is the empty path, which means here.
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        create_directory(parent)?;
        parent
    };
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_directory(parent)
}

/// Gives a file, whose bytes are durable, its final name, replacing what had it.
///
/// Both names are below existing directories, or below ones that this creates.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let directory = to.parent().unwrap_or(Path::new("."));
    match fs::rename(from, to) {
        // Either name may be what is missing; when it is the old one, trying again says so.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_directory(directory)?;
            fs::rename(from, to)?;
        }
        outcome => outcome?,
    }
    sync_directory(directory)
}

/// Removes a file; succeeds when it is not there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Writes a small file whole: after a crash it has its old content or its new one.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    // Several processes may do this at once, and each must rename what it wrote itself.
    let staged = path.with_extension(Uuid::now_v7().to_string());
    fs::write(&staged, content)?;
    File::open(&staged)?.sync_data()?;
    rename(&staged, path)
}
