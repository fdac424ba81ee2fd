//! What operators ask of a running edge.

use bytes::Bytes;
use http::Method;
use tempfile::TempDir;

use super::upstreams::scripted::ScriptedUpstream;
use super::{Answer, Rig, RunningEdge, blob_path, content, sha256};

fn image(config: &Bytes, layer: &Bytes) -> Bytes {
    image_of(config, [layer])
}

fn image_of<'a>(config: &Bytes, layers: impl IntoIterator<Item = &'a Bytes>) -> Bytes {
    let descriptor = |blob: &Bytes| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}"#,
            sha256(blob),
            blob.len()
        )
    };
    let layers: Vec<_> = layers.into_iter().map(descriptor).collect();
    let (config, layers) = (descriptor(config), layers.join(","));
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config},"layers":[{layers}]}}"#
    )
    .into()
}

#[tokio::test]
async fn a_pinned_image_stays() {
    let rig = Rig::with(&["cache.capacity=1MB"]).await;
    let (config, layer) = (content(20_000, 1), content(300_000, 2));
    let image = image(&config, &layer);
    rig.origin.put_manifest("team/app", "1", &image);
    for blob in [&config, &layer] {
        rig.origin.put_blob("team/app", blob);
    }
    let pinned = rig
        .edge
        .operate(Method::POST, "/pins?image=team/app:1")
        .await;
    assert_eq!(pinned.status, 200);
    let parts: Vec<String> = serde_json::from_slice(&pinned.body.unwrap()).unwrap();
    let mut expected = [&config, &layer, &image].map(|part| sha256(part).to_string());
    expected.sort();
    assert_eq!(parts, expected);
    let path = blob_path("team/app", &layer);
    rig.edge.get(&path).await.is(200, &layer, "fwd=miss");
    rig.edge.settle().await;
    let flood = async |seeds: std::ops::Range<u64>| {
        for seed in seeds {
            let other = content(200_000, seed);
            rig.origin.put_blob("a", &other);
            // Twice, so that it is worth keeping.
            for _ in 0..2 {
                rig.edge.get(&blob_path("a", &other)).await;
                rig.edge.settle().await;
            }
        }
    };
    flood(10..40).await;
    rig.edge.get(&path).await.is(200, &layer, "hit");
    let listed = rig.edge.operate(Method::GET, "/pins").await;
    let listed: Vec<String> = serde_json::from_slice(&listed.body.unwrap()).unwrap();
    assert_eq!(listed, expected);
    let unpinned = rig
        .edge
        .operate(Method::DELETE, "/pins?image=team/app:1")
        .await;
    assert_eq!(unpinned.status, 200);
    assert_eq!(
        rig.edge.operate(Method::GET, "/pins").await.body.unwrap(),
        "[]"
    );
    rig.edge.stop().await;
}

/// What is answered with: a list.
fn listed(answer: Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body.unwrap()).unwrap()
}

/// Returns the digests of these, in their order.
fn digests<const N: usize>(contents: [&Bytes; N]) -> Vec<String> {
    let mut digests = contents.map(|content| sha256(content).to_string());
    digests.sort();
    digests.to_vec()
}

impl RunningEdge {
    async fn pins(&self, method: Method, image: &str) -> Answer {
        self.operate(method, &format!("/pins?image={image}")).await
    }

    async fn all_pins(&self) -> Vec<String> {
        listed(self.operate(Method::GET, "/pins").await)
    }
}

#[tokio::test]
async fn what_images_share_stays_pinned() {
    let rig = Rig::new().await;
    let [config, base, top] = [1, 2, 3].map(|seed| content(1000, seed));
    let (one, other) = (image(&config, &base), image_of(&config, [&base, &top]));
    rig.origin.put_manifest("team/one", "latest", &one);
    rig.origin.put_manifest("team/other", "1", &other);
    let edge = &rig.edge;
    listed(edge.pins(Method::POST, "team/one").await);
    listed(edge.pins(Method::POST, "team/other:1").await);
    let images = listed(edge.operate(Method::GET, "/pins/images").await);
    assert_eq!(images, ["team/one:latest", "team/other:1"]);
    let of_one = digests([&config, &base, &one]);
    let pins = edge.pins(Method::GET, "team/one:latest").await;
    assert_eq!(listed(pins), of_one);
    let released = edge.pins(Method::DELETE, "team/one").await;
    assert_eq!(listed(released), of_one);
    let left = digests([&config, &base, &top, &other]);
    assert_eq!(edge.all_pins().await, left);
    for method in [Method::GET, Method::DELETE] {
        // By another name it was never pinned.
        for image in ["team/one", &format!("team/other@{}", sha256(&other))] {
            let answer = edge.pins(method.clone(), image).await;
            assert_eq!(answer.status, 404, "{method} {image}");
            assert!(answer.body.unwrap().starts_with(b"{\"errors\":["));
        }
    }
    assert_eq!(edge.all_pins().await, left);
    listed(edge.pins(Method::DELETE, "team/other:1").await);
    assert_eq!(edge.all_pins().await, [""; 0]);
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_pin_is_let_go_when_its_tag_has_moved_and_its_image_is_gone() {
    let rig = Rig::new().await;
    let [config, layer] = [1, 2].map(|seed| content(1000, seed));
    let (old, new) = (image(&config, &layer), image(&layer, &config));
    rig.origin.put_manifest("a", "1", &old);
    listed(rig.edge.pins(Method::POST, "a:1").await);
    rig.origin.put_manifest("a", "1", &new);
    let pinned = digests([&config, &layer, &old]);
    assert_eq!(rig.edge.all_pins().await, pinned);
    // To pin it anew is to pin what it is now.
    listed(rig.edge.pins(Method::POST, "a:1").await);
    assert_eq!(rig.edge.all_pins().await, digests([&config, &layer, &new]));
    let path = format!("/v2/a/manifests/{}", sha256(&new));
    rig.edge.delete(&path).await;
    rig.edge.delete("/v2/a/manifests/1").await;
    assert_eq!(rig.edge.pins(Method::POST, "a:1").await.status, 404);
    rig.edge.stop().await;
    rig.origin.stop();

    let edge = RunningEdge::start(rig.cache.path(), rig.origin.address, &[]).await;
    listed(edge.pins(Method::DELETE, "a:1").await);
    assert_eq!(edge.all_pins().await, [""; 0]);
    edge.stop().await;
}

#[tokio::test]
async fn an_image_with_too_much_to_pin_pins_nothing() {
    let rig = Rig::new().await;
    let [config, layer] = [1, 2].map(|seed| content(1000, seed));
    let layers: Vec<_> = (0..12_000_u32)
        .map(|layer| layer.to_string().into())
        .collect();
    rig.origin.put_manifest("a", "1", &image(&config, &layer));
    listed(rig.edge.pins(Method::POST, "a:1").await);
    let before = rig.edge.all_pins().await;
    let large = image_of(&config, &layers);
    for tag in ["large", "1"] {
        rig.origin.put_manifest("a", tag, &large);
        let refused = rig.edge.pins(Method::POST, &format!("a:{tag}")).await;
        assert_eq!(refused.status, 507);
        assert_eq!(rig.edge.all_pins().await, before);
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_pinned_image_of_an_upstream_that_is_gone_is_let_go() {
    let (upstream, cache) = (ScriptedUpstream::start().await, TempDir::new().unwrap());
    upstream.put_manifest("org/app", "1", &manifest("a"));
    let edge = hub(&cache, &upstream, "0s").await;
    listed(edge.pins(Method::POST, "hub/org/app:1").await);
    edge.stop().await;
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let edge = RunningEdge::start(cache.path(), nobody, &["origin.urls=[]"]).await;
    assert_eq!(edge.all_pins().await, digests([&manifest("a")]));
    listed(edge.pins(Method::DELETE, "hub/org/app:1").await);
    assert_eq!(edge.all_pins().await, [""; 0]);
    edge.stop().await;
}

async fn hub(cache: &TempDir, upstream: &ScriptedUpstream, fresh_for: &str) -> RunningEdge {
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let (url, fresh_for) = (
        format!("upstream.0.url=http://{}", upstream.address),
        format!("upstreams.tags_fresh_for={fresh_for}"),
    );
    let sets = ["origin.urls=[]", "upstream.0.name=hub", &url, &fresh_for];
    RunningEdge::start(cache.path(), nobody, &sets).await
}

fn manifest(text: &str) -> Bytes {
    format!("{{\"schemaVersion\":2,\"text\":\"{text}\"}}").into()
}

#[tokio::test]
async fn frozen_tags_stay_where_they_are() {
    let (upstream, cache) = (ScriptedUpstream::start().await, TempDir::new().unwrap());
    let path = "/v2/hub/org/app/manifests/1";
    upstream.put_manifest("org/app", "1", &manifest("old"));
    let edge = hub(&cache, &upstream, "0s").await;
    edge.get(path).await.is(200, &manifest("old"), "fwd=miss");
    assert_eq!(edge.operate(Method::PUT, "/frozen").await.status, 204);
    upstream.put_manifest("org/app", "1", &manifest("new"));
    upstream.put_manifest("org/app", "2", &manifest("other"));
    edge.get(path).await.is(200, &manifest("old"), "hit");
    edge.stop().await;
    let edge = hub(&cache, &upstream, "0s").await;
    assert_eq!(
        edge.operate(Method::GET, "/frozen").await.body.unwrap(),
        "true"
    );
    let before = upstream.seen("/").len();
    edge.get(path).await.is(200, &manifest("old"), "hit");
    assert_eq!(upstream.seen("/").len(), before);
    // What nobody has seen yet stays nowhere.
    let other = edge.get("/v2/hub/org/app/manifests/2").await;
    other.is(200, &manifest("other"), "fwd=miss");
    assert_eq!(edge.operate(Method::DELETE, "/frozen").await.status, 204);
    edge.get(path).await.is(200, &manifest("new"), "fwd=miss");
    edge.stop().await;
}

#[tokio::test]
async fn a_purged_tag_is_asked_for_anew() {
    let (upstream, cache) = (ScriptedUpstream::start().await, TempDir::new().unwrap());
    let path = "/v2/hub/org/app/manifests/1";
    upstream.put_manifest("org/app", "1", &manifest("old"));
    let edge = hub(&cache, &upstream, "1h").await;
    edge.get(path).await.is(200, &manifest("old"), "fwd=miss");
    upstream.put_manifest("org/app", "1", &manifest("new"));
    edge.get(path).await.is(200, &manifest("old"), "hit");
    let purged = edge
        .operate(Method::POST, "/purge?image=hub/org/app:1")
        .await;
    assert_eq!(purged.status, 204);
    edge.get(path).await.is(200, &manifest("new"), "fwd=miss");
    edge.stop().await;
}

#[tokio::test]
async fn what_operators_get_wrong_is_said() {
    let rig = Rig::new().await;
    for (method, path, status) in [
        (Method::POST, "/pins", 400),
        (Method::POST, "/pins?image=A", 400),
        (Method::POST, "/pins?image=a@sha256:1", 400),
        (Method::POST, "/pins?image=none:1", 404),
        (Method::DELETE, "/pins", 400),
        (Method::DELETE, "/pins?image=A", 400),
        (Method::DELETE, "/pins?image=none:1", 404),
        (Method::GET, "/pins?image=none:1", 404),
        (Method::POST, "/pins/images", 405),
        (Method::PUT, "/pins?image=a", 405),
        (Method::GET, "/purge?image=a", 405),
        (Method::GET, "/v2/", 404),
        (Method::GET, "/healthz", 200),
    ] {
        let answer = rig.edge.operate(method.clone(), path).await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
    rig.edge.stop().await;
}

#[tokio::test]
async fn a_tag_that_is_good_forever_is_asked_for_once() {
    let (upstream, cache) = (ScriptedUpstream::start().await, TempDir::new().unwrap());
    for tag in ["1.2.3", "latest"] {
        upstream.put_manifest("org/app", tag, &manifest(tag));
    }
    let url = format!("upstream.0.url=http://{}", upstream.address);
    let sets = [
        "origin.urls=[]",
        "upstream.0.name=hub",
        &url,
        "upstreams.tags_fresh_for=0s",
        "upstreams.freshness.0.image=hub/*",
        "upstreams.freshness.0.tag=*.*.*",
        "upstreams.freshness.0.fresh_for=forever",
    ];
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    for _ in 0..2 {
        let edge = RunningEdge::start(cache.path(), nobody, &sets).await;
        for _ in 0..2 {
            for tag in ["1.2.3", "latest"] {
                let answer = edge.get(&format!("/v2/hub/org/app/manifests/{tag}")).await;
                assert_eq!(answer.body, Some(manifest(tag)));
            }
        }
        edge.stop().await;
    }
    assert_eq!(upstream.seen("/manifests/1.2.3").len(), 1);
    assert_eq!(upstream.count("HEAD", "/manifests/latest"), 3);
}
