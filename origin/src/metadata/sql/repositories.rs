//! Repositories: rows that come with the first push and whose lock orders everything that happens in one.

use std::time::SystemTime;

use outport_core::oci::reference::RepoName;
use sqlx::{AssertSqlSafe, Row as _};

use super::column;
use super::session::{Failure, Session};
use crate::metadata::{Listing, Page};

/// The key of a repository's row.
pub(super) type RepositoryId = i64;

pub(super) async fn find(
    session: &mut Session<'_>,
    name: &RepoName,
) -> Result<Option<RepositoryId>, Failure> {
    let query = sqlx::query("SELECT id FROM repositories WHERE name = $1").bind(name.as_str());
    let row = query.fetch_optional(session.connection()).await?;
    Ok(row.map(|row| row.try_get("id")).transpose()?)
}

pub(super) async fn exists(session: &mut Session<'_>, name: &RepoName) -> Result<bool, Failure> {
    Ok(find(session, name).await?.is_some())
}

/// As [`find`], and keeps others who lock the repository waiting until the transaction ends.
///
/// Everything that removes links or manifests, or that relies on their being there, does this first.
pub(super) async fn lock(
    session: &mut Session<'_>,
    name: &RepoName,
) -> Result<Option<RepositoryId>, Failure> {
    let query = format!(
        "SELECT id FROM repositories WHERE name = $1 {}",
        session.engine().lock_rows()
    );
    let query = sqlx::query(AssertSqlSafe(query)).bind(name.as_str());
    let row = query.fetch_optional(session.connection()).await?;
    Ok(row.map(|row| row.try_get("id")).transpose()?)
}

/// Makes sure that there is such a repository.
pub(super) async fn create(
    session: &mut Session<'_>,
    name: &RepoName,
    now: SystemTime,
) -> Result<(), Failure> {
    let query = sqlx::query(
        "INSERT INTO repositories (name, created_at) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
    )
    .bind(name.as_str())
    .bind(column::micros(now));
    query.execute(session.connection()).await?;
    Ok(())
}

pub(super) async fn list(
    session: &mut Session<'_>,
    page: &Page<RepoName>,
) -> Result<Listing<RepoName>, Failure> {
    let query = sqlx::query("SELECT name FROM repositories WHERE name > $1 ORDER BY name LIMIT $2")
        .bind(page.after.as_ref().map_or("", RepoName::as_str))
        .bind(column::one_more_than(page));
    let rows = query.fetch_all(session.connection()).await?;
    column::listing(&rows, page, |row| column::parsed(row, "name"))
}
