//! An edge that is asked for more than it can give, and by those who mean no good.

use std::time::Duration;

use futures_util::future::join_all;
use harness::attack::Attack;
use harness::content::Content;
use harness::eventually::eventually;
use harness::node::{Edge, Origin};
use harness::raw::Raw;
use harness::repository::Repository;
use http::Method;

const IDLE_MAX: u64 = 30 << 20;
const TEN_THOUSAND_MAX: u64 = 200 << 20;
const PING: &str = "GET /v2/ HTTP/1.1\r\nhost: edge\r\n\r\n";

async fn ping(connection: &mut Raw) {
    connection.write(PING).await.unwrap();
    assert_eq!(connection.reply().await.status, Some(200));
}

#[tokio::test]
async fn idle_connections_cost_little() {
    let origin = Origin::start().await;
    let edge = Edge::start(&origin).await;
    let (resident, _) = edge.process().memory();
    assert!(resident < IDLE_MAX, "idle: {} MiB", resident >> 20);
    let mut connections = Vec::new();
    for _ in 0..100 {
        let connect = (0..100).map(|_| async {
            let mut connection = Raw::connect(edge.address()).await;
            ping(&mut connection).await;
            connection
        });
        connections.extend(join_all(connect).await);
    }
    let (resident, _) = edge.process().memory();
    assert!(resident < TEN_THOUSAND_MAX, "{} MiB", resident >> 20);
    // Each of them is still served.
    for connection in connections.iter_mut().step_by(100) {
        ping(connection).await;
    }
}

#[tokio::test]
async fn one_too_many_is_told_and_the_others_are_served() {
    const CONNECTIONS: usize = 32;
    let origin = Origin::start().await;
    let limit = format!("server.connections={CONNECTIONS}");
    let origin_url = format!("http://{}", origin.address());
    let edge = Edge::start_with(&origin_url, &[limit]).await;
    let mut served = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Raw::connect(edge.address()).await;
        ping(&mut connection).await;
        served.push(connection);
    }
    for _ in 0..100 {
        let mut refused = Raw::connect(edge.address()).await;
        refused.write(PING).await.ok();
        let reply = refused.reply().await;
        assert_eq!(reply.status, Some(503));
        assert_eq!(reply.headers["retry-after"], "1");
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(body["errors"][0]["code"], "UNAVAILABLE");
    }
    for connection in &mut served {
        ping(connection).await;
    }
    // Who leaves makes room.
    served.pop();
    eventually("room", async || {
        let mut connection = Raw::connect(edge.address()).await;
        connection.write(PING).await.ok()?;
        (connection.reply().await.status == Some(200)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_keep_nobody_from_being_served() {
    let origin = Origin::start().await;
    let edge = Edge::start(&origin).await;
    let repository = Repository::new(edge.client(), "team/app");
    let content = Content::new(1, 4 << 20);
    let digest = repository
        .behind(origin.client())
        .push_content(content)
        .await;
    for attack in Attack::ALL {
        let attackers = attack.start(edge.address(), 50, Duration::ZERO);
        attackers.have_sent(200).await;
        for _ in 0..20 {
            let mut open = repository.blob(Method::GET, &digest).open().await;
            let read = open.read_content(content, 0).await;
            assert_eq!(read.unwrap_or_default(), content.size(), "{attack:?}");
        }
        let mut fresh = Raw::connect(edge.address()).await;
        ping(&mut fresh).await;
    }
    let (_, peak) = edge.process().memory();
    let most = (64 << 20) + 50 * (256 << 10);
    assert!(peak < most, "{} MiB", peak >> 20);
}

#[tokio::test]
async fn a_node_without_file_descriptors_goes_on_when_there_are_some() {
    const DESCRIPTORS: u64 = 256;
    let origin = Origin::start().await;
    let edge = Edge::start(&origin).await;
    edge.process().limit_descriptors(DESCRIPTORS);
    let repository = Repository::new(edge.client(), "team/app");
    let content = Content::new(1, 1 << 20);
    let digest = repository
        .behind(origin.client())
        .push_content(content)
        .await;
    let connect = (0..2 * DESCRIPTORS).map(|_| Raw::connect(edge.address()));
    let connections = join_all(connect).await;
    edge.process().says(&["accept"]).await;
    drop(connections);
    let served = eventually("a pull", async || {
        let open = repository.blob(Method::GET, &digest).try_open().await;
        let mut open = open.ok()?;
        open.read_content(content, 0).await.ok()
    });
    assert_eq!(served.await, content.size());
    assert!(!edge.process().has_ended());
}
