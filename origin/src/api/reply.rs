//! A response in the making.

use std::fmt::Display;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body as _;
use outport_core::body::Body;

/// A response in the making, which always says how long it is.
#[derive(Debug)]
pub(crate) struct Reply(Response<Body>);

// === impl Reply ===

impl Reply {
    /// Starts a response without headers and body.
    pub(crate) fn new(status: StatusCode) -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        Self(response)
    }

    /// Adds a header; a value that cannot be in one is left out.
    ///
    /// All values here are made of parsed names, digests and numbers, which can.
    pub(crate) fn header(mut self, name: &'static str, value: impl Display) -> Self {
        if let Ok(value) = HeaderValue::try_from(value.to_string()) {
            self.0
                .headers_mut()
                .append(HeaderName::from_static(name), value);
        }
        self
    }

    /// Adds a `Link`, if there is one.
    pub(crate) fn maybe_link(self, link: Option<String>) -> Self {
        match link {
            Some(link) => self.header("link", link),
            None => self,
        }
    }

    /// Sets the body.
    pub(crate) fn body(mut self, body: Body) -> Self {
        *self.0.body_mut() = body;
        self
    }

    /// Sets a body of JSON.
    pub(crate) fn json(self, json: impl Into<Bytes>) -> Self {
        self.header("content-type", "application/json")
            .body(Body::from(json.into()))
    }

    /// Returns the response.
    pub(crate) fn into_response(mut self) -> Response<Body> {
        let length = self.0.body().size_hint().exact();
        // A 204 has no length (RFC 9110 section 8.6).
        if let Some(length) = length.filter(|_| self.0.status() != StatusCode::NO_CONTENT) {
            self.0
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        self.0
    }
}
