//! An OCI image layout: a directory of blobs with an index of names.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use outport_core::oci::digest::{Algorithm, Digest, Hasher};
use serde_json::{Value, json};

/// An OCI image layout.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    index: Value,
}

const NAME: &str = "org.opencontainers.image.ref.name";

// === impl Layout ===

impl Layout {
    /// Creates an empty one.
    pub fn create(path: &Path) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(
            path.join("oci-layout"),
            r#"{"imageLayoutVersion": "1.0.0"}"#,
        )
        .unwrap();
        let layout = Self {
            path: path.to_owned(),
            index: json!({"schemaVersion": 2, "manifests": []}),
        };
        layout.write_index();
        layout
    }

    /// Opens one that is there.
    pub fn open(path: &Path) -> Self {
        let index = fs::read(path.join("index.json")).unwrap();
        Self {
            path: path.to_owned(),
            index: serde_json::from_slice(&index).unwrap(),
        }
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where a blob is.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    /// Adds a blob.
    pub fn put(&self, bytes: &[u8]) {
        fs::write(self.blob(&Algorithm::Sha256.digest(bytes)), bytes).unwrap();
    }

    /// Makes a file a blob.
    pub fn take(&self, file: &Path) -> (Digest, u64) {
        let (digest, size) = hash_file(Algorithm::Sha256, file);
        fs::rename(file, self.blob(&digest)).unwrap();
        (digest, size)
    }

    /// Names what a descriptor stands for.
    pub fn tag(&mut self, name: &str, mut descriptor: Value) {
        descriptor["annotations"] = json!({NAME: name});
        self.index["manifests"]
            .as_array_mut()
            .unwrap()
            .push(descriptor);
        self.write_index();
    }

    /// Returns what stands for a name.
    ///
    /// # Panics
    ///
    /// When the name stands for nothing.
    pub fn tagged(&self, name: &str) -> Value {
        let mut manifests = self.index["manifests"].as_array().unwrap().iter();
        let found = manifests.find(|manifest| manifest["annotations"][NAME] == name);
        let mut found = found.unwrap_or_else(|| panic!("no {name}")).clone();
        found.as_object_mut().unwrap().remove("annotations");
        found
    }

    /// Returns the digests of what a descriptor stands for and all that it is made of, in order.
    ///
    /// # Panics
    ///
    /// When something is not there, or is not what its digest says.
    pub fn parts(&self, descriptor: &Value) -> Vec<String> {
        let mut parts = Vec::new();
        let mut open = vec![descriptor.clone()];
        while let Some(next) = open.pop() {
            let digest: Digest = next["digest"].as_str().unwrap().parse().unwrap();
            let path = self.blob(&digest);
            assert_eq!(
                hash_file(Algorithm::Sha256, &path).0,
                digest,
                "{}",
                path.display()
            );
            parts.push(digest.to_string());
            if !next["mediaType"].as_str().unwrap().contains("manifest")
                && !next["mediaType"].as_str().unwrap().contains("index")
            {
                continue;
            }
            let manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            for list in ["manifests", "layers"] {
                open.extend(manifest[list].as_array().into_iter().flatten().cloned());
            }
            open.extend(manifest.get("config").cloned());
        }
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    fn write_index(&self) {
        let bytes = serde_json::to_vec(&self.index).unwrap();
        fs::write(self.path.join("index.json"), bytes).unwrap();
    }
}

/// Returns the digest and the size of a file.
pub fn hash_file(algorithm: Algorithm, path: &Path) -> (Digest, u64) {
    let mut writer = HashWriter(Hasher::new(algorithm));
    let size = std::io::copy(&mut File::open(path).unwrap(), &mut writer).unwrap();
    (writer.0.finish(), size)
}

struct HashWriter(Hasher);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
