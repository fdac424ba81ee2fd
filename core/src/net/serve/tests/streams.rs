//! The streams of HTTP/2 connections; in real time, since a paused clock runs ahead of the pings.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::*;
use crate::net::respond::error_response;
use crate::oci::error::ErrorCode;

/// How long anything may stall.
const STALL: Duration = Duration::from_secs(1);

/// Tells that it was dropped.
struct Dropped(mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Opens a connection whose streams have a window of `window` bytes, and which pings all the time.
async fn connect(running: &Running, window: u32) -> SendRequest<Body> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(window)
        .keep_alive_interval(STALL / 10)
        .keep_alive_while_idle(true);
    let io = TokioIo::new(running.connect().await);
    let (sender, connection) = builder.handshake(io).await.unwrap();
    drop(Tasks::new().spawn("client", connection));
    sender
}

async fn get(sender: &mut SendRequest<Body>, path: &str) -> Response<Incoming> {
    let request = Request::get(format!("http://a{path}")).body(Body::empty());
    sender.send_request(request.unwrap()).await.unwrap()
}

fn impatient() -> Config {
    Config {
        send_stall_timeout: STALL,
        body_stall_timeout: STALL,
        ..Config::default()
    }
}

/// A byte every now and then.
fn ticks() -> Body {
    let interval = tokio::time::interval(STALL / 50);
    Body::stream(stream::unfold(interval, async |mut interval| {
        interval.tick().await;
        Some((Ok(Bytes::from_static(b".")), interval))
    }))
}

/// Reads ticks and passes them on.
fn read_ticks(mut body: Incoming) -> mpsc::UnboundedReceiver<()> {
    let (tx, rx) = mpsc::unbounded_channel();
    drop(Tasks::new().spawn("ticks", async move {
        while let Some(Ok(_)) = body.frame().await {
            let _ = tx.send(());
        }
    }));
    rx
}

/// The ticks came all the time, and still come.
async fn assert_ticking(ticks: &mut mpsc::UnboundedReceiver<()>) {
    let came = ticks.len();
    assert!(came > 10, "{came}");
    for _ in 0..=came {
        ticks.recv().await.unwrap();
    }
}

#[tokio::test]
async fn http2_is_spoken_to_those_who_begin_it() {
    let running = Running::start(Config::default(), broken).await;
    let mut sender = connect(&running, 65_535).await;
    for path in ["/sized", "/unsized"] {
        let request = Request::get(format!("http://a{path}"))
            .body(Body::empty())
            .unwrap();
        // The stream may be reset before its head is looked at.
        let Ok(response) = sender.send_request(request).await else {
            continue;
        };
        assert_eq!(response.status(), StatusCode::OK);
        let body = Body::incoming(response.into_body(), Duration::from_secs(5));
        body.collect_limited(1000).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_reset_alone() {
    // With no window hyper holds the body's first piece, with a small one h2 does, with a larger one each has one.
    for (window, pieces) in [(0, 1), (10, 1), (65_535, usize::MAX)] {
        let (dropped_tx, mut dropped) = mpsc::unbounded_channel();
        let running = Running::start(impatient(), move |request: Request<Body>| {
            let body = if request.uri().path() == "/ticks" {
                ticks()
            } else {
                let piece = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 1000])));
                Body::stream(piece.take(pieces)).holding(Dropped(dropped_tx.clone()))
            };
            std::future::ready(Response::new(body))
        })
        .await;
        let mut sender = connect(&running, window).await;
        let mut wide = connect(&running, 65_535).await;
        let ticking = if window == 0 { &mut wide } else { &mut sender };
        let mut ticks = read_ticks(get(ticking, "/ticks").await.into_body());
        let start = Instant::now();
        let stuck = get(&mut sender, "/stuck").await;
        dropped.recv().await.unwrap();
        assert!(
            (STALL..STALL * 5).contains(&start.elapsed()),
            "{window}: {:?}",
            start.elapsed()
        );
        let error = stuck.into_body().collect().await.unwrap_err();
        assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
        assert_ticking(&mut ticks).await;
        running.assert_counted(r#"responses_unfinished_total{server="test",outcome="stalled"} 1"#);
        // The connection goes on.
        assert_eq!(get(&mut sender, "/ticks").await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_stream_that_takes_little_at_a_time_is_served() {
    let running = Running::start(impatient(), async |_request: Request<Body>| {
        Response::new(vec![7; 100].into())
    })
    .await;
    let mut sender = connect(&running, 10).await;
    let start = Instant::now();
    let mut body = get(&mut sender, "/").await.into_body();
    let mut pace = tokio::time::interval(STALL / 4);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().into_data().unwrap().len();
        pace.tick().await;
    }
    assert_eq!(length, 100);
    assert!(start.elapsed() > STALL * 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_source_that_takes_its_time_is_no_stall() {
    let running = Running::start(impatient(), async |_request: Request<Body>| {
        let late = stream::once(async {
            tokio::time::sleep(STALL * 2).await;
            Ok(Bytes::from_static(b"late"))
        });
        let early = stream::iter([Ok(Bytes::from_static(b"early "))]);
        Response::new(Body::stream(early.chain(late)))
    })
    .await;
    let mut sender = connect(&running, 65_535).await;
    let body = get(&mut sender, "/").await.into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "early late");
}

#[tokio::test]
async fn an_upload_on_a_stream_that_stalls_breaks_off_alone() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let running = Running::start(impatient(), move |request: Request<Body>| {
        let tx = tx.clone();
        async move {
            if request.uri().path() == "/ticks" {
                return Response::new(ticks());
            }
            if let Err(crate::body::CollectError::Broken(error)) =
                request.into_body().collect_limited(1000).await
            {
                tx.send(error.kind()).unwrap();
            }
            Response::new(Body::empty())
        }
    })
    .await;
    let mut sender = connect(&running, 65_535).await;
    let mut ticks = read_ticks(get(&mut sender, "/ticks").await.into_body());
    let start = Instant::now();
    let body = stream::iter([Ok(Bytes::from_static(b"12345"))]).chain(stream::pending());
    let request = Request::put("http://a/").body(Body::stream(body)).unwrap();
    let answered = sender.send_request(request).await.unwrap();
    assert_eq!(answered.status(), StatusCode::OK);
    assert_eq!(rx.recv().await.unwrap(), io::ErrorKind::TimedOut);
    assert!((STALL..STALL * 5).contains(&start.elapsed()));
    assert_ticking(&mut ticks).await;
}

#[tokio::test]
async fn a_refused_upload_on_a_stream_reads_the_refusal() {
    let running = Running::start(Config::default(), async |request: Request<Body>| {
        if request.method() == http::Method::GET {
            return hello(request).await;
        }
        error_response(&ErrorCode::Unavailable.into())
    })
    .await;
    let mut sender = connect(&running, 65_535).await;
    for _ in 0..3 {
        let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 16384])));
        let (dropped_tx, mut dropped) = mpsc::unbounded_channel();
        let body = Body::stream(endless).holding(Dropped(dropped_tx));
        let request = Request::put("http://a/").body(body).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errors"][0]["code"], "UNAVAILABLE");
        // The client is told to stop.
        dropped.recv().await.unwrap();
        let next = get(&mut sender, "/").await.into_body();
        assert_eq!(next.collect().await.unwrap().to_bytes(), "hello");
    }
}
