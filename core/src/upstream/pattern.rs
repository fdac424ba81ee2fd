//! Patterns of repository names and tags.

use std::fmt;
use std::str::FromStr;

/// A pattern that names match: `*` stands for any text, slashes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// A text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern is a name or tag in which * stands for any text, such as \"library/*\"")]
pub struct BadPattern;

crate::text_setting! {
    Pattern: "a name or tag in which * stands for any text, such as \"library/*\"",
}

// === impl Pattern ===

impl Pattern {
    /// Whether a name or tag matches.
    pub fn matches(&self, name: &str) -> bool {
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = pieces.next_back() else {
            return rest.is_empty();
        };
        // The earliest place of each piece leaves the most for those behind it.
        for piece in pieces {
            let Some(at) = rest.find(piece) else {
                return false;
            };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"*/._-".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_known) {
            return Err(BadPattern);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, name: &str, expected: bool) {
        let pattern: Pattern = pattern.parse().unwrap();
        assert_eq!(pattern.matches(name), expected, "{name}");
    }

    #[test]
    fn a_star_is_any_text() {
        check("library/alpine", "library/alpine", true);
        check("library/alpine", "library/alpine2", false);
        check("library/*", "library/alpine", true);
        check("library/*", "libraries/alpine", false);
        check("*/alpine", "library/alpine", true);
        check("*", "a/b/c", true);
        check("a*b*c", "a1b2b3c", true);
        check("a*b*c", "a1c2b", false);
        check("a*a", "a", false);
    }

    #[test]
    fn what_no_name_can_match_is_no_pattern() {
        for text in ["", "a:b", "a b", "ä"] {
            assert_eq!(text.parse::<Pattern>(), Err(BadPattern), "{text}");
        }
    }
}
