//! Referrers that were pushed to a registry without the API, as an index at a tag, are listed all the same.

use harness::at_each_door;
use harness::content::Content;
use harness::document::{Document, OCI_MANIFEST, artifact, descriptor, index};
use harness::door::Registry;
use harness::repository::Repository;
use http::Method;
use serde_json::json;

at_each_door!(
    an_index_at_the_fallback_tag,
    what_is_not_there_is_not_listed,
    beside_those_that_were_pushed,
    the_tag_stays_a_plain_one,
    something_else_at_the_tag
);

fn fallback_tag(subject: &Document) -> String {
    subject.digest().to_string().replace(':', "-")
}

/// Pushes an artifact that names no subject, as old clients did not.
async fn push_artifact(repository: &Repository, number: u64) -> Document {
    repository.push("{}").await;
    let mut json = artifact("application/vnd.test.sbom");
    json["annotations"] = json!({"number": number.to_string()});
    repository.push_manifest(&json).await
}

async fn an_index_at_the_fallback_tag(registry: &Registry) {
    let repository = registry.repository("team/app");
    let subject = repository.push_image("latest", 1).await.manifest;
    let first = push_artifact(&repository, 1).await;
    let list = Document::new(&index(&[first.descriptor()]));
    repository
        .put_manifest(fallback_tag(&subject), &list)
        .await
        .expect(201);
    let path = format!("referrers/{}", subject.digest());
    let reply = repository.call(Method::GET, &path).send().await.expect(200);
    let mut expected = first.descriptor();
    expected["artifactType"] = "application/vnd.test.sbom".into();
    expected["annotations"] = json!({"number": "1"});
    assert_eq!(reply.json()["manifests"], json!([expected]));
    let filtered = |artifact_type| {
        repository
            .call(Method::GET, &format!("{path}?artifactType={artifact_type}"))
            .send()
    };
    let reply = filtered("application/vnd.test.sbom").await.expect(200);
    assert_eq!(reply.json()["manifests"], json!([expected]));
    let reply = filtered("application/vnd.test.other").await.expect(200);
    assert_eq!(reply.json()["manifests"], json!([]));
}

async fn what_is_not_there_is_not_listed(registry: &Registry) {
    let repository = registry.repository("team/app");
    let subject = repository.push_image("latest", 1).await.manifest;
    let first = push_artifact(&repository, 1).await;
    let missing = descriptor(OCI_MANIFEST, &Content::new(1, 100).sha256(), 100);
    let list = Document::new(&index(&[missing, first.descriptor()]));
    repository
        .put_manifest(fallback_tag(&subject), &list)
        .await
        .expect(201);
    assert_eq!(
        repository.referrers(&subject.digest()).await,
        [first.digest().to_string()]
    );
    repository
        .manifest(Method::DELETE, first.digest())
        .send()
        .await
        .expect(202);
    assert!(repository.referrers(&subject.digest()).await.is_empty());
}

async fn beside_those_that_were_pushed(registry: &Registry) {
    let repository = registry.repository("team/app");
    let subject = repository.push_image("latest", 1).await.manifest;
    let mut expected = Vec::new();
    let mut imported = Vec::new();
    for number in 0..6 {
        let document = push_artifact(&repository, number).await;
        imported.push(document.descriptor());
        expected.push(document.digest().to_string());
    }
    for number in 0..6 {
        let mut json = artifact("application/vnd.test.sbom");
        json["annotations"] = json!({"pushed": number.to_string()});
        json["subject"] = subject.descriptor();
        let document = repository.push_manifest(&json).await;
        // A client that is not sure does both.
        imported.push(document.descriptor());
        expected.push(document.digest().to_string());
    }
    let list = Document::new(&index(&imported));
    repository
        .put_manifest(fallback_tag(&subject), &list)
        .await
        .expect(201);
    expected.sort();
    for n in [1, 5, 12, 100] {
        let mut seen = Vec::new();
        let mut next = Some(repository.path(&format!("referrers/{}?n={n}", subject.digest())));
        while let Some(path) = next {
            let reply = registry.get(&path).send().await.expect(200);
            let page = harness::repository::digests(&reply.json()["manifests"]);
            assert!(!page.is_empty() && page.len() <= n, "{reply}");
            seen.extend(page);
            next = super::tags::next_page(&reply);
        }
        seen.sort();
        assert_eq!(seen, expected, "by {n}");
    }
}

async fn the_tag_stays_a_plain_one(registry: &Registry) {
    let repository = registry.repository("team/app");
    let subject = repository.push_image("latest", 1).await.manifest;
    let tag = fallback_tag(&subject);
    repository
        .get_manifest(&tag)
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    let list = Document::new(&index(&[push_artifact(&repository, 1).await.descriptor()]));
    repository.put_manifest(&tag, &list).await.expect(201);
    repository
        .get_manifest(&tag)
        .await
        .expect(200)
        .with_body(&list.body);
    assert!(repository.tags().await.contains(&tag));
    repository
        .manifest(Method::DELETE, &tag)
        .send()
        .await
        .expect(202);
    repository
        .get_manifest(&tag)
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    assert!(repository.referrers(&subject.digest()).await.is_empty());
}

async fn something_else_at_the_tag(registry: &Registry) {
    let repository = registry.repository("team/app");
    let subject = repository.push_image("latest", 1).await.manifest;
    repository
        .put_manifest(fallback_tag(&subject), &subject)
        .await
        .expect(201);
    assert!(repository.referrers(&subject.digest()).await.is_empty());
}
