//! sha512, in every way that sha256 is used.

use futures_util::stream;
use harness::at_each_door;
use harness::content::Content;
use harness::document::{Document, OCI_CONFIG, OCI_LAYER, descriptor, image, index};
use harness::door::Registry;
use http::Method;
use outport_core::oci::digest::Algorithm::{self, Sha256, Sha512};

at_each_door!(
    the_algorithm_is_said_first,
    the_algorithm_is_said_last,
    another_algorithm_than_said,
    one_blob_by_both,
    manifests_and_tags,
    referrers
);

const CONTENT: Content = Content::new(1, 300_000);

async fn the_algorithm_is_said_first(registry: &Registry) {
    let repository = registry.repository("team/app");
    for algorithm in Algorithm::ALL {
        let path = format!("blobs/uploads/?digest-algorithm={algorithm}");
        let reply = repository
            .call(Method::POST, &path)
            .send()
            .await
            .expect(202);
        let patch = registry
            .patch(reply.location())
            .body(CONTENT.slice(0..100_000));
        let reply = patch.send().await.expect(202);
        let digest = CONTENT.digest(algorithm);
        let put = repository
            .finish_upload(reply.location(), &digest)
            .content_from(CONTENT, 100_000);
        put.send()
            .await
            .expect(201)
            .with_header("docker-content-digest", &digest.to_string());
        repository
            .get_blob(&digest)
            .await
            .expect(200)
            .with_body(&CONTENT.bytes());
    }
}

async fn the_algorithm_is_said_last(registry: &Registry) {
    let repository = registry.repository("team/app");
    let digest = CONTENT.digest(Sha512);
    let location = repository.start_upload().await;
    let patch = registry
        .patch(&location)
        .chunked(stream::iter(CONTENT.pieces_from(0, 50_000)));
    let reply = patch.send().await.expect(202);
    let reply = repository
        .finish_upload(reply.location(), &digest)
        .send()
        .await
        .expect(201);
    reply.with_header("docker-content-digest", &digest.to_string());
    for method in [Method::HEAD, Method::GET] {
        let reply = repository.blob(method, &digest).send().await.expect(200);
        reply.with_header("docker-content-digest", &digest.to_string());
    }
    repository
        .blob(Method::DELETE, &digest)
        .send()
        .await
        .expect(202);
    repository
        .blob(Method::HEAD, &digest)
        .send()
        .await
        .expect(404);
}

async fn another_algorithm_than_said(registry: &Registry) {
    let repository = registry.repository("team/app");
    let path = "blobs/uploads/?digest-algorithm=sha512";
    let reply = repository.call(Method::POST, path).send().await.expect(202);
    let reply = registry
        .patch(reply.location())
        .content(CONTENT)
        .send()
        .await
        .expect(202);
    let digest = CONTENT.digest(Sha256);
    repository
        .finish_upload(reply.location(), &digest)
        .send()
        .await
        .expect(201);
    repository
        .get_blob(&digest)
        .await
        .expect(200)
        .with_body(&CONTENT.bytes());
}

async fn one_blob_by_both(registry: &Registry) {
    let repository = registry.repository("team/app");
    let digests = Algorithm::ALL.map(|algorithm| CONTENT.digest(algorithm));
    repository.push_as(Sha256, CONTENT.bytes()).await;
    repository
        .get_blob(&digests[1])
        .await
        .refused(404, "BLOB_UNKNOWN");
    repository.push_as(Sha512, CONTENT.bytes()).await;
    for digest in digests {
        repository
            .get_blob(&digest)
            .await
            .expect(200)
            .with_body(&CONTENT.bytes());
    }
    repository
        .blob(Method::DELETE, &digests[0])
        .send()
        .await
        .expect(202);
    repository.get_blob(&digests[1]).await.expect(200);
}

async fn manifests_and_tags(registry: &Registry) {
    let repository = registry.repository("team/app");
    let layer = repository.push_as(Sha512, CONTENT.bytes()).await;
    let config = repository.push_as(Sha512, "{}").await;
    let manifest = image(
        &descriptor(OCI_CONFIG, &config, 2),
        &[descriptor(OCI_LAYER, &layer, CONTENT.size())],
    );
    let manifest = Document::new(&manifest);
    let digest = manifest.digest_by(Sha512);
    let reply = repository
        .put_manifest(format!("{digest}?tag=a&tag=b"), &manifest)
        .await
        .expect(201);
    let reply = reply
        .with_header("docker-content-digest", &digest.to_string())
        .without_header("warning");
    assert_eq!(reply.headers("oci-tag"), ["a", "b"]);

    let list = Document::new(&index(&[descriptor(
        &manifest.media_type,
        &digest,
        manifest.body.len() as u64,
    )]));
    let list_digest = list.digest_by(Sha512);
    repository
        .put_manifest(format!("{list_digest}?tag=list"), &list)
        .await
        .expect(201);

    for (reference, document, digest) in [
        (digest.to_string(), &manifest, digest),
        ("a".to_owned(), &manifest, digest),
        ("b".to_owned(), &manifest, digest),
        (list_digest.to_string(), &list, list_digest),
        ("list".to_owned(), &list, list_digest),
    ] {
        for method in [Method::HEAD, Method::GET] {
            let reply = repository
                .manifest(method.clone(), &reference)
                .send()
                .await
                .expect(200);
            let reply = reply.with_header("docker-content-digest", &digest.to_string());
            if method == Method::GET {
                reply.with_body(&document.body);
            }
        }
    }
    // The same bytes by a tag alone are a manifest of their sha256.
    let reply = repository.put_manifest("a", &manifest).await.expect(201);
    reply.with_header("docker-content-digest", &manifest.digest().to_string());
    repository
        .get_manifest("b")
        .await
        .with_header("docker-content-digest", &digest.to_string());
    repository
        .manifest(Method::DELETE, digest)
        .send()
        .await
        .expect(202);
    repository
        .get_manifest("b")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    repository.get_manifest("a").await.expect(200);
}

async fn referrers(registry: &Registry) {
    let repository = registry.repository("team/app");
    let subject = repository.push_image_parts(1).await.manifest;
    let digest = subject.digest_by(Sha512);
    repository.put_manifest(digest, &subject).await.expect(201);
    repository.push("{}").await;
    let mut referrer = harness::document::artifact("application/vnd.test.sbom");
    referrer["subject"] = descriptor(&subject.media_type, &digest, subject.body.len() as u64);
    let referrer = Document::new(&referrer);
    let name = referrer.digest_by(Sha512);
    let reply = repository.put_manifest(name, &referrer).await.expect(201);
    reply.with_header("oci-subject", &digest.to_string());
    assert_eq!(repository.referrers(&digest).await, [name.to_string()]);
    // Its subject's other name is another subject.
    assert!(repository.referrers(&subject.digest()).await.is_empty());
}
