//! One run's ledger: one SQLite file, one connection that writes.
//!
//! The tables are in `migrations/`, the first of which is worth reading first. Methods are grouped by what they store:
//! prompts, responses, pairs, requests (what is asked of paid judges), calls and
//! batches (how it is sent), labels (what they said), people (what people said).

mod asked;
mod batches;
mod calls;
mod capabilities;
mod clear;
mod labels;
mod pairs;
mod people;
mod prompts;
mod replies;
mod requests;
mod responses;
mod reuse;
mod spend;
mod spool;

pub use asked::Asked;
pub use batches::{Batch, BatchClaim, BatchOutcome, BatchResult, EndOfBatch, Harvest, NewBatch};
pub use calls::{CallEvent, Next};
pub use capabilities::{Capability, Lone, LoneReading};
pub use labels::{LabelCount, PreferredPair, VerdictRow};
pub use pairs::{DroppedPair, TRAIN_PAIRS};
pub use people::{HumanVerdict, NewHumanVerdict, ReviewPair, ReviewedPair};
pub use replies::{ReadReply, Reply};
pub use requests::{
    AskAgain, NewRequest, PlanSummary, PlannedRequest, Presentation, Request, RequestFailure, RequestState,
    UselessReply,
};
pub use responses::{BASELINE, DPO, LIVE, ORIGIN, PPO, PairedResponse};
pub use reuse::GoodReply;
pub use spend::{LostRequest, RequestCount, Spend};
pub use spool::Spooled;

use crate::{Result, StoreError};
use rlaif_core::config::Durability;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// Layouts, oldest first; `PRAGMA user_version` counts those applied.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_ledger.sql"),
    include_str!("../../migrations/0002_templates.sql"),
    include_str!("../../migrations/0003_leases.sql"),
    include_str!("../../migrations/0004_batches.sql"),
    include_str!("../../migrations/0005_capabilities.sql"),
    include_str!("../../migrations/0006_origins.sql"),
    include_str!("../../migrations/0007_people.sql"),
];

/// `PRAGMA application_id` of a ledger: "RLAF".
const APPLICATION_ID: i64 = 0x524C_4146;

/// First release without the WAL-reset corruption bug, <https://sqlite.org/wal.html#walresetbug>.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// Largest ledger that is read whole after an unclean end, about a second. The log that SQLite replays has checksums of its own, so a
/// larger one is damaged by nothing but a broken disk, which the next read that meets it reports.
const CHECKED_WHOLE: u64 = 64 << 20;

/// The ledger of one run.
///
/// All methods take `&self` and may be called from many tasks: they take turns on the one connection. Each is one
/// transaction, so a future dropped in the middle leaves nothing half written. Which process may use a run folder is not
/// decided here: the program locks it.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Mutex<SqliteConnection>,
    /// Replies on their way into the ledger.
    spool: spool::Spool,
    /// How often the ledger was opened to write, this time included; 0 for readers.
    session: i64,
}

impl Store {
    /// Opens a run's ledger to write, makes it if it is not there, and brings an older layout up to date.
    ///
    /// Requests that were in flight when the last process died are counted as possibly billed and planned again; see
    /// [`Store::possibly_billed`].
    ///
    /// # Errors
    /// If the file cannot be opened or written, is damaged, is not a ledger or is newer than this program, or if SQLite is
    /// older than 3.51.3.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Durability::Power).await
    }

    /// As [`Store::open`], with a choice of what committed rows survive.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(path: impl AsRef<Path>, durability: Durability) -> Result<Self> {
        let path = path.as_ref();
        // A write-ahead log with something in it was left by a process that did not close: look before building on it.
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let unclean = length(&wal_path(path)) > 0 && length(path) <= CHECKED_WHOLE;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match durability {
                Durability::Power => SqliteSynchronous::Full,
                Durability::Process => SqliteSynchronous::Normal,
            })
            // The planning of a million requests touches their index of keys all over: 64 MiB hold it.
            .pragma("cache_size", "-65536")
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let mut store = Self::connect(path, options).await?;
        if unclean {
            store.check().await?;
        }
        store.migrate().await?;
        store.session = store.meta("sessions").await?.unwrap_or(0) + 1;
        store.put_meta("sessions", &store.session).await?;
        store.recover().await?;
        Ok(store)
    }

    /// Opens a ledger to read only, also while another process writes it.
    ///
    /// # Errors
    /// As [`Store::open`], and if the file is not there.
    pub async fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let store = Self::connect(path, options).await?;
        let layout = store.layout().await?;
        if layout == 0 {
            return Err(StoreError::NotALedger { path: path.to_path_buf() });
        }
        Ok(store)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stores a value under a name: a fingerprint, a count, a summary.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn put_meta(&self, key: &str, value: &impl Serialize) -> Result<()> {
        let value = to_json("meta", value)?;
        let mut connection = self.lock().await;
        sqlx::query("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
            .bind(key)
            .bind(value)
            .execute(&mut *connection)
            .await
            .map_err(|e| self.fail("storing a note", e))?;
        Ok(())
    }

    /// The value stored under a name, if any.
    ///
    /// # Errors
    /// If it cannot be read as `T`.
    pub async fn meta<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let mut connection = self.lock().await;
        let value: Option<String> = sqlx::query_scalar("SELECT value FROM meta WHERE key = ?")
            .bind(key)
            .fetch_optional(&mut *connection)
            .await
            .map_err(|e| self.fail("reading a note", e))?;
        value.map(|json| from_json("meta", &json)).transpose()
    }

    /// Writes the log back into the file and closes it. Dropping the store is as safe; this leaves one file instead of three.
    ///
    /// # Errors
    /// If that fails.
    pub async fn close(self) -> Result<()> {
        let Self { path, connection, spool, .. } = self;
        connection
            .into_inner()
            .close()
            .await
            .map_err(|e| StoreError::from_sqlx(&path, "closing the ledger", e))?;
        spool.remove();
        Ok(())
    }

    async fn connect(path: &Path, options: SqliteConnectOptions) -> Result<Self> {
        let mut connection = options.connect().await.map_err(|source| {
            match StoreError::from_sqlx(path, "opening the ledger", source) {
                StoreError::Sqlite { path, source, .. } => StoreError::Open { path, source },
                sorted => sorted,
            }
        })?;
        let version: String = sqlx::query_scalar("SELECT sqlite_version()")
            .fetch_one(&mut connection)
            .await
            .map_err(|e| StoreError::from_sqlx(path, "opening the ledger", e))?;
        if !new_enough(&version) {
            return Err(StoreError::SqliteTooOld { found: version });
        }
        Ok(Self {
            path: path.to_path_buf(),
            connection: Mutex::new(connection),
            spool: spool::Spool::beside(path),
            session: 0,
        })
    }

    /// How many migrations the file has; 0 for an empty file.
    async fn layout(&self) -> Result<i64> {
        let mut connection = self.lock().await;
        let (layout, application, tables): (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id),
                    (SELECT count(*) FROM sqlite_schema)",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| self.fail("opening the ledger", e))?;
        let known = MIGRATIONS.len() as i64;
        match (application, tables) {
            (0, 0) => Ok(0),
            (APPLICATION_ID, _) if layout > known => {
                Err(StoreError::Newer { path: self.path.clone(), found: layout, known })
            }
            (APPLICATION_ID, _) => Ok(layout),
            _ => Err(StoreError::NotALedger { path: self.path.clone() }),
        }
    }

    async fn migrate(&self) -> Result<()> {
        const DOING: &str = "preparing the ledger's tables";
        let applied = usize::try_from(self.layout().await?).unwrap_or(0);
        let mut connection = self.lock().await;
        // A table that others refer to is replaced by a new one under its name, as <https://sqlite.org/lang_altertable.html>
        // section 7 has it: references are checked at the end instead. The switch has no effect inside a transaction.
        let switch = |on: bool| AssertSqlSafe(format!("PRAGMA foreign_keys = {on}"));
        sqlx::raw_sql(switch(false)).execute(&mut *connection).await.map_err(|e| self.fail(DOING, e))?;
        for (index, sql) in MIGRATIONS.iter().enumerate().skip(applied) {
            let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.fail(DOING, e))?;
            // Only numbers of ours are put into this text.
            let version =
                format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}", index + 1);
            sqlx::raw_sql(*sql).execute(&mut *tx).await.map_err(|e| self.fail(DOING, e))?;
            sqlx::raw_sql(AssertSqlSafe(version)).execute(&mut *tx).await.map_err(|e| self.fail(DOING, e))?;
            let broken = sqlx::query("PRAGMA foreign_key_check").fetch_optional(&mut *tx).await;
            if broken.map_err(|e| self.fail(DOING, e))?.is_some() {
                let what = "a row refers to another that is not there".to_string();
                return Err(StoreError::Damaged { path: self.path.clone(), what });
            }
            tx.commit().await.map_err(|e| self.fail(DOING, e))?;
        }
        sqlx::raw_sql(switch(true)).execute(&mut *connection).await.map_err(|e| self.fail(DOING, e))?;
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        let mut connection = self.lock().await;
        let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&mut *connection)
            .await
            .map_err(|e| self.fail("checking the ledger", e))?;
        if found == "ok" {
            return Ok(());
        }
        Err(StoreError::Damaged { path: self.path.clone(), what: found })
    }

    pub(crate) async fn lock(&self) -> MutexGuard<'_, SqliteConnection> {
        self.connection.lock().await
    }

    pub(crate) fn fail(&self, doing: &'static str, source: sqlx::Error) -> StoreError {
        StoreError::from_sqlx(&self.path, doing, source)
    }

    pub(crate) fn fail_row(&self, doing: &'static str, id: &str, source: sqlx::Error) -> StoreError {
        StoreError::from_sqlx_row(&self.path, doing, id, source)
    }
}

/// Runs `body` in one write transaction: `transaction!(self, "storing pairs", |tx| { … })`.
macro_rules! transaction {
    ($store:expr, $doing:expr, |$tx:ident| $body:block) => {{
        let mut connection = $store.lock().await;
        let mut $tx = sqlx::Connection::begin_with(&mut *connection, "BEGIN IMMEDIATE")
            .await
            .map_err(|e| $store.fail($doing, e))?;
        let value = $body;
        $tx.commit().await.map_err(|e| $store.fail($doing, e))?;
        value
    }};
}
pub(crate) use transaction;

fn wal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

fn new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next()) >= OLDEST_SQLITE
}

fn to_json(table: &'static str, value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::Unreadable { table, what: e.to_string() })
}

fn from_json<T: DeserializeOwned>(table: &'static str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|e| StoreError::Unreadable { table, what: format!("{e} in `{json}`") })
}

/// The name that serde gives a unit variant: `train`, `ab`, `no_verdict`.
fn word(table: &'static str, value: &impl Serialize) -> Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        other => Err(StoreError::Unreadable { table, what: format!("{other:?} is not a word") }),
    }
}

/// The unit variant of that name.
fn from_word<T: DeserializeOwned>(table: &'static str, word: String) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(word))
        .map_err(|e| StoreError::Unreadable { table, what: e.to_string() })
}

#[cfg(test)]
mod batches_tests;
#[cfg(test)]
mod calls_tests;
#[cfg(test)]
mod people_tests;
#[cfg(test)]
mod tests;
