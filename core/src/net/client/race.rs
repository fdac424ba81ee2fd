//! One question to several URLs that are the same registry: the first answer counts.
//!
//! What: the first URL is asked, and the next one beside it when there is no head of an answer after a while, or at once when
//! there will be none. A status that says that whoever was asked cannot answer (5xx) is no answer while there is somebody
//! else to ask.
//!
//! Invariants: only what is safe to repeat, and has no body, is asked so. No more requests are under way than may be: with
//! none to spare, the next URL waits until the one before it has failed.
//!
//! Failure: when nobody answers, the last such status, or else the last error. Cancellation: a URL that owes its answer for
//! [`BLAMED_AFTER_MAX`] when nobody waits for it any more is tried last for a while, because whoever gave up (by a timeout of
//! their own, shorter than ours) would else meet it again; one that is given up sooner is not to blame.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::outgoing::Transfer;
use super::{Client, ClientError, Inner};
use crate::body::Body;
use crate::net::respond::chain;

/// How long a URL has owed its answer, at most, when it is blamed for that nobody waits any more.
const BLAMED_AFTER_MAX: Duration = Duration::from_millis(500);

/// What came of asking the URL of a number.
type Asked = (usize, Result<Response<Incoming>, ClientError>);

/// The losses of a race, and whom to ask yet.
struct Field {
    left: VecDeque<usize>,
    /// Whether a connection has broken: most likely the other side closed it while it was idle, so that URL is asked again.
    has_broken: bool,
    /// What to return when nobody is left: an answer, if there was any.
    lost: Result<Response<Incoming>, ClientError>,
    /// Whose answer that is.
    lost_by: usize,
}

/// The answer that a URL owes; to drop it unsettled is to give up waiting.
struct Debt<'a> {
    client: &'a Client,
    index: usize,
    since: Instant,
    is_settled: bool,
}

// === impl Client ===

impl Client {
    /// Asks the URLs of these numbers, of which there are some, in their order, as the head of a request says that has no body.
    pub(super) async fn send_to_first(
        &self,
        order: Vec<usize>,
        parts: &Parts,
    ) -> Result<Response<Body>, ClientError> {
        let Inner { urls, config, .. } = &*self.inner;
        let first = &urls[order[0]];
        let held = self.permit(first).await?;
        let mut field = Field {
            left: order.into(),
            has_broken: false,
            // Until somebody was asked.
            lost: Err(ClientError::Busy { url: first.clone() }),
            lost_by: 0,
        };
        let mut asked = FuturesUnordered::new();
        let mut next_at = Instant::now();
        loop {
            if asked.is_empty() {
                let Some(index) = field.left.pop_front() else {
                    let by = Some(field.lost_by);
                    return field.lost.map(|response| self.received(response, by, held));
                };
                asked.push(self.ask(index, parts, None));
                next_at = Instant::now() + config.overtake_after;
            }
            tokio::select! {
                biased;
                Some((index, outcome)) = asked.next() => match outcome {
                    Ok(response) if !response.status().is_server_error() => {
                        self.inner.avoid.lock().works(index);
                        return Ok(self.received(response, Some(index), held));
                    }
                    outcome => {
                        self.lose(&mut field, index, outcome);
                        next_at = Instant::now();
                    }
                },
                () = sleep_until(next_at), if !field.left.is_empty() => {
                    next_at = Instant::now() + config.overtake_after;
                    if let Ok(more) = Arc::clone(&self.inner.requests).try_acquire_owned()
                        && let Some(index) = field.left.pop_front()
                    {
                        asked.push(self.ask(index, parts, Some(more)));
                    }
                }
            }
        }
    }

    /// Asks the URL of a number, and holds what it takes to do so meanwhile.
    async fn ask(&self, index: usize, parts: &Parts, _held: Option<OwnedSemaphorePermit>) -> Asked {
        let mut debt = Debt {
            client: self,
            index,
            since: Instant::now(),
            is_settled: false,
        };
        let nothing = Transfer::new(Body::empty());
        let outcome = self.attempt(&self.inner.urls[index], parts, &nothing).await;
        debt.is_settled = true;
        (index, outcome)
    }

    /// Takes note that a URL did not answer.
    fn lose(
        &self,
        field: &mut Field,
        index: usize,
        outcome: Result<Response<Incoming>, ClientError>,
    ) {
        match &outcome {
            Ok(response) => {
                let (url, status) = (&self.inner.urls[index], response.status());
                tracing::debug!(%url, %status, "no answer, asking the next");
            }
            Err(error) => tracing::debug!(error = chain(error), "no answer, asking the next"),
        }
        if matches!(outcome, Err(ClientError::Broken { .. })) && !field.has_broken {
            field.has_broken = true;
            field.left.push_front(index);
        } else {
            self.inner.avoid.lock().fails(index, Instant::now());
        }
        if outcome.is_ok() || field.lost.is_err() {
            (field.lost, field.lost_by) = (outcome, index);
        }
    }
}

/// Whether a status says that whoever was asked, or somebody behind it, cannot answer now.
pub const fn is_away(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

// === impl Debt ===

impl Drop for Debt<'_> {
    fn drop(&mut self) {
        let Inner { avoid, config, .. } = &*self.client.inner;
        let blamed_after = BLAMED_AFTER_MAX.min(config.overtake_after);
        if !self.is_settled && self.since.elapsed() >= blamed_after {
            avoid.lock().fails(self.index, Instant::now());
        }
    }
}
