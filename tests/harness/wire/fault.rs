//! What can go wrong with an answer on its way.

use parking_lot::Mutex;

/// What goes wrong with one answer; places in it count from the first byte of its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing comes from this place on, and the connection stays.
    StallAt(usize),
    /// The connection is reset at this place.
    ResetAt(usize),
    /// The answer ends at this place, as it does when a peer closes its half of the connection.
    EndAt(usize),
    /// One bit of the byte at this place is turned over.
    FlipAt(usize),
    /// It comes in pieces of so many bytes.
    Slice(usize),
}

/// The faults that wait for their requests.
#[derive(Debug, Default)]
pub(super) struct Spoils(Mutex<Vec<Spoil>>);

#[derive(Debug)]
struct Spoil {
    start: String,
    end: String,
    fault: Fault,
}

/// Bytes as they come at the near end.
#[derive(Debug)]
pub(super) struct Spoiled {
    bytes: Vec<u8>,
    piece_bytes: usize,
    /// What happens behind them, if not more of the same.
    pub(super) last: Option<Last>,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// No more bytes come.
    End,
    /// None come, and nothing says so.
    Silence,
    /// It is reset.
    Reset,
}

// === impl Fault ===

impl Fault {
    /// Returns what is left of it behind so many bytes.
    fn behind(self, bytes: usize) -> Option<Self> {
        match self {
            Self::StallAt(at) => Some(Self::StallAt(at.saturating_sub(bytes))),
            Self::ResetAt(at) => Some(Self::ResetAt(at.saturating_sub(bytes))),
            Self::EndAt(at) => Some(Self::EndAt(at.saturating_sub(bytes))),
            Self::FlipAt(at) => at.checked_sub(bytes).map(Self::FlipAt),
            Self::Slice(_) => Some(self),
        }
    }
}

// === impl Spoils ===

impl Spoils {
    pub(super) fn add(&self, start: &str, end: &str, fault: Fault) {
        self.0.lock().push(Spoil {
            start: start.to_owned(),
            end: end.to_owned(),
            fault,
        });
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Takes the fault of the answer to a request.
    pub(super) fn take(&self, request: &str) -> Option<Fault> {
        let mut spoils = self.0.lock();
        let at = spoils
            .iter()
            .position(|spoil| request.starts_with(&spoil.start) && request.ends_with(&spoil.end))?;
        Some(spoils.remove(at).fault)
    }
}

// === impl Spoiled ===

impl Spoiled {
    /// Applies a fault to the next bytes of an answer.
    pub(super) fn new(bytes: &[u8], fault: &mut Option<Fault>) -> Self {
        let mut bytes = bytes.to_vec();
        let length = bytes.len();
        let mut piece_bytes = length;
        let last = match *fault {
            Some(Fault::StallAt(at)) if at < length => Some((at, Last::Silence)),
            Some(Fault::ResetAt(at)) if at < length => Some((at, Last::Reset)),
            Some(Fault::EndAt(at)) if at < length => Some((at, Last::End)),
            Some(Fault::FlipAt(at)) if at < length => {
                bytes[at] ^= 1;
                None
            }
            Some(Fault::Slice(bytes)) => {
                piece_bytes = bytes;
                None
            }
            _ => None,
        };
        *fault = fault.and_then(|fault| fault.behind(length));
        if let Some((at, _)) = last {
            bytes.truncate(at);
        }
        Self {
            bytes,
            piece_bytes: piece_bytes.max(1),
            last: last.map(|(_, last)| last),
        }
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(self.piece_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_at_its_place_however_the_bytes_come() {
        #[track_caller]
        fn check(fault: Fault, expected: &[u8], last: Option<Last>) {
            let answer: Vec<_> = (0..100).collect();
            for chunk_bytes in [1, 7, 10, 100] {
                let (mut fault, mut came, mut ended) = (Some(fault), Vec::new(), None);
                for chunk in answer.chunks(chunk_bytes) {
                    let spoiled = Spoiled::new(chunk, &mut fault);
                    came.extend(spoiled.pieces().flatten());
                    ended = spoiled.last;
                    if ended.is_some() {
                        break;
                    }
                }
                assert_eq!((came.as_slice(), ended), (expected, last), "{chunk_bytes}");
            }
        }
        let answer: Vec<_> = (0..100).collect();
        let mut flipped = answer.clone();
        flipped[42] ^= 1;
        check(Fault::StallAt(30), &answer[..30], Some(Last::Silence));
        check(Fault::ResetAt(0), &[], Some(Last::Reset));
        check(Fault::EndAt(99), &answer[..99], Some(Last::End));
        check(Fault::FlipAt(42), &flipped, None);
        check(Fault::Slice(3), &answer, None);
        check(Fault::EndAt(100), &answer, None);
    }
}
