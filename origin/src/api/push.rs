//! Blob uploads: sessions, chunks, monolithic uploads and mounts.
//!
//! What: bytes go to the content store as they come in; how far a session has come is written to the metadata, so that any
//! origin over the same database and location goes on with it.
//!
//! Invariants: an offset is acknowledged only after the store has made the bytes durable and the metadata has it; a blob is
//! linked only after its bytes were published under their digest; a refused chunk changes nothing.
//!
//! Cancellation: what changes a session runs in a task of its own, since hyper drops a handler whose client has left: the
//! bytes that came are kept, and the client finds them when it asks for the session's status.
//! Crash: bytes that the metadata does not account for are overwritten by the next chunk.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use outport_core::body::Body;
use outport_core::clock;
use outport_core::net::respond::chain;
use outport_core::oci::digest::{Algorithm, Digest};
use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::oci::range::upload_range;
use outport_core::oci::reference::RepoName;
use outport_core::store::{
    AppendError, Appended, CommitError, Committed, Content, ContentStore, Staged,
};
use outport_core::tasks::Tasks;
use uuid::Uuid;

use crate::api::Reply;
use crate::metadata::{BlobRecord, Link, Metadata, Upload};
use crate::names::Names;
use crate::respond::{IntoApiError as _, OrRespond};
use crate::upload::Chunk;

/// Takes blobs.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) names: Names,
    pub(crate) store: Arc<dyn ContentStore>,
    /// The name of the store's location, written with each placement.
    pub(crate) location: Arc<str>,
    pub(crate) tasks: Tasks,
    /// How often a session is touched while its content is coming in, which may last for longer than it lives untouched.
    pub(crate) touch_interval: Duration,
}

/// Content that is about to be taken: the checks before it are done.
pub(crate) struct Accepted {
    repository: RepoName,
    upload: Upload,
    end: End,
}

/// What the last request of a session meets.
pub(crate) enum Finish {
    /// The session.
    Accepted(Box<Accepted>),
    /// An earlier request has ended the session with just this blob: clients repeat a `PUT` whose answer they did not get.
    Already(Reply),
}

/// What follows the last byte of an append.
enum End {
    /// The session waits for more.
    Open,
    /// The blob is complete.
    Commit(Digest),
    /// As before, and there is no session that a client could go on with.
    Whole(Digest),
}

// === impl Push ===

impl Push {
    /// Starts a session: `POST /v2/<name>/blobs/uploads/`.
    pub(crate) async fn start(
        &self,
        repository: &RepoName,
        algorithm: Algorithm,
    ) -> Result<Reply, ApiError> {
        let staged = Staged::new(Uuid::now_v7(), algorithm);
        self.metadata
            .create_upload(repository, &staged, clock::now())
            .await
            .or_respond()?;
        let mut reply = session(StatusCode::ACCEPTED, repository, &staged);
        if self.store.min_chunk_size() > 0 {
            reply = reply.header("oci-chunk-min-length", self.store.min_chunk_size());
        }
        Ok(reply)
    }

    /// Links a blob that is here already: `POST ...?mount=&from=`; starts a session when it is not.
    pub(crate) async fn mount(
        &self,
        repository: &RepoName,
        digest: &Digest,
        from: Option<&RepoName>,
    ) -> Result<Reply, ApiError> {
        let mounted = self
            .metadata
            .mount_blob(repository, digest, from, clock::now())
            .await;
        match mounted.or_respond()? {
            Some(blob) => Ok(created(repository, &blob.digest)),
            None => self.start(repository, digest.algorithm()).await,
        }
    }

    /// Prepares to take the next chunk: `PATCH` on a session.
    pub(crate) async fn chunk(
        &self,
        repository: RepoName,
        id: Uuid,
        chunk: &Chunk,
    ) -> Result<Accepted, ApiError> {
        let upload = self.session(&repository, id).await?;
        check(chunk, &repository, &upload.staged)?;
        Ok(Accepted {
            repository,
            upload,
            end: End::Open,
        })
    }

    /// Prepares to take what is left and to end the session: `PUT ...?digest=`.
    pub(crate) async fn finish(
        &self,
        repository: RepoName,
        id: Uuid,
        digest: Digest,
        chunk: &Chunk,
    ) -> Result<Finish, ApiError> {
        let Some(upload) = self.metadata.upload(&repository, id).await.or_respond()? else {
            return match self.names.blob(&repository, &digest).await.or_respond()? {
                Some(blob) => Ok(Finish::Already(created(&repository, &blob.digest))),
                None => Err(ErrorCode::BlobUploadUnknown.into()),
            };
        };
        check(chunk, &repository, &upload.staged)?;
        Ok(Finish::Accepted(Box::new(Accepted {
            repository,
            upload,
            end: End::Commit(digest),
        })))
    }

    /// Takes the content.
    pub(crate) async fn take(&self, accepted: Accepted, body: Body) -> Result<Reply, ApiError> {
        let push = self.clone();
        let content = body.into_stream();
        let task = self.tasks.spawn("upload", async move {
            let id = accepted.upload.staged.id();
            tokio::select! {
                reply = push.take_inner(accepted, Box::pin(content)) => reply,
                never = push.keep(id) => match never {},
            }
        });
        match task.await {
            Ok(reply) => reply,
            Err(failed) => Err(ApiError::new(ErrorCode::Internal).with_source(failed)),
        }
    }

    /// Says how far a session has come: `GET` on it.
    pub(crate) async fn status(&self, repository: &RepoName, id: Uuid) -> Result<Reply, ApiError> {
        let upload = self.session(repository, id).await?;
        Ok(session(StatusCode::NO_CONTENT, repository, &upload.staged))
    }

    /// Ends a session without a blob: `DELETE` on it.
    pub(crate) async fn cancel(&self, repository: &RepoName, id: Uuid) -> Result<Reply, ApiError> {
        let upload = self.session(repository, id).await?;
        self.store.discard(upload.staged).await.or_respond()?;
        self.metadata
            .delete_upload(repository, id)
            .await
            .or_respond()?;
        Ok(Reply::new(StatusCode::NO_CONTENT))
    }

    async fn session(&self, repository: &RepoName, id: Uuid) -> Result<Upload, ApiError> {
        let upload = self.metadata.upload(repository, id).await.or_respond()?;
        upload.ok_or_else(|| ErrorCode::BlobUploadUnknown.into())
    }

    /// Keeps a session from being forgotten.
    async fn keep(&self, id: Uuid) -> Infallible {
        loop {
            tokio::time::sleep(self.touch_interval).await;
            if let Err(error) = self.metadata.touch_upload(id, clock::now()).await {
                tracing::debug!(upload.id = %id, error = chain(&error), "touch an upload");
            }
        }
    }

    async fn take_inner(
        &self,
        Accepted {
            repository,
            upload,
            end,
        }: Accepted,
        content: Content<'_>,
    ) -> Result<Reply, ApiError> {
        let Upload { staged, revision } = upload;
        let (id, before) = (staged.id(), staged.size());
        let destination = match &end {
            End::Open => None,
            End::Commit(digest) | End::Whole(digest) => Some(digest),
        };
        let Appended { staged, outcome } = self.store.append(staged, content, destination).await;
        if let End::Whole(digest) = end {
            return self.take_whole(repository, staged, outcome, digest).await;
        }
        let is_gone = matches!(outcome, Err(AppendError::Gone));
        let is_whole = outcome.is_ok();
        // A commit that follows makes writing down the offset superfluous.
        if staged.size() > before && !is_gone && !(is_whole && destination.is_some()) {
            let advanced = self
                .metadata
                .advance_upload(id, revision, &staged, clock::now())
                .await;
            if !advanced.or_respond()? {
                // Another request has taken the session further.
                return Err(outcome
                    .or_respond()
                    .err()
                    .unwrap_or_else(|| ErrorCode::RangeInvalid.into()));
            }
        }
        match (end, outcome) {
            // Bytes that are gone may have been published by a request before, which did not come to the link: clients
            // repeat a `PUT` that was not answered, or with a 503, and so the commit is asked. It goes by the bytes that
            // this session has brought, all of them: knowing a digest is not having a blob.
            (End::Commit(digest), Ok(()) | Err(AppendError::Gone)) => {
                self.commit(repository, id, staged, digest).await
            }
            (_, Ok(())) => Ok(session(StatusCode::ACCEPTED, &repository, &staged)),
            (_, Err(error)) => Err(error.into_api_error()),
        }
    }

    /// Ends a blob that came in one request. When that fails nobody can go on with it, so nothing of it is kept.
    async fn take_whole(
        &self,
        repository: RepoName,
        staged: Staged,
        outcome: Result<(), AppendError>,
        digest: Digest,
    ) -> Result<Reply, ApiError> {
        let reply = match outcome.or_respond() {
            Ok(()) => {
                self.commit(repository, staged.id(), staged.clone(), digest)
                    .await
            }
            Err(error) => Err(error),
        };
        if reply.is_err()
            && let Err(error) = self.store.discard(staged).await
        {
            tracing::warn!(error = chain(&error), "bytes of a broken push not deleted");
        }
        reply
    }

    /// Publishes what is staged, links it, and ends the session `id`.
    async fn commit(
        &self,
        repository: RepoName,
        id: Uuid,
        staged: Staged,
        digest: Digest,
    ) -> Result<Reply, ApiError> {
        let size = staged.size();
        let committed = match self.store.commit(staged, &digest).await {
            Ok(committed) => committed,
            Err(error) => {
                if !matches!(error, CommitError::Store(_)) {
                    // Nothing is left of what was staged: the session cannot go on.
                    self.metadata
                        .delete_upload(&repository, id)
                        .await
                        .or_respond()?;
                }
                return Err(error).or_respond();
            }
        };
        let link = Link {
            repository: repository.clone(),
            blob: BlobRecord { digest, size },
            location: self.location.to_string(),
            upload: Some(id),
        };
        self.metadata
            .link_blob(link, clock::now())
            .await
            .or_respond()?;
        if committed == Committed::PutOff {
            self.settle(digest);
        }
        Ok(created(&repository, &digest))
    }

    /// Does behind the client's back what the store has put off. What is cut short here, the sweep goes on with.
    fn settle(&self, digest: Digest) {
        let (store, token) = (Arc::clone(&self.store), self.tasks.token());
        drop(self.tasks.spawn("settle", async move {
            let settled = store.settle(&digest, clock::now());
            if let Some(Err(error)) = token.run_until_cancelled(settled).await {
                tracing::warn!(%digest, error = chain(&error), "settle a blob");
            }
        }));
    }
}

// === impl Accepted ===

impl Accepted {
    /// Takes a whole blob in one request, without a session: `POST ...?digest=`.
    pub(crate) fn whole(repository: RepoName, digest: Digest) -> Self {
        let staged = Staged::new(Uuid::now_v7(), digest.algorithm());
        Self {
            repository,
            upload: Upload {
                staged,
                revision: 0,
            },
            end: End::Whole(digest),
        }
    }
}

/// Answers with where a session is and how far it has come.
///
/// The location is a path: a client that came by another scheme, host or port keeps to its own.
fn session(status: StatusCode, repository: &RepoName, staged: &Staged) -> Reply {
    standing(repository, staged)
        .into_iter()
        .fold(Reply::new(status), |reply, (name, value)| {
            reply.header(name, value)
        })
}

/// Returns the headers that say where a session is and how far it has come.
fn standing(repository: &RepoName, staged: &Staged) -> [(&'static str, String); 3] {
    let id = staged.id();
    [
        ("location", format!("/v2/{repository}/blobs/uploads/{id}")),
        ("range", upload_range(staged.size())),
        ("docker-upload-uuid", id.to_string()),
    ]
}

/// Checks that a chunk goes on where the session stands; the refusal says where that is.
fn check(chunk: &Chunk, repository: &RepoName, staged: &Staged) -> Result<(), ApiError> {
    let checked = chunk.check(staged.size());
    checked.map_err(|error| match error.code() {
        ErrorCode::RangeInvalid => {
            standing(repository, staged)
                .into_iter()
                .fold(error, |error, (name, value)| {
                    match HeaderValue::try_from(value) {
                        Ok(value) => error.with_header(HeaderName::from_static(name), value),
                        Err(_) => error,
                    }
                })
        }
        _ => error,
    })
}

/// Answers with where a blob is.
fn created(repository: &RepoName, digest: &Digest) -> Reply {
    Reply::new(StatusCode::CREATED)
        .header("location", format!("/v2/{repository}/blobs/{digest}"))
        .header("docker-content-digest", digest.to_string())
        .body(Body::empty())
}

#[cfg(test)]
mod tests;
