//! What the edge does not do itself: pushes, deletes and lists go to the origin, streamed both ways.
//!
//! Invariants: a request is passed on with its path, its end-to-end headers and its body as they are, and so is the answer;
//! headers that belong to one connection stay on it. Local knowledge that an answer has made old is dropped, or replaced by
//! the manifest that was pushed, before the answer is given.
//!
//! Failure: an origin that cannot be asked is a 503; a body that breaks off breaks the other side off too. Cancellation: a
//! client that leaves ends its request at the origin; a change that was made all the same is heard of when the origin is
//! next asked.

pub mod listing;
mod pushed;

use http::header::{CONNECTION, EXPECT, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use outport_core::body::Body;
use outport_core::oci::reference::{Reference, RepoName, Tag};
use outport_core::oci::route::Route;

use self::pushed::Passing;
use crate::resolve::Resolver;
use crate::source::{OUTPORT_HOPS, OUTPORT_UPSTREAM, OriginError};

/// Headers that belong to one connection (RFC 9110 section 7.6.1), and those of older habits.
const OF_THE_CONNECTION: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Passes a request on to the origin, and its answer back.
pub async fn forward(
    resolver: &Resolver,
    route: &Route,
    hops: u32,
    request: Request<Body>,
) -> Result<Response<Body>, OriginError> {
    let mut request = request;
    strip_connection(request.headers_mut());
    let headers = request.headers_mut();
    headers.remove(HOST);
    // The server loop has answered it when the body was first read.
    headers.remove(EXPECT);
    // For which upstream the origin is asked is a node's own word.
    headers.remove(OUTPORT_UPSTREAM);
    headers.insert(OUTPORT_HOPS, HeaderValue::from(hops + 1));
    if let Route::PushManifest {
        repository,
        reference,
        tags,
    } = route
    {
        return push_manifest(resolver, repository, (reference, tags), request).await;
    }
    let response = send(resolver, request).await?;
    if response.status().is_success() {
        // A mount that is only an upload that begins has pushed nothing.
        if response.status() == StatusCode::CREATED
            && let Some(repository) = route.repository()
        {
            resolver.note_hosted(repository);
        }
        forget_deleted(resolver, route).await;
    }
    Ok(response)
}

/// Passes a manifest on, and remembers it when the origin has taken it.
async fn push_manifest(
    resolver: &Resolver,
    repo: &RepoName,
    (reference, more_tags): (&Reference, &[Tag]),
    mut request: Request<Body>,
) -> Result<Response<Body>, OriginError> {
    let mut tags = more_tags.to_vec();
    if let Reference::Tag(tag) = reference {
        tags.push(tag.clone());
    }
    let pushing = resolver.pushing(repo, tags);
    let passing = Passing::watch(&mut request, resolver.manifest_bytes_max());
    let response = send(resolver, request).await?;
    if !response.status().is_success() {
        return Ok(response);
    }
    resolver.note_hosted(repo);
    let is_set = |tag: &Tag| pushed::is_set(response.headers(), tag.as_str());
    match passing.taken(&response) {
        Some(manifest) if more_tags.iter().all(is_set) => {
            resolver.manifest_pushed(pushing, &manifest).await;
        }
        _ => {
            for tag in more_tags {
                let reference = Reference::Tag(tag.clone());
                resolver.forget_manifest(repo, &reference).await;
            }
            resolver.forget_manifest(repo, reference).await;
        }
    }
    Ok(response)
}

async fn send(resolver: &Resolver, request: Request<Body>) -> Result<Response<Body>, OriginError> {
    let mut response = resolver.origin().send(request).await?;
    strip_connection(response.headers_mut());
    Ok(response)
}

/// Drops what a delete that went through has made old.
async fn forget_deleted(resolver: &Resolver, route: &Route) {
    match route {
        Route::DeleteManifest {
            repository,
            reference,
        } => resolver.forget_manifest(repository, reference).await,
        Route::DeleteBlob { repository, digest } => {
            resolver.forget_blob(repository, digest).await;
        }
        _ => {}
    }
}

/// Removes the headers that belong to one connection.
pub fn strip_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_THE_CONNECTION {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_connection_stay_on_it() {
        let mut headers: HeaderMap = [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-type", "text/plain"),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
        strip_connection(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["content-type"]);
    }
}
