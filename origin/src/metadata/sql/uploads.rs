//! Upload sessions, as the store's JSON record.

use std::time::SystemTime;

use outport_core::oci::reference::RepoName;
use outport_core::store::{Staged, StagedRecord};
use sqlx::Row as _;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::column;
use super::session::{Failure, Session};
use crate::metadata::Upload;

pub(super) async fn create(
    session: &mut Session<'_>,
    repository: &RepoName,
    staged: &Staged,
    now: SystemTime,
) -> Result<(), Failure> {
    let query = sqlx::query(
        "INSERT INTO uploads (id, repository, revision, staged, created_at, touched_at) \
         VALUES ($1, $2, 0, $3, $4, $4)",
    )
    .bind(staged.id().to_string())
    .bind(repository.as_str())
    .bind(record(staged)?)
    .bind(column::micros(now));
    query.execute(session.connection()).await?;
    Ok(())
}

pub(super) async fn get(
    session: &mut Session<'_>,
    repository: &RepoName,
    id: Uuid,
) -> Result<Option<Upload>, Failure> {
    let query =
        sqlx::query("SELECT staged, revision FROM uploads WHERE id = $1 AND repository = $2")
            .bind(id.to_string())
            .bind(repository.as_str());
    let row = query.fetch_optional(session.connection()).await?;
    row.as_ref().map(upload).transpose()
}

pub(super) async fn advance(
    session: &mut Session<'_>,
    id: Uuid,
    revision: u64,
    staged: &Staged,
    now: SystemTime,
) -> Result<bool, Failure> {
    let query = sqlx::query(
        "UPDATE uploads SET staged = $3, revision = revision + 1, touched_at = $4 \
         WHERE id = $1 AND revision = $2",
    )
    .bind(id.to_string())
    .bind(column::number(revision))
    .bind(record(staged)?)
    .bind(column::micros(now));
    Ok(query.execute(session.connection()).await?.rows_affected() > 0)
}

pub(super) async fn touch(
    session: &mut Session<'_>,
    id: Uuid,
    now: SystemTime,
) -> Result<(), Failure> {
    let query = sqlx::query("UPDATE uploads SET touched_at = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(column::micros(now));
    query.execute(session.connection()).await?;
    Ok(())
}

pub(super) async fn delete(
    session: &mut Session<'_>,
    repository: &RepoName,
    id: Uuid,
) -> Result<bool, Failure> {
    let query = sqlx::query("DELETE FROM uploads WHERE id = $1 AND repository = $2")
        .bind(id.to_string())
        .bind(repository.as_str());
    Ok(query.execute(session.connection()).await?.rows_affected() > 0)
}

pub(super) async fn stale(
    session: &mut Session<'_>,
    before: SystemTime,
    limit: u32,
) -> Result<Vec<(RepoName, Upload)>, Failure> {
    let query = sqlx::query(
        "SELECT repository, staged, revision FROM uploads WHERE touched_at < $1 \
         ORDER BY touched_at, id LIMIT $2",
    )
    .bind(column::micros(before))
    .bind(i64::from(limit));
    let rows = query.fetch_all(session.connection()).await?;
    rows.iter()
        .map(|row| Ok((column::parsed(row, "repository")?, upload(row)?)))
        .collect()
}

fn record(staged: &Staged) -> Result<String, Failure> {
    serde_json::to_string(&staged.to_record()).or(Err(Failure::Corrupt("staged")))
}

fn upload(row: &AnyRow) -> Result<Upload, Failure> {
    let record: &str = row.try_get("staged")?;
    let record: StagedRecord = serde_json::from_str(record).or(Err(Failure::Corrupt("staged")))?;
    Ok(Upload {
        staged: record.try_into().or(Err(Failure::Corrupt("staged")))?,
        revision: column::unsigned(row, "revision")?,
    })
}
