//! Blobs: their sizes, where they are durable, and which repositories link them.

use std::time::SystemTime;

use outport_core::cluster::Sequence;
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::RepoName;

use super::session::{Failure, Session};
use super::{column, feed, repositories, uploads};
use crate::metadata::{BlobRecord, Change, Link};

pub(super) async fn get(
    session: &mut Session<'_>,
    repository: &RepoName,
    digest: &Digest,
) -> Result<Option<BlobRecord>, Failure> {
    let query = sqlx::query(
        "SELECT blobs.size FROM repositories \
         JOIN links ON links.repository = repositories.id \
         JOIN blobs ON blobs.digest = links.digest \
         WHERE repositories.name = $1 AND links.digest = $2",
    )
    .bind(repository.as_str())
    .bind(digest.to_string());
    let row = query.fetch_optional(session.connection()).await?;
    row.map(|row| {
        Ok(BlobRecord {
            digest: *digest,
            size: column::unsigned(&row, "size")?,
        })
    })
    .transpose()
}

pub(super) async fn link(
    session: &mut Session<'_>,
    link: &Link,
    now: SystemTime,
) -> Result<(), Failure> {
    repositories::create(session, &link.repository, now).await?;
    let digest = link.blob.digest.to_string();
    let query = sqlx::query(
        "INSERT INTO blobs (digest, size, created_at) VALUES ($1, $2, $3) ON CONFLICT (digest) DO NOTHING",
    )
    .bind(digest.as_str())
    .bind(column::number(link.blob.size))
    .bind(column::micros(now));
    query.execute(session.connection()).await?;
    let query = sqlx::query(
        "INSERT INTO placements (digest, location, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (digest, location) DO NOTHING",
    )
    .bind(digest.as_str())
    .bind(link.location.as_str())
    .bind(column::micros(now));
    query.execute(session.connection()).await?;
    insert_link(session, &link.repository, &link.blob.digest, now).await?;
    if let Some(upload) = link.upload {
        uploads::delete(session, &link.repository, upload).await?;
    }
    Ok(())
}

pub(super) async fn mount(
    session: &mut Session<'_>,
    repository: &RepoName,
    digest: &Digest,
    from: Option<&RepoName>,
    now: SystemTime,
) -> Result<Option<BlobRecord>, Failure> {
    let found = match from {
        Some(from) => get(session, from, digest).await?,
        None => linked_anywhere(session, digest).await?,
    };
    if found.is_some() {
        repositories::create(session, repository, now).await?;
        insert_link(session, repository, digest, now).await?;
    }
    Ok(found)
}

pub(super) async fn unlink(
    session: &mut Session<'_>,
    repository: &RepoName,
    digest: &Digest,
    now: SystemTime,
) -> Result<Option<Sequence>, Failure> {
    let Some(id) = repositories::lock(session, repository).await? else {
        return Ok(None);
    };
    let query = sqlx::query("DELETE FROM links WHERE repository = $1 AND digest = $2")
        .bind(id)
        .bind(digest.to_string());
    if query.execute(session.connection()).await?.rows_affected() == 0 {
        return Ok(None);
    }
    let changes = [Change::BlobUnlinked(*digest)];
    feed::record(session, repository, &changes, now)
        .await
        .map(Some)
}

async fn linked_anywhere(
    session: &mut Session<'_>,
    digest: &Digest,
) -> Result<Option<BlobRecord>, Failure> {
    let query = sqlx::query(
        "SELECT size FROM blobs WHERE digest = $1 \
         AND EXISTS (SELECT 1 FROM links WHERE links.digest = blobs.digest)",
    )
    .bind(digest.to_string());
    let row = query.fetch_optional(session.connection()).await?;
    row.map(|row| {
        Ok(BlobRecord {
            digest: *digest,
            size: column::unsigned(&row, "size")?,
        })
    })
    .transpose()
}

async fn insert_link(
    session: &mut Session<'_>,
    repository: &RepoName,
    digest: &Digest,
    now: SystemTime,
) -> Result<(), Failure> {
    let query = sqlx::query(
        "INSERT INTO links (repository, digest, created_at) \
         SELECT id, $2, $3 FROM repositories WHERE name = $1 \
         ON CONFLICT (repository, digest) DO NOTHING",
    )
    .bind(repository.as_str())
    .bind(digest.to_string())
    .bind(column::micros(now));
    query.execute(session.connection()).await?;
    Ok(())
}
