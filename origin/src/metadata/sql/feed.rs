//! The feed: a counter in one row, and a row for each event.

use std::time::SystemTime;

use outport_core::cluster::Sequence;
use outport_core::oci::reference::RepoName;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::column;
use super::session::{Failure, Session};
use crate::metadata::{Change, Event, TagRecord};

/// An event as it is handed to the database, many in one statement.
#[derive(Serialize)]
struct NewEvent {
    sequence: u64,
    kind: &'static str,
    digest: Option<String>,
    tag: Option<String>,
    version: Option<u64>,
}

pub(super) async fn position(session: &mut Session<'_>) -> Result<Sequence, Failure> {
    let query = sqlx::query("SELECT position FROM feed WHERE id = 1");
    let row = query.fetch_one(session.connection()).await?;
    Ok(Sequence::new(column::unsigned(&row, "position")?))
}

pub(super) async fn events(
    session: &mut Session<'_>,
    after: Sequence,
    limit: u32,
) -> Result<Vec<Event>, Failure> {
    let query = sqlx::query(
        "SELECT sequence, repository, kind, digest, tag, version, at FROM events \
         WHERE sequence > $1 ORDER BY sequence LIMIT $2",
    )
    .bind(column::number(after.get()))
    .bind(i64::from(limit));
    let rows = query.fetch_all(session.connection()).await?;
    rows.iter().map(event).collect()
}

/// Writes events behind those that are there, and returns the position of the last (or the present one, if there are none).
///
/// To be called last in a transaction: from here on, every other that writes events waits for its end.
pub(super) async fn record(
    session: &mut Session<'_>,
    repository: &RepoName,
    changes: &[Change],
    now: SystemTime,
) -> Result<Sequence, Failure> {
    if changes.is_empty() {
        return position(session).await;
    }
    let count = changes.len() as u64;
    let query =
        sqlx::query("UPDATE feed SET position = position + $1 WHERE id = 1 RETURNING position")
            .bind(column::number(count));
    let row = query.fetch_one(session.connection()).await?;
    let last = column::unsigned(&row, "position")?;

    let events: Vec<_> = (last + 1 - count..)
        .zip(changes)
        .map(|(sequence, change)| new_event(sequence, change))
        .collect();
    let events = serde_json::to_string(&events).or(Err(Failure::Corrupt("event")))?;
    let query = format!(
        "INSERT INTO events (sequence, repository, kind, digest, tag, version, at) \
         SELECT CAST(value ->> 'sequence' AS BIGINT), $1, value ->> 'kind', value ->> 'digest', \
                value ->> 'tag', CAST(value ->> 'version' AS BIGINT), $2 FROM {}",
        session.engine().json_objects("$3")
    );
    let query = sqlx::query(AssertSqlSafe(query))
        .bind(repository.as_str())
        .bind(column::micros(now))
        .bind(events);
    query.execute(session.connection()).await?;
    Ok(Sequence::new(last))
}

fn new_event(sequence: u64, change: &Change) -> NewEvent {
    let (kind, digest, tag, version) = match change {
        Change::ManifestPublished(digest) => ("manifest_published", Some(digest), None, None),
        Change::ManifestDeleted(digest) => ("manifest_deleted", Some(digest), None, None),
        Change::TagMoved(tag, to) => ("tag_moved", Some(&to.digest), Some(tag), Some(to.version)),
        Change::TagDeleted(tag, version) => ("tag_deleted", None, Some(tag), Some(*version)),
        Change::BlobUnlinked(digest) => ("blob_unlinked", Some(digest), None, None),
    };
    NewEvent {
        sequence,
        kind,
        digest: digest.map(ToString::to_string),
        tag: tag.map(ToString::to_string),
        version,
    }
}

fn event(row: &AnyRow) -> Result<Event, Failure> {
    Ok(Event {
        sequence: Sequence::new(column::unsigned(row, "sequence")?),
        repository: column::parsed(row, "repository")?,
        change: change(row)?,
        at: column::time(row, "at")?,
    })
}

fn change(row: &AnyRow) -> Result<Change, Failure> {
    let digest = || column::parsed(row, "digest");
    let tag = || column::parsed(row, "tag");
    let version = || column::unsigned(row, "version");
    Ok(match row.try_get("kind")? {
        "manifest_published" => Change::ManifestPublished(digest()?),
        "manifest_deleted" => Change::ManifestDeleted(digest()?),
        "tag_moved" => Change::TagMoved(
            tag()?,
            TagRecord {
                digest: digest()?,
                version: version()?,
            },
        ),
        "tag_deleted" => Change::TagDeleted(tag()?, version()?),
        "blob_unlinked" => Change::BlobUnlinked(digest()?),
        _ => return Err(Failure::Corrupt("kind")),
    })
}
