//! buildah.

use harness::document::{DOCKER_LIST, OCI_INDEX, OCI_MANIFEST};
use harness::door::Site;
use harness::images::Images;

use super::{containers, layer_types, manifest, resolve};

#[tokio::test]
async fn builds_and_pushes_images_and_their_index() {
    let site = Site::start().await;
    let tools = containers(&site);
    let wheels = Images::wheels();
    for architecture in ["amd64", "arm64"] {
        let container = tools.buildah(&["from", "scratch"]);
        tools.buildah(&["add", &container, wheels.to_str().unwrap(), "/wheels"]);
        tools.buildah(&["config", "--arch", architecture, &container]);
        tools.buildah(&["commit", "--rm", &container, architecture]);
    }
    tools.buildah(&["manifest", "create", "both"]);
    for architecture in ["amd64", "arm64"] {
        tools.buildah(&["manifest", "add", "both", architecture]);
    }

    for (number, door) in site.doors().into_iter().enumerate() {
        let repository = format!("t/wheels-{number}");
        let at = format!("docker://{door}/{repository}");
        tools.buildah(&["push", "amd64", &format!("{at}:1")]);
        assert_eq!(resolve(&site, &repository, "1").await.0, OCI_MANIFEST);
        for (tag, format, media_type) in [("both", "oci", OCI_INDEX), ("list", "v2s2", DOCKER_LIST)]
        {
            let (format, to) = (format!("--format={format}"), format!("{at}:{tag}"));
            // It alone does not look up how to speak to a registry.
            let plain = "--tls-verify=false";
            tools.buildah(&["manifest", "push", plain, "--all", &format, "both", &to]);
            assert_eq!(resolve(&site, &repository, tag).await.0, media_type);
        }

        let manifest = manifest(&site, &repository, "1").await;
        assert_eq!(
            layer_types(&manifest),
            ["application/vnd.oci.image.layer.v1.tar+gzip"]
        );
        let id = manifest["config"]["digest"].as_str().unwrap();
        let (_, digest) = resolve(&site, &repository, "1").await;
        for from in site.doors() {
            let storage = format!("{number}-{}", from.port());
            for reference in [":1".to_owned(), format!("@{digest}"), ":both".to_owned()] {
                let image = format!("{from}/{repository}{reference}");
                let pulled = tools.podman_pull(&storage, &image);
                assert_eq!(format!("sha256:{pulled}"), id);
            }
        }
    }
}

#[tokio::test]
async fn builds_upon_what_it_pulls() {
    let mut site = Site::start().await;
    let tools = containers(&site);
    let edge = site.edge.address();
    super::push(&tools, harness::images::DEBIAN, edge, "t/debian:1");
    let base = format!("{edge}/t/debian:1");
    let file = format!("FROM {base}\nLABEL built=yes\n");
    let file = tools.sandbox().write("Containerfile", file);
    let directory = tools.sandbox().join("tmp");
    let make = |tag: &str| {
        let (file, directory) = (file.to_str().unwrap(), directory.to_str().unwrap());
        tools.buildah(&[
            "bud",
            "--quiet",
            "--pull-always",
            "--isolation=chroot",
            "--file",
            file,
            "--tag",
            tag,
            directory,
        ]);
    };
    make("first");
    tools.buildah(&["push", "first", &format!("docker://{edge}/t/built:1")]);
    let built = manifest(&site, "t/built", "1").await;
    let below = manifest(&site, "t/debian", "1").await;
    let layers = built["layers"].as_array().unwrap();
    // What was pulled is not pushed again in another form.
    assert_eq!(layers[..2], below["layers"].as_array().unwrap()[..]);

    site.origin.stop();
    tools.buildah(&["rmi", "--all", "--force"]);
    make("second");
}
