//! What is written into a question, and read out of an answer.

use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Request};
use outport_core::body::Body;
use outport_core::oci::digest::Digest;
use outport_core::oci::media::ManifestType;
use outport_core::oci::range::content_range;
use outport_core::oci::reference::{Reference, RepoName};
use outport_core::oci::route::{Fetch, Route};

use super::{DOCKER_CONTENT_DIGEST, OriginError, Span};

/// How long a quota is left alone when nobody says for how long, how long at least, and how long at most.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_mins(1);
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// What every manifest says of itself.
#[derive(serde::Deserialize)]
pub(super) struct Outline {
    #[serde(rename = "schemaVersion")]
    _schema_version: u64,
    #[serde(rename = "mediaType")]
    pub(super) media_type: Option<String>,
}

/// Whether it is JSON of an object, as every list is: not a page that says sorry.
pub(super) fn is_object(content: &[u8]) -> bool {
    content.trim_ascii_start().starts_with(b"{")
}

/// Returns what a manifest says of itself; none when it is no manifest, or not all of one.
pub(super) fn outline(content: &[u8]) -> Option<Outline> {
    serde_json::from_slice(content).ok()
}

/// Whether it is for people: what stands between us and an upstream answers so, with a 200.
pub(super) fn is_page(headers: &HeaderMap) -> bool {
    let ty = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    ty.is_some_and(|ty| ty.to_ascii_lowercase().starts_with(b"text/html"))
}

/// Returns how long one is asked to wait (RFC 9110 section 10.2.3); what cannot be understood, and nothing, is a while.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Duration {
    let told = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let seconds = told.and_then(|told| told.parse().ok());
    let wait = match (seconds, told.map(httpdate::parse_http_date)) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, Some(Ok(date))) => date.duration_since(now).unwrap_or_default(),
        _ => RETRY_AFTER_DEFAULT,
    };
    wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
}

pub(super) fn told_digest(headers: &HeaderMap) -> Option<Digest> {
    headers
        .get(DOCKER_CONTENT_DIGEST)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

pub(super) fn manifest_request(
    repo: &RepoName,
    reference: &Reference,
    fetch: Fetch,
) -> Result<Request<Body>, OriginError> {
    let mut request = request(&Route::FetchManifest {
        repository: repo.clone(),
        reference: reference.clone(),
        fetch,
    })?;
    for ty in ManifestType::ALL {
        let accept = HeaderValue::from_static(ty.as_str());
        request.headers_mut().append(ACCEPT, accept);
    }
    Ok(request)
}

pub(super) fn blob_route(repo: &RepoName, digest: &Digest, fetch: Fetch) -> Route {
    Route::FetchBlob {
        repository: repo.clone(),
        digest: *digest,
        fetch,
    }
}

pub(super) fn request(route: &Route) -> Result<Request<Body>, OriginError> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = route.method();
    *request.uri_mut() = route
        .to_uri()
        .try_into()
        .or(Err(OriginError::Nonsense("a path that cannot be written")))?;
    Ok(request)
}

pub(super) fn header(text: String) -> Result<HeaderValue, OriginError> {
    HeaderValue::try_from(text).or(Err(OriginError::Nonsense(
        "a header that cannot be written",
    )))
}

pub(super) fn content_length(headers: &HeaderMap) -> Result<u64, OriginError> {
    headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .ok_or(OriginError::Nonsense("a blob without a length"))
}

/// Returns the size of the whole blob of which a 206 brings the part asked for.
pub(super) fn partial_size(headers: &HeaderMap, span: &Span) -> Result<u64, OriginError> {
    let told = headers
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .ok_or(OriginError::Nonsense("a part without its place"))?;
    let size = told
        .rsplit_once('/')
        .and_then(|(_, size)| size.parse().ok())
        .ok_or(OriginError::Nonsense("a part of unknown whole"))?;
    let expected = match span {
        Span::From(from) | Span::Rest(from) => *from..size,
        Span::Within(range) => range.clone(),
    };
    if told != content_range(&expected, size) {
        return Err(OriginError::Nonsense("another part than asked for"));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_to_be_left_alone_is_understood() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (told, seconds) in [
            (Some("120"), 120),
            (Some("0"), 1),
            (Some("999999999"), 3600),
            // 90 seconds later, and long ago.
            (Some("Tue, 14 Nov 2023 22:14:50 GMT"), 90),
            (Some("Thu, 01 Jan 1970 00:00:00 GMT"), 1),
            (Some("soon"), 60),
            (Some("-1"), 60),
            (None, 60),
        ] {
            let value = told.map(|told| (RETRY_AFTER, HeaderValue::from_static(told)));
            let headers = value.into_iter().collect();
            assert_eq!(retry_after(&headers, now).as_secs(), seconds, "{told:?}");
        }
    }
}
