//! A reader of a blob that is still coming in, as the body of a response.
//!
//! Invariants: only bytes that the landing lets be read are given; the body ends cleanly only after its last byte. Failure: a
//! broken landing breaks the body off; when the disk gave out, the reader goes on by itself, straight from the source.
//! Cancellation: dropping the body stops this reader and nothing else.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use outport_core::body::{Body, BodyStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::attendance::Attendee;
use super::landing::{Landing, Position, State, Want};
use crate::source::through::Through;

/// How long a reader waits for its next byte before it says so: most come by themselves.
const PATIENCE: Duration = Duration::from_millis(100);

/// Returns the bytes of `range` as they come in; `through` is the way past the landing when it has to be given up, if there is
/// to be one.
pub fn follow(
    landing: Landing,
    through: Option<Through>,
    range: Range<u64>,
    attendee: Attendee,
) -> Body {
    let length = range.end - range.start;
    let follower = Follower {
        state: landing.state(),
        landing,
        through,
        range,
        piece: None,
        is_alone: false,
        patient_until: None,
        want: None,
        _attendee: attendee,
    };
    let pieces = stream::try_unfold(follower, async |mut follower: Follower| {
        let bytes = follower.next().await?;
        Ok(bytes.map(|bytes| (bytes, follower)))
    });
    Body::stream(pieces).with_exact_len(length)
}

struct Follower {
    landing: Landing,
    state: watch::Receiver<State>,
    through: Option<Through>,
    /// What is still to be given.
    range: Range<u64>,
    /// What is being read: a piece of the file, or all of the rest.
    piece: Option<BodyStream>,
    /// Whether the piece is all of the rest, straight from the source.
    is_alone: bool,
    /// Until when it waits for its next byte without saying so.
    patient_until: Option<Instant>,
    /// What it has said that it waits for.
    want: Option<Want>,
    _attendee: Attendee,
}

// === impl Follower ===

impl Follower {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.range.is_empty() {
            if let Some(bytes) = self.read_piece().await? {
                return Ok(Some(self.advance(bytes)));
            }
            // Before looking, so that what arrives after that wakes it up.
            let state = self.state.borrow_and_update().clone();
            if let Some(bytes) = self.landing.recent(self.range.start) {
                let rest = self.range.end - self.range.start;
                return Ok(Some(self.advance(head(bytes, rest))));
            }
            let readable = self.landing.readable(&self.range);
            if readable > self.range.start {
                self.read_file(self.range.start..readable);
                continue;
            }
            match state {
                State::Abandoned(position) => self.leave(*position).await?,
                State::Broken => return Err(broken()),
                State::Filling | State::Complete => self.wait().await?,
            }
        }
        Ok(None)
    }

    async fn wait(&mut self) -> io::Result<()> {
        if self.want.is_some() {
            return self.state.changed().await.or(Err(broken()));
        }
        // Of its own bytes: others may be coming in all the time.
        let until = *self
            .patient_until
            .get_or_insert_with(|| Instant::now() + PATIENCE);
        if let Ok(changed) = timeout_at(until, self.state.changed()).await {
            return changed.or(Err(broken()));
        }
        self.want = Some(self.landing.want(self.range.clone()));
        Ok(())
    }

    async fn read_piece(&mut self) -> io::Result<Option<Bytes>> {
        let Some(piece) = &mut self.piece else {
            return Ok(None);
        };
        let bytes = piece.try_next().await?;
        if bytes.is_none() {
            self.piece = None;
            if self.is_alone {
                return Err(broken());
            }
        }
        Ok(bytes)
    }

    fn read_file(&mut self, range: Range<u64>) {
        self.piece = Some(self.file(range).into_stream());
    }

    /// Returns bytes that have landed; in small chunks, as nobody knows what whoever sends them holds besides.
    fn file(&self, range: Range<u64>) -> Body {
        Body::file(Arc::clone(self.landing.file()), range).in_small_chunks()
    }

    /// Gives the landing up and goes on from where it stands.
    async fn leave(&mut self, position: Position) -> io::Result<()> {
        let through = self.through.as_ref().ok_or_else(broken)?;
        let written_to = position.offset.clamp(self.range.start, self.range.end);
        let before = self.file(self.range.start..written_to);
        let rest = through.resume(before, position, self.range.clone()).await?;
        self.piece = Some(rest.into_stream());
        self.is_alone = true;
        Ok(())
    }

    fn advance(&mut self, bytes: Bytes) -> Bytes {
        self.range.start += bytes.len() as u64;
        self.want = None;
        self.patient_until = None;
        bytes
    }
}

fn head(bytes: Bytes, length: u64) -> Bytes {
    match usize::try_from(length) {
        Ok(length) if length < bytes.len() => bytes.slice(..length),
        _ => bytes,
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the download broke off")
}
