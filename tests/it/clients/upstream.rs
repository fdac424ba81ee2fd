//! Every client through an edge that has no origin, to a registry of somebody else: cold, and when that is gone.

use harness::containerd::Containerd;
use harness::containers::Containers;
use harness::docker::Docker;
use harness::images::{Images, MULTI, WHEELS};
use harness::node::{Edge, Origin, OriginBuilder};
use harness::registry::ForeignRegistry;

use super::push_to_foreign;

/// What is Docker Hub to the clients.
const HUB: &str = "docker.io";

#[tokio::test]
async fn an_origin_asks_for_all_its_edges() {
    let mut upstream = ForeignRegistry::start_with_tokens();
    let sets = upstream.sets(HUB).into_iter();
    let origin = sets.fold(Origin::builder(), OriginBuilder::set);
    // So that each pull finds out whether the upstream is there.
    let origin = origin.set("upstreams.tags_fresh_for=0s");
    let origin = origin.set(format!("upstreams.default={HUB}")).start().await;
    let url = format!("http://{}", origin.address());
    // They know nothing of it but its name.
    let set = [
        format!("upstreams.default={HUB}"),
        "upstreams.tags_fresh_for=0s".to_owned(),
    ];
    let mut edges = Vec::new();
    for _ in 0..2 {
        edges.push(Edge::start_with(&url, &set).await);
    }
    let [first, second] = [0, 1].map(|at: usize| edges[at].address());
    let images = Images::shared();
    let all = [upstream.address(), origin.address(), first, second];
    let tools = Containers::new(&all);
    let docker = Docker::start_with_mirror(first);
    push_to_foreign(&images, &tools, &upstream, WHEELS, "library/wheels:1");
    let (hosted, id) = (format!("{first}/team/app:1"), images.id(WHEELS));
    tools.copy(&images.source(WHEELS), &format!("docker://{hosted}"));
    let pull = |storage: &str| {
        docker.forget();
        assert_eq!(docker.pull("wheels:1"), id);
        for image in [
            format!("{second}/{HUB}/wheels:1"),
            format!("{second}/team/app:1"),
        ] {
            let pulled = tools.podman_pull(storage, &image);
            assert_eq!(format!("sha256:{pulled}"), id, "{image}");
        }
    };
    pull("cold");
    // However many asked, and for however much.
    assert_eq!(upstream.granted("repository:library/wheels:pull"), 1);
    // Who builds upon an image of the upstream and pushes it by its name pushes all of it: the origin has nothing of it, whatever
    // the edge has of the upstream's.
    push_to_foreign(&images, &tools, &upstream, WHEELS, "library/own:1");
    let pulled = tools.podman_pull("own", &format!("{first}/own:1"));
    assert_eq!(format!("sha256:{pulled}"), id);
    let own = "library/own:2";
    tools.copy(&images.source(WHEELS), &format!("docker://{first}/{own}"));
    for (storage, address) in [("of the origin", origin.address()), ("of an edge", second)] {
        let pulled = tools.podman_pull(storage, &format!("{address}/{own}"));
        assert_eq!(format!("sha256:{pulled}"), id, "{storage}");
    }
    // The origin is a registry of its upstreams by itself.
    let own = format!("{}/{HUB}/library/wheels:1", origin.address());
    let bare = format!("{}/wheels:1", origin.address());
    for image in [&own, &bare] {
        assert_eq!(format!("sha256:{}", tools.podman_pull("own", image)), id);
    }
    upstream.stop();
    pull("without the upstream");
    assert_eq!(
        format!("sha256:{}", tools.podman_pull("own again", &own)),
        id
    );
    // Nothing of it lies where what is hosted does.
    let repositories = origin.client().get("/v2/_catalog").send().await;
    let repositories: serde_json::Value = serde_json::from_slice(&repositories.body).unwrap();
    assert_eq!(
        repositories["repositories"],
        serde_json::json!(["library/own", "team/app"])
    );
    drop(origin);
    pull("without the origin");
}

/// An edge in front of somebody else's registry, and the clients that know it in each way.
struct Rig {
    images: Images,
    ctr: Containerd,
    docker: Docker,
    tools: Containers,
    edge: Edge,
    upstream: ForeignRegistry,
}

impl Rig {
    async fn new() -> Self {
        let upstream = ForeignRegistry::start();
        let mut sets = upstream.sets(HUB);
        sets.push("origin.urls=[]".to_owned());
        sets.push(format!("upstreams.default={HUB}"));
        // So that each pull finds out whether the upstream is there.
        sets.push("upstreams.tags_fresh_for=0s".to_owned());
        let edge = Edge::start_with("http://127.0.0.1:1", &sets).await;
        let tools = Containers::new(&[edge.address(), upstream.address()]);
        tools.mirror(HUB, edge.address());
        Self {
            images: Images::shared(),
            ctr: Containerd::start(),
            docker: Docker::start_with_mirror(edge.address()),
            tools,
            edge,
            upstream,
        }
    }

    fn push(&self, image: &str, name: &str) {
        push_to_foreign(&self.images, &self.tools, &self.upstream, image, name);
    }

    /// Pulls with each client in its way, into storages of this name.
    fn pull(&self, storage: &str) {
        let id = self.images.id(WHEELS);
        let (hub, edge) = (HUB, self.edge.address());

        // By `?ns=`, as its `hosts.toml` has it.
        let [option, hosts] = self.ctr.mirror(HUB, edge);
        for (image, digest) in [
            (
                format!("{hub}/library/wheels:1"),
                self.images.digest(WHEELS),
            ),
            (format!("{hub}/library/multi:1"), self.images.digest(MULTI)),
        ] {
            let pull = ["images", "pull", "--all-platforms", &option, &hosts, &image];
            self.ctr.run(storage, &pull);
            assert_eq!(self.ctr.listed(storage, &image).digest, digest);
        }
        // By nothing, as a mirror of Docker Hub.
        self.docker.forget();
        assert_eq!(self.docker.pull("wheels:1"), id);
        // By the path, as its `registries.conf` has it, and as its user may.
        for image in [
            format!("{hub}/library/wheels:1"),
            format!("{edge}/{hub}/wheels:1"),
        ] {
            let pulled = self.tools.podman_pull(storage, &image);
            assert_eq!(format!("sha256:{pulled}"), id, "{image}");
        }
        let raw = self.tools.raw(&format!("{edge}/{hub}/library/multi:1"));
        assert_eq!(raw, self.images.document(MULTI).body);
    }
}

#[tokio::test]
async fn every_client_pulls_through_it_in_its_way() {
    let mut rig = Rig::new().await;
    rig.push(WHEELS, "library/wheels:1");
    rig.push(MULTI, "library/multi:1");
    rig.pull("cold");
    rig.upstream.stop();
    rig.pull("warm");
    let refusal = rig.tools.podman_refusal(
        "warm",
        &["pull", &format!("{}/{HUB}/other:1", rig.edge.address())],
    );
    assert!(!refusal.contains("unknown"), "it may be there: {refusal}");
}
