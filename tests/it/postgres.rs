//! The origin's metadata in a real PostgreSQL: what the conformance suite asks, and what happens when the server does not
//! feel well.

use std::sync::{Arc, Weak};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::join_all;
use harness::postgres::Postgres;
use outport_core::cluster::Sequence;
use outport_core::oci::digest::{Algorithm, Digest};
use outport_core::tasks::Tasks;
use outport_origin::metadata::conformance::Instances;
use outport_origin::metadata::sql::{DatabaseConfig, Sql};
use outport_origin::metadata::{Change, ManifestRecord, Metadata, Publish, PublishError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// The server that tests share which do it no harm; stops with the last of those that run at the same time.
static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());

fn shared() -> Arc<Postgres> {
    let mut shared = SHARED.lock();
    if let Some(postgres) = shared.upgrade() {
        return postgres;
    }
    let postgres = Arc::new(Postgres::start());
    *shared = Arc::downgrade(&postgres);
    postgres
}

fn config(url: &str) -> DatabaseConfig {
    DatabaseConfig::new(url.parse().unwrap())
}

async fn open(url: &str) -> Sql {
    Sql::open(&config(url)).await.unwrap()
}

async fn instances() -> (Instances, Arc<Postgres>) {
    let postgres = shared();
    let url = postgres.database();
    let instances = Instances {
        one: Arc::new(open(&url).await),
        other: Arc::new(open(&url).await),
    };
    (instances, postgres)
}

mod conformance {
    outport_origin::metadata_tests!(super::instances);
}

fn publish_of(content: &str) -> Publish {
    Publish {
        repository: "team/app".parse().unwrap(),
        manifest: ManifestRecord {
            digest: digest_of(content),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            body: content.to_owned().into(),
        },
        subject: None,
        artifact_type: None,
        annotations: [].into(),
        blobs: Vec::new(),
        children: Vec::new(),
        tags: vec!["latest".parse().unwrap()],
    }
}

fn digest_of(content: &str) -> Digest {
    Algorithm::Sha256.digest(content.as_bytes())
}

async fn try_publish(sql: &Sql, content: &str) -> Result<Sequence, PublishError> {
    let published = sql.publish(publish_of(content), UNIX_EPOCH).await?;
    Ok(published.sequence)
}

#[track_caller]
fn assert_unavailable<T: std::fmt::Debug>(outcome: Result<T, PublishError>) {
    match outcome.unwrap_err() {
        PublishError::Metadata(error) => assert!(error.is_transient(), "{error:?}"),
        PublishError::MissingBlobs(missing) => panic!("{missing:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_a_new_database_at_once() {
    let postgres = shared();
    let config = config(&postgres.database());
    for sql in join_all((0..8).map(|_| Sql::open(&config))).await {
        assert_eq!(sql.unwrap().position().await.unwrap(), Sequence::START);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_unavailable() {
    let postgres = shared();
    let absent = format!("{}_absent", postgres.database());
    assert!(
        !Sql::open(&config(&absent))
            .await
            .unwrap_err()
            .is_transient()
    );
    let mut config = config("postgres://postgres@127.0.0.1:1/outport");
    config.acquire_timeout = Duration::from_millis(200);
    assert!(Sql::open(&config).await.unwrap_err().is_transient());
}

/// Writers push while the server is killed and started again: they go on by themselves, what was acknowledged is there,
/// and the feed has it all once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing_acknowledged() {
    const WRITERS: usize = 4;
    const PUSHES: usize = 60;
    let mut postgres = Postgres::start();
    let mut config = config(&postgres.database());
    config.acquire_timeout = Duration::from_millis(300);
    let sql = Sql::open(&config).await.unwrap();

    let (count, mut counted) = watch::channel(0);
    let writers = (0..WRITERS).map(|writer| {
        let (sql, count) = (&sql, count.clone());
        async move {
            for push in 0..PUSHES {
                let content = format!("manifest {writer} {push}");
                loop {
                    match try_publish(sql, &content).await {
                        Ok(_) => break,
                        Err(error) => assert_unavailable(Err::<(), _>(error)),
                    }
                }
                count.send_modify(|count| *count += 1);
            }
        }
    });
    let hardship = async {
        for enough in [WRITERS * PUSHES / 3, WRITERS * PUSHES / 3 * 2] {
            counted.wait_for(|count| *count >= enough).await.unwrap();
            postgres.kill();
            tokio::task::yield_now().await;
            postgres.start_again();
        }
    };
    tokio::join!(join_all(writers), hardship);

    let sql = Sql::open(&config).await.unwrap();
    let events = sql.events(Sequence::START, 10_000).await.unwrap();
    for (expected, event) in (1..).zip(&events) {
        assert_eq!(event.sequence, Sequence::new(expected));
    }
    for writer in 0..WRITERS {
        for push in 0..PUSHES {
            let digest = digest_of(&format!("manifest {writer} {push}"));
            let repository = "team/app".parse().unwrap();
            assert!(sql.manifest(&repository, &digest).await.unwrap().is_some());
            let published = Change::ManifestPublished(digest);
            let times = events.iter().filter(|event| event.change == published);
            assert_eq!(times.count(), 1);
        }
    }
}

/// A demoted primary answers reads; writes are unavailable until there is a primary again, and then work at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_primary_is_read_only_until_promoted() {
    let mut postgres = Postgres::start();
    let url = postgres.database();
    let sql = open(&url).await;
    try_publish(&sql, "x").await.unwrap();
    postgres.become_standby();
    assert_eq!(sql.position().await.unwrap(), Sequence::new(2));
    assert_unavailable(try_publish(&sql, "y").await);
    postgres.promote(&url);
    assert_eq!(try_publish(&sql, "y").await.unwrap(), Sequence::new(4));
}

/// Connections that became read-only are closed, and the write that finds out succeeds on a new one.
#[tokio::test(flavor = "multi_thread")]
async fn read_only_connections_are_evicted() {
    let postgres = shared();
    let url = postgres.database();
    let name = url.rsplit_once('/').unwrap().1;
    let sql = open(&url).await;
    let default = "default_transaction_read_only";
    postgres.sql(&url, &format!("ALTER DATABASE {name} SET {default} = on"));
    let reads = join_all((0..8).map(|_| sql.position())).await;
    assert!(reads.into_iter().all(|read| read.is_ok()));
    let reset = format!("BEGIN READ WRITE; ALTER DATABASE {name} RESET {default}; COMMIT");
    postgres.sql(&url, &reset);
    for push in 0..10 {
        try_publish(&sql, &format!("manifest {push}"))
            .await
            .unwrap();
    }
}

/// A write that waits for a lock nobody gives back ends in time, and leaves nothing locked.
#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_lock_is_unavailable_in_time() {
    let postgres = shared();
    let url = postgres.database();
    let mut config = config(&url);
    config.operation_timeout = Duration::from_millis(500);
    let sql = Sql::open(&config).await.unwrap();
    try_publish(&sql, "x").await.unwrap();
    let mut stuck = postgres.session(&url);
    assert_eq!(
        stuck.row("BEGIN; SELECT position FROM feed FOR UPDATE;"),
        "2"
    );
    assert_unavailable(try_publish(&sql, "y").await);
    assert_eq!(sql.position().await.unwrap(), Sequence::new(2));
    drop(stuck);
    assert_eq!(try_publish(&sql, "y").await.unwrap(), Sequence::new(4));
}

/// One lock that nobody gives back is no outage: who waits for it is refused in time, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_lock_is_not_a_server_that_is_away() {
    let postgres = shared();
    let url = postgres.database();
    let mut config = config(&url);
    config.operation_timeout = Duration::from_secs(3);
    let sql = Sql::open(&config).await.unwrap();
    try_publish(&sql, "x").await.unwrap();
    let tasks = Tasks::new();
    sql.watch(&tasks, |is_away| panic!("reported as away: {is_away}"));
    let mut stuck = postgres.session(&url);
    stuck.row("BEGIN; SELECT position FROM feed FOR UPDATE;");
    let waiting = async {
        let begin = Instant::now();
        assert_unavailable(try_publish(&sql, "y").await);
        assert!(begin.elapsed() >= config.operation_timeout);
    };
    let others = async {
        let begin = Instant::now();
        while begin.elapsed() < config.operation_timeout {
            assert_eq!(sql.position().await.unwrap(), Sequence::new(2));
        }
    };
    tokio::join!(waiting, others);
    drop(stuck);
    try_publish(&sql, "y").await.unwrap();
    tasks.cancel();
    tasks.drain(Duration::from_secs(9)).await.unwrap();
}

/// A writer that vanishes in the middle of a transaction does not keep the others out.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_dropped_leaves_nothing_locked() {
    let postgres = shared();
    let url = postgres.database();
    let sql = open(&url).await;
    try_publish(&sql, "x").await.unwrap();
    let mut stuck = postgres.session(&url);
    assert_eq!(
        stuck.row("BEGIN; SELECT position FROM feed FOR UPDATE;"),
        "2"
    );
    let waiting = try_publish(&sql, "y");
    let dropped = tokio::time::timeout(Duration::from_millis(300), waiting).await;
    assert!(dropped.is_err());
    drop(stuck);
    let again = tokio::time::timeout(Duration::from_secs(5), try_publish(&sql, "z")).await;
    assert_eq!(again.unwrap().unwrap(), Sequence::new(4));
}
