//! A wire between two nodes that can be watched and cut.
//!
//! It passes bytes on as they are, and notes the request lines that go by.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A wire from a port of its own to another node.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
    is_cut: watch::Sender<bool>,
    _accepting: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    requests: Mutex<Vec<String>>,
    answered_bytes: AtomicU64,
}

/// A line of a request's head is shorter; what is longer is content.
const LINE_BYTES_MAX: usize = 8 * 1024;

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

// === impl Wire ===

impl Wire {
    /// Lays a wire to an address.
    pub async fn to(address: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
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
    let mut buffer = vec![0; 64 * 1024];
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
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        shared
            .answered_bytes
            .fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    drop(to.shutdown().await);
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
