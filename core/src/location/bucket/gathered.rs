//! The bytes of a part, while they are gathered and while they are on their way.
//!
//! What: a piece of memory of its own, straight from the system, which has it back as soon as nobody needs the part any more.
//!
//! Why not keep the frames: each is a slice of a larger buffer of the connection that it came by, and keeps all of that. Why
//! not the heap: it has one arena for each thread, and pieces of this size, taken by one thread and given back by another,
//! leave holes there that are never given back; an upload took half as much memory again as its parts have.

use std::{io, mem};

use bytes::Bytes;
use memmap2::MmapMut;

use crate::store::StoreError;

/// Bytes that become a part.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    memory: Option<MmapMut>,
    len: usize,
}

// === impl Gathered ===

impl Gathered {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Adds bytes to what is to have at most `max` of them.
    pub(super) fn push(&mut self, bytes: &[u8], max: usize) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = self.len + bytes.len();
        let memory = match &mut self.memory {
            Some(memory) => memory,
            // The system gives a page only when something is written to it.
            none => none.insert(MmapMut::map_anon(max).map_err(failed)?),
        };
        let room = memory.get_mut(self.len..end);
        let room = room.ok_or_else(|| failed(io::ErrorKind::StorageFull.into()))?;
        room.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Takes all bytes.
    pub(super) fn take(&mut self) -> Bytes {
        let len = mem::take(&mut self.len);
        match self.memory.take() {
            Some(memory) => Bytes::from_owner(memory).slice(..len),
            None => Bytes::new(),
        }
    }
}

fn failed(error: io::Error) -> StoreError {
    StoreError::Unavailable(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_was_pushed_and_no_more_than_there_is_room_for() {
        let mut gathered = Gathered::default();
        for _ in 0..2 {
            assert_eq!(gathered.take(), "");
            gathered.push(b"", 0).unwrap();
            gathered.push(b"some", 9).unwrap();
            gathered.push(b" more", 9).unwrap();
            assert_eq!(gathered.len(), 9);
            gathered.push(b"!", 9).unwrap_err();
            assert_eq!(gathered.take(), "some more");
            assert_eq!(gathered.len(), 0);
        }
    }
}
