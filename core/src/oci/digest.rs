//! Content digests, and the hashers that make them.
//!
//! A [`Digest`] is the name of every byte string the registry keeps. It is parsed once, at the door, into its binary form:
//! what is compared, stored and turned into a path afterwards can only be a well-formed digest of a known algorithm.
//! Grammar: OCI image specification, `descriptor.md`, "Digests".

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};

/// A hash function that content may be named by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, what practically every client uses.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// The digest of some content: an algorithm and its output.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// The output, followed by zeros when the algorithm's is shorter.
    output: [u8; MAX_OUTPUT],
}

/// Computes a [`Digest`] while bytes stream by; can be frozen and thawed in another process.
#[derive(Clone, Debug)]
pub struct Hasher(State);

/// Why a string is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `algorithm:hex` in it.
    #[error("a digest is written algorithm:hex")]
    Malformed,
    /// The algorithm is well-formed and not one of [`Algorithm`].
    #[error("only sha256 and sha512 digests are supported")]
    UnknownAlgorithm,
    /// The hex part has the wrong length or is not lower-case hex.
    #[error("the digest's hex part is not {expected} lower-case hex digits")]
    BadHex {
        /// How many digits the algorithm has.
        expected: usize,
    },
}

/// A frozen hasher's bytes are not ones that [`Hasher::freeze`] made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the state of a hasher")]
pub struct BadHasherState;

#[derive(Clone, Debug)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

const MAX_OUTPUT: usize = 64;

// === impl Algorithm ===

impl Algorithm {
    /// Every algorithm, the default first.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Returns the registered name, as in the first part of a digest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Returns the length of the output in bytes.
    pub const fn output_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// Returns the digest of `content`.
    pub fn digest(self, content: &[u8]) -> Digest {
        let mut hasher = Hasher::new(self);
        hasher.update(content);
        hasher.finish()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or(DigestError::UnknownAlgorithm)
    }
}

// === impl Digest ===

impl Digest {
    /// Returns the algorithm it was computed with.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the raw output of the algorithm.
    pub fn output(&self) -> &[u8] {
        &self.output[..self.algorithm.output_len()]
    }

    /// Returns the output in lower-case hex: the part behind the colon.
    pub fn hex(&self) -> String {
        hex::encode(self.output())
    }

    /// Returns the digest with this output, or none when it has not the algorithm's length.
    pub fn from_output(algorithm: Algorithm, output: &[u8]) -> Option<Self> {
        (output.len() == algorithm.output_len()).then(|| Self::new(algorithm, output))
    }

    fn new(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut output = [0; MAX_OUTPUT];
        output[..bytes.len()].copy_from_slice(bytes);
        Self { algorithm, output }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 2 * MAX_OUTPUT];
        let text = &mut text[..2 * self.algorithm.output_len()];
        hex::encode_to_slice(self.output(), text).or(Err(fmt::Error))?;
        write!(
            f,
            "{}:{}",
            self.algorithm,
            str::from_utf8(text).or(Err(fmt::Error))?
        )
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::Malformed)?;
        if algorithm.is_empty() || hex.is_empty() {
            return Err(DigestError::Malformed);
        }
        let algorithm: Algorithm = algorithm.parse()?;
        let bad_hex = DigestError::BadHex {
            expected: 2 * algorithm.output_len(),
        };
        // The hex crate takes capitals, and a digest has one spelling only.
        if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(bad_hex);
        }
        let mut output = [0; MAX_OUTPUT];
        hex::decode_to_slice(hex, &mut output[..algorithm.output_len()]).or(Err(bad_hex))?;
        Ok(Self { algorithm, output })
    }
}

// === impl Hasher ===

impl Hasher {
    /// Returns a hasher that has seen no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Returns the algorithm it computes.
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// Returns the digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        match self.0 {
            State::Sha256(hash) => Digest::new(algorithm, &hash.finalize()),
            State::Sha512(hash) => Digest::new(algorithm, &hash.finalize()),
        }
    }

    /// Returns the state as bytes, so that [`Self::thaw`] can go on where this hasher is, in another process too.
    pub fn freeze(&self) -> Vec<u8> {
        match &self.0 {
            State::Sha256(hash) => hash.serialize().to_vec(),
            State::Sha512(hash) => hash.serialize().to_vec(),
        }
    }

    /// Returns the hasher that [`Self::freeze`] made `state` of.
    pub fn thaw(algorithm: Algorithm, state: &[u8]) -> Result<Self, BadHasherState> {
        Ok(Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(deserialize(state)?),
            Algorithm::Sha512 => State::Sha512(deserialize(state)?),
        }))
    }
}

fn deserialize<H: SerializableState>(state: &[u8]) -> Result<H, BadHasherState> {
    let state = SerializedState::<H>::try_from(state).or(Err(BadHasherState))?;
    H::deserialize(&state).or(Err(BadHasherState))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn known_digests() {
        assert_eq!(Algorithm::Sha256.digest(b"").to_string(), EMPTY);
        assert!(
            Algorithm::Sha512
                .digest(b"abc")
                .hex()
                .starts_with("ddaf35a193617abacc417349ae204131")
        );
    }

    #[test]
    fn refuses_what_is_not_a_digest() {
        #[track_caller]
        fn check(text: &str, expected: DigestError) {
            assert_eq!(text.parse::<Digest>(), Err(expected), "{text}");
        }
        let bad = DigestError::BadHex { expected: 64 };
        check("", DigestError::Malformed);
        check("sha256", DigestError::Malformed);
        check("sha256:", DigestError::Malformed);
        check(":abc", DigestError::Malformed);
        check(
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            DigestError::UnknownAlgorithm,
        );
        check("SHA256:e3b0", DigestError::UnknownAlgorithm);
        check("sha256:e3b0", bad);
        check(&EMPTY.to_uppercase().replace("SHA256", "sha256"), bad);
        check(&format!("{EMPTY}0"), bad);
        check(&format!("{EMPTY}\n"), bad);
        check(&EMPTY.replace('e', "é"), bad);
    }

    proptest! {
        #[test]
        fn text_round_trips(content: Vec<u8>, sha512: bool) {
            let digest = if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 }.digest(&content);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
            prop_assert_eq!(Digest::from_output(digest.algorithm(), digest.output()), Some(digest));
            prop_assert_eq!(Digest::from_output(digest.algorithm(), &digest.output()[1..]), None);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }

        #[test]
        fn a_frozen_hasher_goes_on(head: Vec<u8>, tail: Vec<u8>, sha512: bool) {
            let algorithm = if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&head);
            let mut thawed = Hasher::thaw(algorithm, &hasher.freeze()).unwrap();
            thawed.update(&tail);
            prop_assert_eq!(thawed.finish(), algorithm.digest(&[head, tail].concat()));
        }

        #[test]
        fn thawing_never_panics(state: Vec<u8>) {
            drop(Hasher::thaw(Algorithm::Sha256, &state));
            drop(Hasher::thaw(Algorithm::Sha512, &state));
        }
    }
}
