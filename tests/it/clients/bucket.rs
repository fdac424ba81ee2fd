//! skopeo, at an origin whose blobs are in a bucket.

use harness::door::Site;
use harness::images::{DEBIAN, Images, MULTI, WHEELS, ZSTD};
use harness::node::{Edge, Origin};
use harness::s3::S3Server;

use super::skopeo::assert_pulled;
use super::{containers, push, resolve};

#[tokio::test]
async fn copies_in_and_out() {
    let server = S3Server::shared().await;
    let bucket = server.bucket().await;
    let origin = Origin::builder().bucket(&server, &bucket).start().await;
    let edge = Edge::start(&origin).await;
    let site = Site { edge, origin };
    let (images, tools) = (Images::shared(), containers(&site));
    let all = [DEBIAN, ZSTD, MULTI, WHEELS];
    let doors = site.doors();
    for (number, door) in doors.into_iter().enumerate() {
        for image in all {
            let repository = format!("t/{image}-{number}");
            push(&tools, image, door, &format!("{repository}:1"));
            let digest = images.digest(image);
            assert_eq!(resolve(&site, &repository, "1").await.1, digest);
            // Out of the door that it did not come in by.
            let from = format!("docker://{}/{repository}:1", doors[1 - number]);
            assert_pulled(&tools, &from, &format!("out-{number}"), image);
        }
    }
}
