//! What a manifest says: which blobs it needs, which manifests it lists, what it is about.
//!
//! OCI image specification, `manifest.md`, `image-index.md` and `descriptor.md`; Docker's version 2 schema 2.
//!
//! Invariants: every digest in a [`Manifest`] is well-formed; each kind of list holds a digest once; one body has one
//! reading. To hold the last one, a body is refused that another reader could take for something else: one that says two
//! things of itself, lists both layers and manifests (CVE-2021-41190), repeats a key, or has a key that Go's decoder, which
//! ignores case, would take for a known one. What is not known is ignored. The bytes are never written anew.
//!
//! Why not oci-spec: it parses each kind into a type of its own after the kind is known, has no Docker lists, cannot tell
//! an absent `layers` from an unknown one, and lets pass what is refused above; and it brings builders, getters and regular
//! expressions for the eight keys that are read here.
//!
//! Pure; a body's size is the caller's to limit.

mod json;

use std::collections::{BTreeMap, HashSet};

use self::json::{Field, Object};
use super::digest::{Digest, DigestError};
use super::error::{ApiError, ErrorCode};
use super::media::{self, Declared, ManifestType};

/// A manifest that can be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it is, and what it is served as.
    pub media_type: ManifestType,
    /// The config, of an image manifest.
    pub config: Option<Descriptor>,
    /// The layers, in order; the blobs of an OCI artifact manifest.
    pub layers: Vec<Descriptor>,
    /// The manifests, of an index.
    pub manifests: Vec<Descriptor>,
    /// The manifest that it refers to, which need not exist.
    pub subject: Option<Digest>,
    /// What the referrers API says its type is: its own, or that of an image's config.
    pub artifact_type: Option<String>,
    /// What the referrers API says its annotations are.
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest says of a blob or of another manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its media type; empty when it is not said.
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes, which nobody has checked.
    pub size: u64,
}

/// Why a body is not a manifest that can be stored.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON.
    #[error("not valid JSON at line {} column {}", .0.line(), .0.column())]
    Json(#[from] serde_json::Error),
    /// It is a manifest of Docker's first schema.
    #[error("manifests of Docker's schema 1 are not supported")]
    Schema1,
    /// Its type is none that is taken.
    #[error("manifests of this media type are not supported")]
    UnsupportedType,
    /// The `Content-Type` and the body's own `mediaType` differ.
    #[error("the Content-Type contradicts the mediaType")]
    Contradiction,
    /// There is something in it that belongs to another type of manifest.
    #[error("a manifest of this type has no {0}")]
    Mixed(&'static str),
    /// What must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A key that means something is there twice, or in another spelling.
    #[error("{0} is there twice, or in another spelling")]
    Ambiguous(&'static str),
    /// Something is not what it should be.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A descriptor's digest is none.
    #[error("bad digest in a descriptor: {0}")]
    Digest(#[from] DigestError),
}

const SCHEMA_VERSION: Field = Field::new("schemaVersion");
const MEDIA_TYPE: Field = Field::new("mediaType");
const CONFIG: Field = Field::new("config");
const LAYERS: Field = Field::new("layers");
const BLOBS: Field = Field::new("blobs");
const MANIFESTS: Field = Field::new("manifests");
const SUBJECT: Field = Field::new("subject");
const ARTIFACT_TYPE: Field = Field::new("artifactType");
const ANNOTATIONS: Field = Field::new("annotations");
/// Docker's schema 1 has it.
const FS_LAYERS: Field = Field::new("fsLayers");

const MANIFEST_FIELDS: &[Field] = &[
    SCHEMA_VERSION,
    MEDIA_TYPE,
    CONFIG,
    LAYERS,
    BLOBS,
    MANIFESTS,
    SUBJECT,
    ARTIFACT_TYPE,
    ANNOTATIONS,
    FS_LAYERS,
];

const DIGEST: Field = Field::new("digest");
const SIZE: Field = Field::new("size");

const DESCRIPTOR_FIELDS: &[Field] = &[MEDIA_TYPE, DIGEST, SIZE];

// === impl Manifest ===

impl Manifest {
    /// Parses the body of a manifest that was declared as `content_type`.
    pub fn parse(content_type: Option<&str>, body: &[u8]) -> Result<Self, ManifestError> {
        let object = Object::parse(body, MANIFEST_FIELDS)?;
        let media_type = resolve(Declared::by(content_type), &object)?;
        for field in foreign_fields(media_type) {
            if object.has(*field) {
                return Err(ManifestError::Mixed(field.name()));
            }
        }
        check_schema_version(media_type, &object)?;

        let config = object
            .get(CONFIG)
            .map(|config| Descriptor::parse(config.as_bytes()))
            .transpose()?;
        let (layers, manifests) = match media_type {
            ManifestType::OciImage | ManifestType::DockerImage if config.is_none() => {
                return Err(ManifestError::Missing(CONFIG.name()));
            }
            ManifestType::OciImage | ManifestType::DockerImage => {
                (LAYERS.descriptors(&object)?, Vec::new())
            }
            ManifestType::OciArtifact => (BLOBS.descriptors(&object)?, Vec::new()),
            ManifestType::OciIndex | ManifestType::DockerList if !object.has(MANIFESTS) => {
                return Err(ManifestError::Missing(MANIFESTS.name()));
            }
            ManifestType::OciIndex | ManifestType::DockerList => {
                (Vec::new(), MANIFESTS.descriptors(&object)?)
            }
        };
        let subject = object
            .get(SUBJECT)
            .map(|subject| Descriptor::parse(subject.as_bytes()))
            .transpose()?;
        let artifact_type = object
            .string(ARTIFACT_TYPE)?
            .filter(|artifact_type| !artifact_type.is_empty())
            .or_else(|| Some(config.as_ref()?.media_type.clone()).filter(|ty| !ty.is_empty()));
        if artifact_type
            .as_ref()
            .is_some_and(|artifact_type| artifact_type.contains(char::is_control))
        {
            return Err(ManifestError::Malformed(ARTIFACT_TYPE.name()));
        }
        Ok(Self {
            media_type,
            config,
            layers,
            manifests,
            subject: subject.map(|subject| subject.digest),
            artifact_type,
            annotations: object.value(ANNOTATIONS)?.unwrap_or_default(),
        })
    }

    /// Returns the blobs that must be there for it to be complete, each once, the config first.
    ///
    /// Layers that may not be distributed need not be pushed, whether or not it says where to find them.
    pub fn blobs(&self) -> Vec<Digest> {
        let layers = self
            .layers
            .iter()
            .filter(|layer| !media::is_non_distributable(&layer.media_type));
        once_each(self.config.iter().chain(layers))
    }

    /// Returns the manifests that it lists, each once; they may come later, or never.
    pub fn children(&self) -> Vec<Digest> {
        once_each(&self.manifests)
    }
}

fn once_each<'a>(descriptors: impl IntoIterator<Item = &'a Descriptor>) -> Vec<Digest> {
    let mut seen = HashSet::new();
    descriptors
        .into_iter()
        .map(|descriptor| descriptor.digest)
        .filter(|digest| seen.insert(*digest))
        .collect()
}

/// Returns what the manifest is, by what was declared and by what it says itself.
fn resolve(declared: Declared, object: &Object<'_>) -> Result<ManifestType, ManifestError> {
    let own = match object.string(MEDIA_TYPE)? {
        Some(own) if !own.is_empty() => match Declared::by(Some(&own)) {
            // A manifest that calls itself plain JSON says something, and it is no type of ours.
            Declared::Nothing => Declared::Other,
            own => own,
        },
        _ => Declared::Nothing,
    };
    match (declared, own) {
        (Declared::DockerSchema1, _) | (_, Declared::DockerSchema1) => Err(ManifestError::Schema1),
        (Declared::Other, _) | (Declared::Nothing, Declared::Other) => {
            Err(ManifestError::UnsupportedType)
        }
        (Declared::Manifest(declared), Declared::Manifest(own)) if declared == own => Ok(own),
        (Declared::Manifest(_), Declared::Manifest(_) | Declared::Other) => {
            Err(ManifestError::Contradiction)
        }
        (Declared::Nothing, Declared::Manifest(own)) => Ok(own),
        // Docker's types have always said what they are, and docker refuses to pull them otherwise.
        (Declared::Manifest(ManifestType::DockerImage | ManifestType::DockerList), _) => {
            Err(ManifestError::Missing(MEDIA_TYPE.name()))
        }
        (Declared::Manifest(declared), Declared::Nothing) => Ok(declared),
        (Declared::Nothing, Declared::Nothing) => by_shape(object),
    }
}

/// Returns the OCI type that a manifest looks like: OCI's did not have to say, before 1.1.
fn by_shape(object: &Object<'_>) -> Result<ManifestType, ManifestError> {
    if object.has(FS_LAYERS) {
        Err(ManifestError::Schema1)
    } else if object.has(MANIFESTS) {
        Ok(ManifestType::OciIndex)
    } else if object.has(CONFIG) {
        Ok(ManifestType::OciImage)
    } else {
        Err(ManifestError::Missing(MEDIA_TYPE.name()))
    }
}

/// Returns what a manifest of a type must not have.
const fn foreign_fields(media_type: ManifestType) -> &'static [Field] {
    match media_type {
        ManifestType::OciImage | ManifestType::DockerImage => &[MANIFESTS, BLOBS, FS_LAYERS],
        ManifestType::OciIndex | ManifestType::DockerList => &[CONFIG, LAYERS, BLOBS, FS_LAYERS],
        ManifestType::OciArtifact => &[CONFIG, LAYERS, MANIFESTS, FS_LAYERS],
    }
}

fn check_schema_version(
    media_type: ManifestType,
    object: &Object<'_>,
) -> Result<(), ManifestError> {
    match object.value::<u64>(SCHEMA_VERSION)? {
        Some(2) => Ok(()),
        Some(1) => Err(ManifestError::Schema1),
        Some(_) => Err(ManifestError::Malformed(SCHEMA_VERSION.name())),
        None if media_type == ManifestType::OciArtifact => Ok(()),
        None => Err(ManifestError::Missing(SCHEMA_VERSION.name())),
    }
}

// === impl Descriptor ===

impl Descriptor {
    fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        let object = Object::parse(json, DESCRIPTOR_FIELDS)?;
        let digest = object
            .string(DIGEST)?
            .ok_or(ManifestError::Missing(DIGEST.name()))?;
        let size: u64 = object
            .value(SIZE)?
            .ok_or(ManifestError::Missing(SIZE.name()))?;
        // Clients read it into a signed number.
        if i64::try_from(size).is_err() {
            return Err(ManifestError::Malformed(SIZE.name()));
        }
        Ok(Self {
            media_type: object.string(MEDIA_TYPE)?.unwrap_or_default(),
            digest: digest.parse()?,
            size,
        })
    }
}

impl Field {
    /// Returns the descriptors in a list, which may be absent or null: Go writes an empty one so.
    fn descriptors(self, object: &Object<'_>) -> Result<Vec<Descriptor>, ManifestError> {
        object
            .list(self)?
            .into_iter()
            .map(|descriptor| Descriptor::parse(descriptor.get().as_bytes()))
            .collect()
    }
}

impl From<ManifestError> for ApiError {
    fn from(error: ManifestError) -> Self {
        Self::new(ErrorCode::ManifestInvalid).with_message(error.to_string())
    }
}

#[cfg(test)]
mod tests;
