//! What is asked of paid judges: planning it, and drawing it page by page.
//!
//! ```text
//! planned ──claimed──▶ sent ──replied──▶ received ──read──▶ judged
//!    ▲  ▲               │ ├──given up──▶ failed ──retry_failed──▶ planned
//!    │  └──to be retried┘ └──the process dies──▶ planned again, and counted as possibly billed
//!    └──ask_again──── a reply that is no use gets a request of its own, once, that takes its place
//! ```
//!
//! Several presentations may share a request: two pairs of the same two texts, or a stage that was cleared and planned
//! anew, ask the same question and pay once. What happens between planned and received is in `calls.rs`.

use super::{Store, to_json, transaction, word};
use crate::Result;
use rlaif_core::failpoint;
use rlaif_core::records::Order;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, FromRow};

/// A pair in one order, through one template, to one judge, for one vote.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Presentation {
    /// The pair.
    pub pair_id: String,
    /// The judge's name.
    pub judge: String,
    /// The template's name.
    pub template: String,
    /// Which response is shown first.
    pub order: Order,
    /// Which of several votes of the same judge and template, from 0.
    pub vote: u32,
}

/// A step of a presentation and the request it makes.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedRequest {
    /// What is presented.
    pub presentation: Presentation,
    /// Which step of the template, from 0: a later one builds on the reply to an earlier one.
    pub step: u32,
    /// Whether the reply holds the verdict.
    pub last_step: bool,
    /// Hash of all that decides the reply: endpoint, model, canonical body, vote. The same key is never bought twice.
    pub request_key: String,
    /// As it will be sent.
    pub body: String,
    /// Bound on the prompt's tokens, for the budget.
    pub prompt_tokens_at_most: u64,
    /// Most tokens of the reply.
    pub max_tokens: u64,
}

/// A request as it is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRequest<'a> {
    /// The judge's name.
    pub judge: &'a str,
    /// Hash of all that decides the reply.
    pub request_key: &'a str,
    /// As it will be sent.
    pub body: &'a str,
    /// Bound on the prompt's tokens, for the budget.
    pub prompt_tokens_at_most: u64,
    /// Most tokens of the reply.
    pub max_tokens: u64,
}

/// What planning found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanSummary {
    /// Requests that were not in the ledger.
    pub new: u64,
    /// Presentations whose reply is in the ledger already: they cost nothing.
    pub answered: u64,
}

/// A request to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its key.
    pub request_key: String,
    /// The judge's name.
    pub judge: String,
    /// As it will be sent.
    pub body: String,
    /// Bound on the prompt's tokens, for the budget.
    pub prompt_tokens_at_most: u64,
    /// Most tokens of the reply.
    pub max_tokens: u64,
    /// How often it was sent before.
    pub attempts: u32,
    /// Sends beyond the first since it was last planned.
    pub retries: u32,
    /// Sends that were possibly billed since it was last planned.
    pub resends: u32,
    /// When it was first sent since it was last planned, in milliseconds since 1970.
    pub first_sent_ms: Option<i64>,
    /// Its place in the order of planning: where [`Store::planned`] goes on.
    pub seq: i64,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// To be sent.
    Planned,
    /// In flight.
    Sent,
    /// Its raw reply is stored.
    Received,
    /// Its reply was read.
    Judged,
    /// Given up, with a reason.
    Failed,
}

/// Why a request was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFailure<'a> {
    /// One word to count by, such as `rejected` or `timeout`.
    pub class: &'a str,
    /// In words, without keys.
    pub message: &'a str,
    /// Whether the provider may have done and billed the work all the same.
    pub maybe_billed: bool,
}

impl RequestFailure<'static> {
    /// That of a request which was possibly billed as often as it may be sent again.
    pub const RESENT_OFTEN: Self = Self {
        class: "maybe_billed",
        message: "it was sent as often as `max_resends` allows and may have been billed each time",
        maybe_billed: true,
    };
}

/// A reply that is no use, and the request that it answers.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct UselessReply {
    /// The place of its request in the order of planning.
    pub seq: i64,
    /// The key of its request.
    pub request_key: String,
    /// What was sent.
    pub body: String,
    /// Most tokens that it could have.
    pub max_tokens: u32,
    /// What was wrong, in a word: what [`super::ReadReply::fault`] said.
    pub fault: String,
}

/// A request that takes the place of one whose reply was no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskAgain {
    /// The place in the order of planning of the request whose reply was no use.
    pub seq: i64,
    /// The key of the new one.
    pub request_key: String,
    /// As it will be sent.
    pub body: String,
    /// Most tokens of the reply.
    pub max_tokens: u32,
}

pub(super) const PAGE: &str =
    "SELECT q.seq, q.request_key, q.judge, b.body, q.prompt_tokens_max, q.max_tokens, q.attempts, q.retries,
                           q.resends, q.first_sent_ms, q.not_before_ms";

/// A request that was given up is as one that was never sent.
pub(super) const PLANNED_AGAIN: &str =
    "state = 'planned', retries = 0, resends = 0, first_sent_ms = NULL, not_before_ms = NULL";

const NEEDED: &str = "EXISTS (SELECT 1 FROM presentations s JOIN pairs r ON r.id = s.pair_id
                              WHERE s.request_key = q.request_key AND s.judge = q.judge AND r.pair_set IN (SELECT value FROM json_each(?)))";

impl Store {
    /// Writes a request that is not in the ledger, and says whether it was new.
    pub(super) async fn put_request_in(
        &self,
        tx: &mut SqliteConnection,
        doing: &'static str,
        request: NewRequest<'_>,
    ) -> Result<bool> {
        let new: Option<i64> = sqlx::query_scalar(
            "INSERT INTO requests (request_key, judge, prompt_tokens_max, max_tokens, state)
             VALUES (?, ?, ?, ?, 'planned') ON CONFLICT (request_key) DO NOTHING RETURNING seq",
        )
        .bind(request.request_key)
        .bind(request.judge)
        .bind(i64::try_from(request.prompt_tokens_at_most).unwrap_or(i64::MAX))
        .bind(i64::try_from(request.max_tokens).unwrap_or(i64::MAX))
        .fetch_optional(&mut *tx)
        .await
        .map_err(|e| self.fail_row(doing, request.request_key, e))?;
        let Some(seq) = new else { return Ok(false) };
        sqlx::query("INSERT INTO request_bodies VALUES (?, ?)")
            .bind(seq)
            .bind(request.body)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail_row(doing, request.request_key, e))?;
        Ok(true)
    }

    /// Plans presentations and their requests. A request whose key is in the ledger keeps its state and reply.
    ///
    /// # Errors
    /// If a pair is not in the ledger.
    pub async fn plan_requests(&self, planned: &[PlannedRequest]) -> Result<PlanSummary> {
        const DOING: &str = "planning requests";
        let mut summary = PlanSummary::default();
        transaction!(self, DOING, |tx| {
            for plan in planned {
                let shown = &plan.presentation;
                let request = NewRequest {
                    judge: &shown.judge,
                    request_key: &plan.request_key,
                    body: &plan.body,
                    prompt_tokens_at_most: plan.prompt_tokens_at_most,
                    max_tokens: plan.max_tokens,
                };
                let is_new = self.put_request_in(&mut tx, DOING, request).await?;
                summary.new += u64::from(is_new);
                // The newest plan wins: after a change of template the presentation asks another question. A request that was
                // asked again has its answer under the key of the second one.
                sqlx::query(
                    "INSERT INTO presentations (pair_id, judge, template, shown, vote, step, final, request_key)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, coalesce((SELECT c.request_key FROM requests q JOIN requests c
                             ON c.asks_again = q.seq WHERE q.request_key = ?8), ?8))
                     ON CONFLICT (pair_id, judge, template, shown, vote, step)
                     DO UPDATE SET final = excluded.final, request_key = excluded.request_key",
                )
                .bind(&shown.pair_id)
                .bind(&shown.judge)
                .bind(&shown.template)
                .bind(word("presentations", &shown.order)?)
                .bind(shown.vote)
                .bind(plan.step)
                .bind(plan.last_step)
                .bind(&plan.request_key)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail_row(DOING, &shown.pair_id, e))?;
                if !is_new {
                    let answered: bool = sqlx::query_scalar(
                        "SELECT EXISTS (SELECT 1 FROM replies y JOIN requests q ON q.seq = y.request WHERE q.request_key = ?)",
                    )
                    .bind(&plan.request_key)
                    .fetch_one(&mut *tx)
                    .await
                    .map_err(|e| self.fail(DOING, e))?;
                    summary.answered += u64::from(answered);
                }
            }
        });
        Ok(summary)
    }

    /// Whether all that a judge is asked about the pairs of a set was planned, from what has this fingerprint. The note is gone as
    /// soon as a pair of the set is.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn is_planned(&self, judge: &str, set: &str, fingerprint: &str) -> Result<bool> {
        let mut connection = self.lock().await;
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM plans WHERE judge = ? AND pair_set = ? AND fingerprint = ?)",
        )
        .bind(judge)
        .bind(set)
        .bind(fingerprint)
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| self.fail("reading what is planned", e))
    }

    /// Notes that all that a judge is asked about the pairs of a set is planned.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn put_planned(&self, judge: &str, set: &str, fingerprint: &str) -> Result<()> {
        let requests = self.count_needed(judge, set).await?;
        let mut connection = self.lock().await;
        sqlx::query(
            "INSERT INTO plans VALUES (?, ?, ?, ?) ON CONFLICT (judge, pair_set)
             DO UPDATE SET fingerprint = excluded.fingerprint, requests = excluded.requests",
        )
        .bind(judge)
        .bind(set)
        .bind(fingerprint)
        .bind(requests)
        .execute(&mut *connection)
        .await
        .map_err(|e| self.fail("noting what is planned", e))?;
        Ok(())
    }

    /// A page of the requests of a judge that a pair of the set needs and that have no reply, in the order of planning, after the
    /// place `after` (0 for the first page). Failed ones are not among them (see [`Store::retry_failed`]), nor those that are parked
    /// (see [`Store::due`]).
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn planned(&self, judge: &str, set: &str, after: i64, limit: usize) -> Result<Vec<Request>> {
        self.planned_in(judge, &[set], after, limit).await
    }

    /// As [`Store::planned`], for several sets at once.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn planned_in(
        &self,
        judge: &str,
        sets: &[&str],
        after: i64,
        limit: usize,
    ) -> Result<Vec<Request>> {
        let sets = to_json("pairs", &sets)?;
        let mut connection = self.lock().await;
        let sql = format!(
            "{PAGE} FROM requests q INDEXED BY requests_to_send JOIN request_bodies b USING (seq)
             WHERE q.judge = ? AND q.state = 'planned' AND q.not_before_ms IS NULL AND q.seq > ? AND {NEEDED}
               AND NOT EXISTS (SELECT 1 FROM replies y WHERE y.request = q.seq)
             ORDER BY q.seq LIMIT ?"
        );
        let rows: Vec<RequestRow> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(judge)
            .bind(after)
            .bind(sets)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| self.fail("reading planned requests", e))?;
        Ok(rows.into_iter().map(Request::from).collect())
    }

    /// A page of a judge's parked requests whose time has come, in the order of their times, after the place `after` (time, then place
    /// in the order of planning). Each comes with its time.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn due(
        &self,
        judge: &str,
        sets: &[&str],
        after: (i64, i64),
        now_ms: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Request)>> {
        let sets = to_json("pairs", &sets)?;
        let mut connection = self.lock().await;
        let sql = format!(
            "{PAGE} FROM requests q INDEXED BY requests_parked JOIN request_bodies b USING (seq)
             WHERE q.judge = ? AND q.state = 'planned' AND q.not_before_ms IS NOT NULL
               AND (q.not_before_ms, q.seq) > (?, ?) AND q.not_before_ms <= ? AND {NEEDED}
             ORDER BY q.not_before_ms, q.seq LIMIT ?"
        );
        let rows: Vec<RequestRow> = sqlx::query_as(AssertSqlSafe(sql))
            .bind(judge)
            .bind(after.0)
            .bind(after.1)
            .bind(now_ms)
            .bind(sets)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| self.fail("reading parked requests", e))?;
        Ok(rows.into_iter().map(|row| (row.not_before_ms.unwrap_or_default(), row.into())).collect())
    }

    /// When the first of a judge's parked requests after the place `after` may be sent, in milliseconds since 1970.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn next_due(&self, judge: &str, sets: &[&str], after: (i64, i64)) -> Result<Option<i64>> {
        let sets = to_json("pairs", &sets)?;
        let mut connection = self.lock().await;
        let sql = format!(
            "SELECT q.not_before_ms FROM requests q WHERE q.judge = ? AND q.state = 'planned' AND q.not_before_ms IS NOT NULL
               AND (q.not_before_ms, q.seq) > (?, ?) AND {NEEDED} ORDER BY q.not_before_ms, q.seq LIMIT 1"
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(judge)
            .bind(after.0)
            .bind(after.1)
            .bind(sets)
            .fetch_optional(&mut *connection)
            .await
            .map_err(|e| self.fail("reading parked requests", e))
    }

    /// How many requests of a judge a pair of the set needs, and how many of the judge's requests still have to be sent. Exact, and
    /// fast at a million, once the plan is whole ([`Store::put_planned`]) and while the judge works on one set at a time.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn open_requests(&self, judge: &str, set: &str) -> Result<(u64, u64)> {
        let mut all: Option<i64> = {
            let mut connection = self.lock().await;
            sqlx::query_scalar("SELECT requests FROM plans WHERE judge = ? AND pair_set = ?")
                .bind(judge)
                .bind(set)
                .fetch_optional(&mut *connection)
                .await
                .map_err(|e| self.fail("counting requests", e))?
        };
        if all.is_none() {
            all = Some(self.count_needed(judge, set).await?);
        }
        let mut connection = self.lock().await;
        // Two counts over two small indexes; one count over both would read every row.
        let open: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM requests INDEXED BY requests_to_send
                     WHERE judge = ?1 AND state = 'planned' AND not_before_ms IS NULL)
                  + (SELECT count(*) FROM requests INDEXED BY requests_parked
                     WHERE judge = ?1 AND state = 'planned' AND not_before_ms IS NOT NULL)",
        )
        .bind(judge)
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| self.fail("counting requests", e))?;
        let all = all.unwrap_or_default().unsigned_abs();
        Ok((all, open.unsigned_abs().min(all)))
    }

    async fn count_needed(&self, judge: &str, set: &str) -> Result<i64> {
        let sets = to_json("pairs", &[set])?;
        let mut connection = self.lock().await;
        let sql = format!("SELECT count(*) FROM requests q WHERE q.judge = ? AND {NEEDED}");
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(judge)
            .bind(sets)
            .fetch_one(&mut *connection)
            .await
            .map_err(|e| self.fail("counting requests", e))
    }

    /// Plans a judge's failed requests again and returns how many. Those that were possibly billed stay failed unless `resend` says
    /// that they may be paid for twice.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn retry_failed(&self, judge: &str, resend: bool) -> Result<u64> {
        let mut connection = self.lock().await;
        let done = sqlx::query(AssertSqlSafe(format!(
            "UPDATE requests SET {PLANNED_AGAIN} WHERE state = 'failed' AND judge = ? AND (? OR lost_sends = 0)
               AND EXISTS (SELECT 1 FROM presentations s WHERE s.request_key = requests.request_key)"
        )))
        .bind(judge)
        .bind(resend)
        .execute(&mut *connection)
        .await
        .map_err(|e| self.fail("planning failed requests again", e))?;
        Ok(done.rows_affected())
    }

    /// A page of a judge's replies on the pairs of sets that are no use and were not asked for again yet, in the order of planning
    /// after the place `after`.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn useless_replies(
        &self,
        judge: &str,
        sets: &[&str],
        after: i64,
        limit: usize,
    ) -> Result<Vec<UselessReply>> {
        let sets = to_json("pairs", &sets)?;
        let mut connection = self.lock().await;
        let sql = format!(
            "SELECT q.seq, q.request_key, b.body, q.max_tokens, coalesce(t.kind, '') AS fault
             FROM attempts t INDEXED BY attempts_of_no_use JOIN requests q ON q.seq = t.request JOIN request_bodies b USING (seq)
             WHERE t.class = 'billed_bad' AND t.request > ? AND q.judge = ? AND q.asks_again IS NULL AND {NEEDED}
               AND NOT EXISTS (SELECT 1 FROM requests c WHERE c.asks_again = q.seq)
             GROUP BY q.seq ORDER BY t.request LIMIT ?"
        );
        sqlx::query_as(AssertSqlSafe(sql))
            .bind(after)
            .bind(judge)
            .bind(sets)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| self.fail("reading useless replies", e))
    }

    /// Plans requests in the place of those whose replies were no use: what was presented is answered by the new one. A request is
    /// asked again once at most.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn ask_again(&self, requests: &[AskAgain]) -> Result<()> {
        const DOING: &str = "planning to ask again";
        transaction!(self, DOING, |tx| {
            for again in requests {
                let new: Option<i64> = sqlx::query_scalar(
                    "INSERT INTO requests (request_key, judge, asks_again, prompt_tokens_max, max_tokens, state)
                     SELECT ?, judge, seq, prompt_tokens_max, ?, 'planned' FROM requests q
                     WHERE seq = ? AND asks_again IS NULL AND NOT EXISTS (SELECT 1 FROM requests c WHERE c.asks_again = q.seq)
                     ON CONFLICT DO NOTHING RETURNING seq",
                )
                .bind(&again.request_key)
                .bind(again.max_tokens)
                .bind(again.seq)
                .fetch_optional(&mut *tx)
                .await
                .map_err(|e| self.fail_row(DOING, &again.request_key, e))?;
                let Some(new) = new else { continue };
                sqlx::query("INSERT INTO request_bodies VALUES (?, ?)")
                    .bind(new)
                    .bind(&again.body)
                    .execute(&mut *tx)
                    .await
                    .map_err(|e| self.fail(DOING, e))?;
                // The verdict that the useless reply gave makes room for that of the new one.
                sqlx::query(
                    "DELETE FROM verdicts WHERE (pair_id, judge, template, shown, vote) IN (
                         SELECT s.pair_id, s.judge, s.template, s.shown, s.vote FROM presentations s
                         JOIN requests q USING (request_key) WHERE q.seq = ?)",
                )
                .bind(again.seq)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
                sqlx::query(
                    "UPDATE presentations SET request_key = ?
                     WHERE request_key = (SELECT request_key FROM requests WHERE seq = ?)",
                )
                .bind(&again.request_key)
                .bind(again.seq)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
            }
            failpoint::hit("store/in_ask_again");
        });
        failpoint::hit("store/asked_again");
        Ok(())
    }
}

#[derive(FromRow)]
pub(super) struct RequestRow {
    seq: i64,
    request_key: String,
    judge: String,
    body: String,
    prompt_tokens_max: i64,
    max_tokens: i64,
    attempts: u32,
    retries: u32,
    resends: u32,
    first_sent_ms: Option<i64>,
    not_before_ms: Option<i64>,
}

impl From<RequestRow> for Request {
    fn from(row: RequestRow) -> Self {
        Self {
            request_key: row.request_key,
            judge: row.judge,
            body: row.body,
            prompt_tokens_at_most: row.prompt_tokens_max.unsigned_abs(),
            max_tokens: row.max_tokens.unsigned_abs(),
            attempts: row.attempts,
            retries: row.retries,
            resends: row.resends,
            first_sent_ms: row.first_sent_ms,
            seq: row.seq,
        }
    }
}
