//! Why there is no answer, or none to go by.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use outport_core::body::Body;
use outport_core::net::client::ClientError;
use outport_core::upstream::{TokenError, UpstreamError};

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
    /// It lets nobody in.
    #[error("the upstream refuses: {0}")]
    Denied(StatusCode),
    /// It lets nobody in without a token, which cannot be had.
    #[error("have a token for the upstream")]
    Token(#[source] Arc<TokenError>),
    /// Its quota is used up.
    #[error("the upstream's quota is used up, next try in {0:?}")]
    Limited(Duration),
    /// It asks to be asked again later, because of whom it asks.
    #[error("origin cannot answer before {0:?}")]
    Later(Duration),
    /// The configuration does not let it be asked for this.
    #[error("not to be had from this upstream, by configuration")]
    Forbidden,
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

/// How much of a refusal's body is passed on.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;

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
            | Self::Denied(_)
            | Self::Token(_)
            | Self::Limited(_)
            | Self::Later(_)
            | Self::Nonsense(_) => true,
            Self::Refused(_)
            | Self::Forbidden
            | Self::RequestBody(_)
            | Self::Busy
            | Self::Ending => false,
        }
    }

    /// Whether somebody answered, and not with what was asked for: that is not going to be otherwise in a moment, and no
    /// breaker minds it.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Denied(_) | Self::Nonsense(_) => true,
            Self::Sick(status) => status.is_client_error(),
            Self::Token(error) => error.is_no(),
            _ => false,
        }
    }

    /// Whether it said that there are no such bytes.
    pub fn is_out_of_range(&self) -> bool {
        // An upstream, or where it sends, says it in a way that is nobody's answer.
        let is_sick = matches!(self, Self::Sick(StatusCode::RANGE_NOT_SATISFIABLE));
        is_sick || self.is_refused_with(StatusCode::RANGE_NOT_SATISFIABLE)
    }

    /// Whether it said that it is asked too often.
    pub fn is_too_many(&self) -> bool {
        self.is_refused_with(StatusCode::TOO_MANY_REQUESTS)
    }

    fn is_refused_with(&self, status: StatusCode) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == status)
    }

    /// Returns that it does not exist.
    pub fn not_found() -> Self {
        Self::Refused(Arc::new(Refusal {
            status: StatusCode::NOT_FOUND,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }))
    }

    /// Whether the origin said that it does not exist.
    pub fn is_not_found(&self) -> bool {
        self.is_refused_with(StatusCode::NOT_FOUND)
    }
}

impl From<UpstreamError> for OriginError {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Client(ClientError::Busy { .. }) => Self::Busy,
            UpstreamError::Elsewhere(error) | UpstreamError::Client(error) => {
                Self::Unreachable(Arc::new(error))
            }
            UpstreamError::Token(error) => Self::Token(error),
            UpstreamError::TooManyRedirects => Self::Nonsense("redirects without an end"),
            UpstreamError::BadRedirect => Self::Nonsense("a redirect to nowhere"),
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// Whether the origin said that it has no such repository, and not only nothing of that name in it.
    pub fn is_of_unknown_name(&self) -> bool {
        let body: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let code = body.as_ref().map(|body| &body["errors"][0]["code"]);
        // Asked by HEAD, it does not say: what may be hosted is not asked for elsewhere.
        self.status == StatusCode::NOT_FOUND && code.is_some_and(|code| code == "NAME_UNKNOWN")
    }

    pub(super) async fn read(response: Response<Body>) -> Self {
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
