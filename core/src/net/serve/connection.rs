//! One connection, from its first byte to its last.
//!
//! Invariants: the watch fires at the deadline that the connection's activity names, and never earlier. Whatever hyper
//! says of the protocol, a connection ends by one of [`End`].

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Cut};
use super::exchange::Exchanges;
use super::metrics::CutLabels;
use super::rest::Lender;
use super::socket::{Handle, Protocol, Socket};
use super::stream::{StreamExchanges, Streams};
use super::wire::{Transport, Wire};
use super::{Config, Server};
use crate::body::Body;
use crate::net::respond::chain;
use crate::net::tls::Tls;
use crate::tasks::Tasks;

/// How much of a body hyper gathers before it waits for the socket: less than one chunk of a file, so that each response
/// holds one chunk in memory and not two.
const BUFFER_BYTES: usize = 128 * 1024;

/// How much a client may send, or be sent, ahead in HTTP/2; sized for 100 ms at 80 MB/s.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 8 << 20;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// How many HTTP/2 streams a client may have reset before their requests were looked at (rapid reset, CVE-2023-44487), and
/// how many it may make us reset by its mistakes (CVE-2025-8671); one more, and the connection ends.
const HTTP2_EARLY_RESETS: usize = 20;
const HTTP2_MISTAKES: usize = 1024;

/// What a connection needs to know of its server.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) server: Server,
    pub(super) peer: SocketAddr,
    pub(super) tasks: Tasks,
    pub(super) shutdown: CancellationToken,
    pub(super) reset: CancellationToken,
}

/// How a connection ended.
#[derive(Debug)]
enum End {
    /// By the protocol, well or not.
    Protocol(hyper::Result<()>),
    /// Before it was known what the client speaks.
    Unopened(io::Error),
    /// It was too slow.
    Cut(Cut),
    /// It outlived the drain.
    Reset,
}

/// Counts a connection as long as it is open.
struct Open(Server);

// === impl Connection ===

impl Connection {
    pub(super) async fn serve<S, F>(self, stream: TcpStream, service: S)
    where
        S: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let _open = Open::count(self.server.clone());
        let config = &self.server.0.config;
        let handle = Handle::new();
        let opening = open(
            Wire::new(stream, handle.clone()),
            handle.clone(),
            self.tls(),
        );
        let deadline = Instant::now() + config.header_timeout;
        let opened = self
            .shutdown
            .run_until_cancelled(timeout_at(deadline, opening));
        let (socket, protocol) = match opened.await {
            None | Some(Ok(Ok(None))) => return,
            Some(Err(_elapsed)) => {
                let deadline = handle.update(|activity, _| activity.deadline(config));
                let cut = deadline.map_or(Cut::Silent, |(_, cut)| cut);
                return self.note(&End::Cut(cut));
            }
            Some(Ok(Err(error))) => return self.note(&End::Unopened(error)),
            Some(Ok(Ok(Some(opened)))) => opened,
        };
        let io = TokioIo::new(socket);
        let exchanges = Exchanges {
            server: self.server.clone(),
            peer: self.peer,
            handle: handle.clone(),
            lender: Lender {
                handle: handle.clone(),
                tasks: self.tasks.clone(),
                shutdown: self.shutdown.clone(),
                timeout: config.linger_timeout,
            },
            service,
        };
        let end = match protocol {
            Protocol::Http1 => {
                let connection = http1_builder(config).serve_connection(io, exchanges);
                self.watch(pin!(connection), &handle).await
            }
            Protocol::Http2 => {
                let streams = Streams {
                    tasks: self.tasks.clone(),
                    send_stall_timeout: config.send_stall_timeout,
                };
                let connection =
                    http2_builder(config, streams).serve_connection(io, StreamExchanges(exchanges));
                self.watch(pin!(connection), &handle).await
            }
        };
        self.note(&end);
    }

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.server.0.tls.as_ref().map(Tls::server)
    }

    /// Runs the connection to its end; what must not look like a clean end is marked before the socket can be dropped.
    async fn watch<C>(&self, mut connection: Pin<&mut C>, handle: &Handle) -> End
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let config = &self.server.0.config;
        let mut sleep = pin!(sleep_until(Instant::now() + config.header_timeout));
        let mut draining = false;
        let end = loop {
            tokio::select! {
                biased;
                end = connection.as_mut() => break End::Protocol(end),
                cut = poll_fn(|cx| poll_cut(sleep.as_mut(), handle, config, cx)) => break End::Cut(cut),
                () = self.reset.cancelled() => break End::Reset,
                () = self.shutdown.cancelled(), if !draining => {
                    draining = true;
                    handle.update(Activity::draining);
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        match &end {
            End::Protocol(Err(error)) if error.is_user() => handle.reset_on_drop(),
            End::Cut(Cut::SendStall) | End::Reset => handle.reset_on_drop(),
            End::Protocol(_) | End::Unopened(_) | End::Cut(_) => {}
        }
        end
    }

    fn note(&self, end: &End) {
        match end {
            End::Protocol(Ok(())) | End::Reset => {}
            // A response that broke is logged with its request.
            End::Protocol(Err(error)) => {
                tracing::debug!(peer = %self.peer, error = chain(error), "connection ended");
            }
            End::Unopened(error) => {
                tracing::debug!(peer = %self.peer, %error, "connection not opened");
                self.server.0.metrics.connections_unopened.inc();
            }
            End::Cut(cut) => {
                tracing::debug!(peer = %self.peer, reason = cut.as_str(), "connection cut");
                let labels = CutLabels { reason: *cut };
                self.server
                    .0
                    .metrics
                    .connections_cut
                    .get_or_create(&labels)
                    .inc();
            }
        }
    }
}

/// Makes the handshake, and waits until it is known what the client speaks; none when it leaves without a word.
async fn open(
    wire: Wire,
    handle: Handle,
    tls: Option<Arc<ServerConfig>>,
) -> io::Result<Option<(Socket, Protocol)>> {
    let transport = Transport::accept(wire, tls).await?;
    let mut socket = Socket::new(transport, handle);
    let protocol = socket.protocol().await?;
    Ok(protocol.map(|protocol| (socket, protocol)))
}

/// Completes when nothing has happened for too long.
///
/// The timer is moved only when the deadline came nearer, or when it fires too early: not for every request.
fn poll_cut(
    mut sleep: Pin<&mut Sleep>,
    handle: &Handle,
    config: &Config,
    cx: &mut Context<'_>,
) -> Poll<Cut> {
    let (deadline, now) = handle.update(|activity, now| (activity.deadline(config), now));
    if let Some((at, cut)) = deadline {
        // A client that keeps the connection busy must not outrun the timer.
        if at <= now {
            return Poll::Ready(cut);
        }
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
        }
    }
    loop {
        ready!(sleep.as_mut().poll(cx));
        let now = Instant::now();
        match deadline {
            Some((at, cut)) if at <= now => return Poll::Ready(cut),
            Some((at, _)) => sleep.as_mut().reset(at),
            None => sleep.as_mut().reset(now + config.idle_timeout),
        }
    }
}

fn http1_builder(config: &Config) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The watch does this, and tells a slow head from an idle connection.
        .header_read_timeout(None)
        .max_headers(config.max_headers)
        .max_header_size(config.max_header_bytes)
        .max_buf_size(BUFFER_BYTES.max(config.max_header_bytes));
    builder
}

fn http2_builder(config: &Config, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(HTTP2_EARLY_RESETS)
        .max_local_error_reset_streams(HTTP2_MISTAKES)
        .max_send_buf_size(BUFFER_BYTES)
        .keep_alive_interval(config.idle_timeout / 3)
        .keep_alive_timeout(config.header_timeout);
    builder
}

// === impl Open ===

impl Open {
    fn count(server: Server) -> Self {
        server.0.metrics.connections.inc();
        server.0.metrics.connections_accepted.inc();
        Self(server)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.metrics.connections.dec();
    }
}
