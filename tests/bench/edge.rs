//! A pull through an edge that has never seen the layer, beside one from the origin itself.
//!
//! What: clients that do nothing with what they get, and real ones with their disks in memory: a client is another machine
//! than its edge, so the two do not share a disk. All run on the same processors nevertheless, and on loopback the origin is
//! no further away than the edge; over a link of [`LINK`] an edge is what it is for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::containerd::Containerd;
use harness::containers::Containers;
use harness::docker::Docker;
use harness::node::{Edge, Origin};
use harness::sandbox::Sandbox;
use harness::tmpfs::Tmpfs;
use harness::wire::{Shape, Wire};
use tokio::time::Instant;

use crate::table::{Series, Table, Unit};
use crate::transfer::{Layer, pull, pull_checked, push, push_image};
use crate::{GIB, MIB};

/// One gigabit in a second, from another region.
const LINK: Shape = Shape {
    delay: Duration::from_millis(20),
    connection_bytes_per_second: 0,
    bytes_per_second: 125_000_000,
};
/// What a pull needs of memory, in both page caches, and more.
const FREE_BYTES: usize = 4 << 30;
const REPOSITORY: &str = "bench/large";

/// Pulls a large layer from the origin, and through an edge that has never seen it.
pub(crate) async fn edge_beside_origin(table: &mut Table, directory: &Path, rounds: u64) {
    let origin = Origin::start().await;
    let layer = Layer::create_archive(&directory.join("layer"), u64::MAX, GIB);
    push(origin.address(), REPOSITORY, &layer);
    push_image(origin.address(), REPOSITORY, &[&layer]);
    let wire = Wire::shaped(origin.address(), LINK).await;
    let clients = Clients::start(&layer, directory);
    let mut cold: [[Series; 2]; Client::ALL.len()] = Default::default();
    let (mut far, mut warm) = <[[Series; 2]; 2]>::default().into();
    let mut most = 0;
    for round in 0..rounds {
        for (client, series) in Client::ALL.into_iter().zip(&mut cold) {
            let edge = cold_edge(origin.address()).await;
            series[0].add(clients.pull(client, edge.address()));
            settle();
            series[1].add(clients.pull(client, origin.address()));
            if client == Client::Null {
                warm[0].add(clients.pull(client, edge.address()));
                warm[1].add(clients.pull(client, origin.address()));
                most = most.max(edge.process().memory().1);
            }
        }
        let edge = cold_edge(wire.address()).await;
        far[0].add(pull(edge.address(), REPOSITORY, &layer));
        far[1].add(pull(wire.address(), REPOSITORY, &layer));
        println!("round {round}: edge pulled from");
    }
    let peer = "direct from the origin";
    for (client, series) in Client::ALL.into_iter().zip(&cold) {
        let what = format!("pull 1 GiB through a cold edge, by {}", client.name());
        table.beside(Unit::Seconds, &what, peer, series);
    }
    table.beside(
        Unit::Seconds,
        "the same over 1 Gbit/s and 20 ms, by a client that throws it away",
        peer,
        &far,
    );
    table.beside(Unit::Seconds, "pull 1 GiB through a warm edge", peer, &warm);
    table.bytes(
        "edge, most resident memory (one stream)",
        most,
        64 * MIB + MIB / 4,
    );
}

/// Who pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Null,
    Checking,
    Skopeo,
    Podman,
    Containerd,
    Docker,
}

/// The clients, with their disks in memory.
struct Clients<'a> {
    layer: &'a Layer,
    docker: Docker,
    containerd: Containerd,
    memory: PathBuf,
    // Goes last.
    _mounted: Tmpfs,
}

/// What a client has of the layer, twice at a time, and something on top.
const MEMORY_MIB: u32 = 6 << 10;

// === impl Client ===

impl Client {
    const ALL: [Self; 6] = [
        Self::Null,
        Self::Checking,
        Self::Skopeo,
        Self::Podman,
        Self::Containerd,
        Self::Docker,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Null => "a client that throws it away",
            Self::Checking => "one that checks the digest",
            Self::Skopeo => "skopeo into a directory",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Docker => "docker",
        }
    }
}

// === impl Clients ===

impl<'a> Clients<'a> {
    fn start(layer: &'a Layer, directory: &Path) -> Self {
        let memory = directory.join("memory");
        let mounted = Tmpfs::mount(&memory, MEMORY_MIB);
        Self {
            layer,
            docker: Docker::start_in(Sandbox::new_in(&memory)),
            containerd: Containerd::start_in(Sandbox::new_in(&memory)),
            memory,
            _mounted: mounted,
        }
    }

    /// Pulls the layer, or the image of it, and forgets it; returns the seconds that the pull took.
    fn pull(&self, client: Client, from: SocketAddr) -> f64 {
        let image = format!("{from}/{REPOSITORY}:latest");
        match client {
            Client::Null => pull(from, REPOSITORY, self.layer),
            Client::Checking => pull_checked(from, REPOSITORY, self.layer),
            Client::Skopeo => {
                let containers = self.containers(from);
                let target = format!("dir:{}", containers.sandbox().text("target"));
                timed(|| containers.copy(&format!("docker://{image}"), &target))
            }
            Client::Podman => {
                let containers = self.containers(from);
                timed(|| drop(containers.podman_pull("storage", &image)))
            }
            Client::Containerd => {
                let seconds = timed(|| drop(self.containerd.pull("bench", &image)));
                let remove = ["images", "rm", "--sync", &image];
                self.containerd.run("bench", &remove);
                seconds
            }
            Client::Docker => {
                let seconds = timed(|| drop(self.docker.pull(&image)));
                self.docker.forget();
                seconds
            }
        }
    }

    fn containers(&self, from: SocketAddr) -> Containers {
        Containers::new_in(Sandbox::new_in(&self.memory), &[from])
    }
}

fn timed(run: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    run();
    begin.elapsed().as_secs_f64()
}

/// Starts an edge that has seen nothing, on a machine that has nothing left to do.
async fn cold_edge(origin: SocketAddr) -> Edge {
    let edge = Edge::start_at(origin).await;
    settle();
    edge
}

/// Lets the disk finish, and has the memory that is free be there: a virtual machine gets pages from its host when it touches
/// them first, which takes longer than to fill them, and a pull through an edge needs twice as many as one without.
pub(crate) fn settle() {
    rustix::fs::sync();
    drop(std::hint::black_box(vec![1_u8; FREE_BYTES]));
}
