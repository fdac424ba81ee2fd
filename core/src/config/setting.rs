//! What a value can be.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use toml::Value;

use super::Source;
use crate::net::client::BaseUrl;
use crate::oci::reference::RepoName;

/// A type that configuration values have.
pub trait Setting: Sized {
    /// What to write, as it goes on behind "expected".
    const EXPECTED: &'static str;

    /// Returns what is meant by what is written.
    fn from_given(given: &Given) -> Option<Self>;

    /// Returns how it is written; equal values are written equally.
    fn to_value(&self) -> Value;
}

/// A value as it is written.
#[derive(Clone)]
pub struct Given {
    pub(super) value: Value,
    /// The text that it was made of, unless it comes of a file.
    pub(super) text: Option<String>,
    pub(super) source: Source,
}

/// A number of bytes, written `100GiB`, `500MB` or `1024`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A text is no [`ByteSize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a size is written as a number and a unit, such as 100GiB")]
pub struct BadByteSize;

/// Makes a type a [`Setting`] that is parsed from, and written as, text.
#[macro_export]
macro_rules! text_setting {
    ($($type:ty: $expected:literal),* $(,)?) => {$(
        impl $crate::config::Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn from_given(given: &$crate::config::Given) -> Option<Self> {
                given.text()?.parse().ok()
            }

            fn to_value(&self) -> $crate::config::Value {
                $crate::config::Value::String(self.to_string())
            }
        }
    )*};
}

text_setting! {
    SocketAddr: "an address and port, such as \"127.0.0.1:5000\"",
    RepoName: "a repository name, such as \"library/debian\"",
    BaseUrl: "a URL of scheme and host, such as \"https://registry.example\"",
}

macro_rules! number_setting {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            const EXPECTED: &'static str = "a whole number that is not negative and not too large";

            fn from_given(given: &Given) -> Option<Self> {
                given.value.as_integer()?.try_into().ok()
            }

            fn to_value(&self) -> Value {
                Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
            }
        }
    )*};
}

number_setting!(u16, u32, u64, usize);

/// The units of sizes, the default for plain numbers first.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1000),
    ("MB", 1000 * 1000),
    ("GB", 1000 * 1000 * 1000),
    ("TB", 1000 * 1000 * 1000 * 1000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// The units of times, in milliseconds, the longest first.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 24 * 60 * 60 * 1000),
    ("h", 60 * 60 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

// === impl Given ===

impl Given {
    /// Returns the text, if it is one; what is not from a file is one whatever else it looks like.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => self.text.as_deref(),
        }
    }
}

impl fmt::Debug for Given {
    /// Says nothing of the value, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

// === impl Setting ===

impl Setting for String {
    const EXPECTED: &'static str = "a text in quotes";

    fn from_given(given: &Given) -> Option<Self> {
        given.text().map(str::to_owned)
    }

    fn to_value(&self) -> Value {
        Value::String(self.clone())
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_given(given: &Given) -> Option<Self> {
        given.value.as_bool()
    }

    fn to_value(&self) -> Value {
        Value::Boolean(*self)
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";

    fn from_given(given: &Given) -> Option<Self> {
        given.text().filter(|text| !text.is_empty()).map(Self::from)
    }

    fn to_value(&self) -> Value {
        Value::String(self.display().to_string())
    }
}

impl Setting for Uri {
    const EXPECTED: &'static str = "a URL, such as \"https://registry.example\"";

    fn from_given(given: &Given) -> Option<Self> {
        let uri: Self = given.text()?.parse().ok()?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        (is_http && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl<T: Setting> Setting for Vec<T> {
    const EXPECTED: &'static str = "a list, each element as it would be alone";

    /// Takes a list, and outside of files a text with commas too.
    fn from_given(given: &Given) -> Option<Self> {
        let element = |value: &Value, text: Option<String>| {
            T::from_given(&Given {
                value: value.clone(),
                text,
                source: given.source.clone(),
            })
        };
        match (&given.value, &given.text) {
            (Value::Array(values), _) => values.iter().map(|value| element(value, None)).collect(),
            (_, Some(text)) if text.trim_ascii().is_empty() => Some(Self::new()),
            (_, Some(text)) => text
                .split(',')
                .map(|text| text.trim_ascii().to_owned())
                .map(|text| element(&super::tree::parse_text(&text), Some(text)))
                .collect(),
            _ => None,
        }
    }

    fn to_value(&self) -> Value {
        Value::Array(self.iter().map(Setting::to_value).collect())
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str =
        "a time as a whole number and one of the units ms, s, m, h, d, such as \"30s\"";

    fn from_given(given: &Given) -> Option<Self> {
        let (number, unit) = split_unit(given.text()?)?;
        let (_, unit_ms) = TIME_UNITS.into_iter().find(|(name, _)| *name == unit)?;
        number.checked_mul(unit_ms).map(Self::from_millis)
    }

    fn to_value(&self) -> Value {
        let ms = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        let (unit, unit_ms) = TIME_UNITS
            .into_iter()
            .find(|(_, unit_ms)| ms >= *unit_ms && ms.is_multiple_of(*unit_ms))
            .unwrap_or(("s", 1000));
        Value::String(format!("{}{unit}", ms / unit_ms))
    }
}

impl Setting for ByteSize {
    const EXPECTED: &'static str = "a size, such as \"100GiB\", \"500MB\" or 1024";

    fn from_given(given: &Given) -> Option<Self> {
        match &given.value {
            Value::Integer(bytes) => u64::try_from(*bytes).ok().map(Self),
            _ => given.text()?.parse().ok(),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

/// Splits `30s` into number and unit, which may have a blank between them.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_ascii()))
}

// === impl ByteSize ===

impl ByteSize {
    /// Returns a size of so many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns a size of so many times 1024 bytes.
    pub const fn kib(count: u32) -> Self {
        Self((count as u64) << 10)
    }

    /// Returns a size of so many times 1024² bytes.
    pub const fn mib(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// Returns a size of so many times 1024³ bytes.
    pub const fn gib(count: u32) -> Self {
        Self((count as u64) << 30)
    }

    /// Returns it in bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns it in bytes, as far as memory reaches.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = BadByteSize;

    fn from_str(text: &str) -> Result<Self, BadByteSize> {
        let (number, unit) = split_unit(text).ok_or(BadByteSize)?;
        SIZE_UNITS
            .into_iter()
            .find(|(name, _)| unit.is_empty() || name.eq_ignore_ascii_case(unit))
            .and_then(|(_, unit_bytes)| number.checked_mul(unit_bytes))
            .map(Self)
            .ok_or(BadByteSize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, unit_bytes) = SIZE_UNITS
            .into_iter()
            .filter(|(_, unit_bytes)| self.0 >= *unit_bytes && self.0.is_multiple_of(*unit_bytes))
            .max_by_key(|(_, unit_bytes)| *unit_bytes)
            .unwrap_or(SIZE_UNITS[0]);
        write!(f, "{}{unit}", self.0 / unit_bytes)
    }
}

// === impl Secret ===

impl Secret {
    /// Wraps a secret.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns it, for what it is there for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the secret in a file, which editors end with a line break.
    pub(super) fn of_file(text: &str) -> Self {
        Self(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
