//! A manifest that is pushed through the edge, kept as it passes: a pull at this edge needs the origin no more.
//!
//! Invariants: what is kept hashes to the digest that the origin answered with, and has the type that the origin read from
//! it; a body longer than a manifest may be passes, and is not kept.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use outport_core::body::Body;
use outport_core::oci::digest::Digest;
use outport_core::oci::manifest;
use parking_lot::Mutex;

use crate::source::{DOCKER_CONTENT_DIGEST, Manifest};

/// A manifest on its way to the origin.
#[derive(Debug)]
pub(super) struct Passing {
    content_type: Option<HeaderValue>,
    kept: Arc<Mutex<Kept>>,
}

/// What has passed.
#[derive(Debug)]
struct Kept {
    frames: Vec<Bytes>,
    bytes: u64,
    bytes_max: u64,
}

/// The tags that the origin set (specification, "Pushing Manifests").
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

// === impl Passing ===

impl Passing {
    /// Keeps what a request brings, up to `bytes_max`.
    pub(super) fn watch(request: &mut Request<Body>, bytes_max: u64) -> Self {
        let kept = Arc::new(Mutex::new(Kept {
            frames: Vec::new(),
            bytes: 0,
            bytes_max,
        }));
        let keeper = Arc::clone(&kept);
        let body = std::mem::replace(request.body_mut(), Body::empty());
        let length = body.size_hint().exact();
        let passing = Body::stream(body.into_stream().inspect_ok(move |frame| {
            keeper.lock().keep(frame);
        }));
        *request.body_mut() = match length {
            Some(length) => passing.with_exact_len(length),
            None => passing,
        };
        Self {
            content_type: request.headers().get(CONTENT_TYPE).cloned(),
            kept,
        }
    }

    /// Returns the manifest that the origin has taken, if it is known to be just that.
    pub(super) fn taken(self, response: &Response<Body>) -> Option<Manifest> {
        let content = self.kept.lock().whole()?;
        let told = response.headers().get(DOCKER_CONTENT_DIGEST)?;
        let digest: Digest = told.to_str().ok()?.parse().ok()?;
        if digest.algorithm().digest(&content) != digest {
            return None;
        }
        let content_type = self.content_type.as_ref();
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let manifest = manifest::Manifest::parse(content_type, &content).ok()?;
        Some(Manifest {
            digest,
            content_type: HeaderValue::from_static(manifest.media_type.as_str()),
            content,
        })
    }
}

/// Whether an answer says that a tag of the query was set.
pub(super) fn is_set(headers: &HeaderMap, tag: &str) -> bool {
    headers.get_all(OCI_TAG).iter().any(|set| set == tag)
}

// === impl Kept ===

impl Kept {
    fn keep(&mut self, frame: &Bytes) {
        self.bytes += frame.len() as u64;
        if self.bytes <= self.bytes_max {
            self.frames.push(frame.clone());
        } else {
            self.frames = Vec::new();
        }
    }

    fn whole(&mut self) -> Option<Bytes> {
        if self.bytes > self.bytes_max {
            return None;
        }
        let frames = std::mem::take(&mut self.frames);
        Some(match <[Bytes; 1]>::try_from(frames) {
            Ok([frame]) => frame,
            Err(frames) => frames.concat().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use outport_core::oci::digest::Algorithm;

    use super::*;

    const TYPE: &str = "application/vnd.oci.image.index.v1+json";
    const INDEX: &[u8] = b"{\"schemaVersion\": 2, \"manifests\": []}";

    /// Passes an index on in two frames, and has the origin name it so.
    async fn passed(told: Digest, content_type: Option<&str>, bytes_max: u64) -> Option<Manifest> {
        let frames = INDEX.chunks(20).map(|frame| Ok(Bytes::from_static(frame)));
        let mut request = Request::new(Body::stream(futures_util::stream::iter(frames)));
        if let Some(content_type) = content_type {
            let value = content_type.parse().unwrap();
            request.headers_mut().insert(CONTENT_TYPE, value);
        }
        let passing = Passing::watch(&mut request, bytes_max);
        let sent = request.into_body().collect_limited(1000).await.unwrap();
        assert_eq!(sent, INDEX);
        let mut response = Response::new(Body::empty());
        let told = told.to_string().parse().unwrap();
        response.headers_mut().insert(DOCKER_CONTENT_DIGEST, told);
        passing.taken(&response)
    }

    #[tokio::test]
    async fn only_what_the_origin_has_taken_is_kept() {
        let length = INDEX.len() as u64;
        let digest = Algorithm::Sha512.digest(INDEX);
        let kept = passed(digest, Some(TYPE), length).await.unwrap();
        assert_eq!(
            (kept.digest, kept.content_type.to_str().unwrap()),
            (digest, TYPE)
        );
        assert_eq!(kept.content, INDEX);
        let other = Algorithm::Sha256.digest(b"other");
        assert!(passed(other, Some(TYPE), length).await.is_none());
        assert!(passed(digest, Some(TYPE), length - 1).await.is_none());
        assert!(passed(digest, Some("text/html"), length).await.is_none());
    }
}
