//! Every failure of the origin's parts, as the client is told of it.
//!
//! Invariant: this is the only file of the crate that turns an error of ours into one of the protocol's.

use std::time::Duration;

use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::store::{AppendError, CommitError, StoreError};

use crate::metadata::{MetadataError, PublishError};
use crate::names::NamesError;

/// How long a client is asked to wait before it tries again what could not be done right now.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Converts into what the client is told.
///
/// A trait of our own, since neither [`From`] nor the errors of core belong to this crate.
pub(crate) trait IntoApiError {
    /// Returns what the client is told; the error itself becomes its source.
    fn into_api_error(self) -> ApiError;
}

/// Converts the error of a result.
pub(crate) trait OrRespond<T> {
    /// Returns the value, or what the client is told.
    fn or_respond(self) -> Result<T, ApiError>;
}

// === impl IntoApiError ===

impl IntoApiError for MetadataError {
    fn into_api_error(self) -> ApiError {
        failure(self.is_transient()).with_source(self)
    }
}

impl IntoApiError for NamesError {
    fn into_api_error(self) -> ApiError {
        failure(self.0.is_transient()).with_source(self)
    }
}

impl IntoApiError for StoreError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Full(_) => ApiError::new(ErrorCode::InsufficientStorage)
                .with_retry_after(RETRY_AFTER)
                .with_source(self),
            Self::Unavailable(_) | Self::Failed(_) => {
                failure(self.is_transient()).with_source(self)
            }
        }
    }
}

impl IntoApiError for AppendError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Content(_) => ApiError::new(ErrorCode::BlobUploadInvalid)
                .with_message("the content broke off")
                .with_source(self),
            Self::Busy => failure(true)
                .with_message("another request is writing to this upload")
                .with_source(self),
            Self::Gone => ErrorCode::BlobUploadUnknown.into(),
            Self::TooLarge => ErrorCode::BlobTooLarge.into(),
            Self::Store(error) => error.into_api_error(),
        }
    }
}

impl IntoApiError for CommitError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Mismatch { expected, actual } => ApiError::new(ErrorCode::DigestInvalid)
                .with_detail(serde_json::json!({
                    "provided": expected.to_string(),
                    "computed": actual.to_string(),
                })),
            Self::Gone => ErrorCode::BlobUploadUnknown.into(),
            Self::Store(error) => error.into_api_error(),
        }
    }
}

impl IntoApiError for PublishError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::MissingBlobs(digests) => ApiError::new(ErrorCode::ManifestBlobUnknown)
                .with_detail(serde_json::json!({
                    "digests": digests.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })),
            Self::Metadata(error) => error.into_api_error(),
        }
    }
}

fn failure(transient: bool) -> ApiError {
    if transient {
        ApiError::new(ErrorCode::Unavailable).with_retry_after(RETRY_AFTER)
    } else {
        ApiError::new(ErrorCode::Internal)
    }
}

// === impl OrRespond ===

impl<T, E: IntoApiError> OrRespond<T> for Result<T, E> {
    fn or_respond(self) -> Result<T, ApiError> {
        self.map_err(IntoApiError::into_api_error)
    }
}
