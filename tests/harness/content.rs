//! Pseudo-random content of any size that nobody has to hold.
//!
//! Invariant: the same seed is the same bytes, wherever one starts to read.

use std::ops::Range;

use bytes::Bytes;
use outport_core::oci::digest::{Algorithm, Digest, Hasher};

/// Content that is made while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    seed: u64,
    size: u64,
}

/// What is made at a time when all of it is wanted.
const PIECE: usize = 256 * 1024;

// === impl Content ===

impl Content {
    /// Returns `size` bytes that only `seed` stands for.
    pub const fn new(seed: u64, size: u64) -> Self {
        Self { seed, size }
    }

    /// Returns how many bytes there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns a part of the content.
    pub fn slice(&self, range: Range<u64>) -> Bytes {
        assert!(
            range.start <= range.end && range.end <= self.size,
            "{range:?} of {}",
            self.size
        );
        let first_word = range.start / 8;
        let words = (first_word..range.end.div_ceil(8)).flat_map(|at| word(self.seed, at));
        let skipped = usize::try_from(range.start % 8).unwrap();
        let length = usize::try_from(range.end - range.start).unwrap();
        words.skip(skipped).take(length).collect()
    }

    /// Returns all of it, which had better not be much.
    pub fn bytes(&self) -> Bytes {
        self.slice(0..self.size)
    }

    /// Returns what is left from `start` on, in pieces of at most `length` bytes.
    pub fn pieces_from(self, start: u64, length: usize) -> impl Iterator<Item = Bytes> + Send {
        (start..self.size)
            .step_by(length)
            .map(move |at| self.slice(at..self.size.min(at + length as u64)))
    }

    /// Returns all of it in pieces of a convenient size.
    pub fn pieces(self) -> impl Iterator<Item = Bytes> + Send {
        self.pieces_from(0, PIECE)
    }

    /// Returns what a registry calls it.
    pub fn digest(&self, algorithm: Algorithm) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        for piece in self.pieces() {
            hasher.update(&piece);
        }
        hasher.finish()
    }

    /// Returns its sha256.
    pub fn sha256(&self) -> Digest {
        self.digest(Algorithm::Sha256)
    }
}

/// Returns the eight bytes at `8 * at` (splitmix64).
fn word(seed: u64, at: u64) -> [u8; 8] {
    let mut z = (seed.rotate_left(32) ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_a_part_of_the_whole() {
        let content = Content::new(7, 1000);
        let whole = content.bytes();
        assert_eq!(whole.len(), 1000);
        for range in [0..0, 0..1, 3..11, 8..16, 999..1000, 5..1000] {
            let expected =
                &whole[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            assert_eq!(content.slice(range.clone()), expected, "{range:?}");
        }
        let pieces: Vec<u8> = content.pieces_from(1, 7).flatten().collect();
        assert_eq!(pieces, whole[1..]);
        assert_eq!(content.sha256(), Algorithm::Sha256.digest(&whole));
        assert_ne!(Content::new(8, 1000).bytes(), whole);
    }
}
