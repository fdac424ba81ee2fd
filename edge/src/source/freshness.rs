//! How long what was said of a tag is good.
//!
//! What: the first rule that a tag matches says so, and if none does, its registry's own time. A tag that nobody moves, as
//! those of versions are, need never be asked for again.

use std::time::Duration;

use outport_core::config::{Given, Setting, Value};
use outport_core::oci::reference::{RepoName, Tag};
use outport_core::upstream::Pattern;

/// How long what was said of a tag is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Good {
    /// For so long after it was asked for.
    For(Duration),
    /// For as long as it is known.
    Forever,
}

/// For some tags, how long.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Of which repositories, as they are called here: `docker.io/library/*`.
    pub image: Pattern,
    /// Which tags.
    pub tag: Pattern,
    /// How long.
    pub good: Good,
}

/// Rules, of which the first that matches counts.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

// === impl Rules ===

impl Rules {
    /// Returns them in their order.
    pub const fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Returns how long what was said of a tag is good, if a rule says so.
    pub fn good(&self, repo: &RepoName, tag: &Tag) -> Option<Good> {
        let mut rules = self.0.iter();
        let matching =
            rules.find(|rule| rule.image.matches(repo.as_str()) && rule.tag.matches(tag.as_str()));
        matching.map(|rule| rule.good)
    }
}

// === impl Good ===

const FOREVER: &str = "forever";

impl Setting for Good {
    const EXPECTED: &'static str = "a time, such as \"10m\", or \"forever\"";

    fn from_given(given: &Given) -> Option<Self> {
        if given.text() == Some(FOREVER) {
            return Some(Self::Forever);
        }
        Duration::from_given(given).map(Self::For)
    }

    fn to_value(&self) -> Value {
        match self {
            Self::For(time) => time.to_value(),
            Self::Forever => Value::String(FOREVER.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_counts() {
        let minute = Good::For(Duration::from_mins(1));
        let rule = |image: &str, tag: &str, good| Rule {
            image: image.parse().unwrap(),
            tag: tag.parse().unwrap(),
            good,
        };
        let rules = Rules::new(vec![
            rule("docker.io/*", "latest", minute),
            rule("docker.io/library/*", "*.*.*", Good::Forever),
        ]);
        let good =
            |repo: &str, tag: &str| rules.good(&repo.parse().unwrap(), &tag.parse().unwrap());
        assert_eq!(good("docker.io/library/a", "latest"), Some(minute));
        assert_eq!(good("docker.io/library/a", "1.2.3"), Some(Good::Forever));
        assert_eq!(good("docker.io/library/a", "1.2"), None);
        assert_eq!(good("docker.io/team/a", "1.2.3"), None);
    }
}
