//! [`Metadata`] in a SQL database: SQLite (a file, the default) or PostgreSQL.
//!
//! What: one copy of each query for all engines; what must differ is in `engine`, and the migrations of each engine in
//! `origin/migrations/`. A method of the trait is one function of a session, run by `session` in one transaction.
//!
//! ```text
//! repositories  id, name                                       comes with the first push, is never deleted
//!   |-- links       (repository, digest) -> blobs              "this repository may serve this blob"
//!   |-- manifests   (repository, digest), media type, body, subject, artifact type, annotations
//!   |     `-- manifest_references  (repository, manifest, kind, target)     goes with its manifest
//!   `-- tags        (repository, name) -> manifests, version   without a digest: deleted, and remembers its version
//! blobs         digest, size
//!   `-- placements  (digest, location)                         "durably there"
//! uploads       id, repository's name, revision, staged (JSON)
//! events        sequence, repository's name, kind, digest, tag, version, at
//! feed          the one row with the position of the newest event
//! ```
//!
//! **Why the feed has no gaps and nothing comes late.** A sequence of the database's own is handed out before commit and
//! kept by transactions that roll back: a follower that has seen 7 may have missed a 6 that commits later, or never. Here
//! the last thing a transaction does is to add to the one row of `feed`, whose lock it keeps until its commit is visible.
//! The next transaction adds to what was committed, so numbers are given in commit order, and a rollback gives its number
//! back. Nothing is locked after that row, so waiting for it cannot become a deadlock. The price is that transactions with
//! events commit one after the other, a sync each; those without (links, uploads) do not take part.
//!
//! **Why a manifest always has its blobs.** What removes links or manifests, and what relies on them, locks the row of the
//! repository first (SQLite: the database). Foreign keys hold the rest: a tag points at a manifest that is there, a link
//! at a blob that is known. Locks are taken in the order repository, blob, placement, link, manifest, tag, feed.
//!
//! Failure, cancellation and crash: see `session`. SQLite runs with a write-ahead log that is synced at each commit, so
//! what was acknowledged survives a power cut; PostgreSQL does so unless told otherwise.

mod blobs;
mod column;
mod engine;
mod feed;
mod health;
mod manifests;
mod repositories;
mod session;
mod tags;
mod uploads;

use std::path::Path;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use outport_core::cluster::Sequence;
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::{RepoName, Tag};
use outport_core::store::Staged;
use outport_core::tasks::Tasks;
use uuid::Uuid;

pub use self::engine::{DatabaseUrl, DatabaseUrlError};
pub use self::health::ProbeConfig;
use self::session::Database;
use super::{
    BlobRecord, Event, Link, Listing, ManifestRecord, Metadata, MetadataError, Page, Publish,
    PublishError, Published, Referrer, TagRecord, Upload,
};

/// The origin's names in a SQL database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sql {
    database: Database,
}

/// Which database, and how much of it to use.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Where it is.
    pub url: DatabaseUrl,
    /// How many connections to keep at most (SQLite: for reading; there is one more for writing).
    pub max_connections: u32,
    /// How long to wait for a connection, a new one included.
    pub acquire_timeout: Duration,
    /// How long an operation may take in all, attempts included.
    pub operation_timeout: Duration,
    /// How a database that is away is found out.
    pub probe: ProbeConfig,
}

// === impl DatabaseConfig ===

impl DatabaseConfig {
    /// Returns the defaults for a database.
    pub const fn new(url: DatabaseUrl) -> Self {
        Self {
            url,
            max_connections: 8,
            acquire_timeout: Duration::from_secs(3),
            operation_timeout: Duration::from_secs(10),
            probe: ProbeConfig {
                interval: Duration::from_secs(1),
                timeout: Duration::from_millis(800),
            },
        }
    }
}

// === impl Sql ===

impl Sql {
    /// Connects, and brings the schema up to date; a SQLite file and its directory are created.
    pub async fn open(config: &DatabaseConfig) -> Result<Self, MetadataError> {
        if let Some(file) = config.url.file() {
            create_directory_of(file).await?;
        }
        let database = Database::open(config).await?;
        Ok(Self { database })
    }

    /// Finds out by itself, from now on, when the database is away: what waits for it then is given up, and what comes
    /// later does not wait. `report` is told whether it can be read, whenever that changes.
    pub fn watch(&self, tasks: &Tasks, report: impl Fn(bool) + Send + 'static) {
        let (reading, writing) = self.database.monitors();
        drop(tasks.spawn("database", reading.run(tasks.token(), report)));
        if let Some(writing) = writing {
            drop(tasks.spawn("database", writing.run(tasks.token(), |_| {})));
        }
    }

    /// Closes all connections, after what is under way.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

async fn create_directory_of(file: &Path) -> Result<(), MetadataError> {
    let Some(directory) = file.parent() else {
        return Ok(());
    };
    let created = tokio::fs::create_dir_all(directory).await;
    created.map_err(|error| MetadataError::Failed(Box::new(error)))
}

#[async_trait]
impl Metadata for Sql {
    async fn position(&self) -> Result<Sequence, MetadataError> {
        let database = &self.database;
        database
            .read(|session| Box::pin(feed::position(session)))
            .await
    }

    async fn events(&self, after: Sequence, limit: u32) -> Result<Vec<Event>, MetadataError> {
        let database = &self.database;
        database
            .read(move |session| Box::pin(feed::events(session, after, limit)))
            .await
    }

    async fn repository_exists(&self, repository: &RepoName) -> Result<bool, MetadataError> {
        let database = &self.database;
        database
            .read(move |session| Box::pin(repositories::exists(session, repository)))
            .await
    }

    async fn tag(
        &self,
        repository: &RepoName,
        tag: &Tag,
    ) -> Result<Option<TagRecord>, MetadataError> {
        let database = &self.database;
        database
            .read(move |session| Box::pin(tags::get(session, repository, tag)))
            .await
    }

    async fn manifest(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, MetadataError> {
        let database = &self.database;
        database
            .read(move |session| Box::pin(manifests::get(session, repository, digest)))
            .await
    }

    async fn blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Option<BlobRecord>, MetadataError> {
        let database = &self.database;
        database
            .read(move |session| Box::pin(blobs::get(session, repository, digest)))
            .await
    }

    async fn tags(
        &self,
        repository: &RepoName,
        page: &Page<Tag>,
    ) -> Result<Option<Listing<Tag>>, MetadataError> {
        let database = &self.database;
        database
            .read(move |session| Box::pin(tags::list(session, repository, page)))
            .await
    }

    async fn repositories(
        &self,
        page: &Page<RepoName>,
    ) -> Result<Listing<RepoName>, MetadataError> {
        let database = &self.database;
        database
            .read(move |session| Box::pin(repositories::list(session, page)))
            .await
    }

    async fn referrers(
        &self,
        repository: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &Page<Digest>,
    ) -> Result<Listing<Referrer>, MetadataError> {
        let database = &self.database;
        database
            .read(move |session| {
                Box::pin(manifests::referrers(
                    session,
                    repository,
                    subject,
                    artifact_type,
                    page,
                ))
            })
            .await
    }

    async fn publish(&self, publish: Publish, now: SystemTime) -> Result<Published, PublishError> {
        let (database, publish) = (&self.database, &publish);
        let outcome = database
            .write(move |session| Box::pin(manifests::publish(session, publish, now)))
            .await?;
        match outcome {
            Ok(sequence) => Ok(Published { sequence }),
            Err(missing) => Err(PublishError::MissingBlobs(missing)),
        }
    }

    async fn delete_tag(
        &self,
        repository: &RepoName,
        tag: &Tag,
        now: SystemTime,
    ) -> Result<Option<Sequence>, MetadataError> {
        let database = &self.database;
        database
            .write(move |session| Box::pin(tags::delete(session, repository, tag, now)))
            .await
    }

    async fn delete_manifest(
        &self,
        repository: &RepoName,
        digest: &Digest,
        now: SystemTime,
    ) -> Result<Option<Sequence>, MetadataError> {
        let database = &self.database;
        database
            .write(move |session| Box::pin(manifests::delete(session, repository, digest, now)))
            .await
    }

    async fn link_blob(&self, link: Link, now: SystemTime) -> Result<(), MetadataError> {
        let (database, link) = (&self.database, &link);
        database
            .write(move |session| Box::pin(blobs::link(session, link, now)))
            .await
    }

    async fn mount_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
        from: Option<&RepoName>,
        now: SystemTime,
    ) -> Result<Option<BlobRecord>, MetadataError> {
        let database = &self.database;
        database
            .write(move |session| Box::pin(blobs::mount(session, repository, digest, from, now)))
            .await
    }

    async fn unlink_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
        now: SystemTime,
    ) -> Result<Option<Sequence>, MetadataError> {
        let database = &self.database;
        database
            .write(move |session| Box::pin(blobs::unlink(session, repository, digest, now)))
            .await
    }

    async fn create_upload(
        &self,
        repository: &RepoName,
        staged: &Staged,
        now: SystemTime,
    ) -> Result<(), MetadataError> {
        let database = &self.database;
        database
            .write(move |session| Box::pin(uploads::create(session, repository, staged, now)))
            .await
    }

    async fn upload(
        &self,
        repository: &RepoName,
        id: Uuid,
    ) -> Result<Option<Upload>, MetadataError> {
        let database = &self.database;
        database
            .read(move |session| Box::pin(uploads::get(session, repository, id)))
            .await
    }

    async fn advance_upload(
        &self,
        id: Uuid,
        revision: u64,
        staged: &Staged,
        now: SystemTime,
    ) -> Result<bool, MetadataError> {
        let database = &self.database;
        database
            .write(move |session| Box::pin(uploads::advance(session, id, revision, staged, now)))
            .await
    }

    async fn touch_upload(&self, id: Uuid, now: SystemTime) -> Result<(), MetadataError> {
        let database = &self.database;
        database
            .write(move |session| Box::pin(uploads::touch(session, id, now)))
            .await
    }

    async fn delete_upload(&self, repository: &RepoName, id: Uuid) -> Result<bool, MetadataError> {
        let database = &self.database;
        database
            .write(move |session| Box::pin(uploads::delete(session, repository, id)))
            .await
    }

    async fn stale_uploads(
        &self,
        before: SystemTime,
        limit: u32,
    ) -> Result<Vec<(RepoName, Upload)>, MetadataError> {
        let database = &self.database;
        database
            .read(move |session| Box::pin(uploads::stale(session, before, limit)))
            .await
    }
}

#[cfg(test)]
mod tests;
