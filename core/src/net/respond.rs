//! Responses that origin and edge build alike.
//!
//! Invariants: every response of this module says how long its body is. What an error was caused by goes to the log, once,
//! and nothing of it to the client.

use std::error::Error;

use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Response};

use crate::body::Body;
use crate::oci::error::ApiError;

/// Says that this is a registry; set on every response by the server loop.
pub const DOCKER_DISTRIBUTION_API_VERSION: HeaderName =
    HeaderName::from_static("docker-distribution-api-version");

/// What [`DOCKER_DISTRIBUTION_API_VERSION`] says.
pub const API_VERSION: HeaderValue = HeaderValue::from_static("registry/2.0");

/// Names the digest of the content that is answered with.
pub const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What the server loop is told about a request by whoever answered it: put into the response's extensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// The kind of the route, one of few.
    pub route: &'static str,
    /// Where the answer came from, one of few.
    pub served: &'static str,
}

/// Builds the response that carries an error, and logs its cause.
///
/// A request by HEAD gets the headers of what GET would have got.
pub fn error_response(error: &ApiError) -> Response<Body> {
    log_cause(error);
    let body = error.to_json();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = error.code().status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Some(seconds) = retry_after_seconds(error) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(methods) = error.allow() {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    for (name, value) in error.headers() {
        headers.insert(name, value.clone());
    }
    *response.body_mut() = body.into();
    response
}

/// Writes out the response that carries an error, for a connection that ends with it.
///
/// For the few replies that are made where no request was understood, and so no response can be.
pub(super) fn hand_written_error(error: &ApiError) -> Bytes {
    let status = error.code().status();
    let body = error.to_json();
    let retry_after = retry_after_seconds(error)
        .map(|seconds| format!("retry-after: {seconds}\r\n"))
        .unwrap_or_default();
    let text = format!(
        "HTTP/1.1 {} {}\r\n\
         content-type: application/json\r\n\
         content-length: {}\r\n\
         docker-distribution-api-version: registry/2.0\r\n\
         {retry_after}connection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
    );
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&body);
    bytes.into()
}

/// Adds the methods that a path has to the refusal of one that it does not.
#[must_use]
pub fn with_allow(mut response: Response<Body>, methods: &[Method]) -> Response<Body> {
    let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
    if let Ok(value) = HeaderValue::try_from(methods.join(", ")) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

/// Adds a challenge to a refusal; each on a line of its own, because some clients parse only the first of a line.
#[must_use]
pub fn with_challenge(mut response: Response<Body>, challenge: HeaderValue) -> Response<Body> {
    response.headers_mut().append(WWW_AUTHENTICATE, challenge);
    response
}

/// Returns a response of a few bytes with its type.
pub fn small(content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Body> {
    let body = body.into();
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let mut response = Response::new(body.into());
    *response.headers_mut() = headers;
    response
}

/// Rounded up: zero would invite a client to hammer.
fn retry_after_seconds(error: &ApiError) -> Option<u64> {
    let seconds = error.retry_after()?.as_millis().div_ceil(1000).max(1);
    Some(u64::try_from(seconds).unwrap_or(u64::MAX))
}

fn log_cause(error: &ApiError) {
    let Some(cause) = error.source() else { return };
    let code = error.code();
    let cause = chain(cause);
    if code.status().is_server_error() {
        tracing::warn!(code = code.wire_name(), error = cause, "request failed");
    } else {
        tracing::debug!(code = code.wire_name(), error = cause, "request refused");
    }
}

/// Writes out an error and what caused it: `read manifest: open file: no such file`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::oci::error::ErrorCode;

    #[tokio::test]
    async fn an_error_is_the_json_of_the_specification() {
        let error = ApiError::new(ErrorCode::Unavailable)
            .with_retry_after(Duration::from_millis(1200))
            .with_source("secret");
        let response = error_response(&error);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        let length = response.headers()[CONTENT_LENGTH].clone();
        let body = response.into_body().collect_limited(1000).await.unwrap();
        assert_eq!(length, body.len().to_string());
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errors"][0]["code"], "UNAVAILABLE");
        assert!(!body.to_string().contains("secret"));
    }
}
