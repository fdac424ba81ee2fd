//! Manifests: exact bytes, what they refer to, and who refers to them.

use std::collections::BTreeSet;
use std::time::SystemTime;

use outport_core::cluster::Sequence;
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::{RepoName, Tag};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::repositories::RepositoryId;
use super::session::{Failure, Session};
use super::{column, feed, repositories, tags};
use crate::metadata::{Change, Listing, ManifestRecord, Page, Publish, Referrer};

/// Blobs that a manifest needs and its repository does not link, in order.
pub(super) type MissingBlobs = Vec<Digest>;

/// Selects a page of what refers to a subject: each half reads no more than a page in the order of an index, whatever the
/// number of referrers, as long as no artifact type is asked for.
const REFERRERS: &str = "\
    SELECT * FROM ( \
        SELECT manifests.digest, manifests.media_type, manifests.size, manifests.artifact_type, \
               manifests.annotations \
        FROM repositories JOIN manifests ON manifests.repository = repositories.id \
        WHERE repositories.name = $1 AND manifests.subject = $2 AND manifests.digest > $4 \
          AND ($5 IS NULL OR manifests.artifact_type = $5) \
        ORDER BY manifests.digest LIMIT $6 \
    ) AS pushed \
    UNION \
    SELECT * FROM ( \
        SELECT manifests.digest, manifests.media_type, manifests.size, manifests.artifact_type, \
               manifests.annotations \
        FROM repositories \
        JOIN tags ON tags.repository = repositories.id \
        JOIN manifest_references AS listed \
          ON listed.repository = tags.repository AND listed.manifest = tags.digest \
        JOIN manifests \
          ON manifests.repository = listed.repository AND manifests.digest = listed.target \
        WHERE repositories.name = $1 AND tags.name = $3 \
          AND listed.kind = 'manifest' AND listed.target > $4 \
          AND ($5 IS NULL OR manifests.artifact_type = $5) \
        ORDER BY listed.target LIMIT $6 \
    ) AS imported \
    ORDER BY digest LIMIT $6";

pub(super) async fn get(
    session: &mut Session<'_>,
    repository: &RepoName,
    digest: &Digest,
) -> Result<Option<ManifestRecord>, Failure> {
    let query = sqlx::query(
        "SELECT manifests.media_type, manifests.body FROM repositories \
         JOIN manifests ON manifests.repository = repositories.id \
         WHERE repositories.name = $1 AND manifests.digest = $2",
    )
    .bind(repository.as_str())
    .bind(digest.to_string());
    let row = query.fetch_optional(session.connection()).await?;
    row.map(|row| {
        Ok(ManifestRecord {
            digest: *digest,
            media_type: row.try_get("media_type")?,
            body: row.try_get::<Vec<u8>, _>("body")?.into(),
        })
    })
    .transpose()
}

pub(super) async fn referrers(
    session: &mut Session<'_>,
    repository: &RepoName,
    subject: &Digest,
    artifact_type: Option<&str>,
    page: &Page<Digest>,
) -> Result<Listing<Referrer>, Failure> {
    let query = sqlx::query(REFERRERS)
        .bind(repository.as_str())
        .bind(subject.to_string())
        .bind(Tag::of_referrers(subject).as_str().to_owned())
        .bind(
            page.after
                .map_or_else(String::new, |after| after.to_string()),
        )
        .bind(artifact_type)
        .bind(column::one_more_than(page));
    let rows = query.fetch_all(session.connection()).await?;
    column::listing(&rows, page, referrer)
}

fn referrer(row: &AnyRow) -> Result<Referrer, Failure> {
    let annotations: &str = row.try_get("annotations")?;
    Ok(Referrer {
        digest: column::parsed(row, "digest")?,
        media_type: row.try_get("media_type")?,
        size: column::unsigned(row, "size")?,
        artifact_type: row.try_get("artifact_type")?,
        annotations: serde_json::from_str(annotations).or(Err(Failure::Corrupt("annotations")))?,
    })
}

pub(super) async fn publish(
    session: &mut Session<'_>,
    publish: &Publish,
    now: SystemTime,
) -> Result<Result<Sequence, MissingBlobs>, Failure> {
    let found = repositories::lock(session, &publish.repository).await?;
    let missing = missing_blobs(session, found, &publish.blobs).await?;
    if !missing.is_empty() {
        return Ok(Err(missing));
    }
    let repository = match found {
        Some(repository) => repository,
        None => create_locked(session, &publish.repository, now).await?,
    };
    let digest = &publish.manifest.digest;
    let mut changes = Vec::new();
    if put(session, repository, publish, now).await? {
        changes.push(Change::ManifestPublished(*digest));
    }
    // In order, and each once: a tag may be named twice in one request.
    let tags: BTreeSet<&Tag> = publish.tags.iter().collect();
    for tag in tags {
        changes.extend(tags::set(session, repository, tag, digest, now).await?);
    }
    let sequence = feed::record(session, &publish.repository, &changes, now).await?;
    Ok(Ok(sequence))
}

pub(super) async fn delete(
    session: &mut Session<'_>,
    repository: &RepoName,
    digest: &Digest,
    now: SystemTime,
) -> Result<Option<Sequence>, Failure> {
    let Some(id) = repositories::lock(session, repository).await? else {
        return Ok(None);
    };
    // Tags first: they refer to the manifest.
    let mut changes = tags::delete_all(session, id, digest, now).await?;
    let query = sqlx::query("DELETE FROM manifests WHERE repository = $1 AND digest = $2")
        .bind(id)
        .bind(digest.to_string());
    if query.execute(session.connection()).await?.rows_affected() == 0 {
        return Ok(None);
    }
    changes.push(Change::ManifestDeleted(*digest));
    feed::record(session, repository, &changes, now)
        .await
        .map(Some)
}

async fn create_locked(
    session: &mut Session<'_>,
    name: &RepoName,
    now: SystemTime,
) -> Result<RepositoryId, Failure> {
    repositories::create(session, name, now).await?;
    let id = repositories::lock(session, name).await?;
    id.ok_or(Failure::Corrupt("repository"))
}

async fn missing_blobs(
    session: &mut Session<'_>,
    repository: Option<RepositoryId>,
    blobs: &[Digest],
) -> Result<MissingBlobs, Failure> {
    let blobs: BTreeSet<String> = blobs.iter().map(ToString::to_string).collect();
    if blobs.is_empty() {
        return Ok(MissingBlobs::new());
    }
    let query = format!(
        "SELECT value AS digest FROM {} WHERE NOT EXISTS \
         (SELECT 1 FROM links WHERE links.repository = $1 AND links.digest = value) ORDER BY value",
        session.engine().json_strings("$2")
    );
    let query = sqlx::query(AssertSqlSafe(query))
        .bind(repository)
        .bind(json(&blobs)?);
    let rows = query.fetch_all(session.connection()).await?;
    rows.iter()
        .map(|row| column::parsed(row, "digest"))
        .collect()
}

/// Writes a manifest with its references; returns whether the repository did not hold it under that media type.
///
/// The media type is the one pushed last: bytes that do not say it themselves may be pushed again to correct it.
async fn put(
    session: &mut Session<'_>,
    repository: RepositoryId,
    publish: &Publish,
    now: SystemTime,
) -> Result<bool, Failure> {
    let ManifestRecord {
        digest,
        media_type,
        body,
    } = &publish.manifest;
    let query = sqlx::query(
        "INSERT INTO manifests (repository, digest, media_type, size, subject, artifact_type, \
                                annotations, created_at, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (repository, digest) DO UPDATE SET \
             media_type = excluded.media_type, subject = excluded.subject, \
             artifact_type = excluded.artifact_type, annotations = excluded.annotations \
         WHERE manifests.media_type <> excluded.media_type",
    )
    .bind(repository)
    .bind(digest.to_string())
    .bind(media_type.as_str())
    .bind(column::number(body.len() as u64))
    .bind(publish.subject.map(|subject| subject.to_string()))
    .bind(publish.artifact_type.as_deref())
    .bind(json(&publish.annotations)?)
    .bind(column::micros(now))
    .bind(body.as_ref());
    if query.execute(session.connection()).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let query =
        sqlx::query("DELETE FROM manifest_references WHERE repository = $1 AND manifest = $2")
            .bind(repository)
            .bind(digest.to_string());
    query.execute(session.connection()).await?;
    refer(session, (repository, digest), "blob", &publish.blobs).await?;
    refer(session, (repository, digest), "manifest", &publish.children).await?;
    Ok(true)
}

async fn refer(
    session: &mut Session<'_>,
    (repository, manifest): (RepositoryId, &Digest),
    kind: &str,
    targets: &[Digest],
) -> Result<(), Failure> {
    let targets: BTreeSet<String> = targets.iter().map(ToString::to_string).collect();
    if targets.is_empty() {
        return Ok(());
    }
    let query = format!(
        "INSERT INTO manifest_references (repository, manifest, kind, target) \
         SELECT $1, $2, $3, value FROM {}",
        session.engine().json_strings("$4")
    );
    let query = sqlx::query(AssertSqlSafe(query))
        .bind(repository)
        .bind(manifest.to_string())
        .bind(kind)
        .bind(json(&targets)?);
    query.execute(session.connection()).await?;
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).or(Err(Failure::Corrupt("manifest")))
}
