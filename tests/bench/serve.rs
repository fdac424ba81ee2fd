//! A warm edge beside nginx, and beside `docker-registry` as a proxy.

use std::fs;
use std::path::Path;

use harness::node::{Edge, Origin};
use harness::tls::Certificate;

use crate::load::{Load, Target, one_cipher};
use crate::nginx::Nginx;
use crate::peer::DockerRegistry;
use crate::table::{Series, Table, Unit};
use crate::transfer::{Layer, push, push_image};

const LAYER_BYTES: u64 = 95_000_000;
const GIB: f64 = 1_073_741_824.0;

/// A row: what is asked of everybody.
struct Row<'a> {
    what: &'static str,
    connections: u32,
    /// Whether bytes count, and not requests.
    is_large: bool,
    /// The edge, then its peers with what they are called.
    sides: Vec<(&'static str, Target<'a>)>,
}

/// Everybody who is asked.
struct Servers {
    edge: Edge,
    secure_edge: Edge,
    nginx: Nginx,
    registry: DockerRegistry,
}

/// What is asked for.
struct Paths {
    layer: String,
    small: String,
    tag: String,
}

/// Pulls a layer and small things that everybody has in memory.
pub(crate) async fn edge_beside_nginx(table: &mut Table, directory: &Path, rounds: u64) {
    let openssl = directory.join("openssl.cnf");
    one_cipher(&openssl);
    let certificate = Certificate::new("bench");
    let origin = Origin::start().await;
    // nginx serves it from there.
    let file = directory.join("layer");
    let layer = Layer::create(&file, 95, LAYER_BYTES);
    push(origin.address(), "bench/app", &layer);
    let config = push_image(origin.address(), "bench/app", &[&layer]);
    let url = format!("http://{}", origin.address());
    let servers = Servers {
        edge: Edge::start(&origin).await,
        secure_edge: Edge::start_with(&url, &certificate.sets()).await,
        nginx: Nginx::start(directory, &certificate, origin.address()),
        registry: DockerRegistry::start_proxy(directory, origin.address()),
    };
    let paths = Paths {
        layer: format!("/v2/bench/app/blobs/{}", layer.digest()),
        small: format!("/v2/bench/app/blobs/{config}"),
        tag: "/v2/bench/app/manifests/latest".to_owned(),
    };
    let rows = servers.rows(&paths);
    let loads = measure(&rows, rounds, &openssl);
    for (row, sides) in rows.iter().zip(&loads) {
        row.report(table, sides);
    }
    fs::remove_file(file).unwrap();
}

// === impl Servers ===

impl Servers {
    fn rows<'a>(&self, paths: &'a Paths) -> Vec<Row<'a>> {
        let nginx = &self.nginx;
        let plain = nginx.target("http", nginx.plain, "/layer");
        let secure = nginx.target("https", nginx.secure, "/layer");
        let large = |what, connections, ours, theirs| Row {
            what,
            connections,
            is_large: true,
            sides: vec![("edge", ours), ("nginx, sendfile", theirs)],
        };
        let asked = |what, path| Row {
            what,
            connections: 32,
            is_large: false,
            sides: vec![
                ("edge", edge_target("http", &self.edge, path)),
                (
                    "nginx, proxy_cache",
                    nginx.target("http", nginx.proxy, path),
                ),
                ("docker-registry, proxy", self.registry.target(path)),
            ],
        };
        let layer = edge_target("http", &self.edge, &paths.layer);
        let secure_layer = edge_target("https", &self.secure_edge, &paths.layer);
        vec![
            large("95 MB, 1 connection", 1, layer, plain),
            large("95 MB, 8 connections", 8, layer, plain),
            large("95 MB, 1 connection, TLS 1.3", 1, secure_layer, secure),
            large("95 MB, 8 connections, TLS 1.3", 8, secure_layer, secure),
            asked("manifest by tag, 32 connections", &paths.tag),
            asked("small blob, 32 connections", &paths.small),
        ]
    }
}

fn edge_target<'a>(scheme: &'static str, edge: &Edge, path: &'a str) -> Target<'a> {
    Target {
        scheme,
        address: edge.address(),
        path,
        server: edge.process().id(),
    }
}

// === impl Row ===

impl Row<'_> {
    fn report(&self, table: &mut Table, sides: &[Vec<Load>]) {
        #[expect(clippy::cast_precision_loss, reason = "for display")]
        let bytes = LAYER_BYTES as f64;
        for (index, (peer, _)) in self.sides.iter().enumerate().skip(1) {
            if self.is_large {
                let throughput = |load: &Load| load.rate * bytes / 1e9;
                table.beside(
                    Unit::Throughput,
                    self.what,
                    peer,
                    &pair(sides, index, throughput),
                );
                let cost = |load: &Load| load.cpu / (load.rate * bytes / GIB);
                let what = format!("{}, the server's processor", self.what);
                table.beside(Unit::Cost, &what, peer, &pair(sides, index, cost));
                let cost = |load: &Load| (load.cpu + load.client_cpu) / (load.rate * bytes / GIB);
                let what = format!("{}, the processor of server and client", self.what);
                table.beside(Unit::Cost, &what, peer, &pair(sides, index, cost));
            } else {
                table.beside(
                    Unit::Rate,
                    self.what,
                    peer,
                    &pair(sides, index, |load| load.rate),
                );
            }
        }
    }
}

/// Asks everybody for everything, in turn; returns what came, by row and side.
fn measure(rows: &[Row<'_>], rounds: u64, openssl: &Path) -> Vec<Vec<Vec<Load>>> {
    let side = |row: &Row<'_>| vec![Vec::new(); row.sides.len()];
    let mut loads: Vec<Vec<Vec<Load>>> = rows.iter().map(side).collect();
    for round in 0..rounds {
        for (row, loads) in rows.iter().zip(&mut loads) {
            for ((name, target), loads) in row.sides.iter().zip(loads) {
                let load = Load::measure(*target, row.connections, openssl);
                println!("round {round}: {}: {name}: {load:?}", row.what);
                loads.push(load);
            }
        }
    }
    loads
}

fn pair(sides: &[Vec<Load>], peer: usize, value: impl Fn(&Load) -> f64) -> [Series; 2] {
    [0, peer].map(|side| sides[side].iter().map(&value).collect())
}
