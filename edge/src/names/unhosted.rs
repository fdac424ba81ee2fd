//! Repositories that the origin said it does not know, which the default upstream stands for then.
//!
//! Invariant: only the origin's own word is in here, and a push through this node takes it out, as does an answer of the
//! origin's that says otherwise; what was asked before that does not bring it back.

use std::sync::Arc;

use outport_core::oci::reference::RepoName;
use tokio::time::Instant;

use super::file::Change;
use super::{Asked, Names, WRITTEN_EVERY, blocking};

/// What the origin said of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// That it knows it, or it was pushed to, at this time.
    Hosted(Instant),
    /// That it does not.
    Unhosted(Asked),
}

/// What is in memory of a repository.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    said: Said,
    /// When it was last written down.
    written: Option<Instant>,
}

impl Names {
    /// Returns what the origin said of a repository when it was last asked.
    pub async fn said(&self, repo: &RepoName) -> Option<Said> {
        if let Some(known) = self.0.repositories.get(repo) {
            return Some(known.said);
        }
        let (file, owned) = (Arc::clone(&self.0.file), repo.clone());
        let asked = blocking(move || file.unhosted(&owned)).await??;
        let found = Known {
            said: Said::Unhosted(Asked::Before(asked)),
            written: None,
        };
        let entry = self.0.repositories.entry_by_ref(repo).or_insert(found);
        Some(entry.into_value().said)
    }

    /// Takes note that the origin, asked at a time, did not know a repository; unless it was pushed to since.
    pub fn put_unhosted(&self, repo: &RepoName, asked: Instant) {
        let asked = Asked::At(asked);
        let entry = self.0.repositories.entry_by_ref(repo);
        let entry = entry.and_upsert_with(|known| {
            let known = known.map(moka::Entry::into_value);
            let written = match known.map(|known| (known.said, known.written)) {
                Some((Said::Hosted(at), _)) if Asked::At(at) >= asked => {
                    return Known {
                        said: Said::Hosted(at),
                        written: None,
                    };
                }
                Some((Said::Unhosted(_), written)) => written,
                _ => None,
            };
            let is_due = written.is_none_or(|written| written.elapsed() >= WRITTEN_EVERY);
            if is_due {
                self.queue(Change::PutUnhosted(repo.clone(), asked.time()));
            }
            Known {
                said: Said::Unhosted(asked),
                written: if is_due {
                    Some(Instant::now())
                } else {
                    written
                },
            }
        });
        drop(entry);
    }

    /// Takes note that the origin has a repository.
    pub fn put_hosted(&self, repo: &RepoName) {
        let known = Known {
            said: Said::Hosted(Instant::now()),
            written: None,
        };
        self.0.repositories.insert(repo.clone(), known);
        self.queue(Change::DropUnhosted(repo.clone()));
    }
}
