//! Lists: tags, repositories, referrers.
//!
//! Invariant: a page is shorter than asked only when it is the last one or comes with a `Link` to the next.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use http::StatusCode;
use outport_core::oci::digest::Digest;
use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::oci::media;
use outport_core::oci::reference::{RepoName, Tag};
use outport_core::oci::route::Paging;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::api::Reply;
use crate::metadata::{Listing, Metadata, Page, Referrer};
use crate::respond::OrRespond;

/// Answers the lists.
#[derive(Clone, Debug)]
pub(crate) struct Lists {
    pub(crate) metadata: Arc<dyn Metadata>,
    /// The longest page, and the one that is sent to who does not say.
    pub(crate) page_limit: u32,
}

#[derive(Serialize)]
struct TagList<'a> {
    name: &'a str,
    tags: Vec<&'a str>,
}

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrerIndex {
    schema_version: u8,
    media_type: &'static str,
    manifests: Vec<ReferrerDescriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrerDescriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// What stays as it is in a query value.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':');

// === impl Lists ===

impl Lists {
    /// `GET /v2/<name>/tags/list`.
    pub(crate) async fn tags(
        &self,
        repository: &RepoName,
        paging: Paging<Tag>,
    ) -> Result<Reply, ApiError> {
        let page = self.page(paging);
        let Some(listing) = self.metadata.tags(repository, &page).await.or_respond()? else {
            return Err(ErrorCode::NameUnknown.into());
        };
        let list = TagList {
            name: repository.as_str(),
            tags: listing.items.iter().map(Tag::as_str).collect(),
        };
        let path = format!("/v2/{repository}/tags/list?");
        Ok(reply(&list, "application/json")?.maybe_link(next(&path, &page, &listing, Tag::clone)))
    }

    /// `GET /v2/_catalog`.
    pub(crate) async fn catalog(&self, paging: Paging<RepoName>) -> Result<Reply, ApiError> {
        let page = self.page(paging);
        let listing = self.metadata.repositories(&page).await.or_respond()?;
        let catalog = Catalog {
            repositories: listing.items.iter().map(RepoName::as_str).collect(),
        };
        Ok(reply(&catalog, "application/json")?.maybe_link(next(
            "/v2/_catalog?",
            &page,
            &listing,
            RepoName::clone,
        )))
    }

    /// `GET /v2/<name>/referrers/<digest>`.
    ///
    /// An unknown repository or subject has no referrers: that is an empty list, not a 404.
    pub(crate) async fn referrers(
        &self,
        repository: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
        paging: Paging<Digest>,
    ) -> Result<Reply, ApiError> {
        let page = self.page(paging);
        let listing = self
            .metadata
            .referrers(repository, subject, artifact_type, &page)
            .await
            .or_respond()?;
        let path = match artifact_type {
            Some(artifact_type) => format!(
                "/v2/{repository}/referrers/{subject}?artifactType={}&",
                utf8_percent_encode(artifact_type, QUERY_VALUE)
            ),
            None => format!("/v2/{repository}/referrers/{subject}?"),
        };
        let link = next(&path, &page, &listing, |referrer| referrer.digest);
        let index = ReferrerIndex {
            schema_version: 2,
            media_type: media::OCI_INDEX,
            manifests: listing
                .items
                .into_iter()
                .map(ReferrerDescriptor::from)
                .collect(),
        };
        let reply = reply(&index, media::OCI_INDEX)?.maybe_link(link);
        Ok(match artifact_type {
            Some(_) => reply.header("oci-filters-applied", "artifactType"),
            None => reply,
        })
    }

    fn page<T>(&self, Paging { limit, after }: Paging<T>) -> Page<T> {
        Page {
            after,
            limit: limit.unwrap_or(self.page_limit).min(self.page_limit),
        }
    }
}

/// Returns the value of a `Link` header to the next page, or none when this is the last one.
fn next<T, K: Display>(
    path: &str,
    page: &Page<K>,
    listing: &Listing<T>,
    key: impl Fn(&T) -> K,
) -> Option<String>
where
    T: Sized,
{
    let last = listing.items.last().filter(|_| listing.more)?;
    let last = key(last).to_string();
    Some(format!(
        "<{path}n={}&last={}>; rel=\"next\"",
        page.limit,
        utf8_percent_encode(&last, QUERY_VALUE)
    ))
}

fn reply<T: Serialize>(value: &T, content_type: &'static str) -> Result<Reply, ApiError> {
    let json = serde_json::to_vec(value)
        .map_err(|error| ApiError::new(ErrorCode::Internal).with_source(error))?;
    Ok(Reply::new(StatusCode::OK)
        .header("content-type", content_type)
        .body(json.into()))
}

impl From<Referrer> for ReferrerDescriptor {
    fn from(
        Referrer {
            digest,
            media_type,
            size,
            artifact_type,
            annotations,
        }: Referrer,
    ) -> Self {
        Self {
            media_type,
            digest: digest.to_string(),
            size,
            artifact_type,
            annotations,
        }
    }
}
