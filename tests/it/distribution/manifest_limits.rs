//! Manifests up to 4 MiB are taken, larger ones refused before they are read.

use bytes::Bytes;
use futures_util::stream;
use harness::at_each_door;
use harness::document::{Document, OCI_CONFIG, descriptor_of, image};
use harness::door::Registry;
use harness::raw::{End, Raw};
use harness::repository::Repository;
use http::Method;

at_each_door!(
    the_largest_is_taken,
    a_larger_one_is_refused,
    a_larger_one_without_a_length_is_refused,
    it_is_refused_before_it_is_sent,
    an_empty_one_is_refused
);

const LIMIT: usize = 4 * 1024 * 1024;

/// Returns an image manifest of just so many bytes.
async fn manifest_of(repository: &Repository, length: usize) -> Document {
    repository.push("{}").await;
    let mut document = Document::new(&image(&descriptor_of(OCI_CONFIG, b"{}"), &[]));
    let mut body = document.body.to_vec();
    body.resize(length, b' ');
    document.body = body.into();
    document
}

async fn the_largest_is_taken(registry: &Registry) {
    let repository = registry.repository("team/app");
    let document = manifest_of(&repository, LIMIT).await;
    repository.put_manifest("tag", &document).await.expect(201);
    repository
        .get_manifest("tag")
        .await
        .expect(200)
        .with_body(&document.body);
    let put = repository
        .manifest(Method::PUT, "streamed")
        .header("content-type", &document.media_type);
    let pieces: Vec<_> = document
        .body
        .chunks(10_000)
        .map(Bytes::copy_from_slice)
        .collect();
    put.chunked(stream::iter(pieces)).send().await.expect(201);
    repository
        .get_manifest("streamed")
        .await
        .expect(200)
        .with_body(&document.body);
}

async fn a_larger_one_is_refused(registry: &Registry) {
    let repository = registry.repository("team/app");
    let document = manifest_of(&repository, LIMIT + 1).await;
    repository
        .put_manifest("tag", &document)
        .await
        .refused(413, "MANIFEST_INVALID");
    repository
        .put_manifest(document.digest(), &document)
        .await
        .refused(413, "MANIFEST_INVALID");
    repository.get_manifest("tag").await.expect(404);
}

async fn a_larger_one_without_a_length_is_refused(registry: &Registry) {
    let repository = registry.repository("team/app");
    let document = manifest_of(&repository, LIMIT + 1).await;
    let put = repository
        .manifest(Method::PUT, "tag")
        .header("content-type", &document.media_type);
    let pieces: Vec<_> = document
        .body
        .chunks(100_000)
        .map(Bytes::copy_from_slice)
        .collect();
    put.chunked(stream::iter(pieces))
        .send()
        .await
        .refused(413, "MANIFEST_INVALID");
    repository.get_manifest("tag").await.expect(404);
}

async fn it_is_refused_before_it_is_sent(registry: &Registry) {
    let mut raw = Raw::connect(registry.address()).await;
    let head =
        "PUT /v2/team/app/manifests/tag HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n";
    raw.write(head).await.unwrap();
    let reply = raw.reply().await;
    assert_eq!(
        (reply.status, reply.end),
        (Some(413), End::Whole),
        "{reply:?}"
    );
}

async fn an_empty_one_is_refused(registry: &Registry) {
    let repository = registry.repository("team/app");
    repository
        .manifest(Method::PUT, "tag")
        .body("")
        .send()
        .await
        .refused(400, "MANIFEST_INVALID");
}
