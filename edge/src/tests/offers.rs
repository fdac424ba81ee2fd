//! Two registries that both say that they have a blob, of which one is slow, and one may lie.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::CONTENT_LENGTH;
use http::{Method, Response};
use outport_core::body::Body;
use tokio_util::sync::CancellationToken;

use super::upstreams::Rig;
use super::upstreams::scripted::ScriptedUpstream;
use super::{Begun, blob_path, content};

/// An edge with a second upstream beside the one called `hub`.
struct Two {
    rig: Rig,
    other: ScriptedUpstream,
    blob: Bytes,
    /// The blob, as each of them calls it.
    paths: [String; 2],
}

impl Two {
    async fn new() -> Self {
        let other = ScriptedUpstream::start().await;
        let url = format!("upstream.1.url=http://{}", other.address);
        let rests = ["upstreams.min_rest=1m", "upstreams.max_rest=1m"];
        let set = ["upstream.1.name=other", &url, "downloads.retries=0"];
        let rig = Rig::new(&[&set[..], &rests[..]].concat()).await;
        let blob = content(3_000_000, 1);
        let paths = ["hub/org/app", "other/org/app"].map(|repo| blob_path(repo, &blob));
        Self {
            rig,
            other,
            blob,
            paths,
        }
    }

    /// Begins the download at the first, and then asks for the same at the other.
    async fn begin_both(&self) -> [Begun; 2] {
        let [first, other] = &self.paths;
        let begun = self.rig.edge.try_begin(Method::GET, first, &[]);
        let joined = async {
            while self.rig.upstream.count("GET", "/blobs/") == 0 {
                tokio::task::yield_now().await;
            }
            self.rig.edge.begin(Method::GET, other, &[]).await
        };
        let (begun, joined) = tokio::join!(begun, joined);
        [begun.unwrap(), joined]
    }

    async fn stop(self) {
        self.rig.edge.stop().await;
    }
}

/// Answers with so many bytes, and these.
fn blob(size: usize, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_LENGTH, size.into());
    response
}

/// Returns a body that never ends, of a byte each millisecond: of one that stands still another connection would be tried.
fn slow() -> Body {
    let bytes = stream::repeat(Bytes::from_static(b"x")).then(async |byte| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(byte)
    });
    Body::stream(bytes)
}

#[tokio::test]
async fn who_begins_a_download_gets_nothing_that_only_another_registry_has() {
    let two = Two::new().await;
    two.other.put_blob("org/app", &two.blob);
    // It is going to say that it has no such blob.
    two.rig
        .upstream
        .delay("/blobs/", Duration::from_millis(900));
    let [begun, joined] = two.begin_both().await;
    assert!(joined.finish().await.body.as_ref() == Some(&two.blob));
    assert_ne!(begun.finish().await.status, 200);
    two.rig.edge.settle().await;
    for path in [two.paths[0].clone(), blob_path("hub/org/b", &two.blob)] {
        assert_eq!(two.rig.edge.get(&path).await.status, 404);
    }
    two.stop().await;
}

#[tokio::test]
async fn of_two_that_gave_wrong_bytes_together_the_one_that_lies_is_found_out_alone() {
    let two = Two::new().await;
    let (size, honest) = (two.blob.len(), two.blob.clone());
    two.rig
        .upstream
        .script("/blobs/", move |_| blob(size, slow()));
    let zeros = Bytes::from(vec![0; size]);
    two.other
        .script("/blobs/", move |_| blob(size, zeros.clone().into()));
    let [begun, joined] = two.begin_both().await;
    for spoilt in [begun, joined] {
        let spoilt = spoilt.finish().await;
        assert_eq!((spoilt.status.as_u16(), spoilt.body), (200, None));
    }
    two.rig.edge.settle().await;
    let [first, other] = &two.paths;
    let alone = two.rig.edge.get(other).await;
    assert_eq!((alone.status, alone.body), (200.try_into().unwrap(), None));
    two.rig.edge.settle().await;
    assert_eq!(two.rig.edge.get(other).await.status, 503);
    two.rig
        .upstream
        .script("/blobs/", move |_| blob(size, honest.clone().into()));
    two.rig.edge.get(first).await.is(200, &two.blob, "fwd=miss");
    two.stop().await;
}

#[tokio::test]
async fn those_that_gave_wrong_bytes_together_have_nothing_to_do_with_each_other() {
    let two = Two::new().await;
    let (size, honest) = (two.blob.len(), two.blob.clone());
    let zeros = Bytes::from(vec![0; size]);
    two.rig
        .upstream
        .script("/blobs/", move |_| blob(size, slow()));
    two.other
        .script("/blobs/", move |_| blob(size, zeros.clone().into()));
    for spoilt in two.begin_both().await {
        assert_eq!(spoilt.finish().await.body, None);
    }
    two.rig.edge.settle().await;
    let asked = two.other.count("GET", "/blobs/");
    // As slow as before, until the other has had its say.
    let is_heard = CancellationToken::new();
    let rest_waits = is_heard.clone();
    two.rig.upstream.script("/blobs/", move |_| {
        let (first, rest) = (honest.slice(..1000), honest.slice(1000..));
        let first = stream::iter([Ok(first)]);
        let rest_waits = rest_waits.clone();
        let rest = stream::once(async move {
            rest_waits.cancelled().await;
            Ok(rest)
        });
        blob(size, Body::stream(first.chain(rest)))
    });
    let [first, _] = &two.paths;
    let begun = two.rig.edge.begin(Method::GET, first, &[]).await;
    // By another name, as that one is not asked about any more.
    let another = blob_path("other/org/b", &two.blob);
    let joined = two.rig.edge.begin(Method::GET, &another, &[]).await;
    // It gets what its own registry says, and that alone.
    assert_eq!(joined.finish().await.body, None);
    is_heard.cancel();
    assert!(begun.finish().await.body.as_ref() == Some(&two.blob));
    assert_eq!(two.other.count("GET", "/blobs/"), asked + 1);
    two.stop().await;
}

#[tokio::test]
async fn what_one_registry_left_is_not_gone_on_with_from_another() {
    let two = Two::new().await;
    let size = two.blob.len();
    two.rig.upstream.put_blob("org/app", &two.blob);
    let is_in = CancellationToken::new();
    let end_waits = is_in.clone();
    two.other.script("/blobs/", move |_| {
        let zeros = stream::iter([Ok(Bytes::from(vec![0; 1_000_000]))]);
        let end_waits = end_waits.clone();
        let dies = stream::once(async move {
            end_waits.cancelled().await;
            Err(io::Error::other("told to die"))
        });
        blob(size, Body::stream(zeros.chain(dies)))
    });
    let [first, other] = &two.paths;
    let end = async {
        let received = "outport_edge_downloads_received_bytes_total";
        while two.rig.edge.metric(received) < Some(1e6) {
            tokio::task::yield_now().await;
        }
        is_in.cancel();
    };
    let (left, ()) = tokio::join!(two.rig.edge.get(other), end);
    assert_eq!(left.body, None);
    two.rig.edge.settle().await;
    two.rig.edge.get(first).await.is(200, &two.blob, "fwd=miss");
    two.stop().await;
}

#[tokio::test]
async fn a_download_of_a_registry_that_lied_is_joined_by_nobody_else() {
    let two = Two::new().await;
    two.rig.upstream.put_blob("org/app", &two.blob);
    let size = two.blob.len();
    let zeros = Bytes::from(vec![0; size]);
    two.other
        .script("/blobs/", move |_| blob(size, zeros.clone().into()));
    let [first, other] = &two.paths;
    assert_eq!(two.rig.edge.get(other).await.body, None);
    two.rig.edge.settle().await;
    // By another of its names: the first one rests.
    two.other.script("/blobs/", move |_| blob(size, slow()));
    let again = blob_path("other/org/b", &two.blob);
    let begun = two.rig.edge.begin(Method::GET, &again, &[]).await;
    let answer = two.rig.edge.get(first).await;
    answer.is(200, &two.blob, "fwd=bypass");
    drop(begun);
    two.stop().await;
}
