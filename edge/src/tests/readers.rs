//! Upstreams from which not everybody may pull.

mod siblings;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use http::header::{AUTHORIZATION, IF_NONE_MATCH, RANGE, WWW_AUTHENTICATE};
use tempfile::TempDir;
use tokio::time::timeout;

use super::origin::ScriptedOrigin;
use super::upstreams::scripted::ScriptedUpstream;
use super::upstreams::{Rig, manifest};
use super::{Answer, Begun, PATIENCE, RunningEdge, blob_path, content, sha256};

/// Their passwords are `secret` and `other`.
const USERS: &str = "alice:$2b$04$VprzhVKA06LJiNmQc2ry/.dKdVOfAvUIUpvzuMeLL6FOJOJaVF9aW\n\
                     bob:$2b$04$zPsP0mPYc1RKIal3eaJgS.cwiL1Wbd//qUzMDuyIfx7E/RRBCLNPq\n";

/// What a user shows, or nothing.
type Shown = Option<&'static str>;

const ANYBODY: Shown = None;
const ALICE: Shown = Some("Basic YWxpY2U6c2VjcmV0");
const BOB: Shown = Some("Basic Ym9iOm90aGVy");

const KEY: &str = "access.key=0123456789abcdef0123456789abcdef";
const FOR_ALICE: &str = "upstream.0.readers=[\"alice\"]";

/// Returns a file of users, and the setting that names it.
fn users() -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("users");
    std::fs::write(&path, USERS).unwrap();
    let set = format!("access.users={}", path.display());
    (directory, set)
}

async fn ask(edge: &RunningEdge, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    edge.begin(method, path, headers).await.finish().await
}

async fn get(edge: &RunningEdge, shown: Shown, path: &str) -> Answer {
    let shown: Vec<_> = shown
        .map(|shown| (AUTHORIZATION.as_str(), shown))
        .into_iter()
        .collect();
    ask(edge, Method::GET, path, &shown).await
}

/// Returns what a user who may not is told.
const fn refusal(shown: Shown) -> u16 {
    if shown.is_some() { 403 } else { 401 }
}

/// An image of one layer.
struct Image {
    manifest: Bytes,
    blob: Bytes,
}

impl Image {
    fn new() -> Self {
        Self {
            manifest: manifest("a"),
            blob: content(100_000, 1),
        }
    }

    fn put(&self, upstream: &ScriptedUpstream) {
        upstream.put_manifest("org/app", "1", &self.manifest);
        upstream.put_blob("org/app", &self.blob);
        let tags = Bytes::from(r#"{"name":"org/app","tags":["1"]}"#);
        upstream.put_list("/v2/org/app/tags/list", &tags, "");
    }

    /// Returns all that can be asked of it in a repository.
    fn questions(&self, name: &str) -> [(Method, String); 7] {
        let [manifest, blob] = [&self.manifest, &self.blob].map(|content| sha256(content));
        [
            (Method::GET, format!("/v2/{name}/manifests/1")),
            (Method::HEAD, format!("/v2/{name}/manifests/1")),
            (Method::GET, format!("/v2/{name}/manifests/{manifest}")),
            (Method::GET, format!("/v2/{name}/blobs/{blob}")),
            (Method::HEAD, format!("/v2/{name}/blobs/{blob}")),
            (Method::GET, format!("/v2/{name}/tags/list")),
            (Method::GET, format!("/v2/{name}/referrers/{manifest}")),
        ]
    }

    /// Asks in every way as who may not, and sees nothing in the answers but that.
    async fn is_closed_to(&self, edge: &RunningEdge, shown: Shown) {
        let authorization = shown.map(|shown| (AUTHORIZATION.as_str(), shown));
        let etag = format!("\"{}\"", sha256(&self.blob));
        let mut bodies = Vec::new();
        for (name, query, host) in [
            ("hub/org/app", "", None),
            ("org/app", "?ns=hub.example", None),
            ("org/app", "", Some(("host", "mirror.corp"))),
            ("org/app", "", None),
            // What there is not, and what nobody may have, looks no different.
            ("hub/org/nothing", "", None),
            ("hub/org/secret", "", None),
            ("org/secret", "?ns=hub.example", None),
            ("org/secret", "", None),
        ] {
            for (method, path) in self.questions(name) {
                for more in [
                    None,
                    Some((RANGE.as_str(), "bytes=0-1")),
                    Some((IF_NONE_MATCH.as_str(), &*etag)),
                    Some(("outport-hops", "1")),
                    Some(("outport-upstream", "hub; readers")),
                ] {
                    let headers: Vec<_> =
                        [authorization, host, more].into_iter().flatten().collect();
                    let path = format!("{path}{query}");
                    let answer = ask(edge, method.clone(), &path, &headers).await;
                    assert_eq!(answer.status, refusal(shown), "{method} {path} {headers:?}");
                    let is_challenged = answer.headers.contains_key(WWW_AUTHENTICATE);
                    assert_eq!(is_challenged, shown.is_none());
                    if method == Method::GET {
                        bodies.push(answer.body.unwrap());
                    }
                }
            }
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "one word for all");
    }
}

/// As PROMISES.md D1 lists the ways.
#[tokio::test]
async fn only_readers_get_anything_by_any_way_cold_or_warm() {
    let (_users, users) = users();
    let rig = Rig::new(&[&users, FOR_ALICE, "upstream.0.deny=[\"org/secret\"]"]).await;
    let image = Image::new();
    image.put(&rig.upstream);
    for shown in [ANYBODY, BOB] {
        image.is_closed_to(&rig.edge, shown).await;
    }
    assert!(rig.upstream.seen("/").is_empty(), "nobody was asked");
    for (method, path) in image.questions("hub/org/app") {
        let headers = [(AUTHORIZATION.as_str(), ALICE.unwrap())];
        let answer = ask(&rig.edge, method.clone(), &path, &headers).await;
        let is_there = !path.contains("referrers");
        assert_eq!(answer.status == 200, is_there, "{method} {path}");
        if path.contains("blobs") && method == Method::GET {
            assert_eq!(answer.body, Some(image.blob.clone()));
        }
    }
    rig.edge.settle().await;
    let asked = rig.upstream.seen("/").len();
    for shown in [ANYBODY, BOB] {
        image.is_closed_to(&rig.edge, shown).await;
    }
    assert_eq!(rig.upstream.seen("/").len(), asked);
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_is_here_of_one_upstream_is_not_given_as_another_s() {
    let (_users, users) = users();
    let open = ScriptedUpstream::start().await;
    let url = format!("upstream.1.url=http://{}", open.address);
    let set = [&*users, FOR_ALICE, "upstream.1.name=open", &url];
    let rig = Rig::new(&set).await;
    let (image, blob) = (manifest("secret"), content(100_000, 2));
    rig.upstream.put_manifest("org/app", "1", &image);
    rig.upstream.put_blob("org/app", &blob);
    for path in [
        "/v2/hub/org/app/manifests/1".to_owned(),
        blob_path("hub/org/app", &blob),
    ] {
        assert_eq!(get(&rig.edge, ALICE, &path).await.status, 200);
    }
    rig.edge.settle().await;
    for path in [
        format!("/v2/open/org/app/manifests/{}", sha256(&image)),
        blob_path("open/org/app", &blob),
    ] {
        assert_eq!(get(&rig.edge, ANYBODY, &path).await.status, 404, "{path}");
    }
    // What is its own is open as it was.
    open.put_blob("org/app", &blob);
    let path = format!("/v2/open/org/other/manifests/{}", sha256(&image));
    open.put_manifest("org/other", "1", &image);
    assert_eq!(get(&rig.edge, ANYBODY, &path).await.body, Some(image));
    rig.edge.stop().await;
}

/// Says of whatever blob it is asked for that it has it, and so many bytes of it.
fn says_it_has(upstream: &ScriptedUpstream, size: usize) {
    upstream.script("/blobs/", move |method| {
        let mut response = http::Response::new(outport_core::body::Body::empty());
        if *method == Method::HEAD {
            response
                .headers_mut()
                .insert(http::header::CONTENT_LENGTH, size.into());
        } else {
            *response.status_mut() = http::StatusCode::NOT_FOUND;
        }
        response
    });
}

#[tokio::test]
async fn an_upstream_that_lies_about_what_it_has_gets_nothing_of_another_s() {
    let (_users, users) = users();
    let open = ScriptedUpstream::start().await;
    let url = format!("upstream.1.url=http://{}", open.address);
    let asked_again = "upstreams.absent_for=0s";
    let set = [
        &*users,
        FOR_ALICE,
        "upstream.1.name=open",
        &url,
        asked_again,
    ];
    let rig = Rig::new(&set).await;
    let blob = content(3_000_000, 2);
    rig.upstream.put_blob("org/app", &blob);
    let [theirs, own] = ["hub/org/app", "open/x/y"].map(|repo| blob_path(repo, &blob));
    says_it_has(&open, blob.len());
    // While it comes in, and when it is here.
    let (is_in, go) = rig.upstream.hold_next();
    let shown = [(AUTHORIZATION.as_str(), ALICE.unwrap())];
    let (begun, ()) = tokio::join!(rig.edge.try_begin(Method::GET, &theirs, &shown), async {
        is_in.await.unwrap();
        let joined = rig.edge.try_begin(Method::GET, &own, &[]);
        let (joined, ()) = tokio::join!(joined, async {
            while open.seen("/blobs/").is_empty() {
                tokio::task::yield_now().await;
            }
            go.send(()).unwrap();
        });
        assert_eq!(joined.unwrap().finish().await.status, 404);
    });
    assert!(begun.unwrap().finish().await.body.as_ref() == Some(&blob));
    rig.edge.settle().await;
    for path in [own.clone(), blob_path("open/x/z", &blob)] {
        assert_eq!(get(&rig.edge, ANYBODY, &path).await.status, 404);
        assert_eq!(rig.edge.head(&path).await.status, 200);
    }
    // What it has brought once is given on its word, and what is open to all is as before.
    let given = blob.clone();
    open.script("/blobs/", move |_| {
        let mut response = http::Response::new(given.clone().into());
        response
            .headers_mut()
            .insert(http::header::CONTENT_LENGTH, given.len().into());
        response
    });
    get(&rig.edge, ANYBODY, &own)
        .await
        .is(200, &blob, "fwd=miss");
    rig.edge.settle().await;
    get(&rig.edge, ANYBODY, &own).await.is(200, &blob, "hit");
    get(&rig.edge, ALICE, &theirs).await.is(200, &blob, "hit");
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_is_here_of_one_upstream_comes_of_another_once_for_all_who_ask() {
    const CLIENTS: usize = 20;
    let (_users, users) = users();
    let open = ScriptedUpstream::start().await;
    let url = format!("upstream.1.url=http://{}", open.address);
    let set = [&*users, FOR_ALICE, "upstream.1.name=open", &url];
    let rig = Rig::new(&set).await;
    let blob = content(3_000_000, 2);
    rig.upstream.put_blob("org/app", &blob);
    open.put_blob("x/y", &blob);
    let [theirs, own] = ["hub/org/app", "open/x/y"].map(|repo| blob_path(repo, &blob));
    assert_eq!(get(&rig.edge, ALICE, &theirs).await.status, 200);
    rig.edge.settle().await;
    let (is_in, go) = open.hold_next();
    let first = get(&rig.edge, ANYBODY, &own);
    let others = async {
        timeout(PATIENCE, is_in).await.unwrap().unwrap();
        let others = join_all((1..CLIENTS).map(|_| rig.edge.begin(Method::GET, &own, &[])));
        let (others, ()) = tokio::join!(others, async { go.send(()).unwrap() });
        join_all(others.into_iter().map(Begun::finish)).await
    };
    let (first, others) = tokio::join!(first, others);
    for answer in std::iter::once(&first).chain(&others) {
        assert!(answer.body.as_ref() == Some(&blob), "{}", answer.status);
    }
    rig.edge.settle().await;
    assert_eq!(open.count("GET", "/blobs/"), 1);
    assert!(rig.edge.cache.partials().is_empty(), "it is kept once");
    get(&rig.edge, ANYBODY, &own).await.is(200, &blob, "hit");
    get(&rig.edge, ALICE, &theirs).await.is(200, &blob, "hit");
    rig.edge.stop().await;
}

#[tokio::test]
async fn tokens_open_it_as_passwords_do() {
    let (_users, users) = users();
    let rig = Rig::new(&[&users, FOR_ALICE]).await;
    let image = manifest("a");
    rig.upstream.put_manifest("org/app", "1", &image);
    for (shown, status) in [(ANYBODY, 401), (BOB, 403), (ALICE, 200)] {
        let given = get(&rig.edge, shown, "/token?service=edge&scope=x").await;
        let given: serde_json::Value = serde_json::from_slice(&given.body.unwrap()).unwrap();
        let token = format!("Bearer {}", given["token"].as_str().unwrap());
        let headers = [(AUTHORIZATION.as_str(), &*token)];
        let path = "/v2/hub/org/app/manifests/1";
        let answer = ask(&rig.edge, Method::GET, path, &headers).await;
        assert_eq!(answer.status, status, "{shown:?}");
        // The upstream has nothing of it.
        for seen in rig.upstream.seen("/") {
            assert_eq!(seen.authorization, None);
        }
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_default_upstream_that_is_for_some_leaves_what_is_hosted_to_all() {
    let (_users, users) = users();
    let (origin, upstream) = (
        ScriptedOrigin::start().await,
        ScriptedUpstream::start().await,
    );
    let cache = TempDir::new().unwrap();
    let url = format!("upstream.0.url=http://{}", upstream.address);
    let set = [
        &*users,
        KEY,
        FOR_ALICE,
        "upstream.0.name=hub",
        &url,
        "upstream.0.deny=[\"org/secret\"]",
        "upstreams.default=hub",
        "upstreams.names_from=upstream",
    ];
    let edge = RunningEdge::start(cache.path(), origin.address, &set).await;
    let (hosted, theirs) = (manifest("hosted"), manifest("theirs"));
    origin.put_manifest("team/app", "1", &hosted);
    upstream.put_manifest("org/app", "1", &theirs);
    for shown in [ANYBODY, BOB, ALICE] {
        let answer = get(&edge, shown, "/v2/team/app/manifests/1").await;
        assert_eq!(answer.body, Some(hosted.clone()));
    }
    // What neither has looks the same.
    for shown in [ANYBODY, BOB] {
        for repo in ["org/app", "org/nothing", "org/secret", "hub/org/secret"] {
            let path = format!("/v2/{repo}/manifests/1");
            let answer = get(&edge, shown, &path).await;
            assert_eq!(answer.status, refusal(shown), "{path}");
        }
    }
    assert!(upstream.seen("/").is_empty());
    // Who pushes is told what the origin has.
    let check = edge.head(&blob_path("org/app", &content(10, 3))).await;
    assert_eq!(check.status, 404);
    let answer = get(&edge, ALICE, "/v2/org/app/manifests/1").await;
    assert_eq!(answer.body, Some(theirs));
    // What she has brought in looks no different from what is not here, whatever the repository is called; and lists.
    let [known, unknown] = [11, 12].map(|seed| content(1000, seed));
    upstream.put_blob("org/app", &known);
    let answer = get(&edge, ALICE, &blob_path("hub/org/app", &known)).await;
    assert_eq!(answer.body, Some(known.clone()));
    edge.settle().await;
    let denied = get(&edge, ALICE, "/v2/hub/org/secret/manifests/1").await;
    assert_eq!(denied.status, 403);
    for repo in ["org/app", "no/such"] {
        let mut paths = [&known, &unknown]
            .map(|blob| blob_path(repo, blob))
            .to_vec();
        paths.push(format!("/v2/{repo}/tags/list"));
        for path in paths {
            for shown in [ANYBODY, BOB] {
                let answer = get(&edge, shown, &path).await;
                assert_eq!(answer.status, refusal(shown), "{path}");
            }
        }
    }
    // Of what is hosted all are told.
    let lacking = blob_path("team/app", &known);
    assert_eq!(get(&edge, ANYBODY, &lacking).await.status, 404);
    let list = get(&edge, ANYBODY, "/v2/team/app/tags/list").await;
    assert_eq!(list.status, 200);
    edge.stop().await;
}
