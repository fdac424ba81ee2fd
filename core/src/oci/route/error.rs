//! Why a request is for nothing we have, and what is answered then.

use crate::oci::digest::DigestError;
use crate::oci::error::{ApiError, ErrorCode};

/// Why a request is for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The path is no part of the API.
    #[error("not a path of this API")]
    NotFound,
    /// The path is, the method is not; with the methods that are, as in an `Allow` header.
    #[error("the method is not supported here, only {0}")]
    Method(&'static str),
    /// The repository's name is outside the grammar.
    #[error("invalid repository name")]
    Name,
    /// A tag to be written is outside the grammar.
    #[error("invalid tag")]
    Tag,
    /// A digest is missing or malformed, or of an unknown algorithm where content is to be written.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A manifest is asked for by what no manifest can have.
    #[error("no manifest can be called that")]
    ManifestUnknown,
    /// A blob is asked for by what no blob can have.
    #[error("no blob can be called that")]
    BlobUnknown,
    /// A session is asked for by what no session can have.
    #[error("no upload can be called that")]
    UploadUnknown,
    /// A query parameter is malformed or too long.
    #[error("bad query parameter {0}")]
    Parameter(&'static str),
    /// More tags than can be pushed at once.
    #[error("more than {} tags", super::MAX_TAGS)]
    TooManyTags,
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        let code = match error {
            RouteError::NotFound => ErrorCode::NotFound,
            RouteError::Method(allowed) => {
                return Self::new(ErrorCode::MethodNotAllowed).with_allow(allowed);
            }
            RouteError::Name | RouteError::Tag => ErrorCode::NameInvalid,
            RouteError::Digest(_) => ErrorCode::DigestInvalid,
            RouteError::ManifestUnknown => ErrorCode::ManifestUnknown,
            RouteError::BlobUnknown => ErrorCode::BlobUnknown,
            RouteError::UploadUnknown => ErrorCode::BlobUploadUnknown,
            RouteError::Parameter(_) => ErrorCode::BadRequest,
            RouteError::TooManyTags => ErrorCode::UriTooLong,
        };
        Self::new(code).with_message(error.to_string())
    }
}
