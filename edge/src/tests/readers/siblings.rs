//! Edges of a region that have an upstream with readers.

use bytes::Bytes;
use http::Method;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{ALICE, ANYBODY, BOB, FOR_ALICE, KEY, ask, get, refusal, users};
use crate::tests::origin::ScriptedOrigin;
use crate::tests::upstreams::scripted::ScriptedUpstream;
use crate::tests::{RunningEdge, blob_path, content};

/// Two edges of a region, siblings, in front of an upstream.
struct Region {
    upstream: ScriptedUpstream,
    edges: Vec<RunningEdge>,
    _caches: [TempDir; 2],
    _users: TempDir,
}

impl Region {
    /// Starts them with an origin, if there is one, and each with its own settings.
    async fn new(origin: Option<&ScriptedOrigin>, own: [&[&str]; 2]) -> Self {
        let (directory, users) = users();
        let upstream = ScriptedUpstream::start().await;
        let mut listeners = Vec::new();
        for _ in 0..2 {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses: Vec<_> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        let caches = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let mut edges = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            let other = 1 - index;
            let mut set = vec![
                users.clone(),
                KEY.to_owned(),
                "siblings.overtake_after=1m".to_owned(),
                format!("name=node-{index}"),
                format!("sibling.0.name=node-{other}"),
                format!("sibling.0.url=http://{}", addresses[other]),
            ];
            if origin.is_none() {
                set.push("origin.urls=[]".to_owned());
            }
            let theirs = upstream.address.to_string();
            set.extend(
                own[index]
                    .iter()
                    .map(|set| set.replace("UPSTREAM", &theirs)),
            );
            let set: Vec<_> = set.iter().map(String::as_str).collect();
            let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
            let origin = origin.map_or(nobody, |origin| origin.address);
            edges.push(RunningEdge::start_on(listener, caches[index].path(), origin, &set).await);
        }
        Self {
            upstream,
            edges,
            _caches: caches,
            _users: directory,
        }
    }

    /// Puts blobs at the upstream, as many as have both for their owners.
    fn put_blobs(&self) -> Vec<Bytes> {
        let blobs: Vec<_> = (0..8).map(|seed| content(100_000, seed)).collect();
        for blob in &blobs {
            self.upstream.put_blob("org/app", blob);
        }
        blobs
    }

    async fn stop(self) {
        for edge in self.edges {
            edge.stop().await;
        }
    }
}

/// An upstream that is for alice.
const CLOSED: [&str; 3] = [
    "upstream.0.name=hub",
    "upstream.0.url=http://UPSTREAM",
    FOR_ALICE,
];

#[tokio::test]
async fn siblings_let_each_other_in_and_nobody_else() {
    let region = Region::new(None, [&CLOSED, &CLOSED]).await;
    let blobs = region.put_blobs();
    for blob in &blobs {
        let path = blob_path("hub/org/app", blob);
        for edge in &region.edges {
            assert_eq!(get(edge, ALICE, &path).await.body, Some(blob.clone()));
            edge.settle().await;
            let hops = [("outport-hops", "1")];
            assert_eq!(ask(edge, Method::GET, &path, &hops).await.status, 401);
        }
    }
    // Each came into the region once.
    assert_eq!(region.upstream.count("GET", "/blobs/"), blobs.len());
    region.stop().await;
}

#[tokio::test]
async fn a_sibling_gives_nothing_of_a_default_upstream_for_what_is_hosted() {
    let origin = ScriptedOrigin::start().await;
    let more = ["upstreams.default=hub", "upstreams.names_from=upstream"];
    let set = [&CLOSED[..], &more].concat();
    let region = Region::new(Some(&origin), [&set, &set]).await;
    let blobs = region.put_blobs();
    let is_closed = async || {
        for (blob, edge) in blobs
            .iter()
            .flat_map(|blob| [0, 1].map(|edge| (blob, edge)))
        {
            let path = blob_path("org/app", blob);
            for shown in [ANYBODY, BOB] {
                let answer = get(&region.edges[edge], shown, &path).await;
                assert_eq!(answer.status, refusal(shown), "{path} at {edge}");
            }
        }
    };
    is_closed().await;
    assert!(region.upstream.seen("/").is_empty(), "nobody was asked");
    // Warm at its owner alone, and then everywhere.
    for edge in &region.edges {
        for blob in &blobs {
            let path = blob_path("org/app", blob);
            assert_eq!(get(edge, ALICE, &path).await.body, Some(blob.clone()));
            edge.settle().await;
        }
        is_closed().await;
    }
    assert_eq!(region.upstream.count("GET", "/blobs/"), blobs.len());
    // What is hosted they have from each other all the same.
    let hosted: Vec<_> = (20..28).map(|seed| content(100_000, seed)).collect();
    for blob in &hosted {
        origin.put_blob("team/app", blob);
        let path = blob_path("team/app", blob);
        for edge in &region.edges {
            assert_eq!(get(edge, ANYBODY, &path).await.body, Some(blob.clone()));
            edge.settle().await;
        }
        assert_eq!(origin.seen(&Method::GET, &path).len(), 1);
    }
    region.stop().await;
}

#[tokio::test]
async fn a_sibling_that_would_let_everybody_in_gets_nothing() {
    let open = [
        "upstream.0.name=hub",
        // Nobody is there.
        "upstream.0.url=http://127.0.0.1:1",
    ];
    for open in [&open[..], &[]] {
        let region = Region::new(None, [&CLOSED, open]).await;
        let [closed, other] = [&region.edges[0], &region.edges[1]];
        for blob in region.put_blobs() {
            let path = blob_path("hub/org/app", &blob);
            for _ in ["cold", "warm"] {
                for shown in [ANYBODY, ALICE] {
                    let answer = get(other, shown, &path).await;
                    assert_ne!(answer.status, 200, "{open:?}");
                    assert_ne!(answer.body, Some(blob.clone()));
                }
                let answer = get(closed, ALICE, &path).await;
                assert_eq!(answer.body, Some(blob.clone()), "{open:?}");
                closed.settle().await;
            }
        }
        region.stop().await;
    }
}
