//! The layout of a location, and of an edge's cache disk: the only place that formats a storage key.
//!
//! ```text
//! <root>/
//!   format                            what wrote this directory (disks only)
//!   blobs/<alg>/<2 hex>/<hex>         whole, verified blobs
//!   uploads/<uuid>                    bytes of a session, on their way to a name
//!   uploads/<uuid>.tails/<uuid>       the end of a session that is too short for a part (object stores only)
//!   moves/<alg>.<hex>/<uuid>          says that the bytes of a blob are those of an upload (object stores only)
//!   moves/<alg>.<hex>/<uuid>.claim    says that somebody copies them to where they belong, and how (object stores only)
//!   downloads/<alg>.<hex>             what an edge is fetching (disks only)
//!   downloads/<alg>.<hex>.<8 hex>     the same, from one of several registries
//!   quarantine/<alg>.<hex>            what was found not to hash to its name (disks only)
//! ```
//!
//! `blobs/` is the same everywhere, so that stores can copy to each other. A key is made of parsed values only, never of
//! text a client sent, so it cannot leave its root.

use uuid::Uuid;

use crate::oci::digest::{Algorithm, Digest};

/// The name of a thing that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// What wrote this directory.
    Format,
    /// A whole, verified blob.
    Blob(&'a Digest),
    /// The bytes of an upload session.
    Upload(Uuid),
    /// The last bytes of an upload session, and which append left them.
    UploadTail(Uuid, Uuid),
    /// Says that the bytes of a blob are those of an upload.
    Move(&'a Digest, Uuid),
    /// Says that somebody copies the bytes of a blob to where they belong.
    MoveClaim(&'a Digest, Uuid),
    /// A blob on its way in from somewhere else.
    Download(&'a Digest, Lane),
    /// A blob that was found not to hash to its name.
    Quarantined(&'a Digest),
}

/// From which of several registries a blob is on its way in: what one of them gives is not mixed with what another does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lane(u32);

/// What the name of a claim ends in.
pub(crate) const CLAIM: &str = ".claim";

/// A folder of [`Key`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Of all blobs.
    Blobs,
    /// Of the blobs named by one algorithm.
    Algorithm(Algorithm),
    /// Of the blobs of one algorithm whose output begins with a byte.
    Prefix(Algorithm, u8),
    /// Of upload sessions.
    Uploads,
    /// Of the last bytes of an upload session.
    Tails(Uuid),
    /// Of what is said of all blobs whose bytes are those of uploads.
    Moves,
    /// Of what is said of one of them.
    MovesOf(Digest),
    /// Of blobs on their way in.
    Downloads,
    /// Of damaged blobs.
    Quarantine,
}

// === impl Key ===

impl Key<'_> {
    /// Returns the path below the location's root, its parts separated by `/`.
    pub fn path(&self) -> String {
        match self {
            Self::Format => "format".to_owned(),
            Self::Blob(digest) => {
                let folder = Folder::Prefix(digest.algorithm(), digest.output()[0]);
                format!("{}/{}", folder.path(), digest.hex())
            }
            Self::Upload(id) => format!("{}/{id}", Folder::Uploads.path()),
            Self::UploadTail(id, append) => format!("{}/{append}", Folder::Tails(*id).path()),
            Self::Move(digest, upload) => format!("{}/{upload}", Folder::MovesOf(**digest).path()),
            Self::MoveClaim(digest, id) => {
                format!("{}/{id}{CLAIM}", Folder::MovesOf(**digest).path())
            }
            Self::Download(digest, lane) => {
                let alone = in_one_folder(Folder::Downloads, digest);
                if *lane == Lane::default() {
                    return alone;
                }
                format!("{alone}.{:08x}", lane.0)
            }
            Self::Quarantined(digest) => in_one_folder(Folder::Quarantine, digest),
        }
    }
}

fn in_one_folder(folder: Folder, digest: &Digest) -> String {
    format!("{}/{}.{}", folder.path(), digest.algorithm(), digest.hex())
}

// === impl Lane ===

impl Lane {
    /// Returns that of a registry of this name; the registry without a name has the default one.
    pub fn of(name: &str) -> Self {
        let digest = Algorithm::Sha256.digest(name.as_bytes());
        let number = digest.output().first_chunk().copied();
        Self(number.map_or(1, u32::from_be_bytes).max(1))
    }

    /// Reads it from the name of a file among the downloads, and returns the rest of that name.
    fn split(file_name: &str) -> Option<(&str, Self)> {
        match file_name.match_indices('.').nth(1) {
            None => Some((file_name, Self::default())),
            Some((at, _)) => {
                let lane = file_name.get(at + 1..)?;
                let number = u32::from_str_radix(lane, 16).ok()?;
                let is_ours = number > 0 && lane == format!("{number:08x}");
                is_ours.then_some((file_name.get(..at)?, Self(number)))
            }
        }
    }
}

// === impl Folder ===

impl Folder {
    /// Returns the path below the location's root, without a slash at its end.
    pub fn path(&self) -> String {
        match self {
            Self::Blobs => "blobs".to_owned(),
            Self::Algorithm(algorithm) => format!("blobs/{algorithm}"),
            Self::Prefix(algorithm, byte) => format!("blobs/{algorithm}/{byte:02x}"),
            Self::Uploads => "uploads".to_owned(),
            Self::Tails(id) => format!("{}.tails", Key::Upload(*id).path()),
            Self::Moves => "moves".to_owned(),
            Self::MovesOf(digest) => in_one_folder(Self::Moves, digest),
            Self::Downloads => "downloads".to_owned(),
            Self::Quarantine => "quarantine".to_owned(),
        }
    }

    /// Returns the digest that a file of this name in this folder is kept under, or none when it is not one of ours.
    pub fn digest(&self, file_name: &str) -> Option<Digest> {
        let digest: Digest = match self {
            Self::Prefix(algorithm, _) => format!("{algorithm}:{file_name}").parse().ok()?,
            Self::Downloads => {
                let (file_name, _) = Lane::split(file_name)?;
                file_name.replacen('.', ":", 1).parse().ok()?
            }
            Self::Moves | Self::Quarantine => file_name.replacen('.', ":", 1).parse().ok()?,
            Self::Blobs
            | Self::Algorithm(_)
            | Self::Uploads
            | Self::Tails(_)
            | Self::MovesOf(_) => return None,
        };
        match self {
            Self::Prefix(_, byte) if digest.output()[0] != *byte => None,
            _ => Some(digest),
        }
    }

    /// Returns the lane of a file of this name in this folder, the default one wherever there are none.
    pub fn lane(&self, file_name: &str) -> Lane {
        match self {
            Self::Downloads => Lane::split(file_name).map_or(Lane::default(), |(_, lane)| lane),
            _ => Lane::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn draws_the_tree() {
        let digest = Algorithm::Sha256.digest(b"");
        let hex = digest.hex();
        let id = Uuid::nil();
        let check = |key: Key<'_>, expected: String| assert_eq!(key.path(), expected);
        check(Key::Format, "format".into());
        check(Key::Blob(&digest), format!("blobs/sha256/e3/{hex}"));
        check(Key::Upload(id), format!("uploads/{id}"));
        check(Key::UploadTail(id, id), format!("uploads/{id}.tails/{id}"));
        check(Key::Move(&digest, id), format!("moves/sha256.{hex}/{id}"));
        check(
            Key::MoveClaim(&digest, id),
            format!("moves/sha256.{hex}/{id}.claim"),
        );
        let downloads = [
            (Lane::default(), format!("downloads/sha256.{hex}")),
            (Lane::of("hub"), format!("downloads/sha256.{hex}.08d33503")),
        ];
        for (lane, expected) in downloads {
            check(Key::Download(&digest, lane), expected);
        }
        check(
            Key::Quarantined(&digest),
            format!("quarantine/sha256.{hex}"),
        );
    }

    #[test]
    fn knows_its_own_files_only() {
        let digest = Algorithm::Sha512.digest(b"x");
        let byte = digest.output()[0];
        let blobs = Folder::Prefix(Algorithm::Sha512, byte);
        assert_eq!(blobs.digest(&digest.hex()), Some(digest));
        assert_eq!(
            Folder::Prefix(Algorithm::Sha512, byte ^ 1).digest(&digest.hex()),
            None
        );
        assert_eq!(
            Folder::Prefix(Algorithm::Sha256, byte).digest(&digest.hex()),
            None
        );
        assert_eq!(blobs.digest(".nfs0001"), None);
        assert_eq!(Folder::Uploads.digest(&digest.hex()), None);
        let alone = format!("sha512.{}", digest.hex());
        for lane in [
            "",
            "00000000",
            "0000001",
            "0000000A",
            "000000001",
            "0000001.1",
            "+000001",
        ] {
            let name = format!("{alone}.{lane}");
            assert_eq!(Folder::Downloads.digest(&name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_file_name_leads_back_to_its_digest(content: Vec<u8>, sha512: bool, registry: String) {
            let algorithm = if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = algorithm.digest(&content);
            let lane = Lane::of(&registry);
            let cases = [
                (Folder::Prefix(algorithm, digest.output()[0]), Key::Blob(&digest)),
                (Folder::Downloads, Key::Download(&digest, Lane::default())),
                (Folder::Downloads, Key::Download(&digest, lane)),
                (Folder::Quarantine, Key::Quarantined(&digest)),
            ];
            for (folder, key) in cases {
                let path = key.path();
                let (parent, name) = path.rsplit_once('/').unwrap();
                prop_assert_eq!(parent, folder.path());
                prop_assert_eq!(folder.digest(name), Some(digest));
                if let Key::Download(_, lane) = key {
                    prop_assert_eq!(folder.lane(name), lane);
                }
            }
        }
    }
}
