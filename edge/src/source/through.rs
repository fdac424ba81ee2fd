//! The way past the cache: a blob straight from its source to one reader.
//!
//! What: what is left when the cache disk takes nothing. Each reader has its own transfer.
//!
//! Invariants: a reader that gets the end of the blob gets it only after all bytes from the first hashed to the digest, as with a
//! download; the bytes before them are passed on at once. A part that lies before the end cannot be hashed without the
//! rest, so it is held to its length only, and its reader hashes the whole.
//!
//! Failure: the body breaks off; nothing is resumed here.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use outport_core::body::{Body, BodyStream};
use outport_core::oci::digest::{Digest, Hasher};
use outport_core::oci::reference::RepoName;

use super::sources::{Patience, Question, Reach, Sources};
use super::{OriginError, Span};
use crate::download::landing::{HELD_BACK_BYTES, Position};

/// A blob of a repository, and where to have it from.
#[derive(Clone, Debug)]
pub struct Through {
    /// Where to have it from.
    pub sources: Sources,
    /// Who of them may be asked.
    pub reach: Reach,
    /// The repository.
    pub repo: RepoName,
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Hashes what goes by and holds the end back.
struct Verifier {
    body: BodyStream,
    digest: Digest,
    size: u64,
    /// Has seen all bytes before `position.offset`.
    position: Position,
    /// Where the next bytes of the body lie.
    offset: u64,
    /// Bytes before this are hashed and not given.
    wanted_from: u64,
    held: VecDeque<Bytes>,
    held_bytes: u64,
    is_verified: bool,
}

// === impl Through ===

impl Through {
    /// Returns the bytes of `range`; the source is asked when the body is first read.
    pub fn body(self, range: Range<u64>) -> Body {
        let length = range.end - range.start;
        let start = async move {
            let position = Position {
                offset: 0,
                hasher: Hasher::new(self.digest.algorithm()),
            };
            let body = self.resume(Body::empty(), position, range).await?;
            Ok::<_, io::Error>(body.into_stream())
        };
        Body::stream(stream::once(start).try_flatten()).with_exact_len(length)
    }

    /// Returns the bytes of `range`, of which `before` are the first ones, up to `position`, if that lies within.
    pub async fn resume(
        &self,
        before: Body,
        position: Position,
        range: Range<u64>,
    ) -> io::Result<Body> {
        if range.end < self.size {
            let from = range.start.max(position.offset).min(range.end);
            let rest = self.fetch(Span::Within(from..range.end)).await?;
            return Ok(Body::chain(vec![before, rest]));
        }
        let offset = range.start.min(position.offset);
        let rest = self.fetch(Span::From(position.offset)).await?;
        let verifier = Verifier {
            body: Body::chain(vec![before, rest]).into_stream(),
            digest: self.digest,
            size: self.size,
            position,
            offset,
            wanted_from: range.start,
            held: VecDeque::new(),
            held_bytes: 0,
            is_verified: false,
        };
        Ok(Body::stream(stream::try_unfold(
            verifier,
            async |mut verifier: Verifier| {
                let bytes = verifier.next().await?;
                Ok(bytes.map(|bytes| (bytes, verifier)))
            },
        )))
    }

    async fn fetch(&self, span: Span) -> io::Result<Body> {
        if let Span::Within(range) = &span
            && range.is_empty()
        {
            return Ok(Body::empty());
        }
        let question = Question {
            repo: &self.repo,
            digest: &self.digest,
            span,
            reach: self.reach,
            patience: Patience::Download,
        };
        let (blob, _) = self
            .sources
            .blob(question)
            .await
            .map_err(io::Error::other)?;
        if blob.size != self.size {
            return Err(io::Error::other(OriginError::Nonsense(
                "the blob changed its size",
            )));
        }
        Ok(blob.body)
    }
}

// === impl Verifier ===

impl Verifier {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(front) = self.held.front()
                && (self.is_verified || self.held_bytes - front.len() as u64 >= HELD_BACK_BYTES)
            {
                self.held_bytes -= front.len() as u64;
                return Ok(self.held.pop_front());
            }
            if self.is_verified {
                return Ok(None);
            }
            match self.body.try_next().await? {
                Some(bytes) => self.take(&bytes),
                None => self.verify()?,
            }
        }
    }

    fn take(&mut self, bytes: &Bytes) {
        let start = self.offset;
        self.offset += bytes.len() as u64;
        if start >= self.position.offset {
            self.position.hasher.update(bytes);
            self.position.offset = self.offset;
        }
        let skip = self.wanted_from.saturating_sub(start);
        let wanted = match usize::try_from(skip) {
            Ok(skip) if skip < bytes.len() => bytes.slice(skip..),
            _ => return,
        };
        self.held_bytes += wanted.len() as u64;
        self.held.push_back(wanted);
    }

    fn verify(&mut self) -> io::Result<()> {
        let actual = self.position.hasher.clone().finish();
        if actual != self.digest || self.position.offset != self.size {
            return Err(io::Error::other(OriginError::Nonsense(
                "the blob does not hash to its digest",
            )));
        }
        self.is_verified = true;
        Ok(())
    }
}
