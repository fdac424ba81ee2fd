//! Which upstreams there are, and what each may be asked for.

use std::path::PathBuf;

use super::pattern::Pattern;
use crate::access::Readers;
use crate::config::Secret;
use crate::net::client::BaseUrl;
use crate::oci::reference::RepoName;

/// An upstream, as it is configured.
#[derive(Clone, Debug)]
pub struct Definition {
    /// What images of it are called by: `docker.io`. The first part of the names of its repositories here.
    pub name: String,
    /// Other names that clients know it by.
    pub aliases: Vec<String>,
    /// Host names of ours that stand for it.
    pub hostnames: Vec<String>,
    /// Where its API is.
    pub url: BaseUrl,
    /// Whether a name of one part is that of a repository below `library`.
    pub has_library: bool,
    /// Who it is asked as; nobody by default.
    pub credentials: Option<Credentials>,
    /// What stands for them at its token endpoint, if it gave one (an identity token, or OAuth 2 refresh token).
    pub identity_token: Option<Secret>,
    /// Hosts that credentials go to beside its own, with their ports if those are not the scheme's.
    pub token_hosts: Vec<String>,
    /// Hosts that it may send to although their addresses are not public.
    pub private_hosts: Vec<String>,
    /// A file of certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Who may pull what it has.
    pub readers: Readers,
    /// Which repositories may be asked for; all of them when empty.
    pub allow: Vec<Pattern>,
    /// Which may not, whatever is allowed.
    pub deny: Vec<Pattern>,
}

/// A user of an upstream.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password, or a token in its place.
    pub password: Secret,
}

/// An upstream that everybody knows.
struct Public {
    name: &'static str,
    url: &'static str,
    aliases: &'static [&'static str],
    token_hosts: &'static [&'static str],
}

const PUBLIC: [Public; 7] = [
    Public {
        name: "docker.io",
        url: "https://registry-1.docker.io",
        aliases: &["index.docker.io", "registry-1.docker.io"],
        token_hosts: &["auth.docker.io"],
    },
    Public::at("ghcr.io", "https://ghcr.io"),
    Public::at("quay.io", "https://quay.io"),
    Public::at("registry.k8s.io", "https://registry.k8s.io"),
    Public::at("gcr.io", "https://gcr.io"),
    Public::at("public.ecr.aws", "https://public.ecr.aws"),
    Public::at("mcr.microsoft.com", "https://mcr.microsoft.com"),
];

/// Where names of one part are those of repositories below `library`.
const HAS_LIBRARY: &str = "docker.io";

/// What an edge says that lets only some pull.
const WITH_READERS: &str = "; readers";

// === impl Definition ===

impl Definition {
    /// Returns the names of the upstreams that need no URL.
    pub fn public_names() -> impl Iterator<Item = &'static str> {
        PUBLIC.iter().map(|public| public.name)
    }

    /// Returns an upstream that everybody knows.
    pub fn public(name: &str) -> Option<Self> {
        let public = PUBLIC.iter().find(|public| public.name == name)?;
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Some(Self {
            aliases: owned(public.aliases),
            token_hosts: owned(public.token_hosts),
            ..Self::new(name.to_owned(), public.url.parse().ok()?)
        })
    }

    /// Returns one that is known by nothing but its name.
    pub fn new(name: String, url: BaseUrl) -> Self {
        Self {
            has_library: name == HAS_LIBRARY,
            name,
            aliases: Vec::new(),
            hostnames: Vec::new(),
            url,
            credentials: None,
            identity_token: None,
            token_hosts: Vec::new(),
            private_hosts: Vec::new(),
            ca_file: None,
            readers: Readers::Everybody,
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }

    /// Whether a client means it by what it calls the registry it talks to.
    pub fn is_called(&self, ns: &str) -> bool {
        let mut names = self.aliases.iter().chain([&self.name]);
        names.any(|name| name.eq_ignore_ascii_case(ns))
    }

    /// Whether it is asked as somebody.
    pub const fn is_let_in(&self) -> bool {
        self.credentials.is_some() || self.identity_token.is_some()
    }

    /// Whether it may be asked for a repository, named as it is there.
    pub fn may_pull(&self, repo: &RepoName) -> bool {
        let matches = |patterns: &[Pattern]| {
            patterns
                .iter()
                .any(|pattern| pattern.matches(repo.as_str()))
        };
        !matches(&self.deny) && (self.allow.is_empty() || matches(&self.allow))
    }

    /// Whether a repository here, which is of it, may be asked for.
    pub fn may_pull_local(&self, local: &RepoName) -> bool {
        let is_open = self.allow.is_empty() && self.deny.is_empty();
        is_open
            || self
                .remote(local)
                .is_some_and(|remote| self.may_pull(&remote))
    }

    /// Whether a repository here is of it.
    pub fn has(&self, local: &RepoName) -> bool {
        let rest = local.as_str().strip_prefix(&self.name);
        rest.is_some_and(|rest| rest.starts_with('/'))
    }

    /// Returns how an origin is asked for it: by its name, and whether only some may pull from the edge what comes of it.
    pub fn question(&self) -> String {
        let Self { name, readers, .. } = self;
        if readers.are_everybody() {
            name.clone()
        } else {
            format!("{name}{WITH_READERS}")
        }
    }

    /// Whether an edge that asks so means it, and may have what it asks for: an edge that lets everybody pull what is for some
    /// only here may not.
    pub fn answers(&self, question: &[u8]) -> bool {
        let rest = question.strip_prefix(self.name.as_bytes());
        match rest {
            Some(b"") => self.readers.are_everybody(),
            Some(rest) => rest == WITH_READERS.as_bytes(),
            None => false,
        }
    }

    /// Returns the name of a repository here for what a client calls it; none when it is too long.
    pub fn local(&self, repo: &RepoName) -> Option<RepoName> {
        let library = if self.has_library && !repo.as_str().contains('/') {
            "library/"
        } else {
            ""
        };
        format!("{}/{library}{repo}", self.name).parse().ok()
    }

    /// Returns the name that a repository of it has there, or none when it is not one of its.
    pub fn remote(&self, local: &RepoName) -> Option<RepoName> {
        let rest = local.as_str().strip_prefix(&self.name)?;
        rest.strip_prefix('/')?.parse().ok()
    }

    /// Whether credentials may go to a URL.
    pub(super) fn is_own(&self, url: &BaseUrl) -> bool {
        let is_it = |host: &String| {
            let named: Result<BaseUrl, _> = format!("{}://{host}", url.scheme()).parse();
            named.is_ok_and(|named| named.is_same_site(url))
        };
        let (own, port) = (&self.url, url.port());
        let is_own = own
            .authority()
            .host()
            .eq_ignore_ascii_case(url.authority().host());
        let is_same = url.authority() == own.authority();
        is_same || (is_own && own.port() == port) || self.token_hosts.iter().any(is_it)
    }

    /// Returns the hosts that the configuration names.
    pub(super) fn named_hosts(&self) -> Vec<String> {
        let without_port = |host: &String| {
            let parsed: Option<http::uri::Authority> = host.parse().ok();
            parsed.map_or_else(|| host.clone(), |authority| authority.host().to_owned())
        };
        let told = self.token_hosts.iter().chain(&self.private_hosts);
        let mut hosts: Vec<_> = told.map(without_port).collect();
        hosts.push(self.url.authority().host().to_owned());
        hosts
    }
}

// === impl Public ===

impl Public {
    const fn at(name: &'static str, url: &'static str) -> Self {
        Self {
            name,
            url,
            aliases: &[],
            token_hosts: &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_whichever_way() {
        let hub = Definition::public("docker.io").unwrap();
        for (called, local) in [
            ("alpine", "docker.io/library/alpine"),
            ("library/alpine", "docker.io/library/alpine"),
            ("team/app", "docker.io/team/app"),
        ] {
            assert_eq!(hub.local(&called.parse().unwrap()).unwrap().as_str(), local);
        }
        let local = "docker.io/library/alpine".parse().unwrap();
        assert_eq!(hub.remote(&local).unwrap().as_str(), "library/alpine");
        for other in ["docker.io", "docker.iox/a", "ghcr.io/a"] {
            assert_eq!(hub.remote(&other.parse().unwrap()), None, "{other}");
        }
        let ghcr = Definition::public("ghcr.io").unwrap();
        let local = ghcr.local(&"tool".parse().unwrap()).unwrap();
        assert_eq!(local.as_str(), "ghcr.io/tool");
    }

    #[test]
    fn all_public_ones_are_well_formed() {
        for name in Definition::public_names() {
            let definition = Definition::public(name).unwrap();
            assert!(definition.is_called(name));
            assert!(definition.url.is_https());
            assert!(name.parse::<RepoName>().is_ok());
        }
    }

    #[test]
    fn what_is_for_some_is_not_given_to_an_edge_that_is_open() {
        let open = Definition::public("ghcr.io").unwrap();
        let closed = Definition {
            readers: Readers::Users,
            ..open.clone()
        };
        for (origin, edge, expected) in [
            (&open, &open, true),
            (&open, &closed, true),
            (&closed, &closed, true),
            (&closed, &open, false),
        ] {
            assert_eq!(origin.answers(edge.question().as_bytes()), expected);
        }
        for other in ["ghcr.iox", "ghcr.i", "", "ghcr.io; Readers"] {
            assert!(!open.answers(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_is_denied_is_not_allowed() {
        let mut hub = Definition::public("docker.io").unwrap();
        let may = |hub: &Definition, repo: &str| hub.may_pull(&repo.parse().unwrap());
        assert!(may(&hub, "team/app"));
        hub.allow = vec!["library/*".parse().unwrap()];
        hub.deny = vec!["library/evil".parse().unwrap()];
        assert!(may(&hub, "library/alpine"));
        assert!(!may(&hub, "team/app"));
        assert!(!may(&hub, "library/evil"));
    }
}
