//! Reading files again that were read at the start, when they may have changed.
//!
//! Why they are looked at, not watched: they are often links whose targets are swapped, on file systems that tell nobody;
//! reading a few small files costs nothing.

use std::io;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::process::Hangups;
use crate::tasks::Tasks;

/// Reads at each interval, and whenever the process is sent SIGHUP, until told to end; gives `take` what is not as it was last
/// time, and whatever it is after a SIGHUP.
pub async fn reread<T>(
    first: T,
    read: impl Fn() -> io::Result<T> + Clone + Send + 'static,
    interval: Duration,
    (mut hangups, tasks): (Hangups, Tasks),
    take: impl Fn(io::Result<T>),
) where
    T: Clone + PartialEq + Send + 'static,
{
    let mut last = Some(first);
    loop {
        let is_asked = tokio::select! {
            () = tasks.cancelled() => return,
            () = hangups.next() => true,
            () = sleep(interval) => false,
        };
        let Ok(found) = spawn_blocking(read.clone()).await else {
            return;
        };
        let content = found.as_ref().ok().cloned();
        if is_asked || content != last {
            take(found);
        }
        last = content;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::sync::{mpsc, watch};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gives_what_has_changed_and_what_is_asked_for() {
        let content = Arc::new(Mutex::new(Some(1)));
        let (hangup, hangups) = watch::channel(());
        let (sender, mut taken) = mpsc::unbounded_channel();
        let tasks = Tasks::new();
        let shared = Arc::clone(&content);
        let read = move || shared.lock().ok_or_else(|| io::Error::other("gone"));
        let rereading = reread(
            1,
            read,
            Duration::from_secs(10),
            (Hangups::of(hangups), tasks.clone()),
            move |found| sender.send(found.ok()).unwrap(),
        );
        drop(tasks.spawn("reread", rereading));
        hangup.send_replace(());
        assert_eq!(taken.recv().await, Some(Some(1)), "it was asked for");
        for next in [Some(2), None, Some(2)] {
            *content.lock() = next;
            assert_eq!(taken.recv().await, Some(next));
        }
        // As often as it is looked at.
        let again = tokio::time::timeout(Duration::from_mins(1), taken.recv());
        assert!(again.await.is_err());
        tasks.cancel();
        tasks.drain(Duration::from_secs(5)).await.unwrap();
    }
}
