//! Large blobs whose digest comes last: published where they are, and moved to where they belong behind that.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use harness::content::Content;
use harness::eventually::eventually;
use harness::node::Origin;
use harness::repository::Repository;
use harness::s3::S3Server;
use outport_core::clock;
use outport_core::location::engine::Engine as _;
use outport_core::location::engine::s3::S3;
use outport_core::location::{Location, LocationUrl};
use outport_core::oci::digest::{Algorithm, Digest};
use outport_core::store::conformance::frames;
use outport_core::store::{ContentStore, Staged};
use uuid::Uuid;

const MIB: u64 = 1 << 20;

/// Returns an instance of a store over a bucket.
fn open(server: &S3Server, bucket: &str) -> Arc<dyn ContentStore> {
    let url: LocationUrl = format!("s3://{bucket}/eu").parse().unwrap();
    let location = Location::open(url, &server.options()).unwrap();
    Arc::clone(location.store())
}

/// Whether a blob is where it belongs.
async fn has_moved(server: &S3Server, bucket: &str, digest: &Digest) -> bool {
    let engine = S3::new(bucket, &server.options().s3).unwrap();
    let objects: Vec<_> = engine.objects().list(None).try_collect().await.unwrap();
    let name = digest.hex();
    let is_blob = |path: &str| path.starts_with("eu/blobs/") && path.ends_with(&name);
    objects
        .iter()
        .any(|object| is_blob(object.location.as_ref()))
}

/// Leaves behind what an origin leaves that is killed when it has committed.
async fn commit(store: &Arc<dyn ContentStore>, content: Content) -> Digest {
    let staged = Staged::new(Uuid::now_v7(), Algorithm::Sha256);
    let frames = frames(&content.bytes(), 64 << 10);
    let appended = store.append(staged, frames, None).await;
    appended.outcome.unwrap();
    let digest = content.sha256();
    store.commit(appended.staged, &digest).await.unwrap();
    digest
}

async fn assert_here(store: &Arc<dyn ContentStore>, digest: &Digest, content: Content) {
    let bytes = content.bytes();
    let size = bytes.len() as u64;
    assert_eq!(store.size(digest).await.unwrap(), Some(size));
    let body = store.read(digest, 0..size).await.unwrap().unwrap();
    assert!(body.collect_limited(size).await.unwrap() == bytes);
}

#[tokio::test]
async fn another_instance_serves_a_blob_and_finishes_its_move() {
    let server = S3Server::shared().await;
    let bucket = server.bucket().await;
    let content = Content::new(1, 40 * MIB);
    let digest = commit(&open(&server, &bucket), content).await;
    assert!(!has_moved(&server, &bucket, &digest).await);
    let store = open(&server, &bucket);
    assert_here(&store, &digest, content).await;
    // An origin finds it by itself.
    let _origin = Origin::builder().bucket(&server, &bucket).start().await;
    eventually("the move", async || {
        has_moved(&server, &bucket, &digest).await.then_some(())
    })
    .await;
    assert_here(&store, &digest, content).await;
}

#[tokio::test]
async fn a_blob_is_served_while_it_moves() {
    let server = S3Server::shared().await;
    let bucket = server.bucket().await;
    let origin = Origin::builder().bucket(&server, &bucket).start().await;
    let beside = origin.start_beside().await;
    let repository = Repository::new(origin.client(), "team/app");
    let content = Content::new(1, 64 * MIB);
    let digest = content.sha256();
    let location = repository.start_upload().await;
    let patch = repository.client().patch(&location).content(content);
    patch.send().await.expect(202);
    let put = || repository.finish_upload(&location, &digest).send();
    put().await.expect(201);
    put().await.expect(201);
    let elsewhere = repository.behind(beside.client());
    loop {
        let has_moved = has_moved(&server, &bucket, &digest).await;
        let pulled = elsewhere.get_blob(&digest).await.expect(200);
        pulled.with_body(&content.bytes());
        if has_moved {
            return;
        }
    }
}

#[tokio::test]
async fn a_blob_that_is_deleted_while_it_moves_does_not_come_back() {
    let server = S3Server::shared().await;
    let bucket = server.bucket().await;
    let (one, other) = (open(&server, &bucket), open(&server, &bucket));
    let digest = commit(&one, Content::new(1, 64 * MIB)).await;
    let mut settle = Box::pin(one.settle(&digest, clock::now()));
    let engine = S3::new(&bucket, &server.options().s3).unwrap();
    let is_claimed = async {
        loop {
            let objects = engine.objects().list(None);
            let objects: Vec<_> = objects.try_collect().await.unwrap();
            let mut paths = objects.iter().map(|object| object.location.as_ref());
            if paths.any(|path| path.contains(".claim")) {
                return;
            }
        }
    };
    // Over before it is seen: nothing was under way then, and it must be gone as well.
    tokio::select! {
        settled = &mut settle => settled.unwrap(),
        () = is_claimed => {
            let (settled, deleted) = tokio::join!(settle, other.delete(&digest));
            settled.unwrap();
            deleted.unwrap();
        }
    }
    other.delete(&digest).await.unwrap();
    one.settle(&digest, clock::now()).await.unwrap();
    assert_eq!(one.size(&digest).await.unwrap(), None);
    let left: Vec<_> = engine.objects().list(None).try_collect().await.unwrap();
    assert_eq!(left, []);
}
