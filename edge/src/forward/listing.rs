//! Lists of an upstream: its tags, and what refers to a manifest.
//!
//! Invariants: the list is the upstream's, byte for byte; what says where it goes on is put as a path of ours, with the
//! upstream's own query, which may be anything. Nothing else that it says is passed on.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LINK};
use http::{HeaderMap, Request, Response};
use outport_core::body::Body;
use outport_core::oci::media::{JSON, OCI_INDEX};
use outport_core::oci::route::Route;

use crate::source::{Origin, OriginError};

/// The largest list that is passed on, in bytes.
const LIST_BYTES_MAX: u64 = 8 << 20;

/// What an upstream said of a filter.
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Asks an upstream for a list; `query` is the client's.
pub async fn listing(
    upstream: &Origin,
    route: &Route,
    query: &str,
) -> Result<Response<Body>, OriginError> {
    let local = route.repository().ok_or(OriginError::Forbidden)?;
    let remote = upstream.remote(local)?;
    let asked = route
        .asked_of(remote.clone())
        .ok_or(OriginError::Forbidden)?;
    let path = asked.to_uri();
    let path = path.split('?').next().unwrap_or_default();
    let query: Vec<_> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty() && !parameter.starts_with("ns="))
        .collect();
    let separator = if query.is_empty() { "" } else { "?" };
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = format!("{path}{separator}{}", query.join("&"))
        .parse()
        .or(Err(OriginError::Nonsense("a path that cannot be written")))?;
    let list = upstream.list(&remote, request, LIST_BYTES_MAX).await?;
    let is_referrers = matches!(route, Route::ListReferrers { .. });
    answer(list, (path, &format!("/v2/{local}/")), is_referrers)
}

fn answer(
    (headers, list): (HeaderMap, Bytes),
    (asked, local): (&str, &str),
    is_referrers: bool,
) -> Result<Response<Body>, OriginError> {
    let told = headers.get(CONTENT_TYPE).and_then(|ty| ty.to_str().ok());
    let told = told
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    let ty = if is_referrers { OCI_INDEX } else { JSON };
    // ghcr.io sends on to a page that says that there is nothing.
    if is_referrers && !told.trim().eq_ignore_ascii_case(OCI_INDEX) {
        return Err(OriginError::not_found());
    }
    let mut response = Response::new(Body::from(list.clone()));
    let own = response.headers_mut();
    own.insert(CONTENT_TYPE, HeaderValue::from_static(ty));
    own.insert(CONTENT_LENGTH, HeaderValue::from(list.len()));
    if let Some(applied) = headers.get(OCI_FILTERS_APPLIED) {
        own.insert(OCI_FILTERS_APPLIED, applied.clone());
    }
    let link = headers.get(LINK).and_then(|link| link.to_str().ok());
    if let Some(next) = link.and_then(|link| next(link, asked, local)) {
        own.insert(LINK, next);
    }
    Ok(response)
}

/// Returns where the list goes on, as a path of ours.
fn next(link: &str, asked: &str, local: &str) -> Option<HeaderValue> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !parameters.contains("next") {
        return None;
    }
    let (_, query) = target.split_once('?')?;
    // Behind the repository, as the upstream calls it.
    let at = ["tags/list", "referrers/"]
        .iter()
        .find_map(|kind| asked.rfind(kind))?;
    let text = format!("<{local}{}?{query}>; rel=\"next\"", &asked[at..]);
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(link: &str, expected: Option<&str>) {
        let next = next(link, "/v2/library/a/tags/list", "/v2/docker.io/library/a/");
        let text = next.as_ref().map(|next| next.to_str().unwrap());
        assert_eq!(text, expected, "{link}");
    }

    #[test]
    fn a_list_goes_on_here() {
        let expected = Some("</v2/docker.io/library/a/tags/list?n=2&last=b>; rel=\"next\"");
        check(
            "</v2/library/a/tags/list?n=2&last=b>; rel=\"next\"",
            expected,
        );
        check(
            "<https://registry.example/v2/library/a/tags/list?n=2&last=b>; rel=next",
            expected,
        );
        let opaque = Some("</v2/docker.io/library/a/tags/list?next_page=x%3D>; rel=\"next\"");
        check("<?next_page=x%3D>; rel=\"next\"", opaque);
        check("</v2/library/a/tags/list?n=2>; rel=\"prev\"", None);
        check("nonsense", None);
    }
}
