//! JSON objects of which every reader sees the same: no key twice, and none that only almost is a known one.
//!
//! Go's decoder, which most clients use, takes `Layers` for `layers`, and of two it takes the last. It folds two letters
//! beyond ASCII too, which Unicode's case mapping knows as well.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::ManifestError;

/// A key that means something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field(&'static str);

/// An object whose values have not been looked at.
pub(super) struct Object<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

/// The members of an object as they come.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

// === impl Field ===

impl Field {
    pub(super) const fn new(name: &'static str) -> Self {
        Self(name)
    }

    pub(super) const fn name(self) -> &'static str {
        self.0
    }

    /// Whether `key` is another spelling of it.
    fn is_almost(self, key: &str) -> bool {
        key != self.0 && fold(key).eq(fold(self.0))
    }
}

fn fold(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
}

// === impl Object ===

impl<'a> Object<'a> {
    /// Parses an object in which `fields` mean something.
    pub(super) fn parse(json: &'a [u8], fields: &[Field]) -> Result<Self, ManifestError> {
        let Members(members) = serde_json::from_slice(json)?;
        let mut object = BTreeMap::new();
        for (key, value) in members {
            if let Some(field) = fields.iter().find(|field| field.is_almost(&key)) {
                return Err(ManifestError::Ambiguous(field.name()));
            }
            if let Some(field) = fields.iter().find(|field| field.name() == key)
                && object.contains_key(&key)
            {
                return Err(ManifestError::Ambiguous(field.name()));
            }
            object.insert(key, value);
        }
        Ok(Self(object))
    }

    /// Whether the key is there, whatever its value.
    pub(super) fn has(&self, field: Field) -> bool {
        self.0.contains_key(field.name())
    }

    /// Returns a value as it is written, unless it is absent or null.
    pub(super) fn get(&self, field: Field) -> Option<&'a str> {
        let value = self.0.get(field.name())?.get();
        (value != "null").then_some(value)
    }

    /// Returns a value, unless it is absent or null.
    pub(super) fn value<T: DeserializeOwned>(
        &self,
        field: Field,
    ) -> Result<Option<T>, ManifestError> {
        self.get(field)
            .map(|value| {
                serde_json::from_str(value).or(Err(ManifestError::Malformed(field.name())))
            })
            .transpose()
    }

    /// Returns a string, unless it is absent or null.
    pub(super) fn string(&self, field: Field) -> Result<Option<String>, ManifestError> {
        self.value(field)
    }

    /// Returns the elements of a list as they are written; none when it is absent or null.
    pub(super) fn list(&self, field: Field) -> Result<Vec<&'a RawValue>, ManifestError> {
        match self.get(field) {
            Some(list) => {
                serde_json::from_str(list).or(Err(ManifestError::Malformed(field.name())))
            }
            None => Ok(Vec::new()),
        }
    }
}

// === impl Members ===

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

/// A key, copied only where it is written with escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
