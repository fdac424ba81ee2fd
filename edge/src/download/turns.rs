//! Whose turn it is to bring something in.
//!
//! What: so many downloads are under way at a time, and of one upstream no more than three quarters of them, so that one whose
//! bytes do not come keeps nobody from having another's.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns of downloads.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// How many one upstream may have.
    share: usize,
    upstreams: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A turn, as long as it is held.
#[derive(Debug)]
pub(super) struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_upstream: Option<OwnedSemaphorePermit>,
}

// === impl Turns ===

impl Turns {
    /// Returns so many turns.
    pub(super) fn new(turns: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(turns)),
            share: turns.div_ceil(4) * 3,
            upstreams: Mutex::default(),
        }
    }

    /// Waits for a turn to bring in what is an upstream's, or the origin's own.
    pub(super) async fn take(&self, upstream: Option<&str>) -> Option<Turn> {
        let of_upstream = match upstream {
            Some(name) => Some(self.of_upstream(name).acquire_owned().await.ok()?),
            None => None,
        };
        Some(Turn {
            _of_all: Arc::clone(&self.all).acquire_owned().await.ok()?,
            _of_upstream: of_upstream,
        })
    }

    /// There are as many as the configuration names.
    fn of_upstream(&self, name: &str) -> Arc<Semaphore> {
        let mut upstreams = self.upstreams.lock();
        let turns = upstreams
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(self.share)));
        Arc::clone(turns)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_upstream_does_not_take_all() {
        for (all, share) in [(1, 1), (4, 3), (64, 48)] {
            let turns = Turns::new(all);
            let mut held = Vec::new();
            let take = |upstream| turns.take(upstream).now_or_never().flatten();
            while let Some(turn) = take(Some("slow")) {
                held.push(turn);
            }
            assert_eq!(held.len(), share.min(all));
            if all > 1 {
                held.extend(take(Some("other")));
                held.extend(take(None));
                assert!(held.len() > share);
            }
        }
    }
}
