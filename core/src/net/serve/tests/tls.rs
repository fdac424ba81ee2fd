//! Connections under TLS.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, SupportedProtocolVersion};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::net::tls::Made;

const NAME: &str = "registry.example";

pub(super) async fn handshake(
    running: &Running,
    client: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(NAME).unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    connector.connect(name, running.connect().await).await
}

pub(super) async fn secure<S, F>(config: Config, service: S) -> (Running, Made)
where
    S: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let made = Made::new(NAME);
    let running = Running::start_with(config, Some(made.tls()), service).await;
    (running, made)
}

/// Bytes of which no two neighbours are alike.
fn large() -> Bytes {
    (0..3_000_000_u32).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn both_versions_and_both_protocols() {
    let (running, made) = secure(Config::default(), async |_| Response::new(large().into())).await;
    for version in [&TLS12, &TLS13] {
        let speak = |protocol| {
            let versions: &[&'static SupportedProtocolVersion] = &[version];
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let trusting = made.client(&[protocol]);
            let mut client = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(made.roots())
                .with_no_client_auth();
            client.alpn_protocols = trusting.alpn_protocols;
            client
        };
        let stream = handshake(&running, speak("http/1.1")).await.unwrap();
        let expected = match version.version {
            ProtocolVersion::TLSv1_2 => ProtocolVersion::TLSv1_2,
            _ => ProtocolVersion::TLSv1_3,
        };
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        drop(Tasks::new().spawn("client", connection));
        let request = Request::get("/")
            .header("host", "a")
            .body(Empty::<Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert!(response.into_body().collect().await.unwrap().to_bytes() == large());

        let stream = handshake(&running, speak("h2")).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let client = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = client.await.unwrap();
        drop(Tasks::new().spawn("client", connection));
        let request = Request::get("https://a/").body(Empty::<Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert!(response.into_body().collect().await.unwrap().to_bytes() == large());
    }
}

#[tokio::test]
async fn an_end_is_clean_and_a_break_is_not() {
    let (running, made) = secure(
        Config::default(),
        async |request: Request<Body>| match request.uri().path() {
            "/" => hello(request).await,
            _ => broken(request).await,
        },
    )
    .await;
    let mut stream = handshake(&running, made.client(&[])).await.unwrap();
    stream.write_all(GET_AND_CLOSE.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap();
    assert!(read.ends_with(b"\r\n\r\nhello"));

    for path in ["/sized", "/unsized"] {
        let mut stream = handshake(&running, made.client(&[])).await.unwrap();
        let request = GET.replace(" / ", &format!(" {path} "));
        stream.write_all(request.as_bytes()).await.unwrap();
        let outcome = stream.read_to_end(&mut Vec::new()).await.map(drop);
        assert!(is_reset(&outcome), "{outcome:?}");
    }
}

#[tokio::test]
async fn what_hyper_refuses_gets_an_error_of_ours() {
    let (running, made) = secure(Config::default(), hello).await;
    let mut stream = handshake(&running, made.client(&[])).await.unwrap();
    stream.write_all(b"nonsense\r\n\r\n").await.unwrap();
    let mut read = String::new();
    stream.read_to_string(&mut read).await.unwrap();
    assert!(read.starts_with("HTTP/1.1 400 "), "{read}");
    assert!(read.contains("\"errors\""), "{read}");
}

#[tokio::test(start_paused = true)]
async fn half_a_handshake_is_cut() {
    let (running, _made) = secure(Config::default(), hello).await;
    let begin = Instant::now();
    let mut stream = running.connect().await;
    // The head of a record that announces a hello.
    stream.write_all(b"\x16\x03\x01\x01\x00\x01").await.unwrap();
    let (text, _outcome) = read_to_end(&mut stream).await;
    assert_eq!((text.as_str(), begin.elapsed().as_secs()), ("", 15));
    running.assert_counted("connections_cut_total{server=\"test\",reason=\"silent\"} 1");
}

#[tokio::test]
async fn a_bad_handshake_costs_its_connection() {
    let (running, made) = secure(Config::default(), hello).await;
    let (text, _outcome) = running.exchange(GET).await;
    assert!(!text.contains("HTTP"), "{text}");
    let stranger = Made::new("stranger");
    assert!(handshake(&running, stranger.client(&[])).await.is_err());
    handshake(&running, made.client(&[])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_reset_under_tls() {
    let (running, made) = secure(Config::default(), async |_| {
        Response::new(Body::stream(stream::repeat_with(|| Ok(large()))))
    })
    .await;
    let mut stream = handshake(&running, made.client(&[])).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    running.server_cut_somebody().await;
    let outcome = stream.read_to_end(&mut Vec::new()).await.map(drop);
    assert!(is_reset(&outcome), "{outcome:?}");
    running.assert_counted("reason=\"send_stall\"} 1");
}

#[tokio::test]
async fn connections_beyond_the_bound_are_told_under_tls() {
    let config = Config {
        max_connections: 1,
        ..Config::default()
    };
    let (running, made) = secure(config, hello).await;
    let _first = handshake(&running, made.client(&[])).await.unwrap();
    let mut second = handshake(&running, made.client(&[])).await.unwrap();
    second.write_all(GET.as_bytes()).await.unwrap();
    let mut read = String::new();
    second.read_to_string(&mut read).await.ok();
    assert!(read.starts_with("HTTP/1.1 503 "), "{read}");
}
