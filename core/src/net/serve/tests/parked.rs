//! Connections that wait for their next request for longer than hyper is kept for.

use super::*;

/// How often that was done, in the metrics.
const PARKED: &str = r#"outport_connections_parked_total{server="test"} "#;

/// Starts a server that parks connections at once.
async fn start() -> Running {
    let config = Config {
        park_after: Duration::ZERO,
        ..Config::default()
    };
    Running::start(config, hello).await
}

/// Has a request answered, and something come with it that begins the next one.
async fn answered(running: &Running, ahead: &str) -> TcpStream {
    let mut stream = running.connect().await;
    let request = format!("{GET}{ahead}");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(read_response(&mut stream).await.ends_with("hello"));
    stream
}

#[tokio::test]
async fn what_came_of_the_next_request_is_not_lost() {
    let running = start().await;
    for at in 0..GET.len() {
        let (ahead, rest) = GET.split_at(at);
        let mut stream = answered(&running, ahead).await;
        for byte in rest.bytes() {
            stream.write_all(&[byte]).await.unwrap();
        }
        assert!(read_response(&mut stream).await.ends_with("hello"));
    }
    // Between the two requests of each, and behind those before.
    let text = running.metrics.encode().unwrap();
    let count = text.lines().find_map(|line| line.strip_prefix(PARKED));
    let count: usize = count.unwrap().parse().unwrap();
    assert!(count >= GET.len(), "{count}");
}

#[tokio::test(start_paused = true)]
async fn half_a_head_has_the_time_of_a_head() {
    let running = start().await;
    let mut streams = [answered(&running, "GE").await, answered(&running, "").await];
    streams[1].write_all(b"GE").await.unwrap();
    for mut stream in streams {
        let (text, _) = read_to_end(&mut stream).await;
        assert_eq!(text, "");
    }
    running.assert_counted(r#"connections_cut_total{server="test",reason="slow_head"} 2"#);
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_it() {
    let running = start().await;
    let mut stream = answered(&running, "").await;
    let begin = Instant::now();
    running.shutdown.cancel();
    let (text, outcome) = read_to_end(&mut stream).await;
    assert_eq!(text, "");
    outcome.unwrap();
    assert_eq!(running.server.await.unwrap().reset, 0);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_let_go() {
    let running = start().await;
    let mut stream = answered(&running, "").await;
    stream.shutdown().await.unwrap();
    let (text, outcome) = read_to_end(&mut stream).await;
    assert_eq!(text, "");
    outcome.unwrap();
    let open = running.metrics.encode().unwrap();
    assert!(open.contains(r#"connections{server="test"} 0"#), "{open}");
}
