//! The referrers of a manifest: what is listed, filtered, paged.

use harness::at_each_door;
use harness::content::Content;
use harness::document::{
    Document, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, descriptor, descriptor_of, image, index,
    referrer,
};
use harness::door::Registry;
use harness::reply::Reply;
use harness::repository::{Repository, digests};
use http::Method;
use serde_json::{Value, json};

use super::tags::next_page;

at_each_door!(
    none,
    what_is_listed,
    a_missing_subject,
    filters,
    pages,
    a_deleted_referrer_is_not_listed,
    a_deleted_subject_keeps_its_referrers,
    the_referrers_of_another_repository,
    a_bad_digest
);

async fn list(repository: &Repository, subject: &impl ToString, query: &str) -> Reply {
    let path = format!("referrers/{}{query}", subject.to_string());
    let reply = repository.call(Method::GET, &path).send().await.expect(200);
    let reply = reply.with_header("content-type", OCI_INDEX);
    let json = reply.json();
    assert_eq!(
        (&json["schemaVersion"], &json["mediaType"]),
        (&json!(2), &json!(OCI_INDEX)),
        "{reply}"
    );
    reply
}

fn sorted(mut digests: Vec<String>) -> Vec<String> {
    digests.sort();
    digests
}

/// Pushes artifacts of a type that refer to a subject.
async fn push_referrers(
    repository: &Repository,
    subject: &Value,
    artifact_type: &str,
    count: u64,
) -> Vec<String> {
    repository.push("{}").await;
    let mut pushed = Vec::new();
    for number in 0..count {
        let mut json = referrer(artifact_type, subject);
        json["annotations"] = json!({"number": number.to_string()});
        let document = Document::new(&json);
        let reply = repository
            .put_manifest(document.digest(), &document)
            .await
            .expect(201);
        reply.with_header("oci-subject", subject["digest"].as_str().unwrap());
        pushed.push(document.digest().to_string());
    }
    sorted(pushed)
}

async fn none(registry: &Registry) {
    let repository = registry.repository("team/app");
    let unknown = Content::new(1, 1).sha256();
    // A repository that was never used, one that was, and a manifest that is there.
    assert_eq!(
        list(&repository, &unknown, "").await.json()["manifests"],
        json!([])
    );
    let image = repository.push_image("latest", 1).await.manifest;
    assert_eq!(
        list(&repository, &unknown, "").await.json()["manifests"],
        json!([])
    );
    let reply = list(&repository, &image.digest(), "").await;
    assert_eq!(reply.json()["manifests"], json!([]));
    reply
        .without_header("link")
        .without_header("oci-filters-applied");
}

async fn what_is_listed(registry: &Registry) {
    let repository = registry.repository("team/app");
    let subject = repository.push_image("latest", 1).await.manifest;
    repository.push("{}").await;

    let mut artifact = referrer("application/vnd.test.sbom", &subject.descriptor());
    artifact["annotations"] = json!({"org.example.a": "1", "org.example.ä": "\u{1F980}"});
    let mut plain = image(&descriptor_of(OCI_CONFIG, b"{}"), &[]);
    plain["subject"] = subject.descriptor();
    let mut list_of_none = index(&[]);
    list_of_none["subject"] = subject.descriptor();
    let mut list_with_type = list_of_none.clone();
    list_with_type["artifactType"] = "application/vnd.test.bundle".into();

    let mut expected = Vec::new();
    for (json, artifact_type) in [
        (artifact, Some("application/vnd.test.sbom")),
        (plain, Some(OCI_CONFIG)),
        (list_of_none, None),
        (list_with_type, Some("application/vnd.test.bundle")),
    ] {
        let document = Document::new(&json);
        // By tag as by digest.
        for reference in [document.digest().to_string(), "some-tag".to_owned()] {
            let reply = repository
                .put_manifest(reference, &document)
                .await
                .expect(201);
            reply.with_header("oci-subject", &subject.digest().to_string());
        }
        let mut descriptor = document.descriptor();
        if let Some(artifact_type) = artifact_type {
            descriptor["artifactType"] = artifact_type.into();
        }
        if let Some(annotations) = json.get("annotations") {
            descriptor["annotations"] = annotations.clone();
        }
        expected.push(descriptor);
    }
    expected.sort_by_key(|descriptor| descriptor["digest"].as_str().unwrap().to_owned());
    let mut listed = list(&repository, &subject.digest(), "").await.json()["manifests"].clone();
    let listed = listed.as_array_mut().unwrap();
    listed.sort_by_key(|descriptor| descriptor["digest"].as_str().unwrap().to_owned());
    for entry in &mut *listed {
        // None, and that there are none, are the same.
        if entry["annotations"] == json!({}) {
            entry.as_object_mut().unwrap().remove("annotations");
        }
    }
    assert_eq!(*listed, expected);
}

async fn a_missing_subject(registry: &Registry) {
    let repository = registry.repository("team/app");
    let missing = descriptor(OCI_MANIFEST, &Content::new(1, 100).sha256(), 100);
    let pushed = push_referrers(&repository, &missing, "application/vnd.test.sbom", 1).await;
    let reply = list(&repository, &missing["digest"].as_str().unwrap(), "").await;
    assert_eq!(digests(&reply.json()["manifests"]), pushed);
    repository
        .get_manifest(missing["digest"].as_str().unwrap())
        .await
        .refused(404, "MANIFEST_UNKNOWN");
}

async fn filters(registry: &Registry) {
    let repository = registry.repository("team/app");
    let subject = repository.push_image("latest", 1).await.manifest;
    let digest = subject.digest();
    let sboms = push_referrers(
        &repository,
        &subject.descriptor(),
        "application/vnd.test.sbom+json",
        3,
    )
    .await;
    let signatures = push_referrers(
        &repository,
        &subject.descriptor(),
        "application/vnd.test.signature",
        2,
    )
    .await;
    for (artifact_type, expected) in [
        ("application%2Fvnd.test.sbom%2Bjson", &sboms),
        ("application/vnd.test.signature", &signatures),
        ("application/vnd.test.other", &Vec::new()),
    ] {
        let reply = list(
            &repository,
            &digest,
            &format!("?artifactType={artifact_type}"),
        )
        .await;
        let reply = reply.with_header("oci-filters-applied", "artifactType");
        assert_eq!(
            &sorted(digests(&reply.json()["manifests"])),
            expected,
            "{reply}"
        );
    }
    let reply = list(&repository, &digest, "")
        .await
        .without_header("oci-filters-applied");
    assert_eq!(
        sorted(digests(&reply.json()["manifests"])),
        sorted([sboms, signatures].concat())
    );
}

async fn pages(registry: &Registry) {
    let repository = registry.repository("team/app");
    let subject = repository.push_image("latest", 1).await.manifest;
    let sboms = push_referrers(
        &repository,
        &subject.descriptor(),
        "application/vnd.test.sbom+json",
        7,
    )
    .await;
    push_referrers(
        &repository,
        &subject.descriptor(),
        "application/vnd.test.signature",
        3,
    )
    .await;
    for n in [1, 2, 3, 7, 8] {
        let mut seen = Vec::new();
        let query = format!("?artifactType=application%2Fvnd.test.sbom%2Bjson&n={n}");
        let mut next = Some(repository.path(&format!("referrers/{}{query}", subject.digest())));
        while let Some(path) = next {
            let reply = registry.get(&path).send().await.expect(200);
            let reply = reply.with_header("oci-filters-applied", "artifactType");
            let page = digests(&reply.json()["manifests"]);
            assert!(!page.is_empty() && page.len() <= n, "{reply}");
            seen.extend(page);
            next = next_page(&reply);
        }
        assert_eq!(sorted(seen), sboms);
    }
}

async fn a_deleted_referrer_is_not_listed(registry: &Registry) {
    let repository = registry.repository("team/app");
    let subject = repository.push_image("latest", 1).await.manifest;
    let pushed = push_referrers(
        &repository,
        &subject.descriptor(),
        "application/vnd.test.sbom",
        2,
    )
    .await;
    assert_eq!(
        sorted(repository.referrers(&subject.digest()).await),
        pushed
    );
    repository
        .manifest(Method::DELETE, &pushed[0])
        .send()
        .await
        .expect(202);
    assert_eq!(repository.referrers(&subject.digest()).await, pushed[1..]);
    // The same again is there again.
    push_referrers(
        &repository,
        &subject.descriptor(),
        "application/vnd.test.sbom",
        2,
    )
    .await;
    assert_eq!(
        sorted(repository.referrers(&subject.digest()).await),
        pushed
    );
}

async fn a_deleted_subject_keeps_its_referrers(registry: &Registry) {
    let repository = registry.repository("team/app");
    let subject = repository.push_image("latest", 1).await.manifest;
    let pushed = push_referrers(
        &repository,
        &subject.descriptor(),
        "application/vnd.test.sbom",
        1,
    )
    .await;
    repository
        .manifest(Method::DELETE, subject.digest())
        .send()
        .await
        .expect(202);
    assert_eq!(repository.referrers(&subject.digest()).await, pushed);
}

async fn the_referrers_of_another_repository(registry: &Registry) {
    let (here, there) = (
        registry.repository("team/here"),
        registry.repository("team/there"),
    );
    let subject = here.push_image("latest", 1).await.manifest;
    there.push_image("latest", 1).await;
    let pushed = push_referrers(&here, &subject.descriptor(), "application/vnd.test.sbom", 1).await;
    assert_eq!(here.referrers(&subject.digest()).await, pushed);
    assert!(there.referrers(&subject.digest()).await.is_empty());
}

async fn a_bad_digest(registry: &Registry) {
    let repository = registry.repository("team/app");
    repository.push("{}").await;
    for digest in [
        "latest",
        "sha256:x",
        "sha256-x",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
    ] {
        let reply = repository
            .call(Method::GET, &format!("referrers/{digest}"))
            .send()
            .await;
        reply.refused(400, "DIGEST_INVALID");
    }
}
