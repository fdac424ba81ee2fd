//! Who asks, and to whom something is open.

use std::sync::Arc;

use http::Extensions;

/// Who asks, among a request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// It was not said.
    Anybody,
    /// A user.
    User(Arc<str>),
    /// Another node, which lets its own callers in, or does not.
    Node,
}

/// To whom something is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// To all.
    #[default]
    Everybody,
    /// To whoever is a user.
    Users,
    /// To these users.
    These(Vec<String>),
}

/// What stands for every user in a list of them.
const ALL_USERS: &str = "*";

// === impl Caller ===

impl Caller {
    /// Returns who sent a request.
    pub fn of(extensions: &Extensions) -> &Self {
        extensions.get().unwrap_or(&Self::Anybody)
    }
}

// === impl Readers ===

impl Readers {
    /// Returns them as they are listed; `*` is every user.
    pub fn listed(names: Vec<String>) -> Self {
        if names.iter().any(|name| name == ALL_USERS) {
            Self::Users
        } else {
            Self::These(names)
        }
    }

    /// Whether it is open to all.
    pub fn are_everybody(&self) -> bool {
        *self == Self::Everybody
    }

    /// Whether it is open to a caller.
    pub fn include(&self, caller: &Caller) -> bool {
        match (self, caller) {
            (Self::Everybody, _) | (Self::Users, Caller::User(_)) | (_, Caller::Node) => true,
            (Self::These(names), Caller::User(user)) => names.iter().any(|name| **name == **user),
            (Self::Users | Self::These(_), Caller::Anybody) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_listed_reads() {
        let user = |name: &str| Caller::User(name.into());
        let listed = |names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned());
            Readers::listed(names.collect())
        };
        for (readers, caller, expected) in [
            (Readers::Everybody, Caller::Anybody, true),
            (listed(&["*"]), Caller::Anybody, false),
            (listed(&["*"]), user("alice"), true),
            (listed(&["alice"]), user("alice"), true),
            (listed(&["alice"]), user("alicia"), false),
            (listed(&["alice"]), user("ali"), false),
            (listed(&["alice"]), Caller::Anybody, false),
            (listed(&["alice"]), Caller::Node, true),
            (listed(&[]), user("alice"), false),
        ] {
            assert_eq!(readers.include(&caller), expected, "{readers:?} {caller:?}");
        }
    }
}
