//! A bucket that takes connections, and says nothing.

use std::time::Duration;

use harness::client::Call;
use harness::content::Content;
use harness::eventually::eventually;
use harness::node::Origin;
use harness::repository::Repository;
use harness::s3::S3Server;
use http::Method;
use tokio::time::Instant;

/// Until when a client is told that the bucket does not answer.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// Sends what needs the bucket, and returns how long it took to be told to come back.
async fn told(call: Call) -> Duration {
    let begin = Instant::now();
    let reply = call.send().await.refused(503, "UNAVAILABLE");
    reply.with_header("retry-after", "1");
    begin.elapsed()
}

#[tokio::test]
async fn clients_are_told_soon_and_served_when_it_is_back() {
    let server = S3Server::start().await;
    let bucket = server.bucket().await;
    let origin = Origin::builder().bucket(&server, &bucket);
    let origin = origin.set("location.answer_timeout=1s").start().await;
    let repository = Repository::new(origin.client(), "team/app");
    let image = repository.push_image("v1", 1).await;
    let small = Content::new(2, 1_000);
    let small_digest = small.sha256();
    let get = || repository.blob(Method::GET, &image.layer_digest());
    let push = || {
        let path = format!("blobs/uploads/?digest={small_digest}");
        repository.call(Method::POST, &path).content(small)
    };

    server.handle().pause();
    // Connections that were in use, and new ones.
    for call in [get(), push(), get()] {
        let elapsed = told(call).await;
        assert!(elapsed < TOLD_WITHIN, "{elapsed:?}");
    }
    // Others do not wait for what these have waited for.
    let waits = futures_util::future::join_all((0..20).map(|_| told(get()))).await;
    let waited = waits.iter().filter(|wait| **wait >= Duration::from_secs(1));
    assert!(waited.count() <= 1, "{waits:?}");
    // The database is not away.
    let manifest = repository.get_manifest("v1").await.expect(200);
    manifest.with_body(&image.manifest.body);

    server.handle().resume();
    let served = eventually("the blob", async || {
        let reply = get().send().await;
        (reply.status == 200).then_some(reply)
    });
    served.await.with_body(&image.layer);
    push().send().await.expect(201);
}
