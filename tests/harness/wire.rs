//! A wire between two nodes that can be watched, cut and spoiled.
//!
//! It passes bytes on as they are, and notes the request lines that go by. It can be as long and as narrow as one between
//! regions, and single answers can be made to come as badly as a network or a dying peer can make them.

mod fault;

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

pub use self::fault::Fault;
use self::fault::{Last, Spoiled, Spoils};

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
    spoils: Spoils,
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
            spoils: Spoils::default(),
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

    /// Spoils the answer to the next request whose `METHOD target` begins and ends so; several may wait for their requests.
    pub fn spoil(&self, start: &str, end: &str, fault: Fault) {
        self.shared.spoils.add(start, end, fault);
    }

    /// Spoils no more answers.
    pub fn forgive(&self) {
        self.shared.spoils.clear();
    }

    /// Returns how many answers are still to be spoiled.
    pub fn to_spoil(&self) -> usize {
        self.shared.spoils.len()
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
    // The fault of the answer that comes next.
    let armed = Mutex::new(None);
    let is_reset = tokio::select! {
        ((), is_reset) = async {
            let asks = asks(near_read, far_write, &shared, &armed);
            tokio::join!(asks, answers(far_read, near_write, &shared, &armed))
        } => is_reset,
        _ = is_cut.wait_for(|is_cut| *is_cut) => true,
    };
    if is_reset {
        near.set_zero_linger().unwrap();
        far.set_zero_linger().unwrap();
    }
}

async fn asks(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    armed: &Mutex<Option<Fault>>,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut line = Vec::new();
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        for &byte in &buffer[..length] {
            match byte {
                b'\n' => {
                    if let Some(request) = request(&line) {
                        *armed.lock() = shared.spoils.take(&request);
                        shared.requests.lock().push(request);
                    }
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

/// Passes answers on; returns whether the connection is to be reset.
async fn answers(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    armed: &Mutex<Option<Fault>>,
) -> bool {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Spoiled)>(CHUNKS_UNDER_WAY);
    let mut own_pace = Pace::new(shared.shape.connection_bytes_per_second);
    let near_end = async {
        while let Some((arrives, chunk)) = under_way.recv().await {
            sleep_until(arrives).await;
            for piece in chunk.pieces() {
                if to.write_all(piece).await.is_err() {
                    return;
                }
            }
        }
    };
    // Has the sender, so that the near end hears when this is done.
    let far_end = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut fault = None;
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let bytes = length as u64;
            shared.answered_bytes.fetch_add(bytes, Ordering::Relaxed);
            let goes = own_pace.take(bytes).max(shared.pace.lock().take(bytes));
            sleep_until(goes).await;
            fault = armed.lock().take().or(fault);
            let chunk = Spoiled::new(&buffer[..length], &mut fault);
            let last = chunk.last;
            let arrives = Instant::now() + shared.shape.delay;
            let is_gone = sender.send((arrives, chunk)).await.is_err();
            match last {
                Some(last) => return last,
                None if is_gone => return Last::End,
                None => {}
            }
        }
        Last::End
    };
    match tokio::join!(near_end, far_end).1 {
        Last::End => {
            drop(to.shutdown().await);
            false
        }
        Last::Silence => std::future::pending().await,
        Last::Reset => true,
    }
}

/// Returns what is asked, `METHOD target`, if a line is the first one of a request.
fn request(line: &[u8]) -> Option<String> {
    let request = line.strip_suffix(b" HTTP/1.1\r")?;
    // The body of the request before may lie on the same line.
    let at = request.windows(2).rposition(|window| window == b" /")?;
    let method = METHODS
        .iter()
        .find(|method| request[..at].ends_with(method.as_bytes()))?;
    Some(String::from_utf8_lossy(&request[at - method.len()..]).into_owned())
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
