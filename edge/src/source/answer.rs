//! What an origin, a sibling or an upstream answers.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use outport_core::body::Body;
use outport_core::oci::digest::Digest;

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

/// A blob on its way.
#[derive(Debug)]
pub struct IncomingBlob {
    /// The size of the whole blob in bytes.
    pub size: u64,
    /// The bytes asked for.
    pub body: Body,
    /// How long the answer took.
    pub round_trip: Duration,
}

/// Which bytes of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// From here to its end.
    From(u64),
    /// These.
    Within(Range<u64>),
}
