//! What a bucket remembers of a session between appends, and how content is cut into parts.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::oci::digest::Digest;
use crate::store::{Staged, StoreError};

/// The most parts that stores allow.
pub(super) const PARTS_MAX: usize = 10_000;

/// After so many parts they become twice as large, so that those that stores allow suffice for large blobs.
const PARTS_PER_SIZE: usize = 1_000;

/// How often they do: a part is held in memory, so blobs that are larger still want larger parts from the start.
const DOUBLINGS_MAX: usize = 4;

/// How many times larger than the first a part can be.
pub(super) const GROWTH_MAX: usize = 1 << DOUBLINGS_MAX;

/// What a bucket remembers of a session.
///
/// The session's bytes are those of `parts`, in order, and then those of `tail`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct State {
    /// The blob whose key the multipart upload is for; none for the session's own key.
    pub(super) destination: Option<String>,
    /// The store's id of the multipart upload.
    pub(super) multipart: Option<String>,
    /// What the multipart upload is called when it is not for a blob's key. No other is called so, because the object that it
    /// ends as must not be written over: it may be what a blob's bytes are.
    pub(super) upload: Option<Uuid>,
    /// The store's ids of the parts.
    pub(super) parts: Vec<String>,
    /// How many bytes are in the parts.
    pub(super) parts_bytes: u64,
    /// Whether the last part is in, which may be short: nothing can follow it.
    pub(super) ended: bool,
    /// The object that holds what does not fill a part.
    pub(super) tail: Option<Uuid>,
    /// Objects that a tail or a part has replaced; deleted by an append that starts from this value, because until it was
    /// written down, a crash sends everybody back to the value before.
    pub(super) replaced: Vec<Uuid>,
    /// Whether there ever was a tail.
    pub(super) had_tail: bool,
    /// Whether all of it is at its destination already, verified.
    pub(super) published: bool,
}

impl State {
    pub(super) fn of(staged: &Staged) -> Result<Self, StoreError> {
        if staged.engine().is_null() {
            return Ok(Self::default());
        }
        serde_json::from_value(staged.engine().clone())
            .map_err(|error| StoreError::Failed(error.into()))
    }

    pub(super) fn into_value(self) -> Result<serde_json::Value, StoreError> {
        serde_json::to_value(self).map_err(|error| StoreError::Failed(error.into()))
    }

    /// Whether it goes straight to the key of `digest`.
    pub(super) fn is_for(&self, digest: &Digest) -> bool {
        self.destination() == Some(*digest)
    }

    /// Returns the blob whose key the bytes are put under.
    pub(super) fn destination(&self) -> Option<Digest> {
        self.destination.as_ref()?.parse().ok()
    }

    /// Returns what the multipart upload of a session is called.
    pub(super) fn upload_of(&self, session: Uuid) -> Uuid {
        self.upload.unwrap_or(session)
    }

    /// Accounts for a part that holds what the tail held, and more.
    pub(super) fn add_part(&mut self, id: String, bytes: u64) {
        self.parts.push(id);
        self.parts_bytes += bytes;
        self.replaced.extend(self.tail.take());
    }

    /// Accounts for the whole blob, put under its own key.
    pub(super) fn publish(&mut self, destination: &Digest) {
        self.destination = Some(destination.to_string());
        self.replaced.extend(self.tail.take());
        self.published = true;
    }

    /// Accounts for a new tail that holds what the old one held, and more.
    pub(super) fn replace_tail(&mut self, append: Uuid) {
        self.replaced.extend(self.tail.replace(append));
        self.had_tail = true;
    }
}

/// Returns the size of the part at `index`, when the first one has `first` bytes.
///
/// It depends on the place only: an append that is made again with the same bytes makes the same parts.
pub(super) const fn part_bytes(first: usize, index: usize) -> usize {
    let doublings = index / PARTS_PER_SIZE;
    let doublings = if doublings < DOUBLINGS_MAX {
        doublings
    } else {
        DOUBLINGS_MAX
    };
    first << doublings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_with_their_place() {
        #[track_caller]
        fn check(index: usize, expected: usize) {
            assert_eq!(part_bytes(8 << 20, index), expected << 20);
        }
        check(0, 8);
        check(999, 8);
        check(1_000, 16);
        check(3_999, 64);
        check(4_000, 128);
        check(9_999, 128);
    }

    #[test]
    fn all_parts_hold_what_the_configuration_says() {
        let sum: u64 = (0..PARTS_MAX)
            .map(|index| part_bytes(5 << 20, index) as u64)
            .sum();
        assert_eq!(sum >> 30, 541);
    }

    #[test]
    fn a_tail_is_kept_until_the_next_value_is_written_down() {
        let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
        let mut state = State::default();
        assert!(!state.had_tail);
        state.replace_tail(one);
        assert_eq!(
            (state.tail, state.replaced.as_slice()),
            (Some(one), [].as_slice())
        );
        state.replace_tail(two);
        assert_eq!(
            (state.tail, state.replaced.as_slice()),
            (Some(two), [one].as_slice())
        );
        state.add_part("etag".to_owned(), 5);
        assert_eq!(
            (state.tail, state.replaced.as_slice()),
            (None, [one, two].as_slice())
        );
        assert!(state.had_tail);
    }
}
