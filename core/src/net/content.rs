//! The answer to a request for content that is here: whole, in parts, or not at all, as its conditions say.
//!
//! What: [`Content::plan`] decides by the request's headers, the caller opens the ranges of the [`Plan`] its own way, and
//! [`Plan::response`] puts the answer together.

use std::ops::Range;
use std::slice;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
};
use http::{HeaderMap, Response, StatusCode};

use crate::body::Body;
use crate::net::respond::{DOCKER_CONTENT_DIGEST, error_response};
use crate::oci::digest::Digest;
use crate::oci::error::ErrorCode;
use crate::oci::multipart::Multipart;
use crate::oci::range::{Selection, content_range, etag, select, unsatisfied_range};
use crate::oci::route::Fetch;

/// What is known of content before it is read.
#[derive(Clone, Debug)]
pub struct Content {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its type.
    pub content_type: HeaderValue,
}

/// What a request for content is going to be answered with.
#[derive(Clone, Debug)]
pub struct Plan {
    content: Content,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The headers of a 200 without its body, for HEAD.
    Head,
    /// The range is all of it.
    Full(Range<u64>),
    Part(Range<u64>),
    Parts(Multipart),
    NotModified,
    PreconditionFailed,
    Unsatisfiable,
}

/// How many headers an answer has room for without another allocation: ours, and what is put upon it on its way out.
const HEADERS: usize = 12;

// === impl Content ===

impl Content {
    /// Decides what to answer a request with `headers` with.
    pub fn plan(self, headers: &HeaderMap, fetch: Fetch) -> Plan {
        let kind = match (select(headers, fetch, &self.digest, self.size), fetch) {
            (Selection::Full, Fetch::Get) => Kind::Full(0..self.size),
            (Selection::Full | Selection::Part(_) | Selection::Parts(_), Fetch::Head) => Kind::Head,
            (Selection::Part(part), Fetch::Get) => Kind::Part(part),
            (Selection::Parts(parts), Fetch::Get) => {
                Kind::Parts(Multipart::new(&self.digest, self.size, parts))
            }
            (Selection::NotModified, _) => Kind::NotModified,
            (Selection::PreconditionFailed, _) => Kind::PreconditionFailed,
            (Selection::Unsatisfiable, _) => Kind::Unsatisfiable,
        };
        Plan {
            content: self,
            kind,
        }
    }

    /// Answers a request with `headers`; `read` gives the bytes of a range.
    pub fn answer(
        self,
        headers: &HeaderMap,
        fetch: Fetch,
        read: impl Fn(Range<u64>) -> Body,
    ) -> Response<Body> {
        let plan = self.plan(headers, fetch);
        let bodies: Vec<_> = plan.ranges().iter().cloned().map(read).collect();
        plan.response(bodies)
    }
}

// === impl Plan ===

impl Plan {
    /// Returns the ranges whose bytes [`Self::response`] wants, in order; none when it sends no content.
    pub fn ranges(&self) -> &[Range<u64>] {
        match &self.kind {
            Kind::Full(range) | Kind::Part(range) => slice::from_ref(range),
            Kind::Parts(multipart) => multipart.parts(),
            Kind::Head | Kind::NotModified | Kind::PreconditionFailed | Kind::Unsatisfiable => &[],
        }
    }

    /// Returns the answer; `bodies` are the bytes of [`Self::ranges`].
    pub fn response(self, bodies: Vec<Body>) -> Response<Body> {
        let Self { content, kind } = self;
        let mut bodies = bodies.into_iter();
        let mut next = || bodies.next().unwrap_or_else(Body::empty);
        match kind {
            Kind::Head => content.found(StatusCode::OK, content.size, Body::empty()),
            Kind::Full(_) => content.found(StatusCode::OK, content.size, next()),
            Kind::Part(part) => {
                let length = part.end - part.start;
                let mut response = content.found(StatusCode::PARTIAL_CONTENT, length, next());
                set(
                    &mut response,
                    CONTENT_RANGE,
                    &content_range(&part, content.size),
                );
                response
            }
            Kind::Parts(multipart) => content.multipart(&multipart, next),
            Kind::NotModified => {
                let mut response = content.found(StatusCode::NOT_MODIFIED, 0, Body::empty());
                response.headers_mut().remove(CONTENT_LENGTH);
                response
            }
            Kind::PreconditionFailed => error_response(&ErrorCode::PreconditionFailed.into()),
            Kind::Unsatisfiable => {
                let mut response = error_response(&ErrorCode::RangeInvalid.into());
                set(
                    &mut response,
                    CONTENT_RANGE,
                    &unsatisfied_range(content.size),
                );
                response
            }
        }
    }
}

// === impl Content ===

impl Content {
    fn multipart(&self, multipart: &Multipart, mut next: impl FnMut() -> Body) -> Response<Body> {
        let mut bodies = Vec::with_capacity(2 * multipart.parts().len() + 1);
        for part in multipart.parts() {
            bodies.push(multipart.header(part).into());
            bodies.push(next());
        }
        bodies.push(multipart.trailer().into());
        let length = multipart.content_length();
        let mut response = self.found(StatusCode::PARTIAL_CONTENT, length, Body::chain(bodies));
        set(&mut response, CONTENT_TYPE, &multipart.content_type());
        response
    }

    fn found(&self, status: StatusCode, length: u64, body: Body) -> Response<Body> {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        // The quoted digest is the entity tag; without the quotes, the digest.
        let etag = Bytes::from(etag(&self.digest));
        let digest = etag.slice(1..etag.len() - 1);
        for (name, value) in [(DOCKER_CONTENT_DIGEST, digest), (ETAG, etag)] {
            // Digests make valid values.
            if let Ok(value) = HeaderValue::from_maybe_shared(value) {
                headers.insert(name, value);
            }
        }
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    // Numbers make valid values.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::digest::Algorithm;
    use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, RANGE};

    const TEXT: &[u8] = b"0123456789";

    async fn check(
        fetch: Fetch,
        header: Option<(HeaderName, &str)>,
    ) -> (u16, Option<u64>, Vec<u8>) {
        let headers = header
            .into_iter()
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect();
        let content = Content {
            digest: Algorithm::Sha256.digest(TEXT),
            size: TEXT.len() as u64,
            content_type: HeaderValue::from_static("text/plain"),
        };
        let response = content.answer(&headers, fetch, |range| {
            let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
            TEXT[start..end].to_vec().into()
        });
        let length = response.headers().get(CONTENT_LENGTH);
        let length = length.map(|length| length.to_str().unwrap().parse().unwrap());
        let status = response.status().as_u16();
        let body = response.into_body().collect_limited(1000).await.unwrap();
        (status, length, body.to_vec())
    }

    #[tokio::test]
    async fn answers() {
        let get = Fetch::Get;
        assert_eq!(check(get, None).await, (200, Some(10), TEXT.to_vec()));
        assert_eq!(check(Fetch::Head, None).await, (200, Some(10), vec![]));
        let part = check(get, Some((RANGE, "bytes=7-"))).await;
        assert_eq!(part, (206, Some(3), b"789".to_vec()));
        let (status, _, _) = check(get, Some((RANGE, "bytes=10-"))).await;
        assert_eq!(status, 416);
        let (status, length, body) = check(get, Some((RANGE, "bytes=0-1,4-5"))).await;
        assert_eq!((status, length), (206, Some(body.len() as u64)));
        let etag = etag(&Algorithm::Sha256.digest(TEXT));
        let same = check(get, Some((IF_NONE_MATCH, &etag))).await;
        assert_eq!(same, (304, None, vec![]));
        let (status, _, _) = check(get, Some((IF_MATCH, "\"other\""))).await;
        assert_eq!(status, 412);
    }

    /// Content has no time at which it was modified, so a condition on it is none (RFC 9110 sections 13.1.3 and 13.1.4).
    #[tokio::test]
    async fn conditions_on_time_are_none() {
        for name in [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
            for time in [
                "Thu, 01 Jan 1970 00:00:00 GMT",
                "Fri, 01 Jan 2100 00:00:00 GMT",
            ] {
                let answer = check(Fetch::Get, Some((name.clone(), time))).await;
                assert_eq!(answer, (200, Some(10), TEXT.to_vec()), "{name}: {time}");
            }
        }
    }
}
