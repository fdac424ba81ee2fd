//! Faults in the system calls of a running process, by `strace`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::process::Process;

/// What happens to one kind of system call of a process, until this is dropped.
#[derive(Debug)]
pub struct Strace(Child);

// === impl Strace ===

impl Strace {
    /// Has `fault` happen to `syscall`, both as `strace --inject` writes them: `error=EIO`, `signal=KILL:when=3`.
    pub fn inject(process: &Process, syscall: &str, fault: &str) -> Self {
        let mut child = Command::new("strace")
            .arg("--follow-forks")
            .arg(format!("--attach={}", process.id()))
            .arg(format!("--trace={syscall}"))
            .arg(format!("--inject={syscall}:{fault}"))
            .arg("--output=/dev/null")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed: tests/run sees to it");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = lines.next().unwrap().unwrap();
        assert!(said.contains("attached"), "{said}");
        // It says so of each new thread, and must not be held up.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Asked to end, it lets go of the process first.
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.0.wait().ok();
    }
}
