//! What a registry asks for when it does not let a request in.
//!
//! Grammar: RFC 9110 section 11.6.1. Several challenges may share a header line, and several lines may be sent; schemes and
//! parameter names have no case. What cannot be read is left out, and what comes behind it on the line too.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user and a password with each request.
    Basic,
    /// A token, to be had from `realm`.
    Bearer {
        /// Where, as a URL.
        realm: String,
        /// For whom; empty when it is not said.
        service: String,
        /// To do what; none when it is not said.
        scope: Option<String>,
    },
}

/// A challenge as it is written.
#[derive(Debug, Default)]
struct Written {
    scheme: String,
    parameters: Vec<(String, String)>,
}

/// How many challenges are looked at.
const CHALLENGES_MAX: usize = 8;

// === impl Challenge ===

impl Challenge {
    /// Returns what is asked for, the strongest first; empty when nothing that is known here is.
    pub(super) fn of(headers: &HeaderMap) -> Vec<Self> {
        let lines = headers.get_all(WWW_AUTHENTICATE).iter();
        let written = lines.filter_map(|line| line.to_str().ok()).flat_map(parse);
        let mut challenges: Vec<_> = written
            .take(CHALLENGES_MAX)
            .filter_map(|written| written.challenge())
            .collect();
        challenges.sort_by_key(|challenge| matches!(challenge, Self::Basic));
        challenges
    }
}

// === impl Written ===

impl Written {
    fn challenge(&self) -> Option<Challenge> {
        if self.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !self.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        Some(Challenge::Bearer {
            realm: self.get("realm")?,
            service: self.get("service").unwrap_or_default(),
            scope: self.get("scope").filter(|scope| !scope.is_empty()),
        })
    }

    fn get(&self, name: &str) -> Option<String> {
        let mut parameters = self.parameters.iter();
        let (_, value) = parameters.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value.clone())
    }
}

fn parse(line: &str) -> Vec<Written> {
    let mut challenges: Vec<Written> = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, behind)) = token(rest) else {
            return challenges;
        };
        let value = behind.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (value, challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, behind)) = parameter(value.trim_start_matches([' ', '\t'])) else {
                    return challenges;
                };
                challenge.parameters.push((word.to_owned(), value));
                rest = behind;
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push(Written {
                    scheme: word.to_owned(),
                    ..Written::default()
                });
                rest = behind;
            }
        }
    }
}

/// Returns the token (RFC 9110 section 5.6.2) that a text begins with, and what is behind it.
fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let end = text
        .bytes()
        .position(|byte| !is_token(byte))
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Returns the value of a parameter, a token or a quoted string, and what is behind it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some registries leave the quotes out, whatever is in it.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            character => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(lines: &[&str], expected: &[Challenge]) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, line.parse().unwrap());
        }
        assert_eq!(Challenge::of(&headers), expected, "{lines:?}");
    }

    fn bearer(realm: &str, service: &str, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.to_owned(),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_are_read_as_they_are_sent() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#;
        let expected = bearer(
            "https://auth.docker.io/token",
            "registry.docker.io",
            Some("repository:library/alpine:pull"),
        );
        check(&[hub], &[expected]);
        check(&[r#"Basic realm="a, b=c""#], &[Challenge::Basic]);
        check(&["basic"], &[Challenge::Basic]);
        let a = bearer("https://a", "", None);
        check(
            &[r#"Basic realm="x", Bearer realm="https://a""#],
            &[a.clone(), Challenge::Basic],
        );
        check(
            &["Basic realm=x", "BEARER Realm = \"https://a\""],
            &[a.clone(), Challenge::Basic],
        );
        check(&["Bearer realm=https://a , service="], &[a]);
        check(
            &[r#"Bearer realm="a\"b",scope="""#],
            &[bearer("a\"b", "", None)],
        );
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        check(&[], &[]);
        check(&["Negotiate abc==, Bearer service=a"], &[]);
        check(&[r#"Bearer realm="https://a"#], &[]);
        check(&["=,,=\" Bearer"], &[]);
    }

    proptest! {
        #[test]
        fn nothing_panics(line in "[ -~]{0,80}") {
            parse(&line);
        }

        #[test]
        fn any_value_is_read(value in "[ -~]{1,40}") {
            let quoted = value.replace('\\', r"\\").replace('"', "\\\"");
            let written = parse(&format!("Bearer realm=\"{quoted}\", service=a"));
            prop_assert_eq!(written[0].get("realm"), Some(value));
            prop_assert_eq!(written[0].get("service"), Some("a".to_owned()));
        }
    }
}
