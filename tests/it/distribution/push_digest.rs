//! Content that does not hash to the digest it is pushed as.

use futures_util::stream;
use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use harness::repository::Repository;
use http::Method;
use outport_core::oci::digest::{Algorithm, Digest};

at_each_door!(
    post_only,
    post_and_put,
    chunked,
    streamed,
    put_without_a_digest
);

const CONTENT: Content = Content::new(1, 3000);

/// Nothing is stored: neither as what it was said to be, nor as what it is.
async fn nothing_is_stored(repository: &Repository, wrong: &Digest) {
    for digest in [wrong, &CONTENT.sha256(), &CONTENT.digest(Algorithm::Sha512)] {
        repository
            .blob(Method::GET, digest)
            .send()
            .await
            .expect(404);
    }
}

fn wrong_digests() -> [Digest; 2] {
    Algorithm::ALL.map(|algorithm| Content::new(2, 3000).digest(algorithm))
}

async fn post_only(registry: &Registry) {
    let repository = registry.repository("team/app");
    for wrong in wrong_digests() {
        let path = format!("blobs/uploads/?digest={wrong}");
        let reply = repository
            .call(Method::POST, &path)
            .content(CONTENT)
            .send()
            .await;
        reply.refused(400, "DIGEST_INVALID");
        nothing_is_stored(&repository, &wrong).await;
    }
}

async fn post_and_put(registry: &Registry) {
    let repository = registry.repository("team/app");
    for wrong in wrong_digests() {
        let location = repository.start_upload().await;
        let reply = repository
            .finish_upload(&location, &wrong)
            .content(CONTENT)
            .send()
            .await;
        reply.refused(400, "DIGEST_INVALID");
        nothing_is_stored(&repository, &wrong).await;
    }
}

async fn chunked(registry: &Registry) {
    let repository = registry.repository("team/app");
    for wrong in wrong_digests() {
        let location = repository.start_upload().await;
        let patch = registry.patch(&location).header("content-range", "0-2999");
        patch.body(CONTENT.bytes()).send().await.expect(202);
        repository
            .finish_upload(&location, &wrong)
            .send()
            .await
            .refused(400, "DIGEST_INVALID");
        nothing_is_stored(&repository, &wrong).await;
    }
}

async fn streamed(registry: &Registry) {
    let repository = registry.repository("team/app");
    for wrong in wrong_digests() {
        let location = repository.start_upload().await;
        let patch = registry
            .patch(&location)
            .chunked(stream::iter(CONTENT.pieces_from(0, 1000)));
        patch.send().await.expect(202);
        repository
            .finish_upload(&location, &wrong)
            .send()
            .await
            .refused(400, "DIGEST_INVALID");
        nothing_is_stored(&repository, &wrong).await;
    }
}

async fn put_without_a_digest(registry: &Registry) {
    let repository = registry.repository("team/app");
    let location = repository.start_upload().await;
    for query in ["", "?digest=", "?digest=latest", "?digest=sha256%3Aabc"] {
        let put = registry
            .put(&format!("{location}{query}"))
            .body(CONTENT.bytes());
        put.send().await.refused(400, "DIGEST_INVALID");
    }
    // What was refused before a byte was taken changes nothing.
    assert_eq!(repository.upload_offset(&location).await, 0);
    repository
        .finish_upload(&location, &CONTENT.sha256())
        .content(CONTENT)
        .send()
        .await
        .expect(201);
}
