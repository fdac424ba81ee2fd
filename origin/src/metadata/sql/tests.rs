use std::sync::Arc;
use std::time::UNIX_EPOCH;

use outport_core::oci::digest::Algorithm;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::metadata::conformance::Instances;

fn config(directory: &TempDir) -> DatabaseConfig {
    DatabaseConfig::new(DatabaseUrl::sqlite(directory.path().join("new/a b?.db")))
}

async fn instances() -> (Instances, TempDir) {
    let directory = TempDir::new().unwrap();
    let config = config(&directory);
    let instances = Instances {
        one: Arc::new(Sql::open(&config).await.unwrap()),
        other: Arc::new(Sql::open(&config).await.unwrap()),
    };
    (instances, directory)
}

mod conformance {
    crate::metadata_tests!(super::instances);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_a_new_file_at_once() {
    let directory = TempDir::new().unwrap();
    let config = config(&directory);
    let opened = futures_util::future::join_all((0..8).map(|_| Sql::open(&config))).await;
    for sql in opened {
        assert_eq!(sql.unwrap().position().await.unwrap(), Sequence::START);
    }
}

async fn write(sql: &Sql) -> Result<(), MetadataError> {
    let staged = Staged::new(Uuid::now_v7(), Algorithm::Sha256);
    let repository = "a/b".parse().unwrap();
    sql.create_upload(&repository, &staged, UNIX_EPOCH).await
}

/// A file that another process keeps locked: the first write finds out soon, the others at once, and all goes on at once when
/// it is free again. Reading is not concerned.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_is_found_out_and_found_free() {
    let directory = TempDir::new().unwrap();
    let config = config(&directory);
    let sql = Sql::open(&config).await.unwrap();
    let tasks = Tasks::new();
    sql.watch(&tasks, |is_away| panic!("cannot be read: {is_away}"));
    write(&sql).await.unwrap();
    for _ in 0..2 {
        let file = directory.path().join("new/a b?.db");
        let other = SqliteConnectOptions::new().filename(file);
        let mut other = other.connect().await.unwrap();
        let begin = sqlx::query("BEGIN IMMEDIATE");
        begin.execute(&mut other).await.unwrap();
        for within_ms in [1_900, 700, 700, 700] {
            let begin = Instant::now();
            let outcomes = futures_util::future::join_all((0..20).map(|_| write(&sql))).await;
            let elapsed = begin.elapsed();
            assert!(elapsed < Duration::from_millis(within_ms), "{elapsed:?}");
            assert!(
                outcomes
                    .iter()
                    .all(|outcome| outcome.as_ref().is_err_and(MetadataError::is_transient)),
                "{outcomes:?}"
            );
            assert_eq!(sql.position().await.unwrap(), Sequence::START);
        }
        other.close().await.unwrap();
        write(&sql).await.unwrap();
    }
    tasks.cancel();
    tasks.drain(Duration::from_secs(9)).await.unwrap();
}

/// Two processes that write as fast as they can are not away to each other, whoever of them gets the lock more often.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_file_is_not_away() {
    const WRITERS: usize = 6;
    const WRITES: usize = 150;
    let directory = TempDir::new().unwrap();
    let config = config(&directory);
    let mut instances = Vec::new();
    for _ in 0..2 {
        instances.push(Sql::open(&config).await.unwrap());
    }
    let tasks = Tasks::new();
    for sql in &instances {
        sql.watch(&tasks, |is_away| panic!("cannot be read: {is_away}"));
    }
    let writers = instances.iter().cycle().take(2 * WRITERS).map(async |sql| {
        for _ in 0..WRITES {
            write(sql).await.unwrap();
        }
    });
    futures_util::future::join_all(writers).await;
    tasks.cancel();
    tasks.drain(Duration::from_secs(9)).await.unwrap();
}
