//! The errors of the protocol: the one table of code, wire name, status and default message.
//!
//! OCI distribution specification, "Error codes". Codes beyond the specification's are the ones that docker's clients know
//! (`TOOMANYREQUESTS`, `UNAVAILABLE`, `UNKNOWN`), or share a wire name with one of them under another status.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

/// What went wrong, as clients tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The repository does not link the blob.
    BlobUnknown,
    /// The upload cannot be used the way it was.
    BlobUploadInvalid,
    /// There is no such upload session.
    BlobUploadUnknown,
    /// A digest is malformed, or the content does not hash to it.
    DigestInvalid,
    /// A manifest names content that the repository does not hold.
    ManifestBlobUnknown,
    /// The manifest is malformed or of a type that is not taken.
    ManifestInvalid,
    /// The manifest is larger than the limit.
    ManifestTooLarge,
    /// The repository has no such manifest.
    ManifestUnknown,
    /// The repository's name, or a tag, is malformed.
    NameInvalid,
    /// There is no such repository.
    NameUnknown,
    /// A chunk does not start where the upload stands, or a range lies beyond the end.
    RangeInvalid,
    /// The body's length is not the one declared.
    SizeInvalid,
    /// The blob is larger than the limit.
    BlobTooLarge,
    /// Authentication is required.
    Unauthorized,
    /// The caller may not do this.
    Denied,
    /// The method or a parameter is not supported here.
    Unsupported,
    /// A method that the path does not have.
    MethodNotAllowed,
    /// A path that is no part of the API.
    NotFound,
    /// A request that cannot be understood.
    BadRequest,
    /// The head of a request is too large.
    HeaderTooLarge,
    /// A request that asks for too many things at once.
    UriTooLong,
    /// The content is not the one that the request is conditional on.
    PreconditionFailed,
    /// A real quota of the client's is used up.
    TooManyRequests,
    /// It cannot be known or done right now; worth trying again.
    Unavailable,
    /// There is no room for it right now.
    InsufficientStorage,
    /// A defect or a broken disk on our side.
    Internal,
}

/// An error on its way to a client: what it may see, and beside it what only the log may.
#[derive(Debug)]
pub struct ApiError {
    code: ErrorCode,
    message: Cow<'static, str>,
    detail: Option<serde_json::Value>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

// === impl ErrorCode ===

impl ErrorCode {
    /// Every code, for tests and documentation.
    pub const ALL: [Self; 26] = [
        Self::BlobUnknown,
        Self::BlobUploadInvalid,
        Self::BlobUploadUnknown,
        Self::DigestInvalid,
        Self::ManifestBlobUnknown,
        Self::ManifestInvalid,
        Self::ManifestTooLarge,
        Self::ManifestUnknown,
        Self::NameInvalid,
        Self::NameUnknown,
        Self::RangeInvalid,
        Self::SizeInvalid,
        Self::BlobTooLarge,
        Self::Unauthorized,
        Self::Denied,
        Self::Unsupported,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::BadRequest,
        Self::HeaderTooLarge,
        Self::UriTooLong,
        Self::PreconditionFailed,
        Self::TooManyRequests,
        Self::Unavailable,
        Self::InsufficientStorage,
        Self::Internal,
    ];

    /// Returns the name on the wire, the status it comes with and what it says unless told otherwise.
    #[expect(clippy::too_many_lines, reason = "the table reads best in one piece")]
    const fn entry(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::BlobUnknown => (
                "BLOB_UNKNOWN",
                StatusCode::NOT_FOUND,
                "blob unknown to this repository",
            ),
            Self::BlobUploadInvalid => (
                "BLOB_UPLOAD_INVALID",
                StatusCode::BAD_REQUEST,
                "blob upload invalid",
            ),
            Self::BlobUploadUnknown => (
                "BLOB_UPLOAD_UNKNOWN",
                StatusCode::NOT_FOUND,
                "blob upload unknown",
            ),
            Self::DigestInvalid => (
                "DIGEST_INVALID",
                StatusCode::BAD_REQUEST,
                "provided digest did not match the content",
            ),
            Self::ManifestBlobUnknown => (
                "MANIFEST_BLOB_UNKNOWN",
                StatusCode::NOT_FOUND,
                "manifest references content this repository lacks",
            ),
            Self::ManifestInvalid => (
                "MANIFEST_INVALID",
                StatusCode::BAD_REQUEST,
                "manifest invalid",
            ),
            Self::ManifestTooLarge => (
                "MANIFEST_INVALID",
                StatusCode::PAYLOAD_TOO_LARGE,
                "manifest too large",
            ),
            Self::ManifestUnknown => (
                "MANIFEST_UNKNOWN",
                StatusCode::NOT_FOUND,
                "manifest unknown",
            ),
            Self::NameInvalid => (
                "NAME_INVALID",
                StatusCode::BAD_REQUEST,
                "invalid repository name or tag",
            ),
            Self::NameUnknown => (
                "NAME_UNKNOWN",
                StatusCode::NOT_FOUND,
                "repository name not known to registry",
            ),
            Self::RangeInvalid => (
                "RANGE_INVALID",
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range is not where the content stands",
            ),
            Self::SizeInvalid => (
                "SIZE_INVALID",
                StatusCode::BAD_REQUEST,
                "provided length did not match content length",
            ),
            Self::BlobTooLarge => (
                "SIZE_INVALID",
                StatusCode::PAYLOAD_TOO_LARGE,
                "blob too large",
            ),
            Self::Unauthorized => (
                "UNAUTHORIZED",
                StatusCode::UNAUTHORIZED,
                "authentication required",
            ),
            Self::Denied => (
                "DENIED",
                StatusCode::FORBIDDEN,
                "requested access to the resource is denied",
            ),
            Self::Unsupported => (
                "UNSUPPORTED",
                StatusCode::BAD_REQUEST,
                "the operation is unsupported",
            ),
            Self::MethodNotAllowed => (
                "UNSUPPORTED",
                StatusCode::METHOD_NOT_ALLOWED,
                "the method is not supported here",
            ),
            Self::NotFound => (
                "UNSUPPORTED",
                StatusCode::NOT_FOUND,
                "not a path of this API",
            ),
            Self::BadRequest => (
                "UNSUPPORTED",
                StatusCode::BAD_REQUEST,
                "the request cannot be understood",
            ),
            Self::PreconditionFailed => (
                "UNSUPPORTED",
                StatusCode::PRECONDITION_FAILED,
                "the content is another one",
            ),
            Self::HeaderTooLarge => (
                "UNSUPPORTED",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "request headers too large",
            ),
            Self::UriTooLong => (
                "UNSUPPORTED",
                StatusCode::URI_TOO_LONG,
                "the request asks for too many things at once",
            ),
            Self::TooManyRequests => (
                "TOOMANYREQUESTS",
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests",
            ),
            Self::Unavailable => (
                "UNAVAILABLE",
                StatusCode::SERVICE_UNAVAILABLE,
                "service unavailable for now",
            ),
            Self::InsufficientStorage => (
                "UNAVAILABLE",
                StatusCode::INSUFFICIENT_STORAGE,
                "no room to store this for now",
            ),
            Self::Internal => (
                "UNKNOWN",
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal error",
            ),
        }
    }

    /// Returns the code as clients see it.
    pub const fn wire_name(self) -> &'static str {
        self.entry().0
    }

    /// Returns the status of a response that carries it.
    pub const fn status(self) -> StatusCode {
        self.entry().1
    }

    /// Returns the message unless a better one is given.
    pub const fn default_message(self) -> &'static str {
        self.entry().2
    }
}

// === impl ApiError ===

impl ApiError {
    /// Returns an error with the code's default message.
    pub const fn new(code: ErrorCode) -> Self {
        Self {
            code,
            message: Cow::Borrowed(code.default_message()),
            detail: None,
            retry_after: None,
            allow: None,
            headers: Vec::new(),
            source: None,
        }
    }

    /// Sets the message, which clients see.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// Sets the `detail`, which clients see.
    #[must_use]
    pub fn with_detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Sets how long a client is asked to wait, sent as `Retry-After` in whole seconds.
    #[must_use]
    pub const fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// Sets the methods that the path has, sent as `Allow`.
    #[must_use]
    pub const fn with_allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// Adds a header, for what a client needs to go on.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sets the cause, which the log sees and clients do not.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the code.
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns how long the client is asked to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns the methods that the path has, when it was another.
    pub const fn allow(&self) -> Option<&'static str> {
        self.allow
    }

    /// Returns what was added to the headers.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// Returns the JSON body of the specification.
    ///
    /// It always has a `detail`: of an error without one that has the message of docker's own registry, docker keeps only
    /// the code, and does not see in it what it would say "manifest for NAME:TAG not found" to.
    pub fn to_json(&self) -> Vec<u8> {
        let error = serde_json::json!({
            "code": self.code.wire_name(),
            "message": self.message,
            "detail": self.detail.as_ref().unwrap_or(&serde_json::json!({})),
        });
        serde_json::json!({ "errors": [error] })
            .to_string()
            .into_bytes()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.wire_name(), self.message)
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_an_error_with_a_message() {
        for code in ErrorCode::ALL {
            assert!(
                code.status().is_client_error() || code.status().is_server_error(),
                "{code:?}"
            );
            assert!(!code.default_message().is_empty(), "{code:?}");
        }
    }

    #[test]
    fn there_always_is_a_detail() {
        let error = ApiError::new(ErrorCode::ManifestUnknown);
        let body: serde_json::Value = serde_json::from_slice(&error.to_json()).unwrap();
        assert_eq!(body["errors"][0]["detail"], serde_json::json!({}));
    }

    #[test]
    fn the_source_stays_out_of_the_body() {
        let error = ApiError::new(ErrorCode::Internal)
            .with_source("secret")
            .with_detail(serde_json::json!({"digest": "d"}));
        let body: serde_json::Value = serde_json::from_slice(&error.to_json()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"errors": [{"code": "UNKNOWN", "message": "internal error", "detail": {"digest": "d"}}]})
        );
    }
}
