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
use crate::metadata::{ManifestRecord, Metadata, Publish, PublishError, Published};
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
        let (Published { sequence }, missing) = self.publish(publish).await?;

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

    /// Publishes a manifest, and returns what its repository lacks of it, where that is let pass.
    ///
    /// The transaction says what is missing, in one question whatever the number of layers, and as of the moment in which
    /// the manifest becomes visible.
    async fn publish(&self, mut publish: Publish) -> Result<(Published, Vec<Digest>), ApiError> {
        let mut lacking = Vec::new();
        loop {
            match self.metadata.publish(publish.clone(), clock::now()).await {
                // Each turn takes at least one of the blobs away.
                Err(PublishError::MissingBlobs(missing))
                    if self.missing_blobs == MissingBlobs::Accept && !missing.is_empty() =>
                {
                    publish = without_blobs(publish, &missing);
                    lacking.extend(missing);
                }
                published => return Ok((published.or_respond()?, lacking)),
            }
        }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use outport_core::oci::digest::Algorithm;
    use outport_core::tasks::Tasks;

    use super::*;
    use crate::metadata::sql::{DatabaseConfig, DatabaseUrl, Sql};
    use crate::metadata::{BlobRecord, Link};
    use crate::names::NamesConfig;

    #[tokio::test]
    async fn what_is_missing_is_named_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::sqlite(directory.path().join("origin.db"));
        let metadata = Sql::open(&DatabaseConfig::new(url)).await.unwrap();
        let metadata: Arc<dyn Metadata> = Arc::new(metadata);
        let repository: RepoName = "a/b".parse().unwrap();
        let [here, gone] = [b"here", b"gone"].map(|text| Algorithm::Sha256.digest(text));
        let link = Link {
            repository: repository.clone(),
            blob: BlobRecord {
                digest: here,
                size: 4,
            },
            location: "here".to_owned(),
            upload: None,
        };
        metadata.link_blob(link, clock::now()).await.unwrap();
        let body = serde_json::json!({
            "schemaVersion": 2,
            "config": {"mediaType": "a/config", "digest": here.to_string(), "size": 4},
            "layers": [{"mediaType": "a/layer", "digest": gone.to_string(), "size": 4}],
        });
        let body = Bytes::from(body.to_string());
        let put = async |missing_blobs| {
            let config = NamesConfig { memory: 1 << 20 };
            let manifests = Manifests {
                metadata: Arc::clone(&metadata),
                names: Names::new(Arc::clone(&metadata), config, &Tasks::new()),
                missing_blobs,
            };
            let pushed = Pushed::parse(None, body.clone()).unwrap();
            let reference = Reference::Tag("t".parse().unwrap());
            let put = manifests.put(repository.clone(), reference, Vec::new(), pushed);
            put.await.map(Reply::into_response)
        };
        let refused = put(MissingBlobs::Refuse).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::ManifestBlobUnknown);
        let accepted = put(MissingBlobs::Accept).await.unwrap();
        assert_eq!(accepted.status(), StatusCode::CREATED);
        let warning = accepted.headers()["warning"].to_str().unwrap();
        assert!(warning.contains(&gone.to_string()), "{warning}");
        assert!(!warning.contains(&here.to_string()), "{warning}");
    }
}
