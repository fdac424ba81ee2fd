//! The origin, and each sibling, as the edge asks it.
//!
//! What: [`Origin`] sends requests and tells the answers apart: an answer, a refusal that is the client's to see, and no answer. A
//! breaker keeps requests from waiting for an origin that was just found dead.
//!
//! Invariant: what is not an answer is never turned into one: only the origin's own 404 says that something does not exist.
//!
//! Failure: [`OriginError`]; it can be cloned, because many requests wait for one answer. Cancellation: dropping a future
//! drops its request.

pub mod ring;
pub mod sources;
pub mod through;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, HeaderName, HeaderValue, IF_NONE_MATCH, RANGE,
};
use http::{HeaderMap, Request, Response, StatusCode};
use outport_core::body::Body;
use outport_core::net::client::{Client, ClientError};
use outport_core::oci::digest::Digest;
use outport_core::oci::media::ManifestType;
use outport_core::oci::range::{content_range, etag};
use outport_core::oci::reference::{Reference, RepoName};
use outport_core::oci::route::{Fetch, Route};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::metrics::OriginMetrics;
use outport_core::breaker::{Breaker, BreakerConfig, Permit};

/// The origin; cheap to clone.
#[derive(Clone, Debug)]
pub struct Origin(Arc<Inner>);

/// How an origin is asked.
#[derive(Clone, Copy, Debug)]
pub struct OriginConfig {
    /// How long a question that a client waits for may take.
    pub answer_timeout: Duration,
    /// The largest manifest that is taken, in bytes.
    pub manifest_bytes_max: u64,
    /// When to stop asking.
    pub breaker: BreakerConfig,
}

/// Why there is no answer, or none to go by.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OriginError {
    /// The config names none.
    #[error("no origin is configured")]
    Absent,
    /// It was found dead a moment ago.
    #[error("origin was unreachable a moment ago, next try in {0:?}")]
    Resting(Duration),
    /// It could not be asked.
    #[error("ask the origin")]
    Unreachable(#[source] Arc<ClientError>),
    /// It did not answer in time.
    #[error("origin did not answer within {0:?}")]
    Slow(Duration),
    /// It answered that it cannot.
    #[error("origin answered {0}")]
    Sick(StatusCode),
    /// It said no, and the client is to know.
    #[error("origin refused with {}", .0.status)]
    Refused(Arc<Refusal>),
    /// Its answer makes no sense.
    #[error("origin's answer makes no sense: {0}")]
    Nonsense(&'static str),
    /// The client's own body broke off.
    #[error("read the request's body")]
    RequestBody(#[source] Arc<ClientError>),
    /// The edge has too much under way.
    #[error("too many downloads are under way")]
    Busy,
    /// The edge is going down.
    #[error("shutting down")]
    Ending,
}

/// A definitive no of the origin's, to be passed on.
#[derive(Debug)]
pub struct Refusal {
    /// Its status, 4xx.
    pub status: StatusCode,
    /// Its headers, without those of the connection.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A manifest, as the origin gave it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What its bytes hash to.
    pub digest: Digest,
    /// Its type.
    pub content_type: HeaderValue,
    /// Its bytes.
    pub content: Bytes,
}

/// What the origin said about a manifest.
#[derive(Debug)]
pub enum ManifestAnswer {
    /// It still has the digest that was known.
    Unchanged,
    /// It is this one.
    Manifest(Manifest),
}

/// A blob on its way.
#[derive(Debug)]
pub struct IncomingBlob {
    /// The size of the whole blob in bytes.
    pub size: u64,
    /// The bytes asked for.
    pub body: Body,
    /// How long the answer took.
    pub round_trip: Duration,
}

/// Which bytes of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// From here to its end.
    From(u64),
    /// These.
    Within(Range<u64>),
}

#[derive(Debug)]
struct Inner {
    client: Option<Client>,
    config: OriginConfig,
    breaker: Mutex<Breaker>,
    metrics: OriginMetrics,
}

/// How many nodes a request has gone through.
pub const OUTPORT_HOPS: HeaderName = HeaderName::from_static("outport-hops");

/// The most that a request may have gone through.
pub const HOPS_MAX: u32 = 2;

/// How much of a refusal's body is passed on.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;

/// The digest of what an answer brings or is about.
pub const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

// === impl Origin ===

impl Origin {
    /// Returns the origin behind `client`; with none, whatever is not here cannot be had.
    pub fn new(client: Option<Client>, config: OriginConfig, metrics: OriginMetrics) -> Self {
        metrics.up.set(i64::from(client.is_some()));
        Self(Arc::new(Inner {
            client,
            config,
            breaker: Mutex::new(Breaker::new(config.breaker)),
            metrics,
        }))
    }

    /// Sends a request as it is and returns the answer, whatever its status.
    ///
    /// A status that says that it cannot be served is for whoever asked: it may be that one request's own doing (a second
    /// chunk of an upload that is still being written to), and must not close the origin to everybody.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, OriginError> {
        let client = self.0.client.as_ref().ok_or(OriginError::Absent)?;
        let permit = self.0.breaker.lock().ask(Instant::now());
        if let Permit::Rest(rest) = permit {
            return Err(OriginError::Resting(rest));
        }
        request
            .headers_mut()
            .entry(OUTPORT_HOPS)
            .or_insert(HeaderValue::from_static("1"));
        let answer = client.send(request).await;
        match &answer {
            Ok(response) if !is_sick(response.status()) => self.report(true),
            Ok(_) | Err(ClientError::RequestBody(_)) => {}
            Err(_) => self.report(false),
        }
        answer.map_err(|error| match error {
            ClientError::RequestBody(_) => OriginError::RequestBody(Arc::new(error)),
            error => OriginError::Unreachable(Arc::new(error)),
        })
    }

    /// Counts content that did not hash to its digest.
    pub fn count_mismatch(&self) {
        self.0.metrics.mismatches.inc();
    }

    /// Counts content that did not hash to its digest, and asks no more for a while.
    pub fn distrust(&self) {
        self.count_mismatch();
        self.0.breaker.lock().trip(Instant::now());
    }

    /// Asks for a manifest, unless its digest is `known` still.
    pub async fn manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        known: Option<&Digest>,
    ) -> Result<ManifestAnswer, OriginError> {
        let route = Route::FetchManifest {
            repository: repo.clone(),
            reference: reference.clone(),
            fetch: Fetch::Get,
        };
        let mut request = request(&route)?;
        for ty in ManifestType::ALL {
            let accept = HeaderValue::from_static(ty.as_str());
            request.headers_mut().append(ACCEPT, accept);
        }
        if let Some(known) = known {
            request
                .headers_mut()
                .insert(IF_NONE_MATCH, header(etag(known))?);
        }
        self.in_time(async {
            let response = self.answer(request).await?;
            if response.status() == StatusCode::NOT_MODIFIED && known.is_some() {
                return Ok(ManifestAnswer::Unchanged);
            }
            self.read_manifest(response, reference)
                .await
                .map(ManifestAnswer::Manifest)
        })
        .await
    }

    /// Asks whether a repository links a blob, and returns the blob's size.
    pub async fn blob_size(&self, repo: &RepoName, digest: &Digest) -> Result<u64, OriginError> {
        let request = request(&blob_route(repo, digest, Fetch::Head))?;
        let response = self.in_time(self.answer(request)).await?;
        content_length(response.headers())
    }

    /// Fetches bytes of a blob; returns when the head of the answer is in. With it, the request has gone through `hops` nodes.
    pub async fn blob(
        &self,
        repo: &RepoName,
        digest: &Digest,
        span: Span,
        hops: HeaderValue,
    ) -> Result<IncomingBlob, OriginError> {
        let mut request = request(&blob_route(repo, digest, Fetch::Get))?;
        request.headers_mut().insert(OUTPORT_HOPS, hops);
        let range = match &span {
            Span::From(0) => None,
            Span::From(from) => Some(format!("bytes={from}-")),
            Span::Within(range) => Some(format!("bytes={}-{}", range.start, range.end - 1)),
        };
        if let Some(range) = range {
            request.headers_mut().insert(RANGE, header(range)?);
        }
        let began = Instant::now();
        let response = self.answer(request).await?;
        let size = match (&span, response.status()) {
            (Span::From(0), StatusCode::OK) => content_length(response.headers())?,
            (_, StatusCode::PARTIAL_CONTENT) => partial_size(response.headers(), &span)?,
            _ => return Err(OriginError::Nonsense("neither the blob nor the part")),
        };
        // The only blob whose end cannot be held back.
        if size == 0 && digest.algorithm().digest(b"") != *digest {
            return Err(OriginError::Nonsense("an empty blob of another digest"));
        }
        Ok(IncomingBlob {
            size,
            body: response.into_body(),
            round_trip: began.elapsed(),
        })
    }

    /// Sends a question, and takes only a success or a 304 for an answer.
    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, OriginError> {
        let response = self.send(request).await?;
        let status = response.status();
        if is_sick(status) {
            self.report(false);
        }
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        if !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT {
            return Err(OriginError::Sick(status));
        }
        Err(OriginError::Refused(Arc::new(
            Refusal::read(response).await,
        )))
    }

    async fn read_manifest(
        &self,
        response: Response<Body>,
        reference: &Reference,
    ) -> Result<Manifest, OriginError> {
        let (head, body) = response.into_parts();
        let content_type = head
            .headers
            .get(http::header::CONTENT_TYPE)
            .cloned()
            .ok_or(OriginError::Nonsense("a manifest without a type"))?;
        let told = head
            .headers
            .get(DOCKER_CONTENT_DIGEST)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let content = body
            .collect_limited(self.0.config.manifest_bytes_max)
            .await
            .or(Err(OriginError::Nonsense(
                "a manifest that breaks off or is too large",
            )))?;
        let digest: Digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(_) => {
                told.ok_or(OriginError::Nonsense("a manifest without a digest"))?
            }
        };
        if digest.algorithm().digest(&content) != digest {
            self.count_mismatch();
            return Err(OriginError::Nonsense(
                "a manifest that does not hash to its digest",
            ));
        }
        Ok(Manifest {
            digest,
            content_type,
            content,
        })
    }

    /// Bounds how long a client waits for an answer.
    pub async fn in_time<T>(
        &self,
        question: impl Future<Output = Result<T, OriginError>>,
    ) -> Result<T, OriginError> {
        let limit = self.0.config.answer_timeout;
        timeout(limit, question).await.unwrap_or_else(|_| {
            self.report(false);
            Err(OriginError::Slow(limit))
        })
    }

    fn report(&self, is_well: bool) {
        let is_up = {
            let mut breaker = self.0.breaker.lock();
            if is_well {
                breaker.succeeded();
            } else {
                breaker.failed(Instant::now());
            }
            breaker.is_closed()
        };
        self.0.metrics.up.set(i64::from(is_up));
    }
}

/// Whether a status says that whoever answered cannot serve at all.
fn is_sick(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

fn blob_route(repo: &RepoName, digest: &Digest, fetch: Fetch) -> Route {
    Route::FetchBlob {
        repository: repo.clone(),
        digest: *digest,
        fetch,
    }
}

fn request(route: &Route) -> Result<Request<Body>, OriginError> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = route.method();
    *request.uri_mut() = route
        .to_uri()
        .try_into()
        .or(Err(OriginError::Nonsense("a path that cannot be written")))?;
    Ok(request)
}

fn header(text: String) -> Result<HeaderValue, OriginError> {
    HeaderValue::try_from(text).or(Err(OriginError::Nonsense(
        "a header that cannot be written",
    )))
}

fn content_length(headers: &HeaderMap) -> Result<u64, OriginError> {
    headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .ok_or(OriginError::Nonsense("a blob without a length"))
}

/// Returns the size of the whole blob of which a 206 brings the part asked for.
fn partial_size(headers: &HeaderMap, span: &Span) -> Result<u64, OriginError> {
    let told = headers
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .ok_or(OriginError::Nonsense("a part without its place"))?;
    let size = told
        .rsplit_once('/')
        .and_then(|(_, size)| size.parse().ok())
        .ok_or(OriginError::Nonsense("a part of unknown whole"))?;
    let expected = match span {
        Span::From(from) => *from..size,
        Span::Within(range) => range.clone(),
    };
    if told != content_range(&expected, size) {
        return Err(OriginError::Nonsense("another part than asked for"));
    }
    Ok(size)
}

// === impl OriginError ===

impl OriginError {
    /// Whether the origin gave no answer to go by, so that what was known before is the best there is.
    pub const fn is_silence(&self) -> bool {
        match self {
            Self::Absent
            | Self::Resting(_)
            | Self::Unreachable(_)
            | Self::Slow(_)
            | Self::Sick(_)
            | Self::Nonsense(_) => true,
            Self::Refused(_) | Self::RequestBody(_) | Self::Busy | Self::Ending => false,
        }
    }

    /// Whether the origin said that it does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND)
    }
}

// === impl Refusal ===

impl Refusal {
    async fn read(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let mut headers = head.headers;
        crate::forward::strip_connection(&mut headers);
        headers.remove(CONTENT_LENGTH);
        Self {
            status: head.status,
            headers,
            body: body
                .collect_limited(REFUSAL_BYTES_MAX)
                .await
                .unwrap_or_default(),
        }
    }
}
