//! What a caller shows in place of a password: a JSON Web Token (RFC 7519), signed with a key that nodes share.
//!
//! Invariants: a token is believed only if it is signed with our key by HMAC-SHA-256, whatever its header says, and has not
//! run out. It says who somebody is, never what they may: that is found out when they ask.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use super::readers::Caller;

/// Signs tokens, and tells those that it signed.
pub(super) struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: Issuer,
    kind: Kind,
    /// The user's name.
    sub: String,
    /// In seconds since 1970.
    iat: u64,
    exp: u64,
}

#[derive(Debug, Serialize, Deserialize)]
enum Issuer {
    #[serde(rename = "outport")]
    Outport,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Anybody,
    User,
    Node,
}

/// A token is not one of ours, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is not valid, or no longer")]
pub(super) struct BadToken;

/// The longest token that is looked at, in bytes; ours are not half as long.
const TOKEN_LEN_MAX: usize = 2048;

/// How far the clocks of nodes may be apart, in seconds.
const CLOCKS_APART: u64 = 60;

// === impl Signer ===

impl Signer {
    pub(super) fn new(key: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = CLOCKS_APART;
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        Self {
            encoding: EncodingKey::from_secret(key),
            decoding: DecodingKey::from_secret(key),
            validation,
        }
    }

    /// Returns a token that shows who somebody is from `now` on for a time; none when it cannot be made.
    pub(super) fn sign(&self, caller: &Caller, now: SystemTime, time: Duration) -> Option<String> {
        let (kind, sub) = match caller {
            Caller::Anybody => (Kind::Anybody, ""),
            Caller::User(name) => (Kind::User, &**name),
            Caller::Node => (Kind::Node, ""),
        };
        let iat = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let claims = Claims {
            iss: Issuer::Outport,
            kind,
            sub: sub.to_owned(),
            iat,
            exp: iat.checked_add(time.as_secs())?,
        };
        encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).ok()
    }

    /// Returns who shows a token.
    pub(super) fn verify(&self, token: &str) -> Result<Caller, BadToken> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(BadToken);
        }
        let token = decode::<Claims>(token, &self.decoding, &self.validation);
        let Claims { kind, sub, .. } = token.or(Err(BadToken))?.claims;
        Ok(match kind {
            Kind::Anybody => Caller::Anybody,
            Kind::User => Caller::User(sub.into()),
            Kind::Node => Caller::Node,
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::clock;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const MINUTE: Duration = Duration::from_mins(1);

    fn signed(signer: &Signer, caller: &Caller) -> String {
        signer.sign(caller, clock::now(), MINUTE).unwrap()
    }

    fn part(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    #[test]
    fn says_who_it_was_made_for() {
        let signer = Signer::new(KEY);
        for caller in [
            Caller::Anybody,
            Caller::User("alice".into()),
            Caller::Node,
            // A user of this name is none the more for it.
            Caller::User("node".into()),
        ] {
            let token = signed(&signer, &caller);
            assert_eq!(signer.verify(&token), Ok(caller));
        }
    }

    #[test]
    fn runs_out() {
        let signer = Signer::new(KEY);
        let long_ago = clock::now() - Duration::from_secs(60 + CLOCKS_APART + 1);
        let token = signer.sign(&Caller::Node, long_ago, MINUTE).unwrap();
        assert_eq!(signer.verify(&token), Err(BadToken));
    }

    /// As PROMISES.md D4 lists them.
    #[test]
    fn what_we_did_not_sign_is_not_believed() {
        let signer = Signer::new(KEY);
        let good = signed(&signer, &Caller::User("alice".into()));
        let [_, claims, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
        let head = |json| format!("{}.{claims}.{signature}", part(json));
        let with_claims = |json: &str| {
            // Signed by our key, but not saying what ours do.
            let claims: serde_json::Value = serde_json::from_str(json).unwrap();
            let key = EncodingKey::from_secret(KEY);
            encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
        };
        let far = "99999999999";
        for token in [
            String::new(),
            "a.b".to_owned(),
            "....".to_owned(),
            "x".repeat(1 << 20),
            format!("{good}x"),
            format!("{}.{claims}.", part(r#"{"alg":"none"}"#)),
            head(r#"{"alg":"none"}"#),
            head(r#"{"alg":"HS512"}"#),
            head(r#"{"alg":"RS256"}"#),
            head(r#"{"alg":"HS256","jwk":{"kty":"oct","k":"MDEy"}}"#),
            head(r#"{"alg":"HS256","jku":"https://evil.example/keys"}"#),
            head(r#"{"alg":"HS256","kid":"../../etc/passwd"}"#),
            signed(
                &Signer::new(b"another key that is long enough, too"),
                &Caller::Node,
            ),
            with_claims(&format!(
                r#"{{"iss":"outport","kind":"node","sub":"","iat":1,"exp":"{far}"}}"#
            )),
            with_claims(&format!(
                r#"{{"iss":"other","kind":"node","sub":"","iat":1,"exp":{far}}}"#
            )),
            with_claims(&format!(
                r#"{{"kind":"node","sub":"","iat":1,"exp":{far}}}"#
            )),
            with_claims(r#"{"iss":"outport","kind":"node","sub":"","iat":1}"#),
            with_claims(&format!(
                r#"{{"iss":"outport","kind":"admin","sub":"","iat":1,"exp":{far}}}"#
            )),
        ] {
            let short = token.chars().take(80).collect::<String>();
            assert_eq!(signer.verify(&token), Err(BadToken), "{short}");
        }
    }
}
