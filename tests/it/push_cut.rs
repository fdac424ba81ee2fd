//! `kill -9` of the origin in the middle of pushes: what was acknowledged is there, and the rest goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, stream};
use harness::client::{Call, Client};
use harness::content::Content;
use harness::eventually::eventually;
use harness::node::{Edge, Origin};
use harness::postgres::Postgres;
use harness::repository::Repository;
use harness::sqlite::Writer;
use outport_core::oci::digest::Digest;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What pushers were told to be done.
#[derive(Debug, Default)]
struct Acknowledged {
    blobs: Mutex<Vec<Content>>,
    tags: Mutex<Vec<(String, Digest)>>,
    count: AtomicUsize,
    changed: Notify,
}

impl Acknowledged {
    fn one_more(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    async fn wait_for(&self, count: usize) {
        while self.count.load(Ordering::Relaxed) < count {
            self.changed.notified().await;
        }
    }
}

#[tokio::test]
async fn a_session_goes_on_at_the_origin() {
    let mut origin = Origin::start().await;
    let client = origin.client();
    a_session_goes_on(&mut origin, client).await;
}

#[tokio::test]
async fn a_session_goes_on_through_an_edge() {
    let mut origin = Origin::start().await;
    let edge = Edge::start(&origin).await;
    a_session_goes_on(&mut origin, edge.client()).await;
}

async fn a_session_goes_on(origin: &mut Origin, client: Client) {
    const ACKNOWLEDGED: u64 = 2_000_000;
    let repository = Repository::new(client, "team/app");
    for (seed, pieces) in (0..).zip([0, 1, 2, 7, 20, 40]) {
        let content = Content::new(seed, 5_000_000);
        let location = repository.start_upload().await;
        for first in (0..ACKNOWLEDGED).step_by(1_000_000) {
            let body = content.slice(first..first + 1_000_000);
            repository
                .client()
                .patch(&location)
                .body(body)
                .send()
                .await
                .expect(202);
        }
        // The process dies while it takes the next piece.
        let process = origin.process().handle();
        let body = stream::iter(content.pieces_from(ACKNOWLEDGED, 64 * 1024)).enumerate();
        let body = body.map(move |(number, piece)| {
            if number == pieces {
                process.kill();
            }
            piece
        });
        let patch = repository
            .client()
            .patch(&location)
            .chunked(body)
            .try_send()
            .await;
        assert!(patch.is_err() || patch.is_ok_and(|reply| reply.status.is_server_error()));
        origin.kill();
        origin.start_again().await;

        let offset = repository.upload_offset(&location).await;
        assert!(
            (ACKNOWLEDGED..=content.size()).contains(&offset),
            "{offset} after {pieces}"
        );
        let put = repository.finish_upload(&location, &content.sha256());
        let put = put.header("content-range", format!("{offset}-{}", content.size() - 1));
        put.content_from(content, offset).send().await.expect(201);
        repository
            .get_blob(&content.sha256())
            .await
            .expect(200)
            .with_body(&content.bytes());
    }
}

#[tokio::test]
async fn a_blob_that_was_published_and_not_linked_is_pushed_again() {
    let mut origin = Origin::start().await;
    let pushed = Pushed::begin(&origin).await;
    let lock = Writer::lock(&origin.database()).await;
    pushed.cut_before_the_link(&mut origin).await;
    lock.release().await;
    pushed.finish(&mut origin).await;
}

#[tokio::test]
async fn a_blob_that_was_published_and_not_linked_is_pushed_again_with_postgresql() {
    let postgres = Postgres::start();
    let url = postgres.database();
    let mut origin = Origin::builder().database(&url).start().await;
    let pushed = Pushed::begin(&origin).await;
    let mut lock = postgres.session(&url);
    lock.row("BEGIN; LOCK TABLE blobs IN EXCLUSIVE MODE; SELECT 1;");
    pushed.cut_before_the_link(&mut origin).await;
    drop(lock);
    pushed.finish(&mut origin).await;
}

/// A push whose last chunk comes with its end.
struct Pushed {
    repository: Repository,
    location: String,
    content: Content,
}

impl Pushed {
    const FIRST_CHUNK: u64 = 1_000_000;

    async fn begin(origin: &Origin) -> Self {
        let repository = Repository::new(origin.client(), "team/app");
        let content = Content::new(1, 1_500_000);
        let location = repository.start_upload().await;
        let patch = repository.client().patch(&location);
        let patch = patch.body(content.slice(0..Self::FIRST_CHUNK));
        patch.send().await.expect(202);
        Self {
            repository,
            location,
            content,
        }
    }

    /// Returns the end of the push, with the last chunk.
    fn put(&self) -> Call {
        let put = self
            .repository
            .finish_upload(&self.location, &self.content.sha256());
        put.content_from(self.content, Self::FIRST_CHUNK)
    }

    /// Kills the origin when it has published the blob, and waits for a lock to link it.
    async fn cut_before_the_link(&self, origin: &mut Origin) {
        let published = origin.blob(&self.content.sha256());
        let cut = async {
            eventually("the blob", async || {
                published.try_exists().unwrap().then_some(())
            })
            .await;
            origin.kill();
        };
        let (put, ()) = tokio::join!(self.put().try_send(), cut);
        assert!(put.is_err());
        origin.start_again().await;
    }

    async fn finish(&self, origin: &mut Origin) {
        let digest = self.content.sha256();
        let repository = &self.repository;
        repository.get_blob(&digest).await.expect(404);
        // Whoever knows the digest, and has not all of the bytes, gets nowhere.
        let stranger = Repository::new(origin.client(), "other/app");
        let location = stranger.start_upload().await;
        let patch = stranger.client().patch(&location);
        let patch = patch.body(self.content.slice(0..Self::FIRST_CHUNK));
        patch.send().await.expect(202);
        let put = stranger.finish_upload(&location, &digest);
        put.send().await.refused(400, "DIGEST_INVALID");
        stranger.get_blob(&digest).await.expect(404);

        let range = format!("{}-{}", Self::FIRST_CHUNK, self.content.size() - 1);
        self.put()
            .header("content-range", range)
            .send()
            .await
            .expect(201);
        self.put().send().await.expect(201);
        let reply = repository.get_blob(&digest).await.expect(200);
        reply.with_body(&self.content.bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    let mut origin = Origin::start().await;
    let acknowledged = Arc::new(Acknowledged::default());
    for (round, count) in (0..).zip([1, 2, 3, 5, 8, 13, 21, 34]) {
        let before = acknowledged.count.load(Ordering::Relaxed);
        let mut pushers = JoinSet::new();
        for pusher in 0..4 {
            let repository = Repository::new(origin.client(), &format!("team/app{pusher}"));
            pushers.spawn(push_until_it_ends(
                repository,
                1000 * (4 * round + pusher),
                Arc::clone(&acknowledged),
            ));
        }
        acknowledged.wait_for(before + count).await;
        origin.kill();
        while let Some(ended) = pushers.join_next().await {
            ended.unwrap();
        }
        origin.start_again().await;
        is_all_there(&origin, &acknowledged).await;
    }
}

/// Pushes images until nobody answers.
async fn push_until_it_ends(repository: Repository, seed: u64, acknowledged: Arc<Acknowledged>) {
    for seed in seed.. {
        let content = Content::new(seed, 1000 + seed * 7919 % 400_000);
        let digest = content.sha256();
        let Ok(started) = repository
            .call(http::Method::POST, "blobs/uploads/")
            .try_send()
            .await
        else {
            return;
        };
        let started = started.expect(202);
        let put = repository
            .finish_upload(started.location(), &digest)
            .content(content);
        let Ok(reply) = put.try_send().await else {
            return;
        };
        reply.expect(201);
        acknowledged.blobs.lock().push(content);
        acknowledged.one_more();

        let layer =
            harness::document::descriptor(harness::document::OCI_LAYER, &digest, content.size());
        let manifest = harness::document::Document::new(&harness::document::image(&layer, &[]));
        let put = repository
            .manifest(http::Method::PUT, seed)
            .body(manifest.body.clone());
        let Ok(reply) = put
            .header("content-type", &manifest.media_type)
            .try_send()
            .await
        else {
            return;
        };
        reply.expect(201);
        acknowledged.tags.lock().push((
            repository.path(&format!("manifests/{seed}")),
            manifest.digest(),
        ));
        acknowledged.one_more();
    }
}

async fn is_all_there(origin: &Origin, acknowledged: &Acknowledged) {
    let client = origin.client();
    let blobs = acknowledged.blobs.lock().clone();
    let tags = acknowledged.tags.lock().clone();
    assert!(blobs.len() >= tags.len());
    for (path, digest) in tags {
        let reply = client.get(&path).send().await.expect(200);
        reply.with_header("docker-content-digest", &digest.to_string());
    }
    for content in blobs {
        // Of the repositories, one has it.
        let mut found = 0;
        for pusher in 0..4 {
            let path = format!("/v2/team/app{pusher}/blobs/{}", content.sha256());
            let mut open = client.get(&path).open().await;
            if open.head.status == 200 {
                assert_eq!(open.read_content(content, 0).await.unwrap(), content.size());
                found += 1;
            }
        }
        assert_eq!(found, 1, "{content:?}");
    }
}
