//! A repository and what clients do with it.

use bytes::Bytes;
use http::Method;
use outport_core::oci::digest::{Algorithm, Digest};
use serde_json::Value;

use crate::client::{Call, Client};
use crate::content::Content;
use crate::document::{Document, OCI_CONFIG, OCI_LAYER, descriptor_of, image};
use crate::reply::Reply;

/// A repository behind some door.
#[derive(Clone, Debug)]
pub struct Repository {
    client: Client,
    name: String,
}

/// An image that was pushed, with what it is made of.
#[derive(Clone, Debug)]
pub struct PushedImage {
    /// Its manifest.
    pub manifest: Document,
    /// Its config.
    pub config: Bytes,
    /// Its only layer.
    pub layer: Bytes,
}

/// Returns a `Location` with a parameter more.
pub fn with_query(location: &str, query: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}{query}")
}

// === impl Repository ===

impl Repository {
    /// Returns the repository of a name behind a client.
    pub fn new(client: Client, name: &str) -> Self {
        Self {
            client,
            name: name.to_owned(),
        }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the client.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the same repository behind another door.
    #[must_use]
    pub fn behind(&self, client: Client) -> Self {
        Self::new(client, &self.name)
    }

    /// Returns the path of something in it.
    pub fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.name)
    }

    /// Starts a request below the repository's path.
    #[track_caller]
    pub fn call(&self, method: Method, rest: &str) -> Call {
        self.client.call(method, &self.path(rest))
    }

    /// Starts a request for a blob.
    #[track_caller]
    pub fn blob(&self, method: Method, digest: &Digest) -> Call {
        self.call(method, &format!("blobs/{digest}"))
    }

    /// Starts a request for a manifest, by tag or digest.
    #[track_caller]
    pub fn manifest(&self, method: Method, reference: impl ToString) -> Call {
        self.call(method, &format!("manifests/{}", reference.to_string()))
    }

    /// Fetches a blob.
    #[track_caller]
    pub fn get_blob(&self, digest: &Digest) -> impl Future<Output = Reply> {
        self.blob(Method::GET, digest).send()
    }

    /// Fetches a manifest.
    #[track_caller]
    pub fn get_manifest(&self, reference: impl ToString) -> impl Future<Output = Reply> {
        self.manifest(Method::GET, reference).send()
    }

    /// Starts an upload and returns where it is.
    pub async fn start_upload(&self) -> String {
        let reply = self
            .call(Method::POST, "blobs/uploads/")
            .send()
            .await
            .expect(202);
        reply.location().to_owned()
    }

    /// Asks how many bytes of an upload are there.
    pub async fn upload_offset(&self, location: &str) -> u64 {
        let reply = self.client.get(location).send().await.expect(204);
        let (first, last) = reply.header("range").split_once('-').unwrap();
        assert_eq!(first, "0", "{reply}");
        match last.parse().unwrap() {
            // What an upload without a byte says too, by custom.
            0 => 0,
            last => last + 1u64,
        }
    }

    /// Starts the request that ends an upload.
    #[track_caller]
    pub fn finish_upload(&self, location: &str, digest: &Digest) -> Call {
        let encoded = digest.to_string().replace(':', "%3A");
        self.client
            .put(&with_query(location, &format!("digest={encoded}")))
    }

    /// Pushes a blob under its sha256, as containerd does.
    pub async fn push(&self, bytes: impl Into<Bytes>) -> Digest {
        self.push_as(Algorithm::Sha256, bytes).await
    }

    /// Pushes a blob under its name by an algorithm.
    pub async fn push_as(&self, algorithm: Algorithm, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = algorithm.digest(&bytes);
        let location = self.start_upload().await;
        let reply = self
            .finish_upload(&location, &digest)
            .body(bytes)
            .send()
            .await
            .expect(201);
        reply.with_header("docker-content-digest", &digest.to_string());
        digest
    }

    /// Pushes content of any size.
    pub async fn push_content(&self, content: Content) -> Digest {
        let digest = content.sha256();
        let location = self.start_upload().await;
        self.finish_upload(&location, &digest)
            .content(content)
            .send()
            .await
            .expect(201);
        digest
    }

    /// Sends a manifest, whatever comes of it.
    #[track_caller]
    pub fn put_manifest(
        &self,
        reference: impl ToString,
        document: &Document,
    ) -> impl Future<Output = Reply> {
        self.manifest(Method::PUT, reference)
            .header("content-type", &document.media_type)
            .body(document.body.clone())
            .send()
    }

    /// Pushes a manifest by its digest.
    pub async fn push_manifest(&self, json: &Value) -> Document {
        let document = Document::new(json);
        self.put_manifest(document.digest(), &document)
            .await
            .expect(201);
        document
    }

    /// Pushes an image that only `seed` stands for, and tags it.
    pub async fn push_image(&self, tag: &str, seed: u64) -> PushedImage {
        let image = self.push_image_parts(seed).await;
        self.put_manifest(tag, &image.manifest).await.expect(201);
        image
    }

    /// Pushes the blobs of an image and returns what its manifest would be.
    pub async fn push_image_parts(&self, seed: u64) -> PushedImage {
        let layer = Content::new(seed, 1000).bytes();
        let config = Bytes::from(format!("{{\"os\":\"linux\",\"seed\":{seed}}}"));
        self.push(config.clone()).await;
        self.push(layer.clone()).await;
        let manifest = image(
            &descriptor_of(OCI_CONFIG, &config),
            &[descriptor_of(OCI_LAYER, &layer)],
        );
        PushedImage {
            manifest: Document::new(&manifest),
            config,
            layer,
        }
    }

    /// Returns the tags it lists.
    pub async fn tags(&self) -> Vec<String> {
        let reply = self.call(Method::GET, "tags/list").send().await.expect(200);
        strings(&reply.json()["tags"])
    }

    /// Returns the digests of a subject's referrers.
    pub async fn referrers(&self, subject: &Digest) -> Vec<String> {
        let reply = self
            .call(Method::GET, &format!("referrers/{subject}"))
            .send()
            .await
            .expect(200);
        digests(&reply.json()["manifests"])
    }
}

impl PushedImage {
    /// Returns the name of its config.
    pub fn config_digest(&self) -> Digest {
        Algorithm::Sha256.digest(&self.config)
    }

    /// Returns the name of its layer.
    pub fn layer_digest(&self) -> Digest {
        Algorithm::Sha256.digest(&self.layer)
    }
}

/// Returns the strings of a JSON list.
#[track_caller]
pub fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter()
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

/// Returns the digests of a JSON list of descriptors.
#[track_caller]
pub fn digests(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter()
        .map(|item| item["digest"].as_str().unwrap().to_owned())
        .collect()
}
