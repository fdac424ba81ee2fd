//! A body that is held to a length.
//!
//! Invariant: it ends cleanly only after exactly that many bytes; whatever lies beyond is never passed on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::Body;

/// A body of a promised length.
#[derive(Debug)]
pub(super) struct Exact {
    body: Body,
    remaining: u64,
}

// === impl Exact ===

impl Exact {
    pub(super) const fn new(body: Body, length: u64) -> Self {
        Self {
            body,
            remaining: length,
        }
    }
}

impl HttpBody for Exact {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None if self.remaining == 0 => return Poll::Ready(None),
            None => {
                return Poll::Ready(Some(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("body ended {} bytes early", self.remaining),
                ))));
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => frame,
        };
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(remaining) = self.remaining.checked_sub(length) else {
            return Poll::Ready(Some(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "body is longer than promised",
            ))));
        };
        self.remaining = remaining;
        Poll::Ready(Some(Ok(frame)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
