//! What a bucket answers at once, or not at all.
//!
//! What: small requests, and the heads of the answers to others, are waited for a moment only, repetitions included. Clients
//! want to hear soon that a bucket is away, and most of those that ask while it is do not even wait for that. What takes as
//! long as its bytes, a part or a copy, is bounded by the engine.

use std::time::Duration;

use object_store::{Error, Result};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::breaker::{Breaker, BreakerConfig, Permit};

/// Asks a bucket for what it answers at once.
#[derive(Debug)]
pub(super) struct Prompt {
    timeout: Duration,
    breaker: Mutex<Breaker>,
}

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("no answer lately, and not asked again for {0:?}")]
    Resting(Duration),
}

/// A few late answers can be chance. Rests are short, since a bucket that is back should be in use again: what they save is
/// not the bucket, but the time of clients.
const BREAKER: BreakerConfig = BreakerConfig {
    failures: 3,
    min_rest: Duration::from_secs(1),
    max_rest: Duration::from_secs(4),
};

// === impl Prompt ===

impl Prompt {
    pub(super) const fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            breaker: Mutex::new(Breaker::new(BREAKER)),
        }
    }

    /// Waits for the answer to a request, if the bucket answers these days.
    pub(super) async fn ask<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let permit = self.breaker.lock().ask(Instant::now());
        if let Permit::Rest(rest) = permit {
            return Err(Unanswered::Resting(rest).into());
        }
        let answer = timeout(self.timeout, request).await;
        let mut breaker = self.breaker.lock();
        match answer {
            Ok(answer) => {
                breaker.succeeded();
                answer
            }
            Err(_elapsed) => {
                breaker.failed(Instant::now());
                Err(Unanswered::Late(self.timeout).into())
            }
        }
    }
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        Self::Generic {
            store: "bucket",
            source: unanswered.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(1500);

    async fn late(prompt: &Prompt) -> Duration {
        let begin = Instant::now();
        let answer: Result<()> = prompt.ask(pending()).await;
        answer.unwrap_err();
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_a_moment_and_after_some_times_no_more() {
        let prompt = Prompt::new(TIMEOUT);
        for _ in 0..BREAKER.failures {
            assert_eq!(late(&prompt).await, TIMEOUT);
        }
        assert_eq!(late(&prompt).await, Duration::ZERO);
        let answer = prompt.ask(ready(Ok(1))).await;
        assert!(answer.unwrap_err().to_string().contains("not asked again"));
        tokio::time::advance(BREAKER.min_rest).await;
        assert_eq!(prompt.ask(ready(Ok(1))).await.unwrap(), 1);
        assert_eq!(late(&prompt).await, TIMEOUT);
    }
}
