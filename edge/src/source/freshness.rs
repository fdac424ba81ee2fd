//! How tags are kept.
//!
//! What: the first rule that a tag matches says how long what was said of it is good, and may say for how long it is of use
//! after that; what none says is as its registry has it. A tag that nobody moves, as those of versions are, need never be
//! asked for again.

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

/// How a tag is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For so long after it was asked for nobody is asked.
    pub good: Good,
    /// For so long after that clients get it at once, and it is asked for meanwhile (RFC 5861 section 3).
    pub while_revalidate: Duration,
    /// For so long after it was asked for clients get it when it cannot be asked for (RFC 5861 section 4).
    pub if_error: Good,
}

/// How some tags are kept.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Of which repositories, as they are called here: `docker.io/library/*`.
    pub image: Pattern,
    /// Which tags.
    pub tag: Pattern,
    /// For so long after one was asked for nobody is asked.
    pub good: Good,
    /// See [`Policy::while_revalidate`]; none: as the registry's others.
    pub while_revalidate: Option<Duration>,
    /// See [`Policy::if_error`]; none: as the registry's others.
    pub if_error: Option<Good>,
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

    /// Returns how a tag is kept, when `own` is how its registry keeps its tags.
    pub fn policy(&self, repo: &RepoName, tag: &Tag, own: Policy) -> Policy {
        let mut rules = self.0.iter();
        let matching =
            rules.find(|rule| rule.image.matches(repo.as_str()) && rule.tag.matches(tag.as_str()));
        matching.map_or(own, |rule| Policy {
            good: rule.good,
            while_revalidate: rule.while_revalidate.unwrap_or(own.while_revalidate),
            if_error: rule.if_error.unwrap_or(own.if_error),
        })
    }
}

// === impl Policy ===

impl Policy {
    /// Returns one by which a tag is good for so long, and of use as long as it is known.
    pub const fn good_for(time: Duration) -> Self {
        Self {
            good: Good::For(time),
            while_revalidate: Duration::ZERO,
            if_error: Good::Forever,
        }
    }

    /// Whether clients get a tag at once that was asked for so long ago, and is to be asked for.
    pub fn is_of_use(&self, age: Duration) -> bool {
        match self.good {
            Good::For(time) => age < time.saturating_add(self.while_revalidate),
            Good::Forever => true,
        }
    }
}

// === impl Good ===

impl Good {
    /// Whether it is, so long after.
    pub fn is_after(self, age: Duration) -> bool {
        match self {
            Self::For(time) => age < time,
            Self::Forever => true,
        }
    }

    /// Returns one that is so many times as long.
    #[must_use]
    pub const fn times(self, times: u32) -> Self {
        match self {
            Self::For(time) => Self::For(time.saturating_mul(times)),
            Self::Forever => Self::Forever,
        }
    }
}

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
            while_revalidate: None,
            if_error: None,
        };
        let rules = Rules::new(vec![
            rule("docker.io/*", "latest", minute),
            rule("docker.io/library/*", "*.*.*", Good::Forever),
        ]);
        let own = Policy::good_for(Duration::ZERO);
        let good = |repo: &str, tag: &str| {
            let (repo, tag) = (repo.parse().unwrap(), tag.parse().unwrap());
            rules.policy(&repo, &tag, own).good
        };
        assert_eq!(good("docker.io/library/a", "latest"), minute);
        assert_eq!(good("docker.io/library/a", "1.2.3"), Good::Forever);
        assert_eq!(good("docker.io/library/a", "1.2"), own.good);
        assert_eq!(good("docker.io/team/a", "1.2.3"), own.good);
    }
}
