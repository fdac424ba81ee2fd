//! The client of another registry: of the origin for an edge, of an upstream.
//!
//! What: requests to one of several base URLs that are the same registry, tried in their order; those that were just
//! found to fail come last. What is safe to repeat does not wait for one that is silent (`race`). Bodies stream both ways and
//! always as they are: no encoding is asked for or undone, and no redirect is followed. Headers that are of one connection
//! only are left out both ways.
//!
//! Invariant: a request's body is handed to one URL only; a request is sent again, or to another URL beside, only when nothing
//! of it was sent, or when it is safe to repeat and its body is untouched.
//!
//! Failure: [`ClientError`] tells apart what never reached the registry, what took too long and what broke off. A
//! response's body that stalls or breaks ends with an error, and others are asked first for a while (`answerer`).
//! Cancellation: dropping the future drops the request.
//!
//! Why the tasks of connections are not on a `Tasks`: they live as long as the client or a body that it returned, which
//! are what is drained; on their own they hold nothing that needs an end.

mod answerer;
mod avoid;
mod base_url;
mod connect;
mod guard;
mod outgoing;
mod progress;
mod race;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, CONNECTION, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

pub use answerer::Answerer;
pub use base_url::{BadBaseUrl, BaseUrl};
pub use guard::{Guard, NotPublic};
pub use progress::{Progress, Steps};
pub use race::is_away;

use crate::body::Body;
use crate::net::respond::chain;
use avoid::Avoid;
use connect::Connector;
use outgoing::{Lease, Transfer};

/// How much of a response hyper reads ahead on an HTTP/1 connection.
const READ_AHEAD_BYTES: usize = 128 * 1024;

/// How much may be sent ahead to us in HTTP/2; sized for 100 ms at 80 MB/s.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 8 << 20;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Headers that say something about one connection.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The bounds of a client.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// How long the head of a response may take once the request's body has been sent.
    pub header_timeout: Duration,
    /// How long a response's body, or the taking of a request's, may stand still.
    pub stall_timeout: Duration,
    /// How long an idle connection is kept; shorter than the server keeps it.
    pub idle_timeout: Duration,
    /// How many idle connections are kept to each host.
    pub max_idle_per_host: usize,
    /// How many requests may be under way, their responses' bodies included; more wait.
    pub max_requests: usize,
    /// How long a URL that failed is tried last.
    pub avoid_for: Duration,
    /// How long one of several URLs may owe its answer before the next one is asked beside it.
    pub overtake_after: Duration,
    /// A file of certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Which addresses may be connected to.
    pub guard: Guard,
}

/// A client of a registry; a clone shares its connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
    /// Who is told how far its requests have come.
    progress: Option<Progress>,
}

#[derive(Debug)]
struct Inner {
    pool: legacy::Client<Connector, Lease>,
    urls: Vec<BaseUrl>,
    avoid: Mutex<Avoid>,
    requests: Arc<Semaphore>,
    config: Config,
}

/// The registry could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection came about: nothing was sent.
    #[error("connect to {url}")]
    Unreachable {
        /// Whom.
        url: BaseUrl,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It did not answer in time.
    #[error("{url} did not answer within {after:?}")]
    Timeout {
        /// Who.
        url: BaseUrl,
        /// The bound.
        after: Duration,
    },
    /// Too many requests were under way for too long.
    #[error("too many requests to {url} are under way")]
    Busy {
        /// To whom.
        url: BaseUrl,
    },
    /// The connection broke before the head of the response was in.
    #[error("{url} broke off")]
    Broken {
        /// Who.
        url: BaseUrl,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The request's path cannot be put behind the URL.
    #[error("put the path behind {url}")]
    Path {
        /// Which.
        url: BaseUrl,
        /// Why.
        #[source]
        source: http::Error,
    },
    /// The request's own body broke off.
    #[error("read the request's body")]
    RequestBody(#[source] io::Error),
}

/// A client could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum BadClient {
    /// It has no URL.
    #[error("no url to send requests to")]
    NoUrls,
    /// The file of certificates cannot be used.
    #[error("read certificates from {}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TLS cannot be set up.
    #[error("set up tls")]
    Tls(#[source] rustls::Error),
}

// === impl Client ===

impl Client {
    /// Returns a client of the registry that all of `urls` are.
    pub fn new(urls: Vec<BaseUrl>, config: Config) -> Result<Self, BadClient> {
        if urls.is_empty() {
            return Err(BadClient::NoUrls);
        }
        let pool = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.max_idle_per_host)
            .http1_max_buf_size(READ_AHEAD_BYTES)
            .http2_initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(config.idle_timeout / 2)
            .http2_keep_alive_timeout(config.connect_timeout)
            .build(Connector::new(&config)?);
        Ok(Self {
            inner: Arc::new(Inner {
                pool,
                avoid: Mutex::new(Avoid::new(urls.len(), config.avoid_for)),
                urls,
                requests: Arc::new(Semaphore::new(config.max_requests)),
                config,
            }),
            progress: None,
        })
    }

    /// Returns the same client, whose requests are those of one question, of which `progress` is to tell how far it has come.
    #[must_use]
    pub fn noting(&self, progress: &Progress) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            progress: Some(progress.clone()),
        }
    }

    /// Sends a request, whose URI is only path and query (`/v2/...`), and returns the response once its head is in.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ClientError> {
        let Inner { urls, avoid, .. } = &*self.inner;
        let order = avoid.lock().order(Instant::now());
        if order.len() > 1 && request.method().is_safe() && request.body().is_end_stream() {
            let (mut parts, _) = request.into_parts();
            parts.headers = sent_headers(&parts.headers);
            return self.send_to_first(order, &parts).await;
        }
        let urls = order.into_iter().map(|index| (&urls[index], Some(index)));
        self.send_to_any(urls.collect(), request).await
    }

    /// Sends a request as [`Self::send`] does, to a place that the registry has told.
    pub async fn send_to(
        &self,
        url: &BaseUrl,
        request: Request<Body>,
    ) -> Result<Response<Body>, ClientError> {
        self.send_to_any([(url, None)].into(), request).await
    }

    /// Sends a request to the first of several URLs, by their numbers, that takes it.
    async fn send_to_any(
        &self,
        mut left: VecDeque<(&BaseUrl, Option<usize>)>,
        request: Request<Body>,
    ) -> Result<Response<Body>, ClientError> {
        let avoid = &self.inner.avoid;
        let (mut parts, body) = request.into_parts();
        parts.headers = sent_headers(&parts.headers);
        let is_safe = parts.method.is_safe();
        let transfer = Transfer::new(body);
        let mut permit = None;
        let mut broke = false;
        loop {
            let Some((url, index)) = left.pop_front() else {
                // Cannot be: the loop returns with the last of them.
                return Err(ClientError::RequestBody(io::ErrorKind::Other.into()));
            };
            let held = match permit.take() {
                Some(held) => held,
                None => self.permit(url).await?,
            };
            let outcome = self.attempt(url, &parts, &transfer).await;
            let error = match outcome {
                Ok(response) => {
                    if let Some(index) = index {
                        avoid.lock().works(index);
                    }
                    return Ok(self.received(response, index, held));
                }
                Err(error) => error,
            };
            permit = Some(held);
            if let Some(error) = transfer.take_failure() {
                return Err(ClientError::RequestBody(error));
            }
            if matches!(error, ClientError::Broken { .. }) && !broke {
                // Most likely a connection that the other side closed while it was idle.
                broke = true;
                left.push_front((url, index));
            } else if let Some(index) = index {
                avoid.lock().fails(index, Instant::now());
            }
            let repeatable = is_safe || matches!(error, ClientError::Unreachable { .. });
            if left.is_empty() || !repeatable || !transfer.is_untouched() {
                return Err(error);
            }
            tracing::debug!(error = chain(&error), "trying again");
        }
    }

    async fn permit(&self, url: &BaseUrl) -> Result<OwnedSemaphorePermit, ClientError> {
        if let Ok(permit) = Arc::clone(&self.inner.requests).try_acquire_owned() {
            return Ok(permit);
        }
        let after = self.inner.config.header_timeout;
        let permit = Arc::clone(&self.inner.requests).acquire_owned();
        if let Some(progress) = &self.progress {
            progress.queued(true);
        }
        match timeout(after, permit).await {
            Ok(Ok(permit)) => {
                if let Some(progress) = &self.progress {
                    progress.queued(false);
                }
                Ok(permit)
            }
            // Nobody closes the semaphore.
            Ok(Err(_)) | Err(_) => Err(ClientError::Busy { url: url.clone() }),
        }
    }

    async fn attempt(
        &self,
        url: &BaseUrl,
        parts: &http::request::Parts,
        transfer: &Transfer,
    ) -> Result<Response<Incoming>, ClientError> {
        let root = PathAndQuery::from_static("/");
        let path = parts.uri.path_and_query().unwrap_or(&root);
        let uri = url.join(path).map_err(|source| ClientError::Path {
            url: url.clone(),
            source,
        })?;
        let mut request = Request::new(transfer.lease());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        request.headers_mut().clone_from(&parts.headers);
        let mut noting = pin!(self.note_connection(&mut request));
        let mut sending = pin!(self.inner.pool.request(request));
        loop {
            let (deadline, after) = transfer.deadline(&self.inner.config);
            tokio::select! {
                biased;
                sent = sending.as_mut() => {
                    if let (Ok(_), Some(progress)) = (&sent, &self.progress) {
                        progress.answered();
                    }
                    return sent.map_err(|error| ClientError::of(url, error));
                }
                never = noting.as_mut() => match never {},
                () = sleep_until(deadline) => {
                    // The body may have moved on meanwhile.
                    if transfer.deadline(&self.inner.config).0 <= Instant::now() {
                        let url = url.clone();
                        return Err(ClientError::Timeout { url, after });
                    }
                }
            }
        }
    }

    /// Returns what takes note when a request has its connection, and then waits for ever.
    fn note_connection<B>(
        &self,
        request: &mut Request<B>,
    ) -> impl Future<Output = Infallible> + use<B> {
        let progress = self.progress.clone();
        let noted = progress.map(|progress| (progress, capture_connection(request)));
        async move {
            if let Some((progress, mut connection)) = noted
                && connection.wait_for_connection_metadata().await.is_some()
            {
                progress.connected();
            }
            pending().await
        }
    }

    fn received(
        &self,
        response: Response<Incoming>,
        index: Option<usize>,
        permit: OwnedSemaphorePermit,
    ) -> Response<Body> {
        let stall_timeout = self.inner.config.stall_timeout;
        let answerer = index.and_then(|index| Answerer::of(self, index));
        let mut response = response.map(|body| {
            let body = Body::incoming(body, stall_timeout);
            let watched = match &answerer {
                Some(answerer) => answerer.watch(body),
                None => body,
            };
            watched.holding(permit)
        });
        if let Some(answerer) = answerer {
            response.extensions_mut().insert(answerer);
        }
        for name in HOP_BY_HOP {
            response.headers_mut().remove(name);
        }
        response
    }
}

/// Returns the headers that are sent for those that were given.
fn sent_headers(given: &HeaderMap) -> HeaderMap {
    let mut headers = given.clone();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    // The host is that of the URL; nobody waits for a 100.
    headers.remove(HOST);
    headers.remove(EXPECT);
    // Anything else would change the bytes, and so their digest.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}

// === impl ClientError ===

impl ClientError {
    fn of(url: &BaseUrl, error: legacy::Error) -> Self {
        let url = url.clone();
        let unreachable = error.is_connect();
        let source = Box::new(error);
        if unreachable {
            Self::Unreachable { url, source }
        } else {
            Self::Broken { url, source }
        }
    }

    /// Whether trying again may help.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Busy { .. }
            | Self::Broken { .. } => true,
            Self::Path { .. } | Self::RequestBody(_) => false,
        }
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            max_idle_per_host: 64,
            max_requests: 1024,
            avoid_for: Duration::from_secs(5),
            overtake_after: Duration::from_millis(500),
            ca_file: None,
            guard: Guard::Open,
        }
    }
}

#[cfg(test)]
mod tests;
