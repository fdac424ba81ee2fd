//! Sending a question, and telling an answer from what is none.
//!
//! What: a node is asked as it is, and shown that a node asks; an upstream by its own names and with a token; and the origin for
//! an upstream by saying which, in [`OUTPORT_UPSTREAM`]: an origin that asks it says so too in its answer, so that what another says of a repository
//! that happens to be called so is not taken for the upstream's word.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use outport_core::access::Access;
use outport_core::body::Body;
use outport_core::clock;
use outport_core::net::client::{Client, ClientError, is_away};
use outport_core::upstream::{Redirected, TokenError, UpstreamError};

use super::health::{Errand, Outcome};
use super::wire::{is_page, retry_after};
use super::{Node, OUTPORT_HOPS, OUTPORT_UPSTREAM, Origin, OriginError, Peer, Refusal};

/// How long a blob may at least take to begin: some registries fetch it themselves first. To give it up sooner, again and again,
/// would be never to get it, and whoever has it is not away.
const DOWNLOAD_TIMEOUT_MIN: Duration = Duration::from_secs(10);

// === impl Origin ===

impl Origin {
    /// Sends a request as it is and returns the answer, whatever its status.
    ///
    /// A status that says that it cannot be served is for whoever asked: it may be that one request's own doing (a second
    /// chunk of an upload that is still being written to), and must not close the origin to everybody.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, OriginError> {
        let Peer::Node(node) = &self.0.peer else {
            return Err(OriginError::Absent);
        };
        self.send_to(&node.client, request, well_unless_away).await
    }

    /// Sends a question of this node's and returns the answer, whatever its status.
    async fn ask(
        &self,
        errand: &Errand,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, OriginError> {
        let Errand { about, progress } = errand;
        let upstream = match &self.0.peer {
            Peer::Absent => return Err(OriginError::Absent),
            Peer::Node(node) => {
                node.show(request.headers_mut());
                let client = node.client.noting(progress);
                return self.send_to(&client, request, well_unless_away).await;
            }
            Peer::Through(node, name) => {
                let headers = request.headers_mut();
                headers.insert(OUTPORT_UPSTREAM, name.clone());
                node.show(headers);
                let client = node.client.noting(progress);
                let answer = self.send_to(&client, request, |response| {
                    // That it says that an upstream is away says that the origin is not.
                    let is_well = is_for(response.headers(), name);
                    Some(is_well || !response.status().is_server_error())
                });
                let response = answer.await?;
                if !is_for(response.headers(), name) && !response.status().is_server_error() {
                    return Err(OriginError::Nonsense(
                        "the origin does not ask this upstream",
                    ));
                }
                return Ok(response);
            }
            Peer::Upstream(upstream) => upstream,
        };
        let health = &self.0.health;
        health.permit_for(about)?;
        // Not within every question to an origin.
        let answer = Box::pin(upstream.send(&about.repo, request, progress)).await;
        if let Some(quota) = upstream.quota() {
            health.show(quota);
        }
        if let Some(outcome) = outcome(&answer) {
            health.report_for(about, outcome);
        }
        answer.map_err(OriginError::from)
    }

    /// Bounds how long the head of a blob may take that a download asks for first. Clients do not wait as long: the answer is for
    /// when they come again.
    pub(super) async fn in_download_time<T>(
        &self,
        errand: &Errand,
        question: impl Future<Output = Result<T, OriginError>>,
    ) -> Result<T, OriginError> {
        let limit = self.0.config.tags.question_timeout;
        self.within(limit.max(DOWNLOAD_TIMEOUT_MIN), errand, question)
            .await
    }

    /// Sends a request to a node; `is_well` tells what an answer says of it, if anything.
    async fn send_to(
        &self,
        client: &Client,
        mut request: Request<Body>,
        is_well: impl FnOnce(&Response<Body>) -> Option<bool>,
    ) -> Result<Response<Body>, OriginError> {
        self.0.health.permit()?;
        request
            .headers_mut()
            .entry(OUTPORT_HOPS)
            .or_insert(HeaderValue::from_static("1"));
        let answer = client.send(request).await;
        match &answer {
            Ok(response) => {
                if let Some(is_well) = is_well(response) {
                    self.0.health.report(is_well);
                }
            }
            Err(ClientError::RequestBody(_) | ClientError::Busy { .. }) => {}
            Err(_) => self.0.health.report(false),
        }
        answer.map_err(|error| match error {
            ClientError::RequestBody(_) => OriginError::RequestBody(Arc::new(error)),
            ClientError::Busy { .. } => OriginError::Busy,
            error => OriginError::Unreachable(Arc::new(error)),
        })
    }

    /// Sends a question, and takes only a success or a 304 for an answer.
    pub(super) async fn answer(
        &self,
        errand: &Errand,
        request: Request<Body>,
    ) -> Result<Response<Body>, OriginError> {
        let response = self.ask(errand, request).await?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        if !matches!(self.0.peer, Peer::Absent | Peer::Node(_)) {
            return Err(self.refused_by_upstream(response).await);
        }
        if is_away(status) {
            self.0.health.report(false);
        }
        // What is refused then is what we have shown, and for an operator to mend: the client had no part in it.
        let is_our_own = status == StatusCode::UNAUTHORIZED && self.is_shown_a_node();
        if is_our_own || !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT {
            return Err(OriginError::Sick(status));
        }
        Err(OriginError::Refused(Arc::new(
            Refusal::read(response).await,
        )))
    }

    /// Tells what an upstream's no means: only its own 404 is one.
    async fn refused_by_upstream(&self, response: Response<Body>) -> OriginError {
        let is_redirected = response.extensions().get::<Redirected>().is_some();
        match response.status() {
            // What is for people is not the registry's word: a load balancer's in front of it, say.
            StatusCode::NOT_FOUND if !is_redirected && !is_page(response.headers()) => {
                let mut refusal = Refusal::read(response).await;
                // Nothing that it says beside it is for our clients.
                refusal.headers.clear();
                refusal.body = Bytes::new();
                OriginError::Refused(Arc::new(refusal))
            }
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) if !is_redirected => {
                OriginError::Denied(status)
            }
            // Where it sends may have had enough, which is no word of its own.
            StatusCode::TOO_MANY_REQUESTS if !is_redirected => {
                let wait = retry_after(response.headers(), clock::now());
                self.0.health.rest(wait);
                OriginError::Limited(wait)
            }
            // The origin knows how long whoever it asks is to be left alone.
            StatusCode::SERVICE_UNAVAILABLE
                if matches!(self.0.peer, Peer::Through(..))
                    && response.headers().contains_key(RETRY_AFTER) =>
            {
                OriginError::Later(retry_after(response.headers(), clock::now()))
            }
            status => OriginError::Sick(status),
        }
    }

    /// Whether questions to it show that a node asks.
    fn is_shown_a_node(&self) -> bool {
        match &self.0.peer {
            Peer::Node(node) | Peer::Through(node, _) => {
                node.access.as_ref().is_some_and(Access::has_key)
            }
            Peer::Absent | Peer::Upstream(_) => false,
        }
    }
}

// === impl Node ===

impl Node {
    /// Shows that a node asks. Never with what a client asks by way of us, which is the client's own matter.
    fn show(&self, headers: &mut HeaderMap) {
        if let Some(shown) = self.access.as_ref().and_then(Access::as_node) {
            headers.insert(AUTHORIZATION, shown);
        }
    }
}

/// Returns what an answer of a node says of it, whatever it is about.
fn well_unless_away(response: &Response<Body>) -> Option<bool> {
    (!is_away(response.status())).then_some(true)
}

/// Tells what came of a question to an upstream; none when it was not sent.
fn outcome(answer: &Result<Response<Body>, UpstreamError>) -> Option<Outcome> {
    let error = match answer {
        Ok(response) => {
            let is_redirected = response.extensions().get::<Redirected>().is_some();
            let status = response.status();
            // One that answers at all may be unable to for this one repository, or where it sends may be.
            let is_too_much = status == StatusCode::TOO_MANY_REQUESTS;
            return Some(if is_away(status) && !is_redirected {
                Outcome::Unavailable
            } else if status.is_server_error() || (is_too_much && is_redirected) {
                Outcome::Trouble
            } else {
                Outcome::Answer
            });
        }
        Err(error) => error,
    };
    let of_client = |error: &ClientError| match error {
        ClientError::Busy { .. } => None,
        ClientError::Unreachable { .. } => Some(Outcome::Away),
        _ => Some(Outcome::Silence),
    };
    match error {
        UpstreamError::Client(error) => of_client(error),
        UpstreamError::Elsewhere(_)
        | UpstreamError::TooManyRedirects
        | UpstreamError::BadRedirect => Some(Outcome::Trouble),
        UpstreamError::Token(error) => match &**error {
            TokenError::Unreachable(error) => of_client(error),
            error if error.is_no() => Some(Outcome::Answer),
            _ => Some(Outcome::Silence),
        },
    }
}

/// Whether an answer is an upstream's, by way of an origin.
fn is_for(headers: &HeaderMap, upstream: &HeaderValue) -> bool {
    headers.get(OUTPORT_UPSTREAM) == Some(upstream)
}
