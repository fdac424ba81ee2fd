//! Docker's daemon.

use harness::containerd::Containerd;
use harness::docker::Docker;
use harness::document::{DOCKER_MANIFEST, OCI_MANIFEST};
use harness::door::Site;
use harness::images::{DEBIAN, Images, MULTI, SBOM, WHEELS};
use outport_core::oci::digest::Algorithm;
use serde_json::Value;

use super::{containers, push, resolve};

#[tokio::test]
async fn pulls_by_tag_and_digest_also_without_the_origin() {
    let mut site = Site::start().await;
    let (images, tools, docker) = (Images::shared(), containers(&site), Docker::start());
    let edge = site.edge.address();
    push(&tools, DEBIAN, edge, "t/debian:1");
    let (id, digest) = (images.id(DEBIAN), images.digest(DEBIAN));
    assert_eq!(
        resolve(&site, "t/debian", "1").await,
        (OCI_MANIFEST.to_owned(), digest.clone())
    );

    // Cold: nobody has pulled it yet.
    let by_tag = format!("{edge}/t/debian:1");
    assert_eq!(docker.pull(&by_tag), id);
    let known = docker.run(&["image", "inspect", "--format", "{{.RepoDigests}}", &by_tag]);
    assert_eq!(known, format!("[{edge}/t/debian@{digest}]"));
    for door in site.doors() {
        assert_eq!(docker.pull(&format!("{door}/t/debian:1")), id);
        assert_eq!(docker.pull(&format!("{door}/t/debian@{digest}")), id);
    }
    docker.forget();

    site.origin.stop();
    assert_eq!(docker.pull(&by_tag), id);
    docker.forget();
    assert_eq!(docker.pull(&format!("{edge}/t/debian@{digest}")), id);
}

#[tokio::test]
async fn pushes_what_the_others_pull() {
    let mut site = Site::start().await;
    let (tools, docker, ctr) = (containers(&site), Docker::start(), Containerd::start());
    let [origin, edge] = site.doors();
    for (door, name) in [(origin, "t/at-the-origin"), (edge, "t/through-the-edge")] {
        let context = Images::wheels();
        std::fs::write(
            docker.sandbox().join("Dockerfile"),
            format!("FROM scratch\nCOPY . /wheels\nLABEL door={name}\n"),
        )
        .unwrap();
        let image = format!("{door}/{name}:1");
        let file = docker.sandbox().text("Dockerfile");
        let context = context.to_str().unwrap();
        docker.run(&[
            "build",
            "--network=none",
            "--file",
            &file,
            "--tag",
            &image,
            context,
        ]);
        let id = docker.run(&["image", "inspect", "--format", "{{.Id}}", &image]);
        let digest = docker.push(&image);
        assert_eq!(
            resolve(&site, name, "1").await,
            (DOCKER_MANIFEST.to_owned(), digest.clone())
        );

        for from in site.doors() {
            let storage = format!("{}", from.port());
            let by_digest = format!("{from}/{name}@{digest}");
            let by_tag = format!("{from}/{name}:1");
            for image in [&by_tag, &by_digest] {
                let pulled = tools.podman_pull(&storage, image);
                assert_eq!(format!("sha256:{pulled}"), id);
                let pulled = ctr.pull(&storage, image);
                assert_eq!(
                    (pulled.media_type.as_str(), &pulled.digest),
                    (DOCKER_MANIFEST, &digest)
                );
                assert_eq!(
                    Algorithm::Sha256.digest(&tools.raw(image)).to_string(),
                    digest
                );
            }
        }
        docker.forget();
        assert_eq!(docker.pull(&format!("{edge}/{name}:1")), id);
        // All of it is there: a push has nothing to send.
        assert_eq!(docker.push(&format!("{edge}/{name}:1")), digest);
        // The edge forgets a tag that is pushed, until somebody asks for it.
        tools.raw(&format!("{edge}/{name}:1"));
    }

    site.origin.stop();
    for name in ["t/at-the-origin", "t/through-the-edge"] {
        let image = format!("{edge}/{name}:1");
        let pulled = tools.podman_pull("away", &image);
        let listed = ctr.pull("away", &image);
        let raw = tools.raw(&format!("{edge}/{name}@{}", listed.digest));
        let manifest: Value = serde_json::from_slice(&raw).unwrap();
        assert_eq!(manifest["config"]["digest"], format!("sha256:{pulled}"));
    }
}

#[tokio::test]
async fn takes_its_platform_from_an_index_and_understands_refusals() {
    let site = Site::start().await;
    let (images, tools, docker) = (Images::shared(), containers(&site), Docker::start());
    let edge = site.edge.address();
    push(&tools, MULTI, edge, "t/multi:1");
    push(&tools, WHEELS, edge, "t/multi:alone");
    push(&tools, SBOM, edge, "t/multi:sbom");

    assert_eq!(docker.pull(&format!("{edge}/t/multi:1")), images.id(WHEELS));
    let by_digest = format!("{edge}/t/multi@{}", images.digest(MULTI));
    assert_eq!(docker.pull(&by_digest), images.id(WHEELS));
    docker.forget();
    docker.run(&["pull", "--quiet", "--platform=linux/arm64", &by_digest]);
    let format = "--format={{.Architecture}}";
    let architecture = docker.run(&["image", "inspect", format, &by_digest]);
    assert_eq!(architecture, "arm64");

    for (name, said) in [
        ("t/multi:none", "t/multi:none not found"),
        ("t/none:1", "t/none not found"),
    ] {
        for door in site.doors() {
            let refusal = docker.refusal(&["pull", &format!("{door}/{name}")]);
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
