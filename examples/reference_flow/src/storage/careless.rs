//! How not to do it: acknowledge first, commit later. The audit must find what that loses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;

use super::{Answer, Write};
use crate::clock::Moment;

/// The time between two commits.
const PERIOD: Duration = Duration::from_millis(500);

/// The open transaction of many writes. Nobody commits the last one: it is lost with the process, however that ends.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The moment at which it was opened, in microseconds.
    opened: AtomicU64,
}

// === impl Batch ===

impl Batch {
    /// Applies `write` as part of the open transaction, after committing the last one if that is due.
    pub(super) fn write(
        &self,
        connection: &mut Connection,
        key: Option<&str>,
        write: Write,
    ) -> rusqlite::Result<Answer> {
        let now = Moment::now();
        let opened = Moment(self.opened.load(Ordering::Relaxed));
        if !connection.is_autocommit() && now.since(opened) >= PERIOD {
            connection.execute_batch("COMMIT")?;
        }
        if connection.is_autocommit() {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            self.opened.store(now.0, Ordering::Relaxed);
        }
        let savepoint = connection.savepoint()?;
        let answer = write.apply_once(&savepoint, key)?;
        savepoint.commit()?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use crate::storage::{Storage, Write};

    #[tokio::test]
    async fn a_careless_write_is_answered_and_read_but_lost_with_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let careless = Storage::open_careless(folder.path()).unwrap();
        let answer = careless.write(None, Write::User { name: "Ada".into() }).await.unwrap();
        assert_eq!(answer.status, 201);
        assert!(careless.user(1).await.unwrap().is_some());
        // What another process sees is what would be left after a kill.
        let survivor = Storage::open(folder.path()).unwrap();
        assert!(survivor.user(1).await.unwrap().is_none());

        // Nor does a backup have it.
        assert_eq!(careless.backup().await.unwrap().users, 0);
    }
}
