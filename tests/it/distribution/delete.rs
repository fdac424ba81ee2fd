//! Deleting tags, manifests and blobs: seen at once, and undone by pushing again.

use harness::at_each_door;
use harness::content::Content;
use harness::document::index;
use harness::door::Registry;
use http::Method;

at_each_door!(
    a_deleted_tag_leaves_its_manifest,
    a_deleted_manifest_takes_its_tags,
    a_deleted_child_leaves_its_index,
    a_blob_is_deleted_in_its_repository,
    deleting_what_is_not_there,
    pushing_again_brings_it_back,
    deleting_twice
);

async fn a_deleted_tag_leaves_its_manifest(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image("a", 1).await.manifest;
    repository.put_manifest("b", &image).await.expect(201);
    repository.get_manifest("a").await.expect(200);
    repository
        .manifest(Method::DELETE, "a")
        .send()
        .await
        .expect(202);
    repository
        .manifest(Method::HEAD, "a")
        .send()
        .await
        .expect(404);
    repository
        .get_manifest("a")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    repository
        .get_manifest("b")
        .await
        .expect(200)
        .with_body(&image.body);
    repository
        .get_manifest(image.digest())
        .await
        .expect(200)
        .with_body(&image.body);
    assert_eq!(repository.tags().await, ["b"]);
}

async fn a_deleted_manifest_takes_its_tags(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image("a", 1).await;
    repository
        .put_manifest("b", &image.manifest)
        .await
        .expect(201);
    let other = repository.push_image("c", 2).await.manifest;
    for reference in ["a", "b", "c"] {
        repository.get_manifest(reference).await.expect(200);
    }
    let digest = image.manifest.digest();
    repository
        .manifest(Method::DELETE, digest)
        .send()
        .await
        .expect(202);
    repository
        .manifest(Method::HEAD, digest)
        .send()
        .await
        .expect(404);
    repository
        .get_manifest(digest)
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    for tag in ["a", "b"] {
        repository
            .get_manifest(tag)
            .await
            .refused(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(repository.tags().await, ["c"]);
    repository
        .get_manifest("c")
        .await
        .expect(200)
        .with_body(&other.body);
    repository.get_blob(&image.layer_digest()).await.expect(200);
}

async fn a_deleted_child_leaves_its_index(registry: &Registry) {
    let repository = registry.repository("team/app");
    let child = repository.push_image("child", 1).await.manifest;
    let list = repository
        .push_manifest(&index(&[child.descriptor()]))
        .await;
    repository
        .manifest(Method::DELETE, child.digest())
        .send()
        .await
        .expect(202);
    repository
        .get_manifest(child.digest())
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    repository
        .get_manifest(list.digest())
        .await
        .expect(200)
        .with_body(&list.body);
}

async fn a_blob_is_deleted_in_its_repository(registry: &Registry) {
    let (here, there) = (
        registry.repository("team/here"),
        registry.repository("team/there"),
    );
    let bytes = Content::new(1, 5000).bytes();
    let digest = here.push(bytes.clone()).await;
    there.push(bytes.clone()).await;
    here.get_blob(&digest).await.expect(200);
    here.blob(Method::DELETE, &digest).send().await.expect(202);
    here.blob(Method::HEAD, &digest).send().await.expect(404);
    here.get_blob(&digest).await.refused(404, "BLOB_UNKNOWN");
    there.get_blob(&digest).await.expect(200).with_body(&bytes);
    there.blob(Method::DELETE, &digest).send().await.expect(202);
    there.blob(Method::HEAD, &digest).send().await.expect(404);
}

async fn deleting_what_is_not_there(registry: &Registry) {
    let repository = registry.repository("team/app");
    let missing = Content::new(1, 1).sha256();
    for code in ["NAME_UNKNOWN", "MANIFEST_UNKNOWN"] {
        repository
            .manifest(Method::DELETE, "latest")
            .send()
            .await
            .refused(404, code);
        repository
            .manifest(Method::DELETE, missing)
            .send()
            .await
            .refused(404, code);
        repository.push("{}").await;
    }
    repository
        .blob(Method::DELETE, &missing)
        .send()
        .await
        .refused(404, "BLOB_UNKNOWN");
}

async fn pushing_again_brings_it_back(registry: &Registry) {
    let repository = registry.repository("team/app");
    for _ in 0..3 {
        let image = repository.push_image("latest", 1).await;
        let digest = image.manifest.digest();
        repository
            .get_manifest("latest")
            .await
            .expect(200)
            .with_body(&image.manifest.body);
        repository
            .get_manifest(digest)
            .await
            .expect(200)
            .with_body(&image.manifest.body);
        repository
            .get_blob(&image.layer_digest())
            .await
            .expect(200)
            .with_body(&image.layer);
        repository
            .manifest(Method::DELETE, "latest")
            .send()
            .await
            .expect(202);
        repository
            .manifest(Method::HEAD, "latest")
            .send()
            .await
            .expect(404);
        repository
            .manifest(Method::DELETE, digest)
            .send()
            .await
            .expect(202);
        repository
            .manifest(Method::HEAD, digest)
            .send()
            .await
            .expect(404);
        for blob in [image.layer_digest(), image.config_digest()] {
            repository
                .blob(Method::DELETE, &blob)
                .send()
                .await
                .expect(202);
            repository
                .blob(Method::HEAD, &blob)
                .send()
                .await
                .expect(404);
        }
    }
}

async fn deleting_twice(registry: &Registry) {
    let repository = registry.repository("team/app");
    let image = repository.push_image("latest", 1).await;
    repository
        .manifest(Method::DELETE, "latest")
        .send()
        .await
        .expect(202);
    repository
        .manifest(Method::DELETE, "latest")
        .send()
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    let digest = image.manifest.digest();
    repository
        .manifest(Method::DELETE, digest)
        .send()
        .await
        .expect(202);
    repository
        .manifest(Method::DELETE, digest)
        .send()
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    let layer = image.layer_digest();
    repository
        .blob(Method::DELETE, &layer)
        .send()
        .await
        .expect(202);
    repository
        .blob(Method::DELETE, &layer)
        .send()
        .await
        .refused(404, "BLOB_UNKNOWN");
}
