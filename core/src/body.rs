//! A body, of a request or a response, whatever it is made of.
//!
//! What: one concrete type for all bodies we take and send, so that the common ones (none, a few bytes, a file, what a
//! peer sends) cost no allocation and no dynamic call.
//!
//! Invariants: a body whose length is known ends cleanly only after exactly that many bytes; everything else ends with an
//! error, which the server turns into a reset connection. Nothing proportional to a body's length is in memory.
//!
//! Failure: an error is the last item. Cancellation: dropping a body drops its source; a disk read that is under way on
//! the blocking pool finishes there and is thrown away.

mod exact;
mod file;
mod incoming;
pub mod room;

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use exact::Exact;
use file::FileBody;
use incoming::IncomingBody;

use crate::store::disk::Seal;

/// The body of a request or a response.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    /// Nothing, or bytes that are in memory.
    Bytes(Option<Bytes>),
    /// A range of an open file.
    File(FileBody),
    /// What a peer sends.
    Incoming(IncomingBody),
    /// Anything else.
    Boxed(UnsyncBoxBody<Bytes, io::Error>),
}

/// The data of a body as a stream; trailers are left out.
#[derive(Debug)]
pub struct BodyStream(Body);

/// A body could not be held in memory.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// It is longer than the limit.
    #[error("body is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// It broke off.
    #[error("read the body")]
    Broken(#[source] io::Error),
}

/// Adapts a stream of bytes.
struct FromStream<S>(S);

/// A body and what lives as long as it.
struct Holding<T> {
    body: Body,
    #[expect(dead_code, reason = "held to be dropped")]
    held: T,
}

// === impl Body ===

impl Body {
    /// Returns a body of no bytes.
    pub const fn empty() -> Self {
        Self(Kind::Bytes(None))
    }

    /// Wraps any other body.
    pub fn boxed(body: impl HttpBody<Data = Bytes, Error = io::Error> + Send + 'static) -> Self {
        Self(Kind::Boxed(UnsyncBoxBody::new(body)))
    }

    /// Returns the bytes of `range` of an open file, which is not to change below it; a file that turns out shorter breaks
    /// the body off.
    pub fn file(file: impl Into<Arc<std::fs::File>>, range: Range<u64>) -> Self {
        if range.is_empty() {
            return Self::empty();
        }
        Self(Kind::File(FileBody::new(file.into(), range)))
    }

    /// Has a file read in smaller chunks, for a way that holds as much of it again.
    #[must_use]
    pub fn in_small_chunks(mut self) -> Self {
        if let Kind::File(body) = &mut self.0 {
            body.in_small_chunks();
        }
        self
    }

    /// Has something done when a file cannot be read to the end of its range.
    #[must_use]
    pub fn on_failure(mut self, tell: impl FnOnce() + Send + 'static) -> Self {
        if let Kind::File(body) = &mut self.0 {
            body.on_failure(Box::new(tell));
        }
        self
    }

    /// Has a sealed file that is not read at once looked at before the last of its bytes are given: what was written to
    /// meanwhile breaks off.
    #[must_use]
    pub fn as_long_as(mut self, seal: Seal) -> Self {
        if let Kind::File(body) = &mut self.0 {
            body.as_long_as(seal);
        }
        self
    }

    /// Returns what a peer sends, broken off when it sends nothing for as long as `stall_timeout`.
    pub fn incoming(body: hyper::body::Incoming, stall_timeout: Duration) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self(Kind::Incoming(IncomingBody::new(body, stall_timeout)))
    }

    /// Returns the bytes of a stream, whose length nobody knows.
    pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::boxed(FromStream(Box::pin(stream)))
    }

    /// Returns a body of a known length that is made when its first byte is wanted.
    pub fn later(length: u64, make: impl FnOnce() -> Self + Send + 'static) -> Self {
        let making = futures_util::stream::once(async { make() });
        Self::stream(making.flat_map(Self::into_stream)).with_exact_len(length)
    }

    /// Returns the bytes of one body after another; its length is known when theirs are.
    pub fn chain(bodies: Vec<Self>) -> Self {
        let length = bodies
            .iter()
            .map(|body| body.size_hint().exact())
            .sum::<Option<u64>>();
        let chained = Self::stream(futures_util::stream::iter(bodies).flat_map(Self::into_stream));
        match length {
            Some(length) => chained.with_exact_len(length),
            None => chained,
        }
    }

    /// Holds the body to a length: fewer or more bytes break it off.
    #[must_use]
    pub fn with_exact_len(self, length: u64) -> Self {
        if self.size_hint().exact() == Some(length) {
            return self;
        }
        Self::boxed(Exact::new(self, length))
    }

    /// Keeps something for as long as the body lives.
    #[must_use]
    pub fn holding(self, held: impl Send + Unpin + 'static) -> Self {
        if self.is_end_stream() {
            return self;
        }
        Self::boxed(Holding { body: self, held })
    }

    /// Returns the data as a stream.
    pub const fn into_stream(self) -> BodyStream {
        BodyStream(self)
    }

    /// Reads the whole body, which may be no longer than `limit_bytes`; one that declares more is refused unread.
    pub async fn collect_limited(self, limit_bytes: u64) -> Result<Bytes, CollectError> {
        let too_large = CollectError::TooLarge { limit_bytes };
        let hint = self.size_hint();
        if hint.lower() > limit_bytes {
            return Err(too_large);
        }
        if let Self(Kind::Bytes(bytes)) = self {
            return Ok(bytes.unwrap_or_default());
        }
        let mut stream = self.into_stream();
        let mut collected = BytesMut::new();
        while let Some(bytes) = stream.try_next().await.map_err(CollectError::Broken)? {
            if collected.len() as u64 + bytes.len() as u64 > limit_bytes {
                return Err(too_large);
            }
            if hint.exact() == Some(bytes.len() as u64) {
                // The common small body comes in one piece: it is passed on as it is. In HTTP/2 an empty one may end it.
                while let Some(rest) = stream.try_next().await.map_err(CollectError::Broken)? {
                    if !rest.is_empty() {
                        return Err(too_large);
                    }
                }
                return Ok(bytes);
            }
            collected.extend_from_slice(&bytes);
        }
        Ok(collected.freeze())
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Bytes((!bytes.is_empty()).then_some(bytes)))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.0 {
            Kind::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::File(body) => body.poll_data(cx).map_ok(Frame::data),
            Kind::Incoming(body) => body.poll_frame(cx),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.is_none(),
            Kind::File(body) => body.remaining() == 0,
            Kind::Incoming(body) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Bytes(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::File(body) => SizeHint::with_exact(body.remaining()),
            Kind::Incoming(body) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

// === impl BodyStream ===

impl Stream for BodyStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
            }
        }
    }
}

// === impl FromStream ===

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> HttpBody for FromStream<S> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_next_unpin(cx).map_ok(Frame::data)
    }
}

// === impl Holding ===

impl<T: Unpin> HttpBody for Holding<T> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
