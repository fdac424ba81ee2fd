//! The tasks of a process: each is named, counted, and waited for before the process ends.
//!
//! What: the only place that spawns. A task that should end with the process watches [`Tasks::cancelled`]; one that must
//! finish its work does not, and is waited for by [`Tasks::drain`].
//!
//! Invariant: a task that was spawned is counted under its name until its future is dropped, also when it panics.
//! Cancellation: cancelling only tells; nothing is aborted, whatever is still in at the deadline dies with the runtime.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A handle to a set of tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    tracker: TaskTracker,
    cancelled: CancellationToken,
    /// How many tasks of each name are in; a name that none has is not here.
    running: Mutex<BTreeMap<&'static str, usize>>,
}

/// Tasks that were still in when the deadline to drain passed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct StillIn(BTreeMap<&'static str, usize>);

/// Counts as a task; see [`Tasks::hold`].
#[derive(Debug)]
pub struct Held {
    _counted: Counted,
    _token: TaskTrackerToken,
}

/// Counts a task under its name for as long as it lives.
#[derive(Debug)]
struct Counted {
    tasks: Tasks,
    name: &'static str,
}

// === impl Tasks ===

impl Tasks {
    /// Returns an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty set that is cancelled when this one is, and drained on its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(Arc::new(Inner {
            cancelled: self.0.cancelled.child_token(),
            ..Inner::default()
        }))
    }

    /// Spawns a task.
    #[expect(clippy::disallowed_methods, reason = "this is where tasks are tracked")]
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let counted = self.count(name);
        // A future that is moved into another one and awaited there takes its room twice.
        let task = Box::pin(task);
        tokio::spawn(self.0.tracker.track_future(async move {
            let _counted = counted;
            task.await
        }))
    }

    /// Returns what is counted as a task under a name until it is dropped: for work that blocks a thread and goes on when
    /// whoever waited for it has gone.
    pub fn hold(&self, name: &'static str) -> Held {
        Held {
            _counted: self.count(name),
            _token: self.0.tracker.token(),
        }
    }

    /// Tells all tasks to end.
    pub fn cancel(&self) {
        self.0.cancelled.cancel();
    }

    /// Whether tasks have been told to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.is_cancelled()
    }

    /// Completes when tasks are told to end.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.0.cancelled.cancelled()
    }

    /// Returns the token that tells tasks to end.
    pub fn token(&self) -> CancellationToken {
        self.0.cancelled.clone()
    }

    /// Returns how many tasks are in.
    pub fn len(&self) -> usize {
        self.0.tracker.len()
    }

    /// Whether no task is in.
    pub fn is_empty(&self) -> bool {
        self.0.tracker.is_empty()
    }

    /// Waits until no task is in, or says who still is when `deadline` has passed.
    pub async fn drain(&self, deadline: Duration) -> Result<(), StillIn> {
        self.0.tracker.close();
        let drained = tokio::time::timeout(deadline, self.0.tracker.wait()).await;
        self.0.tracker.reopen();
        match drained {
            Ok(()) => Ok(()),
            Err(_elapsed) => Err(StillIn(self.0.running.lock().clone())),
        }
    }

    fn count(&self, name: &'static str) -> Counted {
        *self.0.running.lock().entry(name).or_default() += 1;
        Counted {
            tasks: self.clone(),
            name,
        }
    }
}

// === impl Counted ===

impl Drop for Counted {
    fn drop(&mut self) {
        let mut running = self.tasks.0.running.lock();
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

// === impl StillIn ===

impl fmt::Display for StillIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("still in:")?;
        for (name, count) in &self.0 {
            write!(f, " {name} x{count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn says_who_is_still_in() {
        let tasks = Tasks::new();
        drop(tasks.spawn("stuck", pending::<()>()));
        drop(tasks.spawn("stuck", pending::<()>()));
        let token = tasks.token();
        drop(tasks.spawn("polite", async move { token.cancelled().await }));
        tasks.cancel();
        let error = tasks.drain(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "still in: stuck x2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_no_longer_in() {
        let tasks = Tasks::new();
        let task = tasks.spawn("broken", async { panic!("on purpose") });
        assert!(task.await.unwrap_err().is_panic());
        tasks.drain(Duration::from_secs(1)).await.unwrap();
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_child_is_cancelled_with_its_parent_only() {
        let parent = Tasks::new();
        let child = parent.child();
        let other = parent.child();
        other.cancel();
        assert!(!parent.is_cancelled() && !child.is_cancelled());
        parent.cancel();
        assert!(child.is_cancelled());
    }
}
