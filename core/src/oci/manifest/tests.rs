use super::*;
use crate::oci::digest::Algorithm;
use proptest::prelude::*;
use serde_json::{Value, json};

const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

fn digest(content: &str) -> Digest {
    Algorithm::Sha256.digest(content.as_bytes())
}

fn descriptor(media_type: &str, content: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest(content).to_string(), "size": content.len()})
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", "config"),
        "layers": [descriptor(LAYER, "a"), descriptor(LAYER, "b")],
    })
}

fn index() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_IMAGE, "a"), descriptor(OCI_INDEX, "b")],
    })
}

/// Returns `value` with members set, or removed where they are null.
#[expect(clippy::needless_pass_by_value, reason = "reads better with json!")]
fn with(mut value: Value, members: Value) -> Value {
    for (key, member) in members.as_object().unwrap() {
        if member.is_null() {
            value.as_object_mut().unwrap().remove(key);
        } else {
            value[key] = member.clone();
        }
    }
    value
}

#[track_caller]
fn parse(content_type: &str, body: &Value) -> Manifest {
    Manifest::parse(Some(content_type), body.to_string().as_bytes()).unwrap()
}

#[track_caller]
fn refused(content_type: Option<&str>, body: &str, expected: &str) {
    let error = Manifest::parse(content_type, body.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), expected, "{body}");
}

#[test]
fn an_image() {
    let manifest = parse(OCI_IMAGE, &image());
    assert_eq!(manifest.media_type, ManifestType::OciImage);
    assert_eq!(manifest.blobs(), ["config", "a", "b"].map(digest));
    assert_eq!(manifest.children(), []);
    assert_eq!(manifest.layers[1].size, 1);
    assert_eq!(manifest.subject, None);
    assert_eq!(
        manifest.artifact_type.as_deref(),
        Some("application/vnd.oci.image.config.v1+json")
    );
}

#[test]
fn an_index() {
    let manifest = parse(OCI_INDEX, &index());
    assert_eq!(manifest.media_type, ManifestType::OciIndex);
    assert_eq!(manifest.children(), ["a", "b"].map(digest));
    assert_eq!(manifest.blobs(), []);
    assert_eq!(manifest.artifact_type, None);
    let empty = parse(OCI_INDEX, &with(index(), json!({"manifests": []})));
    assert_eq!(empty.children(), []);
}

#[test]
fn an_artifact_with_a_subject() {
    let empty = descriptor(EMPTY, "{}");
    let body = json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "artifactType": "application/example",
        "config": empty,
        "layers": [empty],
        "subject": descriptor(OCI_IMAGE, "subject"),
        "annotations": {"key": "value"},
        "org.example.unknown": [{"layers": 1}],
    });
    let manifest = parse(OCI_IMAGE, &body);
    assert_eq!(manifest.blobs(), [digest("{}")]);
    assert_eq!(manifest.subject, Some(digest("subject")));
    assert_eq!(
        manifest.artifact_type.as_deref(),
        Some("application/example")
    );
    assert_eq!(manifest.annotations["key"], "value");

    let manifest = parse(OCI_IMAGE, &with(body, json!({"artifactType": ""})));
    assert_eq!(manifest.artifact_type.as_deref(), Some(EMPTY));
}

#[test]
fn other_kinds() {
    let docker = with(image(), json!({"mediaType": DOCKER_IMAGE}));
    assert_eq!(
        parse(DOCKER_IMAGE, &docker).media_type,
        ManifestType::DockerImage
    );
    let list = with(index(), json!({"mediaType": DOCKER_LIST}));
    assert_eq!(parse(DOCKER_LIST, &list).children().len(), 2);
    let artifact = json!({
        "mediaType": OCI_ARTIFACT,
        "artifactType": "application/example",
        "blobs": [descriptor("text/plain", "a")],
    });
    assert_eq!(parse(OCI_ARTIFACT, &artifact).blobs(), [digest("a")]);
}

#[test]
fn layers_that_need_not_be_pushed() {
    let layers = json!([
        descriptor(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "foreign"
        ),
        with(
            descriptor(
                "application/vnd.oci.image.layer.nondistributable.v1.tar",
                "x"
            ),
            json!({"urls": ["https://example.com/x"]})
        ),
        descriptor(LAYER, "a"),
        descriptor(LAYER, "a"),
    ]);
    let manifest = parse(OCI_IMAGE, &with(image(), json!({"layers": layers})));
    assert_eq!(manifest.blobs(), ["config", "a"].map(digest));
    assert_eq!(manifest.layers.len(), 4);
}

#[test]
fn no_layers() {
    for layers in ["[]", "null"] {
        let body = image().to_string();
        let (head, _) = body.split_once("\"layers\":").unwrap();
        let body = format!(
            "{head}\"layers\":{layers},\"mediaType\":\"{OCI_IMAGE}\",\"schemaVersion\":2}}  \n"
        );
        let manifest = Manifest::parse(Some(OCI_IMAGE), body.as_bytes()).unwrap();
        assert_eq!(manifest.blobs(), [digest("config")]);
    }
    let manifest = parse(OCI_IMAGE, &with(image(), json!({"layers": null})));
    assert_eq!(manifest.layers, []);
}

#[test]
fn what_type_it_is() {
    #[track_caller]
    fn check(content_type: Option<&str>, body: &Value, expected: ManifestType) {
        let manifest = Manifest::parse(content_type, body.to_string().as_bytes()).unwrap();
        assert_eq!(manifest.media_type, expected);
    }
    let silent_image = with(image(), json!({"mediaType": null}));
    let silent_index = with(index(), json!({"mediaType": null}));
    let docker = with(image(), json!({"mediaType": DOCKER_IMAGE}));
    check(
        Some(&format!("{OCI_IMAGE}; charset=utf-8")),
        &image(),
        ManifestType::OciImage,
    );
    check(None, &image(), ManifestType::OciImage);
    check(None, &docker, ManifestType::DockerImage);
    check(Some("application/json"), &index(), ManifestType::OciIndex);
    check(Some(OCI_IMAGE), &silent_image, ManifestType::OciImage);
    check(Some(OCI_INDEX), &silent_index, ManifestType::OciIndex);
    check(None, &silent_image, ManifestType::OciImage);
    check(None, &silent_index, ManifestType::OciIndex);
}

#[test]
fn refuses_other_types() {
    let unsupported = "manifests of this media type are not supported";
    let contradiction = "the Content-Type contradicts the mediaType";
    let schema1 = "manifests of Docker's schema 1 are not supported";
    let body = image().to_string();
    refused(Some("text/html"), &body, unsupported);
    refused(Some(OCI_INDEX), &body, contradiction);
    refused(Some(DOCKER_IMAGE), &body, contradiction);
    let own = |own: &str| with(image(), json!({"mediaType": own})).to_string();
    refused(None, &own("text/html"), unsupported);
    refused(None, &own("application/json"), unsupported);
    refused(Some(OCI_IMAGE), &own("application/json"), contradiction);
    let silent = with(image(), json!({"mediaType": null})).to_string();
    refused(Some(DOCKER_IMAGE), &silent, "mediaType is missing");
    refused(None, r#"{"schemaVersion": 2}"#, "mediaType is missing");
    for content_type in [
        None,
        Some("application/json"),
        Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ] {
        refused(
            content_type,
            r#"{"schemaVersion": 1, "fsLayers": []}"#,
            schema1,
        );
    }
    let first = with(image(), json!({"schemaVersion": 1})).to_string();
    refused(Some(OCI_IMAGE), &first, schema1);
}

#[test]
fn refuses_what_can_be_read_in_two_ways() {
    let mixed = |base: Value, key: &str| with(base, json!({key: []})).to_string();
    refused(
        Some(OCI_IMAGE),
        &mixed(image(), "manifests"),
        "a manifest of this type has no manifests",
    );
    refused(
        Some(OCI_INDEX),
        &mixed(index(), "layers"),
        "a manifest of this type has no layers",
    );
    refused(
        Some(OCI_INDEX),
        &mixed(index(), "config"),
        "a manifest of this type has no config",
    );
    refused(
        Some(OCI_IMAGE),
        &mixed(image(), "fsLayers"),
        "a manifest of this type has no fsLayers",
    );
    refused(
        Some(OCI_IMAGE),
        &mixed(image(), "blobs"),
        "a manifest of this type has no blobs",
    );
    let null = index().to_string().replacen('{', r#"{"layers":null,"#, 1);
    refused(
        Some(OCI_INDEX),
        &null,
        "a manifest of this type has no layers",
    );

    let twice = "layers is there twice, or in another spelling";
    for key in ["layers", "Layers", "LAYERS", "layer\u{17f}", "\\u006cayers"] {
        let body = image()
            .to_string()
            .replacen('{', &format!(r#"{{"{key}":[],"#), 1);
        refused(Some(OCI_IMAGE), &body, twice);
    }
    let body = image()
        .to_string()
        .replacen(r#""digest":"#, r#""Digest":"x","digest":"#, 1);
    refused(
        Some(OCI_IMAGE),
        &body,
        "digest is there twice, or in another spelling",
    );
    let body = image()
        .to_string()
        .replacen(r#""size":"#, r#""size":1,"size":"#, 1);
    refused(
        Some(OCI_IMAGE),
        &body,
        "size is there twice, or in another spelling",
    );
}

#[test]
fn refuses_what_is_malformed() {
    #[track_caller]
    fn check(members: Value, expected: &str) {
        refused(
            Some(OCI_IMAGE),
            &with(image(), members).to_string(),
            expected,
        );
    }
    for (body, place) in [
        ("", "1 column 0"),
        ("[]", "1 column 0"),
        ("{", "1 column 1"),
        ("{} x", "1 column 4"),
        ("\u{feff}{}", "1 column 1"),
    ] {
        refused(None, body, &format!("not valid JSON at line {place}"));
    }
    check(json!({"schemaVersion": null}), "schemaVersion is missing");
    check(json!({"schemaVersion": 3}), "schemaVersion is malformed");
    check(json!({"schemaVersion": "2"}), "schemaVersion is malformed");
    check(json!({"mediaType": 1}), "mediaType is malformed");
    check(json!({"config": null}), "config is missing");
    check(json!({"layers": {}}), "layers is malformed");
    check(
        json!({"annotations": {"key": 1}}),
        "annotations is malformed",
    );
    check(json!({"artifactType": []}), "artifactType is malformed");
    check(
        json!({"artifactType": "a\u{0}b"}),
        "artifactType is malformed",
    );
    check(
        json!({"subject": {"digest": digest("a").to_string()}}),
        "size is missing",
    );
    refused(
        Some(OCI_INDEX),
        r#"{"schemaVersion": 2}"#,
        "manifests is missing",
    );

    let layer = |members| json!({"layers": [with(descriptor(LAYER, "a"), members)]});
    check(layer(json!({"digest": null})), "digest is missing");
    check(layer(json!({"digest": 1})), "digest is malformed");
    check(layer(json!({"size": null})), "size is missing");
    check(layer(json!({"size": -1})), "size is malformed");
    check(layer(json!({"size": 1.5})), "size is malformed");
    check(layer(json!({"size": u64::MAX})), "size is malformed");
    check(
        layer(json!({"digest": "md5:abc"})),
        "bad digest in a descriptor: only sha256 and sha512 digests are supported",
    );
    check(
        json!({"subject": {"digest": "sha256:abc", "size": 1}}),
        "bad digest in a descriptor: the digest's hex part is not 64 lower-case hex digits",
    );
}

#[test]
fn depth_breaks_nothing() {
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let body = image()
        .to_string()
        .replacen('{', &format!(r#"{{"deep":{deep},"#), 1);
    let _manifest = Manifest::parse(Some(OCI_IMAGE), body.as_bytes());
    let body = with(image(), json!({"layers": null})).to_string();
    let body = body.replacen('{', &format!(r#"{{"layers":{deep},"#), 1);
    assert!(Manifest::parse(Some(OCI_IMAGE), body.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn what_is_listed_is_found(layers in prop::collection::vec("[a-c]{1,2}", 0..8), subject: bool, sha512: bool) {
        let algorithm = if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let descriptor = |content: &str| json!({
            "mediaType": LAYER,
            "digest": algorithm.digest(content.as_bytes()).to_string(),
            "size": content.len(),
        });
        let listed: Vec<_> = layers.iter().map(|layer| descriptor(layer)).collect();
        let mut body = with(image(), json!({"layers": listed}));
        if subject {
            body["subject"] = descriptor("subject");
        }
        let manifest = parse(OCI_IMAGE, &body);
        prop_assert_eq!(manifest.layers.len(), layers.len());
        let blobs = manifest.blobs();
        prop_assert!(layers.iter().all(|layer| blobs.contains(&algorithm.digest(layer.as_bytes()))));
        prop_assert_eq!(blobs.len(), 1 + layers.iter().collect::<HashSet<_>>().len());
        prop_assert_eq!(manifest.subject.is_some(), subject);
    }

    #[test]
    fn never_panics(content_type in prop::option::of("\\PC*"), body: Vec<u8>) {
        let _manifest = Manifest::parse(content_type.as_deref(), &body);
    }

    #[test]
    fn a_damaged_manifest_never_panics(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut body = image().to_string().into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        body.truncate(cut.index(body.len()) + 1);
        let _manifest = Manifest::parse(Some(OCI_IMAGE), &body);
    }
}
