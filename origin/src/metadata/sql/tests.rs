use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::metadata::conformance::Instances;

fn config(directory: &TempDir) -> DatabaseConfig {
    DatabaseConfig::new(DatabaseUrl::sqlite(directory.path().join("new/a b?.db")))
}

async fn instances() -> (Instances, TempDir) {
    let directory = TempDir::new().unwrap();
    let config = config(&directory);
    let instances = Instances {
        one: Arc::new(Sql::open(&config).await.unwrap()),
        other: Arc::new(Sql::open(&config).await.unwrap()),
    };
    (instances, directory)
}

mod conformance {
    crate::metadata_tests!(super::instances);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_a_new_file_at_once() {
    let directory = TempDir::new().unwrap();
    let config = config(&directory);
    let opened = futures_util::future::join_all((0..8).map(|_| Sql::open(&config))).await;
    for sql in opened {
        assert_eq!(sql.unwrap().position().await.unwrap(), Sequence::START);
    }
}
