//! The distribution API: one match over the route, one line per arm.

pub(crate) mod blobs;
pub(crate) mod lists;
pub(crate) mod manifests;
pub(crate) mod push;
mod reply;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use outport_core::access::Caller;
use outport_core::body::{Body, CollectError};
use outport_core::net::content::Content;
use outport_core::net::respond::{self, Note};
use outport_core::oci::digest::Digest;
use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::oci::media;
use outport_core::oci::reference::{Reference, RepoName};
use outport_core::oci::route::{Fetch, Route};
use outport_core::store::ContentStore;
use outport_edge::pull_through::PullThrough;
use outport_edge::source::registries::Say;
use outport_edge::source::{OUTPORT_HOPS, OUTPORT_UPSTREAM};

pub(crate) use self::reply::Reply;
use crate::api::blobs::Blobs;
use crate::api::lists::Lists;
use crate::api::manifests::Manifests;
use crate::api::push::{Accepted, Finish, Push};
use crate::publish::Pushed;
use crate::respond::OrRespond;
use crate::upload::Chunk;

/// Answers the distribution API.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) blobs: Blobs,
    pub(crate) lists: Lists,
    pub(crate) manifests: Manifests,
    pub(crate) push: Push,
    pub(crate) store: Arc<dyn ContentStore>,
    /// The largest manifest that is taken, in bytes.
    pub(crate) max_manifest: u64,
    /// What is others', if any is pulled through here.
    pub(crate) upstreams: Option<PullThrough>,
}

// === impl Api ===

impl Api {
    /// Answers a request: for the origin itself, or for an upstream.
    pub(crate) async fn handle(&self, mut request: Request<Body>) -> Response<Body> {
        let asked_for = request.headers_mut().remove(OUTPORT_UPSTREAM);
        let routed = match Route::parse(request.method(), request.uri()) {
            Ok(routed) => routed,
            Err(error) => return answered("none", Err(error.into())),
        };
        if let Some(name) = asked_for {
            return self.upstreams_answer(&name, &routed.route, request).await;
        }
        let Some(upstreams) = &self.upstreams else {
            return self.hosted(routed.route, request).await;
        };
        // An edge asks for each by itself.
        let is_question = [Method::GET, Method::HEAD].contains(request.method());
        let say = if is_question && request.headers().contains_key(OUTPORT_HOPS) {
            Say::Hosted
        } else {
            upstreams.say(&routed, &request)
        };
        match say {
            Say::Hosted => self.hosted(routed.route, request).await,
            Say::Upstream => Box::pin(upstreams.call(request)).await,
            Say::Either => {
                let name = routed.route.as_str();
                let answer = self.answer(routed.route, request.headers(), Body::empty());
                match answer.await {
                    Err(error) if error.code() == ErrorCode::NameUnknown => {
                        Box::pin(upstreams.call(request)).await
                    }
                    answer => answered(name, answer),
                }
            }
        }
    }

    /// Answers an edge for an upstream, and says so; an upstream that is not asked here may have what it wants.
    async fn upstreams_answer(
        &self,
        name: &HeaderValue,
        route: &Route,
        mut request: Request<Body>,
    ) -> Response<Body> {
        let upstreams = self.upstreams.as_ref();
        let caller = Caller::of(request.extensions());
        let asks = |upstreams: &&PullThrough| upstreams.asks(name, route, caller);
        let Some(upstreams) = upstreams.filter(asks) else {
            let error = ApiError::new(ErrorCode::Unavailable)
                .with_message("this origin does not ask that upstream, or not for this edge");
            return answered(route.as_str(), Err(error));
        };
        // Nobody is asked after us.
        request.headers_mut().remove(OUTPORT_HOPS);
        let mut response = Box::pin(upstreams.call_for_edge(request)).await;
        response
            .headers_mut()
            .insert(OUTPORT_UPSTREAM, name.clone());
        response
    }

    /// Answers a request about what is hosted.
    async fn hosted(&self, route: Route, request: Request<Body>) -> Response<Body> {
        let name = route.as_str();
        let (head, body) = request.into_parts();
        answered(name, self.answer(route, &head.headers, body).await)
    }

    /// Every endpoint, a line each.
    #[expect(clippy::too_many_lines, reason = "the API reads best in one piece")]
    async fn answer(
        &self,
        route: Route,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        let reply = match route {
            Route::Ping => Ok(Reply::new(StatusCode::OK).json("{}")),
            Route::ListRepositories { page } => self.lists.catalog(page).await,
            Route::ListTags { repository, page } => self.lists.tags(&repository, page).await,
            Route::ListReferrers {
                repository,
                subject,
                artifact_type,
                page,
            } => {
                self.lists
                    .referrers(&repository, &subject, artifact_type.as_deref(), page)
                    .await
            }
            Route::FetchManifest {
                repository,
                reference,
                fetch,
            } => {
                return self
                    .fetch_manifest(&repository, &reference, fetch, headers)
                    .await;
            }
            Route::PushManifest {
                repository,
                reference,
                tags,
            } => {
                let pushed = self.read_manifest(headers, body).await?;
                self.manifests
                    .put(repository, reference, tags, pushed)
                    .await
            }
            Route::DeleteManifest {
                repository,
                reference,
            } => self.manifests.delete(&repository, &reference).await,
            Route::FetchBlob {
                repository,
                digest,
                fetch,
            } => {
                return self.fetch_blob(&repository, &digest, fetch, headers).await;
            }
            Route::DeleteBlob { repository, digest } => {
                self.blobs.delete(&repository, &digest).await
            }
            Route::StartUpload {
                repository,
                algorithm,
            } => self.push.start(&repository, algorithm).await,
            Route::PushBlob { repository, digest } => {
                self.push
                    .take(Accepted::whole(repository, digest), body)
                    .await
            }
            Route::MountBlob {
                repository,
                digest,
                from,
            } => self.push.mount(&repository, &digest, from.as_ref()).await,
            Route::UploadStatus { repository, id } => self.push.status(&repository, id).await,
            Route::AppendUpload { repository, id } => {
                let chunk = Chunk::from_headers(headers)?;
                let accepted = self.push.chunk(repository, id, &chunk).await?;
                self.push.take(accepted, body).await
            }
            Route::FinishUpload {
                repository,
                id,
                digest,
            } => {
                let chunk = Chunk::from_headers(headers)?;
                match self.push.finish(repository, id, digest, &chunk).await? {
                    Finish::Accepted(accepted) => self.push.take(*accepted, body).await,
                    Finish::Already(reply) => Ok(reply),
                }
            }
            Route::CancelUpload { repository, id } => self.push.cancel(&repository, id).await,
        };
        reply.map(Reply::into_response)
    }

    async fn fetch_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
        fetch: Fetch,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, ApiError> {
        let manifest = self.manifests.get(repository, reference).await?;
        let content = Content {
            digest: manifest.digest,
            size: manifest.body.len() as u64,
            content_type: header_value(&manifest.media_type)?,
        };
        Ok(content.answer(headers, fetch, |range| slice(&manifest.body, range).into()))
    }

    async fn fetch_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
        fetch: Fetch,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, ApiError> {
        let blob = self.blobs.find(repository, digest).await?;
        let content = Content {
            digest: blob.digest,
            size: blob.size,
            content_type: HeaderValue::from_static(media::OCTET_STREAM),
        };
        let plan = content.plan(headers, fetch);
        let mut bodies = Vec::with_capacity(1);
        for range in plan.ranges() {
            let body = self.store.read(digest, range.clone()).await.or_respond()?;
            // It is linked, so it was here: a location that lost it is our failure, not a 404.
            bodies.push(body.ok_or_else(|| {
                ApiError::new(ErrorCode::Internal)
                    .with_source("a linked blob is not in its location")
            })?);
        }
        Ok(plan.response(bodies))
    }

    /// Reads a manifest's body, within the limit.
    async fn read_manifest(&self, headers: &HeaderMap, body: Body) -> Result<Pushed, ApiError> {
        let whole = match body.collect_limited(self.max_manifest).await {
            Ok(whole) => whole,
            Err(CollectError::TooLarge { .. }) => return Err(self.too_large()),
            Err(error @ CollectError::Broken(_)) => {
                return Err(ApiError::new(ErrorCode::ManifestInvalid)
                    .with_message("the manifest broke off")
                    .with_source(error));
            }
        };
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        Pushed::parse(content_type, whole)
    }

    fn too_large(&self) -> ApiError {
        ApiError::new(ErrorCode::ManifestTooLarge)
            .with_message(format!("a manifest may have {} bytes", self.max_manifest))
    }
}

fn answered(route: &'static str, answer: Result<Response<Body>, ApiError>) -> Response<Body> {
    let mut response = answer.unwrap_or_else(|error| respond::error_response(&error));
    response.extensions_mut().insert(Note {
        route,
        served: "origin",
    });
    response
}

fn header_value(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text)
        .map_err(|error| ApiError::new(ErrorCode::Internal).with_source(error))
}

/// Returns a part of what is in memory; one that does not fit is as long as there is.
fn slice(bytes: &Bytes, range: Range<u64>) -> Bytes {
    let clamp = |at| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(clamp(range.start)..clamp(range.end))
}
