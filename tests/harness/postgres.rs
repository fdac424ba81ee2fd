//! A private PostgreSQL server, from Debian's binaries.
//!
//! What: a new cluster in a temporary directory, on a loopback port of its own, trusting everybody there. It runs as the
//! user `postgres` when the tests run as root, because it refuses to be root.
//!
//! Invariants: it keeps its port and its data through [`Postgres::kill`], [`Postgres::start_again`] and
//! [`Postgres::become_standby`]; it is stopped, by its process, when it is dropped.
//!
//! Failure: whatever does not work panics, with what the server said.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A server.
#[derive(Debug)]
pub struct Postgres {
    directory: TempDir,
    binaries: PathBuf,
    user: Option<User>,
    port: u16,
    server: Option<Child>,
    databases: AtomicU32,
}

/// A session that stays open: what it locks stays locked until it is dropped.
#[derive(Debug)]
pub struct Psql {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

#[derive(Clone, Copy, Debug)]
struct User {
    uid: u32,
    gid: u32,
}

/// How often a server may fail to start: after a kill, its processes let go of their memory in their own time, and a free
/// port may be taken by somebody else.
const START_ATTEMPTS: u32 = 50;

// === impl Postgres ===

impl Postgres {
    /// Makes a cluster and starts its server.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("outport-postgres-")
            .tempdir()
            .unwrap();
        let user = rustix::process::geteuid().is_root().then(User::postgres);
        if let Some(user) = user {
            chown(directory.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut postgres = Self {
            directory,
            binaries: binaries(),
            user,
            port: 0,
            server: None,
            databases: AtomicU32::new(0),
        };
        let data = postgres.data();
        run(postgres
            .command("initdb")
            .arg("--pgdata")
            .arg(data)
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            // Names must sort by bytes whatever the server's language is.
            .args(["--locale=C.UTF-8", "--no-sync"]));
        postgres.start_again();
        postgres
    }

    /// Creates an empty database and returns its URL.
    pub fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("outport{number}");
        run(self.client("createdb").arg(&name));
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// Runs SQL and returns what it selects, one row per line.
    pub fn sql(&self, url: &str, statements: &str) -> String {
        let output = self
            .command("psql")
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet"])
            .args(["--set=ON_ERROR_STOP=1", "--command", statements, url])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statements}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Opens a session.
    pub fn session(&self, url: &str) -> Psql {
        let mut child = self
            .command("psql")
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Psql {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Kills the server with no chance to do anything about it.
    pub fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Stops all of the server's processes where they are: connections are made, and nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Stops the server and starts it as what a failover makes of an old primary: alive, answering, read-only.
    pub fn become_standby(&mut self) {
        // PostgreSQL's "fast": sessions are ended, and the data is left in order.
        self.stop(Signal::INT);
        let signal = self.data().join("standby.signal");
        File::create(&signal).unwrap();
        if let Some(user) = self.user {
            chown(&signal, Some(user.uid), Some(user.gid)).unwrap();
        }
        self.start_again();
    }

    /// Makes a standby the primary.
    pub fn promote(&self, url: &str) {
        assert_eq!(self.sql(url, "SELECT pg_promote(true, 60)"), "t");
    }

    /// Starts the server that was killed or stopped, on the port it had.
    pub fn start_again(&mut self) {
        assert!(self.server.is_none(), "is running");
        let is_new = self.port == 0;
        let mut said = String::new();
        for _ in 0..START_ATTEMPTS {
            if is_new {
                self.port = free_port();
            }
            match self.try_start() {
                Ok(server) => {
                    self.server = Some(server);
                    return;
                }
                Err(log) => said = log,
            }
        }
        panic!("PostgreSQL does not start: {said}");
    }

    /// Starts the server and waits until it says that it is ready, or ends.
    fn try_start(&self) -> Result<Child, String> {
        let mut server = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-c", &format!("port={}", self.port)])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "max_connections=200"])
            .args(["-c", "lc_messages=C", "-c", "logging_collector=off"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(server.stderr.take().unwrap());
        let (ready, is_ready) = mpsc::channel();
        let mut log = File::options()
            .append(true)
            .create(true)
            .open(self.log())
            .unwrap();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                writeln!(log, "{line}").unwrap();
                if line.contains("ready to accept") {
                    // Nobody waits for the second time, when a standby becomes the primary.
                    let _: Result<(), _> = ready.send(());
                }
            }
        });
        if is_ready.recv().is_ok() {
            return Ok(server);
        }
        server.wait().unwrap();
        Err(fs::read_to_string(self.log()).unwrap_or_default())
    }

    /// Sends a signal to the server, and then to the processes that it has made.
    fn signal(&self, signal: Signal) {
        let server = pid(self.server.as_ref().unwrap());
        kill_process(server, signal).unwrap();
        let id = server.as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        for child in children.split_whitespace() {
            let child = Pid::from_raw(child.parse().unwrap()).unwrap();
            // One may have ended by itself.
            kill_process(child, signal).ok();
        }
    }

    /// Stops the server, with the signal that says how.
    fn stop(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            kill_process(pid(&server), signal).unwrap();
            server.wait().unwrap();
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    /// Returns a command of PostgreSQL's that speaks to this server.
    fn client(&self, name: &str) -> Command {
        let mut command = self.command(name);
        command
            .args(["--host=127.0.0.1", "--username=postgres"])
            .arg(format!("--port={}", self.port));
        command
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.current_dir(self.directory.path());
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            // It may be paused.
            self.resume();
        }
        // "Immediate": nobody wants the data any more, so nothing is written that was not yet.
        self.stop(Signal::QUIT);
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            eprintln!("--- PostgreSQL said:\n{log}");
        }
    }
}

// === impl Psql ===

impl Psql {
    /// Runs SQL that selects one row, and returns it.
    pub fn row(&mut self, statements: &str) -> String {
        writeln!(self.input, "{statements}").unwrap();
        let mut row = String::new();
        self.output.read_line(&mut row).unwrap();
        assert!(!row.is_empty(), "{statements}: no answer");
        row.trim().to_owned()
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

// === impl User ===

impl User {
    fn postgres() -> Self {
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let fields = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields[0] == "postgres")
            .expect("there is no user postgres: tests/run installs the package postgresql");
        Self {
            uid: fields[2].parse().unwrap(),
            gid: fields[3].parse().unwrap(),
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}

/// Returns the directory of the newest version's binaries.
fn binaries() -> PathBuf {
    let versions = Path::new("/usr/lib/postgresql");
    let newest = fs::read_dir(versions)
        .into_iter()
        .flatten()
        .filter_map(|version| version.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .max()
        .expect("no PostgreSQL in /usr/lib/postgresql: tests/run installs the package postgresql");
    versions.join(newest.to_string()).join("bin")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn pid(child: &Child) -> Pid {
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .unwrap()
}
