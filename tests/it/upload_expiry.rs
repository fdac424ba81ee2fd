//! Uploads that nobody touches are forgotten, and what takes its time is not taken for one of them.

use futures_util::StreamExt as _;
use futures_util::stream;
use harness::content::Content;
use harness::eventually::eventually;
use harness::node::{Origin, OriginBuilder};
use harness::repository::Repository;
use harness::s3::S3Server;
use tokio::sync::oneshot;

#[tokio::test]
async fn a_chunk_may_take_longer_than_an_upload_lives() {
    a_long_chunk(Origin::builder()).await;
}

#[tokio::test]
async fn a_chunk_into_a_bucket_may_take_longer_than_an_upload_lives() {
    let server = S3Server::shared().await;
    let bucket = server.bucket().await;
    a_long_chunk(Origin::builder().bucket(&server, &bucket)).await;
}

async fn a_long_chunk(origin: OriginBuilder) {
    let origin = origin.set("uploads.expiry=4s");
    let origin = origin.set("uploads.sweep_interval=200ms").start().await;
    let repository = Repository::new(origin.client(), "team/app");
    let content = Content::new(1, 12_000_000);
    let (location, idle) = (
        repository.start_upload().await,
        repository.start_upload().await,
    );
    let (go_on, gone_on) = oneshot::channel::<()>();
    let (first, rest) = (
        content.slice(0..7_000_000),
        content.slice(7_000_000..12_000_000),
    );
    let rest = stream::once(async move {
        gone_on.await.unwrap();
        rest
    });
    let chunk = stream::iter([first]).chain(rest);
    let patch = repository.client().patch(&location).chunked(chunk);
    let forgotten = async {
        eventually("the end of the idle upload", async || {
            let reply = repository.client().get(&idle).send().await;
            (reply.status == 404).then_some(())
        })
        .await;
        go_on.send(()).unwrap();
    };
    let (patched, ()) = tokio::join!(patch.send(), forgotten);
    patched.expect(202);
    let put = repository.finish_upload(&location, &content.sha256());
    put.send().await.expect(201);
    let pulled = repository.get_blob(&content.sha256()).await.expect(200);
    pulled.with_body(&content.bytes());
}
