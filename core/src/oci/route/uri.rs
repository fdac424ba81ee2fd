//! From a route to its path and query: for requests to other nodes, and for `Location` and `Link`.

use std::fmt::Display;

use super::{Paging, Route};
use crate::oci::digest::Algorithm;
use crate::oci::reference::{RepoName, Tag};

/// A path and a query under construction.
struct Builder {
    uri: String,
    /// What comes before the next parameter.
    separator: char,
}

// === impl Route ===

impl Route {
    /// Returns path and query, from `/v2/` on.
    pub fn to_uri(&self) -> String {
        match self {
            Self::Ping => "/v2/".to_owned(),
            Self::ListRepositories { page } => catalog().page(page).uri,
            Self::FetchManifest {
                repository,
                reference,
                ..
            }
            | Self::DeleteManifest {
                repository,
                reference,
            } => path(repository, "manifests", reference),
            Self::PushManifest {
                repository,
                reference,
                tags,
            } => {
                Builder::new(path(repository, "manifests", reference))
                    .tags(tags)
                    .uri
            }
            Self::FetchBlob {
                repository, digest, ..
            }
            | Self::DeleteBlob { repository, digest } => path(repository, "blobs", digest),
            Self::StartUpload {
                repository,
                algorithm,
            } => {
                let unusual = (*algorithm != Algorithm::default()).then_some(algorithm);
                uploads(repository)
                    .with_some("digest-algorithm", unusual)
                    .uri
            }
            Self::PushBlob { repository, digest } => uploads(repository).with("digest", digest).uri,
            Self::MountBlob {
                repository,
                digest,
                from,
            } => {
                let uri = uploads(repository).with("mount", digest);
                uri.with_some("from", from.as_ref()).uri
            }
            Self::UploadStatus { repository, id }
            | Self::AppendUpload { repository, id }
            | Self::CancelUpload { repository, id } => path(repository, "blobs/uploads", id),
            Self::FinishUpload {
                repository,
                id,
                digest,
            } => {
                let uri = Builder::new(path(repository, "blobs/uploads", id));
                uri.with("digest", digest).uri
            }
            Self::ListTags { repository, page } => {
                let uri = Builder::new(path(repository, "tags", "list"));
                uri.page(page).uri
            }
            Self::ListReferrers {
                repository,
                subject,
                artifact_type,
                page,
            } => {
                let uri = Builder::new(path(repository, "referrers", subject));
                let uri = uri.with_some("artifactType", artifact_type.as_ref());
                uri.page(page).uri
            }
        }
    }
}

fn path(repository: &RepoName, parent: &str, last: impl Display) -> String {
    format!("/v2/{repository}/{parent}/{last}")
}

fn catalog() -> Builder {
    Builder::new("/v2/_catalog".to_owned())
}

fn uploads(repository: &RepoName) -> Builder {
    Builder::new(path(repository, "blobs/uploads", ""))
}

// === impl Builder ===

impl Builder {
    const fn new(path: String) -> Self {
        Self {
            uri: path,
            separator: '?',
        }
    }

    fn with(mut self, key: &str, value: impl Display) -> Self {
        self.uri.push(self.separator);
        self.uri.push_str(key);
        self.uri.push('=');
        let value = value.to_string();
        self.uri
            .extend(form_urlencoded::byte_serialize(value.as_bytes()));
        self.separator = '&';
        self
    }

    fn with_some(self, key: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    fn tags(self, tags: &[Tag]) -> Self {
        tags.iter().fold(self, |uri, tag| uri.with("tag", tag))
    }

    fn page<T: Display>(self, page: &Paging<T>) -> Self {
        self.with_some("n", page.limit)
            .with_some("last", page.after.as_ref())
    }
}
