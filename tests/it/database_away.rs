//! An origin whose database is away, silent or locked: it says so at once, and goes on by itself when that is over.

use std::time::Duration;

use harness::client::Call;
use harness::eventually::eventually;
use harness::node::Origin;
use harness::postgres::Postgres;
use harness::repository::{PushedImage, Repository};
use harness::sqlite::Writer;
use http::Method;
use serde_json::json;
use tokio::time::Instant;

/// How long it may take to say that it cannot be known.
const FIRST: Duration = Duration::from_secs(2);

/// The same, when it was found out before.
const LATER: Duration = Duration::from_secs(1);

async fn pushed(origin: &Origin) -> (Repository, PushedImage) {
    let repository = Repository::new(origin.client(), "team/app");
    let image = repository.push_image("latest", 1).await;
    (repository, image)
}

fn writes(repository: &Repository) -> [Call; 2] {
    [
        repository.call(Method::POST, "blobs/uploads/"),
        repository.manifest(Method::DELETE, "other"),
    ]
}

fn reads(repository: &Repository, image: &PushedImage) -> [Call; 4] {
    [
        repository.manifest(Method::GET, "latest"),
        repository.manifest(Method::HEAD, image.manifest.digest()),
        repository.blob(Method::GET, &image.layer_digest()),
        repository.call(Method::GET, "tags/list"),
    ]
}

/// All at once, so that each is among the first.
async fn are_refused(calls: impl IntoIterator<Item = Call>, within: Duration) {
    let calls = calls.into_iter().map(|call| async move {
        let begin = Instant::now();
        let reply = call.send().await.expect(503);
        let elapsed = begin.elapsed();
        let seconds: u64 = reply.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&seconds), "{reply}");
        assert!(elapsed < within, "{elapsed:?}: {reply}");
    });
    futures_util::future::join_all(calls).await;
}

async fn becomes_ready(origin: &Origin, is_ready: bool) {
    let status = if is_ready { 200 } else { 503 };
    eventually("the readiness", async || {
        (origin.readiness().await.0 == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_locked_file_takes_no_writes_and_is_read() {
    let origin = Origin::start().await;
    let (repository, image) = pushed(&origin).await;
    let lock = Writer::lock(&origin.database()).await;
    are_refused(writes(&repository), FIRST).await;
    for _ in 0..3 {
        are_refused(writes(&repository), LATER).await;
        for call in reads(&repository, &image) {
            call.send().await.expect(200);
        }
    }
    // It serves pulls, and no other origin over this file could do more.
    assert_eq!(origin.readiness().await.0, 200);
    lock.release().await;
    repository.push_image("latest", 2).await;
}

#[tokio::test]
async fn writers_in_two_processes_wait_for_each_other() {
    let origin = Origin::start().await;
    let other = origin.start_beside().await;
    let pushes = (0..12).map(|push| {
        let client = [&origin, &other][push % 2].client();
        let repository = Repository::new(client, &format!("team/app{push}"));
        async move {
            for round in 0..10 {
                repository.push_image(&format!("v{round}"), round).await;
            }
        }
    });
    futures_util::future::join_all(pushes).await;
    for node in [&origin, &other] {
        let log = node.process().log().join("\n");
        assert!(!log.contains("database is away"), "{log}");
    }
}

#[tokio::test]
async fn a_server_that_is_silent() {
    let postgres = Postgres::start();
    let origin = Origin::builder().database(postgres.database());
    let origin = origin.start().await;
    let (repository, image) = pushed(&origin).await;
    postgres.pause();
    is_away(&origin, &repository, &image).await;
    postgres.resume();
    is_back(&origin, &repository).await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again() {
    let mut postgres = Postgres::start();
    let origin = Origin::builder().database(postgres.database());
    let origin = origin.start().await;
    let (repository, image) = pushed(&origin).await;
    for _ in 0..2 {
        postgres.kill();
        is_away(&origin, &repository, &image).await;
        postgres.start_again();
        is_back(&origin, &repository).await;
    }
}

async fn is_away(origin: &Origin, repository: &Repository, image: &PushedImage) {
    let all = || {
        let reads = reads(repository, image).into_iter();
        reads.chain(writes(repository))
    };
    are_refused(all(), FIRST).await;
    for _ in 0..3 {
        are_refused(all(), LATER).await;
    }
    becomes_ready(origin, false).await;
    let blocked = json!({"database": "the database does not answer"});
    assert_eq!(
        origin.readiness().await.1,
        json!({"ready": false, "blocked": blocked})
    );
}

async fn is_back(origin: &Origin, repository: &Repository) {
    becomes_ready(origin, true).await;
    repository.push_image("latest", 2).await;
    repository.get_manifest("latest").await.expect(200);
    for _ in 0..20 {
        assert_eq!(origin.readiness().await.0, 200);
    }
}
