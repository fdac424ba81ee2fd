//! One request and its response.
//!
//! What: hands a request to the service, makes a 500 of a panic, and follows the response to its end, which is when it is
//! counted and logged.
//!
//! Invariant: an exchange is in flight from the moment its head is complete until its response's body is dropped.
//! Cancellation: a client that leaves drops the service's future or the body, which is what is noted then.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, ready};
use http::header::HOST;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Server;
use super::activity::Activity;
use super::metrics::{Outcome, RequestLabels, UnfinishedLabels};
use super::rest::Lender;
use super::socket::Handle;
use crate::body::Body;
use crate::net::respond::{
    API_VERSION, DOCKER_DISTRIBUTION_API_VERSION, Note, chain, error_response,
};
use crate::oci::error::{ApiError, ErrorCode};

/// The address a request came from, among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The number of a request since the process started, among its extensions; it is in the request's log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u64);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The requests of a connection.
#[derive(Clone, Debug)]
pub(super) struct Exchanges<S> {
    pub(super) server: Server,
    pub(super) peer: SocketAddr,
    pub(super) handle: Handle,
    pub(super) lender: Lender,
    pub(super) service: S,
}

/// A request that is being answered.
#[derive(Debug)]
struct Exchange {
    server: Server,
    handle: Handle,
    id: RequestId,
    peer: SocketAddr,
    method: Method,
    /// Whether what is between the body and the socket holds as much as a chunk of it.
    is_held_twice: bool,
    /// None unless the request is going to be logged.
    uri: Option<Uri>,
    started: Instant,
    status: Option<StatusCode>,
    note: Note,
    sent_bytes: u64,
    outcome: Outcome,
}

/// A response's body, with the exchange that it ends.
#[derive(Debug)]
pub(super) struct SentBody {
    body: Body,
    exchange: Exchange,
}

// === impl Exchanges ===

impl<S, F> hyper::service::Service<Request<Incoming>> for Exchanges<S>
where
    S: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    type Response = Response<SentBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let exchange = Exchange::start(self, &request);
        let config = &self.server.0.config;
        let (head, body) = request.into_parts();
        let is_addressed = is_addressed(&head);
        let body = Body::incoming(body, config.body_stall_timeout);
        let (body, lent) = self.lender.lend(&head, body);
        let mut request = Request::from_parts(head, body);
        request.extensions_mut().insert(Peer(self.peer));
        request.extensions_mut().insert(exchange.id);
        // A service only makes a future, which is awaited where a panic is caught.
        let answering = if is_addressed {
            Either::Left((self.service)(request))
        } else {
            let error = ApiError::new(ErrorCode::BadRequest);
            let error = error.with_message("a request names one Host");
            Either::Right(ready(error_response(&error)))
        };
        let answering = AssertUnwindSafe(answering).catch_unwind();
        // An async block would hold what it awaits twice, and this is allocated and moved for each request.
        Box::pin(answering.map(move |answered| {
            let mut response =
                answered.unwrap_or_else(|_panic| error_response(&ErrorCode::Internal.into()));
            if let Some(lent) = lent {
                lent.settle(&mut response);
            }
            Ok(exchange.respond(response))
        }))
    }
}

/// Whether a request says for whom it is, and not for two: who does not may be smuggled in behind another (RFC 9112 section 3.2).
fn is_addressed(head: &Parts) -> bool {
    let hosts = head.headers.get_all(HOST).iter().count();
    hosts == 1 || (hosts == 0 && head.version != Version::HTTP_11)
}

// === impl Exchange ===

impl Exchange {
    fn start<S>(exchanges: &Exchanges<S>, request: &Request<Incoming>) -> Self {
        let server = exchanges.server.clone();
        exchanges.handle.note(Activity::request_started);
        server.0.metrics.requests_in_flight.inc();
        // TLS holds what is encrypted, and HTTP/2 what a stream has no window for.
        let is_held_twice = server.0.tls.is_some() || request.version() == Version::HTTP_2;
        let logged = tracing::enabled!(target: "outport::access", tracing::Level::DEBUG);
        Self {
            server,
            handle: exchanges.handle.clone(),
            id: RequestId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            peer: exchanges.peer,
            method: request.method().clone(),
            is_held_twice,
            uri: logged.then(|| request.uri().clone()),
            started: Instant::now(),
            status: None,
            note: Note::default(),
            sent_bytes: 0,
            outcome: Outcome::Left,
        }
    }

    fn respond(mut self, mut response: Response<Body>) -> Response<SentBody> {
        let metrics = &self.server.0.metrics;
        let status = response.status();
        self.status = Some(status);
        self.note = response.extensions_mut().remove().unwrap_or_default();
        let labels = RequestLabels {
            route: self.note.route,
            status: status.into(),
        };
        metrics.requests.get_or_create(&labels).inc();
        metrics
            .head_seconds
            .observe(self.started.elapsed().as_secs_f64());
        response
            .headers_mut()
            .insert(DOCKER_DISTRIBUTION_API_VERSION, API_VERSION);
        if response.body().is_end_stream()
            || self.method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            self.outcome = Outcome::Finished;
        }
        response.map(|body| SentBody {
            body: if self.is_held_twice {
                body.in_small_chunks()
            } else {
                body
            },
            exchange: self,
        })
    }

    fn log(&self) {
        let Some(uri) = &self.uri else { return };
        let duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // The query is left out: it may carry what must not be logged.
        tracing::debug!(
            target: "outport::access",
            {
                request.id = self.id.0,
                peer = %self.peer,
                method = self.method.as_str(),
                path = uri.path(),
                route = self.note.route,
                status = self.status.map(|status| status.as_u16()),
                served = self.note.served,
                outcome = self.outcome.as_str(),
                sent_bytes = self.sent_bytes,
                duration_ms,
            },
            "request"
        );
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let metrics = &self.server.0.metrics;
        self.handle.update(Activity::request_finished);
        metrics.requests_in_flight.dec();
        metrics.sent_bytes.inc_by(self.sent_bytes);
        if self.outcome != Outcome::Finished {
            let labels = UnfinishedLabels {
                outcome: self.outcome,
            };
            metrics.responses_unfinished.get_or_create(&labels).inc();
        }
        self.log();
    }
}

// === impl SentBody ===

impl SentBody {
    /// The client took nothing of it for too long.
    pub(super) const fn stalled(&mut self) {
        self.exchange.outcome = Outcome::Stalled;
    }
}

impl HttpBody for SentBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => this.exchange.outcome = Outcome::Finished,
            Poll::Ready(Some(Ok(frame))) => {
                this.exchange.sent_bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                if this.body.is_end_stream() || this.body.size_hint().exact() == Some(0) {
                    this.exchange.outcome = Outcome::Finished;
                }
            }
            Poll::Ready(Some(Err(error))) => {
                this.exchange.outcome = Outcome::Broken;
                let error = chain(error);
                tracing::warn!(request.id = this.exchange.id.0, error, "response broke off");
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
