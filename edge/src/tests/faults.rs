//! An origin that dies, lies and is not there.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::origin::Fault;
use super::{Rig, blob_path, content, sha256};

const LAYER: usize = 5_000_000;

#[tokio::test]
async fn an_origin_that_dies_is_asked_for_the_rest() {
    let rig = Rig::with(&["origin.failures=100"]).await;
    let blob = content(LAYER, 1);
    rig.origin.put_blob("a", &blob);
    rig.origin.fail_next(Fault::DieAt(2_000_000));
    rig.origin.fail_next(Fault::DieAt(0));
    rig.origin.fail_next(Fault::Status(503));
    rig.origin.fail_next(Fault::DieAt(100_000));
    let path = blob_path("a", &blob);
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    rig.edge.settle().await;
    rig.edge.get(&path).await.is(200, &blob, "hit");
    let asked = rig.origin.seen(&Method::GET, &path);
    assert_eq!(asked.len(), 5);
    assert_eq!(asked[0].range, None);
    for seen in &asked[1..] {
        let from = seen.range.as_ref().unwrap().strip_prefix("bytes=").unwrap();
        let from: u64 = from.strip_suffix('-').unwrap().parse().unwrap();
        assert!(from > 1_000_000, "only {from} bytes were kept");
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn an_origin_that_stays_dead_breaks_readers_off() {
    let rig = Rig::with(&["downloads.retries=2", "origin.failures=100"]).await;
    let blob = content(LAYER, 2);
    rig.origin.put_blob("a", &blob);
    rig.origin.fail_next(Fault::DieAt(100_000));
    rig.origin.fail_next(Fault::Status(503));
    rig.origin.fail_next(Fault::Status(503));
    let path = blob_path("a", &blob);
    let answer = rig.edge.get(&path).await;
    assert_eq!((answer.status.as_u16(), answer.body), (200, None));
    rig.edge.settle().await;
    assert_eq!(rig.edge.metric("outport_edge_cache_blobs"), Some(0.0));
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn wrong_bytes_never_make_a_complete_answer() {
    let rig = Rig::new().await;
    let blob = content(200_000, 3);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    let faults = [
        Fault::FlipAt(0),
        Fault::FlipAt(199_999),
        Fault::Truncate(1),
        Fault::Truncate(150_000),
        Fault::Extend(1),
        Fault::Sorry,
        // Nothing at all, under the name of something.
        Fault::Truncate(200_000),
    ];
    for fault in faults {
        rig.origin.fail_next(fault);
        // The connection may break even before the head of the answer is out.
        if let Ok(begun) = rig.edge.try_begin(Method::GET, &path, &[]).await {
            let answer = begun.finish().await;
            let is_refused = answer.status == 503;
            assert!(is_refused || answer.body.is_none(), "{fault:?} was served");
        }
        rig.edge.settle().await;
        assert_eq!(rig.edge.metric("outport_edge_cache_blobs"), Some(0.0));
    }
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn only_a_404_is_a_404() {
    let rig = Rig::with(&["origin.failures=1000"]).await;
    let blob = content(1000, 4);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    for (status, expected) in [
        (401, 401),
        (403, 403),
        (429, 429),
        (500, 503),
        (502, 503),
        (503, 503),
    ] {
        rig.origin.fail_next(Fault::Status(status));
        let answer = rig.edge.get(&path).await;
        assert_eq!(answer.status, expected, "for {status}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.headers.contains_key("retry-after"), expected == 503);
        rig.edge.settle().await;
    }
    let unknown = blob_path("a", b"unknown");
    assert_eq!(rig.edge.get(&unknown).await.status, 404);
    assert_eq!(rig.edge.head(&unknown).await.status, 404);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_401_to_what_the_edge_shows_is_not_for_its_clients() {
    let key = "access.key=0123456789abcdef0123456789abcdef";
    let rig = Rig::with(&["origin.failures=1000", key]).await;
    let (manifest, blob) = (content(100, 40), content(1000, 41));
    rig.origin.put_manifest("a", "1", &manifest);
    rig.origin.put_blob("a", &blob);
    let tagged = "/v2/a/manifests/1";
    rig.edge.get(tagged).await.is(200, &manifest, "fwd=miss");
    // As when its key is another since.
    rig.origin.fail_always(Fault::Status(401));
    let answer = rig.edge.get(tagged).await;
    answer.is(200, &manifest, "fwd=stale; detail=origin-unreachable");
    for path in [blob_path("a", &blob), "/v2/a/manifests/2".to_owned()] {
        let answer = rig.edge.get(&path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(!answer.headers.contains_key("www-authenticate"));
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_dead_origin_is_a_503_at_once() {
    let rig = Rig::new().await;
    rig.origin.stop();
    let blob = content(1000, 5);
    let began = Instant::now();
    for path in [
        blob_path("a", &blob),
        format!("/v2/a/manifests/{}", sha256(&blob)),
        "/v2/a/manifests/latest".to_owned(),
        "/v2/a/tags/list".to_owned(),
        format!("/v2/a/referrers/{}", sha256(&blob)),
    ] {
        for _ in 0..3 {
            let answer = rig.edge.get(&path).await;
            assert_eq!(answer.status, 503, "{path}");
            assert!(answer.headers.contains_key("retry-after"), "{path}");
            let body = answer.body.unwrap();
            assert!(body.starts_with(b"{\"errors\":["), "{path}");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(rig.edge.get("/v2/").await.status, 200);
    assert!(rig.edge.seams.readiness.is_ready());
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_silent_origin_is_a_503_in_time() {
    let rig = Rig::with(&["origin.answer_timeout=100ms"]).await;
    let blob = content(1000, 7);
    rig.origin.put_blob("a", &blob);
    rig.origin.fail_next(Fault::Silence);
    let path = blob_path("a", &blob);
    let began = Instant::now();
    let answer = rig.edge.get(&path).await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"));
    assert!(began.elapsed() < Duration::from_secs(10));
    // What was asked is waited for still, and asked once more.
    let again = rig.edge.get(&path).await;
    again.is(200, &blob, "fwd=miss; collapsed");
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_503_to_what_is_passed_on_closes_the_origin_to_nobody_else() {
    let rig = Rig::with(&["origin.failures=1"]).await;
    let blob = content(1000, 8);
    rig.origin.put_blob("a", &blob);
    rig.origin.fail_pushes(503);
    for _ in 0..5 {
        let push = rig.edge.begin(Method::PATCH, "/v2/a/blobs/uploads/x", &[]);
        assert_eq!(push.await.status, 404);
        let id = "/v2/a/blobs/uploads/0193b0a0-0000-7000-8000-000000000000";
        let push = rig.edge.begin(Method::PATCH, id, &[]).await;
        assert_eq!(push.finish().await.status, 503);
    }
    let path = blob_path("a", &blob);
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_passed_by() {
    let rig = Rig::new().await;
    let blob = content(LAYER, 6);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    // No file can be created in what is no directory; this stops root too.
    let downloads = rig.cache.path().join("downloads");
    std::fs::remove_dir_all(&downloads).unwrap();
    std::fs::write(&downloads, b"").unwrap();
    for _ in 0..2 {
        rig.edge.get(&path).await.is(200, &blob, "fwd=bypass");
        rig.edge
            .get_range(&path, "bytes=10-19")
            .await
            .is(206, &blob[10..20], "fwd=bypass");
        let tail = rig.edge.get_range(&path, "bytes=4000000-").await;
        tail.is(206, &blob[4_000_000..], "fwd=bypass");
    }
    rig.origin.fail_next(Fault::FlipAt(4_999_999));
    let wrong = rig.edge.get(&path).await;
    assert_eq!((wrong.status.as_u16(), wrong.body), (200, None));
    rig.edge.stop().await;
}

#[tokio::test]
async fn blobs_that_begin_late_come_to_who_asks_again_and_close_the_origin_to_nobody() {
    let rig = Rig::with(&["origin.answer_timeout=200ms"]).await;
    let mut late = Vec::new();
    for seed in 0..6 {
        let blob = content(100_000, seed);
        rig.origin.put_blob("a", &blob);
        let path = blob_path("a", &blob);
        late.push((rig.origin.hold(Method::GET, &path), path, blob));
    }
    for (_, path, _) in &late {
        assert_eq!(rig.edge.get(path).await.status, 503);
    }
    let quick = content(100_000, 10);
    rig.origin.put_blob("a", &quick);
    let path = blob_path("a", &quick);
    rig.edge.get(&path).await.is(200, &quick, "fwd=miss");
    // Were it asked again, it would say nothing.
    rig.origin.fail_always(Fault::Silence);
    for (held, path, blob) in late {
        held.release();
        let began = Instant::now();
        let mut answer = rig.edge.get(&path).await;
        while answer.status != 200 && began.elapsed() < super::PATIENCE {
            answer = rig.edge.get(&path).await;
        }
        assert!(answer.body.as_ref() == Some(&blob), "{answer:?}");
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_hung_origin_is_waited_for_by_the_first_only() {
    const LIMIT: Duration = Duration::from_secs(2);
    let set = ["origin.answer_timeout=2s", "origin.stale_after=100ms"];
    let rig = Rig::with(&set).await;
    let image = content(1000, 1);
    rig.origin.put_manifest("a", "1", &image);
    let path = "/v2/a/manifests/1";
    rig.edge.get(path).await.is(200, &image, "fwd=miss");
    rig.origin.fail_always(Fault::Silence);
    for expected in [LIMIT..2 * LIMIT, Duration::ZERO..LIMIT / 2] {
        let began = Instant::now();
        let answer = rig.edge.get(path).await;
        let took = began.elapsed();
        answer.is(200, &image, "fwd=stale; detail=origin-unreachable");
        assert!(expected.contains(&took), "{took:?}");
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_is_in_one_blob_s_place_keeps_no_other_out() {
    let rig = Rig::with(&["cache.disk_rest=1h"]).await;
    let (blob, other) = (content(LAYER, 20), content(LAYER, 21));
    rig.origin.put_blob("a", &blob);
    rig.origin.put_blob("a", &other);
    std::fs::create_dir_all(rig.cached_file(&blob).join("something")).unwrap();
    for _ in 0..2 {
        let answer = rig.edge.get(&blob_path("a", &blob)).await;
        answer.is(200, &blob, "fwd=miss");
        rig.edge.settle().await;
    }
    let path = blob_path("a", &other);
    rig.edge.get(&path).await.is(200, &other, "fwd=miss");
    rig.edge.settle().await;
    rig.edge.get(&path).await.is(200, &other, "hit");
    rig.edge.stop().await;
}
