//! Images of real content, made once and kept beside the built binaries.
//!
//! What: an OCI layout that holds, by the names below, a Debian system with Python packages on top, the packages alone, by
//! another compression and for several platforms, an artifact that refers to an image, and a layer of a gigabyte.
//!
//! Invariant: the layout appears whole or not at all, and processes that want it at once make it once.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use outport_core::oci::digest::{Algorithm, Digest};
use serde_json::{Value, json};

use crate::content::Content;
use crate::document::{Document, OCI_CONFIG, OCI_LAYER, descriptor, image, index, referrer};
use crate::layout::{Layout, hash_file};
use crate::sandbox::run;

/// A Debian system and, in a layer above, Python packages.
pub const DEBIAN: &str = "debian";
/// A Debian system in a layer that zstd compressed.
pub const ZSTD: &str = "zstd";
/// Python packages alone.
pub const WHEELS: &str = "wheels";
/// Python packages for two platforms: an index.
pub const MULTI: &str = "multi";
/// An artifact whose subject is [`WHEELS`].
pub const SBOM: &str = "sbom";
/// A layer of a gigabyte that nothing compressed.
pub const LARGE: &str = "large";

/// The type of [`SBOM`].
pub const SBOM_TYPE: &str = "application/spdx+json";

const LARGE_BYTES: u64 = 1 << 30;
/// Changes with what is made below.
const VERSION: &str = "images-1";

/// The images.
#[derive(Debug)]
pub struct Images {
    layout: Layout,
}

/// How a layer is compressed.
#[derive(Clone, Copy)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A layer in the layout.
struct Layer {
    descriptor: Value,
    /// The digest of what was compressed.
    diff_id: Digest,
}

// === impl Images ===

impl Images {
    /// Returns the images, which are made if they are not there yet.
    ///
    /// # Panics
    ///
    /// When what they are made of was not fetched.
    pub fn shared() -> Self {
        let tools = tools();
        let path = tools.join(VERSION);
        let lock = File::create(tools.join("images.lock")).unwrap();
        lock.lock().unwrap();
        if !path.is_dir() {
            let part = tools.join("images.part");
            if part.is_dir() {
                fs::remove_dir_all(&part).unwrap();
            }
            make(&tools, Layout::create(&part));
            fs::rename(&part, &path).unwrap();
        }
        Self {
            layout: Layout::open(&path),
        }
    }

    /// Returns the name by which skopeo and its like know an image.
    pub fn source(&self, name: &str) -> String {
        format!("oci:{}:{name}", self.layout.path().display())
    }

    /// Returns the manifest or index of an image.
    pub fn document(&self, name: &str) -> Document {
        let descriptor = self.layout.tagged(name);
        Document {
            media_type: descriptor["mediaType"].as_str().unwrap().to_owned(),
            body: self.blob(&descriptor["digest"]),
        }
    }

    /// Returns the digest of an image's manifest or index.
    pub fn digest(&self, name: &str) -> String {
        self.document(name).digest().to_string()
    }

    /// Returns the digest of an image's config, which is what clients call the image's id.
    pub fn id(&self, name: &str) -> String {
        let manifest: Value = serde_json::from_slice(&self.document(name).body).unwrap();
        manifest["config"]["digest"].as_str().unwrap().to_owned()
    }

    /// Returns the digests of what an image is made of, itself among them, in order.
    pub fn parts(&self, name: &str) -> Vec<String> {
        self.layout.parts(&self.layout.tagged(name))
    }

    /// Returns the directory that the packages' layer was made of.
    pub fn wheels() -> PathBuf {
        tools().join("wheels")
    }

    fn blob(&self, digest: &Value) -> Bytes {
        let digest: Digest = digest.as_str().unwrap().parse().unwrap();
        fs::read(self.layout.blob(&digest)).unwrap().into()
    }
}

/// Returns where `tests/run` puts what tests need: beside the profiles of the target directory.
fn tools() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let tools = test.ancestors().nth(3).unwrap().join("test-tools");
    for name in ["debian.tar", "wheels"] {
        let path = tools.join(name);
        let is_there = path.try_exists().unwrap();
        assert!(is_there, "{} is missing: run tests/run", path.display());
    }
    tools
}

fn make(tools: &Path, mut layout: Layout) {
    let wheels_tar = layout.path().join("wheels.tar");
    pack(tools, "wheels", &wheels_tar);
    let debian_tar = tools.join("debian.tar");
    let debian = layer(&layout, &debian_tar, Compression::Gzip);
    let zstd = layer(&layout, &debian_tar, Compression::Zstd);
    let wheels = layer(&layout, &wheels_tar, Compression::Gzip);
    fs::remove_file(wheels_tar).unwrap();
    let large = layer(&layout, &large_tar(layout.path()), Compression::None);
    for (name, layers) in [
        (DEBIAN, &[&debian, &wheels][..]),
        (ZSTD, &[&zstd]),
        (WHEELS, &[&wheels]),
        (LARGE, &[&large]),
    ] {
        let manifest = image_for(&layout, "amd64", layers);
        layout.tag(name, manifest.descriptor());
    }
    let platforms = ["amd64", "arm64"].map(|architecture| {
        let mut entry = image_for(&layout, architecture, &[&wheels]).descriptor();
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        entry
    });
    let multi = put_document(&layout, &index(&platforms));
    layout.tag(MULTI, multi.descriptor());
    layout.put(b"{}");
    let sbom = referrer(SBOM_TYPE, &layout.tagged(WHEELS));
    let sbom = put_document(&layout, &sbom);
    layout.tag(SBOM, sbom.descriptor());
}

/// Packs the directory `name` of `parent`.
fn pack(parent: &Path, name: &str, tar: &Path) {
    run(Command::new("tar")
        .args(["--create", "--sort=name", "--mtime=@1700000000"])
        .args(["--owner=0", "--group=0", "--numeric-owner"])
        .arg("--file")
        .arg(tar)
        .arg("--directory")
        .arg(parent)
        .arg(name));
}

fn large_tar(directory: &Path) -> PathBuf {
    let content = directory.join("large");
    let mut file = File::create(&content).unwrap();
    for piece in Content::new(1, LARGE_BYTES).pieces() {
        file.write_all(&piece).unwrap();
    }
    let tar = directory.join("large.tar");
    pack(directory, "large", &tar);
    fs::remove_file(content).unwrap();
    tar
}

/// Puts a layer made of `tar` into the layout.
fn layer(layout: &Layout, tar: &Path, compression: Compression) -> Layer {
    let (diff_id, _) = hash_file(Algorithm::Sha256, tar);
    let (program, suffix) = match compression {
        Compression::None => ("cat", ""),
        Compression::Gzip => ("gzip -n -1", "+gzip"),
        Compression::Zstd => ("zstd -q -3", "+zstd"),
    };
    let compressed = layout.path().join("layer");
    run(Command::new("sh")
        .args(["-c", &format!("{program} <\"$0\" >\"$1\"")])
        .args([tar, &compressed]));
    let (digest, size) = layout.take(&compressed);
    let base = OCI_LAYER.strip_suffix("+gzip").unwrap();
    Layer {
        descriptor: descriptor(&format!("{base}{suffix}"), &digest, size),
        diff_id,
    }
}

fn image_for(layout: &Layout, architecture: &str, layers: &[&Layer]) -> Document {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| layer.diff_id.to_string())
        .collect();
    let config = json!({
        "created": "2023-11-14T22:13:20Z", "architecture": architecture, "os": "linux",
        "config": {"Cmd": ["/bin/sh"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config).unwrap();
    layout.put(&config);
    let digest = Algorithm::Sha256.digest(&config);
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| layer.descriptor.clone())
        .collect();
    let config = descriptor(OCI_CONFIG, &digest, config.len() as u64);
    put_document(layout, &image(&config, &layers))
}

fn put_document(layout: &Layout, json: &Value) -> Document {
    let document = Document::new(json);
    layout.put(&document.body);
    document
}
