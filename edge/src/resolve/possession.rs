//! Whether bytes that are here may be given as a registry's, on that registry's word.
//!
//! What: that a registry says of a digest that it is there proves nothing: who operates an upstream that is open could so have
//! what another one gives to its readers only. Among those who are open to the same readers no word is needed. Where some
//! upstream has readers, what an upstream has proven to have, by bringing all of its bytes, is marked; anybody else's is
//! downloaded from the upstream itself, once for all who ask for it so, which proves it.
//!
//! Why a mark of who may, and not of who may not: a mark can be lost, as all that is remembered here can, and a lost one has a
//! blob come once more. What is hosted needs none: the origin links a blob only for who has brought it.

use outport_core::oci::digest::Digest;
use outport_core::oci::media::OCTET_STREAM;
use outport_core::oci::reference::RepoName;

use super::Resolver;
use crate::names::{Link, LinkKey, LinkKind};

// === impl Resolver ===

impl Resolver {
    /// Whether a blob that is here may be given as what a repository links.
    pub async fn may_give(&self, repo: &RepoName, digest: &Digest) -> bool {
        if !self.registries.need_proof(repo) {
            return true;
        }
        for registry in self.registries.provers(repo) {
            let Some(key) = key(registry, digest) else {
                continue;
            };
            if self.names.link(&key).await.is_some() {
                return true;
            }
        }
        false
    }

    /// Remembers that all bytes of a blob came of the registry that a repository is of.
    pub fn learn_possession(&self, repo: &RepoName, digest: &Digest, size: u64) {
        if self.registries.need_proof(repo)
            && let Some(registry) = self.registries.upstream(repo)
            && let Some(key) = key(&registry.definition.name, digest)
        {
            let link = Link {
                content_type: http::HeaderValue::from_static(OCTET_STREAM),
                size,
            };
            let moment = self.names.moment_of_links(&key.repo);
            self.names.put_link(key, link, moment);
        }
    }
}

/// Returns the key of a mark; the name of a registry is the first part of those of its repositories.
fn key(registry: &str, digest: &Digest) -> Option<LinkKey> {
    Some(LinkKey {
        repo: registry.parse().ok()?,
        digest: *digest,
        kind: LinkKind::Possession,
    })
}
