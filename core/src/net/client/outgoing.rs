//! A request's body on its way out.
//!
//! What: the body waits in a [`Transfer`] until hyper first asks for it through a [`Lease`]; until then the request can be
//! sent elsewhere. From then on the transfer knows whose turn it is, which decides what a silence means: no bytes from our
//! own source are that source's matter, bytes that are not taken and an answer that does not come are the registry's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Config;
use crate::body::Body;

/// A body that is to be sent once.
#[derive(Clone, Debug)]
pub(super) struct Transfer(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Until it is first asked for.
    untouched: Option<Body>,
    turn: Turn,
    /// When it became that one's turn, or last moved on.
    since: Instant,
    failure: Option<io::Error>,
}

/// Who has to do something next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The registry: to be connected to, and to answer if there is no body.
    Start,
    /// The body's source.
    Source,
    /// The registry: to take more of the body.
    Take,
    /// The registry: to answer.
    Answer,
}

/// The body as hyper sees it.
#[derive(Debug)]
pub(super) struct Lease {
    transfer: Transfer,
    body: Option<Body>,
    /// What is known before it is first asked for.
    hint: SizeHint,
    is_empty: bool,
}

// === impl Transfer ===

impl Transfer {
    pub(super) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(State {
            untouched: Some(body),
            turn: Turn::Start,
            since: Instant::now(),
            failure: None,
        })))
    }

    /// Returns the body for an attempt; the clock begins anew.
    pub(super) fn lease(&self) -> Lease {
        let mut state = self.0.lock();
        state.since = Instant::now();
        let (hint, is_empty) = match &state.untouched {
            Some(body) => (body.size_hint(), body.is_end_stream()),
            None => (SizeHint::default(), false),
        };
        Lease {
            transfer: self.clone(),
            body: None,
            hint,
            is_empty,
        }
    }

    /// Whether nothing of the body has been asked for.
    pub(super) fn is_untouched(&self) -> bool {
        self.0.lock().untouched.is_some()
    }

    /// Returns why the body's source broke off, if it did.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.0.lock().failure.take()
    }

    /// Returns until when something has to happen, and the bound that this comes from.
    pub(super) fn deadline(&self, config: &Config) -> (Instant, Duration) {
        let state = self.0.lock();
        let after = match state.turn {
            Turn::Start => config.connect_timeout + config.header_timeout,
            Turn::Take => config.stall_timeout,
            Turn::Answer => config.header_timeout,
            // The source has bounds of its own: look again later.
            Turn::Source => return (Instant::now() + config.stall_timeout, config.stall_timeout),
        };
        (state.since + after, after)
    }

    fn turn(&self, turn: Turn) {
        let mut state = self.0.lock();
        state.turn = turn;
        state.since = Instant::now();
    }
}

// === impl Lease ===

impl HttpBody for Lease {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.body.is_none() {
            this.body = this.transfer.0.lock().untouched.take();
        }
        let Some(body) = &mut this.body else {
            let error = io::Error::other("body was handed to another attempt");
            return Poll::Ready(Some(Err(error)));
        };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        let is_end = body.is_end_stream();
        if polled.is_pending() {
            this.transfer.turn(Turn::Source);
        }
        Poll::Ready(match ready!(polled) {
            None => {
                this.transfer.turn(Turn::Answer);
                None
            }
            Some(Ok(frame)) => {
                let turn = if is_end { Turn::Answer } else { Turn::Take };
                this.transfer.turn(turn);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                // hyper gets an error to break off with, the caller the one that tells why.
                let kind = error.kind();
                this.transfer.0.lock().failure = Some(error);
                Some(Err(kind.into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body
            .as_ref()
            .map_or(self.is_empty, HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(self.hint, HttpBody::size_hint)
    }
}
