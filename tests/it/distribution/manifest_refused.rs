//! What is no manifest that can be stored is refused, and changes nothing.

use bytes::Bytes;
use harness::at_each_door;
use harness::content::Content;
use harness::document::{
    DOCKER_MANIFEST, Document, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, descriptor_of, image, index,
};
use harness::door::Registry;
use serde_json::{Value, json};

at_each_door!(
    what_is_no_json,
    what_is_no_manifest,
    other_media_types,
    dockers_first_schema,
    another_digest,
    ambiguous_manifests
);

async fn is_refused(registry: &Registry, media_type: &str, body: impl Into<Bytes>) {
    let repository = registry.repository("team/app");
    repository.push("{}").await;
    let document = Document {
        media_type: media_type.to_owned(),
        body: body.into(),
    };
    let reply = repository.put_manifest("tag", &document).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (400, "MANIFEST_INVALID"),
        "{document:?}: {reply}"
    );
    repository
        .put_manifest(document.digest(), &document)
        .await
        .refused(400, "MANIFEST_INVALID");
    repository
        .get_manifest("tag")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    repository
        .get_manifest(document.digest())
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    assert!(repository.tags().await.is_empty());
}

fn good() -> Value {
    image(&descriptor_of(OCI_CONFIG, b"{}"), &[])
}

/// The good one with one key set to something else.
fn with(key: &str, value: Value) -> String {
    let mut json = good();
    json[key] = value;
    json.to_string()
}

async fn what_is_no_json(registry: &Registry) {
    let good = good().to_string();
    for body in [
        "",
        "x",
        "{",
        "null",
        "[]",
        "\"\"",
        "1",
        &good[..good.len() - 1],
        &format!("{good}x"),
    ] {
        is_refused(registry, OCI_MANIFEST, body.to_owned()).await;
    }
    is_refused(registry, OCI_MANIFEST, &b"\xff\xfe{}"[..]).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    is_refused(registry, OCI_MANIFEST, deep).await;
}

async fn what_is_no_manifest(registry: &Registry) {
    for body in [
        "{}".to_owned(),
        with("schemaVersion", json!(3)),
        with("schemaVersion", json!("2")),
        with("config", json!(null)),
        with("config", json!({})),
        with(
            "config",
            json!({"mediaType": OCI_CONFIG, "digest": "nonsense", "size": 2}),
        ),
        with(
            "config",
            json!({"mediaType": OCI_CONFIG, "digest": Content::new(1, 1).sha256().to_string(), "size": -1}),
        ),
        with("layers", json!({})),
        with("layers", json!([1])),
        with("layers", json!([{"mediaType": "x", "size": 1}])),
        with("subject", json!("sha256:x")),
        with(
            "subject",
            json!({"mediaType": OCI_MANIFEST, "digest": "sha256:x", "size": 1}),
        ),
        with("annotations", json!([])),
        with("annotations", json!({"key": 1})),
    ] {
        is_refused(registry, OCI_MANIFEST, body).await;
    }
    is_refused(
        registry,
        OCI_INDEX,
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX}).to_string(),
    )
    .await;
    is_refused(
        registry,
        OCI_INDEX,
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [1]}).to_string(),
    )
    .await;
}

async fn other_media_types(registry: &Registry) {
    for media_type in [
        "text/html",
        "application/x-tar",
        "application/vnd.oci.image.config.v1+json",
    ] {
        is_refused(registry, media_type, good().to_string()).await;
        is_refused(registry, OCI_MANIFEST, with("mediaType", media_type.into())).await;
    }
    // What the header says and what the body says are to be the same.
    is_refused(registry, OCI_INDEX, good().to_string()).await;
    is_refused(registry, OCI_MANIFEST, index(&[]).to_string()).await;
    is_refused(registry, DOCKER_MANIFEST, good().to_string()).await;
}

async fn dockers_first_schema(registry: &Registry) {
    let body = json!({"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "history": [], "signatures": []});
    for media_type in [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
    ] {
        is_refused(registry, media_type, body.to_string()).await;
    }
}

async fn another_digest(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image_parts(1).await.manifest;
    let mut changed = image.clone();
    changed.body = [&image.body[..], b"  "].concat().into();
    repository
        .put_manifest(image.digest(), &changed)
        .await
        .refused(400, "DIGEST_INVALID");
    let query = format!("{}?tag=a", image.digest());
    repository
        .put_manifest(query, &changed)
        .await
        .refused(400, "DIGEST_INVALID");
    repository
        .get_manifest(image.digest())
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    repository
        .get_manifest(changed.digest())
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    assert!(repository.tags().await.is_empty());
}

async fn ambiguous_manifests(registry: &Registry) {
    // Two readers may take these for different things (CVE-2021-41190).
    is_refused(registry, OCI_MANIFEST, with("manifests", json!([]))).await;
    is_refused(registry, OCI_MANIFEST, with("fsLayers", json!([]))).await;
    let good = good().to_string();
    let twice = format!(
        "{},\"config\":{}}}",
        &good[..good.len() - 1],
        descriptor_of(OCI_CONFIG, b"x")
    );
    is_refused(registry, OCI_MANIFEST, twice).await;
    is_refused(
        registry,
        OCI_MANIFEST,
        with("Config", descriptor_of(OCI_CONFIG, b"x")),
    )
    .await;
}
