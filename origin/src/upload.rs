//! What an upload session makes of a chunk. Pure.
//!
//! OCI distribution specification, "Pushing a blob in chunks".

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::oci::range::ChunkRange;

/// What a request says of the bytes it brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Where they go; docker does not say.
    range: Option<ChunkRange>,
    /// How many they are; docker does not say.
    length: Option<u64>,
}

// === impl Chunk ===

impl Chunk {
    /// Returns what the headers say.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let text = |name| {
            headers
                .get(name)
                .map(|value| value.to_str().unwrap_or_default())
        };
        let malformed = |name: &str| {
            ApiError::new(ErrorCode::BlobUploadInvalid).with_message(format!("malformed {name}"))
        };
        let range = text(CONTENT_RANGE).map(str::parse).transpose();
        let length = text(CONTENT_LENGTH).map(str::parse).transpose();
        Ok(Self {
            range: range.map_err(|_bad| malformed("Content-Range"))?,
            length: length.map_err(|_bad| malformed("Content-Length"))?,
        })
    }

    /// Checks that the bytes go where a session of `staged` bytes stands.
    pub(crate) fn check(&self, staged: u64) -> Result<(), ApiError> {
        let Some(range) = self.range else {
            return Ok(());
        };
        if range.first() != staged {
            return Err(ErrorCode::RangeInvalid.into());
        }
        match self.length {
            Some(length) if length != range.len() => Err(ApiError::new(ErrorCode::SizeInvalid)
                .with_message("Content-Length is not the length of Content-Range")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: Option<&str>, length: Option<&str>, staged: u64, expected: Option<ErrorCode>) {
        let mut headers = HeaderMap::new();
        for (name, value) in [(CONTENT_RANGE, range), (CONTENT_LENGTH, length)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().unwrap());
            }
        }
        let result = Chunk::from_headers(&headers).and_then(|chunk| chunk.check(staged));
        assert_eq!(
            result.err().map(|error| error.code()),
            expected,
            "{range:?} {length:?} at {staged}"
        );
    }

    #[test]
    fn chunks() {
        check(None, None, 0, None);
        check(None, Some("5"), 7, None);
        check(Some("0-4"), Some("5"), 0, None);
        check(Some("bytes 5-9/10"), Some("5"), 5, None);
        check(Some("5-9"), None, 5, None);
        check(Some("5-9"), Some("5"), 0, Some(ErrorCode::RangeInvalid));
        check(Some("0-4"), Some("5"), 5, Some(ErrorCode::RangeInvalid));
        check(Some("0-4"), Some("6"), 0, Some(ErrorCode::SizeInvalid));
        check(
            Some("4-0"),
            Some("5"),
            0,
            Some(ErrorCode::BlobUploadInvalid),
        );
        check(Some("x"), None, 0, Some(ErrorCode::BlobUploadInvalid));
        check(None, Some("-1"), 0, Some(ErrorCode::BlobUploadInvalid));
    }
}
