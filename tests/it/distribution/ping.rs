//! `GET /v2/`: is this a registry?

use harness::at_each_door;
use harness::door::Registry;

at_each_door!(answers, answers_without_the_last_slash);

async fn answers(registry: &Registry) {
    registry.get("/v2/").send().await.expect(200);
    registry.head("/v2/").send().await.expect(200);
}

async fn answers_without_the_last_slash(registry: &Registry) {
    registry.get("/v2").send().await.expect(200);
}
