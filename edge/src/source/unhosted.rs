//! Repositories that the origin said it does not know, which the default upstream stands for then.
//!
//! Invariants: only the origin's own word is in here, and a push through this node takes it out. It counts instead of a
//! question for as long as the origin's word on a tag does; after that only when the origin cannot be asked: so what is here
//! of an upstream is served by the name that it was pulled by, and a hosted repository that an upstream has too is not
//! mistaken for that.

use std::time::Duration;

use moka::sync::Cache;
use outport_core::oci::reference::RepoName;
use tokio::time::Instant;

/// Remembers repositories.
#[derive(Debug)]
pub(super) struct Unhosted(Cache<RepoName, Known>);

/// What is known of a repository.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// The origin, asked then, did not know it.
    Unhosted(Instant),
    /// It was pushed to then.
    Hosted(Instant),
}

/// How many are remembered.
const REPOSITORIES_MAX: u64 = 10_000;

// === impl Unhosted ===

impl Unhosted {
    pub(super) fn new() -> Self {
        Self(Cache::new(REPOSITORIES_MAX))
    }

    /// Takes note that the origin, asked at a time, did not know a repository; unless it was pushed to since.
    pub(super) fn put(&self, repo: &RepoName, asked: Instant) {
        self.0.entry_by_ref(repo).and_upsert_with(|known| {
            let known = known.map(moka::Entry::into_value);
            match known {
                Some(Known::Hosted(at)) if at >= asked => Known::Hosted(at),
                _ => Known::Unhosted(asked),
            }
        });
    }

    /// Takes note that the origin has a repository.
    pub(super) fn drop(&self, repo: &RepoName) {
        self.0.insert(repo.clone(), Known::Hosted(Instant::now()));
    }

    /// Returns how long ago the origin said that it does not know a repository.
    pub(super) fn age(&self, repo: &RepoName) -> Option<Duration> {
        match self.0.get(repo)? {
            Known::Unhosted(asked) => Some(asked.elapsed()),
            Known::Hosted(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_from_before_a_push_is_not_remembered() {
        let (unhosted, repo) = (Unhosted::new(), "team/app".parse().unwrap());
        assert_eq!(unhosted.age(&repo), None);
        let before = Instant::now();
        unhosted.put(&repo, before);
        assert!(unhosted.age(&repo).is_some());
        unhosted.drop(&repo);
        unhosted.put(&repo, before);
        assert_eq!(unhosted.age(&repo), None);
        unhosted.put(&repo, Instant::now() + Duration::from_secs(1));
        assert!(unhosted.age(&repo).is_some());
    }
}
