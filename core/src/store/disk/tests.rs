use std::future::{Ready, ready};

use tempfile::TempDir;

use super::*;
use crate::store::conformance::Instances;

fn instances() -> Ready<(Instances, TempDir)> {
    let root = TempDir::new().unwrap();
    let instances = Instances {
        one: Arc::new(Disk::open(root.path()).unwrap()),
        other: Arc::new(Disk::open(root.path()).unwrap()),
        large_bytes: 40_000_001,
    };
    ready((instances, root))
}

mod conformance {
    crate::content_store_tests!(super::instances);
}
