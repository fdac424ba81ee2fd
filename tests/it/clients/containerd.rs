//! containerd, by its client `ctr`.

use harness::containerd::{Containerd, Listed};
use harness::document::{OCI_INDEX, OCI_MANIFEST};
use harness::door::Site;
use harness::images::{DEBIAN, Images, MULTI, ZSTD};
use harness::node::{Edge, Origin};

use super::{containers, push, resolve};

fn listed(media_type: &str, digest: &str) -> Listed {
    Listed {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
    }
}

#[tokio::test]
async fn pulls_by_tag_and_digest_also_without_the_origin() {
    let mut site = Site::start().await;
    let (images, tools, ctr) = (Images::shared(), containers(&site), Containerd::start());
    let edge = site.edge.address();
    let all = [
        (DEBIAN, OCI_MANIFEST),
        (ZSTD, OCI_MANIFEST),
        (MULTI, OCI_INDEX),
    ];
    for (image, _) in all {
        push(&tools, image, edge, &format!("t/all:{image}"));
    }
    for (namespace, door) in [("cold", edge), ("origin", site.origin.address())] {
        for (image, media_type) in all {
            let digest = images.digest(image);
            let expected = listed(media_type, &digest);
            let pulled = ctr.pull(namespace, &format!("{door}/t/all:{image}"));
            assert_eq!(pulled, expected);
            let pulled = ctr.pull(namespace, &format!("{door}/t/all@{digest}"));
            assert_eq!(pulled, expected);
        }
        let content = ctr.content(namespace);
        for (image, _) in all {
            let missing: Vec<_> = images.parts(image);
            let missing = missing.iter().filter(|part| !content.contains(part));
            assert_eq!(missing.count(), 0, "{image}: {content:?}");
        }
    }

    site.origin.stop();
    for (namespace, reference) in [
        ("by-tag", format!(":{ZSTD}")),
        ("by-digest", format!("@{}", images.digest(ZSTD))),
    ] {
        let pulled = ctr.pull(namespace, &format!("{edge}/t/all{reference}"));
        assert_eq!(pulled, listed(OCI_MANIFEST, &images.digest(ZSTD)));
    }
    let pulled = ctr.pull("index", &format!("{edge}/t/all:{MULTI}"));
    assert_eq!(pulled, listed(OCI_INDEX, &images.digest(MULTI)));
}

#[tokio::test]
async fn pushes_what_the_others_pull() {
    let site = Site::start().await;
    let (images, tools, ctr) = (Images::shared(), containers(&site), Containerd::start());
    let archive = tools.sandbox().join("multi.tar");
    // From one repository to another it would only mount.
    let archive = archive.to_str().unwrap();
    tools.copy(&images.source(MULTI), &format!("oci-archive:{archive}:1"));
    for (number, door) in site.doors().into_iter().enumerate() {
        let repository = format!("t/multi-{number}");
        let name = format!("{door}/{repository}");
        let args = [
            "images",
            "import",
            "--all-platforms",
            "--base-name",
            &name,
            archive,
        ];
        ctr.run("own", &args);
        ctr.push("own", &format!("{name}:1"));
        let digest = images.digest(MULTI);
        assert_eq!(
            resolve(&site, &repository, "1").await,
            (OCI_INDEX.to_owned(), digest)
        );
        for from in site.doors() {
            let raw = tools.raw(&format!("{from}/{repository}:1"));
            assert_eq!(raw, images.document(MULTI).body);
            let storage = format!("{number}-{}", from.port());
            tools.podman_pull(&storage, &format!("{from}/{repository}:1"));
        }
    }

    let refusal = ctr.refusal(
        "own",
        &[
            "images",
            "pull",
            "--plain-http",
            &format!("{}/t/multi-0:none", site.edge.address()),
        ],
    );
    assert!(refusal.contains("not found"), "{refusal}");
}

#[tokio::test]
async fn takes_an_edge_for_a_mirror() {
    let origin = Origin::start().await;
    let url = format!("http://{}", origin.address());
    let sets = [r#"origin.names=["registry.test"]"#.to_owned()];
    let edge = Edge::start_with(&url, &sets).await;
    let site = Site { edge, origin };
    let (images, tools, ctr) = (Images::shared(), containers(&site), Containerd::start());
    push(&tools, MULTI, site.origin.address(), "t/multi:1");
    // Each of its requests to the edge says `?ns=registry.test`.
    let [option, hosts] = ctr.mirror("registry.test", site.edge.address());
    for reference in [":1".to_owned(), format!("@{}", images.digest(MULTI))] {
        let image = format!("registry.test/t/multi{reference}");
        ctr.run("own", &["images", "pull", &option, &hosts, &image]);
        assert_eq!(
            ctr.listed("own", &image),
            listed(OCI_INDEX, &images.digest(MULTI))
        );
    }
}
