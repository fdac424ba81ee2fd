//! Outport beside Debian's `docker-registry` and nginx, and an edge beside its origin.
//!
//! Everything that is compared runs in one go and in turn, so that a machine whose speed drifts drifts for all; what counts
//! are the ratios of medians. The client costs as little as one can: it sends from the page cache and throws away what it
//! reads. The edge's cache table is not timed, but compared with other policies on traces. See `tests/bench/run`.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark that cannot run says so and ends"
)]

mod attack;
mod away;
mod bucket;
mod cache;
mod cold;
mod crowd;
mod edge;
mod load;
mod nginx;
mod peer;
mod serve;
mod table;
mod transfer;

use std::net::SocketAddr;
use std::path::Path;

use harness::node::Origin;
use tempfile::TempDir;

use attack::edge_under_attack;
use away::edge_without_upstream;
use bucket::origin_over_bucket;
use cold::cold_layer;
use crowd::crowd_at_cold_edge;
use edge::edge_beside_origin;
use peer::DockerRegistry;
use serve::edge_beside_nginx;
use table::{Series, Table, Unit};
use transfer::{Layer, pull, push, push_image, requests_per_second};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What can be run by itself.
const PARTS: [&str; 9] = [
    "origin", "edge", "cold", "crowd", "serve", "bucket", "attack", "away", "cache",
];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok());
    let rounds: u64 = rounds.unwrap_or(5);
    // Cargo adds a flag of its own.
    let named = arguments.iter().filter(|it| PARTS.contains(&it.as_str()));
    let is_all = named.clone().next().is_none();
    let is_wanted = |part| is_all || named.clone().any(|it| it == part);
    let directory = TempDir::new().unwrap();
    let mut table = Table::default();
    if is_wanted("origin") {
        origin_beside_docker_registry(&mut table, directory.path(), rounds).await;
    }
    if is_wanted("edge") {
        edge_beside_origin(&mut table, directory.path(), rounds).await;
    }
    if is_wanted("cold") {
        cold_layer(&mut table, directory.path(), rounds).await;
    }
    if is_wanted("crowd") {
        crowd_at_cold_edge(&mut table, directory.path(), rounds).await;
    }
    if is_wanted("serve") {
        edge_beside_nginx(&mut table, directory.path(), rounds).await;
    }
    if is_wanted("bucket") {
        origin_over_bucket(&mut table, directory.path(), rounds).await;
    }
    if is_wanted("attack") {
        edge_under_attack(&mut table, rounds).await;
    }
    if is_wanted("away") {
        edge_without_upstream(&mut table, rounds).await;
    }
    if !table.is_empty() {
        println!("\nMedians of {rounds} rounds in turn:\n\n{table}");
    }
    if is_wanted("cache") {
        println!("{}", cache::report().await);
    }
}

/// Pushes and pulls a large layer, and asks for a small manifest.
async fn origin_beside_docker_registry(table: &mut Table, directory: &Path, rounds: u64) {
    let peer = DockerRegistry::start(directory);
    let origin = Origin::start().await;
    let sides: [(SocketAddr, &str); 2] = [
        (origin.address(), "origin"),
        (peer.address(), "docker-registry"),
    ];
    let mut pushes = [Series::default(), Series::default()];
    let mut pulls = [Series::default(), Series::default()];
    let mut manifests = [Series::default(), Series::default()];
    for (address, _) in sides {
        push_image(address, "bench/small", &[]);
    }
    for round in 0..rounds {
        let layer = Layer::create(&directory.join("layer"), round, GIB);
        for (side, (address, name)) in sides.into_iter().enumerate() {
            rustix::fs::sync();
            pushes[side].add(push(address, "bench/large", &layer).whole);
            pulls[side].add(pull(address, "bench/large", &layer));
            manifests[side].add(requests_per_second(
                address,
                "/v2/bench/small/manifests/latest",
            ));
            println!("round {round}: {name} pushed, pulled, asked");
        }
    }
    table.beside(
        Unit::Seconds,
        "push 1 GiB at the origin",
        "docker-registry",
        &pushes,
    );
    table.beside(
        Unit::Seconds,
        "pull 1 GiB from the origin",
        "docker-registry",
        &pulls,
    );
    table.beside(
        Unit::Rate,
        "small manifest by tag, 32 connections",
        "docker-registry",
        &manifests,
    );
    let (_, most) = origin.process().memory();
    table.bytes(
        "origin, most resident memory (one stream)",
        most,
        64 * MIB + MIB / 4,
    );
}
