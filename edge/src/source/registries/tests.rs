use std::path::Path;

use http::{Method, Uri};
use outport_core::net::client::{self, Client};
use outport_core::upstream::Upstream;

use super::*;
use crate::metrics::OriginMetrics;
use crate::source::Node;
use crate::tests::questions;

fn registries(has_origin: bool, default: Option<&str>) -> Registries {
    registries_at(has_origin, default, false)
}

fn registries_at(has_origin: bool, default: Option<&str>, is_here: bool) -> Registries {
    let config = client::Config::default();
    let url = "http://127.0.0.1:1".parse().unwrap();
    let node = has_origin.then(|| Node {
        client: Client::new(vec![url], config.clone()).unwrap(),
        access: None,
    });
    let upstreams = ["docker.io", "ghcr.io"].map(|name| {
        let mut definition = Definition::public(name).unwrap();
        if name == "ghcr.io" {
            definition.hostnames = vec!["ghcr.corp".to_owned()];
        }
        let upstream = Upstream::new(definition.clone(), config.clone()).unwrap();
        let asked = Origin::upstream(upstream, questions(), OriginMetrics::default());
        Remote {
            definition,
            names: asked.clone(),
            blobs: asked,
        }
    });
    let origin = Origin::new(node, questions(), OriginMetrics::default());
    let hosted = Hosted {
        origin,
        names: if is_here {
            Vec::new()
        } else {
            vec!["own.example".to_owned()]
        },
        is_here,
    };
    let frozen = Frozen::open(Path::new("/nowhere")).unwrap();
    let default = (default.map(str::to_owned), Rules::default());
    Registries::new(hosted, upstreams.into(), default, frozen)
}

/// Returns the paths that a request is answered from.
#[track_caller]
fn addressed(registries: &Registries, asked: &str, host: &str) -> Result<String, AddressError> {
    let (method, uri) = asked.split_once(' ').unwrap();
    let method: Method = method.parse().unwrap();
    let routed = Route::parse(&method, &uri.parse::<Uri>().unwrap()).unwrap();
    let Addressed { route, otherwise } =
        registries.address(routed, Some(host), &Caller::Anybody)?;
    let otherwise = otherwise.map(|route| format!(" or {}", route.to_uri()));
    Ok(format!(
        "{}{}",
        route.to_uri(),
        otherwise.unwrap_or_default()
    ))
}

#[test]
fn four_ways_to_name_an_image_are_one() {
    let registries = registries(false, Some("docker.io"));
    let expected = "/v2/docker.io/library/alpine/manifests/3".to_owned();
    for asked in [
        "GET /v2/library/alpine/manifests/3?ns=docker.io",
        "GET /v2/alpine/manifests/3?ns=docker.io",
        "GET /v2/library/alpine/manifests/3?ns=registry-1.docker.io",
        "GET /v2/docker.io/library/alpine/manifests/3",
        "GET /v2/docker.io/alpine/manifests/3",
        "HEAD /v2/library/alpine/manifests/3",
        "GET /v2/alpine/manifests/3",
    ] {
        let addressed = addressed(&registries, asked, "127.0.0.1:5000");
        assert_eq!(addressed, Ok(expected.clone()), "{asked}");
    }
    let by_host = addressed(&registries, "GET /v2/org/app/tags/list", "GHCR.corp:443");
    assert_eq!(by_host, Ok("/v2/ghcr.io/org/app/tags/list".to_owned()));
}

#[test]
fn what_is_hosted_comes_first() {
    let registries = registries(true, Some("docker.io"));
    let addressed = |asked| addressed(&registries, asked, "edge");
    assert_eq!(
        addressed("GET /v2/team/app/manifests/3"),
        Ok("/v2/team/app/manifests/3 or /v2/docker.io/team/app/manifests/3".to_owned())
    );
    assert_eq!(
        addressed("GET /v2/team/app/manifests/3?ns=Own.example"),
        Ok("/v2/team/app/manifests/3".to_owned())
    );
    assert_eq!(
        addressed("PUT /v2/team/app/manifests/3"),
        Ok("/v2/team/app/manifests/3".to_owned())
    );
}

#[test]
fn an_upstream_is_not_pushed_to_and_a_strange_one_not_asked() {
    let registries = registries(true, None);
    let addressed = |asked| addressed(&registries, asked, "edge");
    for (asked, expected) in [
        (
            "GET /v2/a/manifests/1?ns=evil.example",
            AddressError::UnknownNamespace,
        ),
        (
            "GET /v2/a/manifests/1?ns=127.0.0.1:80",
            AddressError::UnknownNamespace,
        ),
        (
            "POST /v2/ghcr.io/org/app/blobs/uploads/",
            AddressError::ReadOnly,
        ),
        (
            "DELETE /v2/org/app/manifests/1?ns=ghcr.io",
            AddressError::ReadOnly,
        ),
    ] {
        assert_eq!(addressed(asked), Err(expected), "{asked}");
    }
    assert_eq!(addressed("GET /v2/"), Ok("/v2/".to_owned()));
    assert_eq!(
        addressed("GET /v2/team/app/manifests/3"),
        Ok("/v2/team/app/manifests/3".to_owned())
    );
}

#[test]
fn what_is_called_as_an_upstream_s_is_not_hosted() {
    let registries = registries(true, None);
    for method in ["GET", "PUT", "DELETE"] {
        let asked = format!("{method} /v2/ghcr.io/org/app/manifests/1?ns=own.example");
        let addressed = addressed(&registries, &asked, "edge");
        assert_eq!(addressed, Err(AddressError::Taken), "{method}");
    }
}

#[test]
fn at_the_origin_nothing_is_changed_that_is_called_as_an_upstream_s() {
    let registries = registries_at(false, None, true);
    for (asked, expected) in [
        ("PUT /v2/ghcr.io/org/app/manifests/1", Say::Upstream),
        (
            "PUT /v2/ghcr.io/org/app/manifests/1?ns=own.example",
            Say::Upstream,
        ),
        (
            "POST /v2/ghcr.io/org/app/blobs/uploads/?ns=any",
            Say::Upstream,
        ),
        ("GET /v2/ghcr.io/org/app/manifests/1?ns=any", Say::Hosted),
        ("PUT /v2/org/app/manifests/1?ns=any", Say::Hosted),
        ("GET /v2/org/app/manifests/1?ns=any", Say::Hosted),
    ] {
        let (method, uri) = asked.split_once(' ').unwrap();
        let routed = Route::parse(&method.parse().unwrap(), &uri.parse().unwrap()).unwrap();
        assert_eq!(
            registries.say(&routed, None, &Caller::Anybody),
            expected,
            "{asked}"
        );
        // Whoever is to say so refuses it.
        let is_refused = addressed(&registries, asked, "origin").is_err();
        assert_eq!(is_refused, asked.contains("ghcr.io"), "{asked}");
    }
}
