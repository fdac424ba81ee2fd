//! What a client notices of attacks, and of more clients than a node takes.
//!
//! The attackers run on the same processors as the node, and cost as much as it: what is measured is what a client notices on
//! a machine that is short of everything.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use harness::attack::Attack;
use harness::node::{Edge, Origin};
use harness::raw::Raw;
use tokio::time::Instant;

use crate::table::{Series, Table, Unit};
use crate::transfer::push_image;

const ATTACKERS: usize = 200;
const CLIENTS: usize = 8;
const MEASURED: Duration = Duration::from_secs(3);
/// The connections that an edge takes, and how many more want one.
const CONNECTIONS: usize = 64;
const TOO_MANY: usize = 256;
const REPOSITORY: &str = "bench/small";

/// Asks an edge for a manifest that it has, with and without somebody attacking it.
pub(crate) async fn edge_under_attack(table: &mut Table, rounds: u64) {
    let origin = Origin::start().await;
    push_image(origin.address(), REPOSITORY, &[]);
    let edge = Edge::start(&origin).await;
    ask(edge.address(), CLIENTS).await;
    let mut waits: [[Series; 2]; Attack::ALL.len()] = Default::default();
    for round in 0..rounds {
        for (attack, series) in Attack::ALL.into_iter().zip(&mut waits) {
            series[1].add(ask(edge.address(), CLIENTS).await.p99);
            let attackers = attack.start(edge.address(), ATTACKERS);
            attackers.have_sent(2 * ATTACKERS as u64).await;
            series[0].add(ask(edge.address(), CLIENTS).await.p99);
        }
        println!("round {round}: edge attacked");
    }
    for (attack, series) in Attack::ALL.into_iter().zip(&waits) {
        let what = format!("p99 of a manifest, {ATTACKERS} attackers: {attack:?}");
        table.beside(Unit::Milliseconds, &what, "without", series);
    }
    overload(table, &origin, rounds).await;
}

/// Has an edge serve as many as it takes, while more than that want to be served.
async fn overload(table: &mut Table, origin: &Origin, rounds: u64) {
    let url = format!("http://{}", origin.address());
    let limit = format!("server.connections={CONNECTIONS}");
    let edge = Edge::start_with(&url, &[limit]).await;
    let mut rates = <[Series; 2]>::default();
    let mut refusals = Series::default();
    for _ in 0..rounds {
        rates[1].add(ask(edge.address(), CONNECTIONS).await.rate);
        let refused = join_all((0..TOO_MANY).map(|_| refusal(edge.address())));
        let (asked, refused) = tokio::join!(ask(edge.address(), CONNECTIONS), async {
            // Those who are served are connected by then.
            tokio::time::sleep(MEASURED / 4).await;
            refused.await
        });
        rates[0].add(asked.rate);
        for wait in refused.into_iter().flatten() {
            refusals.add(wait);
        }
    }
    table.beside(
        Unit::Rate,
        "manifests with more clients than connections",
        "without",
        &rates,
    );
    table.bounded(
        Unit::Milliseconds,
        "until one too many is told to come back",
        refusals.median(),
        50e-3,
    );
}

/// What clients noticed.
struct Noticed {
    /// Seconds that 99 of 100 requests took at most.
    p99: f64,
    /// Requests in a second.
    rate: f64,
}

/// Asks for the manifest over so many connections, for a while.
async fn ask(address: SocketAddr, clients: usize) -> Noticed {
    let path = format!("/v2/{REPOSITORY}/manifests/latest");
    let request = format!("GET {path} HTTP/1.1\r\nhost: edge\r\naccept: */*\r\n\r\n");
    let begin = Instant::now();
    let client = async || {
        let mut connection = Raw::connect(address).await;
        let mut waits = Vec::new();
        while begin.elapsed() < MEASURED {
            let begin = Instant::now();
            connection.write(&request).await.unwrap();
            assert_eq!(connection.reply().await.status, Some(200));
            waits.push(begin.elapsed().as_secs_f64());
        }
        waits
    };
    let mut waits = join_all((0..clients).map(|_| client())).await.concat();
    waits.sort_unstable_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = waits.len() as f64 / begin.elapsed().as_secs_f64();
    Noticed {
        p99: waits[waits.len() * 99 / 100],
        rate,
    }
}

/// Returns the seconds until a client is told that it is one too many; none if it is not.
async fn refusal(address: SocketAddr) -> Option<f64> {
    let begin = Instant::now();
    let mut connection = Raw::connect(address).await;
    connection
        .write("GET /v2/ HTTP/1.1\r\nhost: edge\r\n\r\n")
        .await
        .ok()?;
    let reply = connection.reply().await;
    (reply.status == Some(503)).then(|| begin.elapsed().as_secs_f64())
}
