//! Asking for a blob: whether it is linked and how large it is, and for its bytes.
//!
//! Invariant: what comes is held to what was asked for: a size that can be believed, the very part of it, and no page.

use http::header::{HeaderValue, RANGE};
use http::{HeaderMap, StatusCode};
use outport_core::oci::digest::Digest;
use outport_core::oci::reference::RepoName;
use outport_core::oci::route::Fetch;
use tokio::time::Instant;

use super::answer::behind;
use super::health::Errand;
use super::sources::Patience;
use super::wire::{blob_route, content_length, header, is_page, partial_size, request};
use super::{About, IncomingBlob, Origin, OriginError, Span};

/// The largest blob that is believed in: 8 TiB, which file systems can still hold in a file.
const BLOB_BYTES_MAX: u64 = 8 << 40;

// === impl Origin ===

impl Origin {
    /// Asks whether a repository links a blob, and returns the blob's size.
    pub async fn blob_size(&self, repo: &RepoName, digest: &Digest) -> Result<u64, OriginError> {
        let errand = About::content(self.remote(repo)?).asked();
        self.in_question_time(&errand, self.told_size(&errand, digest))
            .await
    }

    async fn told_size(&self, errand: &Errand, digest: &Digest) -> Result<u64, OriginError> {
        let request = request(&blob_route(&errand.about.repo, digest, Fetch::Head))?;
        match self.answer(errand, request).await {
            // Where an upstream sends is often signed for GET alone.
            Err(OriginError::Sick(status))
                if status.is_client_error() && self.definition().is_some() =>
            {
                self.size_by_range(errand, digest).await
            }
            answer => content_length(answer?.headers()),
        }
    }

    /// Asks for the first byte of a blob, and returns the blob's size.
    async fn size_by_range(&self, errand: &Errand, digest: &Digest) -> Result<u64, OriginError> {
        let mut request = request(&blob_route(&errand.about.repo, digest, Fetch::Get))?;
        let range = HeaderValue::from_static("bytes=0-0");
        request.headers_mut().insert(RANGE, range);
        let response = self.answer(errand, request).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => partial_size(response.headers(), &Span::Within(0..1)),
            // Some know no ranges.
            StatusCode::OK if !is_page(response.headers()) => content_length(response.headers()),
            _ => Err(OriginError::Nonsense("neither the blob nor the part")),
        }
    }

    /// Fetches bytes of a blob; returns when the head of the answer is in, or is not in time, if that is bounded. A node is
    /// told so much beside the question.
    pub async fn blob(
        &self,
        repo: &RepoName,
        digest: &Digest,
        (span, patience): (Span, Patience),
        told: HeaderMap,
    ) -> Result<IncomingBlob, OriginError> {
        let errand = About::content(self.remote(repo)?).asked();
        let asking = Box::pin(self.fetch_blob(&errand, digest, span, told));
        match patience {
            Patience::Client => self.in_download_time(&errand, asking).await,
            Patience::Download => asking.await,
        }
    }

    async fn fetch_blob(
        &self,
        errand: &Errand,
        digest: &Digest,
        span: Span,
        told: HeaderMap,
    ) -> Result<IncomingBlob, OriginError> {
        let mut request = request(&blob_route(&errand.about.repo, digest, Fetch::Get))?;
        if self.definition().is_none() {
            request.headers_mut().extend(told);
        }
        let range = match &span {
            Span::From(0) => None,
            Span::From(from) | Span::Rest(from) => Some(format!("bytes={from}-")),
            Span::Within(range) => Some(format!("bytes={}-{}", range.start, range.end - 1)),
        };
        if let Some(range) = range {
            request.headers_mut().insert(RANGE, header(range)?);
        }
        let began = Instant::now();
        let response = self.answer(errand, request).await?;
        if self.definition().is_some() && is_page(response.headers()) {
            return Err(OriginError::Nonsense("a page instead of a blob"));
        }
        let size = match (&span, response.status()) {
            (Span::From(0), StatusCode::OK) => match content_length(response.headers()) {
                // In chunks, as some proxies pass them on.
                Err(_) if self.definition().is_some() => self.told_size(errand, digest).await?,
                told => told?,
            },
            (Span::Rest(_), StatusCode::OK) => content_length(response.headers())?,
            (_, StatusCode::PARTIAL_CONTENT) => partial_size(response.headers(), &span)?,
            _ => return Err(OriginError::Nonsense("neither the blob nor the part")),
        };
        if size > BLOB_BYTES_MAX {
            return Err(OriginError::Nonsense("a blob larger than any file"));
        }
        // The only blob whose end cannot be held back.
        if size == 0 && digest.algorithm().digest(b"") != *digest {
            return Err(OriginError::Nonsense("an empty blob of another digest"));
        }
        let is_whole = response.status() == StatusCode::OK;
        let answerer = response.extensions().get().cloned();
        let body = match &span {
            Span::Rest(from) if is_whole => behind(response.into_body(), *from),
            _ => response.into_body(),
        };
        Ok(IncomingBlob {
            size,
            body,
            round_trip: began.elapsed(),
            answerer,
        })
    }
}
