//! From what went wrong to a response: the only file of the edge, beside core's table, that knows which status an error has.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use outport_core::body::Body;
use outport_core::net::respond::error_response;
use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::oci::route::Route;

use crate::source::registries::AddressError;
use crate::source::{OriginError, Refusal};

/// How long a client is asked to wait for an origin that did not answer.
const ORIGIN_RETRY: Duration = Duration::from_secs(2);

/// How long a client is asked to wait for its turn.
const TURN_RETRY: Duration = Duration::from_secs(1);

/// How long a client is asked to wait for somebody to write a config.
const CONFIG_RETRY: Duration = Duration::from_mins(1);

/// Returns the response to a request that could not be served.
pub fn origin_error(error: OriginError, route: &Route) -> Response<Body> {
    match (error, route) {
        (OriginError::Refused(refusal), route) => refused(&refusal, route),
        // What an origin would say of it.
        (error @ OriginError::RequestBody(_), Route::PushManifest { .. }) => error_response(
            &ApiError::new(ErrorCode::ManifestInvalid)
                .with_message("the manifest broke off")
                .with_source(error),
        ),
        (error, _) => error_response(&error.into()),
    }
}

/// Whether an answer says that there is no such thing.
pub fn is_not_found(response: &Response<Body>) -> bool {
    response.status() == StatusCode::NOT_FOUND
}

impl From<OriginError> for ApiError {
    fn from(error: OriginError) -> Self {
        let (code, message, retry_after) = match &error {
            OriginError::Refused(refusal) => (code(refusal.status), "refused by the origin", None),
            OriginError::Absent => (
                ErrorCode::Unavailable,
                "not cached here, and this edge has no origin to ask",
                Some(CONFIG_RETRY),
            ),
            OriginError::Resting(rest) => (
                ErrorCode::Unavailable,
                "not cached here, and the origin cannot be reached",
                Some(*rest),
            ),
            OriginError::Unreachable(_) | OriginError::Slow(_) => (
                ErrorCode::Unavailable,
                "not cached here, and the origin cannot be reached",
                Some(ORIGIN_RETRY),
            ),
            OriginError::Sick(_) | OriginError::Nonsense(_) => (
                ErrorCode::Unavailable,
                "not cached here, and the origin cannot answer",
                Some(ORIGIN_RETRY),
            ),
            OriginError::Later(wait) => (
                ErrorCode::Unavailable,
                "not cached here, and the origin cannot answer",
                Some(*wait),
            ),
            OriginError::Denied(_) | OriginError::Token(_) if is_no(&error) => (
                ErrorCode::Denied,
                "the upstream does not let this be pulled",
                None,
            ),
            OriginError::Denied(_) | OriginError::Token(_) => (
                ErrorCode::Unavailable,
                "not cached here, and the upstream gives no token",
                Some(ORIGIN_RETRY),
            ),
            OriginError::Limited(wait) => (
                ErrorCode::Unavailable,
                "not cached here, and the upstream's quota is used up",
                Some(*wait),
            ),
            OriginError::Forbidden => (
                ErrorCode::Denied,
                "not to be had from this upstream, by configuration",
                None,
            ),
            OriginError::Busy => (
                ErrorCode::Unavailable,
                "too many downloads are under way",
                Some(TURN_RETRY),
            ),
            OriginError::Ending => (
                ErrorCode::Unavailable,
                "this edge is going down",
                Some(TURN_RETRY),
            ),
            OriginError::RequestBody(_) => {
                (ErrorCode::BlobUploadInvalid, "the content broke off", None)
            }
        };
        let answer = Self::new(code).with_message(message).with_source(error);
        match retry_after {
            Some(retry_after) => answer.with_retry_after(retry_after),
            None => answer,
        }
    }
}

impl From<AddressError> for ApiError {
    fn from(error: AddressError) -> Self {
        let code = match error {
            AddressError::UnknownNamespace => ErrorCode::NameUnknown,
            AddressError::Name | AddressError::Taken => ErrorCode::NameInvalid,
            AddressError::Forbidden => ErrorCode::Denied,
            AddressError::ReadOnly => ErrorCode::MethodNotAllowed,
        };
        Self::new(code).with_message(error.to_string())
    }
}

/// Whether an upstream lets nobody in, and is not only unable to.
fn is_no(error: &OriginError) -> bool {
    match error {
        OriginError::Token(error) => error.is_no(),
        error => matches!(error, OriginError::Denied(_)),
    }
}

/// Passes the origin's no on; one that is not the specification's JSON is put in its form.
fn refused(refusal: &Refusal, route: &Route) -> Response<Body> {
    let is_json = refusal
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|ty| ty.as_bytes().starts_with(b"application/json"));
    // What was asked by HEAD, of blobs alone, has been refused without a body; the client may have asked by GET.
    let is_json = is_json && !refusal.body.is_empty();
    let mut response = if is_json {
        let mut response = Response::new(refusal.body.clone().into());
        let length = HeaderValue::from(refusal.body.len());
        response.headers_mut().insert(CONTENT_LENGTH, length);
        response
    } else if refusal.status == StatusCode::NOT_FOUND && refusal.body.is_empty() {
        let error = match route {
            Route::FetchManifest { .. } => ErrorCode::ManifestUnknown.into(),
            Route::ListTags { .. } => ErrorCode::NameUnknown.into(),
            // Clients that hear that there is no such repository do not look for the tags that stand for referrers.
            Route::ListReferrers { .. } => {
                ApiError::new(ErrorCode::NotFound).with_message("the upstream lists no referrers")
            }
            _ => ErrorCode::BlobUnknown.into(),
        };
        error_response(&error)
    } else {
        error_response(&code(refusal.status).into())
    };
    for (name, value) in &refusal.headers {
        if is_json || *name != CONTENT_TYPE {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    *response.status_mut() = refusal.status;
    response
}

/// Returns the code that comes nearest to a status of the origin's.
fn code(status: StatusCode) -> ErrorCode {
    match status {
        StatusCode::UNAUTHORIZED => ErrorCode::Unauthorized,
        StatusCode::FORBIDDEN => ErrorCode::Denied,
        StatusCode::NOT_FOUND => ErrorCode::NameUnknown,
        StatusCode::TOO_MANY_REQUESTS => ErrorCode::TooManyRequests,
        StatusCode::RANGE_NOT_SATISFIABLE => ErrorCode::RangeInvalid,
        _ => ErrorCode::BadRequest,
    }
}
