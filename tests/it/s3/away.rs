//! A bucket that is away for a while: clients are told to come back, and find everything where it was.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use harness::client::Call;
use harness::content::Content;
use harness::node::Origin;
use harness::repository::Repository;
use harness::s3::S3Server;
use http::Method;
use tokio::time::Instant;

const MIB: u64 = 1 << 20;
/// Until when a client is told that the bucket is away.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Sends what needs the bucket, and holds the answer to being a clear one in time.
async fn assert_told(call: Call) {
    let begin = Instant::now();
    let reply = call.send().await.refused(503, "UNAVAILABLE");
    reply.with_header("retry-after", "1");
    assert!(begin.elapsed() < TOLD_WITHIN, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn requests_are_told_to_come_back_and_go_on_then() {
    let mut server = S3Server::start().await;
    let bucket = server.bucket().await;
    let origin = Origin::builder().bucket(&server, &bucket).start().await;
    let repository = Repository::new(origin.client(), "team/app");
    let image = repository.push_image("v1", 1).await;
    let content = Content::new(2, 20 * MIB);
    let digest = content.sha256();
    let location = repository.start_upload().await;
    let chunk = |range| {
        repository
            .client()
            .patch(&location)
            .body(content.slice(range))
    };
    // A part and a tail.
    chunk(0..9 * MIB).send().await.expect(202);

    server.kill();
    assert_told(repository.blob(Method::GET, &image.layer_digest())).await;
    assert_told(chunk(9 * MIB..10 * MIB)).await;
    let whole = format!("blobs/uploads/?digest={digest}");
    let whole = repository.call(Method::POST, &whole).content(content);
    assert_told(whole).await;
    // The database is not.
    let manifest = repository.get_manifest("v1").await.expect(200);
    manifest.with_body(&image.manifest.body);
    assert_eq!(repository.upload_offset(&location).await, 9 * MIB);

    server.start_again();
    repository
        .get_blob(&image.layer_digest())
        .await
        .expect(200)
        .with_body(&image.layer);
    chunk(9 * MIB..18 * MIB).send().await.expect(202);
    let put = repository.finish_upload(&location, &digest);
    put.content_from(content, 18 * MIB).send().await.expect(201);
    let pulled = repository.get_blob(&digest).await.expect(200);
    pulled.with_body(&content.bytes());
}

#[tokio::test]
async fn an_upload_that_was_cut_off_goes_on_where_it_stood() {
    let mut server = S3Server::start().await;
    let bucket = server.bucket().await;
    let origin = Origin::builder().bucket(&server, &bucket).start().await;
    let repository = Repository::new(origin.client(), "team/app");
    let content = Content::new(1, 96 * MIB);
    let location = repository.start_upload().await;

    let handle = server.handle();
    let pieces = content.pieces_from(0, 64 << 10).enumerate();
    let body = stream::iter(pieces).map(move |(number, piece)| {
        // The first parts are there, others are under way.
        if number == 80 * 16 {
            handle.kill();
        }
        piece
    });
    assert_told(repository.client().patch(&location).chunked(body)).await;
    server.kill();
    server.start_again();

    let offset = repository.upload_offset(&location).await;
    assert!((8 * MIB..80 * MIB).contains(&offset), "{offset}");
    let put = repository.finish_upload(&location, &content.sha256());
    put.content_from(content, offset).send().await.expect(201);
    let pulled = repository.get_blob(&content.sha256()).await.expect(200);
    pulled.with_body(&content.bytes());
}

#[tokio::test]
async fn an_origin_starts_without_it() {
    let mut server = S3Server::start().await;
    let bucket = server.bucket().await;
    server.kill();
    let origin = Origin::builder().bucket(&server, &bucket).start().await;
    let repository = Repository::new(origin.client(), "team/app");
    let location = repository.start_upload().await;
    let content = Content::new(1, 1_000);
    let put = || {
        let put = repository.finish_upload(&location, &content.sha256());
        put.content(content)
    };
    assert_told(put()).await;
    server.start_again();
    put().send().await.expect(201);
    let pulled = repository.get_blob(&content.sha256()).await.expect(200);
    pulled.with_body(&content.bytes());
}
