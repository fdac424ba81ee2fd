//! Tags: what they point at, and a version that only grows. A deleted tag keeps its row and its version.

use std::time::SystemTime;

use outport_core::cluster::Sequence;
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::{RepoName, Tag};
use sqlx::any::AnyRow;

use super::session::{Failure, Session};
use super::{column, feed, repositories};
use crate::metadata::{Change, Listing, Page, TagRecord};

pub(super) async fn get(
    session: &mut Session<'_>,
    repository: &RepoName,
    tag: &Tag,
) -> Result<Option<TagRecord>, Failure> {
    let query = sqlx::query(
        "SELECT tags.digest, tags.version FROM repositories \
         JOIN tags ON tags.repository = repositories.id \
         WHERE repositories.name = $1 AND tags.name = $2 AND tags.digest IS NOT NULL",
    )
    .bind(repository.as_str())
    .bind(tag.as_str());
    let row = query.fetch_optional(session.connection()).await?;
    row.map(|row| {
        Ok(TagRecord {
            digest: column::parsed(&row, "digest")?,
            version: column::unsigned(&row, "version")?,
        })
    })
    .transpose()
}

pub(super) async fn list(
    session: &mut Session<'_>,
    repository: &RepoName,
    page: &Page<Tag>,
) -> Result<Option<Listing<Tag>>, Failure> {
    let Some(repository) = repositories::find(session, repository).await? else {
        return Ok(None);
    };
    let query = sqlx::query(
        "SELECT name FROM tags WHERE repository = $1 AND name > $2 AND digest IS NOT NULL \
         ORDER BY name LIMIT $3",
    )
    .bind(repository)
    .bind(page.after.as_ref().map_or("", Tag::as_str))
    .bind(column::one_more_than(page));
    let rows = query.fetch_all(session.connection()).await?;
    column::listing(&rows, page, |row| column::parsed(row, "name")).map(Some)
}

/// Points a tag at a manifest; returns what changed, if anything did. The repository is locked.
pub(super) async fn set(
    session: &mut Session<'_>,
    repository: repositories::RepositoryId,
    tag: &Tag,
    digest: &Digest,
    now: SystemTime,
) -> Result<Option<Change>, Failure> {
    let query = sqlx::query(
        "INSERT INTO tags (repository, name, digest, version, updated_at) VALUES ($1, $2, $3, 1, $4) \
         ON CONFLICT (repository, name) DO UPDATE SET \
             digest = excluded.digest, version = tags.version + 1, updated_at = excluded.updated_at \
         WHERE tags.digest IS DISTINCT FROM excluded.digest \
         RETURNING version",
    )
    .bind(repository)
    .bind(tag.as_str())
    .bind(digest.to_string())
    .bind(column::micros(now));
    let Some(row) = query.fetch_optional(session.connection()).await? else {
        return Ok(None);
    };
    let record = TagRecord {
        digest: *digest,
        version: column::unsigned(&row, "version")?,
    };
    Ok(Some(Change::TagMoved(tag.clone(), record)))
}

pub(super) async fn delete(
    session: &mut Session<'_>,
    repository: &RepoName,
    tag: &Tag,
    now: SystemTime,
) -> Result<Option<Sequence>, Failure> {
    let Some(id) = repositories::lock(session, repository).await? else {
        return Ok(None);
    };
    let query = sqlx::query(
        "UPDATE tags SET digest = NULL, version = version + 1, updated_at = $3 \
         WHERE repository = $1 AND name = $2 AND digest IS NOT NULL RETURNING name, version",
    )
    .bind(id)
    .bind(tag.as_str())
    .bind(column::micros(now));
    let Some(row) = query.fetch_optional(session.connection()).await? else {
        return Ok(None);
    };
    let changes = [deleted(&row)?];
    feed::record(session, repository, &changes, now)
        .await
        .map(Some)
}

/// Deletes every tag that points at a manifest; returns what changed, in the order of their names. The repository is
/// locked.
pub(super) async fn delete_all(
    session: &mut Session<'_>,
    repository: repositories::RepositoryId,
    digest: &Digest,
    now: SystemTime,
) -> Result<Vec<Change>, Failure> {
    let query = sqlx::query(
        "UPDATE tags SET digest = NULL, version = version + 1, updated_at = $3 \
         WHERE repository = $1 AND digest = $2 RETURNING name, version",
    )
    .bind(repository)
    .bind(digest.to_string())
    .bind(column::micros(now));
    let mut rows = query.fetch_all(session.connection()).await?;
    rows.sort_by_cached_key(|row| column::parsed::<Tag>(row, "name").ok());
    rows.iter().map(deleted).collect()
}

fn deleted(row: &AnyRow) -> Result<Change, Failure> {
    let version = column::unsigned(row, "version")?;
    Ok(Change::TagDeleted(column::parsed(row, "name")?, version))
}
