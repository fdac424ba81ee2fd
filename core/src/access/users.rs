//! Users and their passwords, from a file as `htpasswd -B` writes it: `name:hash`, a line each, the hashes by bcrypt.
//!
//! Invariants: nothing of a password or a hash is in a message. Checking one that is wrong takes as long as one that is right,
//! and as long for a user that there is not.
//!
//! Failure: a bad file is a problem of the configuration at the start; later it is logged, and the old users stay.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bcrypt::HashParts;

/// Users, as they are in a file.
#[derive(Clone, Default)]
pub struct Users(HashMap<Arc<str>, Arc<str>>);

/// A file is none of users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUsers {
    /// A line is malformed.
    #[error("line {0}: expected name:hash")]
    Line(usize),
    /// A hash is one that we do not check.
    #[error("line {0}: expected a bcrypt hash, as htpasswd -B makes it")]
    Hash(usize),
    /// Two have the same name.
    #[error("line {0}: the user is there already")]
    Twice(usize),
}

// === impl Users ===

impl Users {
    /// Whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns the user of this name, with what its password hashes to; for one that there is not, what some other's does.
    pub(super) fn hash(&self, name: &str) -> (Option<Arc<str>>, Option<Arc<str>>) {
        match self.0.get_key_value(name) {
            Some((name, hash)) => (Some(Arc::clone(name)), Some(Arc::clone(hash))),
            None => (None, self.0.values().next().cloned()),
        }
    }
}

impl FromStr for Users {
    type Err = BadUsers;

    fn from_str(text: &str) -> Result<Self, BadUsers> {
        let mut users = HashMap::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = line.split_once(':').ok_or(BadUsers::Line(number))?;
            if name.is_empty() {
                return Err(BadUsers::Line(number));
            }
            hash.parse::<HashParts>().or(Err(BadUsers::Hash(number)))?;
            if users.insert(name.into(), hash.into()).is_some() {
                return Err(BadUsers::Twice(number));
            }
        }
        Ok(Self(users))
    }
}

impl fmt::Debug for Users {
    /// Says nothing of hashes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
