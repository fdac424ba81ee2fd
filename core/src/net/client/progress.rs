//! How far a request has come, for whoever waits for its answer: one that is slow and gets on is told from a silent one.
//!
//! Invariant: a step is what the other side did: it let a connection come about, or sent the head of an answer.

use std::sync::Arc;

use tokio::sync::watch;

/// How far a request has come, with those that it takes to be let in; a clone is the same.
#[derive(Clone, Debug)]
pub struct Progress(Arc<watch::Sender<Steps>>);

/// How far that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// How many heads of answers are in.
    pub heads: u32,
    /// Whether it waits for others of our own to make room.
    pub is_queued: bool,
    /// Whether it ever did.
    pub was_queued: bool,
    connections: u32,
}

// === impl Progress ===

impl Progress {
    /// Returns that of a request that has not been sent.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    /// Returns how far it has come.
    pub fn steps(&self) -> Steps {
        *self.0.borrow()
    }

    /// Returns what is told of each step from now on.
    pub fn subscribe(&self) -> watch::Receiver<Steps> {
        self.0.subscribe()
    }

    pub(super) fn connected(&self) {
        self.0.send_modify(|steps| steps.connections += 1);
    }

    pub(super) fn answered(&self) {
        self.0.send_modify(|steps| steps.heads += 1);
    }

    pub(super) fn queued(&self, is_queued: bool) {
        self.0.send_if_modified(|steps| {
            steps.is_queued = is_queued;
            steps.was_queued |= is_queued;
            // Nobody else has done anything.
            false
        });
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
