//! Repository names, tags, and what a manifest is asked for by.
//!
//! Grammar: OCI distribution specification, "Pulling manifests".

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::digest::{Digest, DigestError};

/// The name of a repository: `library/debian`, `team/project/app`.
///
/// Cheap to clone. The part before the first slash is its namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoName(Arc<str>);

/// A tag: a movable name of a manifest in a repository.
///
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By a tag, which may move.
    Tag(Tag),
    /// By digest, which is immutable.
    Digest(Digest),
}

/// Why a string names no repository, or is no tag or digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not a repository name.
    #[error("a repository name is lower-case path components of at most 255 characters in all")]
    Name,
    /// Not a tag.
    #[error(
        "a tag is 1 to 128 letters, digits, '_', '.' and '-', and starts with none of the last two"
    )]
    Tag,
    /// Holds a colon, so it can only be a digest, and it is not.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// The longest repository name that is taken, in bytes: what docker's reference grammar allows for host and path.
pub const MAX_NAME_LEN: usize = 255;

/// The longest tag, in bytes.
pub const MAX_TAG_LEN: usize = 128;

// === impl RepoName ===

impl RepoName {
    /// Returns the whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first component, which policies hang on.
    pub fn namespace(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }
}

impl FromStr for RepoName {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() <= MAX_NAME_LEN && text.split('/').all(is_component) {
            Ok(Self(text.into()))
        } else {
            Err(ReferenceError::Name)
        }
    }
}

/// Whether `text` matches `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(text: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let run = rest.iter().take_while(|byte| is_alphanumeric(byte)).count();
        if run == 0 {
            return false;
        }
        rest = &rest[run..];
        let separator = rest
            .iter()
            .take_while(|byte| !is_alphanumeric(byte))
            .count();
        match &rest[..separator] {
            [] => return true,
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|byte| *byte == b'-') => {}
            _ => return false,
        }
        rest = &rest[separator..];
    }
}

// === impl Tag ===

impl Tag {
    /// Returns the tag under which registries without the referrers API keep an index of what refers to `subject`
    /// (specification, "Referrers Tag Schema").
    pub fn of_referrers(subject: &Digest) -> Self {
        let mut hex = subject.hex();
        hex.truncate(64);
        Self(format!("{}-{hex}", subject.algorithm()).into())
    }

    /// Returns the tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match text.as_bytes() {
            [first, rest @ ..]
                if text.len() <= MAX_TAG_LEN
                    && is_word(*first)
                    && rest
                        .iter()
                        .all(|byte| is_word(*byte) || matches!(byte, b'.' | b'-')) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(ReferenceError::Tag),
        }
    }
}

// === impl Reference ===

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else {
            Ok(Self::Tag(text.parse()?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

macro_rules! text_traits {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
text_traits!(RepoName, Tag);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::digest::Algorithm;
    use proptest::prelude::*;

    #[test]
    fn names() {
        #[track_caller]
        fn check(text: &str, valid: bool) {
            assert_eq!(text.parse::<RepoName>().is_ok(), valid, "{text:?}");
        }
        for text in [
            "a",
            "library/debian",
            "a.b/c_d/e__f/g---h",
            "0",
            "ghcr.io/org/app",
        ] {
            check(text, true);
        }
        for text in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", "a.", "a b",
            "ä", "..", "a/../b",
        ] {
            check(text, false);
        }
        check(&"a".repeat(255), true);
        check(&"a".repeat(256), false);
    }

    #[test]
    fn namespaces() {
        assert_eq!(
            "team/project/app".parse::<RepoName>().unwrap().namespace(),
            "team"
        );
        assert_eq!("app".parse::<RepoName>().unwrap().namespace(), "app");
    }

    #[test]
    fn tags() {
        #[track_caller]
        fn check(text: &str, valid: bool) {
            assert_eq!(text.parse::<Tag>().is_ok(), valid, "{text:?}");
        }
        for text in ["latest", "_", "1.0-rc_1", "A", "sha256-abc"] {
            check(text, true);
        }
        for text in ["", ".a", "-a", "a:b", "a/b", "a b", "ä", "a\n"] {
            check(text, false);
        }
        check(&"a".repeat(128), true);
        check(&"a".repeat(129), false);
    }

    #[test]
    fn tags_of_referrers() {
        for algorithm in Algorithm::ALL {
            let subject = algorithm.digest(b"subject");
            let tag = Tag::of_referrers(&subject);
            let expected = format!("{algorithm}-{}", &subject.hex()[..64]);
            assert_eq!(tag.as_str(), expected);
            assert_eq!(expected.parse(), Ok(tag));
        }
    }

    #[test]
    fn references() {
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        assert_eq!(
            "sha256:abc".parse::<Reference>(),
            Err(ReferenceError::Digest(DigestError::BadHex { expected: 64 }))
        );
        assert_eq!(
            "a:b".parse::<Reference>(),
            Err(ReferenceError::Digest(DigestError::UnknownAlgorithm))
        );
    }

    proptest! {
        #[test]
        fn names_of_the_grammar_parse(text in "[a-z0-9]{1,9}((\\.|_|__|-{1,3})[a-z0-9]{1,9}){0,3}(/[a-z0-9]{1,9}){0,3}") {
            prop_assert_eq!(text.parse::<RepoName>().unwrap().to_string(), text);
        }

        #[test]
        fn tags_of_the_grammar_parse(text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            prop_assert_eq!(text.parse::<Tag>().unwrap().to_string(), text);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            drop(text.parse::<RepoName>());
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
