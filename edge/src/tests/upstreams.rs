//! Registries that are pulled through.

pub(super) mod scripted;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use self::scripted::{Behaviour, ScriptedUpstream};
use super::{Answer, RunningEdge, content, sha256};

/// How long a client that is answered from what is here may wait (PROMISES C1).
pub(super) const STALE_MAX: Duration = Duration::from_millis(300);

/// How long one that cannot be answered may (PROMISES A7).
pub(super) const UNAVAILABLE_MAX: Duration = Duration::from_secs(2);

const USER: [&str; 2] = ["upstream.0.username=user", "upstream.0.password=secret"];

/// An edge without an origin, in front of an upstream.
pub(super) struct Rig {
    pub(super) upstream: ScriptedUpstream,
    pub(super) edge: RunningEdge,
    cache: TempDir,
}

impl Rig {
    pub(super) async fn new(set: &[&str]) -> Self {
        Self::over(
            ScriptedUpstream::start().await,
            TempDir::new().unwrap(),
            set,
        )
        .await
    }

    /// Starts the edge anew, with other settings.
    pub(super) async fn restart(self, set: &[&str]) -> Self {
        self.edge.stop().await;
        Self::over(self.upstream, self.cache, set).await
    }

    async fn over(upstream: ScriptedUpstream, cache: TempDir, set: &[&str]) -> Self {
        let mut sets = vec![
            "origin.urls=[]".to_owned(),
            "upstream.0.name=hub".to_owned(),
            "upstream.0.aliases=[\"hub.example\"]".to_owned(),
            "upstream.0.hostnames=[\"mirror.corp\"]".to_owned(),
            format!("upstream.0.url=http://{}", upstream.address),
            "upstreams.default=hub".to_owned(),
            "upstreams.tags_fresh_for=0s".to_owned(),
            "upstreams.min_rest=1ms".to_owned(),
            "upstreams.max_rest=1ms".to_owned(),
        ];
        sets.extend(set.iter().map(|&set| set.to_owned()));
        let sets: Vec<_> = sets.iter().map(String::as_str).collect();
        let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let edge = RunningEdge::start(cache.path(), nobody, &sets).await;
        Self {
            upstream,
            edge,
            cache,
        }
    }

    pub(super) async fn timed(&self, path: &str) -> (Answer, Duration) {
        let began = Instant::now();
        let answer = self.edge.get(path).await;
        (answer, began.elapsed())
    }
}

pub(super) fn manifest(text: &str) -> Bytes {
    format!("{{\"schemaVersion\":2,\"text\":\"{text}\"}}").into()
}

fn code(answer: &Answer) -> String {
    let body: serde_json::Value = serde_json::from_slice(answer.body.as_ref().unwrap()).unwrap();
    body["errors"][0]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn four_ways_to_name_an_image_give_the_same_bytes_stored_once() {
    let rig = Rig::new(&[]).await;
    let (image, blob) = (manifest("a"), content(100_000, 1));
    rig.upstream.put_manifest("org/app", "1", &image);
    rig.upstream.put_blob("org/app", &blob);
    let digest = sha256(&blob);
    for (name, query, host) in [
        ("hub/org/app", "", None),
        ("org/app", "?ns=hub", None),
        ("org/app", "?ns=hub.example", None),
        ("org/app", "", Some(("host", "mirror.corp"))),
        ("org/app", "", None),
    ] {
        let headers: Vec<_> = host.into_iter().collect();
        let get = async |path: String| {
            let begun = rig.edge.begin(Method::GET, &path, &headers).await;
            begun.finish().await
        };
        let answer = get(format!("/v2/{name}/manifests/1{query}")).await;
        assert_eq!(answer.status, 200, "{name}{query}");
        assert_eq!(answer.body, Some(image.clone()));
        // It is told that it was gone by.
        let told = answer.headers.get("oci-namespace");
        let told = told.map(|namespace| namespace.to_str().unwrap());
        assert_eq!(told, query.strip_prefix("?ns="), "{name}{query}");
        let by_digest = get(format!("/v2/{name}/manifests/{}{query}", sha256(&image))).await;
        assert_eq!(by_digest.body, Some(image.clone()));
        let answer = get(format!("/v2/{name}/blobs/{digest}{query}")).await;
        assert_eq!(answer.body, Some(blob.clone()), "{name}{query}");
        rig.edge.settle().await;
    }
    assert_eq!(rig.upstream.count("GET", "/manifests/"), 1);
    assert_eq!(rig.upstream.count("GET", "/blobs/"), 1);
    // What a quota does not count.
    assert_eq!(rig.upstream.count("HEAD", "/manifests/1"), 4);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_crowd_costs_one_of_each() {
    let rig = Rig::new(&["upstreams.tags_fresh_for=1m"]).await;
    rig.upstream.ask_for_tokens(None);
    let (index, child, blob) = (manifest("index"), manifest("child"), content(300_000, 2));
    for image in [&index, &child] {
        let tag = if image == &index { "latest" } else { "other" };
        rig.upstream.put_manifest("org/app", tag, image);
    }
    rig.upstream.put_blob("org/app", &blob);
    let pulls = (0..200).map(|_| async {
        for (path, expected) in [
            ("manifests/latest".to_owned(), &index),
            (format!("manifests/{}", sha256(&child)), &child),
            (format!("blobs/{}", sha256(&blob)), &blob),
        ] {
            let answer = rig.edge.get(&format!("/v2/hub/org/app/{path}")).await;
            assert_eq!(answer.body.as_ref(), Some(expected), "{path}");
        }
    });
    join_all(pulls).await;
    assert_eq!(rig.upstream.counted_let_in("/manifests/latest"), 1);
    assert_eq!(
        rig.upstream
            .counted_let_in(&format!("/manifests/{}", sha256(&child))),
        1
    );
    assert_eq!(rig.upstream.counted_let_in("/blobs/"), 1);
    assert_eq!(rig.upstream.count("GET", "/token"), 1);
    rig.edge.stop().await;
}

#[tokio::test]
async fn credentials_go_to_the_upstream_and_its_token_endpoint_only() {
    let elsewhere = ScriptedUpstream::start_at("127.0.0.2").await;
    let rig = Rig::new(&[&USER[..], &["upstream.0.private_hosts=[\"127.0.0.2\"]"]].concat()).await;
    rig.upstream.ask_for_tokens(None);
    let blob = content(200_000, 3);
    elsewhere.put_blob("cdn", &blob);
    let target = format!(
        "http://{}/v2/cdn/blobs/{}",
        elsewhere.address,
        sha256(&blob)
    );
    rig.upstream.redirect_blobs(&target);
    let path = format!("/v2/hub/org/app/blobs/{}", sha256(&blob));
    rig.edge.get(&path).await.is(200, &blob, "fwd=miss");
    let token = rig.upstream.seen("/token");
    assert_eq!(token.len(), 1);
    // `user:secret`
    assert_eq!(
        token[0].authorization.as_deref(),
        Some("Basic dXNlcjpzZWNyZXQ=")
    );
    assert!(
        token[0]
            .target
            .contains("scope=repository%3Aorg%2Fapp%3Apull")
    );
    let asked = rig.upstream.seen("/blobs/");
    assert_eq!(
        asked.last().unwrap().authorization.as_deref(),
        Some("Bearer t0ken")
    );
    let seen = elsewhere.seen("/");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].authorization, None);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_realm_elsewhere_gets_no_credentials() {
    let thief = ScriptedUpstream::start_at("127.0.0.2").await;
    let rig = Rig::new(&USER).await;
    rig.upstream
        .ask_for_tokens(Some(&format!("http://{}/token", thief.address)));
    rig.upstream.put_manifest("org/app", "1", &manifest("a"));
    let answer = rig.edge.get("/v2/hub/org/app/manifests/1").await;
    assert_eq!(
        (answer.status, code(&answer)),
        (StatusCode::FORBIDDEN, "DENIED".to_owned())
    );
    assert!(!answer.headers.contains_key("www-authenticate"));
    assert_eq!(thief.seen("/").len(), 0);
    rig.edge.stop().await;
}

#[tokio::test]
async fn nobody_is_led_into_the_network_that_the_edge_is_in() {
    let inside = ScriptedUpstream::start_at("127.0.0.2").await;
    let rig = Rig::new(&[]).await;
    let blob = content(1000, 4);
    inside.put_blob("cdn", &blob);
    for host in [
        format!("127.0.0.2:{}", inside.address.port()),
        "[::1]:1".to_owned(),
    ] {
        rig.upstream
            .redirect_blobs(&format!("http://{host}/v2/cdn/blobs/{}", sha256(&blob)));
        let answer = rig
            .edge
            .get(&format!("/v2/hub/a/blobs/{}", sha256(&blob)))
            .await;
        assert_eq!(answer.status, 503, "{host}");
    }
    rig.upstream
        .ask_for_tokens(Some(&format!("http://{}/token", inside.address)));
    let answer = rig.edge.get("/v2/hub/a/manifests/1").await;
    assert_eq!(answer.status, 503);
    assert_eq!(inside.seen("/").len(), 0);
    // Nor by a name that a client thinks of.
    let before = rig.upstream.seen("/").len();
    let answer = rig
        .edge
        .get(&format!("/v2/a/manifests/1?ns={}", inside.address))
        .await;
    assert_eq!(
        (answer.status.as_u16(), code(&answer).as_str()),
        (404, "NAME_UNKNOWN")
    );
    assert_eq!(
        (inside.seen("/").len(), rig.upstream.seen("/").len()),
        (0, before)
    );
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_is_here_is_served_whatever_ails_the_upstream() {
    let rig = Rig::new(&["upstreams.absent_for=0s"]).await;
    rig.upstream.ask_for_tokens(None);
    let (image, blob) = (manifest("a"), content(50_000, 5));
    rig.upstream.put_manifest("org/app", "1", &image);
    rig.upstream.put_blob("org/app", &blob);
    let by_tag = "/v2/hub/org/app/manifests/1";
    let by_digest = format!("/v2/hub/org/app/manifests/{}", sha256(&image));
    let blob_path = format!("/v2/hub/org/app/blobs/{}", sha256(&blob));
    rig.edge.get(by_tag).await.is(200, &image, "fwd=miss");
    rig.edge.get(&blob_path).await.is(200, &blob, "fwd=miss");
    rig.edge.settle().await;
    for behaviour in Behaviour::BAD {
        rig.upstream.behave(behaviour);
        let before = rig.upstream.seen("/").len();
        rig.edge.get(&by_digest).await.is(200, &image, "hit");
        rig.edge.get(&blob_path).await.is(200, &blob, "hit");
        assert_eq!(rig.upstream.seen("/").len(), before, "{behaviour:?}");
        let (answer, took) = rig.timed(by_tag).await;
        answer.is(200, &image, "fwd=stale; detail=origin-unreachable");
        assert!(answer.headers.contains_key("warning"), "{behaviour:?}");
        assert!(took < STALE_MAX, "{behaviour:?}: {took:?}");
        // What is not here may be there: nothing is said of it.
        let absent = sha256(&content(10, 99));
        for path in [
            "/v2/hub/org/app/manifests/2".to_owned(),
            format!("/v2/hub/org/app/manifests/{absent}"),
            format!("/v2/hub/org/app/blobs/{absent}"),
        ] {
            let (answer, took) = rig.timed(&path).await;
            let status = answer.status.as_u16();
            let expected = if behaviour.is_no() { 403 } else { 503 };
            assert_eq!(status, expected, "{behaviour:?}: {path}");
            assert_eq!(answer.headers.contains_key("retry-after"), expected == 503);
            assert!(took < UNAVAILABLE_MAX, "{behaviour:?}: {path}: {took:?}");
        }
        // The breaker lets one through after its rest.
        rig.upstream.behave(Behaviour::Well);
        let began = Instant::now();
        loop {
            let answer = rig.edge.get(by_tag).await;
            tokio::task::yield_now().await;
            if answer.headers["cache-status"]
                .to_str()
                .unwrap()
                .ends_with("detail=revalidated")
            {
                break;
            }
            assert!(began.elapsed() < super::PATIENCE, "{behaviour:?}");
        }
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_sick_upstream_is_not_waited_for() {
    let rig = Rig::new(&["upstreams.min_rest=1m", "upstreams.max_rest=1m"]).await;
    rig.upstream.put_manifest("org/app", "1", &manifest("a"));
    rig.edge.get("/v2/hub/org/app/manifests/1").await;
    rig.upstream.behave(Behaviour::Status(503));
    for _ in 0..3 {
        rig.edge.get("/v2/hub/org/app/manifests/1").await;
    }
    let before = rig.upstream.seen("/").len();
    for _ in 0..20 {
        let answer = rig.edge.get("/v2/hub/org/app/manifests/1").await;
        answer.is(200, &manifest("a"), "fwd=stale; detail=origin-unreachable");
        assert_eq!(
            rig.edge.get("/v2/hub/org/app/manifests/2").await.status,
            503
        );
    }
    assert_eq!(rig.upstream.seen("/").len(), before);
    rig.edge.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_not_asked_for_with_each_pull() {
    let rig = Rig::new(&["upstreams.absent_for=1h"]).await;
    rig.upstream.ask_for_tokens(None);
    let image = manifest("a");
    for (number, behaviour) in [
        Behaviour::Status(400),
        Behaviour::Status(401),
        Behaviour::Status(403),
        Behaviour::NoToken(403),
        Behaviour::Sorry,
    ]
    .into_iter()
    .enumerate()
    {
        let app = format!("app-{number}");
        rig.upstream.behave(Behaviour::Well);
        rig.upstream.put_manifest(&app, "1", &image);
        let path = format!("/v2/hub/{app}/manifests/1");
        rig.edge.get(&path).await.is(200, &image, "fwd=miss");
        rig.upstream.behave(behaviour);
        let mut asked = None;
        for _ in 0..5 {
            let answer = rig.edge.get(&path).await;
            answer.is(200, &image, "fwd=stale; detail=origin-unreachable");
            let seen = rig.upstream.seen("/").len();
            assert_eq!(*asked.get_or_insert(seen), seen, "{behaviour:?}");
        }
        // Until somebody wants it anew.
        let purge = format!("/purge?image=hub/{app}:1");
        assert_eq!(rig.edge.operate(Method::POST, &purge).await.status, 204);
        assert_ne!(rig.edge.get(&path).await.status, 200);
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn only_what_the_upstream_says_is_not_there_is_not_there() {
    let rig = Rig::new(&["upstream.0.deny=[\"secret/*\"]"]).await;
    let answer = rig.edge.get("/v2/hub/org/app/manifests/1").await;
    assert_eq!(answer.status, 404);
    let answer = rig.edge.get("/v2/hub/secret/app/manifests/1").await;
    assert_eq!(
        (answer.status.as_u16(), code(&answer).as_str()),
        (403, "DENIED")
    );
    assert_eq!(rig.upstream.seen("secret").len(), 0);
    let blob = content(10, 7);
    let elsewhere = format!("http://{}/v2/none", rig.upstream.address);
    rig.upstream.redirect_blobs(&elsewhere);
    let answer = rig
        .edge
        .get(&format!("/v2/hub/a/blobs/{}", sha256(&blob)))
        .await;
    assert_eq!(answer.status, 503, "a 404 of somewhere else");
    rig.edge.stop().await;
}

/// What quotas count is only asked for when it has changed.
#[tokio::test]
async fn what_may_not_stand_in_is_asked_about_by_head_all_the_same() {
    let rig = Rig::new(&["upstreams.stale_if_error=0s"]).await;
    let image = manifest("a");
    rig.upstream.put_manifest("org/app", "1", &image);
    for _ in 0..3 {
        let answer = rig.edge.get("/v2/hub/org/app/manifests/1").await;
        assert_eq!(answer.body, Some(image.clone()));
    }
    assert_eq!(rig.upstream.count("GET", "/manifests/"), 1);
    assert_eq!(rig.upstream.count("HEAD", "/manifests/"), 2);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_tag_that_moved_there_moves_here() {
    let rig = Rig::new(&[]).await;
    for text in ["a", "b"] {
        rig.upstream.put_manifest("org/app", "1", &manifest(text));
        let answer = rig.edge.get("/v2/hub/org/app/manifests/1").await;
        answer.is(200, &manifest(text), "fwd=miss");
    }
    assert_eq!(rig.upstream.count("GET", "/manifests/"), 2);
    rig.edge.stop().await;
}

/// Which for one that is far away, and asks for a token first, takes longer than a client would wait for one that is silent.
#[tokio::test]
async fn an_upstream_that_gets_on_is_waited_for() {
    let set = ["upstreams.stale_after=1s", "upstreams.answer_timeout=30s"];
    let rig = Rig::new(&set).await;
    rig.upstream.ask_for_tokens(None);
    rig.upstream.put_manifest("org/app", "1", &manifest("a"));
    rig.upstream.delay("/", Duration::from_millis(600));
    let path = "/v2/hub/org/app/manifests/1";
    rig.edge.get(path).await.is(200, &manifest("a"), "fwd=miss");
    rig.upstream.put_manifest("org/app", "1", &manifest("b"));
    // By HEAD, and then by GET.
    rig.edge.get(path).await.is(200, &manifest("b"), "fwd=miss");
    rig.edge.stop().await;
}

/// And says a little of what it is asked before it falls silent.
#[tokio::test]
async fn an_upstream_that_was_quick_is_waited_for_once_and_not_for_each_step() {
    let set = ["upstreams.stale_after=1s", "upstreams.answer_timeout=30s"];
    let rig = Rig::new(&set).await;
    rig.upstream.put_manifest("org/app", "1", &manifest("a"));
    let path = "/v2/hub/org/app/manifests/1";
    rig.edge.get(path).await.is(200, &manifest("a"), "fwd=miss");
    rig.upstream.put_manifest("org/app", "1", &manifest("b"));
    rig.upstream.delay("/", Duration::from_millis(800));
    let (answer, took) = rig.timed(path).await;
    answer.is(200, &manifest("a"), "fwd=stale; detail=origin-unreachable");
    assert!(took < Duration::from_millis(1600), "{took:?}");
    // It was not silent, as turns out behind that, and is waited for from then on.
    let moved = async { while rig.edge.get(path).await.body != Some(manifest("b")) {} };
    timeout(super::PATIENCE, moved).await.unwrap();
    rig.upstream.put_manifest("org/app", "1", &manifest("c"));
    rig.edge.get(path).await.is(200, &manifest("c"), "fwd=miss");
    rig.edge.stop().await;
}

#[tokio::test]
async fn lists_go_on_here_and_nothing_is_pushed() {
    let rig = Rig::new(&[]).await;
    let list = Bytes::from_static(b"{\"name\":\"org/app\",\"tags\":[\"1\"]}");
    rig.upstream.put_list(
        "/v2/org/app/tags/list",
        &list,
        "</v2/org/app/tags/list?next=x>; rel=\"next\"",
    );
    let answer = rig.edge.get("/v2/org/app/tags/list?n=1&ns=hub").await;
    assert_eq!(answer.body, Some(list));
    assert_eq!(
        answer.headers["link"],
        "</v2/hub/org/app/tags/list?next=x>; rel=\"next\""
    );
    assert_eq!(
        rig.upstream.seen("tags/list")[0].target,
        "/v2/org/app/tags/list?n=1"
    );
    let referrers = format!("/v2/hub/org/app/referrers/{}", sha256(b"anything"));
    for (path, expected) in [
        (referrers.as_str(), "UNSUPPORTED"),
        ("/v2/hub/org/none/tags/list", "NAME_UNKNOWN"),
    ] {
        let answer = rig.edge.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(code(&answer), expected, "{path}");
    }
    let begun = rig
        .edge
        .begin(Method::POST, "/v2/hub/org/app/blobs/uploads/", &[])
        .await;
    assert_eq!(begun.status, 405);
    rig.edge.stop().await;
}
