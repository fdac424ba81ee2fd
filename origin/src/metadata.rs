//! The origin's truth: every name, link, tag, upload session and feed event, behind one trait.
//!
//! What: [`Metadata`] has one method per use-case, each in one transaction that never crosses the trait.
//!
//! Invariants: a manifest exists in a repository only together with links to all its blobs; a tag's version only grows;
//! every change that edges must hear of writes its [`Event`] in the same transaction, and events become visible in the
//! order of their sequence numbers, without gaps.
//!
//! Absence is `Ok(None)` or an empty list. `now` is always an argument.

pub mod conformance;
pub mod sql;

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use outport_core::cluster::Sequence;
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::{RepoName, Tag};
use outport_core::store::Staged;
use uuid::Uuid;

/// The origin's names and what they mean.
#[async_trait]
pub trait Metadata: fmt::Debug + Send + Sync + 'static {
    // --- the feed

    /// Returns the position of the newest event that is visible.
    async fn position(&self) -> Result<Sequence, MetadataError>;

    /// Returns events after `after`, oldest first, at most `limit`.
    async fn events(&self, after: Sequence, limit: u32) -> Result<Vec<Event>, MetadataError>;

    // --- reading

    /// Whether anything was ever pushed to the repository.
    async fn repository_exists(&self, repository: &RepoName) -> Result<bool, MetadataError>;

    /// Returns what a tag points at.
    async fn tag(
        &self,
        repository: &RepoName,
        tag: &Tag,
    ) -> Result<Option<TagRecord>, MetadataError>;

    /// Returns a manifest that the repository holds.
    async fn manifest(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, MetadataError>;

    /// Returns a blob that the repository links.
    async fn blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<BlobRecord>, MetadataError>;

    /// Returns tags in lexical (byte) order, or none when there is no such repository.
    async fn tags(
        &self,
        repository: &RepoName,
        page: &Page<Tag>,
    ) -> Result<Option<Listing<Tag>>, MetadataError>;

    /// Returns repositories in lexical (byte) order.
    async fn repositories(&self, page: &Page<RepoName>)
    -> Result<Listing<RepoName>, MetadataError>;

    /// Returns the manifests of the repository that refer to `subject`, in the order of their digests' text.
    ///
    /// Those are the ones whose subject it is, and those that the index at [`Tag::of_referrers`] lists: an image that was
    /// copied here from a registry without the referrers API brings such an index along.
    async fn referrers(
        &self,
        repository: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &Page<Digest>,
    ) -> Result<Listing<Referrer>, MetadataError>;

    // --- manifests and tags

    /// Publishes a manifest: body, links, references, tags and events in one transaction.
    ///
    /// Idempotent. A tag that already points at the digest keeps its version and causes no event.
    async fn publish(&self, publish: Publish, now: SystemTime) -> Result<Published, PublishError>;

    /// Removes a tag; returns the feed position that contains it, or none when there was no such tag.
    async fn delete_tag(
        &self,
        repository: &RepoName,
        tag: &Tag,
        now: SystemTime,
    ) -> Result<Option<Sequence>, MetadataError>;

    /// Removes a manifest from the repository, with every tag that points at it.
    async fn delete_manifest(
        &self,
        repository: &RepoName,
        digest: &Digest,
        now: SystemTime,
    ) -> Result<Option<Sequence>, MetadataError>;

    // --- blobs

    /// Records that the blob is durable in `location` and linked by the repository, and ends the upload that brought it.
    ///
    /// Idempotent.
    async fn link_blob(&self, link: Link, now: SystemTime) -> Result<(), MetadataError>;

    /// Links a blob that another repository links (`from`, or any when none is given); returns none when it does not.
    async fn mount_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
        from: Option<&RepoName>,
        now: SystemTime,
    ) -> Result<Option<BlobRecord>, MetadataError>;

    /// Removes the repository's link to a blob; the bytes stay for the collector.
    async fn unlink_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
        now: SystemTime,
    ) -> Result<Option<Sequence>, MetadataError>;

    // --- upload sessions

    /// Starts a session.
    async fn create_upload(
        &self,
        repository: &RepoName,
        staged: &Staged,
        now: SystemTime,
    ) -> Result<(), MetadataError>;

    /// Returns a session of the repository.
    async fn upload(
        &self,
        repository: &RepoName,
        id: Uuid,
    ) -> Result<Option<Upload>, MetadataError>;

    /// Writes down how far a session has come, if it still stands at `revision`; returns whether it did.
    async fn advance_upload(
        &self,
        id: Uuid,
        revision: u64,
        staged: &Staged,
        now: SystemTime,
    ) -> Result<bool, MetadataError>;

    /// Keeps a session, which may have ended, from becoming stale.
    async fn touch_upload(&self, id: Uuid, now: SystemTime) -> Result<(), MetadataError>;

    /// Ends a session without a blob; returns whether there was one.
    async fn delete_upload(&self, repository: &RepoName, id: Uuid) -> Result<bool, MetadataError>;

    /// Returns sessions that nobody touched since `before`, oldest first, at most `limit`.
    async fn stale_uploads(
        &self,
        before: SystemTime,
        limit: u32,
    ) -> Result<Vec<(RepoName, Upload)>, MetadataError>;
}

/// What a tag points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// The manifest.
    pub digest: Digest,
    /// Grows by at least one whenever the tag moves, also across deletion.
    pub version: u64,
}

/// A manifest in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRecord {
    /// Its name.
    pub digest: Digest,
    /// The `Content-Type` it was pushed with.
    pub media_type: String,
    /// The exact bytes that were pushed.
    pub body: Bytes,
}

/// A blob in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A manifest that names another as its subject, as the referrers API lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// Its name.
    pub digest: Digest,
    /// Its `Content-Type`.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its artifact type (or the config's media type, where it says none).
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest to be published.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where.
    pub repository: RepoName,
    /// What, with type and bytes.
    pub manifest: ManifestRecord,
    /// The manifest it refers to, which need not exist.
    pub subject: Option<Digest>,
    /// What the referrers API says its type is.
    pub artifact_type: Option<String>,
    /// What the referrers API says its annotations are.
    pub annotations: BTreeMap<String, String>,
    /// Blobs it needs: each must be linked by the repository.
    pub blobs: Vec<Digest>,
    /// Manifests it lists, which may come later.
    pub children: Vec<Digest>,
    /// Tags to point at it, in the same transaction.
    pub tags: Vec<Tag>,
}

/// A manifest was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The feed position that contains it.
    pub sequence: Sequence,
}

/// A blob to be linked.
#[derive(Clone, Debug)]
pub struct Link {
    /// By which repository.
    pub repository: RepoName,
    /// Which blob, and its size.
    pub blob: BlobRecord,
    /// Where its bytes are durable.
    pub location: String,
    /// The session that brought it, which ends.
    pub upload: Option<Uuid>,
}

/// An upload session.
#[derive(Clone, Debug)]
pub struct Upload {
    /// What the store needs to go on.
    pub staged: Staged,
    /// Grows with every advance: what [`Metadata::advance_upload`] compares.
    pub revision: u64,
}

/// A part of a sorted list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Only what sorts behind this, which need not be in the list.
    pub after: Option<T>,
    /// At most so many; may be zero.
    pub limit: u32,
}

/// What a [`Page`] holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// In order.
    pub items: Vec<T>,
    /// Whether there is more behind the last one.
    pub more: bool,
}

/// A change that edges must hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the feed.
    pub sequence: Sequence,
    /// The repository it happened in.
    pub repository: RepoName,
    /// What happened.
    pub change: Change,
    /// When, by the clock of the origin that did it.
    pub at: SystemTime,
}

/// What happened to a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A manifest was published that the repository did not hold.
    ManifestPublished(Digest),
    /// A manifest was deleted.
    ManifestDeleted(Digest),
    /// A tag was set to another manifest than before.
    TagMoved(Tag, TagRecord),
    /// A tag was deleted; the version is the one that the deletion got.
    TagDeleted(Tag, u64),
    /// A blob was unlinked.
    BlobUnlinked(Digest),
}

/// The database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// It is away or overloaded: worth trying again.
    #[error("database unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answered with an error that trying again does not mend.
    #[error("database failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row holds what was never written there.
    #[error("the database holds a bad {0}")]
    Corrupt(&'static str),
}

/// A manifest was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The repository does not link these blobs.
    #[error("{} referenced blobs are missing", .0.len())]
    MissingBlobs(Vec<Digest>),
    /// The database failed.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

// === impl MetadataError ===

impl MetadataError {
    /// Whether trying again may help.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
