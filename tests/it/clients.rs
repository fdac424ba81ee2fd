//! Images go from any client to any other: at the origin, through an edge, and from an edge whose origin is away.
//!
//! Each test has an origin and an edge of its own. What arrives is told by digests: the manifest's as the registry names it,
//! the config's as clients name an image; clients hold every layer to the config themselves when they unpack it.

mod bucket;
mod buildah;
mod containerd;
mod docker;
mod large;
mod podman;
mod readers;
mod skopeo;
mod upstream;

use std::net::SocketAddr;

use harness::containers::Containers;
use harness::door::Site;
use harness::images::Images;
use harness::registry::{ForeignRegistry, PASSWORD, USER};
use serde_json::Value;

/// Returns podman, buildah and skopeo, who know both doors.
fn containers(site: &Site) -> Containers {
    Containers::new(&site.doors())
}

/// Pushes an image as it is, with skopeo.
#[track_caller]
fn push(tools: &Containers, image: &str, door: SocketAddr, name: &str) {
    let to = format!("docker://{door}/{name}");
    tools.copy(&Images::shared().source(image), &to);
}

/// Pushes an image into somebody else's registry.
fn push_to_foreign(
    images: &Images,
    tools: &Containers,
    upstream: &ForeignRegistry,
    image: &str,
    name: &str,
) {
    let to = format!("docker://{}/{name}", upstream.address());
    let from = images.source(image);
    let credentials = format!("{USER}:{PASSWORD}");
    let flags = ["copy", "--quiet", "--all", "--preserve-digests"];
    let login = ["--dest-creds", &credentials, "--dest-tls-verify=false"];
    let plain = "--dest-oci-accept-uncompressed-layers";
    tools.skopeo(&[&flags[..], &login, &[plain, &from, &to]].concat());
}

/// Returns the type and the digest of what a repository has by some name, as the origin says.
async fn resolve(site: &Site, repository: &str, reference: &str) -> (String, String) {
    let reply = site.repository(repository).get_manifest(reference).await;
    let reply = reply.expect(200);
    (
        reply.header("content-type").to_owned(),
        reply.header("docker-content-digest").to_owned(),
    )
}

/// Returns the manifest that a repository has by some name, as the origin has it.
async fn manifest(site: &Site, repository: &str, reference: &str) -> Value {
    let reply = site.repository(repository).get_manifest(reference).await;
    reply.expect(200).json()
}

/// Returns the types of a manifest's layers.
fn layer_types(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().unwrap();
    layers
        .iter()
        .map(|layer| layer["mediaType"].as_str().unwrap())
        .collect()
}
