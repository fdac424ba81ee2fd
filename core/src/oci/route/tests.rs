use super::*;
use crate::oci::digest::DigestError;
use crate::oci::error::ApiError;
use http::Uri;
use proptest::prelude::*;

const ID: &str = "0190163d-8694-739b-aea5-966c26f8ad91";
const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

fn digest() -> Digest {
    D.parse().unwrap()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn id() -> Uuid {
    ID.parse().unwrap()
}

fn parse(method: &Method, uri: &str) -> Result<Routed, RouteError> {
    Route::parse(
        method,
        &uri.replace("{D}", D)
            .replace("{ID}", ID)
            .parse::<Uri>()
            .unwrap(),
    )
}

#[track_caller]
fn check(method: &Method, uri: &str, expected: &Route) {
    let routed = parse(method, uri).unwrap();
    assert_eq!(routed.route, *expected, "{method} {uri}");
    let again = Route::parse(
        &routed.route.method(),
        &routed.route.to_uri().parse().unwrap(),
    );
    assert_eq!(again.unwrap().route, *expected, "{}", expected.to_uri());
}

#[track_caller]
fn refused(method: &Method, uri: &str, expected: RouteError) {
    assert_eq!(parse(method, uri), Err(expected), "{method} {uri}");
}

#[test]
fn ping_and_lists() {
    for uri in ["/v2/", "/v2", "/v2/?ns=docker.io"] {
        check(&Method::GET, uri, &Route::Ping);
    }
    check(&Method::HEAD, "/v2/", &Route::Ping);
    check(
        &Method::GET,
        "/v2/_catalog?n=7&last=a%2Fb",
        &Route::ListRepositories {
            page: Paging {
                after: Some(name("a/b")),
                limit: Some(7),
            },
        },
    );
    let tags = |after: Option<&str>, limit| Route::ListTags {
        repository: name("a/b"),
        page: Paging {
            after: after.map(|tag| tag.parse().unwrap()),
            limit,
        },
    };
    check(&Method::GET, "/v2/a/b/tags/list", &tags(None, None));
    check(
        &Method::GET,
        "/v2/a/b/tags/list?n=&last=",
        &tags(None, None),
    );
    check(&Method::GET, "/v2/a/b/tags/list?n=0", &tags(None, Some(0)));
    check(
        &Method::GET,
        "/v2/a/b/tags/list?last=v1&n=5&x=y",
        &tags(Some("v1"), Some(5)),
    );
    check(
        &Method::GET,
        "/v2/a/b/tags/list?n=99999999999999999999",
        &tags(None, Some(u32::MAX)),
    );
    for n in ["-1", "a", "1.5", "+1"] {
        refused(
            &Method::GET,
            &format!("/v2/a/b/tags/list?n={n}"),
            RouteError::Parameter("n"),
        );
    }
    refused(&Method::GET, "/v2/a/tags/list?last=.", RouteError::Tag);
    refused(&Method::GET, "/v2/_catalog?last=A", RouteError::Name);
}

#[test]
fn referrers() {
    let referrers = |artifact_type: Option<&str>| Route::ListReferrers {
        repository: name("a"),
        subject: digest(),
        artifact_type: artifact_type.map(str::to_owned),
        page: Paging::ALL,
    };
    let ty = "application/vnd.example+json";
    check(&Method::GET, "/v2/a/referrers/{D}", &referrers(None));
    for query in [
        "application%2Fvnd.example%2Bjson",
        "application/vnd.example+json",
    ] {
        let uri = format!("/v2/a/referrers/{{D}}?artifactType={query}");
        check(&Method::GET, &uri, &referrers(Some(ty)));
    }
    refused(
        &Method::GET,
        "/v2/a/referrers/sha256:abc",
        RouteError::Digest(DigestError::BadHex { expected: 64 }),
    );
    refused(
        &Method::GET,
        "/v2/a/referrers/latest",
        RouteError::Digest(DigestError::Malformed),
    );
    let long = format!("/v2/a/referrers/{{D}}?artifactType={}", "a".repeat(256));
    refused(&Method::GET, &long, RouteError::Parameter("artifactType"));
    let nul = "/v2/a/referrers/{D}?artifactType=a%00b";
    refused(&Method::GET, nul, RouteError::Parameter("artifactType"));
}

#[test]
fn manifests() {
    let fetch = |repository: &str, by: &str, fetch| Route::FetchManifest {
        repository: name(repository),
        reference: reference(by),
        fetch,
    };
    check(
        &Method::GET,
        "/v2/a/b/manifests/v1",
        &fetch("a/b", "v1", Fetch::Get),
    );
    check(
        &Method::HEAD,
        "/v2/a/manifests/{D}",
        &fetch("a", D, Fetch::Head),
    );
    let encoded = format!("/v2/a/manifests/{}", D.replace(':', "%3A"));
    check(&Method::GET, &encoded, &fetch("a", D, Fetch::Get));
    for repository in [
        "a/manifests/b",
        "manifests",
        "tags/list",
        "blobs/uploads",
        "a/blobs/uploads",
        "v2",
        "referrers/manifests",
    ] {
        let uri = format!("/v2/{repository}/manifests/latest");
        check(&Method::GET, &uri, &fetch(repository, "latest", Fetch::Get));
    }
    check(
        &Method::DELETE,
        "/v2/a/manifests/v1",
        &Route::DeleteManifest {
            repository: name("a"),
            reference: reference("v1"),
        },
    );
    let push = |by: &str, tags: &[&str]| Route::PushManifest {
        repository: name("a"),
        reference: reference(by),
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
    };
    check(&Method::PUT, "/v2/a/manifests/v1", &push("v1", &[]));
    check(&Method::PUT, "/v2/a/manifests/v1?tag=v2", &push("v1", &[]));
    check(
        &Method::PUT,
        "/v2/a/manifests/{D}?tag=b&tag=a&tag=b",
        &push(D, &["b", "a"]),
    );
    refused(
        &Method::PUT,
        "/v2/a/manifests/{D}?tag=b&tag=.",
        RouteError::Tag,
    );
    let tags: Vec<_> = (0..=MAX_TAGS).map(|i| format!("tag=t{i}")).collect();
    let uri = |count: usize| format!("/v2/a/manifests/{{D}}?{}", tags[..count].join("&"));
    assert!(parse(&Method::PUT, &uri(MAX_TAGS)).is_ok());
    refused(&Method::PUT, &uri(MAX_TAGS + 1), RouteError::TooManyTags);
}

#[test]
fn references_outside_the_grammar() {
    let bad_hex = RouteError::Digest(DigestError::BadHex { expected: 64 });
    for method in [Method::GET, Method::HEAD, Method::DELETE] {
        refused(&method, "/v2/a/manifests/.bad", RouteError::ManifestUnknown);
        refused(&method, "/v2/a/manifests/", RouteError::ManifestUnknown);
        refused(
            &method,
            "/v2/a/manifests/blake3:ab",
            RouteError::ManifestUnknown,
        );
        refused(&method, "/v2/a/manifests/sha256:bad", bad_hex);
        refused(&method, "/v2/a/blobs/blake3:ab", RouteError::BlobUnknown);
        refused(&method, "/v2/a/blobs/sha256:bad", bad_hex);
        refused(
            &method,
            "/v2/a/blobs/bad",
            RouteError::Digest(DigestError::Malformed),
        );
    }
    refused(&Method::PUT, "/v2/a/manifests/.bad", RouteError::Tag);
    refused(&Method::PUT, "/v2/a/manifests/sha256:bad", bad_hex);
    refused(
        &Method::PUT,
        "/v2/a/manifests/blake3:ab",
        RouteError::Digest(DigestError::UnknownAlgorithm),
    );
}

#[test]
fn blobs() {
    let fetch = |repository: &str, fetch| Route::FetchBlob {
        repository: name(repository),
        digest: digest(),
        fetch,
    };
    check(&Method::GET, "/v2/a/blobs/{D}", &fetch("a", Fetch::Get));
    check(&Method::HEAD, "/v2/a/blobs/{D}", &fetch("a", Fetch::Head));
    check(
        &Method::GET,
        "/v2/a/blobs/b/blobs/{D}",
        &fetch("a/blobs/b", Fetch::Get),
    );
    check(
        &Method::DELETE,
        "/v2/a/blobs/{D}",
        &Route::DeleteBlob {
            repository: name("a"),
            digest: digest(),
        },
    );
}

#[test]
fn starting_an_upload() {
    let start = |algorithm| Route::StartUpload {
        repository: name("a"),
        algorithm,
    };
    let mount = |from: Option<&str>| Route::MountBlob {
        repository: name("a"),
        digest: digest(),
        from: from.map(name),
    };
    let uri = |query: &str| format!("/v2/a/blobs/uploads/{query}");
    let sha256 = start(Algorithm::Sha256);
    check(&Method::POST, &uri(""), &sha256);
    check(&Method::POST, "/v2/a/blobs/uploads", &sha256);
    check(
        &Method::POST,
        &uri("?digest-algorithm=sha512"),
        &start(Algorithm::Sha512),
    );
    check(
        &Method::POST,
        &uri("?digest={D}"),
        &Route::PushBlob {
            repository: name("a"),
            digest: digest(),
        },
    );
    check(&Method::POST, &uri("?mount={D}"), &mount(None));
    check(&Method::POST, &uri("?mount={D}&from="), &mount(None));
    check(
        &Method::POST,
        &uri("?from=b%2Fc&mount={D}"),
        &mount(Some("b/c")),
    );
    // A mount that makes no sense is never an error, and never one from anywhere.
    check(&Method::POST, &uri("?mount=bad&from=b"), &sha256);
    check(&Method::POST, &uri("?mount={D}&from=B"), &sha256);
    check(&Method::POST, &uri("?from=b"), &sha256);
    refused(
        &Method::POST,
        &uri("?digest=bad"),
        RouteError::Digest(DigestError::Malformed),
    );
    refused(
        &Method::POST,
        &uri("?digest-algorithm=md5"),
        RouteError::Digest(DigestError::UnknownAlgorithm),
    );
}

#[test]
fn an_upload() {
    let repository = || name("a/b");
    let uri = "/v2/a/b/blobs/uploads/{ID}";
    let status = Route::UploadStatus {
        repository: repository(),
        id: id(),
    };
    check(&Method::GET, uri, &status);
    // Whatever was asked for last, its address answers for the session.
    check(&Method::GET, "/v2/a/b/blobs/uploads/{ID}?digest=x", &status);
    check(
        &Method::PATCH,
        uri,
        &Route::AppendUpload {
            repository: repository(),
            id: id(),
        },
    );
    check(
        &Method::PUT,
        "/v2/a/b/blobs/uploads/{ID}?_state=x&digest=sha256%3A{D}"
            .replace("sha256%3A{D}", &D.replace(':', "%3A"))
            .as_str(),
        &Route::FinishUpload {
            repository: repository(),
            id: id(),
            digest: digest(),
        },
    );
    check(
        &Method::DELETE,
        uri,
        &Route::CancelUpload {
            repository: repository(),
            id: id(),
        },
    );
    refused(
        &Method::PUT,
        uri,
        RouteError::Digest(DigestError::Malformed),
    );
    for session in ["x", "0190163d8694739baea5966c26f8ad91", "{ID}x", ".."] {
        let uri = format!("/v2/a/blobs/uploads/{session}");
        refused(&Method::PATCH, &uri, RouteError::UploadUnknown);
    }
    let upper = format!("/v2/a/blobs/uploads/{}", ID.to_uppercase());
    refused(&Method::PATCH, &upper, RouteError::UploadUnknown);
}

#[test]
fn what_is_not_there() {
    for uri in [
        "/",
        "/v1/",
        "/v2x",
        "/v3/a/manifests/b",
        "/v2/a",
        "/v2/a/b/c",
        "/v2//",
        "/v2/a/tags/",
        "/v2/a/tags/list/",
        "/v2/a/tags/latest",
        "/v2/a/uploads/x",
        "/healthz",
        "/v2/_catalog/",
    ] {
        refused(&Method::GET, uri, RouteError::NotFound);
    }
    for uri in [
        "/v2/A/manifests/latest",
        "/v2/manifests/latest",
        "/v2//manifests/latest",
        "/v2/a/../manifests/latest",
        "/v2/a%2Fb/manifests/latest",
        "/v2/a%252Fb/manifests/latest",
        "/v2/a%00/manifests/latest",
        "/v2/%ff/manifests/latest",
        "/v2/a%zz/manifests/latest",
        "/v2/a/manifests/x%2Fy",
        "/v2/tags/list",
        "/v2/a//b/tags/list",
    ] {
        refused(&Method::GET, uri, RouteError::Name);
    }
}

#[test]
fn methods() {
    #[track_caller]
    fn check(method: &Method, uri: &str, allowed: &'static str) {
        refused(method, uri, RouteError::Method(allowed));
        let error = ApiError::from(RouteError::Method(allowed));
        assert_eq!(error.allow(), Some(allowed));
    }
    check(&Method::POST, "/v2/", "GET, HEAD");
    check(&Method::PUT, "/v2/_catalog", "GET, HEAD");
    check(&Method::DELETE, "/v2/a/tags/list", "GET, HEAD");
    check(&Method::PUT, "/v2/a/referrers/{D}", "GET, HEAD");
    check(
        &Method::POST,
        "/v2/a/manifests/v1",
        "GET, HEAD, PUT, DELETE",
    );
    check(&Method::OPTIONS, "/v2/a/blobs/{D}", "GET, HEAD, DELETE");
    check(&Method::GET, "/v2/a/blobs/uploads/", "POST");
    check(
        &Method::POST,
        "/v2/a/blobs/uploads/{ID}",
        "GET, HEAD, PATCH, PUT, DELETE",
    );
}

#[test]
fn namespaces() {
    let ns = |uri: &str| parse(&Method::GET, uri).map(|routed| routed.ns);
    assert_eq!(ns("/v2/a/manifests/v1"), Ok(None));
    assert_eq!(ns("/v2/a/manifests/v1?ns="), Ok(None));
    assert_eq!(
        ns("/v2/a/manifests/v1?ns=ghcr.io%3A443"),
        Ok(Some("ghcr.io:443".to_owned()))
    );
    let long = format!("/v2/?ns={}", "a".repeat(256));
    assert_eq!(ns(&long), Err(RouteError::Parameter("ns")));
}

#[test]
fn errors_have_the_specification_s_codes() {
    #[track_caller]
    fn check(error: RouteError, status: u16, code: &str) {
        let error = ApiError::from(error);
        assert_eq!(error.code().status().as_u16(), status);
        assert_eq!(error.code().wire_name(), code);
    }
    check(RouteError::NotFound, 404, "UNSUPPORTED");
    check(RouteError::Method("GET"), 405, "UNSUPPORTED");
    check(RouteError::Name, 400, "NAME_INVALID");
    check(RouteError::Tag, 400, "NAME_INVALID");
    check(
        RouteError::Digest(DigestError::Malformed),
        400,
        "DIGEST_INVALID",
    );
    check(RouteError::ManifestUnknown, 404, "MANIFEST_UNKNOWN");
    check(RouteError::BlobUnknown, 404, "BLOB_UNKNOWN");
    check(RouteError::UploadUnknown, 404, "BLOB_UPLOAD_UNKNOWN");
    check(RouteError::Parameter("n"), 400, "UNSUPPORTED");
    check(RouteError::TooManyTags, 414, "UNSUPPORTED");
}

fn any_name() -> impl Strategy<Value = RepoName> {
    "(manifests|blobs|uploads|tags|list|referrers|[a-z0-9]{1,4})(/(manifests|blobs|uploads|tags|list|referrers|[a-z0-9._-]{1,4}[a-z])){0,4}"
        .prop_filter_map("a name", |text| text.parse().ok())
}

fn any_tag() -> impl Strategy<Value = Tag> {
    "uploads|list|[a-zA-Z0-9_][a-zA-Z0-9._-]{0,9}".prop_map(|text| text.parse().unwrap())
}

fn any_digest() -> impl Strategy<Value = Digest> {
    (any::<bool>(), any::<u8>()).prop_map(|(sha512, seed)| {
        if sha512 {
            Algorithm::Sha512
        } else {
            Algorithm::Sha256
        }
        .digest(&[seed])
    })
}

fn any_reference() -> impl Strategy<Value = Reference> {
    prop_oneof![
        any_tag().prop_map(Reference::Tag),
        any_digest().prop_map(Reference::Digest)
    ]
}

fn any_page<T: Clone + std::fmt::Debug>(
    after: impl Strategy<Value = T>,
) -> impl Strategy<Value = Paging<T>> {
    (prop::option::of(after), any::<Option<u32>>())
        .prop_map(|(after, limit)| Paging { after, limit })
}

fn any_fetch() -> impl Strategy<Value = Fetch> {
    prop_oneof![Just(Fetch::Get), Just(Fetch::Head)]
}

fn any_push() -> impl Strategy<Value = Route> {
    let id = any::<u128>().prop_map(Uuid::from_u128);
    prop_oneof![
        (any_name(), any_digest())
            .prop_map(|(repository, digest)| Route::PushBlob { repository, digest }),
        (
            any_name(),
            prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)]
        )
            .prop_map(|(repository, algorithm)| Route::StartUpload {
                repository,
                algorithm
            }),
        (any_name(), any_digest(), prop::option::of(any_name())).prop_map(
            |(repository, digest, from)| Route::MountBlob {
                repository,
                digest,
                from
            }
        ),
        (any_name(), id.clone())
            .prop_map(|(repository, id)| Route::AppendUpload { repository, id }),
        (any_name(), id, any_digest()).prop_map(|(repository, id, digest)| Route::FinishUpload {
            repository,
            id,
            digest
        }),
    ]
}

fn any_route() -> impl Strategy<Value = Route> {
    prop_oneof![
        Just(Route::Ping),
        any_page(any_name()).prop_map(|page| Route::ListRepositories { page }),
        (any_name(), any_reference(), any_fetch()).prop_map(|(repository, reference, fetch)| {
            Route::FetchManifest {
                repository,
                reference,
                fetch,
            }
        }),
        (
            any_name(),
            any_digest(),
            prop::collection::btree_set(any_tag(), 0..5)
        )
            .prop_map(|(repository, digest, tags)| Route::PushManifest {
                repository,
                reference: Reference::Digest(digest),
                tags: tags.into_iter().collect(),
            }),
        (any_name(), any_reference()).prop_map(|(repository, reference)| Route::DeleteManifest {
            repository,
            reference
        }),
        (any_name(), any_digest(), any_fetch()).prop_map(|(repository, digest, fetch)| {
            Route::FetchBlob {
                repository,
                digest,
                fetch,
            }
        }),
        any_push(),
        (any_name(), any_page(any_tag()))
            .prop_map(|(repository, page)| Route::ListTags { repository, page }),
        (
            any_name(),
            any_digest(),
            prop::option::of("[!-~]{1,20}"),
            any_page(any_digest())
        )
            .prop_map(
                |(repository, subject, artifact_type, page)| Route::ListReferrers {
                    repository,
                    subject,
                    artifact_type,
                    page
                }
            ),
    ]
}

proptest! {
    #[test]
    fn every_route_has_its_uri(route in any_route()) {
        let uri: Uri = route.to_uri().parse().unwrap();
        prop_assert_eq!(Route::parse(&route.method(), &uri), Ok(Routed { route, ns: None }));
    }

    #[test]
    fn never_panics(method in "GET|HEAD|PUT|POST|PATCH|DELETE|X", path in "/v2(/(a|%2[Ff]|%|manifests|blobs|uploads|tags|list|[!-~]{0,5})){0,6}", query in "([!-~&&[^#]]|&|=|tag=|digest=|n=|last=){0,20}") {
        if let Ok(uri) = format!("{path}?{query}").parse::<Uri>()
            && let Ok(routed) = Route::parse(&method.parse().unwrap(), &uri)
        {
            let again = Route::parse(&routed.route.method(), &routed.route.to_uri().parse().unwrap());
            prop_assert_eq!(again.unwrap().route, routed.route);
        }
    }
}
