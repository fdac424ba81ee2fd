//! Manifests: GET and HEAD, by tag and by digest.

use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use http::Method;

at_each_door!(
    by_tag_and_by_digest,
    head_has_the_headers_of_get,
    a_missing_manifest_is_unknown,
    a_moved_tag_is_seen_at_once,
    conditions,
    no_accept_header_changes_anything,
    a_manifest_is_served_where_it_was_pushed,
    a_blob_is_no_manifest
);

async fn by_tag_and_by_digest(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image("latest", 1).await.manifest;
    let digest = image.digest().to_string();
    for reference in ["latest", &digest, "latest"] {
        let reply = repository
            .get_manifest(reference)
            .await
            .expect(200)
            .with_body(&image.body);
        let reply = reply.with_header("content-type", &image.media_type);
        let reply = reply.with_header("content-length", &image.body.len().to_string());
        let reply = reply.with_header("docker-content-digest", &digest);
        reply.with_header("etag", &format!("\"{digest}\""));
    }
}

async fn head_has_the_headers_of_get(registry: &Registry) {
    let repository = registry.repository("team/app");
    let digest = repository
        .push_image("latest", 1)
        .await
        .manifest
        .digest()
        .to_string();
    for reference in ["latest", &digest] {
        let head = repository
            .manifest(Method::HEAD, reference)
            .send()
            .await
            .expect(200);
        let get = repository.get_manifest(reference).await.expect(200);
        for name in [
            "content-length",
            "content-type",
            "docker-content-digest",
            "etag",
        ] {
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
    }
}

async fn a_missing_manifest_is_unknown(registry: &Registry) {
    let repository = registry.repository("team/app");
    let missing = Content::new(1, 1).sha256().to_string();
    for reference in ["latest", &missing] {
        repository
            .manifest(Method::HEAD, reference)
            .send()
            .await
            .expect(404);
        repository
            .get_manifest(reference)
            .await
            .refused(404, "NAME_UNKNOWN");
    }
    let image = repository.push_image("other", 1).await.manifest;
    for reference in ["latest", &missing] {
        repository
            .manifest(Method::HEAD, reference)
            .send()
            .await
            .expect(404);
        repository
            .get_manifest(reference)
            .await
            .refused(404, "MANIFEST_UNKNOWN");
    }
    // Not found is no lasting truth.
    repository.put_manifest("latest", &image).await.expect(201);
    repository.get_manifest("latest").await.expect(200);
}

async fn a_moved_tag_is_seen_at_once(registry: &Registry) {
    let repository = registry.repository("team/app");
    for seed in 0..5 {
        let image = repository.push_image("latest", seed).await.manifest;
        repository
            .get_manifest("latest")
            .await
            .expect(200)
            .with_body(&image.body);
        let head = repository
            .manifest(Method::HEAD, "latest")
            .send()
            .await
            .expect(200);
        head.with_header("docker-content-digest", &image.digest().to_string());
    }
}

async fn conditions(registry: &Registry) {
    let repository = registry.repository("team/app");
    let digest = repository
        .push_image("latest", 1)
        .await
        .manifest
        .digest()
        .to_string();
    for reference in ["latest", &digest] {
        for validator in [format!("\"{digest}\""), digest.clone()] {
            let call = repository
                .manifest(Method::GET, reference)
                .header("if-none-match", validator);
            call.send().await.expect(304).with_body(b"");
        }
        let call = repository
            .manifest(Method::GET, reference)
            .header("if-none-match", "\"other\"");
        call.send().await.expect(200);
    }
}

async fn no_accept_header_changes_anything(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image("latest", 1).await.manifest;
    for accept in [
        &[][..],
        &["*/*"],
        &["application/vnd.docker.distribution.manifest.v2+json"],
        &[
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
        ],
        &["application/json;q=0.1, text/html"],
    ] {
        let mut call = repository
            .manifest(Method::GET, "latest")
            .header("accept-encoding", "gzip");
        for accept in accept {
            call = call.header("accept", accept);
        }
        let reply = call
            .send()
            .await
            .expect(200)
            .without_header("content-encoding");
        reply
            .with_header("content-type", &image.media_type)
            .with_body(&image.body);
    }
}

async fn a_manifest_is_served_where_it_was_pushed(registry: &Registry) {
    let (here, there) = (
        registry.repository("team/here"),
        registry.repository("team/there"),
    );
    let image = here.push_image("latest", 1).await.manifest;
    there.push("{}").await;
    here.get_manifest(image.digest()).await.expect(200);
    there
        .get_manifest(image.digest())
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    there
        .get_manifest("latest")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
}

async fn a_blob_is_no_manifest(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image("latest", 1).await;
    for digest in [image.config_digest(), image.layer_digest()] {
        repository
            .get_manifest(digest)
            .await
            .refused(404, "MANIFEST_UNKNOWN");
    }
}
