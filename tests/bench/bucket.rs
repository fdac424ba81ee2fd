//! What pushes into a bucket cost: the time that a client waits for its commit, and memory.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use harness::node::Origin;
use harness::s3::S3Server;

use crate::table::{Series, Table, Unit};
use crate::transfer::{Layer, push};
use crate::{GIB, MIB};

/// Clients give a commit 30 s, and some of them less.
const COMMIT_SECONDS_MAX: f64 = 30.0;
const STREAMS: u64 = 8;

/// Pushes a large blob as docker does, whose digest comes last, and several at a time.
pub(crate) async fn origin_over_bucket(table: &mut Table, directory: &Path, rounds: u64) {
    let server = S3Server::start().await;
    let bucket = server.bucket().await;
    let mut commits = Series::default();
    let mut most = 0;
    for round in 0..rounds {
        let origin = Origin::builder().bucket(&server, &bucket).start().await;
        let layer = Layer::create(&directory.join("layer"), round, GIB);
        commits.add(push(origin.address(), "bench/large", &layer).commit);
        most = most.max(origin.process().memory().1);
        println!("round {round}: pushed into a bucket");
    }
    let origin = Origin::builder().bucket(&server, &bucket).start().await;
    let layers: Vec<_> = (0..STREAMS)
        .map(|seed| Layer::create(&directory.join(format!("layer-{seed}")), !seed, GIB / 8))
        .collect();
    push_at_once(origin.address(), &layers);
    let (_, most_of_many) = origin.process().memory();
    table.bounded(
        Unit::Seconds,
        "commit of 1 GiB, digest last, into a bucket",
        commits.median(),
        COMMIT_SECONDS_MAX,
    );
    table.bytes(
        "origin over a bucket, most resident memory (one stream)",
        most,
        64 * MIB + MIB / 4,
    );
    table.bytes(
        "the same, eight streams",
        most_of_many,
        64 * MIB + STREAMS * MIB / 4,
    );
}

fn push_at_once(address: SocketAddr, layers: &[Layer]) {
    thread::scope(|scope| {
        for layer in layers {
            scope.spawn(move || push(address, "bench/large", layer));
        }
    });
}
