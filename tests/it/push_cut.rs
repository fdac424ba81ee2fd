//! `kill -9` of the origin in the middle of pushes: what was acknowledged is there, and the rest goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, stream};
use harness::client::Client;
use harness::content::Content;
use harness::node::{Edge, Origin};
use harness::repository::Repository;
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
