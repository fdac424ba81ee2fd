//! The streams of an HTTP/2 connection, and what becomes of one whose client takes nothing of it.
//!
//! What: such a connection's socket is busy with pings and other streams whatever becomes of one. So the pieces of a
//! response say themselves when they are written to it, and the stream's task watches them: a stream of which nothing was
//! written for too long, while there was something to write, is reset, and no other.
//!
//! Invariants: a stream's task lives until the last byte of its response was written; as long as it waits for its handler
//! or for a body's source, no clock runs. Cancellation: a stream that is reset, by either side, drops its body and with it
//! the body's source.
//!
//! Why the end of a stream is not sent with its last piece: the task would end with it, and h2 hold the piece until the
//! client's window opens, where nobody can reset it.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::TryFutureExt as _;
use futures_util::future::MapOk;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::exchange::{Exchanges, SentBody};
use crate::tasks::Tasks;

tokio::task_local! {
    /// What the stream that the task serves has under way; hyper has no other place to leave it.
    static SENDING: Sending;
}

/// Spawns the streams of a connection, each with a watch.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    pub(super) tasks: Tasks,
    pub(super) send_stall_timeout: Duration,
}

/// The requests of a connection, answered with bodies that say what became of them.
#[derive(Debug)]
pub(super) struct StreamExchanges<S>(pub(super) Exchanges<S>);

/// A response's body that ends when all of it was written.
#[derive(Debug)]
pub(super) struct StreamBody {
    body: SentBody,
    sending: Sending,
    /// Whether the body has no more.
    is_exhausted: bool,
}

/// A piece of a body, on its way.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    sending: Sending,
}

/// What a stream has on its way.
#[derive(Clone, Debug, Default)]
struct Sending(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    unsent_bytes: usize,
    /// Since when nothing was written, while there is something to write.
    waiting_since: Option<Instant>,
    is_stalled: bool,
    /// Woken when all is written.
    end: Option<Waker>,
}

// === impl Streams ===

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (sending, send_stall_timeout) = (Sending::default(), self.send_stall_timeout);
        let stream = SENDING.scope(sending.clone(), stream);
        drop(self.tasks.spawn("stream", async move {
            tokio::select! {
                biased;
                () = stream => {}
                // Dropped by its task, h2 resets it.
                () = sending.stalled(send_stall_timeout) => {}
            }
        }));
    }
}

// === impl StreamExchanges ===

impl<S> Service<Request<Incoming>> for StreamExchanges<S>
where
    Exchanges<S>: Service<Request<Incoming>, Response = Response<SentBody>, Error = Infallible>,
{
    type Response = Response<StreamBody>;
    type Error = Infallible;
    type Future = MapOk<
        <Exchanges<S> as Service<Request<Incoming>>>::Future,
        fn(Response<SentBody>) -> Response<StreamBody>,
    >;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.0
            .call(request)
            .map_ok(|response| response.map(StreamBody::new))
    }
}

// === impl StreamBody ===

impl StreamBody {
    fn new(body: SentBody) -> Self {
        Self {
            body,
            sending: SENDING.try_with(Sending::clone).unwrap_or_default(),
            is_exhausted: false,
        }
    }
}

impl HttpBody for StreamBody {
    type Data = Piece;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, io::Error>>> {
        let this = &mut *self;
        if !this.is_exhausted
            && let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx))
        {
            this.is_exhausted = this.body.is_end_stream();
            let frame = frame.map(|frame| frame.map_data(|bytes| this.sending.piece(bytes)));
            return Poll::Ready(Some(frame));
        }
        this.is_exhausted = true;
        this.sending.poll_sent(cx).map(|()| None)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.sending.is_sent()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if self.sending.0.lock().is_stalled {
            self.body.stalled();
        }
    }
}

// === impl Piece ===

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.sending.written(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.sending.written(self.bytes.len());
    }
}

// === impl Sending ===

impl Sending {
    /// Puts bytes on their way.
    fn piece(&self, bytes: Bytes) -> Piece {
        let mut state = self.0.lock();
        state.unsent_bytes += bytes.len();
        if !bytes.is_empty() {
            state.waiting_since.get_or_insert_with(Instant::now);
        }
        drop(state);
        let sending = self.clone();
        Piece { bytes, sending }
    }

    /// Bytes were written, or given up.
    fn written(&self, count: usize) {
        if count == 0 {
            return;
        }
        let mut state = self.0.lock();
        state.unsent_bytes -= count;
        state.waiting_since = (state.unsent_bytes > 0).then(Instant::now);
        let end = if state.unsent_bytes == 0 {
            state.end.take()
        } else {
            None
        };
        drop(state);
        if let Some(end) = end {
            end.wake();
        }
    }

    fn is_sent(&self) -> bool {
        self.0.lock().unsent_bytes == 0
    }

    fn poll_sent(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.unsent_bytes == 0 {
            return Poll::Ready(());
        }
        state.end = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Completes when there has been something to write for `timeout` and nothing of it was written.
    async fn stalled(&self, timeout: Duration) {
        loop {
            let now = Instant::now();
            let waiting_since = self.0.lock().waiting_since;
            if waiting_since.is_some_and(|since| since + timeout <= now) {
                self.0.lock().is_stalled = true;
                return;
            }
            sleep_until(waiting_since.unwrap_or(now) + timeout).await;
        }
    }
}
