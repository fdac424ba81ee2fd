//! Tags that are answered from memory.

use bytes::Bytes;
use http::Method;

use super::{Answer, Rig, sha256};

const PATH: &str = "/v2/a/manifests/latest";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const LONG: &str = "origin.tags_fresh_for=1h";

fn manifest(text: &str) -> Bytes {
    let json = format!(
        "{{\"schemaVersion\": 2, \"manifests\": [], \"annotations\": {{\"a\": \"{text}\"}}}}"
    );
    Bytes::from(json)
}

fn asked(rig: &Rig) -> usize {
    rig.origin.seen(&Method::GET, PATH).len()
}

#[track_caller]
fn is_hit(answer: &Answer, content: &[u8]) {
    answer.is(200, content, "hit");
    let age: u64 = answer.header("age").parse().unwrap();
    assert!(age < 60);
    assert!(answer.header("server-timing").starts_with("cache;dur="));
}

#[tokio::test]
async fn a_tag_that_was_just_asked_for_is_not_asked_for_again() {
    let rig = Rig::with(&[LONG]).await;
    let (old, new) = (manifest("old"), manifest("new"));
    rig.origin.put_manifest("a", "latest", &old);
    let first = rig.edge.get(PATH).await;
    first.is(200, &old, "fwd=miss");
    assert!(first.headers.get("age").is_none());
    assert!(first.header("server-timing").starts_with("fetch;dur="));
    // Moved where the edge does not see it.
    rig.origin.put_manifest("a", "latest", &new);
    is_hit(&rig.edge.get(PATH).await, &old);
    is_hit(&rig.edge.head(PATH).await, b"");
    assert_eq!(asked(&rig), 1);
    // Another tag of the same manifest has not been asked for.
    rig.origin.put_manifest("a", "other", &old);
    let other = rig.edge.get("/v2/a/manifests/other").await;
    other.is(200, &old, "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_goes_through_the_edge_is_seen_at_once() {
    let rig = Rig::with(&[LONG]).await;
    let (old, new) = (manifest("old"), manifest("new"));
    rig.origin.put_manifest("a", "latest", &old);
    rig.edge.get(PATH).await.is(200, &old, "fwd=miss");
    assert_eq!(rig.edge.put(PATH, INDEX_TYPE, &new).await.status, 201);
    is_hit(&rig.edge.get(PATH).await, &new);
    let by_digest = format!("/v2/a/manifests/{}", sha256(&new));
    rig.edge.delete(&by_digest).await;
    rig.origin.put_manifest("a", "latest", &old);
    rig.edge.get(PATH).await.is(200, &old, "fwd=miss");
    rig.edge.delete(PATH).await;
    assert_eq!(rig.edge.get(PATH).await.status, 404);
    rig.edge.stop().await;
}

#[tokio::test]
async fn an_answer_from_before_a_push_does_not_bring_the_old_manifest_back() {
    let rig = Rig::with(&[LONG]).await;
    let (old, new) = (manifest("old"), manifest("new"));
    rig.origin.put_manifest("a", "latest", &old);
    let mut held = rig.origin.hold(Method::GET, PATH);
    let change = async {
        held.ready().await;
        assert_eq!(rig.edge.put(PATH, INDEX_TYPE, &new).await.status, 201);
        held.release();
    };
    let (before, ()) = tokio::join!(rig.edge.get(PATH), change);
    before.is(200, &old, "fwd=miss");
    is_hit(&rig.edge.get(PATH).await, &new);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_tag_that_moved_elsewhere_is_seen_after_its_time() {
    let rig = Rig::with(&["origin.tags_fresh_for=50ms"]).await;
    let (old, new) = (manifest("old"), manifest("new"));
    rig.origin.put_manifest("a", "latest", &old);
    rig.edge.get(PATH).await.is(200, &old, "fwd=miss");
    rig.origin.put_manifest("a", "latest", &new);
    while rig.edge.get(PATH).await.body.as_ref() == Some(&old) {}
    assert_eq!(rig.edge.get(PATH).await.body, Some(new));
    rig.edge.stop().await;
}
