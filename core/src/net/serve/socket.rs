//! A connection's socket, as hyper sees it.
//!
//! What: tells the connection's [`Activity`] what comes, gives back the bytes that were read to find out the protocol,
//! replaces the empty error replies that hyper makes up by itself (a head that is too large or malformed) by ours, and
//! lingers after a response that came before its request had been read (RFC 9112 section 9.6): our half is closed, and what
//! the client still sends is thrown away, until it closes its half or the watch has enough.
//!
//! Invariant: hyper's own replies are told apart by the fact that no handler's response is owed, never by their bytes.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::activity::Activity;
use super::wire::Transport;
use crate::net::respond::hand_written_error;
use crate::oci::error::{ApiError, ErrorCode};

/// How an HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read to find out that a request comes.
const FIRST_BYTES: usize = 64;

/// How much is thrown away at a time.
const DISCARD_BYTES: usize = 16 * 1024;

/// The socket of a connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Transport,
    handle: Handle,
    /// What was read before hyper was asked to.
    read_ahead: Bytes,
    /// What is sent instead of a reply of hyper's.
    reply: Bytes,
}

/// What a connection and its requests share of the socket.
#[derive(Clone, Debug)]
pub(super) struct Handle(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    activity: Activity,
    reset_on_drop: bool,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

// === impl Socket ===

impl Socket {
    pub(super) const fn new(stream: Transport, handle: Handle) -> Self {
        Self {
            stream,
            handle,
            read_ahead: Bytes::new(),
            reply: Bytes::new(),
        }
    }

    /// Reads until it is known what the client speaks; none when it sends nothing at all.
    pub(super) async fn protocol(&mut self) -> io::Result<Option<Protocol>> {
        let mut read = BytesMut::with_capacity(PREFACE.len());
        let protocol = loop {
            let mut rest = (&mut self.stream).take((PREFACE.len() - read.len()) as u64);
            if rest.read_buf(&mut read).await? == 0 {
                if read.is_empty() {
                    return Ok(None);
                }
                break Protocol::Http1;
            }
            self.handle.update(Activity::received);
            if !PREFACE.starts_with(&read) {
                break Protocol::Http1;
            }
            if read.len() == PREFACE.len() {
                self.handle.update(Activity::is_http2);
                break Protocol::Http2;
            }
        };
        self.read_ahead = read.freeze();
        Ok(Some(protocol))
    }

    /// Gives back what hyper has read and not looked at.
    pub(super) fn put_back(&mut self, read: Bytes) {
        if !read.is_empty() {
            debug_assert!(
                self.read_ahead.is_empty(),
                "what is read ahead is read first"
            );
            self.read_ahead = read;
        }
    }

    /// Waits for the first bytes of the next request; says whether there are any before the client closes its half.
    pub(super) async fn next_request(&mut self) -> io::Result<bool> {
        if self.read_ahead.is_empty() {
            let mut read = [0; FIRST_BYTES];
            let length = self.stream.read(&mut read).await?;
            self.read_ahead = Bytes::copy_from_slice(&read[..length]);
        }
        if self.read_ahead.is_empty() {
            return Ok(false);
        }
        self.handle.update(Activity::received);
        Ok(true)
    }

    fn owes_response(&self) -> bool {
        self.handle.0.lock().activity.owes_response()
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.reply.has_remaining() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.reply))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.reply.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Answers a request that hyper could make nothing of; what comes behind it nobody reads.
    fn reply_instead(&mut self, hypers: &[u8]) {
        self.handle.note(Activity::left_unread);
        self.reply = own_reply(hypers);
    }

    /// Throws away what the client sends, until it ends.
    ///
    /// The runtime interrupts this when it has gone on for a while, so that the watch can hold it to its bounds.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [MaybeUninit::uninit(); DISCARD_BYTES];
        loop {
            let mut discarded = ReadBuf::uninit(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut discarded));
            let length = discarded.filled().len();
            if read.is_err() || length == 0 {
                return Poll::Ready(());
            }
            self.handle.note(|activity| activity.discarded(length));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ahead.has_remaining() {
            let length = self.read_ahead.len().min(buf.remaining());
            buf.put_slice(&self.read_ahead.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.handle.update(Activity::received);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.owes_response() {
            self.reply_instead(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.owes_response() {
            self.reply_instead(slices.first().map_or(&[], |slice| slice));
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_reply(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.handle.note(Activity::flushed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_reply(cx))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        if self.handle.update(Activity::linger) {
            ready!(self.poll_discard(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// Returns our reply in place of one that hyper made up, of which only the status is kept.
fn own_reply(hypers: &[u8]) -> Bytes {
    let error = match hypers.get(b"HTTP/1.1 ".len()..b"HTTP/1.1 ".len() + 3) {
        Some(b"414") => {
            ApiError::new(ErrorCode::UriTooLong).with_message("the request's address is too long")
        }
        Some(b"431") => ErrorCode::HeaderTooLarge.into(),
        _ => ErrorCode::BadRequest.into(),
    };
    hand_written_error(&error)
}

// === impl Handle ===

impl Handle {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            activity: Activity::new(Instant::now()),
            reset_on_drop: false,
        })))
    }

    /// Notes something whose time does not matter.
    pub(super) fn note<T>(&self, note: impl FnOnce(&mut Activity) -> T) -> T {
        note(&mut self.0.lock().activity)
    }

    /// Notes something that happens now.
    pub(super) fn update<T>(&self, update: impl FnOnce(&mut Activity, Instant) -> T) -> T {
        update(&mut self.0.lock().activity, Instant::now())
    }

    /// Makes the client see a broken connection instead of a clean end.
    pub(super) fn reset_on_drop(&self) {
        self.0.lock().reset_on_drop = true;
    }

    pub(super) fn is_to_reset(&self) -> bool {
        self.0.lock().reset_on_drop
    }
}
