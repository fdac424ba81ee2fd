//! The two doors of the registry: the origin itself, and an edge in front of it. Both are to behave the same.

use std::net::SocketAddr;
use std::ops::Deref;

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

/// Makes two tests of each function: `at_the_origin` and `through_an_edge`, in a module of the function's name.
///
/// A function that takes a [`Registry`] by reference; `NAME with KEY=VALUE` sets a key of the origin's config.
#[macro_export]
macro_rules! at_each_door {
    ($($check:ident $(with $set:literal)?),* $(,)?) => {$(
        mod $check {
            #[tokio::test]
            async fn at_the_origin() {
                let builder = $crate::node::Origin::builder()$(.set($set))?;
                super::$check(&$crate::door::Registry::origin(builder).await).await;
            }

            #[tokio::test]
            async fn through_an_edge() {
                let builder = $crate::node::Origin::builder()$(.set($set))?;
                super::$check(&$crate::door::Registry::edge(builder).await).await;
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

// === impl Registry ===

impl Registry {
    /// Starts an origin; its own door is the one to go through.
    pub async fn origin(builder: crate::node::OriginBuilder) -> Self {
        let origin = builder.start().await;
        Self {
            client: origin.client(),
            _edge: None,
            _origin: origin,
        }
    }

    /// Starts an origin with an edge in front of it to go through.
    pub async fn edge(builder: crate::node::OriginBuilder) -> Self {
        let origin = builder.start().await;
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

impl Deref for Registry {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}
