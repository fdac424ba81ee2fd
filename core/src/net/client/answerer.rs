//! Which of several URLs gave an answer, so that it can be told when that turns out to be no good.
//!
//! What: an [`Answerer`] is among the extensions of a response, and watches its body: one that stalls or breaks off has that URL
//! tried last for longer than one that did not answer, whatever heads come from it meanwhile; and so has whoever finds the
//! bytes wrong, by [`Answerer::is_wrong`].

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use http_body::Body as _;
use tokio::time::Instant;

use super::Client;
use crate::body::Body;

/// One of several URLs that are the same registry; cheap to clone.
#[derive(Clone, Debug)]
pub struct Answerer {
    client: Client,
    index: usize,
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
        let (answerer, length) = (self.clone(), body.size_hint().exact());
        let watched = body.into_stream().inspect_err(move |_| answerer.is_wrong());
        let watched = Body::stream(watched);
        match length {
            Some(length) => watched.with_exact_len(length),
            None => watched,
        }
    }
}

impl PartialEq for Answerer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.client.inner, &other.client.inner) && self.index == other.index
    }
}
