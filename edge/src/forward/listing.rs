//! Lists of an upstream: its tags, and what refers to a manifest.
//!
//! Invariants: the list is the upstream's, byte for byte; what says where it goes on is put as a path of ours, with the
//! upstream's own query, which may be anything. Nothing else that it says is passed on. Failure: what was said last is
//! answered when the upstream cannot be asked, or takes its time.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LINK};
use http::{HeaderMap, Request, Response};
use outport_core::body::Body;
use outport_core::oci::media::{JSON, OCI_INDEX};
use outport_core::oci::reference::RepoName;
use outport_core::oci::route::Route;
use tokio::time::timeout;

use crate::resolve::Resolver;
use crate::resolve::lists::{LIST_BYTES_MAX, List};
use crate::served::Served;
use crate::source::{Origin, OriginError};

/// What an upstream said of a filter.
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// A question for a list.
struct Question {
    /// Who is asked.
    upstream: Origin,
    /// The repository, as it is called there.
    remote: RepoName,
    /// As it is called here.
    local: RepoName,
    /// The path, without a query.
    path: String,
    /// The path, with one.
    target: String,
    is_referrers: bool,
}

/// Answers with a list of an upstream; `query` is the client's.
pub async fn listing(
    resolver: &Resolver,
    route: &Route,
    query: &str,
) -> Result<(Response<Body>, Served), OriginError> {
    let question = Question::new(resolver, route, query)?;
    let (upstream, is_referrers) = (question.upstream.clone(), question.is_referrers);
    // By the name that it has here: two upstreams may call theirs the same.
    let key = format!("{} {}", question.local, question.target);
    let asking = resolver.lists().ask(key.clone(), || {
        let (resolver, key) = (resolver.clone(), key.clone());
        async move { question.ask(&resolver, &key).await }
    });
    let mut asking = Box::pin(asking);
    let patience = upstream.tags().stale_after.unwrap_or(Duration::MAX);
    let told = match timeout(patience, &mut asking).await {
        Ok(told) => told,
        Err(_elapsed) => match resolver.kept_list(&key, &upstream).await {
            Some(list) => return answer(list, is_referrers, Served::Stale),
            None => asking.await,
        },
    };
    match told.0.unwrap_or(Err(OriginError::Ending)) {
        Ok(list) => answer(list, is_referrers, Served::Passed),
        Err(error) if error.is_silence() => {
            let kept = resolver.kept_list(&key, &upstream).await;
            answer(kept.ok_or(error)?, is_referrers, Served::Stale)
        }
        Err(error) => Err(error),
    }
}

// === impl Question ===

impl Question {
    fn new(resolver: &Resolver, route: &Route, query: &str) -> Result<Self, OriginError> {
        let local = route.repository().ok_or(OriginError::Forbidden)?;
        let upstream = resolver.registries().of(local);
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
        Ok(Self {
            upstream: upstream.clone(),
            remote,
            local: local.clone(),
            target: format!("{path}{separator}{}", query.join("&")),
            path: path.to_owned(),
            is_referrers: matches!(route, Route::ListReferrers { .. }),
        })
    }

    /// Asks for the list and keeps it; none when there is no such list.
    async fn ask(&self, resolver: &Resolver, key: &str) -> Result<Option<List>, OriginError> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = self
            .target
            .parse()
            .or(Err(OriginError::Nonsense("a path that cannot be written")))?;
        let asking = self.upstream.list(&self.remote, request, LIST_BYTES_MAX);
        let own_path = format!("/v2/{}/", self.local);
        let told = Box::pin(asking).await;
        let read = told.and_then(|told| read(told, (&self.path, &own_path), self.is_referrers));
        let list = match read {
            Ok(list) => Some(list),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        resolver.keep_list(key, list.as_ref()).await;
        Ok(list)
    }
}

/// Reads what an upstream said.
fn read(
    (headers, content): (HeaderMap, Bytes),
    (asked, local): (&str, &str),
    is_referrers: bool,
) -> Result<List, OriginError> {
    let told = headers.get(CONTENT_TYPE).and_then(|ty| ty.to_str().ok());
    let told = told
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    // ghcr.io sends on to a page that says that there is nothing.
    if is_referrers && !told.trim().eq_ignore_ascii_case(OCI_INDEX) {
        return Err(OriginError::not_found());
    }
    let link = headers.get(LINK).and_then(|link| link.to_str().ok());
    Ok(List {
        next: link.and_then(|link| next(link, asked, local)),
        filters: headers.get(OCI_FILTERS_APPLIED).cloned(),
        content,
    })
}

fn answer(
    list: Option<List>,
    is_referrers: bool,
    served: Served,
) -> Result<(Response<Body>, Served), OriginError> {
    let list = list.ok_or_else(OriginError::not_found)?;
    let ty = if is_referrers { OCI_INDEX } else { JSON };
    let length = list.content.len();
    let mut response = Response::new(Body::from(list.content));
    let own = response.headers_mut();
    own.insert(CONTENT_TYPE, HeaderValue::from_static(ty));
    own.insert(CONTENT_LENGTH, HeaderValue::from(length));
    let told = [(OCI_FILTERS_APPLIED, list.filters), (LINK, list.next)];
    for (name, value) in told {
        if let Some(value) = value {
            own.insert(name, value);
        }
    }
    Ok((response, served))
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
