//! How long what an upstream said is of use.

use std::time::Duration;

use super::upstreams::scripted::Behaviour;
use super::upstreams::{Rig, manifest};
use super::{PATIENCE, content, sha256};

const TAG: &str = "/v2/hub/org/app/manifests/1";
const STALE: &str = "fwd=stale; detail=origin-unreachable";

#[tokio::test]
async fn an_upstream_that_is_away_for_too_long_is_no_longer_stood_in_for() {
    let rig = Rig::new(&[]).await;
    let image = manifest("a");
    rig.upstream.put_manifest("org/app", "1", &image);
    rig.edge.get(TAG).await.is(200, &image, "fwd=miss");
    rig.upstream.behave(Behaviour::Status(503));
    rig.edge.get(TAG).await.is(200, &image, STALE);
    // That it was asked for is remembered over a restart.
    let rig = rig.restart(&["upstreams.stale_if_error=1h"]).await;
    let answer = rig.edge.get(TAG).await;
    answer.is(200, &image, STALE);
    assert!(
        answer.headers["age"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            < 3600
    );
    let rig = rig.restart(&["upstreams.stale_if_error=0s"]).await;
    assert_eq!(rig.edge.get(TAG).await.status, 503);
    // By its digest it is what it is.
    let by_digest = format!("/v2/hub/org/app/manifests/{}", sha256(&image));
    rig.edge.get(&by_digest).await.is(200, &image, "hit");
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_tag_is_answered_while_it_is_asked_for() {
    let rig = Rig::new(&["upstreams.stale_while_revalidate=1h"]).await;
    let (old, new) = (manifest("old"), manifest("new"));
    rig.upstream.put_manifest("org/app", "1", &old);
    rig.edge.get(TAG).await.is(200, &old, "fwd=miss");
    rig.upstream.put_manifest("org/app", "1", &new);
    let answer = rig.edge.get(TAG).await;
    answer.is(200, &old, "hit; detail=revalidating");
    let moved = async {
        while rig.edge.get(TAG).await.body != Some(new.clone()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, moved).await.unwrap();
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_an_upstream_does_not_have_is_not_asked_for_again_at_once() {
    let rig = Rig::new(&["upstreams.absent_for=1h"]).await;
    let (image, blob) = (manifest("a"), content(1000, 1));
    let blob_path = format!("/v2/hub/org/app/blobs/{}", sha256(&blob));
    for _ in 0..3 {
        assert_eq!(rig.edge.get(TAG).await.status, 404);
        assert_eq!(rig.edge.get(&blob_path).await.status, 404);
        let head = rig.edge.begin(http::Method::HEAD, &blob_path, &[]).await;
        assert_eq!(head.status, 404);
    }
    assert_eq!(rig.upstream.count("GET", "/manifests/1"), 1);
    assert_eq!(rig.upstream.count("GET", "/blobs/"), 1);
    assert_eq!(rig.upstream.count("HEAD", "/blobs/"), 0);
    rig.upstream.put_manifest("org/app", "1", &image);
    rig.upstream.put_blob("org/app", &blob);
    assert_eq!(rig.edge.get(TAG).await.status, 404);
    let purge = "/purge?image=hub/org/app:1";
    rig.edge.operate(http::Method::POST, purge).await;
    rig.edge.get(TAG).await.is(200, &image, "fwd=miss");
    // Another repository may have what this one has not.
    rig.upstream.put_blob("org/other", &blob);
    let other = format!("/v2/hub/org/other/blobs/{}", sha256(&blob));
    rig.edge.get(&other).await.is(200, &blob, "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn only_a_definitive_no_is_remembered() {
    let rig = Rig::new(&["upstreams.absent_for=1h"]).await;
    let image = manifest("a");
    rig.upstream.put_manifest("org/app", "1", &image);
    for behaviour in [Behaviour::Status(503), Behaviour::Status(403)] {
        rig.upstream.behave(behaviour);
        assert_ne!(rig.edge.get(TAG).await.status, 404);
    }
    rig.upstream.behave(Behaviour::Well);
    let found = async {
        while rig.edge.get(TAG).await.body != Some(image.clone()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap();
    rig.edge.stop().await;
}

#[tokio::test]
async fn the_less_is_left_of_a_quota_the_less_is_asked() {
    const FRESH: Duration = Duration::from_millis(100);
    let rig = Rig::new(&["upstreams.tags_fresh_for=100ms"]).await;
    let image = manifest("a");
    rig.upstream.put_manifest("org/app", "1", &image);
    for (remaining, asked) in [(100, true), (0, false)] {
        rig.upstream.tell_quota(100, remaining);
        // The first question after a time brings the news.
        rig.edge
            .operate(http::Method::POST, "/purge?image=hub/org/app:1")
            .await;
        rig.edge.get(TAG).await.is(200, &image, "fwd=miss");
        let before = rig.upstream.seen("/").len();
        tokio::time::sleep(FRESH).await;
        assert_eq!(rig.edge.get(TAG).await.body, Some(image.clone()));
        assert_eq!(rig.upstream.seen("/").len() > before, asked, "{remaining}");
        let metrics = rig.edge.operate(http::Method::GET, "/metrics").await;
        let metrics = String::from_utf8(metrics.body.unwrap().to_vec()).unwrap();
        let line = format!("edge_upstream_quota_remaining{{upstream=\"hub\"}} {remaining}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn lists_that_were_asked_for_are_there_without_the_upstream() {
    let rig = Rig::new(&[]).await;
    let list = bytes::Bytes::from_static(b"{\"name\":\"org/app\",\"tags\":[\"1\"]}");
    let link = "</v2/org/app/tags/list?next=x>; rel=\"next\"";
    rig.upstream.put_list("/v2/org/app/tags/list", &list, link);
    let (path, other) = (
        "/v2/hub/org/app/tags/list?n=1",
        "/v2/hub/org/app/tags/list?n=2",
    );
    // What cosign asks first, of a registry that knows no referrers.
    let referrers = format!("/v2/hub/org/app/referrers/{}", sha256(b"a"));
    rig.edge.get(path).await.is(200, &list, "fwd=bypass");
    assert_eq!(rig.edge.get(&referrers).await.status, 404);
    rig.edge.settle().await;
    // Also after a restart.
    let mut rig = rig;
    for behaviour in [Behaviour::Status(503), Behaviour::Silent, Behaviour::Sorry] {
        rig.upstream.behave(behaviour);
        rig = rig.restart(&[]).await;
        let answer = rig.edge.get(path).await;
        answer.is(200, &list, STALE);
        let expected = "</v2/hub/org/app/tags/list?next=x>; rel=\"next\"";
        assert_eq!(answer.headers["link"], expected);
        assert!(answer.headers.contains_key("warning"));
        assert_eq!(rig.edge.get(&referrers).await.status, 404);
        assert_eq!(rig.edge.get(other).await.status, 503);
    }
    let rig = rig.restart(&["upstreams.stale_if_error=0s"]).await;
    assert_eq!(rig.edge.get(path).await.status, 503);
    rig.edge.stop().await;
}

#[tokio::test]
async fn who_answers_head_otherwise_is_asked_by_get() {
    let rig = Rig::new(&[]).await;
    rig.upstream.put_manifest("org/app", "1", &manifest("old"));
    rig.edge
        .get(TAG)
        .await
        .is(200, &manifest("old"), "fwd=miss");
    for status in [404, 405] {
        rig.upstream.refuse_heads(status);
        let new = manifest(&status.to_string());
        rig.upstream.put_manifest("org/app", "1", &new);
        rig.edge.get(TAG).await.is(200, &new, "fwd=miss");
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn an_answer_from_before_a_purge_is_forgotten() {
    let rig = Rig::new(&["upstreams.absent_for=1h"]).await;
    let image = manifest("a");
    let (asked, held) = rig.upstream.hold_next();
    let early = async { rig.edge.get(TAG).await.status };
    let purged = async {
        asked.await.unwrap();
        rig.edge
            .operate(http::Method::POST, "/purge?image=hub/org/app:1")
            .await;
        held.send(()).unwrap();
    };
    let (status, ()) = tokio::join!(early, purged);
    assert_eq!(status, 404);
    rig.upstream.put_manifest("org/app", "1", &image);
    rig.edge.get(TAG).await.is(200, &image, "fwd=miss");
    rig.edge.stop().await;
}
