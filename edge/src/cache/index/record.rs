//! How the index is written down: entries, blobs that left, and changes, as bytes.
//!
//! All numbers are little-endian. What cannot be read is an error of the kind `InvalidData` or `UnexpectedEof`, never a panic.

use std::collections::BTreeSet;
use std::io::{self, Read};

use outport_core::oci::digest::{Algorithm, Digest};

use crate::cache::table::{Entry, Ghost, Home, PINS_MAX, Trust};

/// What happened to the table, as far as it must be known after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// What an image is made of must stay, and of what it pinned before only that.
    Pinned {
        /// What it is called.
        image: String,
        /// What it is made of.
        digests: BTreeSet<Digest>,
    },
    /// What an image pinned need not stay any more.
    Unpinned(String),
}

/// The longest record of a change that is not about pins, its check included.
pub(super) const CHANGE_BYTES: usize = 1 + 1 + 64 + 8 + 1 + 4;

/// The longest name of an image that is believed in: nearly twice that of a repository and a digest.
const IMAGE_BYTES_MAX: usize = 1_000;

const ADMITTED: u8 = 1;
const REMOVED: u8 = 2;
/// A pin of a blob for no image, and its end, as they were written once.
const BLOB_PINNED: u8 = 3;
const BLOB_UNPINNED: u8 = 4;
const PINNED: u8 = 5;
const UNPINNED: u8 = 6;

const SIBLING: u8 = 1;
const VERIFIED: u8 = 2;

// === impl Change ===

impl Change {
    /// Whether it is of what no directory of blobs shows.
    pub(super) const fn is_of_pins(&self) -> bool {
        matches!(self, Self::Pinned { .. } | Self::Unpinned(_))
    }

    /// Adds the record of a change in a journal to `out`.
    pub(super) fn write(&self, generation: u64, out: &mut Vec<u8>) {
        let begin = out.len();
        match self {
            Self::Admitted { digest, size, home } => {
                out.push(ADMITTED);
                write_digest(digest, out);
                out.extend_from_slice(&size.to_le_bytes());
                out.push(home_flag(*home));
            }
            Self::Removed(digest) => {
                out.push(REMOVED);
                write_digest(digest, out);
            }
            Self::Pinned { image, digests } => {
                out.push(PINNED);
                write_pins(image, digests, out);
            }
            Self::Unpinned(image) => {
                out.push(UNPINNED);
                write_image(image, out);
            }
        }
        let check = check(generation, &out[begin..]);
        out.extend_from_slice(&check);
    }

    /// Reads the record at the front of `bytes`, and takes it off.
    pub(super) fn read(generation: u64, bytes: &mut &[u8]) -> io::Result<Self> {
        let all = *bytes;
        let [kind] = read_array(bytes)?;
        let change = match kind {
            ADMITTED => Self::Admitted {
                digest: read_digest(bytes)?,
                size: read_u64(bytes)?,
                home: flag_home(read_array::<1>(bytes)?[0]),
            },
            REMOVED => Self::Removed(read_digest(bytes)?),
            PINNED | BLOB_PINNED => {
                let (image, digests) = match kind {
                    PINNED => read_pins(bytes)?,
                    _ => read_blob_pin(bytes)?,
                };
                Self::Pinned { image, digests }
            }
            BLOB_UNPINNED => Self::Unpinned(read_digest(bytes)?.to_string()),
            UNPINNED => Self::Unpinned(read_image(bytes)?),
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

/// Writes what an image pins.
pub(super) fn write_pins(image: &str, digests: &BTreeSet<Digest>, out: &mut Vec<u8>) {
    write_image(image, out);
    out.extend_from_slice(&(digests.len() as u64).to_le_bytes());
    for digest in digests {
        write_digest(digest, out);
    }
}

pub(super) fn read_pins(from: &mut impl Read) -> io::Result<(String, BTreeSet<Digest>)> {
    let image = read_image(from)?;
    let count = read_u64(from)?;
    if count > PINS_MAX as u64 {
        return Err(invalid("more pins than there may be"));
    }
    let digests = (0..count).map(|_| read_digest(from));
    Ok((image, digests.collect::<io::Result<_>>()?))
}

/// Reads a pin of which it was not written down for what image it is: that is called by the digest.
pub(super) fn read_blob_pin(from: &mut impl Read) -> io::Result<(String, BTreeSet<Digest>)> {
    let digest = read_digest(from)?;
    Ok((digest.to_string(), BTreeSet::from([digest])))
}

fn write_image(image: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(image.len() as u64).to_le_bytes());
    out.extend_from_slice(image.as_bytes());
}

fn read_image(from: &mut impl Read) -> io::Result<String> {
    let length = usize::try_from(read_u64(from)?).unwrap_or(usize::MAX);
    if length > IMAGE_BYTES_MAX {
        return Err(invalid("an image with too long a name"));
    }
    let mut name = vec![0; length];
    from.read_exact(&mut name)?;
    String::from_utf8(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
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

    /// Journals of before images were remembered are read as well.
    #[test]
    fn a_pin_of_no_image_is_that_of_one_called_by_the_digest() {
        let digest = Algorithm::Sha256.digest(b"a");
        let (image, digests) = (digest.to_string(), BTreeSet::from([digest]));
        for (kind, change) in [
            (
                3,
                Change::Pinned {
                    image: image.clone(),
                    digests,
                },
            ),
            (4, Change::Unpinned(image)),
        ] {
            let mut bytes = vec![kind];
            write_digest(&digest, &mut bytes);
            let check = check(9, &bytes);
            bytes.extend_from_slice(&check);
            assert_eq!(Change::read(9, &mut &bytes[..]).unwrap(), change);
        }
    }

    proptest! {
        #[test]
        fn changes_round_trip_and_no_other_generation_takes_them(kind in 0..4_u8, content: Vec<u8>, sha512: bool, size: u64, generation: u64) {
            let algorithm = if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = algorithm.digest(&content);
            let home = if size % 2 == 0 { Home::Here } else { Home::Sibling };
            let image = format!("a:{size}");
            let digests = content.iter().map(|byte| algorithm.digest(&[*byte])).collect();
            let is_pins = kind == 2;
            let change = match kind {
                0 => Change::Admitted { digest, size, home },
                1 => Change::Removed(digest),
                2 => Change::Pinned { image, digests },
                _ => Change::Unpinned(image),
            };
            let mut bytes = Vec::new();
            change.write(generation, &mut bytes);
            prop_assert!(bytes.len() <= CHANGE_BYTES || is_pins);
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
