//! A built binary as a child process.
//!
//! Invariants: it listens on ports that nobody else has; a process that a test leaves running is asked to stop, and has to
//! stop in time, with status 0 and without having panicked; none outlives its test.
//!
//! Failure: when a test fails, what its processes said is part of the test's output.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, kill_process, pidfd_open, prlimit,
};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::eventually::eventually;

/// How long a process may take to be ready.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// How long a process may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How much of what a process said is shown.
const LOG_LINES_SHOWN: usize = 60;

/// A built binary as a child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    is_stopped: bool,
    listeners: HashMap<String, SocketAddr>,
    log: Arc<Log>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with status 0.
    Cleanly,
    /// In any other way.
    Badly,
}

/// A way to end a process from within what it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Handle(pub(crate) Pid);

/// What a process said.
#[derive(Debug)]
struct Log {
    file: PathBuf,
    state: Mutex<LogState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct LogState {
    listeners: HashMap<String, SocketAddr>,
    lines: Vec<String>,
    is_ended: bool,
}

/// Returns where a built binary is: beside the tests.
///
/// # Panics
///
/// When it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let directory = test.ancestors().nth(2).unwrap();
    let binary = directory.join(name);
    assert!(
        binary.is_file(),
        "{} is missing: run tests/run, or first cargo build --workspace --bins",
        binary.display()
    );
    binary
}

/// Returns the command that runs `outport ROLE ARGS` and says nothing on standard output.
fn command(role: &str, args: &[String], directory: &Path) -> Command {
    let mut command = Command::new(binary("outport"));
    command
        .arg(role)
        .args(args)
        .current_dir(directory)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Runs `outport ROLE ARGS`, which is to end by itself; returns its status and what it said.
///
/// # Panics
///
/// When a signal ends it.
pub fn refusal(role: &str, args: &[String], directory: &Path) -> (i32, String) {
    let output = command(role, args, directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("a status"), said)
}

// === impl Process ===

impl Process {
    /// Starts `outport ROLE ARGS` and waits until it is ready; what it says goes to a file in `directory`.
    pub async fn start(role: &str, args: &[String], directory: &Path) -> Self {
        let mut child = command(role, args, directory)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::follow(
            child.stderr.take().unwrap(),
            directory.join(format!("{role}-{}.log", child.id())),
        );
        let mut process = Self {
            name: format!("{role} ({})", child.id()),
            child,
            is_stopped: false,
            listeners: HashMap::new(),
            log,
        };
        process.listeners = process.log.listeners(&["api", "admin"]).await;
        process.wait_until_ready().await;
        process
    }

    /// Returns its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the address of a listener, `api` or `admin`.
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.listeners[listener]
    }

    /// Waits until it says that it would serve.
    pub async fn wait_until_ready(&self) {
        let pool = Pool::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
        let uri: http::Uri = format!("http://{}/readyz", self.address("admin"))
            .parse()
            .unwrap();
        let begin = Instant::now();
        loop {
            match pool.get(uri.clone()).await {
                Ok(response) if response.status() == 200 => return,
                _ if begin.elapsed() < START_DEADLINE => sleep(Duration::from_millis(10)).await,
                last => panic!("{} is not ready: {last:?}", self.name),
            }
        }
    }

    /// Asks it to stop, waits, and holds it to a clean exit.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(
            status.is_some_and(|status| status.success()),
            "{} did not stop cleanly: {status:?}",
            self.name
        );
        self.is_stopped = true;
        self.check_log();
    }

    /// Ends it on the spot (`kill -9`).
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let status = self.wait().unwrap();
        assert_eq!(
            status.signal(),
            Some(Signal::KILL.as_raw()),
            "{} had ended before",
            self.name
        );
        self.is_stopped = true;
        self.check_log();
    }

    /// Returns a way to end it while it is in use elsewhere.
    pub fn handle(&self) -> Handle {
        Handle(self.pid())
    }

    /// Waits until it has ended, as it was asked to before.
    pub fn ended(&mut self) -> Ended {
        let status = self.wait();
        self.is_stopped = status.is_some();
        self.check_log();
        if status.is_some_and(|status| status.success()) {
            Ended::Cleanly
        } else {
            Ended::Badly
        }
    }

    /// Stops it where it is, with its connections open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Lets it have no more than so many file descriptors.
    pub fn limit_descriptors(&self, descriptors: u64) {
        let limit = Rlimit {
            current: Some(descriptors),
            maximum: Some(descriptors),
        };
        prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }

    /// Returns how much memory it uses, and the most it ever did, in bytes.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            kib * 1024
        };
        (value("VmRSS:"), value("VmHWM:"))
    }

    /// Waits until it has said something with all of `words` in one line.
    pub async fn says(&self, words: &[&str]) {
        let has_all = |line: &String| words.iter().all(|word| line.contains(word));
        let what = words.join(" ");
        eventually(&what, async || self.log().into_iter().find(has_all)).await;
    }

    /// Returns what it said so far, a line for each event.
    pub fn log(&self) -> Vec<String> {
        self.log.state.lock().lines.clone()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until it has ended, or returns none when that takes too long.
    fn wait(&mut self) -> Option<ExitStatus> {
        let fd = pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        let deadline = Timespec::try_from(STOP_DEADLINE).unwrap();
        let ended = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&deadline)).unwrap();
        (ended == 1).then(|| self.child.wait().unwrap())
    }

    /// Whether it has ended, whatever made it.
    pub fn has_ended(&self) -> bool {
        let fd = pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        poll(
            &mut [PollFd::new(&fd, PollFlags::IN)],
            Some(&Timespec::default()),
        )
        .unwrap()
            == 1
    }

    fn check_log(&self) {
        let lines = self.log();
        let panic = lines.iter().find(|line| line.contains("panicked at"));
        assert_eq!(panic, None, "{} panicked", self.name);
    }
}

// === impl Handle ===

impl Handle {
    /// Ends the process on the spot (`kill -9`).
    pub fn kill(self) {
        kill_process(self.0, Signal::KILL).unwrap();
    }

    /// Stops the process where it is: its connections stay, and say nothing.
    pub fn pause(self) {
        kill_process(self.0, Signal::STOP).unwrap();
    }

    /// Lets the process go on.
    pub fn resume(self) {
        kill_process(self.0, Signal::CONT).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let is_failing = std::thread::panicking();
        if !self.is_stopped {
            // It may have ended by itself, which is what is found out here.
            let asked = kill_process(self.pid(), Signal::CONT)
                .and_then(|()| kill_process(self.pid(), Signal::TERM));
            let status = self.wait();
            if status.is_none() {
                drop(self.child.kill());
                drop(self.child.wait());
            }
            let is_clean = asked.is_ok() && status.is_some_and(|status| status.success());
            if !is_failing {
                assert!(
                    is_clean,
                    "{} did not stop cleanly: {status:?}{}",
                    self.name,
                    self.log.tail()
                );
                self.check_log();
            }
        }
        if is_failing {
            eprintln!("{} said:{}", self.name, self.log.tail());
        }
    }
}

// === impl Log ===

impl Log {
    fn follow(stderr: ChildStderr, file: PathBuf) -> Arc<Self> {
        let log = Arc::new(Self {
            file,
            state: Mutex::default(),
            changed: Notify::new(),
        });
        let follower = Arc::clone(&log);
        // Ends with the process, which ends with the test.
        std::thread::spawn(move || follower.read(stderr));
        log
    }

    fn read(&self, stderr: ChildStderr) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&self.file)
            .unwrap();
        for line in BufReader::new(stderr).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).into_owned();
            // The directory may be gone: the test is over.
            drop(writeln!(file, "{line}"));
            let mut state = self.state.lock();
            if let Some((listener, address)) = listening(&line) {
                state.listeners.insert(listener, address);
            }
            state.lines.push(line);
            drop(state);
            self.changed.notify_waiters();
        }
        self.state.lock().is_ended = true;
        self.changed.notify_waiters();
    }

    /// Waits until each of `names` listens.
    async fn listeners(&self, names: &[&str]) -> HashMap<String, SocketAddr> {
        let all = async {
            loop {
                let changed = self.changed.notified();
                {
                    let state = self.state.lock();
                    if names.iter().all(|&name| state.listeners.contains_key(name)) {
                        return Some(state.listeners.clone());
                    }
                    if state.is_ended {
                        return None;
                    }
                }
                changed.await;
            }
        };
        let listeners = timeout(START_DEADLINE, all)
            .await
            .expect("it listens in time");
        listeners.expect("it listens before it ends")
    }

    fn tail(&self) -> String {
        let state = self.state.lock();
        let skipped = state.lines.len().saturating_sub(LOG_LINES_SHOWN);
        state.lines[skipped..]
            .iter()
            .flat_map(|line| ["\n  ", line])
            .collect()
    }
}

/// Returns which listener an event says to listen, and where.
fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let event: Value = serde_json::from_str(line).ok()?;
    let fields = event.get("fields").unwrap_or(&event);
    if fields["message"] != "listening" {
        return None;
    }
    let address = fields["address"].as_str()?.parse().ok()?;
    Some((fields["listener"].as_str()?.to_owned(), address))
}
