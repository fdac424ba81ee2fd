//! Manifests to push: their JSON as a value that tests amend, and the exact bytes that it becomes.

use bytes::Bytes;
use outport_core::oci::digest::{Algorithm, Digest};
use serde_json::{Value, json};

/// `application/vnd.oci.image.manifest.v1+json`.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.index.v1+json`.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `application/vnd.oci.image.config.v1+json`.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// `application/vnd.oci.image.layer.v1.tar+gzip`.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// `application/vnd.oci.empty.v1+json`.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// `application/vnd.docker.distribution.manifest.v2+json`.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// `application/vnd.docker.distribution.manifest.list.v2+json`.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What the `Content-Type` says.
    pub media_type: String,
    /// The exact bytes.
    pub body: Bytes,
}

// === impl Document ===

impl Document {
    /// Writes JSON down with line breaks and indentation, as a registry that writes it anew would not.
    pub fn new(json: &Value) -> Self {
        let media_type = json["mediaType"].as_str().unwrap_or(OCI_MANIFEST);
        Self {
            media_type: media_type.to_owned(),
            body: serde_json::to_vec_pretty(json).unwrap().into(),
        }
    }

    /// Returns its sha256.
    pub fn digest(&self) -> Digest {
        self.digest_by(Algorithm::Sha256)
    }

    /// Returns its name by an algorithm.
    pub fn digest_by(&self, algorithm: Algorithm) -> Digest {
        algorithm.digest(&self.body)
    }

    /// Returns what stands for it in an index, or as a subject.
    pub fn descriptor(&self) -> Value {
        descriptor(&self.media_type, &self.digest(), self.body.len() as u64)
    }
}

/// Returns what stands for content in a manifest.
pub fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest.to_string(), "size": size})
}

/// Returns what stands for some bytes in a manifest.
pub fn descriptor_of(media_type: &str, bytes: &[u8]) -> Value {
    descriptor(
        media_type,
        &Algorithm::Sha256.digest(bytes),
        bytes.len() as u64,
    )
}

/// Returns an OCI image manifest.
pub fn image(config: &Value, layers: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers})
}

/// Returns a Docker image manifest, version 2, schema 2.
pub fn docker_image(config: &Value, layers: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": layers})
}

/// Returns an OCI index.
pub fn index(manifests: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
}

/// Returns an artifact: an image manifest whose config and only layer are the empty descriptor, `{}`.
pub fn artifact(artifact_type: &str) -> Value {
    let empty = descriptor_of(OCI_EMPTY, b"{}");
    let mut artifact = image(&empty, std::slice::from_ref(&empty));
    artifact["artifactType"] = artifact_type.into();
    artifact
}

/// Returns an artifact that refers to another manifest.
pub fn referrer(artifact_type: &str, subject: &Value) -> Value {
    let mut referrer = artifact(artifact_type);
    referrer["subject"] = subject.clone();
    referrer
}
