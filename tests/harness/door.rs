//! The two doors of the registry: the origin itself, and an edge in front of it. Both are to behave the same.

use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;

use tokio::runtime::Builder;

use crate::client::Client;
use crate::node::{Edge, Origin};
use crate::repository::Repository;

/// A registry of one origin, and the door that a test goes through.
///
/// It is its client: `registry.get("/v2/")`.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    // The edge stops before its origin.
    _edge: Option<Edge>,
    _origin: Origin,
}

/// An origin and an edge in front of it, for tests that go through both doors.
#[derive(Debug)]
pub struct Site {
    /// The edge, which stops before its origin.
    pub edge: Edge,
    /// The origin.
    pub origin: Origin,
}

/// What is to hold at either door.
pub type Check = for<'a> fn(&'a Registry) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Makes two tests of each function: `at_the_origin` and `through_an_edge`, in a module of the function's name.
///
/// A function takes a [`Registry`] by reference; `NAME with "KEY=VALUE"` sets a key of the origin's config.
#[macro_export]
macro_rules! at_each_door {
    ($($check:ident $(with $set:literal)?),* $(,)?) => {$(
        mod $check {
            #[test]
            fn at_the_origin() {
                $crate::door::at_the_origin(&[$($set)?], |door| Box::pin(super::$check(door)));
            }

            #[test]
            fn through_an_edge() {
                $crate::door::through_an_edge(&[$($set)?], |door| Box::pin(super::$check(door)));
            }
        }
    )*};
}

// === impl Site ===

impl Site {
    /// Starts both, with nothing in them.
    pub async fn start() -> Self {
        let origin = Origin::start().await;
        let edge = Edge::start(&origin).await;
        Self { edge, origin }
    }

    /// Returns where both doors are: the origin's, then the edge's.
    pub fn doors(&self) -> [SocketAddr; 2] {
        [self.origin.address(), self.edge.address()]
    }

    /// Returns a repository as the origin has it.
    pub fn repository(&self, name: &str) -> Repository {
        Repository::new(self.origin.client(), name)
    }
}

/// Runs a check at the origin's door.
pub fn at_the_origin(sets: &[&str], check: Check) {
    run(Box::pin(async {
        check(&Registry::origin(sets).await).await;
    }));
}

/// Runs a check at an edge's door.
pub fn through_an_edge(sets: &[&str], check: Check) {
    run(Box::pin(async {
        check(&Registry::edge(sets).await).await;
    }));
}

/// Runs a test to its end.
///
/// Not generic, as `#[tokio::test]` is: a runtime compiled anew for each of hundreds of tests takes minutes.
fn run(test: Pin<Box<dyn Future<Output = ()> + '_>>) {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("build a runtime").block_on(test);
}

// === impl Registry ===

impl Registry {
    /// Starts an origin; its own door is the one to go through.
    async fn origin(sets: &[&str]) -> Self {
        let origin = start_origin(sets).await;
        Self {
            client: origin.client(),
            _edge: None,
            _origin: origin,
        }
    }

    /// Starts an origin with an edge in front of it to go through.
    async fn edge(sets: &[&str]) -> Self {
        let origin = start_origin(sets).await;
        let edge = Edge::start(&origin).await;
        Self {
            client: edge.client(),
            _edge: Some(edge),
            _origin: origin,
        }
    }

    /// Returns a repository behind the door.
    pub fn repository(&self, name: &str) -> Repository {
        Repository::new(self.client.clone(), name)
    }
}

async fn start_origin(sets: &[&str]) -> Origin {
    let builder = Origin::builder();
    sets.iter()
        .fold(builder, |builder, set| builder.set(*set))
        .start()
        .await
}

impl Deref for Registry {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}
