//! HTTP/2 frames that only an attacker sends.

use tokio::io::{AsyncRead, AsyncWrite};

use super::tls::{handshake, secure};
use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const NO_ERROR: u8 = 0;
const ENHANCE_YOUR_CALM: u8 = 11;
const HTTP_1_1_REQUIRED: u8 = 13;

/// `GET http://a/`, compressed.
const GET_BLOCK: &[u8] = &[0x82, 0x84, 0x86, 0x41, 1, b'a'];

/// A header that nobody asked for, as large as a small frame.
const HEADER_BLOCK: &[u8] = &[0, 1, b'x', 5, b'y', b'y', b'y', b'y', b'y'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Begins a connection.
async fn connect(running: &Running) -> TcpStream {
    begin(running.connect().await).await
}

async fn begin<S: AsyncWrite + Unpin>(mut stream: S) -> S {
    let mut beginning = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    beginning.extend(frame(SETTINGS, 0, 0, &[]));
    stream.write_all(&beginning).await.unwrap();
    stream
}

/// Sends until the server has enough, and returns the error code that it ends the connection with, if it gets to say.
async fn flood(
    stream: impl AsyncRead + AsyncWrite,
    mut next: impl FnMut(u32) -> Vec<u8>,
) -> Option<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = async {
        for number in 0..1_000_000 {
            if writer.write_all(&next(number)).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        panic!("the server takes it all");
    };
    let reading = async {
        let mut read = Vec::new();
        while reader
            .read_buf(&mut read)
            .await
            .is_ok_and(|length| length > 0)
        {}
        read
    };
    let ((), read) = tokio::join!(sending, reading);
    goaway(&read)
}

#[tokio::test]
async fn who_floods_under_tls_is_offered_http1() {
    let (running, made) = secure(Config::default(), hello).await;
    let protocols = ["h2", "http/1.1"];
    for _ in 0..5 {
        let stream = handshake(&running, made.client(&protocols)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        flood(begin(stream).await, rapid_resets).await;
    }
    let stream = handshake(&running, made.client(&protocols)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

/// Says that it is going, and returns the error code that the server says so with.
async fn ask(running: &Running) -> u8 {
    let mut stream = connect(running).await;
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, GET_BLOCK);
    stream.write_all(&request).await.ok();
    let goodbye = frame(GOAWAY, 0, 0, &[0; 8]);
    stream.write_all(&goodbye).await.ok();
    let mut read = Vec::new();
    while stream
        .read_buf(&mut read)
        .await
        .is_ok_and(|length| length > 0)
    {}
    goaway(&read).unwrap_or(NO_ERROR)
}

/// Returns the error code that a connection was ended with.
fn goaway(mut frames: &[u8]) -> Option<u8> {
    while let Some((head, after)) = frames.split_at_checked(9) {
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        if head[3] == GOAWAY {
            return Some(after[7]);
        }
        frames = after.get(length..).unwrap_or_default();
    }
    None
}

async fn still_serves(running: &Running) {
    let (text, outcome) = running.exchange(GET_AND_CLOSE).await;
    outcome.unwrap();
    assert!(text.ends_with("hello"), "{text}");
}

/// Returns streams that are reset, many in one segment, so that they are before they are looked at.
fn rapid_resets(number: u32) -> Vec<u8> {
    let streams = (number * 100..).take(100).map(|index| 2 * index + 1);
    let pairs = streams.flat_map(|stream| {
        let headers = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET_BLOCK);
        [headers, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    pairs.collect()
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let running = Running::start(Config::default(), hello).await;
    let code = flood(connect(&running).await, rapid_resets).await;
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
    still_serves(&running).await;
}

#[tokio::test]
async fn who_floods_again_and_again_is_offered_http1_for_a_while() {
    for (http1_only_for, expected) in [(60, HTTP_1_1_REQUIRED), (0, NO_ERROR)] {
        let config = Config {
            http1_only_for: Duration::from_secs(http1_only_for),
            ..Config::default()
        };
        let running = Running::start(config, hello).await;
        for _ in 0..5 {
            // Asked in peace, it is served.
            let code = ask(&running).await;
            assert_eq!(code, NO_ERROR);
            flood(connect(&running).await, rapid_resets).await;
        }
        assert_eq!(ask(&running).await, expected);
        still_serves(&running).await;
    }
}

#[tokio::test]
async fn a_head_without_end_ends_the_connection() {
    let running = Running::start(Config::default(), hello).await;
    for piece in [HEADER_BLOCK.to_vec(), Vec::new()] {
        let code = flood(connect(&running).await, |number| match number {
            0 => frame(HEADERS, END_STREAM, 1, GET_BLOCK),
            _ => frame(CONTINUATION, 0, 1, &piece),
        })
        .await;
        assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
        still_serves(&running).await;
    }
}

#[tokio::test]
async fn frames_for_streams_that_are_done_end_the_connection() {
    let running = Running::start(Config::default(), hello).await;
    let code = flood(connect(&running).await, |number| match number {
        0 => frame(HEADERS, END_HEADERS | END_STREAM, 1, GET_BLOCK),
        _ => frame(DATA, 0, 1, b"more"),
    })
    .await;
    assert!(code.is_none_or(|code| code != 0), "{code:?}");
    still_serves(&running).await;
}
