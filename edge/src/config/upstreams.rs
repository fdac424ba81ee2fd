//! The upstreams, and how they are asked.

use std::time::Duration;

use http::Uri;
use outport_core::access::{Access, Readers};
use outport_core::config::{ByteSize, Section};
use outport_core::net::client::{BadBaseUrl, BaseUrl};
use outport_core::oci::reference::RepoName;
use outport_core::upstream::{Credentials, Definition};

use super::{Upstreams, breaker, client};
use crate::source::freshness::{Good, Policy, Rule, Rules};
use crate::source::registries::Asked;
use crate::source::{OriginConfig, TagConfig};

/// Where the origin of an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OriginIs {
    /// In another process.
    Elsewhere,
    /// In this one.
    Beside,
    /// There is none.
    Nowhere,
}

/// Whom a node has to know, or has to be known by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deals {
    /// Users ask it for what is of upstreams, and not only other nodes.
    pub(super) with_users: bool,
    /// It asks an origin for what that hosts.
    pub(super) with_origin: bool,
    /// It asks an origin or siblings for what is of upstreams.
    pub(super) with_nodes: bool,
}

/// How long an upstream may be away before its tags are no longer trusted: a month.
const STALE_IF_ERROR: Duration = Duration::from_hours(24 * 30);

/// Takes the upstreams: those that everybody knows, unless they are left out, and those of the configuration.
///
/// `origin_is` is none at an origin. With one elsewhere, that is asked about them unless the configuration says otherwise.
pub(super) fn read(section: &mut Section<'_>, origin_is: Option<OriginIs>) -> Upstreams {
    let mut definitions = Vec::<Definition>::new();
    for definition in section.list("upstream", upstream) {
        for message in clashes(&definition, &definitions) {
            section.problem("upstream", message);
        }
        definitions.push(definition);
    }
    section.section("upstreams", |section| {
        let all: Vec<_> = Definition::public_names().map(str::to_owned).collect();
        for name in section.take("public", all) {
            match Definition::public(&name) {
                None => section.problem("public", format!("{name} is not known: give it a url")),
                Some(_) if definitions.iter().any(|other| other.is_called(&name)) => {}
                Some(definition) => definitions.push(definition),
            }
        }
        let default: Option<String> = section.take_opt("default");
        if let Some(default) = &default
            && !definitions
                .iter()
                .any(|definition| definition.is_called(default))
        {
            section.problem("default", format!("there is no upstream called {default}"));
        }
        let (names_from, blobs_from) = match origin_is {
            None => (Asked::Upstream, Asked::Upstream),
            Some(origin_is) => from(section, origin_is),
        };
        // The origin is asked as often for what it has from others as for its own.
        let fresh_for = match names_from {
            Asked::Origin => Duration::from_secs(1),
            Asked::Upstream => Duration::from_mins(1),
        };
        Upstreams {
            definitions,
            default,
            names_from,
            blobs_from,
            rules: Rules::new(section.list("freshness", rule)),
            absent_for: section.take("absent_for", Duration::from_secs(5)),
            client: client(section, Duration::from_secs(5)),
            questions: questions(section, fresh_for),
        }
    })
}

/// Returns what one has of the names of others, by which it could not be told from them.
fn clashes(definition: &Definition, others: &[Definition]) -> Vec<String> {
    let called = [&definition.name].into_iter().chain(&definition.aliases);
    let is_called = |name: &&String| others.iter().any(|other| other.is_called(name));
    let is_there = |host: &&String| {
        let mut hosts = others.iter().flat_map(|other| &other.hostnames);
        hosts.any(|other| other.eq_ignore_ascii_case(host))
    };
    let called = called.filter(is_called);
    let called = called.map(|name| format!("two are called {name}"));
    let hosts = definition.hostnames.iter().filter(is_there);
    let hosts = hosts.map(|host| format!("two stand at the host name {host}"));
    called.chain(hosts).collect()
}

/// Holds what clients call the origin's registry against what they call others.
pub(super) fn check_names(section: &mut Section<'_>, upstreams: &Upstreams, origin: &[String]) {
    for name in origin {
        let mut definitions = upstreams.definitions.iter();
        if definitions.any(|definition| definition.is_called(name)) {
            section.problem("origin.names", format!("{name} is an upstream"));
        }
    }
}

/// Holds against each other who may pull from upstreams and by what clients, and other nodes, are known.
pub(super) fn check_access(
    section: &mut Section<'_>,
    upstreams: &Upstreams,
    access: Option<&Access>,
    deals: Deals,
) {
    let mut definitions = upstreams.definitions.iter();
    let closed = definitions.find(|definition| !definition.readers.are_everybody());
    let closed = closed.map(|definition| &definition.name);
    let has_key = access.is_some_and(Access::has_key);
    let has_users = access.is_some_and(Access::has_users);
    let is_any_known = has_users || (access.is_some() && !deals.with_users);
    if let Some(name) = closed.filter(|_| !is_any_known) {
        let message = format!("is missing: {name} has readers, which have to be known");
        section.problem("access.users", message);
    } else if let Some(name) = closed.filter(|_| deals.with_nodes && !has_key) {
        let message = format!("is missing: {name} has readers, and other nodes are asked for it");
        section.problem("access.key", message);
    } else if deals.with_origin && has_users && !has_key {
        let message = "is missing: the origin would not know users by what this edge gave them";
        section.problem("access.key", message);
    }
}

fn rule(section: &mut Section<'_>) -> Option<Rule> {
    let image = section.require("image");
    let tag = section.take_opt("tag");
    let good = section.require("fresh_for");
    let while_revalidate = section.take_opt("stale_while_revalidate");
    let if_error = section.take_opt("stale_if_error");
    Some(Rule {
        image: image?,
        tag: tag.or_else(|| "*".parse().ok())?,
        good: good?,
        while_revalidate,
        if_error,
    })
}

/// Takes who is asked for manifests, and for blobs.
fn from(section: &mut Section<'_>, origin_is: OriginIs) -> (Asked, Asked) {
    let names_from = asked(section, "names_from", origin_is == OriginIs::Elsewhere);
    let blobs_from = asked(section, "blobs_from", names_from == Asked::Origin);
    if origin_is == OriginIs::Nowhere && [names_from, blobs_from].contains(&Asked::Origin) {
        section.problem("names_from", "there is no origin: set origin.urls");
    }
    (names_from, blobs_from)
}

fn asked(section: &mut Section<'_>, key: &str, by_origin: bool) -> Asked {
    match section.take_opt::<String>(key).as_deref() {
        None if by_origin => Asked::Origin,
        None | Some("upstream") => Asked::Upstream,
        Some("origin") => Asked::Origin,
        Some(_) => {
            section.problem(key, "expected \"origin\" or \"upstream\"");
            Asked::Upstream
        }
    }
}

fn questions(section: &mut Section<'_>, fresh_for: Duration) -> OriginConfig {
    OriginConfig {
        answer_timeout: section.take("answer_timeout", Duration::from_millis(1900)),
        manifest_bytes_max: section.take("manifest_max", ByteSize::mib(4)).as_u64(),
        answers_bytes_max: section.take("answers_memory", ByteSize::mib(32)).as_u64(),
        breaker: breaker(section),
        tags: TagConfig {
            policy: Policy {
                good: Good::For(section.take("tags_fresh_for", fresh_for)),
                while_revalidate: section.take("stale_while_revalidate", Duration::ZERO),
                if_error: section.take("stale_if_error", Good::For(STALE_IF_ERROR)),
            },
            stale_after: section.take("stale_after", Duration::from_millis(200)),
            question_timeout: section.take("question_timeout", Duration::from_secs(10)),
        },
    }
}

fn upstream(section: &mut Section<'_>) -> Option<Definition> {
    let name = section.require::<String>("name");
    let name = name.filter(|name| {
        let is_part = name.parse::<RepoName>().is_ok() && !name.contains('/');
        if !is_part {
            let message =
                "must be the first part of a repository's name, such as \"registry.corp\"";
            section.problem("name", message);
        }
        is_part
    });
    let url = section.take_opt::<Uri>("url");
    let url = url.and_then(|url| match url.to_string().parse::<BaseUrl>() {
        Ok(url) => Some(url),
        Err(error) => {
            let error: BadBaseUrl = error;
            section.problem("url", error.to_string());
            None
        }
    });
    let known = name.as_deref().and_then(Definition::public);
    let definition = match (name, url, known) {
        (Some(_), None, Some(known)) => Some(known),
        (Some(name), Some(url), _) => Some(Definition::new(name, url)),
        (Some(_), None, None) => {
            section.problem(
                "url",
                "is missing, and the name is not one that everybody knows",
            );
            None
        }
        (None, _, _) => None,
    };
    // All of its keys are taken, whatever is wrong with it.
    let credentials = credentials(section);
    let identity_token = section.take_secret("identity_token");
    let mut told = |key| section.take(key, Vec::<String>::new());
    let [aliases, hostnames, token_hosts, private_hosts] =
        ["aliases", "hostnames", "token_hosts", "private_hosts"].map(&mut told);
    let readers = section.take_opt("readers").map(Readers::listed);
    let [allow, deny] = ["allow", "deny"].map(|key| section.take(key, Vec::new()));
    let ca_file = section.take_opt("ca_file");
    let definition = definition?;
    Some(Definition {
        aliases: [definition.aliases, aliases].concat(),
        token_hosts: [definition.token_hosts, token_hosts].concat(),
        hostnames,
        private_hosts,
        credentials,
        identity_token,
        ca_file,
        readers: readers.unwrap_or_default(),
        allow,
        deny,
        ..definition
    })
}

fn credentials(section: &mut Section<'_>) -> Option<Credentials> {
    let username = section.take_opt::<String>("username");
    let password = section.take_secret("password");
    match (username, password) {
        (Some(username), Some(password)) => Some(Credentials { username, password }),
        (None, None) => None,
        _ => {
            section.problem("username", "and password are given together, or not at all");
            None
        }
    }
}
