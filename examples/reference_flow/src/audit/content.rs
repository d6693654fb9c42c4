//! What a database file holds.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags};
use serde::Deserialize;

/// The records and sessions of one database file, also those that are not in the journal.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// By their user and name.
    pub(super) records: HashMap<(i64, String), Kept>,
    /// The users of the rows that have this device.
    pub(super) sessions: HashMap<String, Vec<i64>>,
}

/// A record.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) value: String,
    /// How often it was written.
    pub(super) writes: usize,
    /// How many different idempotency keys it was written with.
    pub(super) keys: usize,
}

/// What a record's value says of itself.
#[derive(Debug, Deserialize)]
struct Value {
    user: i64,
    record: usize,
    version: String,
}

/// Opens a file that must exist. It has to be writable: SQLite completes here what a killed process had committed.
pub(super) fn open(path: &Path) -> anyhow::Result<Connection> {
    let opened = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE);
    let connection = opened.with_context(|| format!("cannot open {}", path.display()))?;
    // A process that has just ended may still hold a lock.
    connection.busy_timeout(Duration::from_secs(1))?;
    Ok(connection)
}

// === impl Content ===

impl Content {
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let mut content = Self::default();
        let mut records = connection.prepare(
            "SELECT user_id, name, value, writes, coalesce(keys, 0) FROM records
             LEFT JOIN (SELECT of, count(*) AS keys FROM applied GROUP BY of) ON of = user_id || '/' || name",
        )?;
        let mut rows = records.query([])?;
        while let Some(row) = rows.next()? {
            let kept = Kept {
                value: row.get(2)?,
                writes: row.get::<_, u32>(3)? as usize,
                keys: row.get::<_, u32>(4)? as usize,
            };
            content.records.insert((row.get(0)?, row.get(1)?), kept);
        }
        let mut sessions = connection.prepare("SELECT device, user_id FROM sessions")?;
        let mut rows = sessions.query([])?;
        while let Some(row) = rows.next()? {
            content.sessions.entry(row.get(0)?).or_default().push(row.get(1)?);
        }
        Ok(content)
    }
}

// === impl Kept ===

impl Kept {
    /// The version that the value says it is; `None` if it is no value of this record.
    pub(super) fn version(&self, user: i64, record: usize) -> Option<u64> {
        let value: Value = serde_json::from_str(&self.value).ok()?;
        ((value.user, value.record) == (user, record)).then(|| value.version.parse().ok())?
    }
}
