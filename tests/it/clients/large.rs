//! A layer of a gigabyte, and the memory that it takes on the way.

use harness::docker::Docker;
use harness::door::Site;
use harness::images::{Images, LARGE};
use harness::process::Process;

use super::{containers, push, resolve};

const MIB: u64 = 1 << 20;
/// What a node may use.
const NODE_BYTES: u64 = 64 * MIB;
/// What each stream in progress may add.
const STREAM_BYTES: u64 = 256 << 10;

#[tokio::test]
async fn comes_and_goes_through_an_edge_in_little_memory() {
    let mut site = Site::start().await;
    let (images, tools) = (Images::shared(), containers(&site));
    let edge = site.edge.address();
    push(&tools, LARGE, edge, "t/large:1");
    assert_eq!(resolve(&site, "t/large", "1").await.1, images.digest(LARGE));
    assert_memory(&site, "after a push");

    let docker = Docker::start();
    let id = docker.pull(&format!("{edge}/t/large:1"));
    assert_eq!(id, images.id(LARGE));
    assert_memory(&site, "after a cold pull");
    drop(docker);

    site.origin.stop();
    let from = format!("docker://{edge}/t/large@{}", images.digest(LARGE));
    let to = format!("dir:{}", tools.sandbox().text("large"));
    tools.copy(&from, &to);
    assert_node_memory("edge", site.edge.process(), "after a warm pull");
}

fn assert_memory(site: &Site, when: &str) {
    assert_node_memory("origin", site.origin.process(), when);
    assert_node_memory("edge", site.edge.process(), when);
}

fn assert_node_memory(node: &str, process: &Process, when: &str) {
    let (now, most) = process.memory();
    eprintln!("{node} {when}: {} MiB, at most {}", now / MIB, most / MIB);
    // The layer, and beside it the config or a manifest.
    let limit = NODE_BYTES + 2 * STREAM_BYTES;
    assert!(most <= limit, "{node} {when}: {most} bytes");
}
