//! A place where the machine's own tools work without leaving a trace on it.
//!
//! What: a directory that is their home, and for each run a mount namespace in which the directories that tools insist on
//! (`/var/lib`, `/run`, `/dev/shm`) are the sandbox's.
//!
//! Invariants: a tool that runs too long is ended; when a sandbox is dropped, no process of its tools is left, nothing of it
//! is mounted, and its files are gone.
//!
//! Failure: a tool that is missing, or does not do what it should, panics with what it said.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

/// A place for tools.
#[derive(Debug)]
pub struct Sandbox {
    directory: TempDir,
    has_overlay: bool,
}

/// A tool that serves others until it is dropped.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

/// How long one run of a tool may take, in seconds.
const RUN_SECONDS: &str = "300";
/// How long a daemon may take to be ready.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// How long a daemon may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Where Debian keeps its tools; what else the machine has by the same names is not meant.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Runs `$@` where the tools' directories are those of the sandbox at `$0`.
const SCRIPT: &str = r#"mount --bind "$0/lib" /var/lib && mount --bind "$0/shm" /dev/shm && mount --bind "$0/run" /run && exec "$@""#;

// === impl Sandbox ===

impl Sandbox {
    /// Returns an empty one.
    pub fn new() -> Self {
        Self::new_in(&std::env::temp_dir())
    }

    /// Returns an empty one in some directory, whose path is to be short and not one of those that are replaced.
    pub fn new_in(parent: &Path) -> Self {
        // A short name: the path of a socket in it ends at 107 bytes.
        let directory = tempfile::Builder::new()
            .prefix("oc-")
            .tempdir_in(parent)
            .unwrap();
        for name in ["lib", "shm", "run", "tmp"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let mut sandbox = Self {
            directory,
            has_overlay: false,
        };
        sandbox.has_overlay = sandbox.try_overlay();
        sandbox
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the path of something in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Returns a path in it, as an argument or a setting.
    pub fn text(&self, name: &str) -> String {
        self.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Returns whether overlays can be mounted in it, which spares tools a copy of each layer.
    pub const fn has_overlay(&self) -> bool {
        self.has_overlay
    }

    /// Returns the command that runs a tool in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", RUN_SECONDS]);
        self.enclose(command, program)
    }

    /// Starts a daemon in it, and waits until it says `ready`.
    pub fn daemon<I>(&self, name: &'static str, args: I, ready: &str) -> Daemon
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut command = Command::new("setpriv");
        // However the test ends, its daemons end with it.
        command.args(["--pdeathsig", "TERM"]);
        let mut command = self.enclose(command, name);
        command.args(args);
        Daemon::start(name, command, ready)
    }

    fn enclose(&self, mut command: Command, program: &str) -> Command {
        command
            .args(["unshare", "--mount", "--propagation", "private"])
            .args(["sh", "-c", SCRIPT])
            .arg(self.path())
            .arg(program)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", self.path())
            .env("TMPDIR", self.join("tmp"))
            .stdin(Stdio::null());
        command
    }

    fn try_overlay(&self) -> bool {
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.text("lib"),
            self.text("tmp"),
            self.text("shm")
        );
        let output = self
            .command("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(self.join("run"))
            .output()
            .unwrap();
        // The kernel makes a directory for work in progress.
        fs::remove_dir_all(self.join("shm")).unwrap();
        fs::create_dir(self.join("shm")).unwrap();
        output.status.success()
    }

    /// Returns the processes whose command line names it.
    fn processes(&self) -> Vec<String> {
        let mut found = Vec::new();
        for process in fs::read_dir("/proc").unwrap() {
            let Ok(line) = fs::read(process.unwrap().path().join("cmdline")) else {
                continue;
            };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&self.text("")) {
                found.push(line);
            }
        }
        found
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let left = self.processes();
        assert!(left.is_empty(), "these still run: {left:#?}");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&self.text("")), "still mounted: {mounts}");
    }
}

/// Runs a tool and returns what it put out.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}{err}",
        output.status
    );
    out.trim_end().to_owned()
}

/// Runs a tool that has to fail, and returns what it said.
#[track_caller]
pub fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    // 124 is a tool that had to be ended, 126 and 127 are a tool that is missing.
    assert!(
        matches!(output.status.code(), Some(1..=123 | 125)),
        "{command:?} did not fail as it should: {}\n{out}{err}",
        output.status
    );
    format!("{out}{err}")
}

// === impl Daemon ===

impl Daemon {
    fn start(name: &'static str, mut command: Command, ready: &str) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = mpsc::channel();
        let (log, ready) = (Arc::clone(&said), ready.to_owned());
        // Ends with the daemon, which ends with the test.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains(&ready) {
                    // Only the first is waited for.
                    tell.send(()).ok();
                }
                log.lock().push(line);
            }
        });
        let daemon = Self { name, child, said };
        let begun = told.recv_timeout(START_DEADLINE);
        assert!(begun.is_ok(), "{name} does not start: {begun:?}");
        daemon
    }

    /// Returns whether it has ended in time.
    fn stop(&mut self) -> bool {
        let pid = Pid::from_child(&self.child);
        let fd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let deadline = Timespec::try_from(STOP_DEADLINE).unwrap();
        let is_ended = kill_process(pid, Signal::TERM).is_ok()
            && poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&deadline)) == Ok(1);
        if !is_ended {
            self.child.kill().ok();
        }
        self.child.wait().unwrap();
        is_ended
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let is_ended = self.stop();
        if std::thread::panicking() {
            eprintln!("{} said:\n  {}", self.name, self.said.lock().join("\n  "));
        } else {
            assert!(is_ended, "{} does not stop", self.name);
        }
    }
}
