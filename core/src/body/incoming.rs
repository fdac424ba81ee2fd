//! What a peer sends, with a bound on how long it may send nothing.
//!
//! Invariant: the clock runs only while we wait for the peer, never while it waits for us. Failure: a stall is an error of
//! kind `TimedOut`, a connection that died early one of kind `UnexpectedEof`; both drop what is left of the body.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

/// A peer's body.
#[derive(Debug)]
pub(super) struct IncomingBody {
    body: Incoming,
    stall_timeout: Duration,
    stall: Option<Pin<Box<Sleep>>>,
    /// Whether the peer was waited for when the body was last asked, so that the clock runs.
    waiting: bool,
}

// === impl IncomingBody ===

impl IncomingBody {
    pub(super) const fn new(body: Incoming, stall_timeout: Duration) -> Self {
        Self {
            body,
            stall_timeout,
            stall: None,
            waiting: false,
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.waiting = false;
                Poll::Ready(frame.map(|frame| frame.map_err(broken)))
            }
            Poll::Pending => self.poll_stall(cx).map(|error| Some(Err(error))),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let stall_timeout = self.stall_timeout;
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(sleep(stall_timeout)));
        if !self.waiting {
            self.waiting = true;
            stall.as_mut().reset(Instant::now() + stall_timeout);
        }
        stall.as_mut().poll(cx).map(|()| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("peer sent nothing for {stall_timeout:?}"),
            )
        })
    }
}

/// Keeps apart what callers tell apart: a peer that went away, and anything else.
fn broken(error: hyper::Error) -> io::Error {
    let io_kind = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    let kind = match io_kind {
        Some(kind) => kind,
        None if error.is_incomplete_message() => io::ErrorKind::UnexpectedEof,
        None if error.is_timeout() => io::ErrorKind::TimedOut,
        None => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
