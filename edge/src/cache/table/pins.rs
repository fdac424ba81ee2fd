//! What must stay, and for the sake of which image.
//!
//! Invariants: a blob is pinned as long as any image pins it. There are at most [`PINS_MAX`] of them, and the pins of
//! all images are bounded too, whatever they share; an image that would go beyond changes nothing.
//!
//! An image is a name here, and nothing is known of it but what it pinned. A pin that was written down before images were
//! remembered is that of an image that is called by the digest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use outport_core::oci::digest::Digest;

/// What images pin.
#[derive(Debug, Default)]
pub struct Pins {
    images: BTreeMap<String, BTreeSet<Digest>>,
    /// How many images pin each blob.
    counts: HashMap<Digest, usize>,
    /// How many pins all images have.
    total: usize,
}

/// There are as many pins as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there may be {PINS_MAX} pinned blobs, and {PINS_OF_IMAGES_MAX} pins of images")]
pub struct TooManyPins;

/// How many blobs may be pinned.
pub const PINS_MAX: usize = 10_000;

/// How many pins all images may have together, for each of which its digest is in memory.
pub(super) const PINS_OF_IMAGES_MAX: usize = 10 * PINS_MAX;

// === impl Pins ===

impl Pins {
    /// Whether a blob is pinned.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.counts.contains_key(digest)
    }

    /// Returns the blobs that are pinned.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.counts.keys()
    }

    /// Returns the images that pin, and what.
    pub const fn images(&self) -> &BTreeMap<String, BTreeSet<Digest>> {
        &self.images
    }

    /// Has an image pin these and nothing else; returns what it pinned before.
    pub(super) fn set(
        &mut self,
        image: String,
        digests: BTreeSet<Digest>,
    ) -> Result<BTreeSet<Digest>, TooManyPins> {
        let before = self.images.get(&image);
        let is_freed =
            |digest: &&Digest| !digests.contains(*digest) && self.counts.get(*digest) == Some(&1);
        let freed = before.into_iter().flatten().filter(is_freed).count();
        let new = digests.iter().filter(|digest| !self.contains(digest));
        let blobs = self.counts.len() - freed + new.count();
        let total = self.total - before.map_or(0, BTreeSet::len) + digests.len();
        if blobs > PINS_MAX || total > PINS_OF_IMAGES_MAX {
            return Err(TooManyPins);
        }
        let before = self.release(&image).unwrap_or_default();
        for digest in &digests {
            *self.counts.entry(*digest).or_default() += 1;
        }
        self.total += digests.len();
        self.images.insert(image, digests);
        Ok(before)
    }

    /// Has an image pin nothing any more; returns what it pinned, or none when it did not.
    pub(super) fn release(&mut self, image: &str) -> Option<BTreeSet<Digest>> {
        let digests = self.images.remove(image)?;
        for digest in &digests {
            let count = self.counts.entry(*digest).or_default();
            *count -= 1;
            if *count == 0 {
                self.counts.remove(digest);
            }
        }
        self.total -= digests.len();
        Some(digests)
    }
}
