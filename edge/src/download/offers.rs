//! Other registries that have the blob too, as those found out who joined its download.
//!
//! What: a download asks through the repository that it was started for. One that joins it for a repository of another
//! registry offers that: it is asked in its place when the first takes its time, so that a slow registry, or one that lies, holds
//! nobody up who can have the blob elsewhere. What that gives shows nothing of the download's own repository (see `giver`).

use std::sync::Arc;

use outport_core::oci::reference::RepoName;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What is offered to one download; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Offers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    made: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// All that were made, the oldest first.
    made: Vec<RepoName>,
    /// How many of them have been taken.
    taken: usize,
    /// The one that is asked now.
    current: Option<RepoName>,
}

/// How many are taken note of.
const OFFERS_MAX: usize = 4;

// === impl Offers ===

impl Offers {
    /// Offers a repository, unless that was done.
    pub(super) fn make(&self, repo: &RepoName) {
        {
            let mut state = self.0.state.lock();
            if state.made.len() == OFFERS_MAX || state.made.contains(repo) {
                return;
            }
            state.made.push(repo.clone());
        }
        self.0.made.notify_one();
    }

    /// Waits until there is one that was not taken.
    pub(super) async fn made(&self) {
        while !self.are_there() {
            self.0.made.notified().await;
        }
    }

    /// Whether there is one that was not taken.
    pub(super) fn are_there(&self) -> bool {
        let state = self.0.state.lock();
        state.taken < state.made.len()
    }

    /// Has the next one asked from now on.
    pub(super) fn take(&self) {
        let mut state = self.0.state.lock();
        if let Some(repo) = state.made.get(state.taken).cloned() {
            state.taken += 1;
            state.current = Some(repo);
        }
    }

    /// Returns the one that is asked now; none when it is the download's own repository.
    pub(super) fn current(&self) -> Option<RepoName> {
        self.0.state.lock().current.clone()
    }

    /// Has the download's own repository asked again.
    pub(super) fn give_up(&self) {
        self.0.state.lock().current = None;
    }
}
