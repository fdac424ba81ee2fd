//! Mounting a blob from another repository.

use harness::at_each_door;
use harness::content::Content;
use harness::door::Registry;
use http::Method;
use outport_core::oci::digest::Algorithm;

at_each_door!(
    a_blob_is_mounted,
    a_blob_is_mounted_from_anywhere,
    a_missing_blob_is_pushed_instead,
    a_blob_that_is_not_in_from_is_pushed_instead,
    a_mounted_blob_stays,
    a_senseless_mount_is_a_push
);

const CONTENT: Content = Content::new(1, 3000);

async fn a_blob_is_mounted(registry: &Registry) {
    let (from, to) = (
        registry.repository("team/from"),
        registry.repository("team/to"),
    );
    for algorithm in Algorithm::ALL {
        let digest = from.push_as(algorithm, CONTENT.bytes()).await;
        to.blob(Method::HEAD, &digest).send().await.expect(404);
        let path = format!(
            "blobs/uploads/?from=team%2Ffrom&mount={}",
            digest.to_string().replace(':', "%3A")
        );
        let reply = to.call(Method::POST, &path).send().await.expect(201);
        let reply = reply.with_header("docker-content-digest", &digest.to_string());
        assert!(reply.location().starts_with("/v2/team/to/"), "{reply}");
        registry
            .get(reply.location())
            .send()
            .await
            .expect(200)
            .with_body(&CONTENT.bytes());
        to.get_blob(&digest)
            .await
            .expect(200)
            .with_body(&CONTENT.bytes());
    }
}

async fn a_blob_is_mounted_from_anywhere(registry: &Registry) {
    let (from, to) = (
        registry.repository("team/from"),
        registry.repository("team/to"),
    );
    let digest = from.push(CONTENT.bytes()).await;
    to.call(Method::POST, &format!("blobs/uploads/?mount={digest}"))
        .send()
        .await
        .expect(201);
    to.get_blob(&digest)
        .await
        .expect(200)
        .with_body(&CONTENT.bytes());
}

async fn a_missing_blob_is_pushed_instead(registry: &Registry) {
    let to = registry.repository("team/to");
    let digest = CONTENT.sha256();
    for from in ["&from=team%2Ffrom", ""] {
        let path = format!("blobs/uploads/?mount={digest}{from}");
        let reply = to.call(Method::POST, &path).send().await.expect(202);
        let reply = reply.with_header("range", "0-0");
        to.blob(Method::HEAD, &digest).send().await.expect(404);
        to.finish_upload(reply.location(), &digest)
            .content(CONTENT)
            .send()
            .await
            .expect(201);
        to.get_blob(&digest)
            .await
            .expect(200)
            .with_body(&CONTENT.bytes());
        to.blob(Method::DELETE, &digest).send().await.expect(202);
    }
}

async fn a_blob_that_is_not_in_from_is_pushed_instead(registry: &Registry) {
    let (other, to) = (
        registry.repository("team/other"),
        registry.repository("team/to"),
    );
    registry.repository("team/from").push("{}").await;
    let digest = other.push(CONTENT.bytes()).await;
    let path = format!("blobs/uploads/?mount={digest}&from=team%2Ffrom");
    to.call(Method::POST, &path).send().await.expect(202);
    to.blob(Method::HEAD, &digest).send().await.expect(404);
}

async fn a_mounted_blob_stays(registry: &Registry) {
    let (from, to) = (
        registry.repository("team/from"),
        registry.repository("team/to"),
    );
    let digest = from.push(CONTENT.bytes()).await;
    let path = format!("blobs/uploads/?mount={digest}&from=team%2Ffrom");
    to.call(Method::POST, &path).send().await.expect(201);
    // Again, and from itself.
    to.call(Method::POST, &path).send().await.expect(201);
    let path = format!("blobs/uploads/?mount={digest}&from=team%2Fto");
    to.call(Method::POST, &path).send().await.expect(201);
    from.blob(Method::DELETE, &digest).send().await.expect(202);
    from.blob(Method::HEAD, &digest).send().await.expect(404);
    to.get_blob(&digest)
        .await
        .expect(200)
        .with_body(&CONTENT.bytes());
}

async fn a_senseless_mount_is_a_push(registry: &Registry) {
    let to = registry.repository("team/to");
    let digest = registry.repository("team/from").push(CONTENT.bytes()).await;
    for query in [
        "mount=nonsense&from=team%2Ffrom".to_owned(),
        format!("mount={digest}&from=NO%20NAME"),
        format!("mount=md5:{}", "0".repeat(32)),
    ] {
        let reply = to
            .call(Method::POST, &format!("blobs/uploads/?{query}"))
            .send()
            .await;
        reply.expect(202);
    }
}
