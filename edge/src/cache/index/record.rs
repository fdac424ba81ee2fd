//! How the index is written down: entries, blobs that left, and changes, as bytes.
//!
//! All numbers are little-endian. What cannot be read is an error of the kind `InvalidData` or `UnexpectedEof`, never a panic.

use std::io::{self, Read};

use outport_core::oci::digest::{Algorithm, Digest};

use crate::cache::table::{Entry, Ghost, Home, Trust};

/// What happened to the table, as far as it must be known after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A blob came in.
    Admitted {
        /// Its name.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// From where it can be had again.
        home: Home,
    },
    /// A blob went.
    Removed(Digest),
    /// A blob must stay.
    Pinned(Digest),
    /// A blob need not stay any more.
    Unpinned(Digest),
}

/// The longest record of a change, its check included.
pub(super) const CHANGE_BYTES_MAX: usize = 1 + 1 + 64 + 8 + 1 + 4;

const SIBLING: u8 = 1;
const VERIFIED: u8 = 2;

// === impl Change ===

impl Change {
    /// Adds the record of a change in a journal to `out`.
    pub(super) fn write(&self, generation: u64, out: &mut Vec<u8>) {
        let begin = out.len();
        let (kind, digest) = match self {
            Self::Admitted { digest, .. } => (1, digest),
            Self::Removed(digest) => (2, digest),
            Self::Pinned(digest) => (3, digest),
            Self::Unpinned(digest) => (4, digest),
        };
        out.push(kind);
        write_digest(digest, out);
        if let Self::Admitted { size, home, .. } = self {
            out.extend_from_slice(&size.to_le_bytes());
            out.push(home_flag(*home));
        }
        let check = check(generation, &out[begin..]);
        out.extend_from_slice(&check);
    }

    /// Reads the record at the front of `bytes`, and takes it off.
    pub(super) fn read(generation: u64, bytes: &mut &[u8]) -> io::Result<Self> {
        let all = *bytes;
        let [kind] = read_array(bytes)?;
        let digest = read_digest(bytes)?;
        let change = match kind {
            1 => Self::Admitted {
                digest,
                size: read_u64(bytes)?,
                home: flag_home(read_array::<1>(bytes)?[0]),
            },
            2 => Self::Removed(digest),
            3 => Self::Pinned(digest),
            4 => Self::Unpinned(digest),
            _ => return Err(invalid("no such change")),
        };
        let record = &all[..all.len() - bytes.len()];
        if read_array::<4>(bytes)? != check(generation, record) {
            return Err(invalid("the record of a change is damaged"));
        }
        Ok(change)
    }
}

/// Returns the lower half of FNV-1a, which tells a torn or stale record from a whole one.
fn check(generation: u64, record: &[u8]) -> [u8; 4] {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in generation.to_le_bytes().iter().chain(record) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let [a, b, c, d, ..] = (hash ^ (hash >> 32)).to_le_bytes();
    [a, b, c, d]
}

pub(super) fn write_entry(entry: &Entry, out: &mut Vec<u8>) {
    write_digest(&entry.digest, out);
    out.extend_from_slice(&entry.size.to_le_bytes());
    out.extend_from_slice(&entry.last_use.to_le_bytes());
    out.extend_from_slice(&entry.uses.to_le_bytes());
    let trust = match entry.trust {
        Trust::Verified => VERIFIED,
        Trust::Unverified => 0,
    };
    out.push(trust | home_flag(entry.home));
}

pub(super) fn read_entry(from: &mut impl Read) -> io::Result<Entry> {
    let digest = read_digest(from)?;
    let (size, last_use) = (read_u64(from)?, read_u64(from)?);
    let uses = u16::from_le_bytes(read_array(from)?);
    let [flags] = read_array(from)?;
    Ok(Entry {
        digest,
        uses,
        home: flag_home(flags),
        trust: if flags & VERIFIED == 0 {
            Trust::Unverified
        } else {
            Trust::Verified
        },
        is_found: false,
        is_pinned: false,
        size,
        last_use,
    })
}

pub(super) fn write_ghost(ghost: &Ghost, out: &mut Vec<u8>) {
    out.extend_from_slice(&ghost.print.to_le_bytes());
    out.extend_from_slice(&ghost.last_use.to_le_bytes());
    out.extend_from_slice(&ghost.uses.to_le_bytes());
}

pub(super) fn read_ghost(from: &mut impl Read) -> io::Result<Ghost> {
    Ok(Ghost {
        print: read_u64(from)?,
        last_use: read_u64(from)?,
        uses: u16::from_le_bytes(read_array(from)?),
    })
}

pub(super) fn write_digest(digest: &Digest, out: &mut Vec<u8>) {
    out.push(match digest.algorithm() {
        Algorithm::Sha256 => 0,
        Algorithm::Sha512 => 1,
    });
    out.extend_from_slice(digest.output());
}

pub(super) fn read_digest(from: &mut impl Read) -> io::Result<Digest> {
    let algorithm = match read_array(from)? {
        [0] => Algorithm::Sha256,
        [1] => Algorithm::Sha512,
        _ => return Err(invalid("no such algorithm")),
    };
    let mut output = [0; 64];
    let output = &mut output[..algorithm.output_len()];
    from.read_exact(output)?;
    Digest::from_output(algorithm, output).ok_or_else(|| invalid("no digest"))
}

pub(super) fn read_u64(from: &mut impl Read) -> io::Result<u64> {
    Ok(u64::from_le_bytes(read_array(from)?))
}

pub(super) fn read_array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const fn home_flag(home: Home) -> u8 {
    match home {
        Home::Here => 0,
        Home::Sibling => SIBLING,
    }
}

const fn flag_home(flags: u8) -> Home {
    if flags & SIBLING == 0 {
        Home::Here
    } else {
        Home::Sibling
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn changes_round_trip_and_no_other_generation_takes_them(kind in 0..4_u8, content: Vec<u8>, sha512: bool, size: u64, generation: u64) {
            let algorithm = if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = algorithm.digest(&content);
            let home = if size % 2 == 0 { Home::Here } else { Home::Sibling };
            let change = match kind {
                0 => Change::Admitted { digest, size, home },
                1 => Change::Removed(digest),
                2 => Change::Pinned(digest),
                _ => Change::Unpinned(digest),
            };
            let mut bytes = Vec::new();
            change.write(generation, &mut bytes);
            prop_assert!(bytes.len() <= CHANGE_BYTES_MAX);
            let mut rest = &bytes[..];
            prop_assert_eq!(Change::read(generation, &mut rest).unwrap(), change);
            prop_assert!(rest.is_empty());
            prop_assert!(Change::read(generation ^ 1, &mut &bytes[..]).is_err());
            for end in 0..bytes.len() {
                prop_assert!(Change::read(generation, &mut &bytes[..end]).is_err());
            }
        }

        #[test]
        fn garbage_is_no_panic(bytes: Vec<u8>) {
            drop(Change::read(0, &mut &bytes[..]));
            drop(read_entry(&mut &bytes[..]));
            drop(read_ghost(&mut &bytes[..]));
        }
    }
}
