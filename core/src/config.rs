//! Configuration: one TOML file, overridden by `OUTPORT_SECTION__KEY` in the environment, overridden by `--set key=value`.
//!
//! What: [`read`] merges the three into one tree and hands it to a function that takes its keys out of [`Section`]s, each
//! with its default at the place where it is used. What nobody took is an unknown key.
//!
//! Invariants: every problem is found in one go and names its dotted key and where it came from; no problem, and nothing
//! that is recorded, repeats a secret (a value is never quoted, as an address may hold a password). The environment and the
//! files are arguments, so that only a binary's `config.rs` touches them.
//!
//! Why not serde with `deny_unknown_fields`: it stops at the first problem, and cannot tell where a value came from.

pub mod process;

mod section;
mod setting;
mod tree;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use toml::Value;

pub use self::section::Section;
pub use self::setting::{ByteSize, Given, Secret, Setting};
use self::tree::Node;

/// What a process exits with when its configuration is bad: `EX_CONFIG` of `sysexits.h`.
pub const EXIT_BAD_CONFIG: u8 = 78;

/// Where a configuration comes from; the later wins.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The file, if there is one.
    pub file: Option<&'a Path>,
    /// The environment, of which only names that begin with `OUTPORT_` count.
    pub env: &'a [(String, String)],
    /// `key=value` of each `--set`.
    pub set: &'a [String],
    /// Reads the file, and those that it names.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// A configuration without problems.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// What was built of it.
    pub config: T,
    /// Every key that was asked for, in the order of asking.
    pub entries: Vec<Entry>,
}

/// A key that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The dotted key.
    pub key: String,
    /// What holds when it is not given, if anything.
    pub default: Option<Value>,
    /// What holds, if anything; never a secret.
    pub value: Option<Value>,
    /// Whether it is given.
    pub given: bool,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key; empty when it is about the whole.
    pub key: String,
    /// Where the value came from, if there is one.
    pub source: Option<Source>,
    /// What is wrong.
    pub message: String,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// A `--set`.
    Set,
}

/// Reads a configuration with `build`, of which nothing is kept if there was a problem.
pub fn read<T>(
    sources: Sources<'_>,
    build: impl FnOnce(&mut Section<'_>) -> T,
) -> Result<Loaded<T>, Problems> {
    let mut report = section::Report::default();
    let root = Node::merge(sources, &mut report.problems);
    let config = Section::root(root, &mut report, sources.read_file, build);
    let section::Report { problems, entries } = report;
    if problems.0.is_empty() {
        Ok(Loaded { config, entries })
    } else {
        Err(problems)
    }
}

// === impl Loaded ===

impl<T> Loaded<T> {
    /// Returns the keys that have a default and are not given it: what a file that documents the defaults must not have.
    pub fn untrue_defaults(&self) -> Vec<&str> {
        self.entries
            .iter()
            .filter(|entry| entry.default.is_some())
            .filter(|entry| !entry.given || entry.value != entry.default)
            .map(|entry| entry.key.as_str())
            .collect()
    }
}

// === impl Problems ===

impl Problems {
    /// Returns them in the order they were found in.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    fn push(&mut self, key: impl Into<String>, source: Option<Source>, message: impl Into<String>) {
        self.0.push(Problem {
            key: key.into(),
            source,
            message: message.into(),
        });
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Env(name) => f.write_str(name),
            Self::Set => f.write_str("--set"),
        }
    }
}

impl fmt::Debug for Sources<'_> {
    /// Says nothing of values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, .. } = self;
        f.debug_struct("Sources")
            .field("file", file)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
