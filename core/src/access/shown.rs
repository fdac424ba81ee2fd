//! What a request shows of who sent it (RFC 9110 section 11.6.2): a name and a password (RFC 7617), or a token (RFC 6750).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// What a request shows.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nothing.
    Nothing,
    /// A user's name and a password.
    Password(String, String),
    /// A token.
    Token(String),
}

/// What is shown cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotUnderstood;

// === impl Shown ===

impl Shown {
    /// Reads it; nothing that two lines say is believed.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, NotUnderstood> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let Some(line) = lines.next() else {
            return Ok(Self::Nothing);
        };
        if lines.next().is_some() {
            return Err(NotUnderstood);
        }
        let text = line.to_str().or(Err(NotUnderstood))?.trim();
        let (scheme, shown) = text.split_once(' ').ok_or(NotUnderstood)?;
        let shown = shown.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Self::Token(shown.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(NotUnderstood);
        }
        let decoded = STANDARD.decode(shown).or(Err(NotUnderstood))?;
        let decoded = String::from_utf8(decoded).or(Err(NotUnderstood))?;
        let (name, password) = decoded.split_once(':').ok_or(NotUnderstood)?;
        if name.is_empty() && password.is_empty() {
            // As docker does when it has none.
            return Ok(Self::Nothing);
        }
        Ok(Self::Password(name.to_owned(), password.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(lines: &[&str]) -> Option<(String, String)> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::try_from(*line).unwrap());
        }
        match Shown::read(&headers).ok()? {
            Shown::Nothing => Some(Default::default()),
            Shown::Password(name, password) => Some((name, password)),
            Shown::Token(token) => Some(("token".to_owned(), token)),
        }
    }

    #[test]
    fn reads_what_clients_send() {
        let pair = |name: &str, shown: &str| Some((name.to_owned(), shown.to_owned()));
        assert_eq!(read(&[]), pair("", ""));
        assert_eq!(read(&["Basic Og=="]), pair("", ""));
        assert_eq!(read(&["Basic YWxpY2U6cHc6eA=="]), pair("alice", "pw:x"));
        assert_eq!(read(&["bearer abc"]), pair("token", "abc"));
    }

    #[test]
    fn what_is_ambiguous_is_not_understood() {
        for lines in [
            &["Basic"][..],
            &["Basic !!!"],
            &["Basic YWxpY2U="],
            &["Digest username=\"alice\""],
            &["Bearer a", "Bearer b"],
        ] {
            assert_eq!(read(lines), None, "{lines:?}");
        }
    }
}
