//! From a request to its response: one match over the routes, and what every answer carries.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, HOST, HeaderName, HeaderValue, IF_NONE_MATCH, WARNING};
use http::request::Parts;
use http::{HeaderMap, Request, Response, Uri};
use http_body::Body as _;
use outport_core::access::Caller;
use outport_core::body::Body;
use outport_core::net::respond::{Note, error_response, small};
use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::oci::media::JSON;
use outport_core::oci::reference::RepoName;
use outport_core::oci::route::{Route, Routed};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use crate::forward::forward;
use crate::forward::listing::{kept_listing, listing};
use crate::metrics::{RequestMetrics, ServedLabel};
use crate::pull::{Answer, Pull, Wanted};
use crate::resolve::hosted::Whose;
use crate::resolve::{Resolver, Waiting};
use crate::respond::{is_not_found, origin_error};
use crate::served::Served;
use crate::source::registries::{Addressed, Remote, Say, is_push_check};
use crate::source::sources::Reach;
use crate::source::{HOPS_MAX, OUTPORT_HOPS, OUTPORT_UPSTREAM, OriginError};

/// Answers the requests of clients; cheap to clone.
#[derive(Clone, Debug)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    marks: Vec<Mark>,
    pull: Pull,
    resolver: Resolver,
}

/// What is said and counted of the requests that are served in one way; found before there are any, and not for each.
#[derive(Debug)]
struct Mark {
    served: Served,
    /// What this cache says in `Cache-Status`, if anything.
    cache_status: Option<HeaderValue>,
    requests: Counter,
    bytes: Counter,
}

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The distribution specification's answer to `?ns=` ("Registry Proxying").
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

// === impl Service ===

impl Service {
    /// Returns the service of the edge called `name`.
    pub fn new(name: &str, pull: Pull, resolver: Resolver, metrics: &RequestMetrics) -> Self {
        let mark = |served| Mark::new(name, served, metrics);
        Self(Arc::new(Inner {
            marks: Served::ALL.into_iter().map(mark).collect(),
            pull,
            resolver,
        }))
    }

    /// Returns who has the say about what a request asks.
    pub fn say(&self, routed: &Routed, request: &Request<Body>) -> Say {
        let registries = self.0.resolver.registries();
        registries.say(routed, host(request), Caller::of(request.extensions()))
    }

    /// Whether an edge that asks so for an upstream means that of the repository that a route is about, and may.
    pub fn asks(&self, question: &HeaderValue, route: &Route, caller: &Caller) -> bool {
        let registries = self.0.resolver.registries();
        let asked = route
            .repository()
            .and_then(|repo| registries.upstream(repo));
        asked.is_some_and(|Remote { definition, .. }| {
            definition.answers(question.as_bytes()) && definition.readers.include(caller)
        })
    }

    /// Answers a request, of an edge or of anybody else.
    pub async fn call(self, mut request: Request<Body>, is_of_edge: bool) -> Response<Body> {
        let began = Instant::now();
        let (mut addressed, mut namespace) = match self.address(&request) {
            Ok(addressed) => addressed,
            Err(error) => return self.finish(error_response(&error), "none", Served::Local),
        };
        let name = addressed.route.as_str();
        let Some(hops) = hops(request.headers()) else {
            let error = ApiError::new(ErrorCode::BadRequest)
                .with_message("the request went through too many nodes");
            return self.finish(error_response(&error), name, Served::Local);
        };
        let caller = Caller::of(request.extensions()).clone();
        let is_open = |route: &Route| self.0.resolver.registries().is_open(route, &caller);
        if !is_open(&addressed.route) {
            return self.finish(closed(&caller), name, Served::Local);
        }
        if hops > 0 {
            namespace = None;
            addressed = match self.asked_by_node(&request, &caller) {
                Some(asked) => asked,
                None => return self.finish(closed(&caller), name, Served::Local),
            };
        }
        let route = &addressed.route;
        let waiting = Waiting {
            since: began,
            // It has kept what it had, and answers with that.
            has_another: is_of_edge && request.headers().contains_key(IF_NONE_MATCH),
        };
        let way = (hops, waiting);
        let answer = match &addressed.otherwise {
            None => self.answer(route, way, &mut request).await,
            Some(otherwise) if !is_open(otherwise) => {
                let answer = Box::pin(self.answer(route, way, &mut request)).await;
                match self.if_hosted(route, answer).await {
                    Some(answer) => answer,
                    None => return self.finish(closed(&caller), name, Served::Local),
                }
            }
            Some(otherwise) => {
                let request = std::mem::take(&mut request);
                Box::pin(self.answer_either([route, otherwise], way, request)).await
            }
        };
        let (mut response, served) = match answer {
            Ok(answer) => answer,
            Err(error) => (origin_error(error, route), Served::Local),
        };
        if let Some(timing) = served.timing(began.elapsed()) {
            response.headers_mut().append(SERVER_TIMING, timing);
        }
        if response.status().is_success()
            && let Some(namespace) = namespace
        {
            response.headers_mut().insert(OCI_NAMESPACE, namespace);
        }
        self.finish(response, name, served)
    }

    /// Finds out what a request means, and by what name of a registry in `?ns=`, which clients are told was gone by.
    fn address(
        &self,
        request: &Request<Body>,
    ) -> Result<(Addressed, Option<HeaderValue>), ApiError> {
        let registries = self.0.resolver.registries();
        let routed = Route::parse(request.method(), request.uri())?;
        let namespace = routed.ns.as_deref().map(HeaderValue::from_str);
        let mut addressed =
            registries.address(routed, host(request), Caller::of(request.extensions()))?;
        // At the origin itself, which was asked before.
        if registries.is_here()
            && let Some(otherwise) = addressed.otherwise.take()
        {
            addressed.route = otherwise;
        }
        Ok((addressed, namespace.and_then(Result::ok)))
    }

    /// Returns what another node means, which says whose a repository is and leaves nothing to find out; none when it is not to
    /// have that from here.
    fn asked_by_node(&self, request: &Request<Body>, caller: &Caller) -> Option<Addressed> {
        let registries = self.0.resolver.registries();
        let route = Route::parse(request.method(), request.uri()).ok()?.route;
        let question = request.headers().get(OUTPORT_UPSTREAM);
        let mut asked = route.repository().into_iter();
        let may_have = asked.all(|repo| registries.may_be_given(repo, question, caller));
        may_have.then_some(Addressed {
            route,
            otherwise: None,
        })
    }

    /// Returns the origin's answer, unless it has nothing to answer with and does not say that it hosts the repository: whether
    /// another has it, and what of that is here, is then not to be found out by the way in which the origin was asked.
    async fn if_hosted(&self, route: &Route, answer: Answer) -> Option<Answer> {
        let is_missing = match &answer {
            _ if is_push_check(route) => false,
            Err(OriginError::Refused(refusal)) if refusal.is_of_unknown_name() => return None,
            Err(error) => error.is_not_found(),
            Ok((response, _)) => is_not_found(response),
        };
        if is_missing && let Some(repo) = route.repository() {
            let is_hosted = Box::pin(self.0.resolver.is_hosted_by_now(repo)).await;
            return matches!(is_hosted, Ok(true)).then_some(answer);
        }
        Some(answer)
    }

    /// Answers for the origin, or for the default upstream when the origin does not know the repository.
    async fn answer_either(
        &self,
        [hosted, upstream]: [&Route; 2],
        way: (u32, Waiting),
        mut request: Request<Body>,
    ) -> Answer {
        let resolver = &self.0.resolver;
        let (Some(repo), Some(there)) = (hosted.repository(), upstream.repository()) else {
            return self.answer(hosted, way, &mut request).await;
        };
        // What may be an upstream's is only asked for, and has no body.
        let (head, _) = request.into_parts();
        let again = || Request::from_parts(head.clone(), Body::empty());
        let asked = Instant::now();
        let whose = if is_push_check(hosted) || resolver.is_known_hosted(hosted).await {
            Whose::Hosted
        } else if resolver.is_here(upstream).await {
            // The origin was asked for the name that led to it.
            return self.answer(upstream, way, &mut again()).await;
        } else {
            let registry = resolver.registries().of(there);
            let whose = resolver.whose(repo, registry, Some(registry.tags().stale_after));
            match whose.await {
                Whose::UpstreamSoFar => {
                    if let Some(kept) = self.kept(upstream, &head).await {
                        self.refresh(repo, upstream, &head.uri);
                        return Ok(kept);
                    }
                    resolver.whose(repo, registry, None).await
                }
                whose => whose,
            }
        };
        match whose {
            Whose::Upstream => match self.answer(upstream, way, &mut again()).await {
                Err(error) if error.is_not_found() => {
                    if resolver.is_hosted_by_now(repo).await? {
                        return self.answer(hosted, way, &mut again()).await;
                    }
                    Err(error)
                }
                answer => answer,
            },
            Whose::UpstreamLately(error) => self.kept(upstream, &head).await.ok_or(error),
            Whose::Unknown(error) => Err(error),
            Whose::Hosted | Whose::UpstreamSoFar => {
                match self.answer(hosted, way, &mut again()).await {
                    Err(OriginError::Refused(refusal))
                        if refusal.is_of_unknown_name() && !is_push_check(hosted) =>
                    {
                        resolver.note_unhosted(repo, asked);
                        self.answer(upstream, way, &mut again()).await
                    }
                    answer => answer,
                }
            }
        }
    }

    /// Has what was answered with as it is here asked for when the origin has said whose it is.
    fn refresh(&self, hosted: &RepoName, upstream: &Route, asked: &Uri) {
        let key = format!("{} {asked}", upstream.to_uri());
        let resolver = &self.0.resolver;
        resolver.refresh(hosted, key, || {
            let (resolver, route, asked) = (resolver.clone(), upstream.clone(), asked.clone());
            Box::pin(async move {
                if let Route::FetchManifest {
                    repository,
                    reference,
                    ..
                } = &route
                {
                    drop(
                        resolver
                            .manifest(repository, reference, Waiting::now())
                            .await,
                    );
                } else {
                    drop(listing(&resolver, &route, (&asked, Waiting::now())).await);
                }
            })
        });
    }

    /// Answers with what is here of an upstream, without asking anybody.
    async fn kept(&self, route: &Route, head: &Parts) -> Option<(Response<Body>, Served)> {
        match route {
            Route::FetchManifest {
                repository,
                reference,
                fetch,
            } => {
                let kept = self.0.resolver.kept_manifest(repository, reference).await?;
                Some(self.0.pull.resolved(kept, *fetch, &head.headers))
            }
            Route::ListTags { .. } | Route::ListReferrers { .. } => {
                kept_listing(&self.0.resolver, route, &head.uri).await
            }
            _ => None,
        }
    }

    async fn answer(
        &self,
        route: &Route,
        (hops, waiting): (u32, Waiting),
        request: &mut Request<Body>,
    ) -> Answer {
        match route {
            Route::Ping => Ok((small(HeaderValue::from_static(JSON), "{}"), Served::Local)),
            Route::FetchManifest {
                repository,
                reference,
                fetch,
            } => {
                let asked = (*fetch, request.headers());
                let pull = &self.0.pull;
                pull.manifest(repository, reference, asked, waiting).await
            }
            Route::FetchBlob {
                repository,
                digest,
                fetch,
            } => {
                let wanted = Wanted {
                    repo: repository,
                    digest,
                    fetch: *fetch,
                    headers: request.headers(),
                    reach: if hops == 0 {
                        Reach::Region
                    } else {
                        Reach::Origin
                    },
                };
                self.0.pull.blob(wanted).await
            }
            Route::ListTags { repository, .. } | Route::ListReferrers { repository, .. }
                if self.0.resolver.registries().upstream(repository).is_some() =>
            {
                let uri = request.uri().clone();
                Box::pin(listing(&self.0.resolver, route, (&uri, waiting))).await
            }
            _ => {
                let request = std::mem::take(request);
                let forwarding = forward(&self.0.resolver, route, hops, request);
                let response = Box::pin(forwarding).await?;
                Ok((response, Served::Passed))
            }
        }
    }

    /// Adds what every answer carries, and counts it.
    fn finish(
        &self,
        mut response: Response<Body>,
        route: &'static str,
        served: Served,
    ) -> Response<Body> {
        let length = response.body().size_hint().exact();
        let headers = response.headers_mut();
        if let Some(mark) = self.0.marks.iter().find(|mark| mark.served == served) {
            if let Some(member) = &mark.cache_status {
                headers.append(CACHE_STATUS, member.clone());
            }
            mark.requests.inc();
            mark.bytes.inc_by(length.unwrap_or_default());
        }
        if served == Served::Stale {
            let warning = HeaderValue::from_static("110 - \"Response is Stale\"");
            headers.insert(WARNING, warning);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        let served = served.as_str();
        response.extensions_mut().insert(Note { route, served });
        response
    }
}

// === impl Mark ===

impl Mark {
    fn new(name: &str, served: Served, metrics: &RequestMetrics) -> Self {
        let member = served
            .cache_status()
            .map(|parameters| format!("outport-{name}; {parameters}"));
        let label = ServedLabel { served };
        Self {
            served,
            cache_status: member.and_then(|member| HeaderValue::try_from(member).ok()),
            requests: metrics.served.get_or_create_owned(&label),
            bytes: metrics.bytes.get_or_create_owned(&label),
        }
    }
}

/// Returns the refusal of what a caller may not have, the same whether it exists or not.
fn closed(caller: &Caller) -> Response<Body> {
    let code = match caller {
        Caller::Anybody => ErrorCode::Unauthorized,
        Caller::User(_) | Caller::Node => ErrorCode::Denied,
    };
    error_response(&code.into())
}

/// Returns the host name that a request came by.
fn host(request: &Request<Body>) -> Option<&str> {
    let authority = request.uri().authority();
    let named = authority.map(http::uri::Authority::as_str);
    named.or_else(|| request.headers().get(HOST)?.to_str().ok())
}

/// Returns how many nodes a request has gone through, or none when it is too many.
fn hops(headers: &HeaderMap) -> Option<u32> {
    let Some(told) = headers.get(OUTPORT_HOPS) else {
        return Some(0);
    };
    let hops = told.to_str().ok()?.parse().ok()?;
    (hops < HOPS_MAX).then_some(hops)
}
