mod early;
mod floods;
mod parked;
mod streams;
mod tls;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

/// A server on a socket of its own.
struct Running {
    address: SocketAddr,
    metrics: Metrics,
    shutdown: CancellationToken,
    server: JoinHandle<Drained>,
}

impl Running {
    async fn start<S, F>(config: Config, service: S) -> Self
    where
        S: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start_with(config, None, service).await
    }

    async fn start_with<S, F>(config: Config, tls: Option<Tls>, service: S) -> Self
    where
        S: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, shutdown) = (Metrics::new(), CancellationToken::new());
        let server = Server::new("test", config, &metrics).with_tls(tls);
        let server = Tasks::new().spawn("server", server.run(listener, service, shutdown.clone()));
        Self {
            address,
            metrics,
            shutdown,
            server,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a new connection and reads what comes until it ends.
    async fn exchange(&self, request: &str) -> (String, io::Result<()>) {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    #[track_caller]
    fn assert_counted(&self, line: &str) {
        let text = self.metrics.encode().unwrap();
        assert!(text.contains(line), "{text}");
    }
}

async fn read_to_end(stream: &mut TcpStream) -> (String, io::Result<()>) {
    let mut read = Vec::new();
    let outcome = stream.read_to_end(&mut read).await.map(drop);
    (String::from_utf8_lossy(&read).into_owned(), outcome)
}

/// Reads one response whose body is of a known length.
async fn read_response(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        assert_ne!(
            stream.read_buf(&mut read).await.unwrap(),
            0,
            "ended early: {text}"
        );
    }
}

fn is_reset(outcome: &io::Result<()>) -> bool {
    matches!(outcome, Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
}

async fn hello(_request: Request<Body>) -> Response<Body> {
    Response::new("hello".into())
}

/// Answers with a body that sends ten bytes and then fails.
async fn broken(request: Request<Body>) -> Response<Body> {
    let pieces = [
        Ok(Bytes::from_static(b"0123456789")),
        Err(io::ErrorKind::Other.into()),
    ];
    let body = Body::stream(stream::iter(pieces));
    Response::new(if request.uri().path() == "/sized" {
        body.with_exact_len(20)
    } else {
        body
    })
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const GET_AND_CLOSE: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn every_response_is_of_a_registry() {
    let running = Running::start(Config::default(), hello).await;
    let (text, outcome) = running.exchange(GET_AND_CLOSE).await;
    outcome.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(
        text.contains("docker-distribution-api-version: registry/2.0\r\n"),
        "{text}"
    );
    assert!(text.contains("content-length: 5\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nhello"), "{text}");
}

#[tokio::test]
async fn head_keeps_the_length_of_get() {
    let running = Running::start(Config::default(), async |request: Request<Body>| {
        let mut response = Response::new(match request.uri().path() {
            "/streamed" => Body::stream(stream::pending()).with_exact_len(12345),
            _ => Body::empty(),
        });
        response.headers_mut().insert(CONTENT_LENGTH, 12345.into());
        response
    })
    .await;
    for path in ["/streamed", "/empty"] {
        let request = format!("HEAD {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let (text, outcome) = running.exchange(&request).await;
        outcome.unwrap();
        assert_eq!(
            text.matches("content-length: 12345\r\n").count(),
            1,
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\n"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_sends_nothing_is_cut() {
    let running = Running::start(Config::default(), hello).await;
    let start = Instant::now();
    let (text, _) = running.exchange("").await;
    assert_eq!((text.as_str(), start.elapsed().as_secs()), ("", 15));
    running.assert_counted(r#"connections_cut_total{server="test",reason="silent"} 1"#);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_cut() {
    for (beginning, seconds) in [
        ("G", 15),
        ("GET / HTTP/1.1\r\nhost: a\r\nx: ", 15),
        ("PRI * HT", 15),
    ] {
        let running = Running::start(Config::default(), hello).await;
        let start = Instant::now();
        let (text, _) = running.exchange(beginning).await;
        assert_eq!(
            (text.as_str(), start.elapsed().as_secs()),
            ("", seconds),
            "{beginning}"
        );
        running.assert_counted(r#"connections_cut_total{server="test",reason="slow_head"} 1"#);
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_is_cut() {
    let running = Running::start(Config::default(), hello).await;
    let start = Instant::now();
    let stream = running.connect().await;
    let (mut reader, mut writer) = stream.into_split();
    let drip = async {
        writer.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        while writer.write_all(b"y").await.is_ok() {
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    };
    let mut read = Vec::new();
    tokio::select! {
        () = drip => {}
        _ = reader.read_to_end(&mut read) => {}
    }
    assert!(read.is_empty());
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_and_then_closed() {
    let running = Running::start(Config::default(), hello).await;
    let mut stream = running.connect().await;
    for _ in 0..3 {
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert!(read_response(&mut stream).await.ends_with("hello"));
        tokio::time::advance(Duration::from_secs(80)).await;
    }
    let (text, outcome) = read_to_end(&mut stream).await;
    assert_eq!(text, "");
    outcome.unwrap();
    running.assert_counted(r#"connections_cut_total{server="test",reason="idle"} 1"#);
}

#[tokio::test]
async fn what_hyper_refuses_gets_the_errors_of_the_specification() {
    let running = Running::start(Config::default(), hello).await;
    let many = "x: y\r\n".repeat(101);
    for (request, status) in [
        (
            format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(40_000)),
            "431 ",
        ),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), "431 "),
        (
            format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(70_000)),
            "431 ",
        ),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), "400 "),
        ("\u{1}\u{2}\r\n\r\n".to_owned(), "400 "),
        (format!("{GET}nonsense\r\n\r\n"), "400 "),
    ] {
        let mut stream = running.connect().await;
        // The server may stop reading before all is sent.
        drop(stream.write_all(request.as_bytes()).await);
        let (text, _) = read_to_end(&mut stream).await;
        let text = text
            .strip_prefix("HTTP/1.1 200")
            .map_or(text.as_str(), |rest| rest.split_once("hello").unwrap().1);
        let (head, body) = text.split_once("\r\n\r\n").expect(text);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert!(
            head.contains("docker-distribution-api-version: registry/2.0"),
            "{head}"
        );
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["errors"][0]["code"], "UNSUPPORTED");
    }
}

#[tokio::test]
async fn a_broken_body_never_ends_cleanly() {
    let running = Running::start(Config::default(), broken).await;
    for path in ["/sized", "/chunked"] {
        let (text, outcome) = running
            .exchange(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))
            .await;
        assert!(is_reset(&outcome), "{path} {outcome:?} {text}");
        assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    }
    running.assert_counted(r#"responses_unfinished_total{server="test",outcome="broken"} 2"#);
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let running = Running::start(Config::default(), async |request: Request<Body>| {
        assert_ne!(request.uri().path(), "/panic", "on purpose");
        Response::new("hello".into())
    })
    .await;
    let mut stream = running.connect().await;
    stream
        .write_all(b"GET /panic HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let text = read_response(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
    assert!(text.contains(r#""code":"UNKNOWN""#), "{text}");
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_response(&mut stream).await.ends_with("hello"));
}

#[tokio::test]
async fn a_panic_in_a_body_resets() {
    let running = Running::start(Config::default(), async |_request: Request<Body>| {
        let pieces = stream::iter([1, 2]).map(|piece| {
            assert_eq!(piece, 1, "on purpose");
            Ok(Bytes::from_static(b"piece"))
        });
        Response::new(Body::stream(pieces))
    })
    .await;
    let (_, outcome) = running.exchange(GET).await;
    assert!(is_reset(&outcome), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stalls_breaks_off() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let running = Running::start(Config::default(), move |request: Request<Body>| {
        let tx = tx.clone();
        async move {
            let kind = match request.into_body().collect_limited(1000).await {
                Err(crate::body::CollectError::Broken(error)) => Some(error.kind()),
                _ => None,
            };
            tx.send(kind).unwrap();
            Response::new(Body::empty())
        }
    })
    .await;
    let request = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345";
    let start = Instant::now();
    let mut stalled = running.connect().await;
    stalled.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(rx.recv().await.unwrap(), Some(io::ErrorKind::TimedOut));
    assert_eq!(start.elapsed().as_secs(), 60);
    let mut gone = running.connect().await;
    gone.write_all(request.as_bytes()).await.unwrap();
    gone.shutdown().await.unwrap();
    assert_eq!(rx.recv().await.unwrap(), Some(io::ErrorKind::UnexpectedEof));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_reset() {
    let running = Running::start(Config::default(), async |_request: Request<Body>| {
        let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 16384])));
        Response::new(Body::stream(endless))
    })
    .await;
    let mut stream = running.connect().await;
    let start = Instant::now();
    stream.write_all(GET.as_bytes()).await.unwrap();
    running.server_cut_somebody().await;
    assert!(
        (60..65).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
    let (_, outcome) = read_to_end(&mut stream).await;
    assert!(is_reset(&outcome), "{outcome:?}");
    running.assert_counted(r#"connections_cut_total{server="test",reason="send_stall"} 1"#);
}

impl Running {
    /// Waits, on the paused clock, until the server has cut a connection.
    async fn server_cut_somebody(&self) {
        while !self
            .metrics
            .encode()
            .unwrap()
            .contains("connections_cut_total{")
        {
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_drain_lets_requests_finish() {
    let finish = Arc::new(Notify::new());
    let (started_tx, mut started) = mpsc::unbounded_channel();
    let running = Running::start(Config::default(), {
        let finish = Arc::clone(&finish);
        move |_request: Request<Body>| {
            let (finish, started) = (Arc::clone(&finish), started_tx.clone());
            async move {
                started.send(()).unwrap();
                finish.notified().await;
                Response::new("finished".into())
            }
        }
    })
    .await;
    let mut stream = running.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    started.recv().await.unwrap();
    running.shutdown.cancel();
    finish.notify_one();
    let (text, outcome) = read_to_end(&mut stream).await;
    outcome.unwrap();
    assert!(text.ends_with("finished"), "{text}");
    assert_eq!(running.server.await.unwrap(), Drained { reset: 0 });
    TcpStream::connect(running.address).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_outlives_the_drain_is_reset() {
    let running = Running::start(Config::default(), async |_request: Request<Body>| {
        let body = stream::iter([Ok(Bytes::from_static(b"part"))]).chain(stream::pending());
        Response::new(Body::stream(body).with_exact_len(1000))
    })
    .await;
    let mut stream = running.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.unwrap();
    let start = Instant::now();
    running.shutdown.cancel();
    assert_eq!(running.server.await.unwrap(), Drained { reset: 1 });
    assert_eq!(start.elapsed().as_secs(), 30);
    let (_, outcome) = read_to_end(&mut stream).await;
    assert!(is_reset(&outcome), "{outcome:?}");
}

#[tokio::test]
async fn connections_beyond_the_bound_are_told() {
    let config = Config {
        max_connections: 1,
        ..Config::default()
    };
    let running = Running::start(config, hello).await;
    let mut first = running.connect().await;
    first.write_all(GET.as_bytes()).await.unwrap();
    read_response(&mut first).await;
    let (text, _) = {
        let mut second = running.connect().await;
        second.write_all(GET.as_bytes()).await.unwrap();
        let text = read_response(&mut second).await;
        (text, second)
    };
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert!(text.contains("retry-after: 1\r\n"), "{text}");
    assert!(text.contains(r#""code":"UNAVAILABLE""#), "{text}");
    running.assert_counted(r#"connections_shed_total{server="test"} 1"#);
    first.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_response(&mut first).await.ends_with("hello"));
}

/// A listener that fails before it works.
struct Failing {
    listener: TcpListener,
    failures: VecDeque<io::Error>,
}

impl Accept for Failing {
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        match self.failures.pop_front() {
            Some(error) => Err(error),
            None => self.listener.accept().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn accepting_survives_every_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED, EPERM.
    let errors = [24, 23, 12, 105, 103, 1];
    let listener = Failing {
        listener,
        failures: errors.map(io::Error::from_raw_os_error).into(),
    };
    let shutdown = CancellationToken::new();
    let server = Server::new("test", Config::default(), &Metrics::new());
    let server = Tasks::new().spawn("server", server.run_on(listener, hello, shutdown.clone()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_response(&mut stream).await.ends_with("hello"));
    shutdown.cancel();
    server.await.unwrap();
}
