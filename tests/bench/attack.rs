//! What a client notices of attacks, and of more clients than a node takes.
//!
//! Attackers come from elsewhere, and cost the node only what they make it do. Here they run on its processors: so they have a
//! thread of their own, which runs when nobody else wants to, and each connects again [`ATTACK_PAUSE`] after it was cut off:
//! thousands of times a second together. Their victims ask every now and then, as clients do, and not as fast as they can: what
//! those would notice first is that there is anybody else at all.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::join_all;
use harness::attack::Attack;
use harness::node::{Edge, Origin};
use harness::raw::Raw;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use crate::table::{Series, Table, Unit};
use crate::transfer::push_image;

const ATTACKERS: u32 = 200;
/// How long one that was cut off waits.
const ATTACK_PAUSE: Duration = Duration::from_millis(100);
const LAST_PRIORITY: i32 = 19;
/// How long a client waits before it asks again.
const PAUSE: Duration = Duration::from_millis(2);
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
    ask(edge.address(), CLIENTS, None).await;
    let mut waits: [[Series; 2]; Attack::ALL.len()] = Default::default();
    for round in 0..rounds {
        for (attack, series) in Attack::ALL.into_iter().zip(&mut waits) {
            series[1].add(ask(edge.address(), CLIENTS, Some(PAUSE)).await.p99);
            let attackers = Attacked::start(attack, edge.address());
            series[0].add(ask(edge.address(), CLIENTS, Some(PAUSE)).await.p99);
            let sent = attackers.stop();
            println!("round {round}: {attack:?}: {sent} pieces sent");
        }
    }
    for (attack, series) in Attack::ALL.into_iter().zip(&waits) {
        let what = format!("p99 of a manifest, {ATTACKERS} attackers: {attack:?}");
        table.beside(Unit::Milliseconds, &what, "without", series);
    }
    overload(table, &origin, rounds).await;
}

/// Attackers on a thread of their own, which waits for all others.
struct Attacked {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

// === impl Attacked ===

impl Attacked {
    /// Lets them loose, and waits until all of them have begun.
    fn start(attack: Attack, address: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (begun, has_begun) = mpsc::channel();
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let this = Some(rustix::thread::gettid());
            rustix::process::setpriority_process(this, LAST_PRIORITY).unwrap();
            runtime.block_on(async {
                let attackers = attack.start(address, ATTACKERS, ATTACK_PAUSE);
                attackers.have_sent(2 * u64::from(ATTACKERS)).await;
                begun.send(()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    sleep(ATTACK_PAUSE).await;
                }
                attackers.sent()
            })
        });
        has_begun.recv().unwrap();
        Self { is_over, thread }
    }

    /// Ends them, and returns how much they have sent.
    fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Has an edge serve as many as it takes, while more than that want to be served.
async fn overload(table: &mut Table, origin: &Origin, rounds: u64) {
    let url = format!("http://{}", origin.address());
    let limit = format!("server.connections={CONNECTIONS}");
    let edge = Edge::start_with(&url, &[limit]).await;
    let mut rates = <[Series; 2]>::default();
    let mut refusals = Series::default();
    for _ in 0..rounds {
        rates[1].add(ask(edge.address(), CONNECTIONS, None).await.rate);
        let refused = join_all((0..TOO_MANY).map(|_| refusal(edge.address())));
        let (asked, refused) = tokio::join!(ask(edge.address(), CONNECTIONS, None), async {
            // Those who are served are connected by then.
            sleep(MEASURED / 4).await;
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

/// Asks for the manifest over so many connections, for a while, and pauses between answer and question.
async fn ask(address: SocketAddr, clients: usize, pause: Option<Duration>) -> Noticed {
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
            if let Some(pause) = pause {
                sleep(pause).await;
            }
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
