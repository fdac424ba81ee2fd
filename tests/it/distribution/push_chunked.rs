//! Pushing a blob in chunks, with ranges as regclient does and without as docker does.

use bytes::Bytes;
use futures_util::stream;
use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use harness::repository::Repository;
use outport_core::oci::digest::Algorithm;

at_each_door!(
    one_chunk,
    several_chunks,
    the_last_chunk_in_the_put,
    streamed,
    streamed_in_tiny_pieces,
    tiny_chunks,
    an_empty_chunk_changes_nothing,
    the_other_form_of_a_range
);

const SIZE: u64 = 3067;

/// Sends one chunk with its range and returns where to go on.
async fn send_chunk(
    repository: &Repository,
    location: &str,
    content: Content,
    first: u64,
    end: u64,
) -> String {
    let call = repository
        .client()
        .patch(location)
        .header("content-range", format!("{first}-{}", end - 1));
    let reply = call
        .body(content.slice(first..end))
        .send()
        .await
        .expect(202);
    let reply = reply.with_header("range", &format!("0-{}", end - 1));
    assert!(!reply.header("docker-upload-uuid").is_empty());
    reply.location().to_owned()
}

async fn one_chunk(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, 512);
    let location = repository.start_upload().await;
    let location = send_chunk(&repository, &location, content, 0, 512).await;
    repository
        .finish_upload(&location, &content.sha256())
        .send()
        .await
        .expect(201);
    repository
        .get_blob(&content.sha256())
        .await
        .expect(200)
        .with_body(&content.bytes());
}

async fn several_chunks(registry: &Registry) {
    let repository = registry.repository("team/app");
    for (seed, algorithm) in (0..).zip(Algorithm::ALL) {
        let content = Content::new(seed, SIZE);
        let mut location = repository.start_upload().await;
        for (first, end) in [(0, 1024), (1024, 2048), (2048, SIZE)] {
            location = send_chunk(&repository, &location, content, first, end).await;
            assert_eq!(repository.upload_offset(&location).await, end);
        }
        let digest = content.digest(algorithm);
        let reply = repository
            .finish_upload(&location, &digest)
            .send()
            .await
            .expect(201);
        reply.with_header("docker-content-digest", &digest.to_string());
        repository
            .get_blob(&digest)
            .await
            .expect(200)
            .with_body(&content.bytes());
    }
}

async fn the_last_chunk_in_the_put(registry: &Registry) {
    let repository = registry.repository("team/app");
    for (seed, has_range) in [(1, true), (2, false)] {
        let content = Content::new(seed, SIZE);
        let location = repository.start_upload().await;
        let location = send_chunk(&repository, &location, content, 0, 2048).await;
        let mut put = repository.finish_upload(&location, &content.sha256());
        if has_range {
            put = put.header("content-range", format!("2048-{}", SIZE - 1));
        }
        put.body(content.slice(2048..SIZE)).send().await.expect(201);
        repository
            .get_blob(&content.sha256())
            .await
            .expect(200)
            .with_body(&content.bytes());
    }
}

async fn streamed(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, 10_000_000);
    let location = repository.start_upload().await;
    let patch = registry
        .patch(&location)
        .chunked(stream::iter(content.pieces()));
    let reply = patch
        .send()
        .await
        .expect(202)
        .with_header("range", "0-9999999");
    repository
        .finish_upload(reply.location(), &content.sha256())
        .send()
        .await
        .expect(201);
    repository
        .get_blob(&content.sha256())
        .await
        .expect(200)
        .with_body(&content.bytes());
}

async fn streamed_in_tiny_pieces(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, SIZE);
    let location = repository.start_upload().await;
    let patch = registry
        .patch(&location)
        .chunked(stream::iter(content.pieces_from(0, 1)));
    let reply = patch.send().await.expect(202);
    repository
        .finish_upload(reply.location(), &content.sha256())
        .send()
        .await
        .expect(201);
    repository
        .get_blob(&content.sha256())
        .await
        .expect(200)
        .with_body(&content.bytes());
}

async fn tiny_chunks(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, 100);
    let mut location = repository.start_upload().await;
    for first in 0..100 {
        location = send_chunk(&repository, &location, content, first, first + 1).await;
    }
    repository
        .finish_upload(&location, &content.sha256())
        .send()
        .await
        .expect(201);
    repository
        .get_blob(&content.sha256())
        .await
        .expect(200)
        .with_body(&content.bytes());
}

async fn an_empty_chunk_changes_nothing(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, SIZE);
    let location = repository.start_upload().await;
    registry
        .patch(&location)
        .body(Bytes::new())
        .send()
        .await
        .expect(202)
        .with_header("range", "0-0");
    let location = send_chunk(&repository, &location, content, 0, 2048).await;
    let reply = registry
        .patch(&location)
        .body(Bytes::new())
        .send()
        .await
        .expect(202);
    let reply = reply.with_header("range", "0-2047");
    let put = repository.finish_upload(reply.location(), &content.sha256());
    put.body(content.slice(2048..SIZE)).send().await.expect(201);
}

async fn the_other_form_of_a_range(registry: &Registry) {
    let repository = registry.repository("team/app");
    let content = Content::new(1, 512);
    let location = repository.start_upload().await;
    let patch = registry
        .patch(&location)
        .header("content-range", "bytes 0-511/512");
    patch.body(content.bytes()).send().await.expect(202);
    repository
        .finish_upload(&location, &content.sha256())
        .send()
        .await
        .expect(201);
}
