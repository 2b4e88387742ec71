//! What is asked of paid judges and what came back: the part of the ledger that cost money.
//!
//! ```text
//! planned ──mark_sent──▶ sent ──put_reply──▶ received ──put_verdict──▶ judged
//!    ▲                    │ ├──fail_request──▶ failed ──retry_failed──▶ planned
//!    └──release_request───┘ └──process dies──▶ planned again, and counted as possibly billed
//! ```
//!
//! Several presentations may share a request: two pairs of the same two texts, or a stage that was cleared and planned
//! anew, ask the same question and pay once.

use super::{Store, from_word, to_json, transaction, word};
use crate::{Result, StoreError};
use rlaif_core::MicroUsd;
use rlaif_core::money::Usage;
use rlaif_core::records::{Order, Verdict};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use sqlx::sqlite::SqliteConnection;
use std::collections::BTreeMap;

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

/// A raw reply to one presentation, which the current parser has not read for it. A request that several presentations share
/// has a row for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its number in the ledger.
    pub reply_id: i64,
    /// The request it answers.
    pub request_key: String,
    /// What was presented.
    pub presentation: Presentation,
    /// Which step of it, from 0.
    pub step: u32,
    /// Whether the reply holds the verdict.
    pub last_step: bool,
    /// HTTP status.
    pub http_status: u16,
    /// The body, byte for byte.
    pub raw: Vec<u8>,
}

/// A request that was sent at least once without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRequest {
    /// Its key.
    pub request_key: String,
    /// The judge's name.
    pub judge: String,
    /// How many times it went unanswered.
    pub lost_sends: u64,
    /// Where it stands now.
    pub state: RequestState,
}

/// Requests of a judge in one state, and where they failed, of one failure class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestCount {
    /// The judge's name.
    pub judge: String,
    /// Where they stand.
    pub state: RequestState,
    /// Failure class of failed ones.
    pub failure_class: Option<String>,
    /// How many.
    pub count: u64,
}

/// What replies have cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spend {
    /// Replies received.
    pub calls: u64,
    /// Sum over the replies whose cost is known.
    pub known: MicroUsd,
    /// Replies whose cost is not known: the sum is then a lower bound.
    pub unknown_calls: u64,
    /// Sends without an answer, which the provider may have billed.
    pub possibly_billed: u64,
    /// Tokens, over the replies that state them.
    pub usage: Usage,
}

impl Store {
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
                let inserted = sqlx::query(
                    "INSERT INTO requests (request_key, seq, judge, body, prompt_tokens_max, max_tokens, state)
                     VALUES (?, (SELECT coalesce(max(seq), 0) + 1 FROM requests), ?, ?, ?, ?, 'planned')
                     ON CONFLICT (request_key) DO NOTHING",
                )
                .bind(&plan.request_key)
                .bind(&shown.judge)
                .bind(&plan.body)
                .bind(i64::try_from(plan.prompt_tokens_at_most).unwrap_or(i64::MAX))
                .bind(i64::try_from(plan.max_tokens).unwrap_or(i64::MAX))
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail_row(DOING, &plan.request_key, e))?;
                summary.new += inserted.rows_affected();
                // The newest plan wins: after a change of template the presentation asks another question.
                sqlx::query(
                    "INSERT INTO presentations (pair_id, judge, template, shown, vote, step, final, request_key)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (pair_id, judge, template, shown, vote, step)
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
                let answered: bool =
                    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM replies WHERE request_key = ?)")
                        .bind(&plan.request_key)
                        .fetch_one(&mut *tx)
                        .await
                        .map_err(|e| self.fail(DOING, e))?;
                summary.answered += u64::from(answered);
            }
        });
        Ok(summary)
    }

    /// A page of the requests of a judge that a pair of the set needs and that have no reply, in the order of planning, after the
    /// place `after` (0 for the first page). Failed ones are not among them; see [`Store::retry_failed`].
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn planned(&self, judge: &str, set: &str, after: i64, limit: usize) -> Result<Vec<Request>> {
        let mut connection = self.lock().await;
        let rows: Vec<RequestRow> = sqlx::query_as(
            "SELECT q.request_key, q.judge, q.body, q.prompt_tokens_max, q.max_tokens, q.attempts, q.seq FROM requests q
             WHERE q.judge = ? AND q.state = 'planned' AND q.seq > ?
               AND EXISTS (SELECT 1 FROM presentations s JOIN pairs r ON r.id = s.pair_id
                           WHERE s.request_key = q.request_key AND s.judge = q.judge AND r.pair_set = ?)
               AND NOT EXISTS (SELECT 1 FROM replies y WHERE y.request_key = q.request_key)
             ORDER BY q.seq LIMIT ?",
        )
        .bind(judge)
        .bind(after)
        .bind(set)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading planned requests", e))?;
        Ok(rows.into_iter().map(Request::from).collect())
    }

    /// How many requests of a judge a pair of the set needs, and how many of them still have to be sent.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn open_requests(&self, judge: &str, set: &str) -> Result<(u64, u64)> {
        let mut connection = self.lock().await;
        let (all, open): (i64, i64) = sqlx::query_as(
            "SELECT count(*), coalesce(sum(q.state = 'planned'), 0) FROM requests q
             WHERE EXISTS (SELECT 1 FROM presentations s JOIN pairs r ON r.id = s.pair_id
                           WHERE s.request_key = q.request_key AND s.judge = ? AND r.pair_set = ?)",
        )
        .bind(judge)
        .bind(set)
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| self.fail("counting requests", e))?;
        Ok((all.unsigned_abs(), open.unsigned_abs()))
    }

    /// Notes, before the first byte is sent, that a request is about to be.
    ///
    /// # Errors
    /// If it cannot be written; then do not send.
    pub async fn mark_sent(&self, request_key: &str) -> Result<()> {
        self.update_request(
            "noting a request as sent",
            sqlx::query(
                "UPDATE requests SET state = 'sent', attempts = attempts + 1, failure_class = NULL, failure = NULL,
                                     sent_at = strftime('%Y-%m-%dT%H:%M:%fZ')
                 WHERE request_key = ? AND state IN ('planned', 'sent', 'failed')",
            )
            .bind(request_key),
        )
        .await
    }

    /// Notes that a request certainly did no work: never sent, or turned away (429, 401). It is planned again.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn release_request(&self, request_key: &str) -> Result<()> {
        self.update_request(
            "releasing a request",
            sqlx::query("UPDATE requests SET state = 'planned' WHERE request_key = ? AND state = 'sent'")
                .bind(request_key),
        )
        .await
    }

    /// Commits the raw body of a reply, before anyone reads it, and returns its number. Only what answers the request
    /// belongs here; an error status is [`Store::fail_request`] or [`Store::release_request`].
    ///
    /// A late reply to a request that was given up or already answered is kept too: it was paid for.
    ///
    /// # Errors
    /// If it cannot be written, or the request is not in the ledger.
    pub async fn put_reply(&self, request_key: &str, http_status: u16, raw: &[u8]) -> Result<i64> {
        const DOING: &str = "storing a reply";
        Ok(transaction!(self, DOING, |tx| {
            let reply_id: i64 = sqlx::query_scalar(
                "INSERT INTO replies (request_key, attempt, http_status, raw)
                 VALUES (?1, coalesce((SELECT attempts FROM requests WHERE request_key = ?1), 0), ?2, ?3) RETURNING id",
            )
            .bind(request_key)
            .bind(http_status)
            .bind(raw)
            .fetch_one(&mut *tx)
            .await
            .map_err(|e| self.fail_row(DOING, request_key, e))?;
            sqlx::query(
                "UPDATE requests SET state = 'received', failure_class = NULL, failure = NULL
                 WHERE request_key = ? AND state <> 'judged'",
            )
            .bind(request_key)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
            reply_id
        }))
    }

    /// Gives a request up, with the reason. A request that has a reply is left as it is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn fail_request(&self, request_key: &str, failure: &RequestFailure<'_>) -> Result<()> {
        self.update_request(
            "storing a failed request",
            sqlx::query(
                "UPDATE requests SET state = 'failed', failure_class = ?, failure = ?, lost_sends = lost_sends + ?
                 WHERE request_key = ? AND state IN ('planned', 'sent')",
            )
            .bind(failure.class)
            .bind(failure.message)
            .bind(i64::from(failure.maybe_billed))
            .bind(request_key),
        )
        .await
    }

    /// Plans a judge's failed requests again and returns how many.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn retry_failed(&self, judge: &str) -> Result<u64> {
        let mut connection = self.lock().await;
        let done = sqlx::query("UPDATE requests SET state = 'planned' WHERE state = 'failed' AND judge = ?")
            .bind(judge)
            .execute(&mut *connection)
            .await
            .map_err(|e| self.fail("planning failed requests again", e))?;
        Ok(done.rows_affected())
    }

    /// Replies that this version of the parser has not read for a presentation that needs them, oldest first. After
    /// a better parser, or [`Store::clear_verdicts`], that is all of them. Read them, [`Store::put_verdict`] or
    /// [`Store::put_usage`], and ask again until none is left.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn unread_replies(&self, parser: &str, limit: usize) -> Result<Vec<Reply>> {
        let mut connection = self.lock().await;
        let rows: Vec<ReplyRow> = sqlx::query_as(
            "SELECT y.id, y.request_key, s.pair_id, s.judge, s.template, s.shown, s.vote, s.step, s.final, y.http_status, y.raw
             FROM replies y JOIN requests q USING (request_key) JOIN presentations s USING (request_key)
                  LEFT JOIN verdicts v ON (v.pair_id, v.judge, v.template, v.shown, v.vote)
                                        = (s.pair_id, s.judge, s.template, s.shown, s.vote)
             WHERE y.id = (SELECT min(id) FROM replies WHERE request_key = y.request_key)
               AND CASE WHEN s.final THEN v.parser IS NOT ? ELSE q.state = 'received' END
             ORDER BY y.id, s.pair_id, s.template, s.shown, s.vote LIMIT ?",
        )
        .bind(parser)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading replies", e))?;
        rows.into_iter().map(Reply::try_from).collect()
    }

    /// The replies to one step of a judge's template on the pairs of a set, read or not: what the next step builds on. In the
    /// order of planning, after the place `after`; the place of each comes with it.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn step_replies(
        &self,
        judge: &str,
        template: &str,
        set: &str,
        step: u32,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Reply)>> {
        let mut connection = self.lock().await;
        let rows: Vec<StepRow> = sqlx::query_as(
            "SELECT q.seq, y.id, y.request_key, s.pair_id, s.judge, s.template, s.shown, s.vote, s.step, s.final,
                    y.http_status, y.raw
             FROM presentations s JOIN pairs r ON r.id = s.pair_id JOIN requests q USING (request_key)
                  JOIN replies y USING (request_key)
             WHERE s.judge = ? AND s.template = ? AND s.step = ? AND r.pair_set = ? AND q.seq > ?
               AND y.id = (SELECT min(id) FROM replies WHERE request_key = y.request_key)
             ORDER BY q.seq LIMIT ?",
        )
        .bind(judge)
        .bind(template)
        .bind(step)
        .bind(set)
        .bind(after)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading replies", e))?;
        rows.into_iter().map(|row| Ok((row.seq, row.reply.try_into()?))).collect()
    }

    /// Stores what a reply says of a presentation, and what it cost.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn put_verdict(
        &self,
        reply: &Reply,
        parser: &str,
        verdict: &Verdict,
        usage: Option<Usage>,
        cost: Option<MicroUsd>,
    ) -> Result<()> {
        const DOING: &str = "storing a verdict";
        let (shown, verdict) = (&reply.presentation, to_json("verdicts", verdict)?);
        transaction!(self, DOING, |tx| {
            self.put_usage_in(&mut tx, reply.reply_id, usage, cost).await?;
            sqlx::query(
                "INSERT INTO verdicts (pair_id, judge, template, shown, vote, parser, verdict) VALUES (?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (pair_id, judge, template, shown, vote)
                 DO UPDATE SET parser = excluded.parser, verdict = excluded.verdict",
            )
            .bind(&shown.pair_id)
            .bind(&shown.judge)
            .bind(&shown.template)
            .bind(word("verdicts", &shown.order)?)
            .bind(shown.vote)
            .bind(parser)
            .bind(&verdict)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
        });
        Ok(())
    }

    /// Stores what a reply cost that holds no verdict: one on which a later step builds.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn put_usage(&self, reply_id: i64, usage: Option<Usage>, cost: Option<MicroUsd>) -> Result<()> {
        const DOING: &str = "storing the usage of a reply";
        transaction!(self, DOING, |tx| {
            self.put_usage_in(&mut tx, reply_id, usage, cost).await?;
        });
        Ok(())
    }

    /// Usage and cost of a reply, whose request is then read.
    async fn put_usage_in(
        &self,
        tx: &mut SqliteConnection,
        reply_id: i64,
        usage: Option<Usage>,
        cost: Option<MicroUsd>,
    ) -> Result<()> {
        const DOING: &str = "storing the usage of a reply";
        let count =
            |tokens: fn(&Usage) -> u64| usage.as_ref().map(|u| i64::try_from(tokens(u)).unwrap_or(i64::MAX));
        sqlx::query(
            "UPDATE replies SET prompt_tokens = ?, cached_tokens = ?, completion_tokens = ?, reasoning_tokens = ?,
                                cost_micro_usd = ? WHERE id = ?",
        )
        .bind(count(|u| u.prompt_tokens))
        .bind(count(|u| u.cached_tokens))
        .bind(count(|u| u.completion_tokens))
        .bind(count(|u| u.reasoning_tokens))
        .bind(cost.map(|cost| cost.0))
        .bind(reply_id)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.fail(DOING, e))?;
        sqlx::query(
            "UPDATE requests SET state = 'judged' WHERE request_key = (SELECT request_key FROM replies WHERE id = ?)",
        )
        .bind(reply_id)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.fail(DOING, e))?;
        Ok(())
    }

    /// Requests that went unanswered at least once, because the process died or the connection did.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn possibly_billed(&self) -> Result<Vec<LostRequest>> {
        let mut connection = self.lock().await;
        let rows: Vec<(String, String, i64, String)> = sqlx::query_as(
            "SELECT request_key, judge, lost_sends, state FROM requests WHERE lost_sends > 0 ORDER BY request_key",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading requests", e))?;
        rows.into_iter()
            .map(|(request_key, judge, lost, state)| {
                let state = from_word("requests", state)?;
                Ok(LostRequest { request_key, judge, lost_sends: lost.unsigned_abs(), state })
            })
            .collect()
    }

    /// How many requests of each judge stand where, among those that a pair of the set needs.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn request_counts(&self, set: &str) -> Result<Vec<RequestCount>> {
        let mut connection = self.lock().await;
        let rows: Vec<(String, String, Option<String>, i64)> = sqlx::query_as(
            "SELECT s.judge, q.state, q.failure_class, count(DISTINCT q.request_key)
             FROM requests q JOIN presentations s USING (request_key) JOIN pairs r ON r.id = s.pair_id
             WHERE r.pair_set = ? GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        )
        .bind(set)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("counting requests", e))?;
        rows.into_iter()
            .map(|(judge, state, failure_class, count)| {
                let state = from_word("requests", state)?;
                Ok(RequestCount { judge, state, failure_class, count: count.unsigned_abs() })
            })
            .collect()
    }

    /// What every judge's replies have cost, also those of stages that were cleared since.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn spend_by_judge(&self) -> Result<BTreeMap<String, Spend>> {
        let mut connection = self.lock().await;
        let rows: Vec<SpendRow> = sqlx::query_as(
            "SELECT q.judge, count(y.id) AS calls, coalesce(sum(y.cost_micro_usd), 0) AS known,
                    count(y.id) - count(y.cost_micro_usd) AS unknown_calls,
                    coalesce(sum(y.prompt_tokens), 0) AS prompt_tokens,
                    coalesce(sum(y.cached_tokens), 0) AS cached_tokens,
                    coalesce(sum(y.completion_tokens), 0) AS completion_tokens,
                    coalesce(sum(y.reasoning_tokens), 0) AS reasoning_tokens
             FROM requests q LEFT JOIN replies y USING (request_key) GROUP BY q.judge",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("adding up costs", e))?;
        let lost: Vec<(String, i64)> =
            sqlx::query_as("SELECT judge, sum(lost_sends) FROM requests GROUP BY judge")
                .fetch_all(&mut *connection)
                .await
                .map_err(|e| self.fail("adding up costs", e))?;
        let mut spend: BTreeMap<String, Spend> = rows.into_iter().map(SpendRow::by_judge).collect();
        for (judge, lost) in lost {
            spend.entry(judge).or_default().possibly_billed = lost.unsigned_abs();
        }
        Ok(spend)
    }

    /// What all judges' replies have cost.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn spend(&self) -> Result<Spend> {
        let by_judge = self.spend_by_judge().await?;
        Ok(by_judge.into_values().fold(Spend::default(), |sum, one| Spend {
            calls: sum.calls + one.calls,
            known: [sum.known, one.known].iter().sum(),
            unknown_calls: sum.unknown_calls + one.unknown_calls,
            possibly_billed: sum.possibly_billed + one.possibly_billed,
            usage: sum.usage.plus(one.usage),
        }))
    }

    /// What was in flight when the last process ended may have been billed: count it, and plan it again.
    pub(super) async fn count_lost_requests(&self) -> Result<()> {
        let mut connection = self.lock().await;
        let lost = sqlx::query(
            "UPDATE requests SET lost_sends = lost_sends + 1, state = 'planned' WHERE state = 'sent'",
        )
        .execute(&mut *connection)
        .await
        .map_err(|e| self.fail("looking for requests that were in flight", e))?;
        if lost.rows_affected() > 0 {
            tracing::warn!(
                requests = lost.rows_affected(),
                "requests were in flight when the last process ended"
            );
        }
        Ok(())
    }

    async fn update_request(
        &self,
        doing: &'static str,
        query: sqlx::query::Query<'_, sqlx::Sqlite, <sqlx::Sqlite as sqlx::Database>::Arguments>,
    ) -> Result<()> {
        let mut connection = self.lock().await;
        query.execute(&mut *connection).await.map_err(|e| self.fail(doing, e))?;
        Ok(())
    }
}

#[derive(FromRow)]
struct RequestRow {
    request_key: String,
    judge: String,
    body: String,
    prompt_tokens_max: i64,
    max_tokens: i64,
    attempts: u32,
    seq: i64,
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
            seq: row.seq,
        }
    }
}

/// A reply beside the presentation that it answers, as queries select them.
#[derive(FromRow)]
pub(super) struct ReplyRow {
    id: i64,
    request_key: String,
    pair_id: String,
    judge: String,
    template: String,
    shown: String,
    vote: u32,
    step: u32,
    #[sqlx(rename = "final")]
    last_step: bool,
    http_status: u16,
    raw: Vec<u8>,
}

#[derive(FromRow)]
struct StepRow {
    seq: i64,
    #[sqlx(flatten)]
    reply: ReplyRow,
}

impl TryFrom<ReplyRow> for Reply {
    type Error = StoreError;

    fn try_from(row: ReplyRow) -> Result<Self> {
        let order = from_word("presentations", row.shown)?;
        let ReplyRow { pair_id, judge, template, vote, .. } = row;
        Ok(Self {
            reply_id: row.id,
            request_key: row.request_key,
            presentation: Presentation { pair_id, judge, template, order, vote },
            step: row.step,
            last_step: row.last_step,
            http_status: row.http_status,
            raw: row.raw,
        })
    }
}

#[derive(FromRow)]
struct SpendRow {
    judge: String,
    calls: i64,
    known: i64,
    unknown_calls: i64,
    prompt_tokens: i64,
    cached_tokens: i64,
    completion_tokens: i64,
    reasoning_tokens: i64,
}

impl SpendRow {
    fn by_judge(self) -> (String, Spend) {
        let usage = Usage {
            prompt_tokens: self.prompt_tokens.unsigned_abs(),
            cached_tokens: self.cached_tokens.unsigned_abs(),
            completion_tokens: self.completion_tokens.unsigned_abs(),
            reasoning_tokens: self.reasoning_tokens.unsigned_abs(),
            ..Usage::default()
        };
        let (calls, unknown_calls) = (self.calls.unsigned_abs(), self.unknown_calls.unsigned_abs());
        (self.judge, Spend { calls, known: MicroUsd(self.known), unknown_calls, possibly_billed: 0, usage })
    }
}
