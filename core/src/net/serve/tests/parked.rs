//! Connections that wait for their next request for longer than hyper is kept for.

use super::*;

/// Has requests answered and their connections parked; what comes with a request begins the next one.
async fn parked(running: &Running, aheads: &[&str]) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for ahead in aheads {
        let mut stream = running.connect().await;
        let request = format!("{GET}{ahead}");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(read_response(&mut stream).await.ends_with("hello"));
        streams.push(stream);
    }
    let expected = format!(
        r#"connections_parked_total{{server="test"}} {}"#,
        aheads.len()
    );
    while !running.metrics.encode().unwrap().contains(&expected) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    streams
}

#[tokio::test]
async fn what_came_of_the_next_request_is_not_lost() {
    let running = Running::start(Config::default(), hello).await;
    let (aheads, rests): (Vec<_>, Vec<_>) = (0..GET.len()).map(|at| GET.split_at(at)).unzip();
    let streams = parked(&running, &aheads).await;
    for (mut stream, rest) in streams.into_iter().zip(rests) {
        for byte in rest.bytes() {
            stream.write_all(&[byte]).await.unwrap();
        }
        assert!(read_response(&mut stream).await.ends_with("hello"));
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_head_has_the_time_of_a_head() {
    let running = Running::start(Config::default(), hello).await;
    let mut streams = parked(&running, &["GE", ""]).await;
    streams[1].write_all(b"GE").await.unwrap();
    for mut stream in streams {
        let (text, _) = read_to_end(&mut stream).await;
        assert_eq!(text, "");
    }
    running.assert_counted(r#"connections_cut_total{server="test",reason="slow_head"} 2"#);
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_it() {
    let running = Running::start(Config::default(), hello).await;
    let mut stream = parked(&running, &[""]).await.remove(0);
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
    let running = Running::start(Config::default(), hello).await;
    let mut stream = parked(&running, &[""]).await.remove(0);
    stream.shutdown().await.unwrap();
    let (text, outcome) = read_to_end(&mut stream).await;
    assert_eq!(text, "");
    outcome.unwrap();
    let open = running.metrics.encode().unwrap();
    assert!(open.contains(r#"connections{server="test"} 0"#), "{open}");
}
