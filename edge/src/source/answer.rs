//! What an origin, a sibling or an upstream answers.

use std::future::ready;
use std::ops::Range;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::TryStreamExt as _;
use http::header::{AGE, CONTENT_TYPE, WARNING};
use http::{HeaderMap, HeaderValue, Response};
use outport_core::body::Body;
use outport_core::net::client::Answerer;
use outport_core::oci::digest::{Algorithm, Digest};
use outport_core::oci::reference::Reference;

use super::wire::{is_object, outline, told_digest};
use super::{Origin, OriginError};

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

/// How an answer stands that the origin gives for an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How long ago the upstream was asked.
    pub age: Duration,
    /// Whether that is longer ago than it should be, because the upstream is away.
    pub is_stale: bool,
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
    /// Who gave it, if there were several to be asked.
    pub answerer: Option<Answerer>,
}

/// Which bytes of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// From here to its end.
    From(u64),
    /// The same, of a source that may know no ranges: what lies before it is thrown away then.
    Rest(u64),
    /// These.
    Within(Range<u64>),
}

/// Returns what a body has behind so many bytes.
pub(super) fn behind(body: Body, skipped: u64) -> Body {
    let mut left = skipped;
    Body::stream(body.into_stream().try_filter_map(move |mut bytes| {
        let cut = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        left -= cut as u64;
        bytes.advance(cut);
        ready(Ok((!bytes.is_empty()).then_some(bytes)))
    }))
}

// === impl Origin ===

impl Origin {
    /// Reads a manifest, and holds it to its digest.
    pub(super) async fn read_manifest(
        &self,
        response: Response<Body>,
        reference: &Reference,
    ) -> Result<Manifest, OriginError> {
        let (head, body) = response.into_parts();
        let told = told_digest(&head.headers);
        let bytes_max = self.0.config.manifest_bytes_max;
        let content = self.0.room.collect(body, bytes_max).await;
        let content = content.or(Err(OriginError::Nonsense(
            "a manifest that breaks off or is too large",
        )))?;
        let digest: Digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(_) => match (told, self.definition()) {
                (Some(told), _) => told,
                // Not every upstream says; then it is not to be taken for a manifest what is none, or not all of one.
                (None, Some(_)) if outline(&content).is_none() => {
                    return Err(OriginError::Nonsense("something that is no manifest"));
                }
                (None, Some(_)) => Algorithm::Sha256.digest(&content),
                (None, None) => return Err(OriginError::Nonsense("a manifest without a digest")),
            },
        };
        if digest.algorithm().digest(&content) != digest {
            self.count_mismatch();
            return Err(OriginError::Nonsense(
                "a manifest that does not hash to its digest",
            ));
        }
        if self.definition().is_some() && !is_object(&content) {
            return Err(OriginError::Nonsense("something that is no manifest"));
        }
        let content_type = match head.headers.get(CONTENT_TYPE) {
            Some(told) => told.clone(),
            None => outline(&content)
                .and_then(|outline| HeaderValue::try_from(outline.media_type?).ok())
                .ok_or(OriginError::Nonsense("a manifest without a type"))?,
        };
        Ok(Manifest {
            digest,
            content_type,
            content,
        })
    }
}

// === impl Standing ===

/// The longest age that is believed in.
const AGE_MAX: Duration = Duration::from_hours(24 * 365);

impl Standing {
    /// Reads how an answer stands from its headers (RFC 9111 sections 5.1 and 5.5).
    pub fn of(headers: &HeaderMap) -> Self {
        let age = headers
            .get(AGE)
            .and_then(|age| age.to_str().ok()?.parse().ok());
        let age = age.map_or(Duration::ZERO, Duration::from_secs);
        let warning = headers.get(WARNING).map(HeaderValue::as_bytes);
        Self {
            age: age.min(AGE_MAX),
            is_stale: warning.is_some_and(|warning| warning.starts_with(b"110")),
        }
    }
}
