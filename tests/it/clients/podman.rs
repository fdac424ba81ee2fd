//! podman.

use harness::containers::Containers;
use harness::document::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use harness::door::Site;
use harness::images::{Images, MULTI, WHEELS, ZSTD};

use super::{containers, layer_types, manifest, push, resolve};

#[tokio::test]
async fn pulls_by_tag_and_digest_also_without_the_origin() {
    let mut site = Site::start().await;
    let (images, tools) = (Images::shared(), containers(&site));
    let edge = site.edge.address();
    push(&tools, ZSTD, edge, "t/debian:zstd");
    push(&tools, MULTI, edge, "t/multi:1");
    let id = images.id(ZSTD).replace("sha256:", "");
    let (zstd, multi) = (images.digest(ZSTD), images.digest(MULTI));

    for (storage, door) in [("cold", edge), ("origin", site.origin.address())] {
        let pulled = tools.podman_pull(storage, &format!("{door}/t/debian:zstd"));
        assert_eq!(pulled, id);
        let pulled = tools.podman_pull(storage, &format!("{door}/t/debian@{zstd}"));
        assert_eq!(pulled, id);
        let by_tag = tools.podman_pull(storage, &format!("{door}/t/multi:1"));
        let by_digest = tools.podman_pull(storage, &format!("{door}/t/multi@{multi}"));
        assert_eq!(by_tag, by_digest);
    }

    site.origin.stop();
    let pulled = tools.podman_pull("warm", &format!("{edge}/t/debian@{zstd}"));
    assert_eq!(pulled, id);
    let pulled = tools.podman_pull("warm", &format!("{edge}/t/debian:zstd"));
    assert_eq!(pulled, id);
    tools.podman_pull("warm", &format!("{edge}/t/multi:1"));
}

#[tokio::test]
async fn pushes_by_every_compression_and_format() {
    let site = Site::start().await;
    let (images, tools) = (Images::shared(), containers(&site));
    tools.podman_pull("own", &images.source(WHEELS));
    let image = images.id(WHEELS).replace("sha256:", "");
    let layers = unpacked_layers(&tools, "own", &image);

    for (number, door) in site.doors().into_iter().enumerate() {
        for (tag, options, media_type, suffix) in [
            ("gzip", &["--format=oci"][..], OCI_MANIFEST, "tar+gzip"),
            (
                "zstd",
                &["--format=oci", "--compression-format=zstd"],
                OCI_MANIFEST,
                "tar+zstd",
            ),
            ("v2s2", &["--format=v2s2"], DOCKER_MANIFEST, "tar.gzip"),
        ] {
            // Else it takes layers that it pushed before, as they are.
            tools.forget_blobs();
            let repository = format!("t/{tag}-{number}");
            let to = format!("docker://{door}/{repository}:1");
            tools.podman("own", &[&["push"], options, &[&image, &to]].concat());

            assert_eq!(resolve(&site, &repository, "1").await.0, media_type);
            let manifest = manifest(&site, &repository, "1").await;
            let types = layer_types(&manifest);
            assert!(types.iter().all(|it| it.ends_with(suffix)), "{types:?}");
        }
        let from = format!("{}/t/zstd-{number}:1", site.edge.address());
        let storage = format!("back-{number}");
        let pulled = tools.podman_pull(&storage, &from);
        assert_eq!(unpacked_layers(&tools, &storage, &pulled), layers);
    }
}

#[tokio::test]
async fn makes_an_index_of_what_is_pushed() {
    let site = Site::start().await;
    let (images, tools) = (Images::shared(), containers(&site));
    let edge = site.edge.address();
    push(&tools, ZSTD, edge, "t/made:amd64");
    let part = format!("docker://{edge}/t/made:amd64");
    tools.podman("own", &["manifest", "create", "made"]);
    tools.podman("own", &["manifest", "add", "made", &part]);
    let to = format!("docker://{edge}/t/made:1");
    tools.podman("own", &["manifest", "push", "--all", "made", &to]);

    assert_eq!(resolve(&site, "t/made", "1").await.0, OCI_INDEX);
    let pulled = tools.podman_pull("other", &format!("{edge}/t/made:1"));
    assert_eq!(format!("sha256:{pulled}"), images.id(ZSTD));
    let refusal = tools.podman_refusal("other", &["pull", &format!("{edge}/t/made:none")]);
    assert!(refusal.contains("manifest unknown"), "{refusal}");
}

/// Returns the digests of an image's layers as they are when unpacked.
fn unpacked_layers(tools: &Containers, storage: &str, image: &str) -> String {
    let format = "--format={{.RootFS.Layers}}";
    tools.podman(storage, &["image", "inspect", format, image])
}
