//! One connection, from its first byte to its last.
//!
//! Invariants: the watch fires at the deadline that the connection's activity names, and never earlier. Whatever hyper
//! says of the protocol, a connection ends by one of [`End`].
//!
//! Why connections are parked: hyper keeps 16 KiB of buffers for each, and clients keep more of them than they use. It comes
//! soon, so that many who come at once do not take much even for a moment.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, Cut};
use super::exchange::Exchanges;
use super::metrics::CutLabels;
use super::offenders;
use super::rest::Lender;
use super::socket::{Handle, Protocol, Socket};
use super::stream::{StreamExchanges, Streams};
use super::wire::{Transport, Wire};
use super::{Config, Server};
use crate::body::Body;
use crate::net::respond::chain;
use crate::tasks::Tasks;

/// How much of a body hyper gathers before it waits for the socket. It takes another chunk of a file when less than this is
/// left of the last one, so this is how much more than one chunk a response holds in memory.
const BUFFER_BYTES: usize = 32 * 1024;

/// How much HTTP/2 holds of a stream that its client does not take.
const HTTP2_SEND_BYTES: usize = 128 * 1024;

/// How much a client may send, or be sent, ahead in HTTP/2; sized for 100 ms at 80 MB/s.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 8 << 20;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// How many lines of a head hyper takes unless it is told.
const HTTP1_MAX_HEADERS: usize = 100;

/// How many HTTP/2 streams a client may have reset before their requests were looked at (rapid reset, CVE-2023-44487), and
/// how many it may make us reset by its mistakes (CVE-2025-8671); one more, and the connection ends.
const HTTP2_EARLY_RESETS: usize = 20;
const HTTP2_MISTAKES: usize = 1024;

/// What a connection needs to know of its server.
#[derive(Debug)]
pub(super) struct Connection {
    /// Held as long as it is open.
    #[expect(dead_code, reason = "it is there to be dropped")]
    pub(super) permit: OwnedSemaphorePermit,
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

/// What it is time for.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// To cut the connection.
    Cut(Cut),
    /// To keep only its socket.
    Park,
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
        let is_offender = self.server.0.offenders.has(self.peer.ip());
        // What is needed only at the beginning is not kept beside the rest.
        let opening = Box::pin(open(
            Wire::new(stream, handle.clone()),
            handle.clone(),
            self.tls(is_offender),
        ));
        let deadline = Instant::now() + config.header_timeout;
        let opened = self
            .shutdown
            .run_until_cancelled(timeout_at(deadline, opening));
        let (mut socket, protocol) = match opened.await {
            None | Some(Ok(Ok(None))) => return,
            Some(Err(_elapsed)) => {
                let deadline = handle.note(|activity| activity.deadline(config));
                let cut = deadline.map_or(Cut::Silent, |(_, cut)| cut);
                return self.note(&End::Cut(cut));
            }
            Some(Ok(Err(error))) => return self.note(&End::Unopened(error)),
            Some(Ok(Ok(Some(opened)))) => opened,
        };
        if is_offender && protocol == Protocol::Http2 {
            // It fits in a socket that nothing was sent on.
            socket.write_all(offenders::REFUSAL).now_or_never();
            return self.note(&End::Cut(Cut::Offender));
        }
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
            Protocol::Http1 => self.serve_http1(socket, exchanges, &handle).await,
            Protocol::Http2 => {
                let streams = Streams {
                    tasks: self.tasks.clone(),
                    send_stall_timeout: config.send_stall_timeout,
                };
                let connection = http2_builder(config, streams)
                    .serve_connection(TokioIo::new(socket), StreamExchanges(exchanges));
                // Not within what every connection takes.
                let mut connection = Box::pin(connection);
                let watched = self.watch(connection.as_mut(), &handle, None).await;
                let end = watched.unwrap_or(End::Protocol(Ok(())));
                if let End::Protocol(Err(error)) = &end {
                    self.server.0.offenders.note(self.peer.ip(), error);
                }
                end
            }
        };
        self.note(&end);
    }

    fn tls(&self, is_offender: bool) -> Option<Arc<ServerConfig>> {
        let tls = self.server.0.tls.as_ref()?;
        Some(if is_offender {
            tls.http1_server()
        } else {
            tls.server()
        })
    }

    /// Answers one request after the other.
    async fn serve_http1<S, F>(
        &self,
        mut socket: Socket,
        exchanges: Exchanges<S>,
        handle: &Handle,
    ) -> End
    where
        S: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let config = &self.server.0.config;
        let builder = http1_builder(config);
        loop {
            let io = TokioIo::new(socket);
            let mut connection = builder.serve_connection(io, exchanges.clone());
            let watched = self.watch(Pin::new(&mut connection), handle, Some(config.park_after));
            if let Some(end) = watched.await {
                return end;
            }
            let parts = connection.into_parts();
            socket = parts.io.into_inner();
            socket.put_back(parts.read_buf);
            if let Some(end) = self.park(&mut socket, handle).await {
                return end;
            }
        }
    }

    /// Waits for the next request, unless the connection ends.
    async fn park(&self, socket: &mut Socket, handle: &Handle) -> Option<End> {
        let config = &self.server.0.config;
        self.server.0.metrics.connections_parked.inc();
        let mut sleep = pin!(sleep_until(Instant::now() + config.idle_timeout));
        tokio::select! {
            biased;
            next = socket.next_request() => match next {
                Ok(true) => None,
                // A client that goes while nothing is owed to it goes well.
                Ok(false) | Err(_) => Some(End::Protocol(Ok(()))),
            },
            due = poll_fn(|cx| poll_due(sleep.as_mut(), handle, config, None, cx)) => match due {
                Due::Cut(cut) => Some(End::Cut(cut)),
                Due::Park => None,
            },
            () = self.reset.cancelled() => Some(End::Reset),
            () = self.shutdown.cancelled() => {
                handle.update(Activity::draining);
                // What it says, TLS for one, fits in an idle socket.
                socket.shutdown().now_or_never();
                Some(End::Protocol(Ok(())))
            }
        }
    }

    /// Runs the connection to its end, or until it has been idle for as long as is said; what must not look like a clean end is marked before the socket can be dropped.
    async fn watch<C>(
        &self,
        mut connection: Pin<&mut C>,
        handle: &Handle,
        park_after: Option<Duration>,
    ) -> Option<End>
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let config = &self.server.0.config;
        let mut sleep = pin!(sleep_until(Instant::now() + config.header_timeout));
        let mut draining = false;
        let end = loop {
            // One that drains ends by itself.
            let park_after = park_after.filter(|_| !draining);
            tokio::select! {
                biased;
                end = connection.as_mut() => break End::Protocol(end),
                due = poll_fn(|cx| poll_due(sleep.as_mut(), handle, config, park_after, cx)) => match due {
                    Due::Cut(cut) => break End::Cut(cut),
                    Due::Park => return None,
                },
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
        Some(end)
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

/// Completes when nothing has happened for too long, or for so long that the connection can be parked.
///
/// The timer is moved only when the deadline came nearer, or when it fires too early: not for every request.
fn poll_due(
    mut sleep: Pin<&mut Sleep>,
    handle: &Handle,
    config: &Config,
    park_after: Option<Duration>,
    cx: &mut Context<'_>,
) -> Poll<Due> {
    let (deadline, now) = handle.update(|activity, now| {
        let cut = activity.deadline(config);
        let cut = cut.map(|(at, cut)| (at, Due::Cut(cut)));
        let idle = park_after.and_then(|after| Some(activity.idle_since()? + after));
        let park = idle.map(|at| (at, Due::Park));
        let deadlines = [cut, park].into_iter().flatten();
        (deadlines.min_by_key(|(at, _)| *at), now)
    });
    if let Some((at, due)) = deadline {
        // A client that keeps the connection busy must not outrun the timer.
        if at <= now {
            return Poll::Ready(due);
        }
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
        }
    }
    loop {
        ready!(sleep.as_mut().poll(cx));
        let now = Instant::now();
        match deadline {
            Some((at, due)) if at <= now => return Poll::Ready(due),
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
        .max_header_size(config.max_header_bytes)
        .max_buf_size(BUFFER_BYTES.max(config.max_header_bytes));
    // Said, it costs an allocation for each request, also when it is what hyper would do unsaid.
    if config.max_headers != HTTP1_MAX_HEADERS {
        builder.max_headers(config.max_headers);
    }
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
        .max_send_buf_size(HTTP2_SEND_BYTES)
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
