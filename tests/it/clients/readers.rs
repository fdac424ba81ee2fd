//! What is somebody else's, and is to be pulled by some only: every client logs in to the edge, as it would anywhere.

use harness::containerd::Containerd;
use harness::containers::Containers;
use harness::docker::Docker;
use harness::images::{Images, WHEELS};
use harness::node::{Edge, Origin, OriginBuilder};
use harness::registry::ForeignRegistry;

use super::push_to_foreign;

const CORP: &str = "registry.corp";

/// The passwords are `secret` and `other`.
const USERS: &str = "alice:$2b$04$VprzhVKA06LJiNmQc2ry/.dKdVOfAvUIUpvzuMeLL6FOJOJaVF9aW\n\
                     bob:$2b$04$zPsP0mPYc1RKIal3eaJgS.cwiL1Wbd//qUzMDuyIfx7E/RRBCLNPq\n";

const KEY: &str = "access.key=0123456789abcdef0123456789abcdef";

/// A private registry, an origin that may pull from it, and an edge; alice may.
struct Rig {
    upstream: ForeignRegistry,
    origin: Origin,
    edge: Edge,
    users: tempfile::NamedTempFile,
}

impl Rig {
    async fn new() -> Self {
        let upstream = ForeignRegistry::start();
        let users = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(users.path(), USERS).unwrap();
        let access = [
            KEY.to_owned(),
            format!("access.users={}", users.path().display()),
            "upstream.0.readers=[\"alice\"]".to_owned(),
        ];
        let sets = upstream.sets(CORP).into_iter().chain(access.clone());
        let origin = sets.fold(Origin::builder(), OriginBuilder::set);
        let origin = origin.set("upstreams.tags_fresh_for=0s").start().await;
        let edge = edge(&origin, &access).await;
        Self {
            upstream,
            origin,
            edge,
            users,
        }
    }
}

/// Starts an edge that knows the private registry by its name only.
async fn edge(origin: &Origin, more: &[String]) -> Edge {
    let own = [
        format!("upstream.0.name={CORP}"),
        // Nobody is there.
        "upstream.0.url=https://127.0.0.1:1".to_owned(),
        "upstreams.tags_fresh_for=0s".to_owned(),
    ];
    let url = format!("http://{}", origin.address());
    Edge::start_with(&url, &[&own[..], more].concat()).await
}

#[tokio::test]
async fn every_client_logs_in_and_pulls_what_its_user_may() {
    let mut rig = Rig::new().await;
    let doors = [rig.edge.address(), rig.origin.address()];
    let images = Images::shared();
    let tools = Containers::new(&[&doors[..], &[rig.upstream.address()]].concat());
    let (docker, ctr) = (Docker::start(), Containerd::start());
    push_to_foreign(&images, &tools, &rig.upstream, WHEELS, "team/wheels:1");
    let id = images.id(WHEELS);
    let pull = |storage: &str| {
        for door in doors {
            let image = format!("{door}/{CORP}/team/wheels:1");
            let door = door.to_string();
            let storage = format!("{storage}-{}", &door[door.len() - 5..]);
            for (user, password) in [("bob", "other"), ("alice", "secret")] {
                let is_reader = user == "alice";
                let pair = format!("{user}:{password}");
                docker.run(&["login", "--username", user, "--password", password, &door]);
                let login = ["login", "--username", user, "--password", password];
                tools.podman(
                    &storage,
                    &[&login[..], &["--tls-verify=false", &door]].concat(),
                );
                let by_ctr = ["images", "pull", "--plain-http", "--user", &pair, &image];
                if is_reader {
                    docker.forget();
                    assert_eq!(docker.pull(&image), id);
                    let pulled = tools.podman_pull(&storage, &image);
                    assert_eq!(format!("sha256:{pulled}"), id);
                    ctr.run(&storage, &by_ctr);
                } else {
                    let said = docker.refusal(&["pull", "--quiet", &image]);
                    assert!(said.contains("denied"), "{said}");
                    let said = tools.podman_refusal(&storage, &["pull", &image]);
                    assert!(said.contains("denied"), "{said}");
                    let said = ctr.refusal(&storage, &by_ctr);
                    assert!(said.contains("403"), "{said}");
                }
                docker.run(&["logout", &door]);
                tools.podman(&storage, &["logout", &door]);
            }
            // Who does not log in.
            docker.refusal(&["pull", "--quiet", &image]);
            tools.podman_refusal(&storage, &["pull", &image]);
            tools.skopeo_refusal(&["inspect", "--raw", &format!("docker://{image}")]);
            ctr.refusal(&storage, &["images", "pull", "--plain-http", &image]);
            let said = docker.refusal(&["login", "--username", "alice", "--password", "no", &door]);
            assert!(said.contains("unauthorized"), "{said}");
        }
    };
    pull("cold");
    rig.upstream.stop();
    pull("without");

    // What is hosted stays open to all, who logs in and who does not.
    let hosted = format!("{}/team/app:1", doors[0]);
    tools.copy(&images.source(WHEELS), &format!("docker://{hosted}"));
    let pulled = tools.podman_pull("hosted", &hosted);
    assert_eq!(format!("sha256:{pulled}"), id);
    docker.run(&[
        "login",
        "--username",
        "bob",
        "--password",
        "other",
        &doors[0].to_string(),
    ]);
    docker.forget();
    assert_eq!(docker.pull(&hosted), id);
    docker.run(&["tag", &hosted, &format!("{}/team/app:2", doors[0])]);
    docker.push(&format!("{}/team/app:2", doors[0]));
}

#[tokio::test]
async fn an_edge_that_would_let_everybody_in_gets_nothing() {
    let rig = Rig::new().await;
    let images = Images::shared();
    let tools = Containers::new(&[rig.upstream.address()]);
    push_to_foreign(&images, &tools, &rig.upstream, WHEELS, "team/wheels:1");
    let path = format!("/v2/{CORP}/team/wheels/manifests/1");
    let users = format!("access.users={}", rig.users.path().display());
    let other_key = "access.key=another key, which is as long as that".to_owned();
    let readers = "upstream.0.readers=[\"alice\"]".to_owned();
    for more in [
        // It knows no readers; and it does not show that it is a node of this registry.
        vec![KEY.to_owned(), users.clone()],
        vec![],
        vec![other_key, users, readers],
    ] {
        let stranger = edge(&rig.origin, &more).await;
        let alice = "Basic YWxpY2U6c2VjcmV0";
        let shown = stranger.client().get(&path).header("authorization", alice);
        let status = shown.send().await.status;
        assert_eq!(status, 503, "{more:?}");
    }
    let alice = "Basic YWxpY2U6c2VjcmV0";
    let shown = rig.edge.client().get(&path).header("authorization", alice);
    assert_eq!(shown.send().await.status, 200);
}
