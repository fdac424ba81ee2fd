//! Who has the say about a repository: the origin, or an upstream.
//!
//! What: [`Registries::address`] finds out what a client means, of the four ways to name an image: by the registry that it
//! thinks it talks to (`?ns=`), by the host name that it came by, by the first part of the name, or by nothing at all, which a
//! default upstream then stands for. From there on every repository of an upstream is called by that upstream's name and its
//! own, so that the four ways come to the same bytes.
//!
//! Invariants: an `ns` that is not configured is refused, and leads to no connection. A repository is asked for at one
//! registry; a hosted one that the origin knows, or may know, never at an upstream, and one that is called as an upstream's
//! never at the origin.

use std::sync::Arc;

use http::{HeaderValue, Method};
use outport_core::access::Caller;
use outport_core::oci::reference::{Reference, RepoName, Tag};
use outport_core::oci::route::{Fetch, Route, Routed};
use outport_core::upstream::Definition;

use super::Origin;
use super::freshness::{Good, Policy, Rules};
use crate::frozen::Frozen;

/// The origin and the upstreams; cheap to clone.
#[derive(Clone, Debug)]
pub struct Registries(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hosted: Hosted,
    upstreams: Vec<Remote>,
    /// Whether one of them is for some only.
    has_readers: bool,
    /// The one that is meant when none is named.
    default: Option<String>,
    rules: Rules,
    frozen: Frozen,
}

/// Who hosts repositories.
#[derive(Clone, Debug)]
pub struct Hosted {
    /// The origin, if there is one to be asked.
    pub origin: Origin,
    /// What clients call its registry in `?ns=`.
    pub names: Vec<String>,
    /// Whether this node is the origin, so that nobody is to be asked.
    pub is_here: bool,
}

/// Who has the say about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// The origin.
    Hosted,
    /// An upstream.
    Upstream,
    /// An upstream, when the origin does not know the repository.
    Either,
}

/// An upstream, and who is asked about its repositories: itself, or the origin, which then asks for all regions.
#[derive(Clone, Debug)]
pub struct Remote {
    /// What it was configured as.
    pub definition: Definition,
    /// Who is asked for manifests and lists.
    pub names: Origin,
    /// Who is asked for blobs.
    pub blobs: Origin,
}

/// Who is asked for what is of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The origin.
    Origin,
    /// The upstream itself.
    Upstream,
}

/// Whom a client means.
enum Meant<'a> {
    /// The origin.
    Origin,
    /// An upstream, and calls its repository as that does.
    Named(&'a Definition),
    /// An upstream, by the first part of the repository's name.
    Prefix(&'a Definition),
    /// An upstream, for what the origin does not know.
    Default(&'a Definition),
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
    /// What the origin hosts cannot be called so.
    #[error("the name is that of an upstream's repository here")]
    Taken,
    /// The configuration does not let it be asked for this.
    #[error("not to be had from this upstream, by configuration")]
    Forbidden,
    /// An upstream is only asked.
    #[error("an upstream's repositories can be pulled from, and nothing else")]
    ReadOnly,
}

// === impl Registries ===

impl Registries {
    /// Returns an origin and upstreams, of which the one called `default` is meant when none is named, whose tags are kept as
    /// the rules say, and stay where they are while it is `frozen`.
    pub fn new(
        hosted: Hosted,
        upstreams: Vec<Remote>,
        (default, rules): (Option<String>, Rules),
        frozen: Frozen,
    ) -> Self {
        let is_open = |upstream: &Remote| upstream.definition.readers.are_everybody();
        Self(Arc::new(Inner {
            has_readers: !upstreams.iter().all(is_open),
            hosted,
            upstreams,
            default,
            rules,
            frozen,
        }))
    }

    /// Whether this node is the origin.
    pub fn is_here(&self) -> bool {
        self.0.hosted.is_here
    }

    /// Returns the origin.
    pub fn origin(&self) -> &Origin {
        &self.0.hosted.origin
    }

    /// Returns whether the tags of upstreams stay where they are.
    pub fn frozen(&self) -> &Frozen {
        &self.0.frozen
    }

    /// Returns how a tag is kept.
    pub fn policy(&self, repo: &RepoName, tag: &Tag) -> Policy {
        let Some(Remote {
            names: upstream, ..
        }) = self.upstream(repo)
        else {
            return self.origin().tags().policy;
        };
        let mut policy = self.0.rules.policy(repo, tag, upstream.tags().policy);
        policy.good = if self.0.frozen.is_set() {
            Good::Forever
        } else {
            policy.good.times(upstream.stretch())
        };
        policy
    }

    /// Returns who has the say about what a repository calls its content.
    pub fn of(&self, repo: &RepoName) -> &Origin {
        let upstream = self.upstream(repo);
        upstream.map_or(self.origin(), |upstream| &upstream.names)
    }

    /// Returns who has a repository's blobs.
    pub fn of_blobs(&self, repo: &RepoName) -> &Origin {
        let upstream = self.upstream(repo);
        upstream.map_or(self.origin(), |upstream| &upstream.blobs)
    }

    /// Returns the upstream that a repository is of, if it is of one.
    pub fn upstream(&self, repo: &RepoName) -> Option<&Remote> {
        self.find(|definition| definition.has(repo))
    }

    /// Whether what is here may be given as a repository's only if its registry is known to have it, because not all are as open.
    pub fn need_proof(&self, repo: &RepoName) -> bool {
        self.0.has_readers && self.upstream(repo).is_some()
    }

    /// Returns the upstreams whose proof is good for a repository, its own first, if it needs any.
    pub fn provers(&self, repo: &RepoName) -> impl Iterator<Item = &str> {
        let own = self.upstream(repo).filter(|_| self.0.has_readers);
        let others = self.0.upstreams.iter().filter(move |other| {
            let readers = &other.definition.readers;
            own.is_some_and(|own| {
                own.definition.name != other.definition.name
                    && (readers.are_everybody() || *readers == own.definition.readers)
            })
        });
        let provers = own.into_iter().chain(others);
        provers.map(|upstream| &*upstream.definition.name)
    }

    /// Whether a caller may have what a route is about.
    pub fn is_open(&self, route: &Route, caller: &Caller) -> bool {
        let upstream = route.repository().and_then(|repo| self.upstream(repo));
        upstream.is_none_or(|upstream| upstream.definition.readers.include(caller))
    }

    /// Whether another node of the region that asks so may have what is here of a repository: when it says of which upstream
    /// that is, and lets only some in where only some are let in here. Without a word of that, it means what is hosted.
    pub fn may_be_given(
        &self,
        repo: &RepoName,
        question: Option<&HeaderValue>,
        caller: &Caller,
    ) -> bool {
        match (self.upstream(repo), question) {
            (None, None) => true,
            (Some(Remote { definition, .. }), Some(question)) => {
                definition.answers(question.as_bytes())
                    && definition.readers.include(caller)
                    && definition.may_pull_local(repo)
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    /// Returns what a client that came by a host name means. Which repositories an upstream may be asked for is found out by its
    /// readers only.
    pub fn address(
        &self,
        routed: Routed,
        host: Option<&str>,
        caller: &Caller,
    ) -> Result<Addressed, AddressError> {
        let Routed { route, ns } = routed;
        let alone = |route| Addressed {
            route,
            otherwise: None,
        };
        let Some(repo) = route.repository() else {
            return Ok(alone(route));
        };
        match self.meant(repo, ns.as_deref(), host)? {
            Meant::Origin => Ok(alone(route)),
            Meant::Named(definition) => {
                let local = definition.local(repo);
                at_upstream(route, (definition, local), caller).map(alone)
            }
            Meant::Prefix(definition) => {
                let remote = definition.remote(repo);
                let local = remote.and_then(|remote| definition.local(&remote));
                at_upstream(route, (definition, local), caller).map(alone)
            }
            Meant::Default(definition) => {
                let local = definition.local(repo);
                match at_upstream(route.clone(), (definition, local), caller) {
                    Ok(there) if self.0.hosted.is_here || self.origin().is_there() => {
                        Ok(Addressed {
                            route,
                            otherwise: Some(there),
                        })
                    }
                    Ok(there) => Ok(alone(there)),
                    // Pushes are the origin's.
                    Err(_) if self.0.hosted.is_here || self.origin().is_there() => Ok(alone(route)),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Returns who has the say about what a client asks that came by a host name.
    pub fn say(&self, routed: &Routed, host: Option<&str>, caller: &Caller) -> Say {
        let Some(repo) = routed.route.repository() else {
            return Say::Hosted;
        };
        match self.meant(repo, routed.ns.as_deref(), host) {
            Ok(Meant::Named(_) | Meant::Prefix(_)) => Say::Upstream,
            Ok(Meant::Default(definition)) if !is_push_check(&routed.route) => {
                let local = definition.local(repo);
                let there = at_upstream(routed.route.clone(), (definition, local), caller);
                there.map_or(Say::Hosted, |_| Say::Either)
            }
            // It is asked for as what is hosted, as ever, but not to be changed as that.
            Err(AddressError::Taken) if !is_question(&routed.route) => Say::Upstream,
            // What clients call the registry of an origin is nobody's business at the origin.
            Ok(Meant::Origin | Meant::Default(_)) | Err(_) => Say::Hosted,
        }
    }

    /// Returns whom a client means that calls a repository so.
    fn meant(
        &self,
        repo: &RepoName,
        ns: Option<&str>,
        host: Option<&str>,
    ) -> Result<Meant<'_>, AddressError> {
        let named = match ns.map(|ns| (ns, self.called(ns))) {
            None => self.at(host),
            Some((_, Some(definition))) => Some(definition),
            Some((ns, None)) if !self.is_origin(ns) => return Err(AddressError::UnknownNamespace),
            // Whatever it is called by, from here on its name says whose it is.
            Some(_) if self.upstream(repo).is_some() => return Err(AddressError::Taken),
            Some(_) => return Ok(Meant::Origin),
        };
        if let Some(definition) = named {
            return Ok(Meant::Named(definition));
        }
        if let Some(Remote { definition, .. }) = self.upstream(repo) {
            return Ok(Meant::Prefix(definition));
        }
        let default = self.0.default.as_deref();
        let default = default.and_then(|default| self.called(default));
        Ok(default.map_or(Meant::Origin, Meant::Default))
    }

    /// Whether clients call the origin's registry so; at the origin itself, by whatever name is no upstream's.
    fn is_origin(&self, ns: &str) -> bool {
        let mut names = self.0.hosted.names.iter();
        self.is_here() || names.any(|name| name.eq_ignore_ascii_case(ns))
    }

    fn called(&self, ns: &str) -> Option<&Definition> {
        self.find(|definition| definition.is_called(ns))
            .map(|upstream| &upstream.definition)
    }

    fn at(&self, host: Option<&str>) -> Option<&Definition> {
        let host = host?;
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        let is_it =
            |name: &String| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(bare);
        self.find(|definition| definition.hostnames.iter().any(is_it))
            .map(|upstream| &upstream.definition)
    }

    fn find(&self, is_it: impl Fn(&Definition) -> bool) -> Option<&Remote> {
        let mut upstreams = self.0.upstreams.iter();
        upstreams.find(|upstream| is_it(&upstream.definition))
    }
}

fn is_question(route: &Route) -> bool {
    [Method::GET, Method::HEAD].contains(&route.method())
}

/// Whether a question is what clients that push ask, to leave out what is there already: that another registry has it is no
/// help then.
pub fn is_push_check(route: &Route) -> bool {
    matches!(
        route,
        Route::FetchBlob {
            fetch: Fetch::Head,
            ..
        } | Route::FetchManifest {
            reference: Reference::Digest(_),
            fetch: Fetch::Head,
            ..
        }
    )
}

/// Returns the same question about a repository of an upstream, by the name that it has here, if it may have one; for a caller
/// who may not read there also if it may not be asked for.
fn at_upstream(
    route: Route,
    (definition, local): (&Definition, Option<RepoName>),
    caller: &Caller,
) -> Result<Route, AddressError> {
    let local = local.ok_or(AddressError::Name)?;
    if definition.readers.include(caller) && !definition.may_pull_local(&local) {
        return Err(AddressError::Forbidden);
    }
    route.asked_of(local).ok_or(AddressError::ReadOnly)
}

#[cfg(test)]
mod tests;
