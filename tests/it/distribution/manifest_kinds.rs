//! Every kind of manifest is taken, and comes back byte for byte with its type.

use harness::at_each_door;
use harness::content::Content;
use harness::document::{
    DOCKER_LIST, DOCKER_MANIFEST, Document, OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER,
    OCI_MANIFEST, artifact, descriptor, descriptor_of, docker_image, image, index,
};
use harness::door::Registry;
use harness::repository::Repository;
use http::Method;
use serde_json::{Value, json};

at_each_door!(
    images,
    indexes,
    artifacts,
    docker_manifests,
    custom_fields_and_data,
    non_distributable_layers,
    one_layer_twice,
    the_media_type_may_be_in_the_header_alone,
    parameters_of_the_content_type_do_not_count,
    odd_bytes_stay_as_they_are
);

/// Pushes by digest and by tag, and fetches by both.
async fn comes_back(repository: &Repository, document: &Document) {
    let digest = document.digest().to_string();
    for reference in [digest.as_str(), "tag"] {
        let reply = repository
            .put_manifest(reference, document)
            .await
            .expect(201);
        let reply = reply
            .with_header("docker-content-digest", &digest)
            .without_header("warning");
        let at_location = repository
            .client()
            .get(reply.location())
            .send()
            .await
            .expect(200);
        for reply in [
            at_location,
            repository.get_manifest(reference).await.expect(200),
        ] {
            let reply = reply
                .with_body(&document.body)
                .with_header("content-type", &document.media_type);
            reply.with_header("docker-content-digest", &digest);
        }
    }
}

async fn layer(repository: &Repository, seed: u64) -> Value {
    let content = Content::new(seed, 1000);
    descriptor(
        OCI_LAYER,
        &repository.push(content.bytes()).await,
        content.size(),
    )
}

async fn config(repository: &Repository) -> Value {
    repository.push("{}").await;
    descriptor_of(OCI_CONFIG, b"{}")
}

async fn images(registry: &Registry) {
    let repository = registry.repository("team/app");
    let config = config(&repository).await;
    let layers = [layer(&repository, 1).await, layer(&repository, 2).await];
    comes_back(&repository, &Document::new(&image(&config, &layers))).await;
    comes_back(&repository, &Document::new(&image(&config, &[]))).await;
    let mut zstd = image(&config, &layers);
    zstd["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd".into();
    comes_back(&repository, &Document::new(&zstd)).await;
}

async fn indexes(registry: &Registry) {
    let repository = registry.repository("team/app");
    let config = config(&repository).await;
    let mut children = Vec::new();
    for (seed, architecture) in (0..).zip(["amd64", "arm64"]) {
        let json = image(&config, &[layer(&repository, seed).await]);
        let mut child = repository.push_manifest(&json).await.descriptor();
        child["platform"] = json!({"os": "linux", "architecture": architecture});
        children.push(child);
    }
    let list = Document::new(&index(&children));
    comes_back(&repository, &list).await;
    comes_back(&repository, &Document::new(&index(&[]))).await;
    let nested = index(&[list.descriptor(), Document::new(&index(&[])).descriptor()]);
    comes_back(&repository, &Document::new(&nested)).await;
}

async fn artifacts(registry: &Registry) {
    let repository = registry.repository("team/app");
    repository.push("{}").await;
    let first = Document::new(&artifact("application/vnd.test.sbom"));
    comes_back(&repository, &first).await;
    let mut list = index(&[first.descriptor()]);
    list["artifactType"] = "application/vnd.test.bundle".into();
    comes_back(&repository, &Document::new(&list)).await;
    let mut old = json!({
        "mediaType": "application/vnd.oci.artifact.manifest.v1+json",
        "artifactType": "application/vnd.test.old",
        "blobs": [descriptor_of(OCI_EMPTY, b"{}")],
    });
    comes_back(&repository, &Document::new(&old)).await;
    old["blobs"] = json!([]);
    comes_back(&repository, &Document::new(&old)).await;
}

async fn docker_manifests(registry: &Registry) {
    let repository = registry.repository("team/app");
    let mut config = config(&repository).await;
    config["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    let mut layer = layer(&repository, 1).await;
    layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
    let image = Document::new(&docker_image(&config, &[layer]));
    assert_eq!(image.media_type, DOCKER_MANIFEST);
    comes_back(&repository, &image).await;
    let mut list = index(&[image.descriptor()]);
    list["mediaType"] = DOCKER_LIST.into();
    list["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "amd64"});
    comes_back(&repository, &Document::new(&list)).await;
}

async fn custom_fields_and_data(registry: &Registry) {
    let repository = registry.repository("team/app");
    let mut config = config(&repository).await;
    config["data"] = "e30=".into();
    let mut custom = image(&config, &[layer(&repository, 1).await]);
    custom["org.EXAMPLE.unknown"] = json!({"deep": [1, 2.5, null, {"er": true}]});
    custom["annotations"] = json!({"org.example.key": "ä \u{1F980} \\ \" \n"});
    comes_back(&repository, &Document::new(&custom)).await;
}

async fn non_distributable_layers(registry: &Registry) {
    let repository = registry.repository("team/app");
    let config = config(&repository).await;
    for media_type in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        // Nobody pushes these: they are fetched from elsewhere.
        let never_pushed = Content::new(99, 1000);
        let mut layer = descriptor(media_type, &never_pushed.sha256(), never_pushed.size());
        layer["urls"] = json!(["https://example.invalid/layer"]);
        comes_back(&repository, &Document::new(&image(&config, &[layer]))).await;
        repository
            .get_blob(&never_pushed.sha256())
            .await
            .refused(404, "BLOB_UNKNOWN");
    }
}

async fn one_layer_twice(registry: &Registry) {
    let repository = registry.repository("team/app");
    let config = config(&repository).await;
    let layer = layer(&repository, 1).await;
    let twice = image(&config, &[layer.clone(), layer]);
    comes_back(&repository, &Document::new(&twice)).await;
}

async fn the_media_type_may_be_in_the_header_alone(registry: &Registry) {
    let repository = registry.repository("team/app");
    let config = config(&repository).await;
    for (mut json, media_type) in [(image(&config, &[]), OCI_MANIFEST), (index(&[]), OCI_INDEX)] {
        json.as_object_mut().unwrap().remove("mediaType");
        let mut document = Document::new(&json);
        document.media_type = media_type.to_owned();
        comes_back(&repository, &document).await;
    }
}

async fn parameters_of_the_content_type_do_not_count(registry: &Registry) {
    let repository = registry.repository("team/app");
    let document = Document::new(&image(&config(&repository).await, &[]));
    for content_type in [
        format!("{OCI_MANIFEST}; charset=utf-8"),
        format!("{OCI_MANIFEST};x=y"),
    ] {
        let put = repository
            .manifest(Method::PUT, "tag")
            .header("content-type", content_type);
        put.body(document.body.clone()).send().await.expect(201);
        let reply = repository.get_manifest("tag").await.expect(200);
        reply
            .with_header("content-type", OCI_MANIFEST)
            .with_body(&document.body);
    }
}

async fn odd_bytes_stay_as_they_are(registry: &Registry) {
    let repository = registry.repository("team/app");
    let plain = Document::new(&image(&config(&repository).await, &[]));
    let plain = std::str::from_utf8(&plain.body).unwrap();
    for body in [
        format!("{plain}\n"),
        format!("\r\n\t {plain} \n\n"),
        plain.replace('{', "{\n\n"),
        plain.replace("schemaVersion", "schema\\u0056ersion"),
    ] {
        let document = Document {
            media_type: OCI_MANIFEST.to_owned(),
            body: body.into(),
        };
        comes_back(&repository, &document).await;
    }
}
