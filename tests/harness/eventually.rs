//! Waiting for what has to come, and cannot be waited for otherwise.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long it may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer.
///
/// # Panics
///
/// When it takes too long; `what` says what did not come.
#[track_caller]
pub fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let mut ask = ask;
        let begin = Instant::now();
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(begin.elapsed() < DEADLINE, "{what} did not come: {caller}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}
