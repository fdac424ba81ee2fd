//! Downloads that are interrupted, overtaken and left.

use http::Method;

use super::origin::Fault;
use super::{Rig, RunningEdge, blob_path, content};

const LAYER: usize = 20_000_000;

/// Returns where a request for a range began.
fn from(seen: &super::origin::Seen) -> u64 {
    let range = seen.range.as_ref().expect("a request for a range");
    let from = range.strip_prefix("bytes=").unwrap().split('-').next();
    from.unwrap().parse().unwrap()
}

/// Waits until so many bytes have come in.
async fn received(edge: &RunningEdge, bytes: u32) {
    let come = async {
        while edge.metric("outport_edge_downloads_received_bytes_total") < Some(f64::from(bytes)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::PATIENCE, come).await.unwrap();
}

async fn ended(edge: &RunningEdge, outcome: &str) {
    let name = format!("outport_edge_downloads_finished_total{{outcome=\"{outcome}\"}}");
    let end = async {
        while edge.metric(&name).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::PATIENCE, end).await.unwrap();
}

#[tokio::test]
async fn the_next_process_goes_on_where_the_last_one_was() {
    let rig = Rig::new().await;
    let blob = content(LAYER, 1);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    rig.origin.allow(12_000_000);
    let begun = rig.edge.begin(Method::GET, &path, &[]).await;
    received(&rig.edge, 12_000_000).await;
    begun.leave();
    rig.edge.stop().await;

    rig.origin.allow(u64::MAX);
    let edge = RunningEdge::start(rig.cache.path(), rig.origin.address, &[]).await;
    edge.get(&path).await.is(200, &blob, "fwd=miss");
    edge.settle().await;
    edge.get(&path).await.is(200, &blob, "hit");
    let asked = rig.origin.seen(&Method::GET, &path);
    assert_eq!(asked.len(), 2);
    assert!(from(&asked[1]) > 9_000_000, "{:?}", asked[1].range);
    edge.stop().await;
}

#[tokio::test]
async fn leftovers_that_were_tampered_with_are_served_to_nobody() {
    let rig = Rig::new().await;
    let blob = content(LAYER, 2);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    rig.origin.allow(12_000_000);
    let begun = rig.edge.begin(Method::GET, &path, &[]).await;
    received(&rig.edge, 12_000_000).await;
    begun.leave();
    rig.edge.stop().await;

    let downloads = rig.cache.path().join("downloads");
    let file = std::fs::read_dir(downloads).unwrap().next().unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(file.unwrap().path())
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"tampered", 1000).unwrap();
    rig.origin.allow(u64::MAX);
    let edge = RunningEdge::start(rig.cache.path(), rig.origin.address, &[]).await;
    let wrong = edge.get(&path).await;
    assert_eq!((wrong.status.as_u16(), wrong.body), (200, None));
    edge.settle().await;
    edge.get(&path).await.is(200, &blob, "fwd=miss");
    edge.stop().await;
}

#[tokio::test]
async fn what_is_left_of_a_bad_download_does_not_keep_the_blob_from_coming() {
    for (fault, next) in [
        // The source has a proxy in front of it that knows no ranges.
        (Fault::DieAt(3_000_000), Some(Fault::Whole)),
        // It said that there is more than there is; now it says that there is no such range.
        (Fault::Promise(300_000), None),
    ] {
        let rig = Rig::with(&["downloads.retries=0"]).await;
        let blob = content(5_000_000, 7);
        rig.origin.put_blob("a", &blob);
        let path = blob_path("a", &blob);
        rig.origin.fail_next(fault);
        let broken = rig.edge.get(&path).await;
        assert_eq!((broken.status.as_u16(), broken.body), (200, None));
        rig.edge.settle().await;
        rig.origin.fail_next(next.unwrap_or(Fault::Status(416)));
        rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
        rig.edge.settle().await;
        rig.edge.get(&path).await.is(200, &blob, "hit");
        rig.edge.stop().await;
    }
}

/// Nobody knows who gave what was left, but that it was wrong is to be seen.
#[tokio::test]
async fn what_was_left_and_is_wrong_is_counted() {
    let rig = Rig::with(&["downloads.retries=0"]).await;
    let blob = content(5_000_000, 10);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    for fault in [Fault::DieAt(3_000_000), Fault::FlipAt(4_000_000)] {
        rig.origin.fail_next(fault);
        assert_eq!(rig.edge.get(&path).await.body, None);
        rig.edge.settle().await;
    }
    let mismatches = rig.edge.metric("outport_edge_digest_mismatches_total");
    assert_eq!(mismatches, Some(1.0));
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_source_that_knows_no_ranges_and_dies_is_asked_for_all_again() {
    let rig = Rig::new().await;
    let blob = content(5_000_000, 9);
    rig.origin.put_blob("a", &blob);
    for fault in [Fault::DieAt(3_000_000), Fault::Whole] {
        rig.origin.fail_next(fault);
    }
    let path = blob_path("a", &blob);
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    assert_eq!(rig.origin.seen(&Method::GET, "/blobs/").len(), 2);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_source_that_takes_one_connection_is_asked_for_the_rest_afterwards() {
    for status in [429, 403] {
        let rig = Rig::with(&["downloads.connections=3"]).await;
        let blob = content(LAYER, 8);
        rig.origin.put_blob("a", &blob);
        let path = blob_path("a", &blob);
        rig.origin.allow(1_000_000);
        let whole = rig.edge.begin(Method::GET, &path, &[]).await;
        received(&rig.edge, 1_000_000).await;
        rig.origin.fail_next(Fault::Status(status));
        let range = ("range", "bytes=15000000-15000099");
        let ahead = rig.edge.begin(Method::GET, &path, &[range]).await;
        let refused = async {
            while rig.origin.seen(&Method::GET, &path).len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::PATIENCE, refused)
            .await
            .unwrap();
        rig.origin.allow(u64::MAX);
        let ahead = ahead.finish().await;
        assert!(ahead.body.unwrap() == blob[15_000_000..15_000_100]);
        whole.finish().await.is(200, &blob, "fwd=miss");
        rig.edge.settle().await;
        rig.edge.get(&path).await.is(200, &blob, "hit");
        rig.edge.stop().await;
    }
}

#[tokio::test]
async fn a_source_that_brings_little_at_a_time_is_asked_on_and_on() {
    let rig = Rig::with(&["downloads.retries=2"]).await;
    let blob = content(2_000_000, 9);
    rig.origin.put_blob("a", &blob);
    for _ in 0..10 {
        rig.origin.fail_next(Fault::DieAt(150_000));
    }
    let path = blob_path("a", &blob);
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_reader_far_ahead_does_not_wait_for_what_lies_before() {
    let rig = Rig::with(&["downloads.connections=3"]).await;
    let blob = content(LAYER, 3);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    rig.origin.allow(1_000_000);
    let whole = rig.edge.begin(Method::GET, &path, &[]).await;
    received(&rig.edge, 1_000_000).await;
    // The source stands still where the whole is read; this is brought by another connection.
    let ahead = rig.edge.get_range(&path, "bytes=15000000-15000099");
    ahead
        .await
        .is(206, &blob[15_000_000..15_000_100], "fwd=miss; collapsed");
    rig.origin.allow(u64::MAX);
    whole.finish().await.is(200, &blob, "fwd=miss");
    rig.edge.settle().await;
    rig.edge.get(&path).await.is(200, &blob, "hit");
    let asked = rig.origin.seen(&Method::GET, &path);
    assert!(from(&asked[1]) > 14_000_000, "{:?}", asked[1].range);
    rig.edge.stop().await;
}

#[tokio::test]
async fn conditions_and_several_ranges_are_answered_while_it_comes_in() {
    let rig = Rig::with(&["downloads.connections=1"]).await;
    let blob = content(LAYER, 6);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    rig.origin.allow(1_000_000);
    let whole = rig.edge.begin(Method::GET, &path, &[]).await;
    received(&rig.edge, 1_000_000).await;
    let etag = format!("\"{}\"", super::sha256(&blob));
    let ask = async |headers: &[(&str, &str)]| {
        let begun = rig.edge.begin(Method::GET, &path, headers).await;
        begun.finish().await
    };
    assert_eq!(ask(&[("if-none-match", &etag)]).await.status, 304);
    assert_eq!(ask(&[("if-match", "\"other\"")]).await.status, 412);
    assert_eq!(ask(&[("range", "bytes=20000000-")]).await.status, 416);
    // One that has landed, and one that has not.
    let range = ("range", "bytes=10-19,15000000-15000009");
    let parts = rig.edge.begin(Method::GET, &path, &[range]).await;
    rig.origin.allow(u64::MAX);
    let parts = parts.finish().await;
    assert_eq!(parts.status, 206);
    let body = parts.body.expect("all parts");
    for part in [&blob[10..20], &blob[15_000_000..15_000_010]] {
        assert!(body.windows(10).any(|window| window == part));
    }
    whole.finish().await.is(200, &blob, "fwd=miss");
    assert_eq!(rig.origin.seen(&Method::GET, &path).len(), 1);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_download_that_nobody_waits_for_ends_and_what_came_is_kept() {
    let rig = Rig::with(&["downloads.grace=10ms"]).await;
    let blob = content(LAYER, 4);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    rig.origin.allow(8_000_000);
    let begun = rig.edge.begin(Method::GET, &path, &[]).await;
    received(&rig.edge, 8_000_000).await;
    begun.leave();
    ended(&rig.edge, "deserted").await;
    rig.origin.allow(u64::MAX);
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    let asked = rig.origin.seen(&Method::GET, &path);
    assert_eq!(asked.len(), 2);
    assert!(from(&asked[1]) > 5_000_000, "{:?}", asked[1].range);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_download_that_is_past_its_half_goes_on_alone() {
    let rig = Rig::with(&["downloads.grace=1ms"]).await;
    let blob = content(LAYER, 5);
    rig.origin.put_blob("a", &blob);
    let path = blob_path("a", &blob);
    rig.origin.allow(15_000_000);
    let begun = rig.edge.begin(Method::GET, &path, &[]).await;
    received(&rig.edge, 15_000_000).await;
    begun.leave();
    rig.origin.allow(u64::MAX);
    ended(&rig.edge, "kept").await;
    rig.edge.get(&path).await.is(200, &blob, "hit");
    assert_eq!(rig.origin.seen(&Method::GET, &path).len(), 1);
    rig.edge.stop().await;
}
