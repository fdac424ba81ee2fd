//! Another process at an origin's SQLite file.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

/// Somebody who writes to the file, and does not come to an end: others can read, and not write.
#[derive(Debug)]
pub struct Writer(SqliteConnection);

// === impl Writer ===

impl Writer {
    /// Takes the lock of the database in a file.
    pub async fn lock(file: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(file);
        let mut connection = options.connect().await.unwrap();
        let begin = sqlx::query("BEGIN IMMEDIATE");
        begin.execute(&mut connection).await.unwrap();
        Self(connection)
    }

    /// Gives it back.
    pub async fn release(self) {
        self.0.close().await.unwrap();
    }
}
