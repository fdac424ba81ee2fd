//! What upstreams said, a moment ago, that they do not have, or that is not to be had from them.
//!
//! Invariants: only what an upstream itself answered for is in here, for seconds, by the repository that it was asked of: so what
//! one credential does not show is not hidden from another. What is hosted is never: it may be pushed at any moment,
//! anywhere.

use std::time::Duration;

use moka::sync::Cache;
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::{Reference, RepoName};
use outport_core::short_memory::short_memory;

/// Remembers what is not there; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Absent(Option<Cache<(RepoName, Name), ()>>);

/// What a repository does not have, or does not give.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// A manifest.
    Manifest(Reference),
    /// A blob.
    Blob(Digest),
}

/// How much is remembered.
const NAMES_MAX: u64 = 10_000;

// === impl Absent ===

impl Absent {
    /// Remembers for so long; nothing when that is no time.
    pub(super) fn new(remember_for: Duration) -> Self {
        Self(short_memory(NAMES_MAX, remember_for))
    }

    pub(super) fn has(&self, repo: &RepoName, name: Name) -> bool {
        let known = self.0.as_ref();
        known.is_some_and(|known| known.contains_key(&(repo.clone(), name)))
    }

    pub(super) fn put(&self, repo: &RepoName, name: Name) {
        if let Some(known) = &self.0 {
            known.insert((repo.clone(), name), ());
        }
    }

    pub(super) fn drop(&self, repo: &RepoName, name: Name) {
        if let Some(known) = &self.0 {
            known.invalidate(&(repo.clone(), name));
        }
    }
}
