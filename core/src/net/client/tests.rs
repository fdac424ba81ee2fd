use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::Method;
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::net::serve::{self, Server};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Starts a registry that answers with what it was asked, a POST at once and anything else when it has all of it.
async fn start_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new("test", serve::Config::default(), &Metrics::new());
    let echo = async |request: Request<Body>| {
        let (parts, body) = request.into_parts();
        let body = match parts.method {
            Method::POST => body,
            _ => match body.collect_limited(1000).await {
                Ok(body) => body.into(),
                Err(_) => Body::empty(),
            },
        };
        let mut response = Response::new(body);
        let asked = format!("{} {}", parts.method, parts.uri);
        let headers = response.headers_mut();
        headers.insert("asked", asked.try_into().unwrap());
        for name in [HOST, ACCEPT_ENCODING, CONTENT_LENGTH, RETRY_AFTER] {
            if let Some(value) = parts.headers.get(&name) {
                headers.insert(
                    format!("asked-{name}").parse::<HeaderName>().unwrap(),
                    value.clone(),
                );
            }
        }
        response
    };
    drop(Tasks::new().spawn(
        "server",
        server.run(listener, echo, CancellationToken::new()),
    ));
    address
}

/// Starts something that reads a request's first bytes, answers with `answer` and closes.
async fn start_raw(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(Tasks::new().spawn("raw", async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert_ne!(stream.read(&mut request).await.unwrap(), 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }));
    address
}

/// Returns an address that refuses connections.
async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Starts something that accepts connections and neither reads nor writes.
async fn start_mute() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(Tasks::new().spawn("mute", async move {
        let mut kept = Vec::new();
        loop {
            kept.push(listener.accept().await.unwrap());
        }
    }));
    address
}

fn client(addresses: &[SocketAddr]) -> Client {
    client_with(addresses, Config::default())
}

fn client_with(addresses: &[SocketAddr], config: Config) -> Client {
    let urls = addresses
        .iter()
        .map(|address| format!("http://{address}").parse().unwrap())
        .collect();
    Client::new(urls, config).unwrap()
}

/// Returns which URL is tried first, and so on.
fn order(client: &Client) -> Vec<usize> {
    client.inner.avoid.lock().order(Instant::now())
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn put(body: Body) -> Request<Body> {
    Request::put("/v2/").body(body).unwrap()
}

/// A body of nobody knows what length, that is made only when asked for.
fn streamed(text: &'static str) -> Body {
    Body::stream(stream::iter([Ok(Bytes::from_static(text.as_bytes()))]))
}

async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect_limited(1000).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn requests_arrive_as_they_were_built() {
    let address = start_echo().await;
    let request = Request::post("/v2/a/blobs/uploads/?digest=b")
        .header(HOST, "the-edge")
        .header(ACCEPT_ENCODING, "gzip")
        .header(CONNECTION, "close")
        .header(RETRY_AFTER, "kept")
        .body("hello".into())
        .unwrap();
    let response = client(&[address]).send(request).await.unwrap();
    let headers = response.headers();
    assert_eq!(headers["asked"], "POST /v2/a/blobs/uploads/?digest=b");
    assert_eq!(headers["asked-host"], address.to_string());
    assert_eq!(headers["asked-accept-encoding"], "identity");
    assert_eq!(headers["asked-content-length"], "5");
    assert_eq!(headers["asked-retry-after"], "kept");
    assert_eq!(text(response).await, "hello");
}

#[tokio::test]
async fn head_keeps_the_length() {
    let address = start_raw("HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n").await;
    let request = Request::head("/").body(Body::empty()).unwrap();
    let response = client(&[address]).send(request).await.unwrap();
    assert_eq!(response.headers()[CONTENT_LENGTH], "12345");
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn the_next_url_is_tried_when_one_is_unreachable() {
    let (dead, alive) = (refusing().await, start_echo().await);
    let client = client(&[dead, alive]);
    // Whatever the method: nothing was sent. Streamed bodies are untouched as well.
    for request in [get("/"), put("hello".into()), put(streamed("hello"))] {
        client.send(request).await.unwrap();
    }
    assert_eq!(order(&client), [1, 0]);
}

#[tokio::test]
async fn a_silent_url_is_overtaken() {
    let (mute, alive) = (start_mute().await, start_echo().await);
    let config = Config {
        overtake_after: Duration::from_millis(50),
        ..Config::default()
    };
    let client = client_with(&[mute, mute, alive], config);
    for request in [get("/"), Request::head("/").body(Body::empty()).unwrap()] {
        let asking = client.send(request);
        let answer = timeout(Duration::from_secs(20), asking).await;
        assert_eq!(answer.unwrap().unwrap().status(), 200);
        assert_eq!(order(&client), [2, 0, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_url_that_was_silent_for_long_is_blamed_by_who_gives_up() {
    let (mute, alive) = (start_mute().await, start_echo().await);
    let config = Config {
        overtake_after: Duration::from_secs(9),
        ..Config::default()
    };
    let client = client_with(&[mute, alive], config);
    let short = timeout(Duration::from_millis(400), client.send(get("/"))).await;
    assert!(short.is_err());
    assert_eq!(order(&client), [0, 1]);
    let long = timeout(Duration::from_millis(600), client.send(get("/"))).await;
    assert!(long.is_err());
    assert_eq!(order(&client), [1, 0]);
    client.send(get("/")).await.unwrap();
}

const UNAVAILABLE: &str = "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n";
const BAD_GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
const INTERNAL: &str = "HTTP/1.1 500 Internal\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn the_next_url_is_asked_when_one_cannot_answer() {
    let (away, alive) = (start_raw(UNAVAILABLE).await, start_echo().await);
    let several = client(&[away, alive]);
    assert_eq!(several.send(get("/")).await.unwrap().status(), 200);
    assert_eq!(order(&several), [1, 0]);
    // What is not safe to repeat has been answered.
    for body in [Body::empty(), "hello".into()] {
        let response = client(&[away, alive]).send(put(body)).await.unwrap();
        assert_eq!(response.status(), 503);
    }
    // That something went wrong there is no answer either, unless it did everywhere.
    let wrong = start_raw(INTERNAL).await;
    let one = client(&[wrong, alive]);
    assert_eq!(one.send(get("/")).await.unwrap().status(), 200);
    assert_eq!(order(&one), [1, 0]);
    let all = client(&[wrong, wrong]);
    assert_eq!(all.send(get("/")).await.unwrap().status(), 500);
}

const CUT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";

#[tokio::test]
async fn a_url_whose_body_breaks_off_is_tried_last_though_it_answers() {
    let (cut, alive) = (start_raw(CUT).await, start_echo().await);
    let several = client(&[cut, alive]);
    let response = several.send(get("/")).await.unwrap();
    assert_eq!(order(&several), [0, 1]);
    assert!(response.into_body().collect_limited(99).await.is_err());
    assert_eq!(order(&several), [1, 0]);
    several.inner.avoid.lock().works(0);
    assert_eq!(order(&several), [1, 0]);
    // As who finds the bytes wrong can have it, too.
    let response = several.send(get("/")).await.unwrap();
    let answerer: &Answerer = response.extensions().get().unwrap();
    answerer.is_wrong();
    assert_eq!(order(&several), [0, 1]);
    // Of one alone there is nothing to be said.
    let response = client(&[alive]).send(get("/")).await.unwrap();
    assert_eq!(response.extensions().get::<Answerer>(), None);
}

#[tokio::test]
async fn when_nobody_can_answer_the_last_to_say_so_is_heard() {
    let unavailable = start_raw(UNAVAILABLE).await;
    let bad_gateway = start_raw(BAD_GATEWAY).await;
    for (urls, status) in [
        (vec![unavailable, bad_gateway], 502),
        (vec![bad_gateway, unavailable], 503),
        (vec![unavailable, refusing().await], 503),
        (vec![refusing().await, unavailable], 503),
        (vec![unavailable], 503),
    ] {
        let response = client(&urls).send(get("/")).await.unwrap();
        assert_eq!(response.status(), status, "{urls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_are_under_way_than_may_be() {
    let (mute, alive) = (start_mute().await, start_echo().await);
    let config = Config {
        max_requests: 1,
        ..Config::default()
    };
    let client = client_with(&[mute, alive], config);
    let began = Instant::now();
    client.send(get("/")).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(30));
    client.send(get("/")).await.unwrap();
}

#[tokio::test]
async fn only_what_is_safe_is_sent_again() {
    let (broken, alive) = (start_raw("").await, start_echo().await);
    client(&[broken, alive]).send(get("/")).await.unwrap();
    for body in [Body::empty(), "hello".into(), streamed("hello")] {
        let error = client(&[broken, alive]).send(put(body)).await.unwrap_err();
        assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let addresses = [refusing().await, refusing().await];
    let error = client(&addresses).send(get("/")).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Unreachable { .. }),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_timed_out() {
    let mute = start_mute().await;
    for request in [get("/"), put("hello".into()), put(streamed("hello"))] {
        let start = Instant::now();
        let error = client(&[mute]).send(request).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
        assert!(
            start.elapsed() <= Duration::from_secs(36),
            "{:?}",
            start.elapsed()
        );
    }
    let alive = start_echo().await;
    client(&[mute, alive]).send(get("/")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_is_no_fault_of_the_registry() {
    let address = start_echo().await;
    let slow = stream::unfold(0, async |piece| {
        tokio::time::sleep(Duration::from_secs(50)).await;
        (piece < 4).then_some((Ok(Bytes::from_static(b"x")), piece + 1))
    });
    let response = client(&[address])
        .send(put(Body::stream(slow)))
        .await
        .unwrap();
    assert_eq!(text(response).await, "xxxx");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_takes_nothing_is_timed_out() {
    let mute = start_mute().await;
    let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 16384])));
    let error = client(&[mute])
        .send(put(Body::stream(endless)))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_broken_source_is_told_apart() {
    let address = start_echo().await;
    let broken = stream::iter([
        Ok(Bytes::from_static(b"x")),
        Err(io::Error::new(io::ErrorKind::InvalidData, "on purpose")),
    ]);
    match client(&[address]).send(put(Body::stream(broken))).await {
        Err(ClientError::RequestBody(error)) => assert_eq!(error.to_string(), "on purpose"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_stalls_or_is_cut_is_an_error() {
    let piece = stream::iter([Ok(Bytes::from_static(b"12345"))]);
    let stalling = Body::stream(piece.chain(stream::pending()));
    let request = Request::post("/").body(stalling).unwrap();
    let echo = client(&[start_echo().await]);
    let response = echo.send(request).await.unwrap();
    let mut body = response.into_body().into_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "12345");
    let error = body.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);

    let cut = start_raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345").await;
    let response = client(&[cut]).send(get("/")).await.unwrap();
    let mut body = response.into_body().into_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "12345");
    let error = body.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_bound_wait() {
    let address = start_echo().await;
    let config = Config {
        max_requests: 1,
        ..Config::default()
    };
    let client = client_with(&[address], config);
    let request = Request::post("/").body("hello".into()).unwrap();
    let first = client.send(request).await.unwrap();
    let error = client.send(get("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Busy { .. }), "{error:?}");
    assert_eq!(text(first).await, "hello");
    client.send(get("/")).await.unwrap();
}

#[test]
fn a_client_without_urls_is_refused() {
    assert!(matches!(
        Client::new(Vec::new(), Config::default()),
        Err(BadClient::NoUrls)
    ));
    let config = Config {
        ca_file: Some("/nonexistent".into()),
        ..Config::default()
    };
    let urls = vec!["https://a".parse().unwrap()];
    assert!(matches!(
        Client::new(urls, config),
        Err(BadClient::CaFile { .. })
    ));
}
