//! What a connection is doing, and when that has gone on for too long.
//!
//! What: the pure half of a connection's watch. It is told what happens on the socket and to requests, and says until when
//! nothing may happen.
//!
//! Invariant: while a request is being handled only the sending of its response has a deadline here; its body has its own.

use std::time::Duration;

use tokio::time::Instant;

use super::Config;

/// How long a connection that is draining lingers: long enough for a response to be read, too short to hold up a drain.
const DRAINING_LINGER: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    waiting: Waiting,
    since: Instant,
    /// Whether bytes that come outside of a request begin the next one; in HTTP/2 they may be anything.
    bytes_begin_requests: bool,
    in_flight: usize,
    /// Whether a response that a handler made is not sent yet.
    owes_response: bool,
    send_blocked: Option<Instant>,
    /// Whether the client may be sending what nobody is going to read.
    is_unread: bool,
    lingering: Option<Lingering>,
    draining_since: Option<Instant>,
}

/// What a client sends is read and thrown away, because closing with unread bytes resets a connection.
#[derive(Debug)]
struct Lingering {
    since: Instant,
    discarded_bytes: u64,
}

/// What is waited for while no request is being handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    FirstByte,
    Head,
    NextRequest,
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cut {
    /// It never sent a byte.
    Silent,
    /// The head of a request took too long.
    SlowHead,
    /// No other request came.
    Idle,
    /// Nothing of the response was taken.
    SendStall,
    /// It went on sending what had been refused.
    Linger,
    /// It speaks HTTP/2 from an address that is offered HTTP/1.1 only.
    Offender,
}

// === impl Activity ===

impl Activity {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            waiting: Waiting::FirstByte,
            since: now,
            bytes_begin_requests: true,
            in_flight: 0,
            owes_response: false,
            send_blocked: None,
            is_unread: false,
            lingering: None,
            draining_since: None,
        }
    }

    /// The connection turned out to be HTTP/2.
    pub(super) const fn is_http2(&mut self, now: Instant) {
        self.bytes_begin_requests = false;
        self.waiting = Waiting::NextRequest;
        self.since = now;
    }

    /// Bytes came.
    pub(super) fn received(&mut self, now: Instant) {
        if self.in_flight == 0 && self.bytes_begin_requests && self.waiting != Waiting::Head {
            // The first byte's clock runs on: it is the same wait, for the head of the first request.
            if self.waiting == Waiting::NextRequest {
                self.since = now;
            }
            self.waiting = Waiting::Head;
        }
    }

    /// A request's head is complete.
    pub(super) const fn request_started(&mut self) {
        self.in_flight += 1;
        self.owes_response = true;
    }

    /// A response's body has been handed over, or given up.
    pub(super) const fn request_finished(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.waiting = Waiting::NextRequest;
            self.since = now;
        }
    }

    /// What is left of a request's body is read, whatever becomes of its response meanwhile; ended by
    /// [`Self::request_finished`], as a request is.
    pub(super) const fn rest_started(&mut self) {
        self.in_flight += 1;
    }

    /// The client may be sending what nobody is going to read.
    pub(super) const fn left_unread(&mut self) {
        self.is_unread = true;
    }

    /// Everything has been sent. Returns whether what comes is to be read and thrown away before the connection is closed.
    pub(super) fn linger(&mut self, now: Instant) -> bool {
        if self.is_unread && self.lingering.is_none() {
            self.lingering = Some(Lingering {
                since: now,
                discarded_bytes: 0,
            });
        }
        self.is_unread
    }

    /// Bytes were thrown away.
    pub(super) const fn discarded(&mut self, bytes: usize) {
        if let Some(lingering) = &mut self.lingering {
            lingering.discarded_bytes += bytes as u64;
        }
    }

    /// The server is to end.
    pub(super) const fn draining(&mut self, now: Instant) {
        self.draining_since = Some(now);
    }

    /// The client took bytes.
    pub(super) const fn sent(&mut self) {
        self.send_blocked = None;
    }

    /// The client takes no more bytes for now.
    pub(super) fn send_blocked(&mut self, now: Instant) {
        self.send_blocked.get_or_insert(now);
    }

    /// Everything there was to send has been sent.
    pub(super) const fn flushed(&mut self) {
        if self.in_flight == 0 {
            self.owes_response = false;
        }
    }

    /// Whether what is sent next belongs to a response that a handler made.
    pub(super) const fn owes_response(&self) -> bool {
        self.owes_response || !self.bytes_begin_requests
    }

    /// Returns since when nothing but the next request is waited for, if that is so.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.in_flight == 0
            && self.waiting == Waiting::NextRequest
            && self.bytes_begin_requests
            && !self.owes_response
            && !self.is_unread;
        is_idle.then_some(self.since)
    }

    /// Returns when the connection is to be cut unless something happens, and why.
    pub(super) fn deadline(&self, config: &Config) -> Option<(Instant, Cut)> {
        if let Some(lingering) = &self.lingering {
            return Some((self.end_of(lingering, config), Cut::Linger));
        }
        let sending = self
            .send_blocked
            .map(|since| (since + config.send_stall_timeout, Cut::SendStall));
        let waiting = (self.in_flight == 0).then(|| match self.waiting {
            Waiting::FirstByte => (self.since + config.header_timeout, Cut::Silent),
            Waiting::Head => (self.since + config.header_timeout, Cut::SlowHead),
            Waiting::NextRequest => (self.since + config.idle_timeout, Cut::Idle),
        });
        match (sending, waiting) {
            (Some(sending), Some(waiting)) => Some(if sending.0 <= waiting.0 {
                sending
            } else {
                waiting
            }),
            (sending, waiting) => sending.or(waiting),
        }
    }

    fn end_of(&self, lingering: &Lingering, config: &Config) -> Instant {
        let Lingering {
            since,
            discarded_bytes,
        } = *lingering;
        if discarded_bytes > config.linger_bytes {
            return since;
        }
        let end = since + config.linger_timeout;
        self.draining_since.map_or(end, |draining| {
            end.min(draining.max(since) + DRAINING_LINGER)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Event {
        Received,
        Started,
        Finished,
        Blocked,
        Sent,
        Http2,
        RestStarted,
        Unread,
        Linger,
        Discarded(usize),
        Draining,
    }
    use Event::{
        Blocked, Discarded, Draining, Finished, Http2, Linger, Received, RestStarted, Sent,
        Started, Unread,
    };

    /// Plays events, given with the second they happen in, and compares the second and reason of the cut that follows.
    #[track_caller]
    fn check(events: &[(u64, Event)], expected: Option<(u64, Cut)>) {
        let config = Config {
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(90),
            send_stall_timeout: Duration::from_mins(1),
            linger_timeout: Duration::from_secs(30),
            linger_bytes: 1000,
            ..Config::default()
        };
        let start = Instant::now();
        let mut activity = Activity::new(start);
        for (second, event) in events {
            let now = start + Duration::from_secs(*second);
            match event {
                Received => activity.received(now),
                Started => activity.request_started(),
                Finished => activity.request_finished(now),
                Blocked => activity.send_blocked(now),
                Sent => activity.sent(),
                Http2 => activity.is_http2(now),
                RestStarted => activity.rest_started(),
                Unread => activity.left_unread(),
                Linger => _ = activity.linger(now),
                Discarded(bytes) => activity.discarded(*bytes),
                Draining => activity.draining(now),
            }
        }
        let deadline = activity
            .deadline(&config)
            .map(|(at, cut)| ((at - start).as_secs(), cut));
        assert_eq!(deadline, expected);
    }

    #[test]
    fn every_wait_for_a_client_has_a_deadline() {
        check(&[], Some((15, Cut::Silent)));
        check(&[(9, Received)], Some((15, Cut::SlowHead)));
        check(&[(9, Received), (14, Received)], Some((15, Cut::SlowHead)));
        check(&[(9, Received), (10, Started)], None);
        check(&[(0, Started), (20, Finished)], Some((110, Cut::Idle)));
        check(
            &[
                (0, Started),
                (20, Finished),
                (100, Received),
                (101, Received),
            ],
            Some((115, Cut::SlowHead)),
        );
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut() {
        check(
            &[(0, Started), (5, Blocked), (9, Blocked)],
            Some((65, Cut::SendStall)),
        );
        check(&[(0, Started), (5, Blocked), (9, Sent)], None);
        check(
            &[(0, Started), (5, Blocked), (6, Finished)],
            Some((65, Cut::SendStall)),
        );
    }

    #[test]
    fn frames_between_requests_begin_nothing() {
        check(
            &[(1, Received), (1, Http2), (50, Received)],
            Some((91, Cut::Idle)),
        );
        check(
            &[(1, Http2), (2, Started), (3, Started), (4, Finished)],
            None,
        );
    }

    #[test]
    fn the_rest_of_a_body_is_no_head() {
        check(
            &[
                (0, Started),
                (1, RestStarted),
                (2, Finished),
                (5, Received),
                (20, Finished),
            ],
            Some((110, Cut::Idle)),
        );
    }

    #[test]
    fn what_was_refused_is_read_within_bounds() {
        check(
            &[(0, Started), (1, Finished), (1, Linger)],
            Some((91, Cut::Idle)),
        );
        check(
            &[
                (0, Started),
                (0, Unread),
                (1, Finished),
                (2, Linger),
                (9, Received),
                (9, Discarded(1000)),
                (9, Linger),
            ],
            Some((32, Cut::Linger)),
        );
        check(
            &[(0, Unread), (2, Linger), (3, Discarded(1001))],
            Some((2, Cut::Linger)),
        );
    }

    #[test]
    fn lingering_holds_up_no_drain() {
        let [before, after] = [1, 5].map(|second| (second, Draining));
        check(&[(0, Unread), before, (2, Linger)], Some((3, Cut::Linger)));
        check(&[(0, Unread), (2, Linger), after], Some((6, Cut::Linger)));
        check(
            &[(0, Unread), (2, Linger), (31, Draining)],
            Some((32, Cut::Linger)),
        );
    }
}
