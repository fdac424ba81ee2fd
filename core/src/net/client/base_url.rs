//! Where a registry is.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

/// The URL that the paths of a registry's API are appended to: a scheme, a host, maybe a port, maybe a path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    /// Empty, or begins with a slash and does not end with one.
    prefix: String,
}

/// A text that is no base URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBaseUrl {
    /// It is no absolute URL.
    #[error("not an absolute url")]
    Malformed,
    /// It is neither http nor https.
    #[error("scheme must be http or https")]
    Scheme,
    /// It carries a user or a password, which belong elsewhere.
    #[error("must carry no user or password")]
    UserInfo,
    /// It carries a query.
    #[error("must carry no query")]
    Query,
}

// === impl BaseUrl ===

impl BaseUrl {
    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Returns the scheme.
    pub fn scheme(&self) -> &str {
        self.scheme.as_str()
    }

    /// Returns host and, where given, port.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whether another leads to the same scheme, host and port, however that is written.
    pub fn is_same_site(&self, other: &Self) -> bool {
        let host = |url: &Self| url.authority.host().to_ascii_lowercase();
        self.scheme == other.scheme && host(self) == host(other) && self.port() == other.port()
    }

    /// Returns the port, which may be the scheme's.
    pub fn port(&self) -> u16 {
        let of_scheme = if self.is_https() { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(of_scheme)
    }

    /// Returns where an absolute URL leads to, without its path.
    pub fn of(uri: &Uri) -> Result<Self, BadBaseUrl> {
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(BadBaseUrl::Malformed);
        };
        format!("{scheme}://{authority}").parse()
    }

    /// Returns the URL of a path, given with its query.
    pub fn join(&self, path_and_query: &PathAndQuery) -> Result<Uri, http::Error> {
        let builder = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone());
        if self.prefix.is_empty() {
            return builder.path_and_query(path_and_query.clone()).build();
        }
        builder
            .path_and_query(format!("{}{path_and_query}", self.prefix))
            .build()
    }
}

impl FromStr for BaseUrl {
    type Err = BadBaseUrl;

    fn from_str(text: &str) -> Result<Self, BadBaseUrl> {
        if text.contains('#') {
            return Err(BadBaseUrl::Malformed);
        }
        let uri: Uri = text.parse().or(Err(BadBaseUrl::Malformed))?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(BadBaseUrl::Malformed);
        };
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(BadBaseUrl::Scheme);
        }
        if authority.as_str().contains('@') {
            return Err(BadBaseUrl::UserInfo);
        }
        if authority.host().is_empty() {
            return Err(BadBaseUrl::Malformed);
        }
        let prefix = match &parts.path_and_query {
            None => "",
            Some(path) if path.query().is_some() => return Err(BadBaseUrl::Query),
            Some(path) => path.path().trim_end_matches('/'),
        };
        Ok(Self {
            scheme,
            authority,
            prefix: prefix.to_owned(),
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, BadBaseUrl>) {
        let joined = text.parse::<BaseUrl>().map(|url| {
            url.join(&PathAndQuery::from_static("/v2/a?n=1"))
                .unwrap()
                .to_string()
        });
        assert_eq!(
            joined.as_deref().map_err(|error| *error),
            expected,
            "{text}"
        );
    }

    #[test]
    fn paths_go_behind_it() {
        check(
            "https://origin.example",
            Ok("https://origin.example/v2/a?n=1"),
        );
        check(
            "http://127.0.0.1:5001/",
            Ok("http://127.0.0.1:5001/v2/a?n=1"),
        );
        check(
            "http://[::1]:5001/a/b/",
            Ok("http://[::1]:5001/a/b/v2/a?n=1"),
        );
    }

    #[test]
    fn a_site_is_the_same_however_it_is_written() {
        let is_same = |a: &str, b: &str| {
            let [a, b]: [BaseUrl; 2] = [a, b].map(|text| text.parse().unwrap());
            a.is_same_site(&b)
        };
        assert!(is_same("https://a.example", "https://A.example:443/path"));
        assert!(is_same("http://a.example:80", "http://a.example"));
        assert!(!is_same("https://a.example", "http://a.example"));
        assert!(!is_same("https://a.example", "https://a.example:444"));
        assert!(!is_same("https://a.example", "https://b.example"));
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        check("origin.example", Err(BadBaseUrl::Malformed));
        check("/v2", Err(BadBaseUrl::Malformed));
        check("", Err(BadBaseUrl::Malformed));
        check("https://", Err(BadBaseUrl::Malformed));
        check("https://a/#b", Err(BadBaseUrl::Malformed));
        check("ftp://a", Err(BadBaseUrl::Scheme));
        check("https://user:secret@a", Err(BadBaseUrl::UserInfo));
        check("https://a/?b", Err(BadBaseUrl::Query));
    }
}
