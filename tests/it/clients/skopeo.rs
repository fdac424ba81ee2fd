//! skopeo.

use harness::containers::Containers;
use harness::document::{DOCKER_LIST, OCI_INDEX};
use harness::door::Site;
use harness::images::{DEBIAN, Images, MULTI, SBOM, SBOM_TYPE, WHEELS, ZSTD};
use harness::layout::Layout;
use outport_core::oci::digest::Algorithm;
use serde_json::Value;

use super::{containers, push, resolve};

#[tokio::test]
async fn copies_everything_byte_by_byte() {
    let mut site = Site::start().await;
    let (images, tools) = (Images::shared(), containers(&site));
    let [origin, edge] = site.doors();
    let all = [DEBIAN, ZSTD, MULTI, WHEELS, SBOM];
    for (door, repository) in [(origin, "t/at-the-origin"), (edge, "t/through-the-edge")] {
        for image in all {
            push(&tools, image, door, &format!("{repository}:{image}"));
            let digest = images.digest(image);
            assert_eq!(resolve(&site, repository, image).await.1, digest);
            for from in site.doors() {
                let raw = tools.raw(&format!("{from}/{repository}:{image}"));
                assert_eq!(raw, images.document(image).body);
                assert_eq!(Algorithm::Sha256.digest(&raw).to_string(), digest);
            }
        }
    }
    // Each of them was pushed at one door; now they come out of the other, and once more.
    for (number, (door, repository)) in [
        (edge, "t/at-the-origin"),
        (origin, "t/through-the-edge"),
        (edge, "t/at-the-origin"),
    ]
    .into_iter()
    .enumerate()
    {
        for image in all {
            let from = format!("docker://{door}/{repository}");
            let to = format!("{number}-{image}");
            assert_pulled(&tools, &format!("{from}:{image}"), &to, image);
            let digest = images.digest(image);
            assert_pulled(&tools, &format!("{from}@{digest}"), &to, image);
        }
    }

    site.origin.stop();
    for image in all {
        let from = format!("docker://{edge}/t/at-the-origin");
        let to = format!("away-{image}");
        assert_pulled(&tools, &format!("{from}:{image}"), &to, image);
        let digest = images.digest(image);
        assert_pulled(&tools, &format!("{from}@{digest}"), &to, image);
    }
}

#[tokio::test]
async fn converts_mounts_lists_and_deletes() {
    let site = Site::start().await;
    let tools = containers(&site);
    let images = Images::shared();
    for (number, door) in site.doors().into_iter().enumerate() {
        let repository = format!("t/multi-{number}");
        push(&tools, MULTI, door, &format!("{repository}:1"));
        let at = format!("docker://{door}/{repository}");
        let (first, list) = (format!("{at}:1"), format!("{at}:list"));
        tools.skopeo(&["copy", "--all", "--format=v2s2", &first, &list]);
        assert_eq!(resolve(&site, &repository, "1").await.0, OCI_INDEX);
        assert_eq!(resolve(&site, &repository, "list").await.0, DOCKER_LIST);

        // It knows that the layers are in the other repository, and asks for them to be mounted.
        let other = format!("t/other-{number}");
        tools.copy(&first, &format!("docker://{door}/{other}:1"));
        assert_eq!(resolve(&site, &other, "1").await.1, images.digest(MULTI));

        let tags: Value = serde_json::from_str(&tools.skopeo(&["list-tags", &at])).unwrap();
        assert_eq!(tags["Tags"], serde_json::json!(["1", "list"]));

        tools.skopeo(&["delete", &list]);
        let refusal = tools.skopeo_refusal(&["inspect", &list]);
        assert!(refusal.contains("manifest unknown"), "{refusal}");
        tools.skopeo(&["inspect", &first]);
    }
}

#[tokio::test]
async fn an_artifact_is_found_by_its_subject() {
    let site = Site::start().await;
    let (images, tools) = (Images::shared(), containers(&site));
    push(&tools, WHEELS, site.edge.address(), "t/wheels:1");
    push(&tools, SBOM, site.edge.address(), "t/wheels:sbom");
    for client in [site.origin.client(), site.edge.client()] {
        let path = format!("/v2/t/wheels/referrers/{}", images.digest(WHEELS));
        let reply = client.get(&path).send().await.expect(200);
        let found = &reply.json()["manifests"];
        assert_eq!(found[0]["digest"], images.digest(SBOM));
        assert_eq!(found[0]["artifactType"], SBOM_TYPE);
        assert_eq!(found[1], Value::Null);
    }
}

/// Pulls an image into a new layout and holds it to having all the parts, each with the right content.
#[track_caller]
pub(super) fn assert_pulled(tools: &Containers, from: &str, to: &str, image: &str) {
    let images = Images::shared();
    let path = tools.sandbox().join(to);
    tools.copy(from, &format!("oci:{}:{image}", path.display()));
    let layout = Layout::open(&path);
    let pulled = layout.tagged(image);
    assert_eq!(pulled["digest"], images.digest(image));
    assert_eq!(layout.parts(&pulled), images.parts(image));
    std::fs::remove_dir_all(path).unwrap();
}
