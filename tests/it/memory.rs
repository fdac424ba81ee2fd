//! How much memory the nodes use: nothing that grows with the size of a blob.

use futures_util::future::join_all;
use futures_util::stream;
use harness::content::Content;
use harness::node::{Edge, Origin};
use harness::repository::Repository;
use http::Method;

/// What a node may use at most, and what for each stream that is open, in bytes.
const NODE_MAX: u64 = 64 << 20;
const STREAM_MAX: u64 = 256 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_takes_little() {
    const CLIENTS: u64 = 8;
    let origin = Origin::start().await;
    let edge = Edge::start(&origin).await;
    let repository = Repository::new(edge.client(), "team/app");
    let content = Content::new(1, 192 << 20);
    let digest = content.sha256();

    // In as docker pushes it, through the edge; out to many at once, from a cold cache.
    let location = repository.start_upload().await;
    let patch = repository
        .client()
        .patch(&location)
        .chunked(stream::iter(content.pieces()));
    patch.send().await.expect(202);
    repository
        .finish_upload(&location, &digest)
        .send()
        .await
        .expect(201);
    let pulls = (0..CLIENTS).map(|_| async {
        let mut open = repository.blob(Method::GET, &digest).open().await;
        open.read_content(content, 0).await.unwrap()
    });
    assert_eq!(join_all(pulls).await, vec![content.size(); 8]);

    for (node, process) in [("origin", origin.process()), ("edge", edge.process())] {
        let (_, peak) = process.memory();
        assert!(
            peak < NODE_MAX + CLIENTS * STREAM_MAX,
            "the {node} used {} MiB",
            peak >> 20
        );
    }
}
