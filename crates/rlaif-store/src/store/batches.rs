//! Batches: what was handed over together, what came back, and what is asked again.
//!
//! ```text
//! intended ─▶ creating ─▶ made ─harvest…─▶ ended: what has no reply is planned again, or given up
//!     └──────────┴─▶ forgotten: as if it had never been intended
//! ```
//!
//! A request in an open batch is in the state `sent`, so that nobody else draws it. Unlike a single call it survives the process:
//! [`Store::open`] leaves it where it is.

use super::{RequestFailure, Store, to_json, transaction};
use crate::{Result, StoreError};
use rlaif_core::clock::now_ms;
use rlaif_core::money::Usage;
use rlaif_core::{MicroUsd, failpoint};
use serde_json::{Value, json};
use sqlx::FromRow;
use sqlx::sqlite::SqliteConnection;
use std::time::{Duration, SystemTime};

/// A batch that is going to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewBatch<'a> {
    /// Our name for it.
    pub name: &'a str,
    /// The judge's name.
    pub judge: &'a str,
    /// Whose money it is: `label`, `evaluate`.
    pub stage: &'a str,
    /// Who pays the provider: a hash of endpoint and key; `None` for one that goes out as a file.
    pub account: Option<&'a str>,
}

/// A request that joins a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchClaim {
    /// The request, see [`super::Request::seq`].
    pub request: i64,
    /// Which attempt at it, from 1.
    pub attempt: u32,
    /// Its name in the batch, which no other item of this ledger has.
    pub custom_id: String,
    /// The most it can cost; `None` if the price is unknown.
    pub reserved: Option<MicroUsd>,
}

/// A batch that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Our name for it.
    pub name: String,
    /// The judge's name.
    pub judge: String,
    /// Whose money it is.
    pub stage: String,
    /// Who pays the provider; `None` for one that went out as a file.
    pub account: Option<String>,
    /// How many requests it has.
    pub requests: u64,
    /// Those that have no result yet.
    pub waiting: u64,
    /// When it was intended.
    pub intended: SystemTime,
    /// Whether the call that makes it was about to be sent.
    pub creating: bool,
    /// Its name at the provider, once that is known.
    pub id: Option<String>,
}

/// A result of one item of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchResult<'a> {
    /// Which one.
    pub custom_id: &'a str,
    /// What became of it.
    pub outcome: BatchOutcome<'a>,
}

/// See [`BatchResult`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BatchOutcome<'a> {
    /// A reply.
    Replied {
        /// The body, byte for byte.
        raw: &'a [u8],
        /// Tokens, where the provider counted them.
        usage: Option<Usage>,
        /// What it cost; where that is unknown, the budget goes on to count the worst case.
        cost: Option<MicroUsd>,
    },
    /// Not done and not billed, with the reason: worth another batch.
    NotDone(&'a str),
    /// Refused for good, with the reason.
    Refused(&'a str),
}

/// What results were.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Harvest {
    /// Replies that are new.
    pub replies: u64,
    /// Replies that were in the ledger already.
    pub known: u64,
    /// Requests that were not done.
    pub not_done: u64,
    /// Requests that were refused, and so are given up.
    pub refused: u64,
    /// Names of items that no batch of this ledger has.
    pub strangers: Vec<String>,
}

/// What becomes of requests without a reply when their batch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfBatch<'a> {
    /// The provider's word for its state.
    pub word: &'a str,
    /// Why it failed, where it did.
    pub problem: Option<&'a str>,
    /// Whether a request of which nothing was heard was possibly billed: its worst case then stays counted.
    pub possibly_billed: bool,
    /// How often a request may come back without a reply before it is given up; `None` if this time does not count.
    pub most_tries: Option<u32>,
    /// How often a request may be sent again after it was possibly billed.
    pub max_resends: u32,
}

const DOING: &str = "recording a batch";

impl Store {
    /// Notes that a batch is going to be made of these requests, and claims them; it is durable when this returns.
    ///
    /// # Errors
    /// If it cannot be written, or a request is not planned any more; then make none.
    pub async fn intend_batch(&self, batch: &NewBatch<'_>, claims: &[BatchClaim]) -> Result<()> {
        let now = now_ms();
        let row = |claim: &BatchClaim| json!([claim.request, claim.attempt, claim.reserved, claim.custom_id]);
        let rows = Value::Array(claims.iter().map(row).collect()).to_string();
        let reserved: MicroUsd = claims.iter().filter_map(|claim| claim.reserved).sum();
        // What goes out as a file is made by writing the file.
        let state = if batch.account.is_some() { "intended" } else { "made" };
        failpoint::hit("store/batch_intend");
        transaction!(self, DOING, |tx| {
            sqlx::query(
                "INSERT INTO batches (name, judge, stage, account, requests, waiting, intended_ms, state)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)",
            )
            .bind(batch.name)
            .bind(batch.judge)
            .bind(batch.stage)
            .bind(batch.account)
            .bind(i64::try_from(claims.len()).unwrap_or(i64::MAX))
            .bind(now)
            .bind(state)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail_row(DOING, batch.name, e))?;
            sqlx::query(
                "INSERT INTO attempts (request, attempt, stage, session, reserved, charged, sent_ms)
                 SELECT value ->> 0, value ->> 1, ?2, ?3, value ->> 2, value ->> 2, ?4 FROM json_each(?1)",
            )
            .bind(&rows)
            .bind(batch.stage)
            .bind(self.session)
            .bind(now)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail_row(DOING, batch.name, e))?;
            sqlx::query(
                "INSERT INTO batch_items (request, attempt, custom_id, batch)
                 SELECT value ->> 0, value ->> 1, value ->> 3, ?2 FROM json_each(?1)",
            )
            .bind(&rows)
            .bind(batch.name)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail_row(DOING, batch.name, e))?;
            let claimed = sqlx::query(
                "UPDATE requests SET state = 'sent', attempts = e.value ->> 1, not_before_ms = NULL,
                                     first_sent_ms = coalesce(first_sent_ms, ?2), failure_class = NULL, failure = NULL
                 FROM json_each(?1) e
                 WHERE requests.seq = e.value ->> 0 AND +state = 'planned' AND attempts + 1 = e.value ->> 1",
            )
            .bind(&rows)
            .bind(now)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?
            .rows_affected();
            if claimed != claims.len() as u64 {
                let what = "a request is not planned any more".to_owned();
                let (path, id) = (self.path.clone(), batch.name.to_owned());
                return Err(StoreError::Conflict { path, doing: DOING, what, id });
            }
            self.charge(&mut tx, batch.stage, batch.judge, reserved.0).await?;
            failpoint::hit("store/in_batch");
        });
        failpoint::hit("store/batch_written");
        Ok(())
    }

    /// Notes that the call that makes a batch is about to be sent.
    ///
    /// # Errors
    /// If it cannot be written; then do not send it.
    pub async fn creating_batch(&self, name: &str) -> Result<()> {
        failpoint::hit("store/batch_creating");
        self.set_batch(
            "UPDATE batches SET state = 'creating' WHERE name = ? AND state = 'intended'",
            name,
            None,
        )
        .await
    }

    /// Notes the provider's name of a batch that was made.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn created_batch(&self, name: &str, id: &str) -> Result<()> {
        failpoint::hit("store/batch_created");
        let sql = "UPDATE batches SET state = 'made', provider_id = ?2 WHERE name = ?1 AND ended_ms IS NULL";
        self.set_batch(sql, name, Some(id)).await
    }

    async fn set_batch(&self, sql: &'static str, name: &str, id: Option<&str>) -> Result<()> {
        {
            let mut connection = self.lock().await;
            let query = sqlx::query(sql).bind(name);
            let query = match id {
                Some(id) => query.bind(id),
                None => query,
            };
            query.execute(&mut *connection).await.map_err(|e| self.fail(DOING, e))?;
        }
        failpoint::hit("store/batch_written");
        Ok(())
    }

    /// Notes that a batch was not made: its requests are planned again, as if they had never been in it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn forget_batch(&self, name: &str) -> Result<()> {
        failpoint::hit("store/batch_forget");
        transaction!(self, DOING, |tx| {
            // A reply that has come all the same, by whatever way, keeps its attempt.
            let waiting: Vec<(i64, i64)> = sqlx::query_as(
                "SELECT i.request, i.attempt FROM batch_items i JOIN batches b ON b.name = i.batch
                        JOIN requests q ON q.seq = i.request
                 WHERE i.batch = ? AND b.ended_ms IS NULL AND q.state = 'sent' AND q.attempts = i.attempt",
            )
            .bind(name)
            .fetch_all(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
            let rows = to_json("batch_items", &waiting)?;
            self.uncharge(&mut tx, name, &rows).await?;
            for sql in [
                "DELETE FROM batch_items WHERE (request, attempt) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
                "DELETE FROM attempts WHERE (request, attempt) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
                "UPDATE requests SET state = 'planned', attempts = attempts - 1
                 FROM json_each(?) e WHERE requests.seq = e.value ->> 0",
            ] {
                sqlx::query(sql).bind(&rows).execute(&mut *tx).await.map_err(|e| self.fail(DOING, e))?;
            }
            sqlx::query(
                "UPDATE batches SET state = 'forgotten', ended_ms = ? WHERE name = ? AND ended_ms IS NULL",
            )
            .bind(now_ms())
            .bind(name)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
            failpoint::hit("store/in_batch");
        });
        failpoint::hit("store/batch_written");
        Ok(())
    }

    /// Stores results of items, of whatever batch, all of them or nothing. The same may come again and change nothing.
    ///
    /// # Errors
    /// If they cannot be written.
    pub async fn harvest_batch(&self, results: &[BatchResult<'_>]) -> Result<Harvest> {
        let now = now_ms();
        let mut harvest = Harvest::default();
        failpoint::hit("store/batch_harvest");
        transaction!(self, DOING, |tx| {
            for result in results {
                let item: Option<Item> = sqlx::query_as(
                    "SELECT i.request, i.attempt, i.batch, t.stage, q.judge, coalesce(t.charged, 0) AS charged, t.reserved,
                            t.ended_ms IS NULL AS waiting, EXISTS (SELECT 1 FROM replies y WHERE y.request = i.request AND y.attempt = i.attempt) AS replied
                     FROM batch_items i JOIN attempts t USING (request, attempt) JOIN requests q ON q.seq = i.request
                     WHERE i.custom_id = ?",
                )
                .bind(result.custom_id)
                .fetch_optional(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
                if let Some(item) = item.as_ref().filter(|item| item.waiting) {
                    sqlx::query("UPDATE batches SET waiting = waiting - 1 WHERE name = ?")
                        .bind(&item.batch)
                        .execute(&mut *tx)
                        .await
                        .map_err(|e| self.fail(DOING, e))?;
                }
                match (item, result.outcome) {
                    (None, _) => harvest.strangers.push(result.custom_id.to_owned()),
                    (Some(item), _) if item.replied => harvest.known += 1,
                    (Some(item), BatchOutcome::Replied { raw, usage, cost }) => {
                        harvest.replies += 1;
                        self.insert_reply(&mut tx, item.request, item.attempt, 200, raw, usage, cost).await?;
                        self.replied(&mut tx, &item, cost, now).await?;
                    }
                    (Some(item), BatchOutcome::NotDone(why)) => {
                        harvest.not_done += 1;
                        self.unanswered(&mut tx, &item, "not_done", why, now).await?;
                    }
                    (Some(item), BatchOutcome::Refused(why)) => {
                        harvest.refused += 1;
                        self.unanswered(&mut tx, &item, "bad_request", why, now).await?;
                        sqlx::query(
                            "UPDATE requests SET state = 'failed', failure_class = 'bad_request', failure = ?
                             WHERE seq = ? AND attempts = ? AND state IN ('planned', 'sent')",
                        )
                        .bind(why)
                        .bind(item.request)
                        .bind(item.attempt)
                        .execute(&mut *tx)
                        .await
                        .map_err(|e| self.fail(DOING, e))?;
                    }
                }
            }
            failpoint::hit("store/in_batch");
        });
        failpoint::hit("store/batch_written");
        Ok(harvest)
    }

    async fn replied(
        &self,
        tx: &mut SqliteConnection,
        item: &Item,
        cost: Option<MicroUsd>,
        now: i64,
    ) -> Result<()> {
        let charged = cost.map(|cost| cost.0).or(item.reserved);
        self.charge(tx, &item.stage, &item.judge, charged.unwrap_or(0) - item.charged).await?;
        sqlx::query(
            "UPDATE attempts SET class = NULL, kind = NULL, message = NULL, http_status = 200, charged = ?, ended_ms = ?
             WHERE request = ? AND attempt = ?",
        )
        .bind(charged)
        .bind(now)
        .bind(item.request)
        .bind(item.attempt)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.fail(DOING, e))?;
        sqlx::query(
            "UPDATE requests SET state = 'received', failure_class = NULL, failure = NULL, not_before_ms = NULL
             WHERE seq = ? AND state <> 'judged'",
        )
        .bind(item.request)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.fail(DOING, e))?;
        Ok(())
    }

    /// The request stays where it is until its batch has ended.
    async fn unanswered(
        &self,
        tx: &mut SqliteConnection,
        item: &Item,
        kind: &str,
        why: &str,
        now: i64,
    ) -> Result<()> {
        self.charge(tx, &item.stage, &item.judge, -item.charged).await?;
        sqlx::query(
            "UPDATE attempts SET class = 'rejected', kind = ?, message = ?, charged = iif(reserved IS NULL, NULL, 0), ended_ms = ?
             WHERE request = ? AND attempt = ?",
        )
        .bind(kind)
        .bind(why)
        .bind(now)
        .bind(item.request)
        .bind(item.attempt)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.fail(DOING, e))?;
        Ok(())
    }

    /// Notes that a batch has ended and that all its results are harvested. Its requests without a reply are planned again, or given up.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn end_batch(&self, name: &str, end: &EndOfBatch<'_>) -> Result<()> {
        let now = now_ms();
        failpoint::hit("store/batch_end");
        transaction!(self, DOING, |tx| {
            // What nobody said a word about: (request, attempt).
            let silent: Vec<(i64, i64)> = sqlx::query_as(
                "SELECT i.request, i.attempt FROM batch_items i JOIN batches b ON b.name = i.batch
                        JOIN attempts t USING (request, attempt) JOIN requests q ON q.seq = i.request
                 WHERE i.batch = ? AND b.ended_ms IS NULL AND t.ended_ms IS NULL AND q.state = 'sent' AND q.attempts = i.attempt",
            )
            .bind(name)
            .fetch_all(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
            let silent = to_json("batch_items", &silent)?;
            let class = if end.possibly_billed { "maybe_billed" } else { "rejected" };
            if !end.possibly_billed {
                self.uncharge(&mut tx, name, &silent).await?;
            }
            let message = match end.problem {
                Some(problem) => format!("its batch ended as `{}`: {problem}", end.word),
                None => format!("its batch ended as `{}` without a result for it", end.word),
            };
            sqlx::query(
                "UPDATE attempts SET class = ?2, kind = 'no_result', message = ?3, ended_ms = ?4,
                                     charged = iif(?2 = 'maybe_billed' OR reserved IS NULL, charged, 0)
                 FROM json_each(?1) e WHERE attempts.request = e.value ->> 0 AND attempts.attempt = e.value ->> 1",
            )
            .bind(&silent)
            .bind(class)
            .bind(message)
            .bind(now)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
            sqlx::query(
                "WITH back AS (
                     SELECT i.request, t.kind, t.message, t.class = 'maybe_billed' AS lost
                     FROM batch_items i JOIN batches b ON b.name = i.batch JOIN attempts t USING (request, attempt)
                          JOIN requests q ON q.seq = i.request
                     WHERE i.batch = ?1 AND b.ended_ms IS NULL AND q.state = 'sent' AND q.attempts = i.attempt)
                 UPDATE requests SET
                     (state, failure_class, failure) = (
                         SELECT iif(stays, 'failed', 'planned'), iif(stays, back.kind, NULL), iif(stays, back.message, NULL)
                         FROM (SELECT retries + 1 >= ?2 OR (back.lost AND resends >= ?3) AS stays)),
                     retries = retries + (?2 IS NOT NULL), lost_sends = lost_sends + back.lost, resends = resends + back.lost
                 FROM back WHERE requests.seq = back.request",
            )
            .bind(name)
            .bind(end.most_tries)
            .bind(end.max_resends)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
            sqlx::query(
                "UPDATE batches SET state = 'ended', word = ?, problem = ?, ended_ms = ? WHERE name = ? AND ended_ms IS NULL",
            )
            .bind(end.word)
            .bind(end.problem)
            .bind(now)
            .bind(name)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
            failpoint::hit("store/in_batch");
        });
        failpoint::hit("store/batch_written");
        Ok(())
    }

    /// Takes what is charged for attempts of a batch off its stage's bill; the attempts themselves are the caller's.
    async fn uncharge(&self, tx: &mut SqliteConnection, name: &str, rows: &str) -> Result<()> {
        let charged: Option<(String, String, i64)> = sqlx::query_as(
            "SELECT b.stage, b.judge, coalesce(sum(t.charged), 0) FROM json_each(?1) e
                    JOIN attempts t ON t.request = e.value ->> 0 AND t.attempt = e.value ->> 1 JOIN batches b ON b.name = ?2
             GROUP BY 1, 2",
        )
        .bind(rows)
        .bind(name)
        .fetch_optional(&mut *tx)
        .await
        .map_err(|e| self.fail(DOING, e))?;
        match charged {
            Some((stage, judge, charged)) => self.charge(tx, &stage, &judge, -charged).await,
            None => Ok(()),
        }
    }

    /// The open batches of a judge, or of all, oldest first.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn open_batches(&self, judge: Option<&str>) -> Result<Vec<Batch>> {
        let mut connection = self.lock().await;
        let rows: Vec<BatchRow> = sqlx::query_as(
            "SELECT name, judge, stage, account, requests, waiting, intended_ms, state, provider_id FROM batches
             WHERE ended_ms IS NULL AND (?1 IS NULL OR judge = ?1) ORDER BY intended_ms, name",
        )
        .bind(judge)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading batches", e))?;
        Ok(rows.into_iter().map(Batch::from).collect())
    }

    /// The provider's names of all batches that are known, ended ones among them.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn batch_ids(&self) -> Result<Vec<String>> {
        let mut connection = self.lock().await;
        sqlx::query_scalar("SELECT provider_id FROM batches WHERE provider_id IS NOT NULL ORDER BY 1")
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| self.fail("reading batches", e))
    }

    /// The batch and the judge of items, by their names: (custom id, batch, judge). Names that no batch has are left out.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn batch_items(&self, custom_ids: &[&str]) -> Result<Vec<(String, String, String)>> {
        let mut connection = self.lock().await;
        sqlx::query_as(
            "SELECT i.custom_id, i.batch, b.judge FROM json_each(?) e JOIN batch_items i ON i.custom_id = e.value
                    JOIN batches b ON b.name = i.batch",
        )
        .bind(to_json("batch_items", &custom_ids)?)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading batches", e))
    }

    /// How many requests that pairs of these sets need are in files that were handed out and not come back.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn in_files(&self, judge: &str, sets: &[&str]) -> Result<u64> {
        let mut connection = self.lock().await;
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM batches b JOIN batch_items i ON i.batch = b.name JOIN requests q ON q.seq = i.request
             WHERE b.ended_ms IS NULL AND b.judge = ?1 AND b.account IS NULL AND q.state = 'sent' AND q.attempts = i.attempt
               AND EXISTS (SELECT 1 FROM presentations s JOIN pairs r ON r.id = s.pair_id
                           WHERE s.request_key = q.request_key AND r.pair_set IN (SELECT value FROM json_each(?2)))",
        )
        .bind(judge)
        .bind(to_json("pairs", &sets)?)
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| self.fail("reading batches", e))?;
        Ok(count.unsigned_abs())
    }

    /// Readies a judge's planned requests for batches: what was parked need not wait, and what was possibly billed more often than it
    /// may be sent again is given up, as single calls do.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn ready_for_batches(&self, judge: &str, max_resends: u32) -> Result<()> {
        let RequestFailure { class, message, .. } = RequestFailure::RESENT_OFTEN;
        transaction!(self, DOING, |tx| {
            sqlx::query(
                "UPDATE requests SET not_before_ms = NULL WHERE judge = ? AND state = 'planned' AND not_before_ms IS NOT NULL",
            )
            .bind(judge)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
            sqlx::query(
                "UPDATE requests SET state = 'failed', failure_class = ?, failure = ?
                 WHERE judge = ? AND state = 'planned' AND lost_sends > 0 AND resends > ?",
            )
            .bind(class)
            .bind(message)
            .bind(judge)
            .bind(max_resends)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
        });
        Ok(())
    }
}

/// An item with its attempt.
#[derive(FromRow)]
struct Item {
    request: i64,
    attempt: u32,
    batch: String,
    stage: String,
    judge: String,
    charged: i64,
    reserved: Option<i64>,
    waiting: bool,
    replied: bool,
}

#[derive(FromRow)]
struct BatchRow {
    name: String,
    judge: String,
    stage: String,
    account: Option<String>,
    requests: i64,
    waiting: i64,
    intended_ms: i64,
    state: String,
    provider_id: Option<String>,
}

impl From<BatchRow> for Batch {
    fn from(row: BatchRow) -> Self {
        Self {
            name: row.name,
            judge: row.judge,
            stage: row.stage,
            account: row.account,
            requests: row.requests.unsigned_abs(),
            waiting: row.waiting.unsigned_abs(),
            intended: SystemTime::UNIX_EPOCH + Duration::from_millis(row.intended_ms.unsigned_abs()),
            creating: row.state != "intended",
            id: row.provider_id,
        }
    }
}
