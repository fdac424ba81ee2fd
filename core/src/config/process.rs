//! The keys that every process has.

use std::net::SocketAddr;
use std::time::Duration;

use super::{ByteSize, Section};
use crate::access::{self, Access, UsersFile};
use crate::net::client::BaseUrl;
use crate::net::serve;
use crate::net::tls::{BadPair, Files, Texts, Tls};
use crate::telemetry::{self, causes};

/// Returns a default address.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Takes a name that can stand in a header and a path.
pub fn name(section: &mut Section<'_>, key: &str, default: &str) -> String {
    let name: String = section.take(key, default.to_owned());
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.len() <= 63
        && name.bytes().all(|byte| is_word(byte) || byte == b'-');
    if !is_name {
        let message = "expected 1 to 63 lower-case letters, digits and dashes, the first no dash";
        section.problem(key, message);
    }
    name
}

/// Takes a number with which nothing would work if it were 0.
pub fn positive(section: &mut Section<'_>, key: &str, default: u32) -> u32 {
    let number = section.take(key, default);
    if number == 0 {
        section.problem(key, "expected at least 1");
    }
    number
}

/// Takes the keys of `[server]`: the bounds of connections from clients.
pub fn server(section: &mut Section<'_>) -> serve::Config {
    let default = serve::Config::default();
    let connections = u32::try_from(default.max_connections).unwrap_or(u32::MAX);
    let connections = positive(section, "connections", connections);
    let kib = |bytes: usize| ByteSize::kib(u32::try_from(bytes >> 10).unwrap_or(u32::MAX));
    let unsent = ByteSize::bytes(default.unsent_bytes.into());
    let linger = ByteSize::bytes(default.linger_bytes);
    serve::Config {
        max_connections: usize::try_from(connections).unwrap_or(usize::MAX),
        header_timeout: section.take("header_timeout", default.header_timeout),
        idle_timeout: section.take("idle_timeout", default.idle_timeout),
        park_after: section.take("park_after", default.park_after),
        body_stall_timeout: section.take("body_stall_timeout", default.body_stall_timeout),
        send_stall_timeout: section.take("send_stall_timeout", default.send_stall_timeout),
        linger_timeout: section.take("linger_timeout", default.linger_timeout),
        linger_bytes: section.take("linger_max", linger).as_u64(),
        drain_timeout: section.take("drain_timeout", default.drain_timeout),
        max_header_bytes: section
            .take("header_max", kib(default.max_header_bytes))
            .as_usize(),
        max_headers: section.take("header_lines", default.max_headers),
        max_streams: section.take("streams", default.max_streams),
        unsent_bytes: u32::try_from(section.take("unsent", unsent).as_u64()).unwrap_or(u32::MAX),
        http1_only_for: section.take("http1_only_for", default.http1_only_for),
    }
}

/// Takes the keys of `[tls]`; without a certificate and a key, there is no TLS.
pub fn tls(section: &mut Section<'_>) -> Option<Tls> {
    let keys = ["certificate", "key"];
    let given = keys.map(|key| section.has(key));
    let [certificate, key] = keys.map(|key| section.take_text(key));
    let interval = more_than_zero(section, "reload_interval", Duration::from_secs(10));
    match given {
        [true, false] => section.problem("certificate", "needs a key beside it"),
        [false, true] => section.problem("key", "needs a certificate beside it"),
        _ => {}
    }
    let ((certificate, certificate_text), (key, key_text)) = (certificate?, key?);
    let files = Files {
        certificate,
        key,
        interval,
    };
    let texts = Texts {
        certificate: certificate_text,
        key: key_text,
    };
    let mut is_bad = false;
    for problem in texts.problems() {
        let key = match problem {
            BadPair::Certificate(_) | BadPair::NoCertificate => "certificate",
            _ => "key",
        };
        section.problem(key, causes(&problem));
        is_bad = true;
    }
    if is_bad {
        return None;
    }
    let tls = Tls::new(files, texts);
    tls.inspect_err(|error| section.problem("key", causes(error)))
        .ok()
}

/// Takes `public_url` and the keys of `[access]`: by what clients are known; without any, all of them are anybody.
pub fn access(section: &mut Section<'_>, is_tls: bool) -> Option<Access> {
    let public_url = section.take_opt::<BaseUrl>("public_url");
    section.section("access", |section| {
        let users = section.take_text("users");
        let users = users.map(|(path, text)| UsersFile { path, text });
        let key = section.take_secret("key");
        if let Some(key) = &key
            && key.expose().len() < access::KEY_LEN
        {
            let message = format!("expected at least {} characters", access::KEY_LEN);
            section.problem("key", message);
        }
        let is_asked_for = users.is_some() || key.is_some();
        let password_checks = positive(section, "password_checks", 2);
        let config = access::Config {
            users,
            reload_interval: more_than_zero(section, "reload_interval", Duration::from_secs(10)),
            key,
            tokens_for: more_than_zero(section, "tokens_for", Duration::from_mins(5)),
            password_checks: usize::try_from(password_checks).unwrap_or(usize::MAX),
            public_url,
            is_tls,
        };
        if !is_asked_for {
            return None;
        }
        let access = Access::new(config);
        access
            .inspect_err(|error| section.problem("users", causes(error)))
            .ok()
    })
}

/// Takes a time with which nothing would work if it were none.
pub fn more_than_zero(section: &mut Section<'_>, key: &str, default: Duration) -> Duration {
    let duration = section.take(key, default);
    if duration.is_zero() {
        section.problem(key, "expected more than 0");
        return default;
    }
    duration
}

/// Takes the keys of `[log]`.
pub fn log(section: &mut Section<'_>) -> telemetry::Config {
    let filter: String = section.take("filter", "info".to_owned());
    match telemetry::Config::new(filter) {
        Ok(config) => config,
        Err(error) => {
            section.problem("filter", error.to_string());
            telemetry::Config::default()
        }
    }
}
