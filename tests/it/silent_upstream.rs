//! An origin whose upstream takes what it is asked, and says nothing.

use std::net::TcpListener;
use std::time::Duration;

use harness::content::Content;
use harness::node::Origin;
use tokio::time::Instant;

/// Long before the origin gives up who has nothing else.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_edge_that_has_something_to_answer_with_hears_it_soon() {
    // Nobody takes its connections from it, which come about all the same.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let origin = Origin::builder()
        .set("upstream.0.name=hub")
        .set(format!("upstream.0.url={url}"))
        .set("upstreams.answer_timeout=25s")
        .set("upstreams.question_timeout=1m");
    let origin = origin.start().await;
    let etag = format!("\"{}\"", Content::new(1, 1).sha256());
    let asked = origin.client().get("/v2/hub/org/app/manifests/1");
    // As an edge asks.
    let asked = asked
        .header("outport-upstream", "hub")
        .header("outport-hops", "1")
        .header("if-none-match", etag);
    let began = Instant::now();
    let reply = asked.send().await;
    let took = began.elapsed();
    assert_eq!(reply.status, 503, "{reply}");
    assert_eq!(reply.header("outport-upstream"), "hub");
    assert!(took < SOON, "{took:?}");
}
