//! An edge far from its origin.

use std::time::Duration;

use harness::content::Content;
use harness::node::{Edge, Origin};
use harness::repository::Repository;
use harness::wire::{Shape, Wire};
use http::Method;

#[tokio::test]
async fn a_link_that_one_connection_does_not_fill_gets_more() {
    let origin = Origin::start().await;
    let shape = Shape {
        delay: Duration::from_millis(100),
        connection_bytes_per_second: 4 << 20,
        bytes_per_second: 32 << 20,
    };
    let wire = Wire::shaped(origin.address(), shape).await;
    let edge = Edge::start_at(wire.address()).await;
    let content = Content::new(1, 64 << 20);
    let repository = Repository::new(edge.client(), "team/app");
    let digest = repository
        .behind(origin.client())
        .push_content(content)
        .await;
    let before = wire.answered_bytes();
    let mut open = repository.blob(Method::GET, &digest).open().await;
    let read = open.read_content(content, 0).await.unwrap();
    assert_eq!(read, content.size());
    let connections = wire.count("GET ", &format!("/blobs/{digest}"));
    assert!(connections >= 4, "{:?}", wire.requests());
    // What was under way when a connection's end was given to another.
    let bytes = wire.answered_bytes() - before;
    assert!(bytes < content.size() * 120 / 100, "{bytes}");
}
