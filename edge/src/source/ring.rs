//! Which node of a region a digest belongs to: rendezvous hashing over the nodes' names.
//!
//! What: each node has a rank for each digest, the same at every node. The first of them is the digest's owner, from whom
//! the others have the blob, so that it enters the region once; when the owner is away the next one takes its place.
//!
//! Why rendezvous hashing: a node that comes or goes changes the owner of its own share only, and there is nothing to agree
//! on beside the names. (Thaler, Ravishankar: "A Name-Based Mapping Scheme for Rendezvous", 1996.)

use std::cmp::Reverse;

use outport_core::oci::digest::{Algorithm, Digest, Hasher};

/// The nodes of a region.
#[derive(Clone, Debug)]
pub struct Ring {
    own: String,
    siblings: Vec<String>,
}

// === impl Ring ===

impl Ring {
    /// Returns the ring of a node called `own` and its siblings.
    pub const fn new(own: String, siblings: Vec<String>) -> Self {
        Self { own, siblings }
    }

    /// Returns the siblings that come before this node for a digest, the owner first; none when it is the owner.
    pub fn before_own(&self, digest: &Digest) -> Vec<usize> {
        let own = score(&self.own, digest);
        let mut before: Vec<_> = self
            .siblings
            .iter()
            .enumerate()
            .map(|(index, name)| (Reverse(score(name, digest)), index))
            .filter(|(Reverse(score), _)| *score > own)
            .collect();
        before.sort_unstable();
        before.into_iter().map(|(_, index)| index).collect()
    }
}

/// Returns what a node's rank for a digest goes by.
fn score(name: &str, digest: &Digest) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(digest.output());
    hasher.update(name.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["eu-1", "eu-2", "eu-3", "eu-4"];

    fn ring(own: &str, names: &[&str]) -> Ring {
        let siblings = names.iter().filter(|&&name| name != own);
        Ring::new(
            own.to_owned(),
            siblings.map(|&name| name.to_owned()).collect(),
        )
    }

    fn owner<'a>(names: &[&'a str], digest: &Digest) -> &'a str {
        let owners = names
            .iter()
            .filter(|own| ring(own, names).before_own(digest).is_empty());
        let owners: Vec<_> = owners.collect();
        assert_eq!(owners.len(), 1, "{owners:?}");
        owners[0]
    }

    fn digests() -> impl Iterator<Item = Digest> {
        (0..1000_u32).map(|number| Algorithm::Sha256.digest(&number.to_be_bytes()))
    }

    #[test]
    fn all_agree_on_the_order() {
        for digest in digests() {
            let owner = owner(&NAMES, &digest);
            let mut ranks = Vec::new();
            for own in NAMES {
                let ring = ring(own, &NAMES);
                let before = ring.before_own(&digest);
                if let Some(&first) = before.first() {
                    assert_eq!(ring.siblings[first], owner);
                }
                ranks.push(before.len());
            }
            ranks.sort_unstable();
            assert_eq!(ranks, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn each_owns_its_share_and_keeps_it_when_another_goes() {
        let mut shares = [0; NAMES.len()];
        for digest in digests() {
            let owner = owner(&NAMES, &digest);
            shares[NAMES.iter().position(|name| *name == owner).unwrap()] += 1;
            if owner != NAMES[3] {
                assert_eq!(self::owner(&NAMES[..3], &digest), owner);
            }
        }
        assert!(
            shares.iter().all(|share| (200..300).contains(share)),
            "{shares:?}"
        );
    }
}
