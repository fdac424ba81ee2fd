//! Upload sessions: status, cancelling, and who knows of them.

use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use http::Method;

at_each_door!(
    a_cancelled_session_is_gone,
    a_finished_session_is_gone,
    a_session_belongs_to_its_repository,
    sessions_that_never_were,
    two_sessions_do_not_mix,
    a_session_alone_makes_no_repository
);

const CONTENT: Content = Content::new(1, 3000);

async fn is_gone(registry: &Registry, location: &str) {
    let digest = CONTENT.sha256();
    registry
        .get(location)
        .send()
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry
        .patch(location)
        .body("x")
        .send()
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry
        .delete(location)
        .send()
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    // Of a blob that nobody has pushed.
    let put = registry
        .put(&format!("{location}?digest={digest}"))
        .body("x");
    put.send().await.refused(404, "BLOB_UPLOAD_UNKNOWN");
}

async fn a_cancelled_session_is_gone(registry: &Registry) {
    let repository = registry.repository("team/app");
    for sent in [0, 1000] {
        let location = repository.start_upload().await;
        registry
            .patch(&location)
            .body(CONTENT.slice(0..sent))
            .send()
            .await
            .expect(202);
        let reply = registry.delete(&location).send().await.expect(204);
        assert!(reply.body.is_empty());
        is_gone(registry, &location).await;
    }
}

async fn a_finished_session_is_gone(registry: &Registry) {
    let repository = registry.repository("team/app");
    let other = Content::new(2, 100);
    let location = repository.start_upload().await;
    repository
        .finish_upload(&location, &other.sha256())
        .content(other)
        .send()
        .await
        .expect(201);
    is_gone(registry, &location).await;
    repository
        .get_blob(&other.sha256())
        .await
        .expect(200)
        .with_body(&other.bytes());
}

async fn a_session_belongs_to_its_repository(registry: &Registry) {
    let repository = registry.repository("team/app");
    registry.repository("team/other").push("{}").await;
    let location = repository.start_upload().await;
    registry
        .patch(&location)
        .body(CONTENT.slice(0..1000))
        .send()
        .await
        .expect(202);
    for other in ["team/other", "team/unknown", "team", "team/app/app"] {
        is_gone(registry, &location.replacen("team/app", other, 1)).await;
    }
    assert_eq!(repository.upload_offset(&location).await, 1000);
    let put = repository.finish_upload(&location, &CONTENT.sha256());
    put.body(CONTENT.slice(1000..3000)).send().await.expect(201);
}

async fn sessions_that_never_were(registry: &Registry) {
    registry.repository("team/app").push("{}").await;
    for id in [
        "0190f0f0-0000-7000-8000-000000000000",
        "x",
        "..%2f..%2fetc",
        "%00",
    ] {
        let reply = registry
            .get(&format!("/v2/team/app/blobs/uploads/{id}"))
            .send()
            .await;
        assert!(matches!(reply.status.as_u16(), 404 | 400), "{reply}");
    }
}

async fn two_sessions_do_not_mix(registry: &Registry) {
    let repository = registry.repository("team/app");
    let contents = [Content::new(1, 2000), Content::new(2, 2000)];
    let locations = [
        repository.start_upload().await,
        repository.start_upload().await,
    ];
    assert_ne!(locations[0], locations[1]);
    for first in [0, 1000] {
        for (content, location) in contents.iter().zip(&locations) {
            let body = content.slice(first..first + 1000);
            registry.patch(location).body(body).send().await.expect(202);
        }
    }
    for (content, location) in contents.iter().zip(&locations) {
        repository
            .finish_upload(location, &content.sha256())
            .send()
            .await
            .expect(201);
        repository
            .get_blob(&content.sha256())
            .await
            .expect(200)
            .with_body(&content.bytes());
    }
}

async fn a_session_alone_makes_no_repository(registry: &Registry) {
    let repository = registry.repository("team/app");
    repository.start_upload().await;
    repository
        .call(Method::GET, "tags/list")
        .send()
        .await
        .refused(404, "NAME_UNKNOWN");
    let catalog = registry.get("/v2/_catalog").send().await.expect(200).json();
    assert_eq!(catalog["repositories"], serde_json::json!([]));
}
