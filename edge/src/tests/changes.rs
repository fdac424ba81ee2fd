//! Pushes and deletes that go through the edge, and what it remembers of them.

use bytes::Bytes;
use http::Method;

use super::origin::MANIFEST_TYPE;
use super::{Rig, RunningEdge, blob_path, content, sha256};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const STALE: &str = "fwd=stale; detail=origin-unreachable";

fn index(text: &str) -> Bytes {
    let json = format!(
        "{{\"schemaVersion\": 2, \"manifests\": [], \"annotations\": {{\"a\": \"{text}\"}}}}"
    );
    Bytes::from(json)
}

#[tokio::test]
async fn a_pushed_manifest_is_served_when_the_origin_dies_behind_the_answer() {
    let rig = Rig::new().await;
    let (old, new) = (index("old"), index("new"));
    let path = "/v2/a/manifests/latest";
    rig.origin.put_manifest("a", "latest", &old);
    rig.edge.get(path).await.is(200, &old, "fwd=miss");
    let pushed = rig.edge.put(path, INDEX_TYPE, &new).await;
    assert_eq!(pushed.status, 201);
    rig.origin.stop();
    let by_digest = format!("/v2/a/manifests/{}", sha256(&new));
    let check = async |edge: &RunningEdge| {
        let tagged = edge.get(path).await;
        tagged.is(200, &new, STALE);
        assert_eq!(tagged.header("content-type"), INDEX_TYPE);
        edge.get(&by_digest).await.is(200, &new, "hit");
        // Only where it was pushed.
        let elsewhere = by_digest.replace("/a/", "/b/");
        assert_eq!(edge.get(&elsewhere).await.status, 503);
    };
    check(&rig.edge).await;
    rig.edge.stop().await;
    let edge = RunningEdge::start(rig.cache.path(), rig.origin.address, &[]).await;
    check(&edge).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_manifest_that_is_pushed_by_digest_is_known_by_its_tags() {
    let rig = Rig::new().await;
    let manifest = index("m");
    let path = format!("/v2/a/manifests/{}", sha256(&manifest));
    let pushed = rig
        .edge
        .put(&format!("{path}?tag=v1&tag=v2"), INDEX_TYPE, &manifest)
        .await;
    assert_eq!(pushed.status, 201);
    rig.origin.stop();
    rig.edge.get(&path).await.is(200, &manifest, "hit");
    for tag in ["v1", "v2"] {
        let path = format!("/v2/a/manifests/{tag}");
        rig.edge.get(&path).await.is(200, &manifest, STALE);
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_manifest_that_is_too_large_to_keep_passes_and_is_not_known() {
    let rig = Rig::with(&["origin.manifest_max=1KiB"]).await;
    let small = index("small");
    let path = "/v2/a/manifests/latest";
    let pushed = rig.edge.put(path, INDEX_TYPE, &small).await;
    assert_eq!(pushed.status, 201);
    let large = index(&"large".repeat(1000));
    let pushed = rig.edge.put(path, INDEX_TYPE, &large).await;
    assert_eq!(pushed.status, 201);
    let digest = sha256(&large).to_string();
    assert_eq!(pushed.headers["docker-content-digest"], digest);
    rig.origin.stop();
    assert_eq!(rig.edge.get(path).await.status, 503);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_refused_push_changes_nothing() {
    let rig = Rig::new().await;
    let path = "/v2/a/manifests/latest";
    rig.origin.put_manifest("a", "latest", &index("old"));
    rig.edge.get(path).await.is(200, &index("old"), "fwd=miss");
    rig.origin.fail_pushes(400);
    let pushed = rig.edge.put(path, INDEX_TYPE, &index("new")).await;
    assert_eq!(pushed.status, 400);
    rig.origin.stop();
    rig.edge.get(path).await.is(200, &index("old"), STALE);
    rig.edge.stop().await;
}

#[tokio::test]
async fn an_answer_from_before_a_delete_does_not_bring_a_blob_back() {
    let rig = Rig::new().await;
    let blob = content(1000, 1);
    rig.origin.put_blob("a", &blob);
    rig.origin.put_blob("b", &blob);
    // It is cached, so that only the link decides.
    rig.edge.get(&blob_path("b", &blob)).await;
    rig.edge.settle().await;
    let path = blob_path("a", &blob);
    let mut held = rig.origin.hold(Method::HEAD, &path);
    let change = async {
        held.ready().await;
        rig.edge.delete(&path).await;
        held.release();
    };
    let (before, ()) = tokio::join!(rig.edge.get(&path), change);
    before.is(200, &blob, "hit; detail=revalidated");
    assert_eq!(rig.edge.get(&path).await.status, 404);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_download_from_before_a_delete_is_joined_only_by_who_may() {
    let rig = Rig::new().await;
    let blob = content(1_000_000, 2);
    rig.origin.put_blob("a", &blob);
    rig.origin.put_blob("b", &blob);
    rig.origin.allow(500_000);
    let path = blob_path("a", &blob);
    let begun = rig.edge.begin(Method::GET, &path, &[]).await;
    rig.edge.delete(&path).await;
    assert_eq!(rig.edge.get(&path).await.status, 404);
    let other = blob_path("b", &blob);
    let other = rig.edge.begin(Method::GET, &other, &[]).await;
    rig.origin.allow(u64::MAX);
    begun.finish().await.is(200, &blob, "fwd=miss");
    other.finish().await.is(200, &blob, "fwd=miss; collapsed");
    rig.edge.settle().await;
    assert_eq!(rig.edge.get(&path).await.status, 404);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_download_whose_answer_is_from_before_a_delete_links_nothing() {
    let rig = Rig::new().await;
    let blob = content(1000, 3);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    let mut held = rig.origin.hold(Method::GET, &path);
    let change = async {
        held.ready().await;
        rig.edge.delete(&path).await;
        held.release();
    };
    let (before, ()) = tokio::join!(rig.edge.get(&path), change);
    before.is(200, &blob, "fwd=miss");
    rig.edge.settle().await;
    assert_eq!(rig.edge.get(&path).await.status, 404);
    rig.edge.stop().await;
}

#[tokio::test]
async fn an_answer_from_before_a_delete_does_not_bring_a_manifest_back() {
    let rig = Rig::new().await;
    let manifest = index("m");
    rig.origin.put_manifest("a", "latest", &manifest);
    let digest_path = format!("/v2/a/manifests/{}", sha256(&manifest));
    // A question for the tag brings the link of a digest that nobody knew of.
    for asked in ["/v2/a/manifests/latest", &digest_path] {
        rig.origin.put_manifest("a", "latest", &manifest);
        let mut held = rig.origin.hold(Method::GET, asked);
        let change = async {
            held.ready().await;
            rig.edge.delete(&digest_path).await;
            held.release();
        };
        let (before, ()) = tokio::join!(rig.edge.get(asked), change);
        before.is(200, &manifest, "fwd=miss");
        assert_eq!(rig.edge.get(&digest_path).await.status, 404, "{asked}");
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn an_answer_from_before_a_change_does_not_bring_a_tag_back() {
    for is_push in [true, false] {
        let rig = Rig::new().await;
        let (old, new) = (index("old"), index("new"));
        rig.origin.put_manifest("a", "latest", &old);
        let path = "/v2/a/manifests/latest";
        let mut held = rig.origin.hold(Method::GET, path);
        let change = async {
            held.ready().await;
            if is_push {
                assert_eq!(rig.edge.put(path, INDEX_TYPE, &new).await.status, 201);
            } else {
                rig.edge.delete(path).await;
            }
            held.release();
        };
        let (before, ()) = tokio::join!(rig.edge.get(path), change);
        before.is(200, &old, "fwd=miss");
        assert_eq!(before.header("content-type"), MANIFEST_TYPE);
        rig.origin.stop();
        let after = rig.edge.get(path).await;
        if is_push {
            after.is(200, &new, STALE);
        } else {
            assert_eq!(after.status, 503);
        }
        rig.edge.stop().await;
    }
}

#[tokio::test]
async fn of_two_pushes_at_once_nobody_knows_which_was_the_last() {
    let rig = Rig::new().await;
    let path = "/v2/a/manifests/latest";
    let (first, second) = (index("first"), index("second"));
    let mut held = rig.origin.hold(Method::PUT, path);
    let other = async {
        held.ready().await;
        assert_eq!(rig.edge.put(path, INDEX_TYPE, &second).await.status, 201);
        held.release();
    };
    let (pushed, ()) = tokio::join!(rig.edge.put(path, INDEX_TYPE, &first), other);
    assert_eq!(pushed.status, 201);
    rig.origin.stop();
    assert_eq!(rig.edge.get(path).await.status, 503);
    for manifest in [first, second] {
        let path = format!("/v2/a/manifests/{}", sha256(&manifest));
        rig.edge.get(&path).await.is(200, &manifest, "hit");
    }
    rig.edge.stop().await;
}
