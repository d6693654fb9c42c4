//! The tables, and the threads that own SQLite's connections: one that writes, a few that read beside it (WAL mode).

mod backup;
mod careless;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::backup::BackupReport;
use self::careless::Batch;

/// Threads that read.
const READERS: usize = 2;

/// Jobs that may wait for one thread; beyond that the database says that it is busy.
const QUEUE: usize = 256;

/// How many of a user's sessions are listed, newest first.
const SESSIONS_LISTED: u32 = 10;

/// For how many seconds a repeated write is recognised. A retry comes within seconds; this is longer than a run, because
/// the audit counts these keys against the writes, and a key that was deleted would look like a write without one.
pub(crate) const APPLIED_KEPT: u32 = 3600;

const SCHEMA: &str = "
    CREATE TABLE users (
        id       INTEGER PRIMARY KEY,
        name     TEXT NOT NULL
    ) STRICT;
    CREATE TABLE sessions (
        id       INTEGER PRIMARY KEY,
        user_id  INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        device   TEXT NOT NULL
    ) STRICT;
    CREATE INDEX sessions_of_user ON sessions (user_id);
    CREATE TABLE records (
        user_id  INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        name     TEXT NOT NULL,
        value    TEXT NOT NULL,
        -- How often it was written: with the keys in `applied`, this shows a write that was applied twice.
        writes   INTEGER NOT NULL DEFAULT 1,
        PRIMARY KEY (user_id, name)
    ) STRICT, WITHOUT ROWID;
    -- Writes that were applied, so that a write which is sent twice is applied once.
    CREATE TABLE applied (
        key      TEXT PRIMARY KEY,
        -- What was written; 'user/name' for a record.
        of       TEXT NOT NULL,
        at       INTEGER NOT NULL,
        status   INTEGER NOT NULL,
        body     TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX applied_at ON applied (at);
";

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The handle to the threads; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    writer: mpsc::Sender<Job>,
    readers: [mpsc::Sender<Job>; READERS],
    backups: mpsc::Sender<Job>,
    turn: Arc<AtomicUsize>,
    folder: PathBuf,
    /// The number of the next backup.
    next_backup: Arc<AtomicU64>,
    /// The writes that are acknowledged before they are committed; `None` where that never happens.
    careless: Option<Arc<Batch>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("too many queries are waiting")]
    Busy,
    #[error("the thread of the connection has ended")]
    Gone,
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    #[error(transparent)]
    File(#[from] std::io::Error),
}

/// The answer to a write, kept beside its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// What can be written.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    User { name: String },
    Session { user: i64, device: String },
    Record { user: i64, name: String, value: String },
}

/// A user, as it is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) name: String,
}

/// One of a user's sessions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) id: i64,
    pub(crate) user: i64,
    pub(crate) device: String,
}

// === impl Storage ===

impl Storage {
    /// Opens `database.sqlite` in `folder`; what a process that was killed has committed is still there.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("database.sqlite");
        let writer = Connection::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let mode: String = writer.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        anyhow::ensure!(mode == "wal", "the database is in journal mode {mode}, not wal");
        // What is committed survives the end of this process, which is what happens to it here. A power failure does not
        // happen here; to survive one, too, takes FULL, and a disk whose syncs don't take half a second when others use it.
        writer.pragma_update(None, "synchronous", "OFF")?;
        writer.pragma_update(None, "foreign_keys", true)?;
        if !writer.table_exists(None, "users")? {
            writer.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;"))?;
        }
        let reader = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            thread("reader", Connection::open_with_flags(&path, flags)?)
        };
        let readers = [reader()?, reader()?];
        // Of its own, so that no query waits behind a backup.
        let backups = reader()?;
        let writer = thread("writer", writer)?;
        let next_backup = Arc::new(AtomicU64::new(backup::next_number(folder)?));
        let (turn, folder) = (Arc::default(), folder.to_owned());
        Ok(Self { writer, readers, backups, turn, folder, next_backup, careless: None })
    }

    /// A database that breaks its promise, to prove that the audit finds it: it acknowledges writes before it commits
    /// them, so that those of the last half second are lost when the process ends.
    pub(crate) fn open_careless(folder: &Path) -> anyhow::Result<Self> {
        let storage = Self::open(folder)?;
        // Only the connection that wrote sees what is not committed yet, so it has to read, too.
        let readers = std::array::from_fn(|_| storage.writer.clone());
        Ok(Self { readers, careless: Some(Arc::default()), ..storage })
    }

    pub(crate) async fn user(&self, id: i64) -> Result<Option<User>, StorageError> {
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT id, name FROM users WHERE id = ?")?
                .query_row([id], |row| Ok(User { id: row.get(0)?, name: row.get(1)? }))
                .optional()
        })
        .await
    }

    pub(crate) async fn sessions(&self, user: i64) -> Result<Vec<Session>, StorageError> {
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT id, user_id, device FROM sessions WHERE user_id = ? ORDER BY id DESC LIMIT ?")?
                .query_map(params![user, SESSIONS_LISTED], |row| {
                    Ok(Session { id: row.get(0)?, user: row.get(1)?, device: row.get(2)? })
                })?
                .collect()
        })
        .await
    }

    pub(crate) async fn record(&self, user: i64, name: String) -> Result<Option<String>, StorageError> {
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT value FROM records WHERE user_id = ? AND name = ?")?
                .query_row(params![user, name], |row| row.get(0))
                .optional()
        })
        .await
    }

    /// Applies `write` once, and answers a repetition of its `key` with the first answer.
    pub(crate) async fn write(&self, key: Option<String>, write: Write) -> Result<Answer, StorageError> {
        let careless = self.careless.clone();
        run(&self.writer, move |connection| {
            if let Some(batch) = careless {
                return Ok(batch.write(connection, key.as_deref(), write)?);
            }
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answer = write.apply_once(&transaction, key.as_deref())?;
            transaction.commit()?;
            Ok(answer)
        })
        .await
    }

    /// # Errors
    ///
    /// A thread that owns a connection has ended.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let open = !self.writer.is_closed() && self.readers.iter().all(|reader| !reader.is_closed());
        open.then_some(()).ok_or(StorageError::Gone)
    }

    async fn read<T, F>(&self, query: F) -> Result<T, StorageError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        run(self.reader(), |connection| Ok(query(connection)?)).await
    }

    fn reader(&self) -> &mpsc::Sender<Job> {
        &self.readers[self.turn.fetch_add(1, Ordering::Relaxed) % READERS]
    }
}

// === impl Write ===

impl Write {
    /// Applies it unless its key says that it was applied before; within a transaction of the caller.
    fn apply_once(self, transaction: &Connection, key: Option<&str>) -> rusqlite::Result<Answer> {
        if let Some(key) = key
            && let Some(answer) = applied(transaction, key)?
        {
            return Ok(answer);
        }
        let of = self.of();
        let answer = match self.apply(transaction) {
            // The only constraint that a request can violate: its user does not exist.
            Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == rusqlite::ErrorCode::ConstraintViolation => {
                return Ok(Answer { status: 404, body: r#"{"error":"no such user"}"#.into() });
            }
            other => other?,
        };
        if let Some(key) = key {
            remember(transaction, key, &of, &answer)?;
        }
        Ok(answer)
    }

    /// What `applied` says that it was a write of.
    fn of(&self) -> String {
        match self {
            Self::User { name } => name.clone(),
            Self::Session { user, .. } => user.to_string(),
            Self::Record { user, name, .. } => format!("{user}/{name}"),
        }
    }

    fn apply(self, transaction: &Connection) -> rusqlite::Result<Answer> {
        match self {
            Self::User { name } => {
                transaction.execute("INSERT INTO users (name) VALUES (?)", [&name])?;
                Ok(Answer::json(201, &User { id: transaction.last_insert_rowid(), name }))
            }
            Self::Session { user, device } => {
                transaction.execute("INSERT INTO sessions (user_id, device) VALUES (?, ?)", params![user, device])?;
                Ok(Answer::json(201, &Session { id: transaction.last_insert_rowid(), user, device }))
            }
            Self::Record { user, name, value } => {
                transaction.execute(
                    "INSERT INTO records (user_id, name, value) VALUES (?, ?, ?)
                     ON CONFLICT (user_id, name) DO UPDATE SET value = excluded.value, writes = writes + 1",
                    params![user, name, value],
                )?;
                Ok(Answer { status: 200, body: value })
            }
        }
    }
}

// === impl Answer ===

impl Answer {
    fn json(status: u16, body: &impl Serialize) -> Self {
        Self { status, body: serde_json::to_string(body).expect("plain data") }
    }
}

fn applied(transaction: &Connection, key: &str) -> rusqlite::Result<Option<Answer>> {
    transaction
        .prepare_cached("SELECT status, body FROM applied WHERE key = ?")?
        .query_row([key], |row| Ok(Answer { status: row.get(0)?, body: row.get(1)? }))
        .optional()
}

fn remember(transaction: &Connection, key: &str, of: &str, answer: &Answer) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM applied WHERE at < unixepoch() - ?")?.execute([APPLIED_KEPT])?;
    transaction
        .prepare_cached("INSERT INTO applied (key, of, at, status, body) VALUES (?, ?, unixepoch(), ?, ?)")?
        .execute(params![key, of, answer.status, answer.body])?;
    Ok(())
}

/// A thread that owns `connection` and runs one job after the other, until the last handle is gone.
fn thread(name: &str, mut connection: Connection) -> anyhow::Result<mpsc::Sender<Job>> {
    connection.busy_timeout(Duration::from_secs(1))?;
    let (jobs_in, mut jobs) = mpsc::channel::<Job>(QUEUE);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        while let Some(job) = jobs.blocking_recv() {
            job(&mut connection);
        }
    })?;
    Ok(jobs_in)
}

async fn run<T, F>(thread: &mpsc::Sender<Job>, job: F) -> Result<T, StorageError>
where
    F: FnOnce(&mut Connection) -> Result<T, StorageError> + Send + 'static,
    T: Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    let job: Job = Box::new(move |connection| drop(answer.send(job(connection))));
    thread.try_send(job).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => StorageError::Busy,
        mpsc::error::TrySendError::Closed(_) => StorageError::Gone,
    })?;
    answered.await.map_err(|_| StorageError::Gone)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str) -> Write {
        Write::Record { user: 1, name: "greeting".into(), value: value.into() }
    }

    #[tokio::test]
    async fn a_write_that_is_sent_twice_is_applied_once() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(folder.path()).unwrap();
        let key = || Some("order-17".to_owned());
        let first = storage.write(key(), Write::User { name: "Ada".into() }).await.unwrap();
        let again = storage.write(key(), Write::User { name: "Ada".into() }).await.unwrap();
        assert_eq!((first.status, &first), (201, &again));
        assert!(storage.user(1).await.unwrap().is_some());
        assert!(storage.user(2).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_record_of_nobody_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(folder.path()).unwrap();
        assert_eq!(storage.write(None, record("hello")).await.unwrap().status, 404);
        assert_eq!(storage.record(1, "greeting".into()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_was_answered_is_still_there_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(folder.path()).unwrap();
        storage.write(None, Write::User { name: "Ada".into() }).await.unwrap();
        storage.write(None, record("hello")).await.unwrap();
        // No orderly end: the first handle and its connections are still open.
        let reopened = Storage::open(folder.path()).unwrap();
        assert_eq!(reopened.record(1, "greeting".into()).await.unwrap().as_deref(), Some("hello"));
    }
}
