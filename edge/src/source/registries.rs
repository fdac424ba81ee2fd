//! Who has the say about a repository: the origin, or an upstream.
//!
//! What: [`Registries::address`] finds out what a client means, of the four ways to name an image: by the registry that it
//! thinks it talks to (`?ns=`), by the host name that it came by, by the first part of the name, or by nothing at all, which a
//! default upstream then stands for. From there on every repository of an upstream is called by that upstream's name and its
//! own, so that the four ways come to the same bytes.
//!
//! Invariants: an `ns` that is not configured is refused, and leads to no connection. A repository is asked for at one
//! registry; a hosted one that the origin knows, or may know, never at an upstream.

use std::sync::Arc;

use outport_core::oci::reference::{RepoName, Tag};
use outport_core::oci::route::{Route, Routed};
use outport_core::upstream::Definition;

use super::Origin;
use super::freshness::{Good, Rules};
use crate::frozen::Frozen;

/// The origin and the upstreams; cheap to clone.
#[derive(Clone, Debug)]
pub struct Registries(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Origin,
    /// What clients call the registry of the origin in `?ns=`.
    origin_names: Vec<String>,
    upstreams: Vec<Origin>,
    /// The one that is meant when none is named.
    default: Option<String>,
    rules: Rules,
    frozen: Frozen,
}

/// What a client means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressed {
    /// What it asks, of which repository.
    pub route: Route,
    /// The same, if the origin does not know the repository.
    pub otherwise: Option<Route>,
}

/// A request means no registry that is known here, or what cannot be done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no such upstream.
    #[error("no upstream of this name is configured")]
    UnknownNamespace,
    /// The repository's name is too long together with the upstream's.
    #[error("the name is too long")]
    Name,
    /// An upstream is only asked.
    #[error("an upstream's repositories can be pulled from, and nothing else")]
    ReadOnly,
}

// === impl Registries ===

impl Registries {
    /// Returns an origin, with its names, and upstreams, of which the one called `default` is meant when none is named,
    /// whose tags are kept as the rules say, and stay where they are while it is `frozen`.
    pub fn new(
        (origin, origin_names): (Origin, Vec<String>),
        upstreams: Vec<Origin>,
        (default, rules): (Option<String>, Rules),
        frozen: Frozen,
    ) -> Self {
        Self(Arc::new(Inner {
            origin,
            origin_names,
            upstreams,
            default,
            rules,
            frozen,
        }))
    }

    /// Returns the origin.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// Returns whether the tags of upstreams stay where they are.
    pub fn frozen(&self) -> &Frozen {
        &self.0.frozen
    }

    /// Returns how long what was said of a tag is good.
    pub fn good(&self, repo: &RepoName, tag: &Tag) -> Good {
        let Some(upstream) = self.upstream(repo) else {
            return Good::For(self.0.origin.tags().fresh_for);
        };
        if self.0.frozen.is_set() {
            return Good::Forever;
        }
        let own = Good::For(upstream.tags().fresh_for);
        self.0.rules.good(repo, tag).unwrap_or(own)
    }

    /// Returns who has the say about a repository.
    pub fn of(&self, repo: &RepoName) -> &Origin {
        self.upstream(repo).unwrap_or(&self.0.origin)
    }

    /// Returns the upstream that a repository is of, if it is of one.
    pub fn upstream(&self, repo: &RepoName) -> Option<&Origin> {
        self.find(|definition| definition.remote(repo).is_some())
    }

    /// Returns what a client that came by a host name means.
    pub fn address(&self, routed: Routed, host: Option<&str>) -> Result<Addressed, AddressError> {
        let Routed { route, ns } = routed;
        let alone = |route| Addressed {
            route,
            otherwise: None,
        };
        if self.0.upstreams.is_empty() && ns.is_none() {
            return Ok(alone(route));
        }
        let Some(repo) = route.repository() else {
            return Ok(alone(route));
        };
        let named = match &ns {
            Some(ns) if self.is_origin(ns) => return Ok(alone(route)),
            Some(ns) => Some(self.called(ns).ok_or(AddressError::UnknownNamespace)?),
            None => self.at(host),
        };
        if let Some(definition) = named {
            return at_upstream(&route, definition, repo).map(alone);
        }
        let by_prefix = self.find(|definition| definition.remote(repo).is_some());
        if let Some(definition) = by_prefix.and_then(Origin::definition) {
            let remote = definition.remote(repo).ok_or(AddressError::Name)?;
            return at_upstream(&route, definition, &remote).map(alone);
        }
        let Some(default) = &self.0.default else {
            return Ok(alone(route));
        };
        let default = self.called(default).ok_or(AddressError::UnknownNamespace)?;
        match at_upstream(&route, default, repo) {
            Ok(there) if self.0.origin.is_there() => Ok(Addressed {
                route,
                otherwise: Some(there),
            }),
            Ok(there) => Ok(alone(there)),
            // Pushes are the origin's.
            Err(_) => Ok(alone(route)),
        }
    }

    fn is_origin(&self, ns: &str) -> bool {
        let mut names = self.0.origin_names.iter();
        names.any(|name| name.eq_ignore_ascii_case(ns))
    }

    fn called(&self, ns: &str) -> Option<&Definition> {
        self.find(|definition| definition.is_called(ns))
            .and_then(Origin::definition)
    }

    fn at(&self, host: Option<&str>) -> Option<&Definition> {
        let host = host?;
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        let is_it =
            |name: &String| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(bare);
        self.find(|definition| definition.hostnames.iter().any(is_it))
            .and_then(Origin::definition)
    }

    fn find(&self, is_it: impl Fn(&Definition) -> bool) -> Option<&Origin> {
        let mut upstreams = self.0.upstreams.iter();
        upstreams.find(|upstream| upstream.definition().is_some_and(&is_it))
    }
}

/// Returns the same question about a repository of an upstream.
fn at_upstream(
    route: &Route,
    definition: &Definition,
    repo: &RepoName,
) -> Result<Route, AddressError> {
    let local = definition.local(repo).ok_or(AddressError::Name)?;
    route.asked_of(local).ok_or(AddressError::ReadOnly)
}

#[cfg(test)]
mod tests;
