//! Lists of upstreams, kept for when they are away.
//!
//! Invariant: a list is asked for each time, and kept as it was said; what was kept is used only when it cannot be asked for,
//! and for no longer than a tag would be.

use bytes::Bytes;
use http::HeaderValue;
use outport_core::clock;
use outport_core::oci::digest::{Algorithm, Digest};

use super::Resolver;
use crate::coalesce::Coalesce;
use crate::names::Listed;
use crate::source::{Origin, OriginError};

/// A list, as it is passed on.
#[derive(Clone, Debug)]
pub struct List {
    /// Its content.
    pub content: Bytes,
    /// The query with which it goes on.
    pub next: Option<String>,
    /// By what it was filtered.
    pub filters: Option<HeaderValue>,
    /// Whether it is older than it should be.
    pub is_stale: bool,
}

/// The largest list that is passed on, in bytes.
pub const LIST_BYTES_MAX: u64 = 8 << 20;

impl Resolver {
    /// Returns the questions for lists that are under way, by path and query.
    pub const fn lists(&self) -> &Coalesce<String, Result<Option<List>, OriginError>> {
        &self.lists
    }

    /// Keeps a list, or that there is none, by the path and query that it was asked for with.
    pub async fn keep_list(&self, path: &str, list: Option<&List>) {
        let text = |header: &Option<HeaderValue>| Some(header.as_ref()?.to_str().ok()?.to_owned());
        let content = match list {
            Some(List { content, .. }) => {
                let digest = Algorithm::Sha256.digest(content);
                self.cache.put_content(digest, content.clone()).await;
                Some(digest)
            }
            None => None,
        };
        let listed = Listed {
            asked: clock::now(),
            content,
            next: list.and_then(|list| list.next.clone()),
            filters: list.and_then(|list| text(&list.filters)),
        };
        self.names.put_list(path, listed);
    }

    /// Returns what is known of a list, unless it was asked for too long ago; within, none when there was none.
    pub async fn kept_list(&self, path: &str, upstream: &Origin) -> Option<Option<List>> {
        let listed = self.listed(path, upstream).await?;
        let Some(digest) = listed.content else {
            return Some(None);
        };
        Some(Some(List {
            content: self.cache.content(&digest, LIST_BYTES_MAX).await?,
            next: listed.next,
            filters: listed
                .filters
                .and_then(|filters| HeaderValue::try_from(filters).ok()),
            is_stale: true,
        }))
    }

    /// Returns the digest of what is known of a list, as of [`Self::kept_list`]; of nothing when there was none.
    pub async fn kept_list_digest(&self, path: &str, upstream: &Origin) -> Option<Digest> {
        let listed = self.listed(path, upstream).await?;
        let Some(digest) = listed.content else {
            return Some(Algorithm::Sha256.digest(&[]));
        };
        let content = self.cache.content(&digest, LIST_BYTES_MAX).await;
        content.and(Some(digest))
    }

    async fn listed(&self, path: &str, upstream: &Origin) -> Option<Listed> {
        let listed = self.names.list(path).await?;
        let age = clock::now().duration_since(listed.asked);
        let policy = upstream.tags().policy;
        let is_of_use = policy.if_error.is_after(age.unwrap_or_default());
        is_of_use.then_some(listed)
    }
}
