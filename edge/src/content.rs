//! The answer to a request for content that is here: whole, in parts, or not at all, as its conditions say.

use std::ops::Range;

use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
};
use http::{HeaderMap, Response, StatusCode};
use outport_core::body::Body;
use outport_core::net::respond::{DOCKER_CONTENT_DIGEST, error_response};
use outport_core::oci::digest::Digest;
use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::oci::multipart::Multipart;
use outport_core::oci::range::{Selection, content_range, etag, select, unsatisfied_range};
use outport_core::oci::route::Fetch;

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

// === impl Content ===

impl Content {
    /// Returns the answer to a request with `headers`; `read` gives the bytes of a range.
    pub fn answer(
        self,
        headers: &HeaderMap,
        fetch: Fetch,
        read: impl Fn(Range<u64>) -> Body,
    ) -> Response<Body> {
        let read = |range: Range<u64>| match fetch {
            Fetch::Get => read(range),
            Fetch::Head => Body::empty(),
        };
        match select(headers, fetch, &self.digest, self.size) {
            Selection::Full => {
                let length = self.size;
                self.response(StatusCode::OK, length, read(0..length))
            }
            Selection::Part(part) => {
                let place = content_range(&part, self.size);
                let body = read(part.clone());
                let status = StatusCode::PARTIAL_CONTENT;
                let mut response = self.response(status, part.end - part.start, body);
                set(&mut response, CONTENT_RANGE, &place);
                response
            }
            Selection::Parts(parts) => self.multipart(parts, read),
            Selection::NotModified => {
                let mut response = self.response(StatusCode::NOT_MODIFIED, 0, Body::empty());
                response.headers_mut().remove(CONTENT_LENGTH);
                response
            }
            Selection::PreconditionFailed => {
                let error =
                    ApiError::new(ErrorCode::BadRequest).with_message("precondition failed");
                let mut response = error_response(&error);
                *response.status_mut() = StatusCode::PRECONDITION_FAILED;
                response
            }
            Selection::Unsatisfiable => {
                let mut response = error_response(&ErrorCode::RangeInvalid.into());
                set(&mut response, CONTENT_RANGE, &unsatisfied_range(self.size));
                response
            }
        }
    }

    fn multipart(
        self,
        parts: Vec<Range<u64>>,
        read: impl Fn(Range<u64>) -> Body,
    ) -> Response<Body> {
        let multipart = Multipart::new(&self.digest, self.size, parts);
        let mut bodies = Vec::new();
        for part in multipart.parts() {
            bodies.push(multipart.header(part).into());
            bodies.push(read(part.clone()));
        }
        bodies.push(multipart.trailer().into());
        let length = multipart.content_length();
        let mut response = self.response(StatusCode::PARTIAL_CONTENT, length, Body::chain(bodies));
        set(&mut response, CONTENT_TYPE, &multipart.content_type());
        response
    }

    fn response(self, status: StatusCode, length: u64, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        set(
            &mut response,
            DOCKER_CONTENT_DIGEST,
            &self.digest.to_string(),
        );
        set(&mut response, ETAG, &etag(&self.digest));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.content_type);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        response
    }
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    // Digests and numbers make valid values.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{IF_NONE_MATCH, RANGE};
    use outport_core::oci::digest::Algorithm;

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
        let index = |at: u64| usize::try_from(at).unwrap();
        let response = content.answer(&headers, fetch, |range| {
            TEXT[index(range.start)..index(range.end)].to_vec().into()
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
        let all = TEXT.to_vec();
        assert_eq!(check(get, None).await, (200, Some(10), all));
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
    }
}
