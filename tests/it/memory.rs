//! How much memory the nodes use: nothing that grows with the size of a blob.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use harness::content::Content;
use harness::eventually::eventually;
use harness::node::{Edge, Origin};
use harness::repository::Repository;
use harness::tls::{Certificate, connect};
use http::{Method, Request};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, yield_now};

/// What a node may use at most, and what for each stream that is open, in bytes.
const NODE_MAX: u64 = 64 << 20;
const STREAM_MAX: u64 = 256 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_takes_little() {
    const CLIENTS: u64 = 8;
    let origin = Origin::start().await;
    let edge = Edge::start(&origin).await;
    let repository = Repository::new(edge.client(), "team/app");
    let content = Content::new(1, 192 << 20);
    let digest = content.sha256();

    // In as docker pushes it, through the edge; out to many at once, from a cold cache.
    let location = repository.start_upload().await;
    let patch = repository
        .client()
        .patch(&location)
        .chunked(stream::iter(content.pieces()));
    patch.send().await.expect(202);
    repository
        .finish_upload(&location, &digest)
        .send()
        .await
        .expect(201);
    let pulls = (0..CLIENTS).map(|_| async {
        let mut open = repository.blob(Method::GET, &digest).open().await;
        open.read_content(content, 0).await.unwrap()
    });
    assert_eq!(join_all(pulls).await, vec![content.size(); 8]);

    for (node, process) in [("origin", origin.process()), ("edge", edge.process())] {
        let (_, peak) = process.memory();
        assert!(
            peak < NODE_MAX + CLIENTS * STREAM_MAX,
            "the {node} used {} MiB",
            peak >> 20
        );
    }
}

/// A connection, plain or under TLS.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

/// Asks for a blob, takes so much of it bit by bit, and then nothing.
async fn stall(connection: &mut dyn Connection, path: &str, bytes: u64) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    connection.flush().await.unwrap();
    let mut piece = vec![0; 16 << 10];
    for _ in 0..bytes / piece.len() as u64 {
        connection.read_exact(&mut piece).await.unwrap();
        yield_now().await;
    }
}

/// How a pull comes that stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
    Http2,
}

/// A pull that stalls, for as long as it is held.
type Stalled = Box<dyn Send>;

/// Asks for a blob by HTTP/2, and takes nothing of it.
async fn stall_http2(edge: SocketAddr, path: &str) -> Stalled {
    let stream = TcpStream::connect(edge).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1 << 20);
    let handshake = builder.handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let mut running = JoinSet::new();
    running.spawn(connection);
    let request = Request::get(format!("http://{edge}{path}"));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    Box::new((response, running))
}

async fn stalled_pulls_take_little(way: Way) {
    const CLIENTS: u64 = 200;
    const LAYER_BYTES: u64 = 24 << 20;
    let certificate = Certificate::new("stalled");
    let origin = Origin::start().await;
    let repository = Repository::new(origin.client(), "team/app");
    let digest = repository.push_content(Content::new(2, LAYER_BYTES)).await;
    let url = format!("http://{}", origin.address());
    let sets = certificate.sets();
    let sets = if way == Way::Tls { &sets[..] } else { &[] };
    let edge = Edge::start_with(&url, sets).await;
    let path = format!("/v2/team/app/blobs/{digest}");
    let open = async |way, bytes| {
        let mut connection: Box<dyn Connection> = match way {
            Way::Http2 => return stall_http2(edge.address(), &path).await,
            Way::Tls => Box::new(connect(edge.address(), &certificate.certificate()).await),
            Way::Plain => Box::new(TcpStream::connect(edge.address()).await.unwrap()),
        };
        stall(&mut *connection, &path, bytes).await;
        Box::new(connection) as Stalled
    };
    // One brings it in.
    let whole = if way == Way::Http2 { Way::Plain } else { way };
    drop(open(whole, LAYER_BYTES).await);
    let (before, _) = edge.process().memory();
    let mut stalled = Vec::new();
    for _ in 0..CLIENTS / 20 {
        stalled.extend(join_all((0..20).map(|_| open(way, 1 << 20))).await);
    }
    let mut last = 0;
    eventually("no more is taken", async || {
        let (now, _) = edge.process().memory();
        std::mem::replace(&mut last, now).eq(&now).then_some(())
    })
    .await;
    let each = last.saturating_sub(before) / CLIENTS;
    assert!(each <= STREAM_MAX, "each took {} KiB", each >> 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_pull_takes_little() {
    stalled_pulls_take_little(Way::Plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_pull_under_tls_takes_little() {
    stalled_pulls_take_little(Way::Tls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_pull_by_http2_takes_little() {
    stalled_pulls_take_little(Way::Http2).await;
}
