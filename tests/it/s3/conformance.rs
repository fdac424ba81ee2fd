//! What every store must do, of a bucket that two instances share.

use std::sync::Arc;

use harness::s3::S3Server;
use outport_core::location::bucket::Limits;
use outport_core::location::{Location, LocationUrl, Options};
use outport_core::store::conformance::Instances;

const MIB: usize = 1 << 20;

async fn instances() -> (Instances, Arc<S3Server>) {
    let server = S3Server::shared().await;
    let name = server.bucket().await;
    let options = Options {
        // The least that S3 allows, so that little content is large.
        limits: Limits {
            part_bytes: 5 * MIB,
            copy_bytes: 6 << 20,
            copy_now_bytes: 6 << 20,
            ..Limits::default()
        },
        ..server.options()
    };
    let url: LocationUrl = format!("s3://{name}/a prefix/eu").parse().unwrap();
    let open = || {
        let location = Location::open(url.clone(), &options).unwrap();
        Arc::clone(location.store())
    };
    let instances = Instances {
        one: open(),
        other: open(),
        large_bytes: 13 * MIB + 1,
    };
    (instances, server)
}

outport_core::content_store_tests!(instances);
