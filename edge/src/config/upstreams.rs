//! The upstreams, and how they are asked.

use std::time::Duration;

use http::Uri;
use outport_core::config::{ByteSize, Section};
use outport_core::net::client::{BadBaseUrl, BaseUrl};
use outport_core::oci::reference::RepoName;
use outport_core::upstream::{Credentials, Definition};

use super::{Upstreams, breaker, client};
use crate::source::freshness::{Rule, Rules};
use crate::source::{OriginConfig, TagConfig};

/// Takes the upstreams: those that everybody knows, unless they are left out, and those of the configuration.
pub(super) fn read(section: &mut Section<'_>) -> Upstreams {
    let mut definitions = Vec::<Definition>::new();
    for definition in section.list("upstream", upstream) {
        if definitions
            .iter()
            .any(|other| other.is_called(&definition.name))
        {
            section.problem("upstream", format!("two are called {}", definition.name));
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
        Upstreams {
            definitions,
            default,
            rules: Rules::new(section.list("freshness", rule)),
            client: client(section, Duration::from_secs(5)),
            questions: questions(section),
        }
    })
}

fn rule(section: &mut Section<'_>) -> Option<Rule> {
    let image = section.require("image");
    let tag = section.take_opt("tag");
    let good = section.require("fresh_for");
    Some(Rule {
        image: image?,
        tag: tag.or_else(|| "*".parse().ok())?,
        good: good?,
    })
}

fn questions(section: &mut Section<'_>) -> OriginConfig {
    OriginConfig {
        answer_timeout: section.take("answer_timeout", Duration::from_millis(1900)),
        manifest_bytes_max: section.take("manifest_max", ByteSize::mib(4)).as_u64(),
        breaker: breaker(section),
        tags: TagConfig {
            fresh_for: section.take("tags_fresh_for", Duration::from_mins(1)),
            stale_after: Some(section.take("stale_after", Duration::from_millis(200))),
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
    let mut told = |key| section.take(key, Vec::<String>::new());
    let [aliases, hostnames, token_hosts, private_hosts] =
        ["aliases", "hostnames", "token_hosts", "private_hosts"].map(&mut told);
    let [allow, deny] = ["allow", "deny"].map(|key| section.take(key, Vec::new()));
    let ca_file = section.take_opt("ca_file");
    let definition = definition?;
    Some(Definition {
        aliases: [definition.aliases, aliases].concat(),
        token_hosts: [definition.token_hosts, token_hosts].concat(),
        hostnames,
        private_hosts,
        credentials,
        ca_file,
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
