//! Upstreams, and their token endpoints, that no answer comes from: each way of that, for each kind of question.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpSocket, TcpStream};

use super::upstreams::{Rig, STALE_MAX, UNAVAILABLE_MAX, manifest};
use super::{content, sha256};

/// Why nobody answers.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nobody listens.
    Refused,
    /// Nothing comes back, not even that.
    BlackHole,
    /// There is no such name.
    Name,
    /// What is spoken there is not TLS.
    Tls,
}

const ALL: [Fault; 4] = [Fault::Refused, Fault::BlackHole, Fault::Name, Fault::Tls];

/// A port that takes no connection, and does not say so.
struct BlackHole {
    address: SocketAddr,
    _held: Vec<TcpStream>,
    _listener: tokio::net::TcpListener,
}

impl BlackHole {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        // What the kernel holds for a listener that accepts nothing; beyond that, it does not answer.
        while let Ok(connected) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            held.push(connected.unwrap());
        }
        Self {
            address,
            _held: held,
            _listener: listener,
        }
    }
}

/// Returns the URL of a place that answers so.
fn url(fault: Fault, hole: &BlackHole, plain: SocketAddr) -> String {
    match fault {
        Fault::Refused => "http://127.0.0.1:1".to_owned(),
        Fault::BlackHole => format!("http://{}", hole.address),
        Fault::Name => "http://registry.invalid".to_owned(),
        Fault::Tls => format!("https://{plain}"),
    }
}

/// What an edge has of an image, and what it has not.
struct Image {
    manifest: Bytes,
    blob: Bytes,
}

impl Image {
    async fn pulled(rig: &Rig) -> Self {
        let (manifest, blob) = (manifest("a"), content(50_000, 5));
        rig.upstream.put_manifest("org/app", "1", &manifest);
        rig.upstream.put_blob("org/app", &blob);
        let image = Self { manifest, blob };
        let [by_tag, _, blob] = image.paths();
        let answer = rig.edge.get(&by_tag).await;
        answer.is(200, &image.manifest, "fwd=miss");
        let answer = rig.edge.get(&blob).await;
        answer.is(200, &image.blob, "fwd=miss");
        rig.edge.settle().await;
        image
    }

    fn paths(&self) -> [String; 3] {
        let (by_digest, blob) = (sha256(&self.manifest), sha256(&self.blob));
        [
            "manifests/1".to_owned(),
            format!("manifests/{by_digest}"),
            format!("blobs/{blob}"),
        ]
        .map(|path| format!("/v2/hub/org/app/{path}"))
    }

    /// Asks for what is there, which is served, and for what is not, which may be there.
    async fn is_served(&self, rig: &Rig, what: &str) {
        let [by_tag, by_digest, blob] = self.paths();
        let (answer, took) = rig.timed(&by_tag).await;
        answer.is(200, &self.manifest, "fwd=stale; detail=origin-unreachable");
        assert!(took < STALE_MAX, "{what}: {took:?}");
        let answer = rig.edge.get(&by_digest).await;
        answer.is(200, &self.manifest, "hit");
        rig.edge.get(&blob).await.is(200, &self.blob, "hit");
        let absent = sha256(&content(10, 99));
        for path in [
            "manifests/2".to_owned(),
            format!("manifests/{absent}"),
            format!("blobs/{absent}"),
        ] {
            let (answer, took) = rig.timed(&format!("/v2/hub/org/app/{path}")).await;
            assert_eq!(answer.status, 503, "{what}: {path}");
            assert!(answer.headers.contains_key("retry-after"), "{what}: {path}");
            assert!(took < UNAVAILABLE_MAX, "{what}: {path}: {took:?}");
        }
    }
}

#[tokio::test]
async fn what_is_here_is_served_when_the_upstream_is_out_of_reach() {
    let (mut rig, hole) = (Rig::new(&[]).await, BlackHole::new().await);
    let image = Image::pulled(&rig).await;
    for fault in ALL {
        let url = url(fault, &hole, rig.upstream.address);
        let set = format!("upstream.0.url={url}");
        rig = rig.restart(&[&set, "upstreams.tags_fresh_for=0s"]).await;
        image.is_served(&rig, &url).await;
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_is_here_is_served_when_no_token_is_within_reach() {
    let (mut rig, hole) = (Rig::new(&[]).await, BlackHole::new().await);
    let image = Image::pulled(&rig).await;
    for fault in ALL {
        let url = url(fault, &hole, rig.upstream.address);
        rig.upstream.ask_for_tokens(Some(&format!("{url}/token")));
        // So that the tokens of before are forgotten.
        rig = rig
            .restart(&["upstream.0.private_hosts=[\"registry.invalid\"]"])
            .await;
        image.is_served(&rig, &url).await;
    }
    rig.edge.stop().await;
}
