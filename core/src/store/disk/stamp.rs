//! Which append wrote last to the file of a session.
//!
//! What: each append stamps the file, before it writes, and the value that it returns. As long as both agree, the file holds
//! just the bytes that the value stands for. An append that broke off, or one of an older value, leaves another stamp.
//!
//! The stamp is an extended attribute, so that it costs a system call and no second file. Failure: a file system without them
//! has no stamps, and bytes are read again where they would have told.

use std::fs::File;
use std::io;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;
use uuid::Uuid;

use crate::store::Staged;

/// The attribute.
const NAME: &str = "user.outport.append";

/// Whether the append that returned `staged` was the last to write to `file`; not when nobody can tell.
pub(super) fn is_of(file: &File, staged: &Staged) -> io::Result<bool> {
    let Some(expected) = staged.engine().as_str() else {
        return Ok(false);
    };
    // One more than a stamp is long, so that a longer one is not taken for it.
    let mut found = [0; uuid::fmt::Hyphenated::LENGTH + 1];
    match fgetxattr(file, NAME, &mut found) {
        Ok(length) => Ok(found[..length] == *expected.as_bytes()),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Stamps `file`, and the value, for an append that is about to write.
pub(super) fn put(file: &File, staged: Staged) -> io::Result<Staged> {
    let stamp = Uuid::now_v7().to_string();
    match fsetxattr(file, NAME, stamp.as_bytes(), XattrFlags::empty()) {
        Ok(()) => Ok(staged.with_engine(stamp.into())),
        Err(Errno::OPNOTSUPP) => Ok(staged.with_engine(serde_json::Value::Null)),
        Err(error) => Err(error.into()),
    }
}
