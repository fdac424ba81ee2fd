//! Every endpoint of the distribution API as one enum: the only place that takes a URL apart, or puts one together.
//!
//! OCI distribution specification, "Endpoints", with docker's `_catalog`.
//!
//! Invariants: a path is split first and its segments are percent-decoded once, so that nothing encoded can pass for a
//! slash; it is read from its end, as a repository may be called `manifests` or `tags/list`; for every route,
//! `Route::parse(route.method(), route.to_uri())` is that route. Unknown query parameters do not count, and of repeated
//! ones that say one thing the first does.
//!
//! What names something that cannot exist is answered as what does not exist where content is only asked for: no manifest
//! can have a tag outside the grammar, and no blob a digest of an algorithm we do not know. Malformed digests, and
//! anything malformed on the way in, are the client's error.

mod error;
mod parse;
mod uri;

use http::Method;
use uuid::Uuid;

pub use self::error::RouteError;
use super::digest::{Algorithm, Digest};
use super::reference::{Reference, RepoName, Tag};

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /v2/`: is this a registry, and am I let in?
    Ping,
    /// `GET /v2/_catalog`: the repositories.
    ListRepositories {
        /// Which of them.
        page: Paging<RepoName>,
    },
    /// `GET` or `HEAD /v2/<name>/manifests/<tag or digest>`.
    FetchManifest {
        /// The repository.
        repository: RepoName,
        /// Which manifest.
        reference: Reference,
        /// Whether its content is wanted.
        fetch: Fetch,
    },
    /// `PUT /v2/<name>/manifests/<tag>`, or `<digest>?tag=a&tag=b`.
    PushManifest {
        /// The repository.
        repository: RepoName,
        /// What the path says it is to be known by.
        reference: Reference,
        /// Further tags, without repetition; only when the reference is a digest.
        tags: Vec<Tag>,
    },
    /// `DELETE /v2/<name>/manifests/<tag or digest>`.
    DeleteManifest {
        /// The repository.
        repository: RepoName,
        /// The tag alone, or the manifest with every tag.
        reference: Reference,
    },
    /// `GET` or `HEAD /v2/<name>/blobs/<digest>`.
    FetchBlob {
        /// The repository.
        repository: RepoName,
        /// Which blob.
        digest: Digest,
        /// Whether its content is wanted.
        fetch: Fetch,
    },
    /// `DELETE /v2/<name>/blobs/<digest>`.
    DeleteBlob {
        /// The repository.
        repository: RepoName,
        /// Which blob.
        digest: Digest,
    },
    /// `POST /v2/<name>/blobs/uploads/`: a session.
    StartUpload {
        /// The repository.
        repository: RepoName,
        /// What the blob is going to be named by, as far as the client says.
        algorithm: Algorithm,
    },
    /// `POST /v2/<name>/blobs/uploads/?digest=`: the whole blob at once.
    PushBlob {
        /// The repository.
        repository: RepoName,
        /// The blob in the body.
        digest: Digest,
    },
    /// `POST /v2/<name>/blobs/uploads/?mount=`: a blob of another repository, or else a session to push it in.
    MountBlob {
        /// The repository.
        repository: RepoName,
        /// Which blob.
        digest: Digest,
        /// Who has it; any repository the caller may read, when it is not said.
        from: Option<RepoName>,
    },
    /// `GET` or `HEAD` of a session: how far is it?
    UploadStatus {
        /// The repository.
        repository: RepoName,
        /// The session.
        id: Uuid,
    },
    /// `PATCH` of a session: more bytes.
    AppendUpload {
        /// The repository.
        repository: RepoName,
        /// The session.
        id: Uuid,
    },
    /// `PUT` of a session, `?digest=`: the last bytes, or none, and what all are to be named.
    FinishUpload {
        /// The repository.
        repository: RepoName,
        /// The session.
        id: Uuid,
        /// The whole blob.
        digest: Digest,
    },
    /// `DELETE` of a session.
    CancelUpload {
        /// The repository.
        repository: RepoName,
        /// The session.
        id: Uuid,
    },
    /// `GET /v2/<name>/tags/list`.
    ListTags {
        /// The repository.
        repository: RepoName,
        /// Which of them.
        page: Paging<Tag>,
    },
    /// `GET /v2/<name>/referrers/<digest>`.
    ListReferrers {
        /// The repository.
        repository: RepoName,
        /// What they refer to.
        subject: Digest,
        /// Only those of this type.
        artifact_type: Option<String>,
        /// Which of them.
        page: Paging<Digest>,
    },
}

/// A route, with what any request may say beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The route.
    pub route: Route,
    /// The registry that the client thinks it talks to (`?ns=`), in no way validated except that it is short.
    pub ns: Option<String>,
}

/// How much of something a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fetch {
    /// `GET`: its content.
    Get,
    /// `HEAD`: only what it is.
    Head,
}

/// Which part of a sorted list a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paging<T> {
    /// `last`: only what sorts behind this.
    pub after: Option<T>,
    /// `n`: at most so many; what is too large to be a number is as large as can be.
    pub limit: Option<u32>,
}

/// The most tags that one manifest can be pushed with.
pub const MAX_TAGS: usize = 64;

/// The longest `ns` and `artifactType`, in bytes.
pub const MAX_PARAMETER_LEN: usize = 255;

// === impl Route ===

impl Route {
    /// Returns the repository it is about.
    pub const fn repository(&self) -> Option<&RepoName> {
        match self {
            Self::Ping | Self::ListRepositories { .. } => None,
            Self::FetchManifest { repository, .. }
            | Self::PushManifest { repository, .. }
            | Self::DeleteManifest { repository, .. }
            | Self::FetchBlob { repository, .. }
            | Self::DeleteBlob { repository, .. }
            | Self::StartUpload { repository, .. }
            | Self::PushBlob { repository, .. }
            | Self::MountBlob { repository, .. }
            | Self::UploadStatus { repository, .. }
            | Self::AppendUpload { repository, .. }
            | Self::FinishUpload { repository, .. }
            | Self::CancelUpload { repository, .. }
            | Self::ListTags { repository, .. }
            | Self::ListReferrers { repository, .. } => Some(repository),
        }
    }

    /// Returns the same question about another repository; none of a route that changes something, or is about none.
    #[must_use]
    pub fn asked_of(mut self, repository: RepoName) -> Option<Self> {
        match &mut self {
            Self::FetchManifest {
                repository: asked, ..
            }
            | Self::FetchBlob {
                repository: asked, ..
            }
            | Self::ListTags {
                repository: asked, ..
            }
            | Self::ListReferrers {
                repository: asked, ..
            } => *asked = repository,
            _ => return None,
        }
        Some(self)
    }

    /// Returns the name it has in logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::ListRepositories { .. } => "list_repositories",
            Self::FetchManifest { .. } => "fetch_manifest",
            Self::PushManifest { .. } => "push_manifest",
            Self::DeleteManifest { .. } => "delete_manifest",
            Self::FetchBlob { .. } => "fetch_blob",
            Self::DeleteBlob { .. } => "delete_blob",
            Self::StartUpload { .. } => "start_upload",
            Self::PushBlob { .. } => "push_blob",
            Self::MountBlob { .. } => "mount_blob",
            Self::UploadStatus { .. } => "upload_status",
            Self::AppendUpload { .. } => "append_upload",
            Self::FinishUpload { .. } => "finish_upload",
            Self::CancelUpload { .. } => "cancel_upload",
            Self::ListTags { .. } => "list_tags",
            Self::ListReferrers { .. } => "list_referrers",
        }
    }

    /// Returns the method that asks for it.
    pub const fn method(&self) -> Method {
        match self {
            Self::Ping
            | Self::ListRepositories { .. }
            | Self::UploadStatus { .. }
            | Self::ListTags { .. }
            | Self::ListReferrers { .. } => Method::GET,
            Self::FetchManifest { fetch, .. } | Self::FetchBlob { fetch, .. } => fetch.method(),
            Self::PushManifest { .. } | Self::FinishUpload { .. } => Method::PUT,
            Self::DeleteManifest { .. } | Self::DeleteBlob { .. } | Self::CancelUpload { .. } => {
                Method::DELETE
            }
            Self::StartUpload { .. } | Self::PushBlob { .. } | Self::MountBlob { .. } => {
                Method::POST
            }
            Self::AppendUpload { .. } => Method::PATCH,
        }
    }
}

// === impl Fetch ===

impl Fetch {
    const fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
        }
    }
}

// === impl Paging ===

impl<T> Paging<T> {
    /// The whole list, as far as the registry gives it out at once.
    pub const ALL: Self = Self {
        after: None,
        limit: None,
    };
}

#[cfg(test)]
mod tests;
