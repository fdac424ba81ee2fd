//! Blobs that are here: get, head, delete.
//!
//! Invariant: a blob is answered only in a repository that links it; missing and not linked look the same.

use std::sync::Arc;

use http::StatusCode;
use outport_core::clock;
use outport_core::oci::digest::Digest;
use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::oci::reference::RepoName;

use crate::api::Reply;
use crate::metadata::{BlobRecord, Metadata};
use crate::names::Names;
use crate::respond::OrRespond;

/// Answers for blobs.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) names: Names,
}

// === impl Blobs ===

impl Blobs {
    /// Returns the blob's record, or what the client is told when the repository does not link it.
    pub(crate) async fn find(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<BlobRecord, ApiError> {
        match self.names.blob(repository, digest).await.or_respond()? {
            Some(blob) => Ok(blob),
            None => Err(self.unknown(repository).await),
        }
    }

    /// `DELETE /v2/<name>/blobs/<digest>`: takes the repository's link away.
    pub(crate) async fn delete(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Reply, ApiError> {
        let unlinked = self
            .metadata
            .unlink_blob(repository, digest, clock::now())
            .await;
        match unlinked.or_respond()? {
            Some(sequence) => {
                Ok(Reply::new(StatusCode::ACCEPTED).header("outport-sequence", sequence.get()))
            }
            None => Err(self.unknown(repository).await),
        }
    }

    async fn unknown(&self, repository: &RepoName) -> ApiError {
        match self
            .metadata
            .repository_exists(repository)
            .await
            .or_respond()
        {
            Ok(true) => ErrorCode::BlobUnknown.into(),
            Ok(false) => ErrorCode::NameUnknown.into(),
            Err(error) => error,
        }
    }
}
