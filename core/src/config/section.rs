//! Taking keys out of the tree.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::setting::{Given, Secret, Setting};
use super::tree::Node;
use super::{Entry, Problems, Source};

/// A section of the configuration, of which keys are taken.
///
/// What is wrong with a key is remembered, and a value returned that the whole configuration is then thrown away with: the
/// default, or none. Keys that are not taken before the section ends are unknown.
pub struct Section<'a> {
    /// What its keys begin with: empty, or ends in a dot.
    prefix: String,
    left: BTreeMap<String, Node>,
    report: &'a mut Report,
    read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// What comes of reading, beside the configuration.
#[derive(Default)]
pub(super) struct Report {
    pub(super) problems: Problems,
    pub(super) entries: Vec<Entry>,
}

// === impl Section ===

impl<'a> Section<'a> {
    /// Lets `build` take its keys out of the whole configuration.
    pub(super) fn root<T>(
        root: Node,
        report: &'a mut Report,
        read_file: &'a dyn Fn(&Path) -> io::Result<String>,
        build: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let left = match root {
            Node::Section(left) => left,
            Node::List(_) | Node::Value(_) => BTreeMap::new(),
        };
        let mut section = Self {
            prefix: String::new(),
            left,
            report,
            read_file,
        };
        let config = build(&mut section);
        section.finish();
        config
    }

    /// Takes a value that has a default.
    pub fn take<T: Setting>(&mut self, key: &str, default: T) -> T {
        let given = self.given(key);
        let value = given.as_ref().and_then(|given| self.parse(key, given));
        self.record(
            key,
            Some(default.to_value()),
            value.as_ref(),
            given.is_some(),
        );
        value.unwrap_or(default)
    }

    /// Takes a value that may be absent.
    pub fn take_opt<T: Setting>(&mut self, key: &str) -> Option<T> {
        let given = self.given(key);
        let value = given.as_ref().and_then(|given| self.parse(key, given));
        self.record(key, None, value.as_ref(), given.is_some());
        value
    }

    /// Takes a value that must be there.
    pub fn require<T: Setting>(&mut self, key: &str) -> Option<T> {
        if !self.has(key) {
            self.problem(key, format!("is missing: expected {}", T::EXPECTED));
        }
        self.take_opt(key)
    }

    /// Takes a secret: from `key`, or from the file that `key` with `_file` behind it names.
    pub fn take_secret(&mut self, key: &str) -> Option<Secret> {
        let given = self.given(key);
        let inline: Option<String> = given.as_ref().and_then(|given| self.parse(key, given));
        self.record::<String>(key, None, None, given.is_some());
        let file_key = format!("{key}_file");
        let path: Option<PathBuf> = self.take_opt(&file_key);
        match (inline, path) {
            (Some(_), Some(_)) => {
                self.problem(&file_key, format!("and {key} exclude each other"));
                None
            }
            (Some(text), None) => Some(Secret::new(text)),
            (None, Some(path)) => {
                let text = self.text(&file_key, &path)?;
                Some(Secret::of_file(&text))
            }
            (None, None) => None,
        }
    }

    /// Takes the name of a file that may be absent, and its text.
    pub fn take_text(&mut self, key: &str) -> Option<(PathBuf, String)> {
        let path: PathBuf = self.take_opt(key)?;
        let text = self.text(key, &path)?;
        Some((path, text))
    }

    /// Whether a key is given, and not taken yet.
    pub fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// Reads the file that a key names.
    fn text(&mut self, key: &str, path: &Path) -> Option<String> {
        match (self.read_file)(path) {
            Ok(text) => Some(text),
            Err(error) => {
                self.problem(key, format!("{} cannot be read: {error}", path.display()));
                None
            }
        }
    }

    /// Reads a section of which every key has a default or may be absent, and which may then be absent itself.
    pub fn section<T>(&mut self, key: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let members = self.members(key).unwrap_or_default();
        self.read(key, members, read)
    }

    /// Reads a section that means something by being there.
    pub fn section_opt<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Section<'_>) -> Option<T>,
    ) -> Option<T> {
        let members = self.members(key)?;
        self.read(key, members, read)
    }

    /// Reads each of the sections called `[[key]]`.
    pub fn list<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let elements = match self.left.remove(key) {
            None => Vec::new(),
            Some(Node::List(elements)) => elements,
            // Numbered in the environment, and in no file.
            Some(Node::Section(members)) => self.numbered(key, members),
            Some(Node::Value(given)) => {
                if given.value.as_array().is_none_or(|array| !array.is_empty()) {
                    self.complain(
                        key,
                        Some(given.source),
                        format!("expected [[{key}]] sections"),
                    );
                }
                Vec::new()
            }
        };
        let mut list = Vec::new();
        for (index, element) in elements.into_iter().enumerate() {
            let key = format!("{key}.{index}");
            if let Some(members) = self.as_members(&key, element) {
                list.extend(self.read(&key, members, &mut read));
            }
        }
        list
    }

    /// Remembers that a key's value is wrong in a way that its type does not tell.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.complain(key, None, message);
    }

    fn complain(&mut self, key: &str, source: Option<Source>, message: impl Into<String>) {
        let key = format!("{}{key}", self.prefix);
        self.report.problems.push(key, source, message);
    }

    fn record<T: Setting>(
        &mut self,
        key: &str,
        default: Option<toml::Value>,
        value: Option<&T>,
        given: bool,
    ) {
        let value = value.map(Setting::to_value);
        self.report.entries.push(Entry {
            key: format!("{}{key}", self.prefix),
            value: value.or_else(|| default.clone()),
            default,
            given,
        });
    }

    /// Takes out what is written behind a key.
    fn given(&mut self, key: &str) -> Option<Given> {
        match self.left.remove(key)? {
            Node::Value(given) => Some(given),
            node @ (Node::Section(_) | Node::List(_)) => {
                self.complain(
                    key,
                    node.source().cloned(),
                    "expected a value, not a section",
                );
                None
            }
        }
    }

    fn parse<T: Setting>(&mut self, key: &str, given: &Given) -> Option<T> {
        let value = T::from_given(given);
        if value.is_none() {
            let message = format!("expected {}", T::EXPECTED);
            self.complain(key, Some(given.source.clone()), message);
        }
        value
    }

    fn members(&mut self, key: &str) -> Option<BTreeMap<String, Node>> {
        let node = self.left.remove(key)?;
        self.as_members(key, node)
    }

    fn as_members(&mut self, key: &str, node: Node) -> Option<BTreeMap<String, Node>> {
        match node {
            Node::Section(members) => Some(members),
            Node::List(_) | Node::Value(_) => {
                self.complain(key, node.source().cloned(), "expected a section");
                None
            }
        }
    }

    fn numbered(&mut self, key: &str, mut members: BTreeMap<String, Node>) -> Vec<Node> {
        let mut elements = Vec::new();
        while let Some(element) = members.remove(&elements.len().to_string()) {
            elements.push(element);
        }
        for (name, node) in members {
            let message = format!("expected [[{key}]] sections, numbered from 0");
            self.complain(&format!("{key}.{name}"), node.source().cloned(), message);
        }
        elements
    }

    fn read<T>(
        &mut self,
        key: &str,
        members: BTreeMap<String, Node>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut section = Section {
            prefix: format!("{}{key}.", self.prefix),
            left: members,
            report: self.report,
            read_file: self.read_file,
        };
        let result = read(&mut section);
        section.finish();
        result
    }

    /// Complains about what nobody took.
    fn finish(mut self) {
        for (key, node) in std::mem::take(&mut self.left) {
            let what = match node {
                Node::Value(_) => "unknown key",
                Node::Section(_) | Node::List(_) => "unknown section",
            };
            self.complain(&key, node.source().cloned(), what);
        }
    }
}

impl fmt::Debug for Section<'_> {
    /// Says nothing of values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
