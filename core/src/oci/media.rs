//! Media types: what manifests and layers say they are.
//!
//! Grammar: RFC 9110 section 8.3. Types are compared without regard to ASCII case, and parameters do not count: the
//! distribution specification asks registries to ignore them on a manifest PUT.

use std::fmt;

/// A kind of manifest that can be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManifestType {
    /// An OCI image manifest: a config and layers, of an image or of any artifact.
    OciImage,
    /// An OCI image index: a list of manifests.
    OciIndex,
    /// A Docker image manifest, version 2 schema 2.
    DockerImage,
    /// A Docker manifest list.
    DockerList,
    /// The artifact manifest of the release candidates of OCI 1.1, which tools of that year still have in store.
    OciArtifact,
}

/// The index that the referrers API answers with, to the letter: clients compare the whole `Content-Type`.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a blob is served as, whatever a manifest calls it.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// What errors and listings are served as.
pub const JSON: &str = "application/json";

/// The manifests of Docker's first schema, signed or not: they name layers by other digests than their blobs have.
const DOCKER_SCHEMA1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// What a client sends that has nothing to say about the manifest's type.
const SAYS_NOTHING: [&str; 4] = [
    "",
    JSON,
    OCTET_STREAM,
    // What curl says unless told otherwise.
    "application/x-www-form-urlencoded",
];

/// Layers that need not be pushed: they may be restricted, and are then fetched from where their descriptor says.
const NON_DISTRIBUTABLE: [&str; 4] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// What a `Content-Type` says about a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// Nothing: it is absent, or says JSON, or bytes.
    Nothing,
    /// One of the types that are taken.
    Manifest(ManifestType),
    /// A manifest of Docker's first schema.
    DockerSchema1,
    /// Another type.
    Other,
}

// === impl ManifestType ===

impl ManifestType {
    /// Every type that is taken: what to ask an upstream for.
    pub const ALL: [Self; 5] = [
        Self::OciImage,
        Self::OciIndex,
        Self::DockerImage,
        Self::DockerList,
        Self::OciArtifact,
    ];

    /// Returns the registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OciImage => "application/vnd.oci.image.manifest.v1+json",
            Self::OciIndex => OCI_INDEX,
            Self::DockerImage => "application/vnd.docker.distribution.manifest.v2+json",
            Self::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
            Self::OciArtifact => "application/vnd.oci.artifact.manifest.v1+json",
        }
    }

    /// Whether it lists manifests instead of blobs.
    pub const fn is_index(self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerList)
    }
}

impl fmt::Display for ManifestType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Declared ===

impl Declared {
    /// Returns what `content_type` says, or a manifest's own `mediaType`.
    pub fn by(content_type: Option<&str>) -> Self {
        let essence = essence(content_type.unwrap_or_default());
        let is = |name: &str| name.eq_ignore_ascii_case(essence);
        if SAYS_NOTHING.into_iter().any(is) {
            Self::Nothing
        } else if let Some(known) = ManifestType::ALL.into_iter().find(|ty| is(ty.as_str())) {
            Self::Manifest(known)
        } else if DOCKER_SCHEMA1.into_iter().any(is) {
            Self::DockerSchema1
        } else {
            Self::Other
        }
    }
}

/// Returns a media type without its parameters and the blanks around it.
pub fn essence(media_type: &str) -> &str {
    let (essence, _parameters) = media_type.split_once(';').unwrap_or((media_type, ""));
    essence.trim_ascii()
}

/// Whether a layer of this type may be missing from the registry.
pub fn is_non_distributable(media_type: &str) -> bool {
    let essence = essence(media_type);
    NON_DISTRIBUTABLE
        .into_iter()
        .any(|name| name.eq_ignore_ascii_case(essence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_content_type_says() {
        #[track_caller]
        fn check(content_type: &str, expected: Declared) {
            assert_eq!(Declared::by(Some(content_type)), expected, "{content_type}");
        }
        assert_eq!(Declared::by(None), Declared::Nothing);
        for content_type in [
            "",
            " ",
            "application/json",
            "Application/JSON; charset=utf-8",
        ] {
            check(content_type, Declared::Nothing);
        }
        for ty in ManifestType::ALL {
            check(ty.as_str(), Declared::Manifest(ty));
            check(
                &format!(" {} ;charset=utf-8", ty.as_str().to_uppercase()),
                Declared::Manifest(ty),
            );
        }
        for name in DOCKER_SCHEMA1 {
            check(name, Declared::DockerSchema1);
        }
        check("text/html", Declared::Other);
        check(
            "application/vnd.oci.image.manifest.v1+json, text/html",
            Declared::Other,
        );
    }

    #[test]
    fn layers_that_need_not_be_there() {
        for name in NON_DISTRIBUTABLE {
            assert!(is_non_distributable(name));
        }
        assert!(!is_non_distributable(
            "application/vnd.oci.image.layer.v1.tar"
        ));
        assert!(!is_non_distributable(""));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = (Declared::by(Some(&text)), is_non_distributable(&text));
        }
    }
}
