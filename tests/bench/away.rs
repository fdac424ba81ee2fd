//! A tag of an upstream that is away, beside one that need not be asked for.

use harness::node::{Edge, Origin};
use harness::repository::Repository;

use crate::table::{Series, Table, Unit};
use crate::transfer::{push_image, requests_per_second};

const REPOSITORY: &str = "bench/small";
/// What the upstream is called.
const NAME: &str = "away";

/// Asks two edges for a manifest that they have of an upstream that has gone: one that would ask it each time, and one that
/// need not.
pub(crate) async fn edge_without_upstream(table: &mut Table, rounds: u64) {
    let mut upstream = Origin::start().await;
    push_image(upstream.address(), REPOSITORY, &[]);
    let mut edges = Vec::new();
    for fresh_for in ["0s", "1h"] {
        let sets = [
            "origin.urls=[]".to_owned(),
            format!("upstream.0.name={NAME}"),
            format!("upstream.0.url=http://{}", upstream.address()),
            format!("upstreams.tags_fresh_for={fresh_for}"),
        ];
        let edge = Edge::start_with("http://127.0.0.1:1", &sets).await;
        let repository = Repository::new(edge.client(), &format!("{NAME}/{REPOSITORY}"));
        assert_eq!(repository.get_manifest("latest").await.status, 200);
        edges.push(edge);
    }
    upstream.stop();
    let path = format!("/v2/{NAME}/{REPOSITORY}/manifests/latest");
    let mut rates = <[Series; 2]>::default();
    for _ in 0..rounds {
        for (edge, series) in edges.iter().zip(&mut rates) {
            series.add(requests_per_second(edge.address(), &path));
        }
    }
    let what = "tag of an upstream that is away, 32 connections";
    table.beside(Unit::Rate, what, "one that need not be asked for", &rates);
}
