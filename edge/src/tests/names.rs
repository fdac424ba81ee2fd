//! Tags, membership, restarts, and what goes through.

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::origin::MANIFEST_TYPE;
use super::{Rig, RunningEdge, blob_path, content, sha256};

fn manifest(text: &str) -> Bytes {
    Bytes::from(format!("{{\"schemaVersion\": 2, \"note\": \"{text}\"}}\n"))
}

#[tokio::test]
async fn a_tag_is_asked_for_each_time_and_its_manifest_fetched_once() {
    let rig = Rig::new().await;
    let (old, new) = (manifest("old"), manifest("new"));
    rig.origin.put_manifest("a", "latest", &old);
    let path = "/v2/a/manifests/latest";
    let first = rig.edge.get(path).await;
    first.is(200, &old, "fwd=miss");
    assert_eq!(first.header("content-type"), MANIFEST_TYPE);
    assert_eq!(
        first.header("docker-content-digest"),
        sha256(&old).to_string()
    );
    rig.edge
        .get(path)
        .await
        .is(200, &old, "hit; detail=revalidated");
    let head = rig.edge.head(path).await;
    head.is(200, b"", "hit; detail=revalidated");
    assert_eq!(head.header("content-length"), old.len().to_string());
    let by_digest = format!("/v2/a/manifests/{}", sha256(&old));
    rig.edge.get(&by_digest).await.is(200, &old, "hit");
    let asked = rig.origin.seen(&Method::GET, path);
    assert_eq!(asked.len(), 3);
    assert!(asked[0].headers.get("if-none-match").is_none());
    assert_eq!(
        asked[1].headers["if-none-match"],
        format!("\"{}\"", sha256(&old))
    );
    assert_eq!(asked[1].headers["outport-hops"], "1");
    rig.origin.put_manifest("a", "latest", &new);
    rig.edge.get(path).await.is(200, &new, "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_cached_digest_is_given_only_to_repositories_that_link_it() {
    let rig = Rig::new().await;
    let (blob, manifest) = (content(100_000, 1), manifest("m"));
    rig.origin.put_blob("a", &blob);
    rig.origin.put_blob("b", &blob);
    rig.origin.put_manifest("a", "latest", &manifest);
    rig.edge
        .get(&blob_path("a", &blob))
        .await
        .is(200, &blob, "fwd=miss");
    rig.edge
        .get("/v2/a/manifests/latest")
        .await
        .is(200, &manifest, "fwd=miss");
    rig.edge.settle().await;
    let stranger = blob_path("c", &blob);
    assert_eq!(rig.edge.get(&stranger).await.status, 404);
    assert_eq!(rig.edge.head(&stranger).await.status, 404);
    assert_eq!(rig.edge.get_range(&stranger, "bytes=0-0").await.status, 404);
    let stranger = format!("/v2/c/manifests/{}", sha256(&manifest));
    assert_eq!(rig.edge.get(&stranger).await.status, 404);
    let other = blob_path("b", &blob);
    rig.edge
        .get(&other)
        .await
        .is(200, &blob, "hit; detail=revalidated");
    rig.edge.get(&other).await.is(200, &blob, "hit");
    assert_eq!(rig.origin.seen(&Method::HEAD, &other).len(), 1);
    assert_eq!(rig.origin.seen(&Method::GET, &other).len(), 0);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_stranger_learns_nothing_from_a_download_under_way() {
    let rig = Rig::new().await;
    let blob = content(1_000_000, 2);
    rig.origin.put_blob("a", &blob);
    rig.origin.allow(500_000);
    let begun = rig
        .edge
        .begin(Method::GET, &blob_path("a", &blob), &[])
        .await;
    assert_eq!(rig.edge.get(&blob_path("c", &blob)).await.status, 404);
    rig.origin.allow(u64::MAX);
    begun.finish().await.is(200, &blob, "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_restarted_edge_serves_what_it_holds_while_the_origin_is_away() {
    let rig = Rig::new().await;
    let (blob, manifest) = (content(1_000_000, 3), manifest("m"));
    rig.origin.put_blob("a/b", &blob);
    rig.origin.put_manifest("a/b", "v1", &manifest);
    let blob_path = blob_path("a/b", &blob);
    let tag_path = "/v2/a/b/manifests/v1";
    let digest_path = format!("/v2/a/b/manifests/{}", sha256(&manifest));
    rig.edge.get(tag_path).await.is(200, &manifest, "fwd=miss");
    rig.edge.get(&blob_path).await.is(200, &blob, "fwd=miss");
    rig.edge.settle().await;
    rig.edge.stop().await;
    rig.origin.stop();

    let edge = RunningEdge::start(rig.cache.path(), rig.origin.address, &[]).await;
    assert!(edge.seams.readiness.is_ready());
    edge.get(&blob_path).await.is(200, &blob, "hit");
    edge.get(&digest_path).await.is(200, &manifest, "hit");
    for _ in 0..5 {
        let stale = edge.get(tag_path).await;
        stale.is(200, &manifest, "fwd=stale; detail=origin-unreachable");
        assert_eq!(stale.header("content-type"), MANIFEST_TYPE);
        assert!(stale.header("warning").starts_with("110 "));
    }
    assert_eq!(edge.get("/v2/a/b/manifests/v2").await.status, 503);
    assert_eq!(edge.metric("outport_edge_origin_up"), Some(0.0));
    edge.stop().await;
}

#[tokio::test]
async fn a_404_drops_what_was_known_of_a_tag() {
    let rig = Rig::new().await;
    let manifest = manifest("m");
    rig.origin.put_manifest("a", "latest", &manifest);
    let path = "/v2/a/manifests/latest";
    rig.edge.get(path).await.is(200, &manifest, "fwd=miss");
    let deleted = rig.edge.begin(Method::DELETE, path, &[]).await;
    assert_eq!(deleted.status, 202);
    assert_eq!(rig.edge.get(path).await.status, 404);
    rig.origin.stop();
    assert_eq!(rig.edge.get(path).await.status, 503);
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_is_deleted_by_digest_through_the_edge_is_gone_there() {
    let rig = Rig::new().await;
    let (blob, manifest) = (content(1000, 4), manifest("m"));
    rig.origin.put_blob("a", &blob);
    rig.origin.put_manifest("a", "latest", &manifest);
    for path in [
        blob_path("a", &blob),
        format!("/v2/a/manifests/{}", sha256(&manifest)),
    ] {
        assert_eq!(rig.edge.get(&path).await.status, 200);
        rig.edge.settle().await;
        let deleted = rig.edge.begin(Method::DELETE, &path, &[]).await;
        assert_eq!(deleted.status, 202);
        assert_eq!(rig.edge.get(&path).await.status, 404, "{path}");
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn everything_else_goes_to_the_origin_as_it_is() {
    let rig = Rig::new().await;
    let begun = rig
        .edge
        .begin(
            Method::POST,
            "/v2/a/blobs/uploads/?digest-algorithm=sha512",
            &[
                ("x-custom", "kept"),
                ("outport-upstream", "hub"),
                ("connection", "x-dropped"),
                ("x-dropped", "1"),
            ],
        )
        .await;
    assert_eq!(begun.status, 201);
    assert_eq!(begun.headers["location"], "/v2/a/blobs/uploads/x?y=z");
    let seen = rig.origin.seen(&Method::POST, "/v2/a/blobs/uploads/");
    let headers: &HeaderMap = &seen[0].headers;
    assert_eq!(headers["x-custom"], "kept");
    assert_eq!(headers["outport-hops"], "1");
    assert!(!headers.contains_key("x-dropped"));
    assert!(!headers.contains_key("outport-upstream"));
    let looped = rig
        .edge
        .begin(Method::GET, "/v2/a/tags/list", &[("outport-hops", "2")]);
    assert_eq!(looped.await.status, 400);
    rig.edge.stop().await;
}
