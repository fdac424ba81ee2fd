//! The frame around the parts of a `multipart/byteranges` answer.
//!
//! RFC 9110 section 14.6. Pure: the bytes of the parts themselves are read and sent by the caller, between
//! [`Multipart::header`] of each and [`Multipart::trailer`] behind the last.

use std::ops::Range;

use bytes::Bytes;

use super::digest::Digest;
use super::media::OCTET_STREAM;
use super::range::content_range;

/// The frame around parts of some content.
#[derive(Clone, Debug)]
pub struct Multipart {
    boundary: String,
    parts: Vec<Range<u64>>,
    size: u64,
}

/// The longest boundary, in bytes: RFC 2046 section 5.1.1 allows 70.
const BOUNDARY_LEN: usize = 64;

// === impl Multipart ===

impl Multipart {
    /// Returns the frame around `parts` of the content `digest` of `size` bytes.
    ///
    /// The boundary is taken of the digest: it must not occur in the content, and content that holds its own digest
    /// cannot be made.
    pub fn new(digest: &Digest, size: u64, parts: Vec<Range<u64>>) -> Self {
        let mut boundary = digest.hex();
        boundary.truncate(BOUNDARY_LEN);
        Self {
            boundary,
            parts,
            size,
        }
    }

    /// Returns the parts.
    pub fn parts(&self) -> &[Range<u64>] {
        &self.parts
    }

    /// Returns the answer's `Content-Type`.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Returns the answer's `Content-Length`.
    pub fn content_length(&self) -> u64 {
        let parts: u64 = self
            .parts
            .iter()
            .map(|part| self.header(part).len() as u64 + (part.end - part.start))
            .sum();
        parts + self.trailer().len() as u64
    }

    /// Returns what comes before the bytes of `part`.
    pub fn header(&self, part: &Range<u64>) -> Bytes {
        let content_range = content_range(part, self.size);
        format!(
            "\r\n--{}\r\nContent-Type: {OCTET_STREAM}\r\nContent-Range: {content_range}\r\n\r\n",
            self.boundary,
        )
        .into()
    }

    /// Returns what comes behind the last part.
    pub fn trailer(&self) -> Bytes {
        format!("\r\n--{}--\r\n", self.boundary).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::digest::Algorithm;

    #[test]
    fn frames_parts() {
        let content = b"0123456789";
        for algorithm in Algorithm::ALL {
            let digest = algorithm.digest(content);
            let multipart = Multipart::new(&digest, 10, vec![0..2, 5..6]);
            let boundary = digest.hex()[..64].to_owned();
            let mut body = Vec::new();
            for part in multipart.parts() {
                body.extend(multipart.header(part));
                let range =
                    usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap();
                body.extend(&content[range]);
            }
            body.extend(multipart.trailer());
            assert_eq!(body.len() as u64, multipart.content_length());
            assert_eq!(
                multipart.content_type(),
                format!("multipart/byteranges; boundary={boundary}")
            );
            assert_eq!(
                String::from_utf8(body).unwrap(),
                format!(
                    "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
                     \r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 5-5/10\r\n\r\n5\
                     \r\n--{boundary}--\r\n"
                )
            );
        }
    }
}
