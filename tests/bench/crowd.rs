//! A crowd at an edge that has never seen the layer, and how long one waits there for the first byte.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use harness::node::{Edge, Origin};
use harness::wire::Wire;

use crate::table::{Series, Table, Unit};
use crate::transfer::{Layer, first_byte, pull, push};
use crate::{GIB, MIB};

const CLIENTS: u64 = 200;
const REPOSITORY: &str = "bench/crowd";

/// Of how many layers the first byte is waited for, in each round, and how large they are.
const LAYERS: u64 = 20;
const LAYER_BYTES: u64 = 8 * MIB;

/// How much later than from the origin the first byte of a cold layer may come, in seconds.
const LATER: f64 = 0.002;

/// Has 200 clients pull a large layer at once, and one client the first bytes of smaller ones.
pub(crate) async fn crowd_at_cold_edge(table: &mut Table, directory: &Path, rounds: u64) {
    let origin = Origin::start().await;
    let wire = Wire::to(origin.address()).await;
    first_bytes(table, directory, &origin, rounds).await;
    let layer = Layer::create(&directory.join("layer"), u64::MAX, GIB);
    push(origin.address(), REPOSITORY, &layer);
    let edge = Edge::start_at(wire.address()).await;
    crowd(edge.address(), &layer);
    let path = format!("/v2/{REPOSITORY}/blobs/{}", layer.digest());
    let asked = wire.count(&format!("GET {path}"), "");
    println!("{CLIENTS} clients pulled: GETs of the layer from the origin: {asked}");
    let what = format!("{CLIENTS} clients at once, one cold layer of 1 GiB");
    let fetched = wire.answered_bytes();
    table.bytes(&format!("{what}: bytes from the origin"), fetched, GIB);
    let (_, most) = edge.process().memory();
    let bound = 64 * MIB + CLIENTS * MIB / 4;
    table.bytes(&format!("{what}: most resident memory"), most, bound);
}

fn crowd(edge: SocketAddr, layer: &Layer) {
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| pull(edge, REPOSITORY, layer));
        }
    });
}

async fn first_bytes(table: &mut Table, directory: &Path, origin: &Origin, rounds: u64) {
    let layers: Vec<_> = (0..LAYERS)
        .map(|number| Layer::create(&directory.join(number.to_string()), number, LAYER_BYTES))
        .collect();
    for layer in &layers {
        push(origin.address(), REPOSITORY, layer);
    }
    let mut series = [Series::default(), Series::default()];
    for _ in 0..rounds {
        let edge = Edge::start_at(origin.address()).await;
        for layer in &layers {
            series[0].add(first_byte(edge.address(), REPOSITORY, layer));
            series[1].add(first_byte(origin.address(), REPOSITORY, layer));
        }
    }
    let [cold, direct] = series.each_ref().map(Series::median);
    let what = "first byte of a cold layer, beside direct and 2 ms";
    table.bounded(Unit::Milliseconds, what, cold, direct + LATER);
}
