//! Lists of an upstream: its tags, and what refers to a manifest.
//!
//! Invariants: the list is the upstream's, byte for byte; what says where it goes on is put as a path of ours, with the
//! upstream's own query, which may be anything. Nothing else that it says is passed on. Failure: what was said last is
//! answered when the upstream cannot be asked, or takes its time.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, IF_NONE_MATCH, LINK};
use http::{HeaderMap, Request, Response, Uri};
use outport_core::body::Body;
use outport_core::net::client::Progress;
use outport_core::oci::media::{JSON, OCI_INDEX};
use outport_core::oci::range::etag;
use outport_core::oci::reference::RepoName;
use outport_core::oci::route::Route;
use tokio::time::timeout_at;

use crate::resolve::lists::{LIST_BYTES_MAX, List};
use crate::resolve::{Resolver, Waiting};
use crate::served::Served;
use crate::source::{About, Origin, OriginError, Part, Standing};

/// What an upstream said of a filter.
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// A question for a list.
struct Question {
    /// Who is asked.
    upstream: Origin,
    about: About,
    /// The repository, as it is called here.
    local: RepoName,
    /// The path there, and the query.
    target: String,
    is_referrers: bool,
}

/// Answers with a list of an upstream, for a client that asks for `asked`.
pub async fn listing(
    resolver: &Resolver,
    route: &Route,
    (asked, waiting): (&Uri, Waiting),
) -> Result<(Response<Body>, Served), OriginError> {
    let question = Question::new(resolver, route, asked)?;
    let (upstream, is_referrers) = (question.upstream.clone(), question.is_referrers);
    let (key, path) = (question.key(), question.path_here(asked));
    let (local, part) = (question.local.clone(), question.about.part());
    let limit = upstream.answer_timeout();
    let patience = upstream.patience(&local, part);
    let patience = patience.unwrap_or([limit; 2]);
    let mut asking = resolver.lists().join(key.clone(), |progress| {
        let (resolver, key) = (resolver.clone(), key.clone());
        async move { question.ask(&resolver, &key, &progress).await }
    });
    let told = if let Some(told) = asking.answer_in_steps(waiting.since, patience).await {
        told
    } else {
        upstream.note_overdue(&local, part, asking.steps());
        if let Some(list) = resolver.kept_list(&key, &upstream).await {
            return answer(list, (&path, is_referrers), Served::Stale);
        }
        let answered = timeout_at(waiting.until(limit), asking.answer()).await;
        answered.or(Err(OriginError::Slow(limit)))?
    };
    match told.0.unwrap_or(Err(OriginError::Ending)) {
        Ok(list) => {
            let is_stale = list.as_ref().is_some_and(|list| list.is_stale);
            let served = if is_stale {
                Served::Stale
            } else {
                Served::Passed
            };
            answer(list, (&path, is_referrers), served)
        }
        Err(error) if error.is_silence() => {
            let kept = resolver.kept_list(&key, &upstream).await;
            answer(kept.ok_or(error)?, (&path, is_referrers), Served::Stale)
        }
        Err(error) => Err(error),
    }
}

/// Answers with a list of an upstream as it was, without asking for it.
pub async fn kept_listing(
    resolver: &Resolver,
    route: &Route,
    asked: &Uri,
) -> Option<(Response<Body>, Served)> {
    let question = Question::new(resolver, route, asked).ok()?;
    let kept = resolver
        .kept_list(&question.key(), &question.upstream)
        .await?;
    let path = question.path_here(asked);
    answer(kept, (&path, question.is_referrers), Served::Stale).ok()
}

// === impl Question ===

impl Question {
    fn new(resolver: &Resolver, route: &Route, asked: &Uri) -> Result<Self, OriginError> {
        let local = route.repository().ok_or(OriginError::Forbidden)?;
        let upstream = resolver.registries().of(local);
        let remote = upstream.remote(local)?;
        let route = route
            .clone()
            .asked_of(remote.clone())
            .ok_or(OriginError::Forbidden)?;
        let path = route.to_uri();
        let path = path.split('?').next().unwrap_or_default();
        let query: Vec<_> = asked
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|parameter| !parameter.is_empty() && !parameter.starts_with("ns="))
            .collect();
        let is_referrers = matches!(route, Route::ListReferrers { .. });
        let part = if is_referrers {
            Part::Referrers
        } else {
            Part::Tags
        };
        let separator = if query.is_empty() { "" } else { "?" };
        Ok(Self {
            upstream: upstream.clone(),
            about: About::new(remote, part),
            local: local.clone(),
            target: format!("{path}{separator}{}", query.join("&")),
            is_referrers,
        })
    }

    /// Returns what the list is kept by: by the name that it has here, as two upstreams may call theirs the same.
    fn key(&self) -> String {
        format!("{} {}", self.local, self.target)
    }

    /// Returns the path by which the list goes on here: that of the client, unless it said by `?ns=` whose it is.
    fn path_here(&self, asked: &Uri) -> String {
        let query = asked.query().unwrap_or_default();
        let says_whose = query
            .split('&')
            .any(|parameter| parameter.starts_with("ns="));
        if !says_whose {
            return asked.path().to_owned();
        }
        // Behind the repository, as the upstream calls it.
        let path = self.target.split('?').next().unwrap_or_default();
        let kinds = ["tags/list", "referrers/"].iter();
        let at = kinds.filter_map(|kind| path.rfind(kind)).max();
        let behind = at.map_or("", |at| &path[at..]);
        format!("/v2/{}/{behind}", self.local)
    }

    /// Asks for the list and keeps it; none when there is no such list.
    async fn ask(
        &self,
        resolver: &Resolver,
        key: &str,
        progress: &Progress,
    ) -> Result<Option<List>, OriginError> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = self
            .target
            .parse()
            .or(Err(OriginError::Nonsense("a path that cannot be written")))?;
        if self.upstream.is_through()
            && let Some(digest) = resolver.kept_list_digest(key, &self.upstream).await
        {
            // The origin does not keep waiting who has another.
            let known = HeaderValue::try_from(etag(&digest));
            let known = known.or(Err(OriginError::Nonsense("a digest that cannot be said")))?;
            request.headers_mut().insert(IF_NONE_MATCH, known);
        }
        let asked = (request, progress);
        let asking = self.upstream.list(&self.about, asked, LIST_BYTES_MAX);
        let told = Box::pin(asking).await;
        let list = match told.and_then(|told| read(told, self.is_referrers)) {
            Ok(list) => Some(list),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        // One that an origin had kept is as old as that says.
        if list.as_ref().is_none_or(|list| !list.is_stale) {
            resolver.keep_list(key, list.as_ref()).await;
        }
        Ok(list)
    }
}

/// Reads what an upstream said.
fn read((headers, content): (HeaderMap, Bytes), is_referrers: bool) -> Result<List, OriginError> {
    let told = headers.get(CONTENT_TYPE).and_then(|ty| ty.to_str().ok());
    let told = told
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    if is_referrers && !told.trim().eq_ignore_ascii_case(OCI_INDEX) {
        return Err(OriginError::Nonsense("something that is no index"));
    }
    let link = headers.get(LINK).and_then(|link| link.to_str().ok());
    Ok(List {
        next: link.and_then(next),
        filters: headers.get(OCI_FILTERS_APPLIED).cloned(),
        is_stale: Standing::of(&headers).is_stale,
        content,
    })
}

fn answer(
    list: Option<List>,
    (path, is_referrers): (&str, bool),
    served: Served,
) -> Result<(Response<Body>, Served), OriginError> {
    let list = list.ok_or_else(OriginError::not_found)?;
    let ty = if is_referrers { OCI_INDEX } else { JSON };
    let length = list.content.len();
    let mut response = Response::new(Body::from(list.content));
    let own = response.headers_mut();
    own.insert(CONTENT_TYPE, HeaderValue::from_static(ty));
    own.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(filters) = list.filters {
        own.insert(OCI_FILTERS_APPLIED, filters);
    }
    let next = list
        .next
        .map(|query| format!("<{path}?{query}>; rel=\"next\""));
    if let Some(next) = next.and_then(|next| HeaderValue::try_from(next).ok()) {
        own.insert(LINK, next);
    }
    Ok((response, served))
}

/// Returns the query with which the list goes on.
fn next(link: &str) -> Option<String> {
    // What is in brackets may have commas in it (RFC 8288 section 3).
    let (_, rest) = link.split_once('<')?;
    let (target, rest) = rest.split_once('>')?;
    let (parameters, others) = rest.split_once(',').unwrap_or((rest, ""));
    if !parameters.split(';').any(is_next) {
        return next(others);
    }
    let (_, query) = target.split_once('?')?;
    Some(query.to_owned())
}

/// Whether a parameter of a link says that a list goes on there.
fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    let mut kinds = value.trim().trim_matches('"').split_ascii_whitespace();
    name.trim().eq_ignore_ascii_case("rel") && kinds.any(|kind| kind.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(link: &str, expected: Option<&str>) {
        assert_eq!(next(link).as_deref(), expected, "{link}");
    }

    #[test]
    fn a_list_goes_on_here() {
        let expected = Some("n=2&last=b");
        check(
            "</v2/library/a/tags/list?n=2&last=b>; rel=\"next\"",
            expected,
        );
        check(
            "<https://registry.example/v2/library/a/tags/list?n=2&last=b>; rel=next",
            expected,
        );
        check("<?next_page=x%3D>; rel=\"next\"", Some("next_page=x%3D"));
        check("</v2/library/a/tags/list?n=2>; rel=\"prev\"", None);
        check(
            "</a?n=1,2>; rel=\"prev\", </a?n=3,4>; title=x; rel=\"last next\"",
            Some("n=3,4"),
        );
        check("</a?n=1>; rel=\"prev\", </a?n=2>; rel=\"nextish\"", None);
        check("nonsense", None);
        check("<<<", None);
    }
}
