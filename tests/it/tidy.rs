//! The rules of the code that a machine can check.
//!
//! What the compiler and clippy check is not here: see `Cargo.toml` and `.clippy.toml`.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file.
struct Source {
    /// Its path from the root of the checkout.
    path: String,
    text: String,
}

/// The longest file that still has one noun, without its tests.
const LINES_MAX: usize = 500;

#[test]
fn files_say_what_they_are() {
    let files = sources()
        .into_iter()
        .filter(|source| !source.path.ends_with("/tests.rs"));
    check(files, |source| {
        let first = source.text.lines().next().unwrap_or_default();
        (!first.starts_with("//! ")).then(|| "does not open with what it is".to_owned())
    });
}

#[test]
fn files_have_one_noun() {
    check(sources(), |source| {
        let lines = source.code().lines().count();
        (lines > LINES_MAX && !source.is_test()).then(|| format!("has {lines} lines"))
    });
}

#[test]
fn nothing_is_left_to_do() {
    // Put together here, so that this file does not have them.
    let marks = ["TO", "FIX", "XX"].into_iter().zip(["DO", "ME", "X"]);
    let marks: Vec<_> = marks.map(|(head, tail)| format!("{head}{tail}")).collect();
    check(sources(), |source| source.mentions(&marks));
}

#[test]
fn every_file_is_in_a_crate() {
    let sources = sources();
    let declares = |parent: &str, name: &str| {
        sources
            .iter()
            .filter(|source| source.path == parent)
            .any(|source| source.text.contains(&format!("mod {name};")))
    };
    for source in &sources {
        let path = Path::new(&source.path);
        let name = path.file_stem().unwrap().to_str().unwrap();
        let directory = path.parent().unwrap().to_str().unwrap();
        let is_root = matches!(name, "main" | "lib")
            || directory.starts_with("tests/fuzz")
            || !path.starts_with("tests") && directory.ends_with("src") && name == "lib";
        let parents = [
            format!("{directory}.rs"),
            format!("{directory}/lib.rs"),
            format!("{directory}/main.rs"),
        ];
        assert!(
            is_root || parents.iter().any(|parent| declares(parent, name)),
            "{} is declared by no module",
            source.path
        );
    }
}

#[test]
fn the_vocabulary_touches_no_socket_file_or_clock() {
    let pure = sources().into_iter().filter(|source| {
        let path = source.path.strip_prefix("core/src/").unwrap_or_default();
        path.starts_with("oci") || matches!(path, "cluster.rs" | "backoff.rs")
    });
    check(pure, |source| {
        let banned = [
            "tokio::",
            "std::fs",
            "std::net",
            "std::env",
            "SystemTime::now",
            "Instant",
        ];
        source.mentions(&banned)
    });
}

#[test]
fn only_respond_maps_errors() {
    let binaries = sources().into_iter().filter(|source| {
        // The client of the origin reads statuses.
        let reads = [
            "source.rs",
            "source/asking.rs",
            "source/error.rs",
            "source/wire.rs",
        ];
        let reads = reads.map(|file| format!("edge/src/{file}"));
        let is_exempt = source.path.ends_with("/respond.rs") || reads.contains(&source.path);
        let is_binary =
            source.path.starts_with("edge/src/") || source.path.starts_with("origin/src/");
        is_binary && !is_exempt && !source.is_test()
    });
    check(binaries, |source| {
        let statuses = [
            "StatusCode::BAD_",
            "StatusCode::NOT_FOUND",
            "StatusCode::UNAUTHORIZED",
            "StatusCode::FORBIDDEN",
            "StatusCode::TOO_MANY",
            "StatusCode::PAYLOAD",
            "StatusCode::INTERNAL",
            "StatusCode::SERVICE_",
            "StatusCode::GATEWAY_",
            "for ApiError {",
        ];
        source.mentions(&statuses)
    });
}

#[test]
fn only_keys_are_storage_paths() {
    let others = sources().into_iter().filter(|source| {
        let is_store = ["core/src/store", "core/src/location"]
            .iter()
            .any(|part| source.path.starts_with(part));
        is_store && source.path != "core/src/location/key.rs" && !source.is_test()
    });
    check(others, |source| {
        source.mentions(&["\"blobs/", "\"uploads/", "\"downloads/", "\"quarantine/"])
    });
}

/// Holds files to a rule; `find` says what is wrong with one.
#[track_caller]
fn check(sources: impl IntoIterator<Item = Source>, find: impl Fn(&Source) -> Option<String>) {
    let mut looked_at = 0;
    let wrong: Vec<_> = sources
        .into_iter()
        .inspect(|_| looked_at += 1)
        .filter_map(|source| Some(format!("{} {}", source.path, find(&source)?)))
        .collect();
    assert!(looked_at > 0, "the rule is about no file");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

// === impl Source ===

impl Source {
    /// Returns it without the tests at its end.
    fn code(&self) -> &str {
        self.text.split("#[cfg(test)]").next().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
            || self.path.contains("conformance")
    }

    /// Returns the first of `words` that its code has, with the line.
    fn mentions(&self, words: &[impl AsRef<str>]) -> Option<String> {
        self.code().lines().enumerate().find_map(|(index, line)| {
            let code = line.split("//").next().unwrap_or_default();
            let words = words.iter().map(AsRef::as_ref);
            let word = words.into_iter().find(|word| code.contains(word))?;
            Some(format!("mentions {word} at line {}", index + 1))
        })
    }
}

/// Returns all source files of the workspace.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for part in [
        "core/src",
        "edge/src",
        "origin/src",
        "deploy/standalone/src",
        "tests",
    ] {
        collect(&root.join(part), &mut found);
    }
    let source = |path: PathBuf| Source {
        text: fs::read_to_string(&path).unwrap(),
        path: path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned(),
    };
    found.into_iter().map(source).collect()
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
