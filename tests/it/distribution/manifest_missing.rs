//! Manifests whose content is not there (yet): taken with a warning, or refused where the config says so.

use harness::at_each_door;
use harness::content::Content;
use harness::document::{Document, OCI_CONFIG, OCI_LAYER, descriptor, descriptor_of, image, index};
use harness::door::Registry;
use harness::reply::Reply;
use serde_json::Value;

at_each_door!(
    a_missing_layer_is_warned_of,
    a_missing_child_is_taken,
    what_was_missing_may_come_later,
    a_blob_elsewhere_is_missing_here,
    missing_blobs_are_refused with "manifests.missing_blobs=refuse",
    whole_manifests_are_not_refused with "manifests.missing_blobs=refuse",
);

fn missing_layer(seed: u64) -> Value {
    let content = Content::new(seed, 1000);
    descriptor(OCI_LAYER, &content.sha256(), content.size())
}

/// Holds a reply to a warning of some of what is missing: of much, there is no room for all.
#[track_caller]
fn warns_of(reply: &Reply, missing: &[Value]) {
    let warning = reply.header("warning");
    assert!(
        warning.starts_with("299 - \"") && warning.ends_with('"'),
        "{reply}"
    );
    let mut digests = missing
        .iter()
        .map(|layer| layer["digest"].as_str().unwrap());
    assert!(digests.any(|digest| warning.contains(digest)), "{reply}");
    assert!(warning.len() <= 4096, "{reply}");
}

async fn a_missing_layer_is_warned_of(registry: &Registry) {
    let repository = registry.repository("team/app");
    repository.push("{}").await;
    let layers: Vec<_> = (0..100).map(missing_layer).collect();
    for layers in [&layers[..1], &layers[..]] {
        let sparse = Document::new(&image(&descriptor_of(OCI_CONFIG, b"{}"), layers));
        let reply = repository.put_manifest("tag", &sparse).await.expect(201);
        warns_of(&reply, layers);
        repository
            .get_manifest("tag")
            .await
            .expect(200)
            .with_body(&sparse.body);
    }
}

async fn a_missing_child_is_taken(registry: &Registry) {
    let repository = registry.repository("team/app");
    let child = Document::new(&image(
        &descriptor_of(OCI_CONFIG, b"{}"),
        &[missing_layer(1)],
    ));
    let sparse = Document::new(&index(&[child.descriptor()]));
    repository.put_manifest("tag", &sparse).await.expect(201);
    repository
        .get_manifest("tag")
        .await
        .expect(200)
        .with_body(&sparse.body);
    repository
        .get_manifest(child.digest())
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    repository.push("{}").await;
    repository
        .put_manifest(child.digest(), &child)
        .await
        .expect(201);
    repository
        .get_manifest(child.digest())
        .await
        .expect(200)
        .with_body(&child.body);
}

async fn what_was_missing_may_come_later(registry: &Registry) {
    let repository = registry.repository("team/app");
    repository.push("{}").await;
    let layer = Content::new(1, 1000);
    let sparse = Document::new(&image(
        &descriptor_of(OCI_CONFIG, b"{}"),
        &[missing_layer(1)],
    ));
    repository.put_manifest("tag", &sparse).await.expect(201);
    repository
        .get_blob(&layer.sha256())
        .await
        .refused(404, "BLOB_UNKNOWN");
    repository.push(layer.bytes()).await;
    repository
        .get_blob(&layer.sha256())
        .await
        .expect(200)
        .with_body(&layer.bytes());
    repository
        .put_manifest("tag", &sparse)
        .await
        .expect(201)
        .without_header("warning");
}

async fn a_blob_elsewhere_is_missing_here(registry: &Registry) {
    let (here, there) = (
        registry.repository("team/here"),
        registry.repository("team/there"),
    );
    let layer = Content::new(1, 1000);
    there.push(layer.bytes()).await;
    here.push("{}").await;
    let manifest = Document::new(&image(
        &descriptor_of(OCI_CONFIG, b"{}"),
        &[missing_layer(1)],
    ));
    let reply = here.put_manifest("tag", &manifest).await.expect(201);
    warns_of(&reply, &[missing_layer(1)]);
    // Naming a digest is not having it: nobody gets at a blob that way.
    here.get_blob(&layer.sha256())
        .await
        .refused(404, "BLOB_UNKNOWN");
}

async fn missing_blobs_are_refused(registry: &Registry) {
    let repository = registry.repository("team/app");
    repository.push("{}").await;
    let manifest = image(
        &descriptor_of(OCI_CONFIG, b"{}"),
        &[missing_layer(1), missing_layer(2)],
    );
    let manifest = Document::new(&manifest);
    let digest = manifest.digest().to_string();
    for reference in ["tag", &digest] {
        let reply = repository.put_manifest(reference, &manifest).await;
        let reply = reply.refused(404, "MANIFEST_BLOB_UNKNOWN");
        let errors = reply.json()["errors"].to_string();
        for seed in [1, 2] {
            assert!(
                errors.contains(missing_layer(seed)["digest"].as_str().unwrap()),
                "{errors}"
            );
        }
        assert!(
            !errors.contains(&descriptor_of(OCI_CONFIG, b"{}")["digest"].to_string()),
            "{errors}"
        );
        repository
            .get_manifest(reference)
            .await
            .refused(404, "MANIFEST_UNKNOWN");
    }
    for seed in [1, 2] {
        repository.push(Content::new(seed, 1000).bytes()).await;
    }
    repository.put_manifest("tag", &manifest).await.expect(201);
}

async fn whole_manifests_are_not_refused(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image("tag", 1).await;
    repository
        .push_manifest(&index(&[image.manifest.descriptor()]))
        .await;
    repository.push_manifest(&index(&[])).await;
    let mut foreign = missing_layer(5);
    foreign["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar".into();
    let config = descriptor_of(OCI_CONFIG, &image.config);
    repository
        .push_manifest(&harness::document::image(&config, &[foreign]))
        .await;
}
