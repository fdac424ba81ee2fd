//! A layer that nobody has yet, through everybody who would fetch it; and one through an edge on a long link.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::node::{Edge, Origin};
use harness::tls::Certificate;
use harness::wire::{Shape, Wire};

use crate::edge::settle;
use crate::nginx::Nginx;
use crate::peer::DockerRegistry;
use crate::table::{Series, Table, Unit};
use crate::transfer::{Layer, pull, push};
use crate::{GIB, MIB};

const REPOSITORY: &str = "bench/cold";

/// Another continent, where a connection gets its share of the link and no more.
const LINK: Shape = Shape {
    delay: Duration::from_millis(100),
    connection_bytes_per_second: 5 * MIB,
    bytes_per_second: 32 * MIB,
};
const FAR_BYTES: u64 = 256 * MIB;

/// How much of a long link a download is to fill.
const FILLED: f64 = 0.8;

/// Pulls new layers through an edge and through its peers.
pub(crate) async fn cold_layer(table: &mut Table, directory: &Path, rounds: u64) {
    let certificate = Certificate::new("bench");
    let origin = Origin::start().await;
    let edge = Edge::start(&origin).await;
    let nginx = Nginx::start(directory, &certificate, origin.address());
    let registry = DockerRegistry::start_proxy(directory, origin.address());
    let sides = [
        (edge.address(), "edge"),
        (origin.address(), "direct from the origin"),
        (nginx.proxy, "nginx, proxy_cache"),
        (nginx.slices, "nginx, slices of 1 MiB"),
        (registry.address(), "docker-registry, proxy"),
    ];
    let mut seconds = sides.map(|_| Vec::new());
    for round in 0..rounds {
        let layer = Layer::create(&directory.join("layer"), round, GIB);
        push(origin.address(), REPOSITORY, &layer);
        for ((address, name), seconds) in sides.iter().zip(&mut seconds) {
            settle();
            seconds.push(pull(*address, REPOSITORY, &layer));
            println!("round {round}: {name}: {:.2?} s", seconds.last());
        }
    }
    for ((_, peer), theirs) in sides.iter().zip(&seconds).skip(1) {
        let pair = [&seconds[0], theirs].map(|seconds| seconds.iter().copied().collect());
        table.beside(Unit::Seconds, "1 GiB that is new", peer, &pair);
    }
    fs::remove_file(directory.join("layer")).unwrap();
    far_layer(table, directory, &origin, rounds).await;
}

/// Pulls layers through edges that are far from their origin.
async fn far_layer(table: &mut Table, directory: &Path, origin: &Origin, rounds: u64) {
    let layer = Layer::create(&directory.join("far"), u64::MAX, FAR_BYTES);
    push(origin.address(), REPOSITORY, &layer);
    let wire = Wire::shaped(origin.address(), LINK).await;
    let mut seconds = Series::default();
    for _ in 0..rounds {
        let edge = Edge::start_at(wire.address()).await;
        seconds.add(pull(edge.address(), REPOSITORY, &layer));
    }
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    let filled = FAR_BYTES as f64 / (FILLED * LINK.bytes_per_second as f64);
    let what = "256 MiB over 32 MiB/s, 100 ms and 5 MiB/s for each connection, beside four fifths of the link";
    table.bounded(Unit::Seconds, what, seconds.median(), filled);
}
