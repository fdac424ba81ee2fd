//! Which of several URLs gave an answer, so that it can be told when that turns out to be no good.
//!
//! What: an [`Answerer`] is among the extensions of a response, and watches its body: one that stalls or breaks off has that URL
//! tried last for longer than one that did not answer, whatever heads come from it meanwhile; and so has whoever finds the
//! bytes wrong, by [`Answerer::is_wrong`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::Client;
use crate::body::Body;

/// One of several URLs that are the same registry; cheap to clone.
#[derive(Clone, Debug)]
pub struct Answerer {
    client: Client,
    index: usize,
}

/// A body that tells when it breaks off.
struct Watched {
    body: Body,
    answerer: Answerer,
}

// === impl Answerer ===

impl Answerer {
    /// Returns the URL of a number; none when there is no other.
    pub(super) fn of(client: &Client, index: usize) -> Option<Self> {
        let client = client.clone();
        (client.inner.urls.len() > 1).then_some(Self { client, index })
    }

    /// Takes note that what it gave was wrong: it is tried last for a while.
    pub fn is_wrong(&self) {
        let Self { client, index } = self;
        tracing::info!(url = %client.inner.urls[*index], "no good answer, others are asked first");
        client.inner.avoid.lock().spoils(*index, Instant::now());
    }

    /// Returns a body of its answer that is watched.
    pub(super) fn watch(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::boxed(Watched {
            body,
            answerer: self.clone(),
        })
    }
}

impl PartialEq for Answerer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.client.inner, &other.client.inner) && self.index == other.index
    }
}

// === impl Watched ===

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.answerer.is_wrong();
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
