//! Manifests: get, put, delete, by tag and by digest.
//!
//! Invariant: what is answered is what was pushed, byte for byte and with its type.

use std::fmt::Write as _;
use std::sync::Arc;

use http::StatusCode;
use outport_core::clock;
use outport_core::oci::digest::Digest;
use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::oci::reference::{Reference, RepoName, Tag};

use crate::api::Reply;
use crate::metadata::{ManifestRecord, Metadata, Publish, Published};
use crate::names::Names;
use crate::publish::{MissingBlobs, Pushed, without_blobs};
use crate::respond::OrRespond;

/// Answers for manifests.
#[derive(Clone, Debug)]
pub(crate) struct Manifests {
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) names: Names,
    /// What becomes of a manifest whose blobs the repository lacks.
    pub(crate) missing_blobs: MissingBlobs,
}

/// The longest list of missing digests that a warning names.
const DIGESTS_IN_WARNING: usize = 8;

// === impl Manifests ===

impl Manifests {
    /// Returns the manifest, or what the client is told when there is none.
    pub(crate) async fn get(
        &self,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<Arc<ManifestRecord>, ApiError> {
        let found = match reference {
            Reference::Tag(tag) => self.names.tagged_manifest(repository, tag).await,
            Reference::Digest(digest) => self.names.manifest(repository, digest).await,
        };
        match found.or_respond()? {
            Some(manifest) => Ok(manifest),
            None => Err(self.unknown(repository, ErrorCode::ManifestUnknown).await),
        }
    }

    /// `PUT /v2/<name>/manifests/<reference>`.
    ///
    /// `tags` are those of the query, which go with a digest only.
    pub(crate) async fn put(
        &self,
        repository: RepoName,
        reference: Reference,
        tags: Vec<Tag>,
        pushed: Pushed,
    ) -> Result<Reply, ApiError> {
        let subject = pushed.subject();
        let publish = pushed.publish(repository.clone(), &reference, tags.clone())?;
        let digest = publish.manifest.digest;
        let missing = match self.missing_blobs {
            // The transaction looks for itself.
            MissingBlobs::Refuse => Vec::new(),
            MissingBlobs::Accept => self.missing(&publish).await?,
        };
        let publish = without_blobs(publish, &missing);
        let Published { sequence } = self
            .metadata
            .publish(publish, clock::now())
            .await
            .or_respond()?;

        let mut reply = Reply::new(StatusCode::CREATED)
            .header(
                "location",
                format!("/v2/{repository}/manifests/{reference}"),
            )
            .header("docker-content-digest", digest.to_string())
            .header("outport-sequence", sequence.get());
        if let Some(subject) = subject {
            reply = reply.header("oci-subject", subject.to_string());
        }
        for tag in tags {
            reply = reply.header("oci-tag", tag.as_str());
        }
        if !missing.is_empty() {
            reply = reply.header("warning", warning(&missing));
        }
        Ok(reply)
    }

    /// `DELETE /v2/<name>/manifests/<reference>`.
    pub(crate) async fn delete(
        &self,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<Reply, ApiError> {
        let now = clock::now();
        let deleted = match reference {
            Reference::Tag(tag) => self.metadata.delete_tag(repository, tag, now).await,
            Reference::Digest(digest) => {
                self.metadata.delete_manifest(repository, digest, now).await
            }
        };
        match deleted.or_respond()? {
            Some(sequence) => {
                Ok(Reply::new(StatusCode::ACCEPTED).header("outport-sequence", sequence.get()))
            }
            None => Err(self.unknown(repository, ErrorCode::ManifestUnknown).await),
        }
    }

    /// Returns the blobs that the manifest needs and the repository does not link.
    async fn missing(&self, publish: &Publish) -> Result<Vec<Digest>, ApiError> {
        let mut missing = Vec::new();
        for digest in &publish.blobs {
            if self
                .names
                .blob(&publish.repository, digest)
                .await
                .or_respond()?
                .is_none()
            {
                missing.push(*digest);
            }
        }
        Ok(missing)
    }

    /// Returns `code`, or that the whole repository is unknown.
    async fn unknown(&self, repository: &RepoName, code: ErrorCode) -> ApiError {
        match self
            .metadata
            .repository_exists(repository)
            .await
            .or_respond()
        {
            Ok(true) => code.into(),
            Ok(false) => ErrorCode::NameUnknown.into(),
            Err(error) => error,
        }
    }
}

/// Returns the value of a `Warning` header (specification, "Warnings": at most 4096 bytes).
fn warning(missing: &[Digest]) -> String {
    let mut text = format!(
        "299 - \"{} referenced blobs are not in this repository:",
        missing.len()
    );
    for digest in missing.iter().take(DIGESTS_IN_WARNING) {
        // Writing to a string does not fail.
        let _ = write!(text, " {digest}");
    }
    if missing.len() > DIGESTS_IN_WARNING {
        text.push_str(" ...");
    }
    text.push('"');
    text
}
