//! Load by wrk, and what it costs the server.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// What a server did under load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Seconds of processor that the server spent for each second.
    pub(crate) cpu: f64,
    /// The same of the client.
    pub(crate) client_cpu: f64,
}

/// What is asked for, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    /// Where.
    pub(crate) address: SocketAddr,
    /// What.
    pub(crate) path: &'a str,
    /// The process, with its children, that answers.
    pub(crate) server: u32,
}

const SECONDS: u32 = 3;

/// What a tick of the processor's clock is, on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

impl Load {
    /// Asks over and over again, over so many connections; under TLS by `AES-128-GCM`, which `openssl.cnf` says.
    pub(crate) fn measure(target: Target<'_>, connections: u32, openssl: &Path) -> Self {
        let Target {
            scheme,
            address,
            path,
            server,
        } = target;
        let before = (ticks(server), ticks_of_the_reaped());
        let output = Command::new("wrk")
            .args(["--threads", "1", "--connections", &connections.to_string()])
            .args(["--duration", &format!("{SECONDS}s"), "--timeout", "30s"])
            .args([
                "--header",
                "Accept: application/vnd.oci.image.manifest.v1+json",
            ])
            .arg(format!("{scheme}://{address}{path}"))
            .env("OPENSSL_CONF", openssl)
            .output()
            .expect("wrk is installed: tests/bench/run sees to it");
        let spent = ticks(server) - before.0;
        let client_spent = ticks_of_the_reaped() - before.1;
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("Non-2xx"), "{text}");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Requests/sec:"));
        Self {
            rate: line
                .unwrap_or_else(|| panic!("{text}"))
                .trim()
                .parse()
                .unwrap(),
            cpu: spent / TICKS_PER_SECOND / f64::from(SECONDS),
            client_cpu: client_spent / TICKS_PER_SECOND / f64::from(SECONDS),
        }
    }
}

/// Writes a configuration of OpenSSL that leaves clients one cipher.
pub(crate) fn one_cipher(path: &Path) {
    let text = "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nCiphersuites = TLS_AES_128_GCM_SHA256\n\
                MinProtocol = TLSv1.3\n";
    fs::write(path, text).unwrap();
}

/// Returns the ticks that a process and its children have spent.
fn ticks(server: u32) -> f64 {
    let mut spent = 0.0;
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that ended meanwhile has no say.
        let Some(fields) = stat(&id.to_string()) else {
            continue;
        };
        if id == server || fields[1] == server.to_string() {
            spent += fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        }
    }
    spent
}

/// Returns the ticks that children of this process had spent when they ended.
fn ticks_of_the_reaped() -> f64 {
    let fields = stat("self").unwrap();
    fields[13].parse::<f64>().unwrap() + fields[14].parse::<f64>().unwrap()
}

/// Returns what the kernel says of a process, behind its name, which may have anything in it: state, parent, and so on.
fn stat(process: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields = stat.rsplit(')').next()?.split_whitespace();
    Some(fields.map(str::to_owned).collect())
}
