//! The three sources, merged into one tree of which every value knows where it came from.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::setting::Given;
use super::{Problems, Source, Sources};

/// A value, or a section of them.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Section(BTreeMap<String, Node>),
    /// `[[name]]`.
    List(Vec<Node>),
    Value(Given),
}

const ENV_PREFIX: &str = "OUTPORT_";

// === impl Node ===

impl Node {
    /// Returns the root, in which later sources have replaced what earlier ones say.
    pub(super) fn merge(sources: Sources<'_>, problems: &mut Problems) -> Self {
        let mut root = Self::Section(BTreeMap::new());
        if let Some(path) = sources.file
            && let Some(table) = read_table(path, sources, problems)
        {
            root = Self::new(Value::Table(table), &Source::File(path.to_owned()), None);
        }
        for (name, text) in sources.env {
            if let Some(key) = name.strip_prefix(ENV_PREFIX)
                && !is_service_link(key)
            {
                let key = key.to_lowercase().replace("__", ".");
                root.set(&key, text, &Source::Env(name.clone()), problems);
            }
        }
        for assignment in sources.set {
            match assignment.split_once('=') {
                Some((key, text)) => root.set(key.trim_ascii(), text, &Source::Set, problems),
                // It may be a secret that lost its key.
                None => problems.push("", Some(Source::Set), "expected key=value"),
            }
        }
        root
    }

    /// Returns where it came from; a section's first value says it for all.
    pub(super) fn source(&self) -> Option<&Source> {
        match self {
            Self::Section(members) => members.values().find_map(Self::source),
            Self::List(elements) => elements.iter().find_map(Self::source),
            Self::Value(given) => Some(&given.source),
        }
    }

    fn new(value: Value, source: &Source, text: Option<&str>) -> Self {
        match value {
            Value::Table(table) => {
                let node = |(key, value)| (key, Self::new(value, source, None));
                Self::Section(table.into_iter().map(node).collect())
            }
            Value::Array(elements)
                if !elements.is_empty() && elements.iter().all(Value::is_table) =>
            {
                let node = |element| Self::new(element, source, None);
                Self::List(elements.into_iter().map(node).collect())
            }
            value => Self::Value(Given {
                value,
                text: text.map(str::to_owned),
                source: source.clone(),
            }),
        }
    }

    fn set(&mut self, key: &str, text: &str, source: &Source, problems: &mut Problems) {
        let mut at = self;
        for part in key.split('.') {
            let next = if part.is_empty() {
                None
            } else {
                at.child(part)
            };
            let Some(next) = next else {
                return problems.push(key, Some(source.clone()), "there can be no such key");
            };
            at = next;
        }
        let new = Self::new(parse_text(text), source, Some(text));
        let empty = |node: &Self| matches!(node, Self::Section(members) if members.is_empty());
        if matches!(at, Self::Section(_)) && !empty(at) && !matches!(new, Self::Section(_)) {
            return problems.push(key, Some(source.clone()), "is a section, not a key");
        }
        *at = new;
    }

    /// Returns the member or element `part`, made if need be, unless this is a value.
    fn child(&mut self, part: &str) -> Option<&mut Self> {
        match self {
            Self::Section(members) => Some(
                members
                    .entry(part.to_owned())
                    .or_insert_with(|| Self::Section(BTreeMap::new())),
            ),
            Self::List(elements) => {
                let index: usize = part.parse().ok()?;
                // One can be added, and none left out.
                if index == elements.len() {
                    elements.push(Self::Section(BTreeMap::new()));
                }
                elements.get_mut(index)
            }
            Self::Value(_) => None,
        }
    }
}

fn read_table(path: &Path, sources: Sources<'_>, problems: &mut Problems) -> Option<Table> {
    let source = || Some(Source::File(path.to_owned()));
    let text = match (sources.read_file)(path) {
        Ok(text) => text,
        Err(error) => {
            problems.push("", source(), format!("cannot be read: {error}"));
            return None;
        }
    };
    match text.parse::<Table>() {
        Ok(table) => Some(table),
        Err(error) => {
            // The error's own text quotes the line, which may hold a secret.
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.matches('\n').count() + 1);
            problems.push("", source(), format!("line {line}: {}", error.message()));
            None
        }
    }
}

/// Returns what a text in the environment or behind `--set` means: TOML if it is that, or else itself.
pub(super) fn parse_text(text: &str) -> Value {
    let text = text.trim_ascii();
    text.parse()
        .unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Whether Kubernetes may have made this variable for a service called `outport`, or `outport-...`: it tells every pod of the
/// namespace about its services this way.
fn is_service_link(name: &str) -> bool {
    let ends = |end| {
        name == end
            || name
                .strip_suffix(end)
                .is_some_and(|rest| rest.ends_with('_'))
    };
    let is_port = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<_> = name.split('_').collect();
    ends("SERVICE_HOST")
        || ends("PORT")
        || name.starts_with("SERVICE_PORT")
        || name.contains("_SERVICE_PORT")
        || parts.windows(3).any(|window| {
            window[0] == "PORT" && is_port(window[1]) && ["TCP", "UDP", "SCTP"].contains(&window[2])
        })
}
