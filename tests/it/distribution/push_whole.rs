//! Pushing a blob in one piece: one POST, or a POST and a PUT.

use futures_util::stream;
use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use harness::repository::with_query;
use http::Method;
use outport_core::oci::digest::Algorithm;

at_each_door!(
    post_only,
    post_and_put,
    put_without_a_length,
    put_of_the_empty_blob,
    a_location_can_be_fetched,
    pushing_twice_is_once,
    own_query_parameters_survive,
    many_at_once
);

async fn post_only(registry: &Registry) {
    let repository = registry.repository("team/app");
    for (seed, algorithm) in (0..).zip(Algorithm::ALL) {
        for size in [0, 1, 100_000] {
            let content = Content::new(seed, size);
            let digest = content.digest(algorithm);
            let path = format!(
                "blobs/uploads/?digest={}",
                digest.to_string().replace(':', "%3A")
            );
            let reply = repository
                .call(Method::POST, &path)
                .content(content)
                .send()
                .await
                .expect(201);
            let reply = reply.with_header("docker-content-digest", &digest.to_string());
            let location = reply.location();
            registry
                .get(location)
                .send()
                .await
                .expect(200)
                .with_body(&content.bytes());
        }
    }
}

async fn post_and_put(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, 100_000);
    let reply = repository
        .call(Method::POST, "blobs/uploads/")
        .send()
        .await
        .expect(202);
    assert_eq!(reply.header("range"), "0-0");
    assert!(reply.body.is_empty());
    assert!(!reply.header("docker-upload-uuid").is_empty());
    let location = reply.location();
    assert!(
        location.starts_with("/v2/team/app/blobs/uploads/"),
        "{location}"
    );
    let reply = repository
        .finish_upload(location, &content.sha256())
        .content(content)
        .send()
        .await;
    let reply = reply
        .expect(201)
        .with_header("docker-content-digest", &content.sha256().to_string());
    assert!(reply.body.is_empty());
    repository
        .get_blob(&content.sha256())
        .await
        .expect(200)
        .with_body(&content.bytes());
}

async fn put_without_a_length(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, 100_000);
    let location = repository.start_upload().await;
    let call = repository.finish_upload(&location, &content.sha256());
    call.chunked(stream::iter(content.pieces_from(0, 777)))
        .send()
        .await
        .expect(201);
    repository
        .get_blob(&content.sha256())
        .await
        .expect(200)
        .with_body(&content.bytes());
}

async fn put_of_the_empty_blob(registry: &Registry) {
    let repository = registry.repository("team/app");
    let empty = Content::new(1, 0).sha256();
    let location = repository.start_upload().await;
    repository
        .finish_upload(&location, &empty)
        .chunked(stream::empty())
        .send()
        .await
        .expect(201);
    repository.get_blob(&empty).await.expect(200).with_body(b"");
}

async fn a_location_can_be_fetched(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, 1000);
    let location = repository.start_upload().await;
    let reply = repository
        .finish_upload(&location, &content.sha256())
        .content(content)
        .send()
        .await;
    let reply = reply.expect(201);
    let location = reply.location();
    registry
        .get(location)
        .send()
        .await
        .expect(200)
        .with_body(&content.bytes());
    registry.head(location).send().await.expect(200);
}

async fn pushing_twice_is_once(registry: &Registry) {
    let repository = registry.repository("team/app");
    let bytes = Content::new(1, 1000).bytes();
    let digest = repository.push(bytes.clone()).await;
    assert_eq!(repository.push(bytes.clone()).await, digest);
    // A client repeats a PUT whose answer it did not get.
    let location = repository.start_upload().await;
    repository
        .finish_upload(&location, &digest)
        .body(bytes.clone())
        .send()
        .await
        .expect(201);
    repository
        .finish_upload(&location, &digest)
        .body(bytes.clone())
        .send()
        .await
        .expect(201);
    repository
        .get_blob(&digest)
        .await
        .expect(200)
        .with_body(&bytes);
}

async fn own_query_parameters_survive(registry: &Registry) {
    let repository = registry.repository("team/app");
    let bytes = Content::new(1, 1000).bytes();
    let digest = Algorithm::Sha256.digest(&bytes);
    let location = with_query(&repository.start_upload().await, "unknown=x%2Fy&unknown=z");
    repository
        .finish_upload(&location, &digest)
        .body(bytes)
        .send()
        .await
        .expect(201);
}

async fn many_at_once(registry: &Registry) {
    let repository = registry.repository("team/app");
    // The same blob from several clients, beside others.
    let pushes = (0..24).map(|client| {
        let repository = repository.clone();
        async move {
            repository
                .push(Content::new(client % 8, 300_000).bytes())
                .await
        }
    });
    let digests = futures_util::future::join_all(pushes).await;
    for (seed, digest) in (0..8).zip(&digests) {
        let reply = repository.get_blob(digest).await.expect(200);
        reply.with_body(&Content::new(seed, 300_000).bytes());
    }
}
