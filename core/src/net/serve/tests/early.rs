//! Responses that are there before the request has been read.

use super::*;
use crate::net::respond::error_response;
use crate::oci::error::ErrorCode;

const MIB: usize = 1 << 20;

/// How much the clients send that are refused.
const SENT_BYTES: usize = 64 * MIB;

/// Refuses everything but GET, at once.
async fn refuse(request: Request<Body>) -> Response<Body> {
    if request.method() == http::Method::GET {
        return hello(request).await;
    }
    error_response(&ErrorCode::Unavailable.into())
}

/// Returns the head of a request, with the headers that say what follows.
fn put(headers: &str) -> String {
    format!("PUT / HTTP/1.1\r\nhost: a\r\n{headers}\r\n\r\n")
}

/// Returns the head of one with a body of [`SENT_BYTES`].
fn put_much() -> String {
    put(&format!("content-length: {SENT_BYTES}"))
}

#[track_caller]
fn assert_refused(text: &str, status: &str, code: &str) {
    let (head, body) = text.split_once("\r\n\r\n").expect(text);
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["errors"][0]["code"], code);
}

async fn write_zeroes(stream: &mut TcpStream, length: usize) -> io::Result<()> {
    let zeroes = vec![0; MIB];
    for _ in 0..length / MIB {
        stream.write_all(&zeroes).await?;
    }
    Ok(())
}

#[tokio::test]
async fn who_sends_all_before_reading_reads_the_refusal() {
    let running = Running::start(Config::default(), refuse).await;
    let head = put("transfer-encoding: chunked");
    let chunk = format!("{head}{SENT_BYTES:x}\r\n");
    for (head, status, code) in [
        (put_much(), "503", "UNAVAILABLE"),
        (chunk, "503", "UNAVAILABLE"),
        (put("no colon"), "400", "UNSUPPORTED"),
        (put(&"x: y\r\n".repeat(101)), "431", "UNSUPPORTED"),
    ] {
        let mut stream = running.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        write_zeroes(&mut stream, SENT_BYTES).await.expect(&head);
        let (text, outcome) = read_to_end(&mut stream).await;
        outcome.unwrap();
        assert_refused(&text, status, code);
        assert!(text.contains("connection: close\r\n"), "{text}");
    }
}

#[tokio::test]
async fn a_refusal_does_not_wait_for_the_body() {
    let running = Running::start(Config::default(), refuse).await;
    let mut stream = running.connect().await;
    stream.write_all(put_much().as_bytes()).await.unwrap();
    write_zeroes(&mut stream, MIB).await.unwrap();
    let (text, outcome) = read_to_end(&mut stream).await;
    outcome.unwrap();
    assert_refused(&text, "503", "UNAVAILABLE");
    // It goes on as if it had not read it.
    write_zeroes(&mut stream, SENT_BYTES - MIB).await.unwrap();
}

#[tokio::test]
async fn no_more_is_thrown_away_than_the_bound() {
    let config = Config {
        linger_bytes: 8 << 20,
        ..Config::default()
    };
    let running = Running::start(config, refuse).await;
    let mut stream = running.connect().await;
    stream.write_all(put_much().as_bytes()).await.unwrap();
    let error = write_zeroes(&mut stream, SENT_BYTES).await.unwrap_err();
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
        "{error}"
    );
    running.assert_counted(r#"connections_cut_total{server="test",reason="linger"} 1"#);
}

#[tokio::test(start_paused = true)]
async fn who_neither_sends_nor_closes_is_cut() {
    let running = Running::start(Config::default(), refuse).await;
    let start = Instant::now();
    let mut stream = running.connect().await;
    stream.write_all(put_much().as_bytes()).await.unwrap();
    let (text, outcome) = read_to_end(&mut stream).await;
    outcome.unwrap();
    assert_refused(&text, "503", "UNAVAILABLE");
    assert_eq!(start.elapsed().as_secs(), 0);
    running.server_cut_somebody().await;
    assert!(
        (30..35).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
    running.assert_counted(r#"connections_cut_total{server="test",reason="linger"} 1"#);
}

#[tokio::test(start_paused = true)]
async fn lingering_does_not_hold_up_a_drain() {
    let running = Running::start(Config::default(), refuse).await;
    let mut stream = running.connect().await;
    stream.write_all(put_much().as_bytes()).await.unwrap();
    let (_, outcome) = read_to_end(&mut stream).await;
    outcome.unwrap();
    let mut waiting = running.connect().await;
    let short = put("content-length: 10");
    waiting.write_all(short.as_bytes()).await.unwrap();
    read_response(&mut waiting).await;
    let start = Instant::now();
    running.shutdown.cancel();
    assert_eq!(running.server.await.unwrap(), Drained { reset: 0 });
    assert!(start.elapsed() <= Duration::from_secs(2));
}

#[tokio::test]
async fn a_short_rest_keeps_the_connection() {
    let running = Running::start(Config::default(), refuse).await;
    let mut stream = running.connect().await;
    for length in [1, 1000, 64 * 1024] {
        let (head, body) = (put(&format!("content-length: {length}")), vec![0; length]);
        // The rest comes after the response was read, and with the head.
        stream.write_all(head.as_bytes()).await.unwrap();
        let text = read_response(&mut stream).await;
        assert_refused(&text, "503", "UNAVAILABLE");
        assert!(!text.contains("connection: close"), "{text}");
        stream.write_all(&body).await.unwrap();
        let together = [head.as_bytes(), &body].concat();
        stream.write_all(&together).await.unwrap();
        assert_refused(&read_response(&mut stream).await, "503", "UNAVAILABLE");
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert!(read_response(&mut stream).await.ends_with("hello"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_rest_that_does_not_come_ends_the_connection() {
    let running = Running::start(Config::default(), refuse).await;
    let mut stream = running.connect().await;
    let start = Instant::now();
    let head = put("content-length: 1000");
    stream.write_all(head.as_bytes()).await.unwrap();
    read_response(&mut stream).await;
    let (text, outcome) = read_to_end(&mut stream).await;
    outcome.unwrap();
    assert_eq!((text.as_str(), start.elapsed().as_secs()), ("", 30));
}

#[tokio::test]
async fn who_asks_first_is_refused_without_being_told_to_go_on() {
    let running = Running::start(Config::default(), refuse).await;
    for length in ["content-length: 1000", "transfer-encoding: chunked"] {
        let (text, outcome) = running
            .exchange(&put(&format!("expect: 100-continue\r\n{length}")))
            .await;
        outcome.unwrap();
        assert_refused(&text, "503", "UNAVAILABLE");
        assert!(text.contains("connection: close\r\n"), "{text}");
    }
}

#[tokio::test]
async fn who_asks_first_is_told_to_go_on_when_the_body_is_read() {
    let running = Running::start(Config::default(), async |request: Request<Body>| {
        Response::new(
            request
                .into_body()
                .collect_limited(10)
                .await
                .unwrap()
                .into(),
        )
    })
    .await;
    let mut stream = running.connect().await;
    let head = put("expect: 100-continue\r\ncontent-length: 4");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_response(&mut stream).await.starts_with("HTTP/1.1 100"));
    stream.write_all(b"body").await.unwrap();
    let text = read_response(&mut stream).await;
    assert!(text.ends_with("body"), "{text}");
    assert!(!text.contains("connection: close"), "{text}");
}

#[tokio::test]
async fn a_body_can_be_kept_beyond_the_response() {
    let (kept_tx, mut kept) = mpsc::unbounded_channel();
    let running = Running::start(Config::default(), move |request: Request<Body>| {
        kept_tx.send(request.into_body()).unwrap();
        hello(Request::default())
    })
    .await;
    let mut stream = running.connect().await;
    let head = put("content-length: 4");
    stream.write_all(head.as_bytes()).await.unwrap();
    let text = read_response(&mut stream).await;
    assert!(text.contains("connection: close\r\n"), "{text}");
    stream.write_all(b"body").await.unwrap();
    let body = kept.recv().await.unwrap().collect_limited(10).await;
    assert_eq!(body.unwrap(), "body");
    let (_, outcome) = read_to_end(&mut stream).await;
    outcome.unwrap();
}
