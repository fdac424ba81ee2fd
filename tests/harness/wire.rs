//! A wire between two nodes that can be watched and cut.
//!
//! It passes bytes on as they are, and notes the request lines that go by. It can be as long and as narrow as one between
//! regions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// A wire from a port of its own to another node.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
    is_cut: watch::Sender<bool>,
    _accepting: JoinSet<()>,
}

/// How long and how narrow a wire is, for what comes back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// How long each byte is under way.
    pub delay: Duration,
    /// How many bytes come in a second over one connection; any number when zero.
    pub connection_bytes_per_second: u64,
    /// How many come over all of them together; any number when zero.
    pub bytes_per_second: u64,
}

/// When the next byte may go.
#[derive(Debug)]
struct Pace {
    bytes_per_second: u64,
    next: Instant,
}

#[derive(Debug)]
struct Shared {
    shape: Shape,
    pace: Mutex<Pace>,
    to: SocketAddr,
    requests: Mutex<Vec<String>>,
    answered_bytes: AtomicU64,
}

/// A line of a request's head is shorter; what is longer is content.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// How much is read at a time, and how many of those may be under way on a connection.
const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS_UNDER_WAY: usize = 256;

/// Timers are late by a millisecond or two; the bytes that could have gone meanwhile go at once.
const CATCH_UP: Duration = Duration::from_millis(10);

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

// === impl Wire ===

impl Wire {
    /// Lays a wire to an address, as short and as wide as this machine has it.
    pub async fn to(address: SocketAddr) -> Self {
        Self::shaped(address, Shape::default()).await
    }

    /// Lays a wire of some length and width to an address.
    pub async fn shaped(address: SocketAddr, shape: Shape) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
            shape,
            pace: Mutex::new(Pace::new(shape.bytes_per_second)),
            to: address,
            requests: Mutex::default(),
            answered_bytes: AtomicU64::new(0),
        });
        let (is_cut, watching) = watch::channel(false);
        let address = listener.local_addr().unwrap();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared), watching));
        Self {
            address,
            shared,
            is_cut,
            _accepting: accepting,
        }
    }

    /// Returns its near end.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it: connections are reset, new ones too.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Lays it anew.
    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }

    /// Returns the requests that went by, each as `METHOD target`.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().clone()
    }

    /// Returns how many requests went by whose `METHOD target` begins and ends so.
    pub fn count(&self, start: &str, end: &str) -> usize {
        let requests = self.shared.requests.lock();
        requests
            .iter()
            .filter(|line| line.starts_with(start) && line.ends_with(end))
            .count()
    }

    /// Returns how many bytes came back.
    pub fn answered_bytes(&self) -> u64 {
        self.shared.answered_bytes.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, is_cut: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (near, _) = accepted.unwrap();
                connections.spawn(connect(near, Arc::clone(&shared), is_cut.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(mut near: TcpStream, shared: Arc<Shared>, mut is_cut: watch::Receiver<bool>) {
    let far = TcpStream::connect(shared.to).await;
    let is_cut_already = *is_cut.borrow_and_update();
    let (Ok(mut far), false) = (far, is_cut_already) else {
        // The near end has long been accepted: a far end that is away looks like a reset.
        return near.set_zero_linger().unwrap();
    };
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    let is_cut = tokio::select! {
        _ = async {
            tokio::join!(asks(near_read, far_write, &shared), answers(far_read, near_write, &shared))
        } => false,
        _ = is_cut.wait_for(|is_cut| *is_cut) => true,
    };
    if is_cut {
        near.set_zero_linger().unwrap();
        far.set_zero_linger().unwrap();
    }
}

async fn asks(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, shared: &Shared) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut line = Vec::new();
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        for &byte in &buffer[..length] {
            match byte {
                b'\n' => {
                    shared.note(&line);
                    line.clear();
                }
                _ if line.len() < LINE_BYTES_MAX => line.push(byte),
                _ => {}
            }
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    // The other direction has said why, or will.
    drop(to.shutdown().await);
}

async fn answers(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, shared: &Shared) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_UNDER_WAY);
    let mut own_pace = Pace::new(shared.shape.connection_bytes_per_second);
    let near_end = async {
        while let Some((arrives, chunk)) = under_way.recv().await {
            sleep_until(arrives).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        drop(to.shutdown().await);
    };
    let far_end = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let bytes = length as u64;
            shared.answered_bytes.fetch_add(bytes, Ordering::Relaxed);
            let goes = own_pace.take(bytes).max(shared.pace.lock().take(bytes));
            sleep_until(goes).await;
            let chunk = (
                Instant::now() + shared.shape.delay,
                buffer[..length].to_vec(),
            );
            if sender.send(chunk).await.is_err() {
                break;
            }
        }
        drop(sender);
    };
    tokio::join!(near_end, far_end);
}

// === impl Pace ===

impl Pace {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            next: Instant::now(),
        }
    }

    /// Returns when so many bytes may go, which can be a moment ago.
    #[expect(clippy::cast_precision_loss, reason = "a pace")]
    fn take(&mut self, bytes: u64) -> Instant {
        let goes = self.next.max(Instant::now() - CATCH_UP);
        if self.bytes_per_second > 0 {
            let seconds = bytes as f64 / self.bytes_per_second as f64;
            self.next = goes + Duration::from_secs_f64(seconds);
        }
        goes
    }
}

// === impl Shared ===

impl Shared {
    fn note(&self, line: &[u8]) {
        let Some(request) = line.strip_suffix(b" HTTP/1.1\r") else {
            return;
        };
        // The body of the request before may lie on the same line.
        let Some(at) = request.windows(2).rposition(|window| window == b" /") else {
            return;
        };
        let method = METHODS
            .iter()
            .find(|method| request[..at].ends_with(method.as_bytes()));
        let Some(method) = method else { return };
        let request = String::from_utf8_lossy(&request[at - method.len()..]).into_owned();
        self.requests.lock().push(request);
    }
}
