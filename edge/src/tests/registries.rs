//! Two registries that both have a blob, or say so, and have nothing to do with each other.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use http::header::CONTENT_LENGTH;
use http::{Method, Response};
use outport_core::body::Body;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::upstreams::Rig;
use super::upstreams::scripted::{Behaviour, ScriptedUpstream};
use super::{PATIENCE, blob_path, content, sha256};
use crate::cache::tests::lose;

/// An edge with a second upstream beside the one called `hub`.
struct Two {
    rig: Rig,
    other: ScriptedUpstream,
    blob: Bytes,
    /// The blob, as each of them calls it.
    paths: [String; 2],
}

/// How an upstream lies about a blob.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// With other bytes.
    Wrong,
    /// With other bytes that come slowly and never end.
    Slow,
    /// With other bytes that break off.
    Short,
    /// With other bytes that break off, and then by saying that there are none.
    Gone,
}

const BLOB_BYTES: usize = 3_000_000;

impl Two {
    async fn new() -> Self {
        let other = ScriptedUpstream::start().await;
        let url = format!("upstream.1.url=http://{}", other.address);
        let set = ["upstream.1.name=other", &url, "downloads.retries=0"];
        let rig = Rig::new(&set).await;
        let blob = content(BLOB_BYTES, 1);
        let paths = ["hub/org/app", "other/org/app"].map(|repo| blob_path(repo, &blob));
        Self {
            rig,
            other,
            blob,
            paths,
        }
    }

    /// Waits until the other one has been asked for so many blobs.
    async fn other_is_asked(&self, count: usize) {
        let asked = async {
            while self.other.count("GET", "/blobs/") < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, asked).await.unwrap();
    }

    async fn stop(self) {
        self.rig.edge.stop().await;
    }
}

impl Lie {
    const ALL: [Self; 4] = [Self::Wrong, Self::Slow, Self::Short, Self::Gone];

    /// Has an upstream tell it.
    fn of(self, upstream: &ScriptedUpstream) {
        let is_begun = CancellationToken::new();
        upstream.script("/blobs/", move |method| {
            let zeros = Bytes::from(vec![0; BLOB_BYTES]);
            let broken = || Err(io::Error::other("told to die"));
            match self {
                Self::Wrong => blob(zeros.into()),
                Self::Slow => blob(slow()),
                Self::Gone if is_begun.is_cancelled() && *method == Method::GET => {
                    let mut gone = Response::new(Body::empty());
                    *gone.status_mut() = http::StatusCode::NOT_FOUND;
                    gone
                }
                Self::Short | Self::Gone => {
                    is_begun.cancel();
                    let pieces = [Ok(zeros.slice(..1_000_000)), broken()];
                    blob(Body::stream(stream::iter(pieces)))
                }
            }
        });
    }
}

/// Answers with what is to be a blob.
fn blob(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, BLOB_BYTES.into());
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
async fn each_brings_it_once_and_it_is_kept_once() {
    let two = Two::new().await;
    for upstream in [&two.rig.upstream, &two.other] {
        upstream.put_blob("org/app", &two.blob);
        // So that the one is still at it when the other begins.
        upstream.delay("/blobs/", Duration::from_millis(300));
    }
    let asks = (0..20).map(|number| two.rig.edge.get(&two.paths[number % 2]));
    for answer in join_all(asks).await {
        assert!(answer.body.as_ref() == Some(&two.blob), "{}", answer.status);
    }
    two.rig.edge.settle().await;
    for (upstream, path) in [&two.rig.upstream, &two.other].into_iter().zip(&two.paths) {
        assert_eq!(upstream.count("GET", "/blobs/"), 1, "{path}");
        two.rig.edge.get(path).await.is(200, &two.blob, "hit");
    }
    assert!(two.rig.edge.cache.partials().is_empty());
    two.stop().await;
}

#[tokio::test]
async fn a_liar_spoils_nothing_of_another() {
    for lie in Lie::ALL {
        let two = Two::new().await;
        two.rig.upstream.put_blob("org/app", &two.blob);
        lie.of(&two.other);
        let [first, other] = &two.paths;
        // As it begins, and once more with what it left.
        for round in 1..3 {
            let begun = two.rig.edge.try_begin(Method::GET, other, &[]);
            let others = async {
                two.other_is_asked(round).await;
                join_all((0..5).map(|_| two.rig.edge.get(first))).await
            };
            let (begun, others) = tokio::join!(begun, others);
            for answer in others {
                let is_whole = answer.body.as_ref() == Some(&two.blob);
                assert!(is_whole, "{lie:?} {}", answer.status);
            }
            assert_eq!(two.rig.upstream.count("GET", "/blobs/"), round, "{lie:?}");
            drop(begun);
            if matches!(lie, Lie::Slow) {
                break;
            }
            // Clients have it a moment before the cache does.
            two.rig.edge.settle().await;
            lose(&two.rig.edge.cache, &sha256(&two.blob));
        }
        two.stop().await;
    }
}

#[tokio::test]
async fn what_one_has_another_is_not_said_to_have() {
    let two = Two::new().await;
    two.other.put_blob("org/app", &two.blob);
    // It is going to say that it has no such blob.
    two.rig
        .upstream
        .delay("/blobs/", Duration::from_millis(500));
    let [first, other] = &two.paths;
    let (without, with) = tokio::join!(two.rig.edge.get(first), two.rig.edge.get(other));
    assert_eq!(without.status, 404);
    with.is(200, &two.blob, "fwd=miss");
    two.rig.edge.settle().await;
    for path in [first.clone(), blob_path("hub/org/b", &two.blob)] {
        assert_eq!(two.rig.edge.get(&path).await.status, 404);
    }
    two.stop().await;
}

/// When it has yet to be hashed, whoever is asked for it says how large it should be.
#[tokio::test]
async fn what_one_says_of_a_size_costs_another_nothing() {
    let two = Two::new().await;
    two.rig.upstream.put_blob("org/app", &two.blob);
    let [first, other] = &two.paths;
    two.rig.edge.get(first).await.is(200, &two.blob, "fwd=miss");
    two.rig.edge.settle().await;
    two.rig.upstream.behave(Behaviour::Status(503));
    two.other
        .script("/blobs/", |_| Response::new(Bytes::from("short").into()));
    for method in [Method::HEAD, Method::GET] {
        two.rig.edge.cache.doubt(&sha256(&two.blob));
        let asked = two.rig.edge.begin(method, other, &[]).await.finish().await;
        assert!(asked.body.as_ref() != Some(&two.blob));
        let answer = two.rig.edge.get(first).await;
        answer.is(200, &two.blob, "hit");
        two.rig.edge.settle().await;
    }
    two.stop().await;
}

#[tokio::test]
async fn what_one_left_is_not_gone_on_with_from_another() {
    let two = Two::new().await;
    two.rig.upstream.put_blob("org/app", &two.blob);
    Lie::Short.of(&two.other);
    let [first, other] = &two.paths;
    assert_eq!(two.rig.edge.get(other).await.body, None);
    two.rig.edge.settle().await;
    assert_eq!(two.rig.edge.cache.partials().len(), 1);
    two.rig.edge.get(first).await.is(200, &two.blob, "fwd=miss");
    two.stop().await;
}
