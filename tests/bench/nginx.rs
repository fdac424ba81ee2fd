//! nginx as a process: files by `sendfile`, plain and under TLS, and a caching proxy of whole things or of slices.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use harness::tls::Certificate;
use tokio::time::Instant;

use crate::load::Target;

/// A running nginx of two workers.
#[derive(Debug)]
pub(crate) struct Nginx {
    child: Child,
    /// Serves the files of a directory.
    pub(crate) plain: SocketAddr,
    /// As `plain`, under TLS.
    pub(crate) secure: SocketAddr,
    /// Passes on to a registry what it has not cached.
    pub(crate) proxy: SocketAddr,
    /// As `proxy`, a slice of 1 MiB at a time.
    pub(crate) slices: SocketAddr,
}

const START_DEADLINE: Duration = Duration::from_secs(10);

impl Nginx {
    /// Starts one that serves the files of `directory`, and caches what `upstream` says.
    pub(crate) fn start(directory: &Path, certificate: &Certificate, upstream: SocketAddr) -> Self {
        // Somebody else could take a port in between; then nginx says so and ends.
        let listeners = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [plain, secure, proxy, slices] =
            listeners.map(|listener| listener.local_addr().unwrap());
        let root = directory.display();
        let (key, certificate) = (certificate.key(), certificate.certificate());
        let (key, certificate) = (key.display(), certificate.display());
        let text = format!(
            "daemon off; worker_processes 2; pid {root}/nginx.pid; error_log stderr error; user root;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; default_type application/octet-stream;
    open_file_cache max=100; output_buffers 2 1m; client_body_temp_path {root}/nginx-body;
    proxy_temp_path {root}/nginx-proxy; fastcgi_temp_path {root}/nginx-fastcgi; uwsgi_temp_path {root}/nginx-uwsgi;
    scgi_temp_path {root}/nginx-scgi; proxy_cache_path {root}/nginx-cache keys_zone=cache:10m;
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
    server {{ listen {plain}; root {root}; }}
    server {{ listen {secure} ssl; root {root}; }}
    server {{
        listen {proxy};
        location / {{ proxy_pass http://{upstream}; proxy_cache cache; proxy_cache_valid 200 1h; }}
    }}
    server {{
        listen {slices};
        location / {{
            slice 1m; proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range; proxy_http_version 1.1;
            proxy_set_header Connection ''; proxy_pass http://registry; proxy_cache cache; proxy_cache_valid 200 206 1h;
        }}
    }}
    upstream registry {{ server {upstream}; keepalive 8; }}
}}
"
        );
        let config = directory.join("nginx.conf");
        fs::write(&config, text).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is installed: tests/bench/run sees to it");
        let begin = Instant::now();
        for address in [plain, secure, proxy, slices] {
            while TcpStream::connect(address).is_err() {
                assert!(begin.elapsed() < START_DEADLINE, "nginx does not listen");
                sleep(Duration::from_millis(20));
            }
        }
        Self {
            child,
            plain,
            secure,
            proxy,
            slices,
        }
    }

    /// Returns what is asked for at one of its addresses.
    pub(crate) fn target<'a>(
        &self,
        scheme: &'static str,
        address: SocketAddr,
        path: &'a str,
    ) -> Target<'a> {
        Target {
            scheme,
            address,
            path,
            server: self.child.id(),
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked, it ends its workers.
        let asked = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        asked.ok();
        self.child.wait().ok();
    }
}
