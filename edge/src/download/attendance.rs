//! Who waits for a download, so that one that nobody waits for can end.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts those who wait for a download; cheap to clone.
#[derive(Clone, Debug)]
pub struct Attendance(Arc<watch::Sender<Counts>>);

/// Somebody who waits, for as long as it lives; a clone is the same one a second time.
#[derive(Debug)]
pub struct Attendee(Attendance);

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Those who wait now.
    now: usize,
    /// Those who have ever come.
    ever: usize,
    /// Whether nobody is let in any more.
    is_closed: bool,
}

// === impl Attendance ===

impl Attendance {
    /// Returns one with nobody in it.
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    /// Lets the first one in.
    pub(crate) fn first(&self) -> Attendee {
        self.0.send_modify(Counts::add);
        Attendee(self.clone())
    }

    /// Lets somebody in, unless it is closed.
    pub(super) fn enter(&self) -> Option<Attendee> {
        let is_open = self.0.send_if_modified(|counts| {
            if !counts.is_closed {
                counts.add();
            }
            !counts.is_closed
        });
        is_open.then(|| Attendee(self.clone()))
    }

    /// Lets nobody in any more, if nobody waits; returns whether that is so.
    pub(super) fn close(&self) -> bool {
        self.0.send_if_modified(|counts| {
            counts.is_closed |= counts.now == 0;
            counts.is_closed
        })
    }

    /// Returns how many have ever come.
    pub(super) fn ever(&self) -> usize {
        self.0.borrow().ever
    }

    /// Waits until nobody waits.
    pub(super) async fn deserted(&self) {
        // The sender is here, so it cannot be gone.
        drop(self.0.subscribe().wait_for(|counts| counts.now == 0).await);
    }

    /// Waits until more have come than so many.
    pub(super) async fn more_than(&self, before: usize) {
        drop(
            self.0
                .subscribe()
                .wait_for(|counts| counts.ever > before)
                .await,
        );
    }

    /// Waits until somebody waits again.
    pub(super) async fn joined(&self) {
        drop(self.0.subscribe().wait_for(|counts| counts.now > 0).await);
    }
}

// === impl Counts ===

impl Counts {
    const fn add(&mut self) {
        self.now += 1;
        self.ever += 1;
    }
}

// === impl Attendee ===

impl Clone for Attendee {
    fn clone(&self) -> Self {
        // While somebody waits it cannot be closed.
        self.0.0.send_modify(|counts| counts.now += 1);
        Self(self.0.clone())
    }
}

impl Drop for Attendee {
    fn drop(&mut self) {
        self.0.0.send_modify(|counts| counts.now -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn tells_when_the_last_one_leaves() {
        let attendance = Attendance::new();
        let first = attendance.enter().unwrap();
        let second = first.clone();
        assert_eq!(attendance.deserted().now_or_never(), None);
        drop(first);
        assert_eq!(attendance.deserted().now_or_never(), None);
        drop(second);
        assert_eq!(attendance.deserted().now_or_never(), Some(()));
        assert_eq!(attendance.joined().now_or_never(), None);
        let third = attendance.enter().unwrap();
        assert_eq!(attendance.joined().now_or_never(), Some(()));
        assert_eq!(attendance.ever(), 2);
        assert_eq!(attendance.more_than(2).now_or_never(), None);
        assert_eq!(attendance.more_than(1).now_or_never(), Some(()));
        assert!(!attendance.close());
        drop(third);
        assert!(attendance.close());
        assert!(attendance.enter().is_none());
    }
}
