//! What a pushed manifest means for the metadata. Pure.

use std::collections::HashSet;

use bytes::Bytes;
use outport_core::oci::digest::{Algorithm, Digest};
use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::oci::manifest::Manifest;
use outport_core::oci::reference::{Reference, RepoName, Tag};

use crate::metadata::{ManifestRecord, Publish};

/// What becomes of a manifest whose blobs the repository does not link (yet).
///
/// The specification leaves it to the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingBlobs {
    /// It is taken, and the answer warns of what is missing.
    #[default]
    Accept,
    /// It is refused with `MANIFEST_BLOB_UNKNOWN`.
    Refuse,
}

/// A manifest as it was pushed.
#[derive(Clone, Debug)]
pub(crate) struct Pushed {
    manifest: Manifest,
    body: Bytes,
}

// === impl Pushed ===

impl Pushed {
    /// Returns what was pushed, if it is a manifest.
    pub(crate) fn parse(content_type: Option<&str>, body: Bytes) -> Result<Self, ApiError> {
        let manifest = Manifest::parse(content_type, &body)?;
        Ok(Self { manifest, body })
    }

    /// Returns the manifest that it refers to.
    pub(crate) const fn subject(&self) -> Option<Digest> {
        self.manifest.subject
    }

    /// Returns what to write down when it was pushed as `reference`, with `tags` in the query.
    pub(crate) fn publish(
        self,
        repository: RepoName,
        reference: &Reference,
        mut tags: Vec<Tag>,
    ) -> Result<Publish, ApiError> {
        let Self { manifest, body } = self;
        let digest = match reference {
            Reference::Digest(expected) => {
                let actual = expected.algorithm().digest(&body);
                if actual != *expected {
                    return Err(mismatch(expected, &actual));
                }
                actual
            }
            Reference::Tag(tag) => {
                tags.push(tag.clone());
                Algorithm::default().digest(&body)
            }
        };
        tags.sort_unstable();
        tags.dedup();
        Ok(Publish {
            repository,
            blobs: manifest.blobs(),
            children: manifest.children(),
            tags,
            manifest: ManifestRecord {
                digest,
                media_type: manifest.media_type.as_str().to_owned(),
                body,
            },
            subject: manifest.subject,
            artifact_type: manifest.artifact_type,
            annotations: manifest.annotations,
        })
    }
}

/// Lets a manifest be published while `missing` are not there.
pub(crate) fn without_blobs(mut publish: Publish, missing: &[Digest]) -> Publish {
    let absent: HashSet<_> = missing.iter().collect();
    publish.blobs.retain(|digest| !absent.contains(digest));
    publish.children.extend(missing);
    publish
}

fn mismatch(expected: &Digest, actual: &Digest) -> ApiError {
    ApiError::new(ErrorCode::DigestInvalid).with_detail(serde_json::json!({
        "provided": expected.to_string(),
        "computed": actual.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Bytes {
        let config = Algorithm::Sha256.digest(b"{}");
        let layer = Algorithm::Sha512.digest(b"layer");
        Bytes::from(
            serde_json::json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.to_string(), "size": 2},
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.to_string(), "size": 5}],
            })
            .to_string(),
        )
    }

    fn publish(reference: &str, tags: &[&str]) -> Result<Publish, ApiError> {
        let pushed = Pushed::parse(None, image()).unwrap();
        let tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        pushed.publish("a/b".parse().unwrap(), &reference.parse().unwrap(), tags)
    }

    #[test]
    fn a_tag_is_pushed_by_its_sha256() {
        let publish = publish("latest", &[]).unwrap();
        assert_eq!(publish.manifest.digest, Algorithm::Sha256.digest(&image()));
        assert_eq!(publish.tags, ["latest".parse().unwrap()]);
        assert_eq!(publish.blobs.len(), 2);
    }

    #[test]
    fn a_digest_keeps_its_algorithm_and_takes_tags_once() {
        let digest = Algorithm::Sha512.digest(&image());
        let publish = publish(&digest.to_string(), &["b", "a", "b"]).unwrap();
        assert_eq!(publish.manifest.digest, digest);
        assert_eq!(publish.tags, ["a".parse().unwrap(), "b".parse().unwrap()]);
    }

    #[test]
    fn another_digest_is_refused() {
        let other = Algorithm::Sha256.digest(b"other").to_string();
        assert_eq!(
            publish(&other, &[]).unwrap_err().code(),
            ErrorCode::DigestInvalid
        );
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let error = Pushed::parse(None, Bytes::from_static(b"not json")).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ManifestInvalid);
    }
}
