//! From method, path and query to a route.

use std::borrow::Cow;
use std::str::FromStr;

use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::{Fetch, MAX_PARAMETER_LEN, MAX_TAGS, Paging, Route, RouteError, Routed};
use crate::oci::digest::{Algorithm, Digest, DigestError};
use crate::oci::reference::{Reference, RepoName, Tag};

/// A path, before its parts are known to be well-formed.
#[derive(Clone, Copy)]
enum Path<'a> {
    Ping,
    Catalog,
    Manifest(Name<'a>, &'a str),
    Blob(Name<'a>, &'a str),
    Uploads(Name<'a>),
    Upload(Name<'a>, &'a str),
    Tags(Name<'a>),
    Referrers(Name<'a>, &'a str),
}

/// The segments of a repository's name.
type Name<'a> = &'a [Cow<'a, str>];

struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

// === impl Route ===

impl Route {
    /// Returns what a request is for.
    pub fn parse(method: &Method, uri: &Uri) -> Result<Routed, RouteError> {
        let segments = segments(uri.path())?;
        let path = Path::parse(&segments)?;
        let query = Query::parse(uri.query().unwrap_or_default());
        Ok(Routed {
            route: path.route(method, &query)?,
            ns: query.short("ns")?,
        })
    }
}

/// Returns the decoded segments behind `/v2/`.
fn segments(path: &str) -> Result<Vec<Cow<'_, str>>, RouteError> {
    let path = match path.strip_prefix("/v2") {
        Some("") => "",
        Some(rest) => rest.strip_prefix('/').ok_or(RouteError::NotFound)?,
        None => return Err(RouteError::NotFound),
    };
    path.split('/')
        .map(|segment| {
            // As nearly all are.
            if !segment.contains('%') {
                return Ok(Cow::Borrowed(segment));
            }
            match percent_decode_str(segment).decode_utf8() {
                Ok(decoded) if !decoded.contains('/') => Ok(decoded),
                _ => Err(RouteError::Name),
            }
        })
        .collect()
}

// === impl Path ===

impl<'a> Path<'a> {
    fn parse(segments: &'a [Cow<'a, str>]) -> Result<Self, RouteError> {
        let [name @ .., parent, last] = segments else {
            return match segments {
                [only] if only.is_empty() => Ok(Self::Ping),
                [only] if only == "_catalog" => Ok(Self::Catalog),
                _ => Err(RouteError::NotFound),
            };
        };
        Ok(match (parent.as_ref(), last.as_ref()) {
            ("manifests", reference) => Self::Manifest(name, reference),
            ("referrers", digest) => Self::Referrers(name, digest),
            ("tags", "list") => Self::Tags(name),
            ("blobs", "uploads") => Self::Uploads(name),
            ("blobs", digest) => Self::Blob(name, digest),
            ("uploads", id) => match name {
                [name @ .., blobs] if blobs == "blobs" && id.is_empty() => Self::Uploads(name),
                [name @ .., blobs] if blobs == "blobs" => Self::Upload(name, id),
                _ => return Err(RouteError::NotFound),
            },
            _ => return Err(RouteError::NotFound),
        })
    }

    fn route(self, method: &Method, query: &Query<'_>) -> Result<Route, RouteError> {
        match self {
            Self::Ping => read_only(method).map(|()| Route::Ping),
            Self::Catalog => {
                read_only(method)?;
                let page = query.page(|last| last.parse().or(Err(RouteError::Name)))?;
                Ok(Route::ListRepositories { page })
            }
            Self::Manifest(name, reference) => {
                manifest(method, repository(name)?, reference, query)
            }
            Self::Blob(name, digest) => blob(method, repository(name)?, digest),
            Self::Uploads(name) => uploads(method, repository(name)?, query),
            Self::Upload(name, id) => upload(method, repository(name)?, id, query),
            Self::Tags(name) => {
                read_only(method)?;
                Ok(Route::ListTags {
                    repository: repository(name)?,
                    page: query.page(|last| last.parse().or(Err(RouteError::Tag)))?,
                })
            }
            Self::Referrers(name, digest) => {
                read_only(method)?;
                Ok(Route::ListReferrers {
                    repository: repository(name)?,
                    subject: digest.parse()?,
                    // A media type holds no blank, so a bare plus sign, which a query decodes to one, was meant as such.
                    artifact_type: query.short("artifactType")?.map(|ty| ty.replace(' ', "+")),
                    page: query.page(|last| Ok(last.parse()?))?,
                })
            }
        }
    }
}

fn read_only(method: &Method) -> Result<(), RouteError> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(RouteError::Method("GET, HEAD")),
    }
}

fn repository(name: Name<'_>) -> Result<RepoName, RouteError> {
    name.join("/").parse().or(Err(RouteError::Name))
}

fn manifest(
    method: &Method,
    repository: RepoName,
    reference: &str,
    query: &Query<'_>,
) -> Result<Route, RouteError> {
    let existing = || {
        parse_reference(
            reference,
            RouteError::ManifestUnknown,
            RouteError::ManifestUnknown,
        )
    };
    match *method {
        Method::GET | Method::HEAD => Ok(Route::FetchManifest {
            reference: existing()?,
            repository,
            fetch: fetch(method),
        }),
        Method::DELETE => Ok(Route::DeleteManifest {
            reference: existing()?,
            repository,
        }),
        Method::PUT => {
            let unknown = RouteError::Digest(DigestError::UnknownAlgorithm);
            let reference = parse_reference(reference, RouteError::Tag, unknown)?;
            let tags = match reference {
                Reference::Digest(_) => query.tags()?,
                Reference::Tag(_) => Vec::new(),
            };
            Ok(Route::PushManifest {
                repository,
                reference,
                tags,
            })
        }
        _ => Err(RouteError::Method("GET, HEAD, PUT, DELETE")),
    }
}

/// Parses a tag or digest, with what a bad tag and an unknown algorithm come to.
fn parse_reference(
    text: &str,
    bad_tag: RouteError,
    unknown_algorithm: RouteError,
) -> Result<Reference, RouteError> {
    if text.contains(':') {
        parse_digest(text, unknown_algorithm).map(Reference::Digest)
    } else {
        text.parse().map(Reference::Tag).or(Err(bad_tag))
    }
}

/// Parses a digest, with what an unknown algorithm comes to.
fn parse_digest(text: &str, unknown_algorithm: RouteError) -> Result<Digest, RouteError> {
    text.parse().map_err(|error| match error {
        DigestError::UnknownAlgorithm => unknown_algorithm,
        DigestError::Malformed | DigestError::BadHex { .. } => RouteError::Digest(error),
    })
}

fn blob(method: &Method, repository: RepoName, digest: &str) -> Result<Route, RouteError> {
    let digest = || parse_digest(digest, RouteError::BlobUnknown);
    match *method {
        Method::GET | Method::HEAD => Ok(Route::FetchBlob {
            repository,
            digest: digest()?,
            fetch: fetch(method),
        }),
        Method::DELETE => Ok(Route::DeleteBlob {
            repository,
            digest: digest()?,
        }),
        _ => Err(RouteError::Method("GET, HEAD, DELETE")),
    }
}

fn fetch(method: &Method) -> Fetch {
    if *method == Method::HEAD {
        Fetch::Head
    } else {
        Fetch::Get
    }
}

fn uploads(method: &Method, repository: RepoName, query: &Query<'_>) -> Result<Route, RouteError> {
    if *method != Method::POST {
        return Err(RouteError::Method("POST"));
    }
    if let Some(mount) = query.mount(&repository) {
        return Ok(mount);
    }
    if let Some(digest) = query.first("digest") {
        return Ok(Route::PushBlob {
            repository,
            digest: digest.parse()?,
        });
    }
    let algorithm = query
        .first("digest-algorithm")
        .map_or(Ok(Algorithm::default()), Algorithm::from_str)?;
    Ok(Route::StartUpload {
        repository,
        algorithm,
    })
}

fn upload(
    method: &Method,
    repository: RepoName,
    id: &str,
    query: &Query<'_>,
) -> Result<Route, RouteError> {
    let session = || parse_session(id).ok_or(RouteError::UploadUnknown);
    match *method {
        Method::GET | Method::HEAD => Ok(Route::UploadStatus {
            repository,
            id: session()?,
        }),
        Method::PATCH => Ok(Route::AppendUpload {
            repository,
            id: session()?,
        }),
        Method::PUT => Ok(Route::FinishUpload {
            repository,
            id: session()?,
            digest: query.first("digest").unwrap_or_default().parse()?,
        }),
        Method::DELETE => Ok(Route::CancelUpload {
            repository,
            id: session()?,
        }),
        _ => Err(RouteError::Method("GET, HEAD, PATCH, PUT, DELETE")),
    }
}

/// Parses a session's id in the one spelling that we give out, of the several that a UUID has.
fn parse_session(id: &str) -> Option<Uuid> {
    let parsed = Uuid::try_parse(id).ok()?;
    (parsed.to_string() == id).then_some(parsed)
}

// === impl Query ===

impl<'a> Query<'a> {
    fn parse(query: &'a str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).collect())
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_ref())
    }

    /// Returns the first value that is not empty.
    fn first(&self, key: &str) -> Option<&str> {
        self.all(key).find(|value| !value.is_empty())
    }

    /// Returns the first value, if it is of a size that one would expect.
    fn short(&self, key: &'static str) -> Result<Option<String>, RouteError> {
        match self.first(key) {
            // Nothing that these name has control characters, and not every database takes a NUL.
            Some(value) if value.len() > MAX_PARAMETER_LEN || value.contains(char::is_control) => {
                Err(RouteError::Parameter(key))
            }
            value => Ok(value.map(str::to_owned)),
        }
    }

    fn page<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, RouteError>,
    ) -> Result<Paging<T>, RouteError> {
        let limit = match self.first("n") {
            Some(n) if n.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(n.parse().unwrap_or(u32::MAX))
            }
            Some(_) => return Err(RouteError::Parameter("n")),
            None => None,
        };
        let after = self.first("last").map(parse).transpose()?;
        Ok(Paging { after, limit })
    }

    fn tags(&self) -> Result<Vec<Tag>, RouteError> {
        let mut tags = Vec::new();
        for tag in self.all("tag") {
            let tag = tag.parse().or(Err(RouteError::Tag))?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
            if tags.len() > MAX_TAGS {
                return Err(RouteError::TooManyTags);
            }
        }
        Ok(tags)
    }

    /// Returns a mount that makes sense.
    ///
    /// One that does not is as one that cannot be done: a session is started, as clients rely on. A bad `from` is no missing
    /// one, which would ask for the blob of any repository.
    fn mount(&self, repository: &RepoName) -> Option<Route> {
        let digest = self.first("mount")?.parse().ok()?;
        let from = match self.first("from") {
            Some(from) => Some(from.parse().ok()?),
            None => None,
        };
        Some(Route::MountBlob {
            repository: repository.clone(),
            digest,
            from,
        })
    }
}
