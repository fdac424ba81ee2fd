//! What an operator asks of a running edge, on its admin listener.
//!
//! `GET`, `POST` and `DELETE /pins?image=NAME`: what is never evicted. `GET /pins` and `GET /pins/images`: all of that, and for
//! which images. `POST /purge?image=NAME`: a tag is asked for anew, unless it is frozen. `GET`, `PUT` and `DELETE /frozen`:
//! whether the tags of upstreams stay where they are.
//!
//! Invariants: an image is called as a client calls it, by tag or digest. A pin is of what a tag points at when it is pinned,
//! and does not follow it; it is let go as it was written down, whatever has become of the image and of who has it. Failure:
//! what could not be done is said in the form of the API's errors; a pin that could not be made changes nothing.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use outport_core::access::Caller;
use outport_core::body::Body;
use outport_core::net::respond::{error_response, small, with_allow};
use outport_core::oci::digest::Digest;
use outport_core::oci::error::{ApiError, ErrorCode};
use outport_core::oci::manifest::Manifest;
use outport_core::oci::media::JSON;
use outport_core::oci::reference::{Reference, RepoName};
use outport_core::oci::route::{Fetch, Route, Routed};
use tokio::task::spawn_blocking;

use crate::resolve::hosted::Whose;
use crate::resolve::{Resolver, Waiting};

/// Answers operators.
#[derive(Debug)]
pub struct Operations {
    resolver: Resolver,
}

/// An image, as it is called here.
struct Image {
    repo: RepoName,
    reference: Reference,
}

/// How many manifests an image is followed through: an index of indexes is unusual, one of all platforms is not.
const MANIFESTS_MAX: usize = 1000;

// === impl Operations ===

impl Operations {
    /// Returns them for what `resolver` serves.
    pub const fn new(resolver: Resolver) -> Self {
        Self { resolver }
    }

    /// Answers a request.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        match self.answer(&method, &uri).await {
            Ok(response) => response,
            Err(error) => error_response(&error),
        }
    }

    async fn answer(&self, method: &Method, uri: &Uri) -> Result<Response<Body>, ApiError> {
        match (uri.path(), method) {
            ("/pins", &Method::GET) => self.pins(uri),
            ("/pins", &Method::POST) => self.pin(&self.image(&named(uri)?).await?).await,
            ("/pins", &Method::DELETE) => self.unpin(&named(uri)?).await,
            ("/pins/images", &Method::GET) => Ok(list(&self.resolver.cache().pinned_images())),
            ("/purge", &Method::POST) => self.purge(&named(uri)?).await,
            ("/frozen", &Method::GET) => {
                let is_frozen = self.resolver.registries().frozen().is_set();
                Ok(json(is_frozen.to_string()))
            }
            ("/frozen", &Method::PUT) => self.freeze(true).await,
            ("/frozen", &Method::DELETE) => self.freeze(false).await,
            ("/pins", _) => Ok(refused(&[Method::GET, Method::POST, Method::DELETE])),
            ("/pins/images", _) => Ok(refused(&[Method::GET])),
            ("/purge", _) => Ok(refused(&[Method::POST])),
            ("/frozen", _) => Ok(refused(&[Method::GET, Method::PUT, Method::DELETE])),
            _ => Err(ErrorCode::NotFound.into()),
        }
    }

    /// Returns the images that may be meant by a name, called as they are here.
    fn images(&self, text: &str) -> Result<Vec<Image>, ApiError> {
        let bad = |_| ApiError::new(ErrorCode::NameInvalid);
        let (repo, reference) = match (text.split_once('@'), text.rsplit_once(':')) {
            (Some((repo, digest)), _) => (repo, digest),
            (None, Some((repo, tag))) if !tag.contains('/') => (repo, tag),
            (None, _) => (text, "latest"),
        };
        let routed = Routed {
            route: Route::FetchManifest {
                repository: repo.parse().map_err(bad)?,
                reference: reference.parse().map_err(bad)?,
                fetch: Fetch::Get,
            },
            ns: None,
        };
        let addressed = self
            .resolver
            .registries()
            .address(routed, None, &Caller::Node)?;
        let meant = [Some(addressed.route), addressed.otherwise];
        let images = meant.into_iter().flatten().map(|route| match route {
            Route::FetchManifest {
                repository: repo,
                reference,
                ..
            } => Ok(Image { repo, reference }),
            _ => Err(ErrorCode::NameInvalid.into()),
        });
        images.collect()
    }

    /// Returns the image that is here, or is to be asked for: of two, the default upstream's when the origin does not know it.
    async fn image(&self, text: &str) -> Result<Image, ApiError> {
        let mut images = self.images(text)?.into_iter();
        match (images.next(), images.next()) {
            (Some(hosted), Some(upstreams)) => {
                let there = self.resolver.registries().of(&upstreams.repo);
                match self.resolver.whose(&hosted.repo, there, None).await {
                    Whose::Hosted | Whose::Unknown(_) => Ok(hosted),
                    Whose::Upstream | Whose::UpstreamLately(_) | Whose::UpstreamSoFar => {
                        Ok(upstreams)
                    }
                }
            }
            (Some(image), _) => Ok(image),
            (None, _) => Err(ErrorCode::NameInvalid.into()),
        }
    }

    /// Returns the name by which an image is pinned, without asking anybody: of two, the hosted one's.
    fn pinned(&self, text: &str) -> Result<String, ApiError> {
        let cache = self.resolver.cache();
        let is_pinned = |name: &String| cache.pins_of(name).is_some();
        // As it was written down, even if it would be called otherwise by now.
        let as_given = Some(text.to_owned()).filter(is_pinned);
        if let Some(name) = as_given {
            return Ok(name);
        }
        let images = self.images(text)?;
        let mut names = images.iter().map(Image::to_string);
        names.find(is_pinned).ok_or_else(not_pinned)
    }

    fn pins(&self, uri: &Uri) -> Result<Response<Body>, ApiError> {
        let cache = self.resolver.cache();
        let Ok(text) = named(uri) else {
            return Ok(list(&cache.pins()));
        };
        let name = self.pinned(&text)?;
        let pins = cache.pins_of(&name).ok_or_else(not_pinned)?;
        Ok(list(&pins))
    }

    async fn pin(&self, image: &Image) -> Result<Response<Body>, ApiError> {
        let parts = self.parts(image).await?;
        let (name, pinned) = (image.to_string(), parts.clone());
        let cache = self.resolver.cache().clone();
        match spawn_blocking(move || cache.pin(name, pinned)).await {
            Ok(Ok(())) => Ok(list(&parts)),
            Ok(Err(error)) => Err(ApiError::new(ErrorCode::InsufficientStorage)
                .with_message("too many pins")
                .with_source(error)),
            Err(error) => Err(ApiError::new(ErrorCode::Internal).with_source(error)),
        }
    }

    async fn unpin(&self, text: &str) -> Result<Response<Body>, ApiError> {
        let name = self.pinned(text)?;
        let cache = self.resolver.cache().clone();
        let released = spawn_blocking(move || cache.unpin(&name)).await;
        let released = released
            .map_err(|error| ApiError::new(ErrorCode::Internal).with_source(error))?
            .ok_or_else(not_pinned)?;
        Ok(list(&released))
    }

    /// Has an image asked for anew. Not a tag that is to stay where it is: it would move to where it points now.
    async fn purge(&self, text: &str) -> Result<Response<Body>, ApiError> {
        let registries = self.resolver.registries();
        let stays = |image: &Image| {
            let is_tag = matches!(image.reference, Reference::Tag(_));
            is_tag && registries.frozen().is_set() && registries.upstream(&image.repo).is_some()
        };
        let (frozen, images): (Vec<_>, Vec<_>) = self.images(text)?.into_iter().partition(stays);
        if images.is_empty() && !frozen.is_empty() {
            return Err(ApiError::new(ErrorCode::PreconditionFailed)
                .with_message("the tags of upstreams are frozen: DELETE /frozen first"));
        }
        for Image { repo, reference } in images {
            self.resolver.purge_manifest(&repo, &reference).await;
        }
        Ok(done())
    }

    async fn freeze(&self, is_frozen: bool) -> Result<Response<Body>, ApiError> {
        let frozen = self.resolver.registries().frozen().clone();
        let setting = spawn_blocking(move || frozen.set(is_frozen)).await;
        setting
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map(|()| done())
            .map_err(|error| ApiError::new(ErrorCode::Internal).with_source(error))
    }

    /// Returns what an image is made of: itself, and what its manifests name, of which those of an index that are not here
    /// name nothing yet.
    async fn parts(&self, image: &Image) -> Result<BTreeSet<Digest>, ApiError> {
        let resolved = self
            .resolver
            .manifest(&image.repo, &image.reference, Waiting::now())
            .await?;
        let size_max = self.resolver.manifest_bytes_max();
        let mut parts = BTreeSet::from([resolved.manifest.digest]);
        let mut contents = vec![resolved.manifest.content];
        let mut looked_at = 0;
        while let Some(content) = contents.pop() {
            looked_at += 1;
            let Ok(manifest) = Manifest::parse(None, &content) else {
                continue;
            };
            parts.extend(manifest.blobs());
            for child in manifest.children() {
                if parts.insert(child)
                    && looked_at + contents.len() < MANIFESTS_MAX
                    && let Some(content) = self.resolver.cache().content(&child, size_max).await
                {
                    contents.push(content);
                }
            }
        }
        Ok(parts)
    }
}

// === impl Image ===

impl Display for Image {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { repo, reference } = self;
        match reference {
            Reference::Tag(tag) => write!(f, "{repo}:{tag}"),
            Reference::Digest(digest) => write!(f, "{repo}@{digest}"),
        }
    }
}

/// Returns the name of the image that a request is about.
fn named(uri: &Uri) -> Result<String, ApiError> {
    let query = uri.query().unwrap_or_default().as_bytes();
    let mut parameters = form_urlencoded::parse(query);
    let image = parameters.find(|(key, _)| key == "image");
    let (_, text) = image.ok_or_else(|| {
        ApiError::new(ErrorCode::BadRequest).with_message("which ?image= is it about")
    })?;
    Ok(text.into_owned())
}

fn not_pinned() -> ApiError {
    ApiError::new(ErrorCode::NotFound).with_message("nothing is pinned by this name")
}

/// Answers with digests or names, in which nothing needs escaping.
fn list<'a, T: Display + 'a>(texts: impl IntoIterator<Item = &'a T>) -> Response<Body> {
    let texts = texts.into_iter().map(|text| format!("\"{text}\""));
    json(format!("[{}]", texts.collect::<Vec<_>>().join(",")))
}

fn json(text: String) -> Response<Body> {
    small(HeaderValue::from_static(JSON), text.into_bytes())
}

fn done() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn refused(allowed: &[Method]) -> Response<Body> {
    with_allow(error_response(&ErrorCode::MethodNotAllowed.into()), allowed)
}
