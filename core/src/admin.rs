//! The admin listener of both binaries: `/healthz` (alive), `/readyz` (would serve), `/metrics` (Prometheus), and what a role
//! has beside them.
//!
//! Invariant: nothing of these waits for anything; `/readyz` answers from what the parts of the process last said.

use std::collections::BTreeMap;
use std::future::{Future, Ready, ready};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode};
use parking_lot::RwLock;

use crate::body::Body;
use crate::net::respond::{error_response, small, with_allow};
use crate::oci::error::{ApiError, ErrorCode};
use crate::telemetry::Metrics;

/// Whether a process would serve, and if not, why; a clone is the same readiness.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, String>>>);

// === impl Readiness ===

impl Readiness {
    /// Returns one that nothing stands in the way of.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that `part` stands in the way, and why.
    pub fn block(&self, part: &'static str, reason: impl Into<String>) {
        self.0.write().insert(part, reason.into());
    }

    /// Says that `part` no longer stands in the way.
    pub fn clear(&self, part: &'static str) {
        self.0.write().remove(part);
    }

    /// Whether nothing stands in the way.
    pub fn is_ready(&self) -> bool {
        self.0.read().is_empty()
    }

    fn to_json(&self) -> Vec<u8> {
        let blocked = self.0.read();
        serde_json::json!({ "ready": blocked.is_empty(), "blocked": *blocked })
            .to_string()
            .into_bytes()
    }
}

/// Returns the service of the admin listener; other paths are for `others`.
pub fn service<S, F>(
    metrics: Metrics,
    readiness: Readiness,
    others: S,
) -> impl Fn(Request<Body>) -> Either<BoxFuture<'static, Response<Body>>, F>
+ Clone
+ Send
+ Sync
+ 'static
where
    S: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    move |request| {
        if matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics") {
            let (metrics, readiness) = (metrics.clone(), readiness.clone());
            Either::Left(async move { answer(&request, &metrics, &readiness) }.boxed())
        } else {
            Either::Right(others(request))
        }
    }
}

/// Answers for a role that has nothing of its own there.
pub fn nothing(_: Request<Body>) -> Ready<Response<Body>> {
    ready(error_response(&ErrorCode::NotFound.into()))
}

fn answer(request: &Request<Body>, metrics: &Metrics, readiness: &Readiness) -> Response<Body> {
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let refusal = error_response(&ErrorCode::MethodNotAllowed.into());
        return with_allow(refusal, &[Method::GET, Method::HEAD]);
    }
    match path {
        "/healthz" => small(HeaderValue::from_static("text/plain"), "ok\n"),
        "/readyz" => {
            let json = HeaderValue::from_static("application/json");
            let mut response = small(json, readiness.to_json());
            if !readiness.is_ready() {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        }
        _ => match metrics.encode() {
            Ok(text) => small(
                HeaderValue::from_static(
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                ),
                text,
            ),
            Err(error) => error_response(&ApiError::new(ErrorCode::Internal).with_source(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: Method, path: &str, readiness: &Readiness) -> (StatusCode, Response<Body>) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        let service = service(Metrics::new(), readiness.clone(), nothing);
        let response = service(request).now_or_never().unwrap();
        (response.status(), response)
    }

    #[tokio::test]
    async fn readiness_follows_what_the_parts_say() {
        let readiness = Readiness::new();
        assert_eq!(check(Method::GET, "/readyz", &readiness).0, 200);
        readiness.block("database", "no connection");
        let (status, response) = check(Method::GET, "/readyz", &readiness);
        assert_eq!(status, 503);
        let body = response.into_body().collect_limited(1000).await.unwrap();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
            serde_json::json!({"ready": false, "blocked": {"database": "no connection"}})
        );
        readiness.clear("database");
        assert_eq!(check(Method::GET, "/readyz", &readiness).0, 200);
    }

    #[test]
    fn only_three_paths_are_here() {
        let readiness = Readiness::new();
        readiness.block("draining", "");
        assert_eq!(check(Method::GET, "/healthz", &readiness).0, 200);
        assert_eq!(check(Method::HEAD, "/metrics", &readiness).0, 200);
        assert_eq!(check(Method::GET, "/v2/", &readiness).0, 404);
        assert_eq!(check(Method::POST, "/metrics", &readiness).0, 405);
    }
}
