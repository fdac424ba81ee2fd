//! What a handler leaves unread of the body of an HTTP/1.1 request.
//!
//! What: lends a body to the handler and takes back what is left of it when the handler drops it. A short rest is read
//! beside the response, so that the connection is there for the next request; after any other the response says that the
//! connection ends, and it lingers.
//!
//! Invariants: hyper never closes a connection that the response before has called open. A rest is read only when it is on
//! its way for certain: a client that asked first (`Expect: 100-continue`) is neither told to go on nor waited for.
//!
//! Failure: a rest that does not come in time ends the connection, as a longer one does. Cancellation: a server that is to
//! end stops reading.
//!
//! Why not before the response: a client may wait for it before it sends the rest, as one does that passes on what it gets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::request::Parts;
use http::{Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::socket::Handle;
use crate::body::{Body, BodyStream};
use crate::tasks::Tasks;

/// The longest rest that is read for the sake of the connection.
const SHORT_BYTES: u64 = 64 * 1024;

/// Lends the bodies of a connection's requests.
#[derive(Clone, Debug)]
pub(super) struct Lender {
    pub(super) handle: Handle,
    pub(super) tasks: Tasks,
    pub(super) shutdown: CancellationToken,
    /// How long a rest may take.
    pub(super) timeout: Duration,
}

/// A body that is with the handler.
#[derive(Debug)]
pub(super) struct Lent {
    lender: Lender,
    asked_first: bool,
    back: oneshot::Receiver<Option<Body>>,
}

/// A body as the handler has it.
#[derive(Debug)]
struct Borrowed {
    body: Body,
    /// Where it goes back to, unless it was read to its end; none goes back of one that broke off.
    back: Option<oneshot::Sender<Option<Body>>>,
}

// === impl Lender ===

impl Lender {
    /// Lends a request's body to the handler.
    pub(super) fn lend(&self, head: &Parts, body: Body) -> (Body, Option<Lent>) {
        // The streams of HTTP/2 end each by itself.
        if body.is_end_stream() || head.version == Version::HTTP_2 {
            return (body, None);
        }
        let (sender, back) = oneshot::channel();
        let borrowed = Borrowed {
            body,
            back: Some(sender),
        };
        let lent = Lent {
            lender: self.clone(),
            asked_first: head.headers.contains_key(EXPECT),
            back,
        };
        (Body::boxed(borrowed), Some(lent))
    }

    /// Reads a rest to its end, beside the response.
    fn read(self, rest: Body) {
        self.handle.note(Activity::rest_started);
        let tasks = self.tasks.clone();
        drop(tasks.spawn("rest", async move {
            let mut rest = rest.into_stream();
            let reading = timeout(self.timeout, read_to_end(&mut rest));
            let read = self.shutdown.run_until_cancelled(reading).await;
            // Before the rest is dropped, which ends the connection unless that was all of it.
            self.handle.update(|activity, now| {
                if !matches!(read, Some(Ok(Ok(())))) {
                    activity.left_unread();
                }
                activity.request_finished(now);
            });
        }));
    }
}

// === impl Lent ===

impl Lent {
    /// Does what is to be done about what is left, now that there is a response.
    pub(super) fn settle(mut self, response: &mut Response<Body>) {
        match self.back.try_recv() {
            Err(TryRecvError::Closed) => {}
            Ok(Some(rest)) if !self.asked_first && is_short(&rest) => self.lender.read(rest),
            // Whoever keeps a body beyond the response reads as much of it as it likes.
            Ok(_) | Err(TryRecvError::Empty) => {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
                let handle = &self.lender.handle;
                handle.note(Activity::left_unread);
            }
        }
    }
}

async fn read_to_end(rest: &mut BodyStream) -> io::Result<()> {
    while let Some(read) = rest.next().await {
        drop(read?);
    }
    Ok(())
}

fn is_short(body: &Body) -> bool {
    let length = body.size_hint().exact();
    length.is_some_and(|length| length <= SHORT_BYTES)
}

// === impl Borrowed ===

impl Borrowed {
    fn give_back(&mut self, rest: Option<Body>) {
        if let Some(back) = self.back.take() {
            // Nobody waits for it any more once there is a response.
            drop(back.send(rest));
        }
    }
}

impl HttpBody for Borrowed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Err(_))) => self.give_back(None),
            Poll::Ready(None) => self.back = None,
            _ if self.body.is_end_stream() => self.back = None,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let rest = std::mem::take(&mut self.body);
        self.give_back(Some(rest));
    }
}
