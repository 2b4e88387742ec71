//! Calls: claimed before they are sent, ended by a reply or a failure. Many are committed together.
//!
//! A claim is the lease and the intent: what is claimed and has no end was possibly sent and possibly billed. Its number among
//! the attempts at a request is the fence: a reply to an earlier attempt is stored all the same, since it was paid for.

use super::replies::token_counts;
use super::spool::{Frame, left_behind};
use super::{RequestFailure, Spooled, Store, transaction};
use crate::{Result, StoreError};
use rlaif_core::clock::now_ms;
use rlaif_core::money::Usage;
use rlaif_core::{MicroUsd, failpoint};
use serde_json::json;
use sqlx::sqlite::SqliteConnection;

/// What happened to a call. `request` is [`super::Request::seq`].
#[derive(Debug, Clone, PartialEq)]
pub enum CallEvent<'a> {
    /// About to be sent.
    Claimed {
        /// The request.
        request: i64,
        /// Which attempt at it, from 1.
        attempt: u32,
        /// The most it can cost; `None` if the price is unknown.
        reserved: Option<MicroUsd>,
    },
    /// A reply came.
    Replied {
        /// The request.
        request: i64,
        /// Which attempt at it, from 1.
        attempt: u32,
        /// HTTP status.
        http_status: u16,
        /// The body, byte for byte.
        raw: &'a [u8],
        /// Tokens, where the provider counted them.
        usage: Option<Usage>,
        /// What it cost; `None` if that is unknown.
        cost: Option<MicroUsd>,
        /// What the budget counts for it; `None` if the price is unknown.
        charged: Option<MicroUsd>,
        /// Where the reply waited for this commit.
        spooled: Option<Spooled>,
    },
    /// No reply came.
    Failed {
        /// The request.
        request: i64,
        /// Which attempt at it, from 1.
        attempt: u32,
        /// `not_sent`, `rejected` or `maybe_billed`.
        class: &'a str,
        /// Why, in a word.
        kind: &'a str,
        /// Why, in a sentence without keys.
        message: &'a str,
        /// HTTP status, where one came.
        http_status: Option<u16>,
        /// What the budget counts for it; `None` if the price is unknown.
        charged: Option<MicroUsd>,
        /// What becomes of the request.
        next: Next,
    },
    /// Given up without another attempt.
    GivenUp {
        /// The request.
        request: i64,
        /// Why.
        failure: RequestFailure<'a>,
    },
}

/// What becomes of a request whose call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is sent again soon, by this process.
    Retry,
    /// It is sent again, not before this time in milliseconds since 1970.
    Park(i64),
    /// It is left open for another run.
    Open,
    /// It is given up.
    GiveUp,
}

const DOING: &str = "recording calls";

impl Store {
    /// Keeps a reply before anything else is done with it, in one write: it then survives the death of this process. Hand what is
    /// returned to [`Store::commit_calls`].
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn spool(&self, request: i64, attempt: u32, http_status: u16, raw: &[u8]) -> Result<Spooled> {
        self.spool.append(&Frame { request, attempt, status: http_status, body: raw.to_vec() })
    }

    /// Records what happened to calls of a judge, all of it or nothing; it is durable when this returns. `stage` is whose money it
    /// is.
    ///
    /// # Errors
    /// If it cannot be written; then send nothing.
    pub async fn commit_calls(&self, stage: &str, judge: &str, events: &[CallEvent<'_>]) -> Result<()> {
        let now = now_ms();
        let (mut claims, mut replies, mut failures, mut given_up) = (vec![], vec![], vec![], vec![]);
        let mut charged = 0_i64;
        let mut spool = Vec::new();
        for event in events {
            match event {
                CallEvent::Claimed { request, attempt, reserved } => {
                    claims.push(json!([request, attempt, reserved]));
                }
                CallEvent::Replied { request, attempt, http_status, charged: amount, spooled, .. } => {
                    replies.push(json!([request, attempt, http_status, amount]));
                    charged = charged.saturating_add(amount.unwrap_or_default().0);
                    spool.extend(*spooled);
                }
                CallEvent::Failed {
                    request,
                    attempt,
                    class,
                    kind,
                    message,
                    http_status,
                    charged: amount,
                    next,
                } => {
                    let (state, retry, not_before) = match next {
                        Next::Retry => ("planned", 1, None),
                        Next::Park(time) => ("planned", 1, Some(*time)),
                        Next::Open => ("planned", 0, None),
                        Next::GiveUp => ("failed", 0, None),
                    };
                    let lost = i32::from(*class == "maybe_billed");
                    failures.push(json!([
                        request,
                        attempt,
                        class,
                        kind,
                        message,
                        http_status,
                        amount,
                        state,
                        retry,
                        not_before,
                        lost
                    ]));
                    charged = charged.saturating_add(amount.unwrap_or_default().0);
                }
                CallEvent::GivenUp { request, failure } => {
                    given_up.push(json!([request, failure.class, failure.message]));
                }
            }
        }
        let text = |rows: Vec<serde_json::Value>| {
            (!rows.is_empty()).then(|| serde_json::Value::Array(rows).to_string())
        };
        failpoint::hit("store/before_commit");
        transaction!(self, DOING, |tx| {
            for event in events {
                if let CallEvent::Replied { request, attempt, http_status, raw, usage, cost, .. } = event {
                    self.insert_reply(&mut tx, *request, *attempt, *http_status, raw, *usage, *cost).await?;
                }
            }
            // What ended comes before what begins: a request may do both in one commit.
            if let Some(rows) = text(replies) {
                self.all(
                    &mut tx,
                    &rows,
                    &[
                        "UPDATE requests SET state = 'received', failure_class = NULL, failure = NULL, not_before_ms = NULL
                         FROM (SELECT value ->> 0 AS request FROM json_each(?1)) e
                         WHERE requests.seq = e.request AND state <> 'judged'",
                        "UPDATE attempts SET http_status = e.status, charged = e.charged, ended_ms = ?2
                         FROM (SELECT value ->> 0 AS request, value ->> 1 AS attempt, value ->> 2 AS status, value ->> 3 AS charged
                               FROM json_each(?1)) e
                         WHERE attempts.request = e.request AND attempts.attempt = e.attempt",
                    ],
                    now,
                )
                .await?;
            }
            if let Some(rows) = text(failures) {
                self.all(
                    &mut tx,
                    &rows,
                    &[
                        "UPDATE attempts SET class = e.value ->> 2, kind = e.value ->> 3, message = e.value ->> 4,
                                             http_status = e.value ->> 5, charged = e.value ->> 6, ended_ms = ?2
                         FROM json_each(?1) e
                         WHERE attempts.request = e.value ->> 0 AND attempts.attempt = e.value ->> 1",
                        "UPDATE requests SET state = e.value ->> 7, retries = retries + (e.value ->> 8),
                                             not_before_ms = e.value ->> 9, lost_sends = lost_sends + (e.value ->> 10),
                                             resends = resends + (e.value ->> 10),
                                             failure_class = iif(e.value ->> 7 = 'failed', e.value ->> 3, NULL),
                                             failure = iif(e.value ->> 7 = 'failed', e.value ->> 4, NULL)
                         FROM json_each(?1) e WHERE requests.seq = e.value ->> 0 AND +state IN ('planned', 'sent')",
                    ],
                    now,
                )
                .await?;
            }
            if let Some(rows) = text(given_up) {
                self.all(
                    &mut tx,
                    &rows,
                    &["UPDATE requests SET state = 'failed', failure_class = e.value ->> 1, failure = e.value ->> 2,
                                           not_before_ms = NULL
                       FROM json_each(?1) e WHERE requests.seq = e.value ->> 0 AND +state IN ('planned', 'sent')"],
                    now,
                )
                .await?;
            }
            if let Some(rows) = text(claims) {
                sqlx::query(
                    "INSERT INTO attempts (request, attempt, stage, session, reserved, sent_ms)
                     SELECT value ->> 0, value ->> 1, ?2, ?3, value ->> 2, ?4 FROM json_each(?1)",
                )
                .bind(&rows)
                .bind(stage)
                .bind(self.session)
                .bind(now)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
                self.all(
                    &mut tx,
                    &rows,
                    &["UPDATE requests SET state = 'sent', attempts = e.value ->> 1, not_before_ms = NULL,
                                           first_sent_ms = coalesce(first_sent_ms, ?2), failure_class = NULL, failure = NULL
                       FROM json_each(?1) e
                       WHERE requests.seq = e.value ->> 0 AND +state IN ('planned', 'sent', 'failed')"],
                    now,
                )
                .await?;
            }
            if charged != 0 {
                self.charge(&mut tx, stage, judge, charged).await?;
            }
            failpoint::hit("store/in_commit");
        });
        failpoint::hit("store/committed");
        self.spool.committed(spool);
        Ok(())
    }

    /// What all stages, and one of them alone, count against their budgets: what is settled, and the worst case of what was possibly
    /// billed or is in a batch.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn charged(&self, stage: &str) -> Result<(MicroUsd, MicroUsd)> {
        let mut connection = self.lock().await;
        let (all, stage): (i64, i64) = sqlx::query_as(
            "SELECT coalesce(sum(charged), 0), coalesce(sum(charged) FILTER (WHERE stage = ?), 0) FROM charges",
        )
        .bind(stage)
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| self.fail("adding up charges", e))?;
        Ok((MicroUsd(all), MicroUsd(stage)))
    }

    /// Runs statements over the same rows, a JSON array as `?1`, at a time as `?2`. Their `+state` keeps SQLite from walking all rows of a
    /// state to find a few by number.
    async fn all(
        &self,
        tx: &mut SqliteConnection,
        rows: &str,
        statements: &[&'static str],
        now: i64,
    ) -> Result<()> {
        for statement in statements {
            sqlx::query(*statement)
                .bind(rows)
                .bind(now)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
        }
        Ok(())
    }

    pub(super) async fn charge(
        &self,
        tx: &mut SqliteConnection,
        stage: &str,
        judge: &str,
        amount: i64,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO charges VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET charged = charged + excluded.charged",
        )
        .bind(stage)
        .bind(judge)
        .bind(amount)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.fail(DOING, e))?;
        Ok(())
    }

    pub(super) async fn insert_reply(
        &self,
        tx: &mut SqliteConnection,
        request: i64,
        attempt: u32,
        http_status: u16,
        raw: &[u8],
        usage: Option<Usage>,
        cost: Option<MicroUsd>,
    ) -> Result<i64> {
        let [prompt, cached, written, written_1h, completion, reasoning] = token_counts(usage);
        sqlx::query_scalar(
            "INSERT INTO replies (request, attempt, http_status, raw, prompt_tokens, cached_tokens, cache_write_tokens,
                                  cache_write_1h_tokens, completion_tokens, reasoning_tokens, tier, cost_micro_usd)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        )
        .bind(request)
        .bind(attempt)
        .bind(http_status)
        .bind(raw)
        .bind(prompt)
        .bind(cached)
        .bind(written)
        .bind(written_1h)
        .bind(completion)
        .bind(reasoning)
        .bind(usage.map(|usage| usage.tier.as_str()))
        .bind(cost.map(|cost| cost.0))
        .fetch_one(&mut *tx)
        .await
        .map_err(|e| self.fail_row("storing a reply", &format!("request {request}"), e))
    }

    /// What an earlier process left: replies that had come and were not committed are stored, and calls without an end were
    /// possibly billed, at most what was reserved for them; their requests are planned again. What is in a batch stays there.
    pub(super) async fn recover(&self) -> Result<()> {
        const DOING: &str = "looking for calls that were in flight";
        let (frames, torn) = left_behind(&self.path)?;
        if torn > 0 {
            tracing::warn!(
                bytes = torn,
                "the last process died while it kept a reply; its call was possibly billed"
            );
        }
        let now = now_ms();
        let mut found = 0_u64;
        let lost = transaction!(self, DOING, |tx| {
            for frame in &frames {
                let known: Option<bool> = sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM replies WHERE request = ?1 AND attempt = ?2) FROM requests WHERE seq = ?1",
                )
                .bind(frame.request)
                .bind(frame.attempt)
                .fetch_optional(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
                // A reply to a request that is not in this ledger belongs to one that was moved away from beside its spool.
                if known != Some(false) {
                    continue;
                }
                found += 1;
                let Frame { request, attempt, status, body } = frame;
                self.insert_reply(&mut tx, *request, *attempt, *status, body, None, None).await?;
                // Nobody has read what it cost: until then it counts for what was reserved.
                sqlx::query(
                    "INSERT INTO charges SELECT t.stage, q.judge, coalesce(t.reserved, 0)
                     FROM attempts t JOIN requests q ON q.seq = t.request WHERE t.request = ? AND t.attempt = ? AND t.charged IS NULL
                     ON CONFLICT DO UPDATE SET charged = charged + excluded.charged",
                )
                .bind(request)
                .bind(attempt)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
                sqlx::query(
                    "UPDATE attempts SET charged = coalesce(charged, reserved), http_status = ?, ended_ms = ?
                     WHERE request = ? AND attempt = ?",
                )
                .bind(status)
                .bind(now)
                .bind(request)
                .bind(attempt)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
                sqlx::query(
                    "UPDATE requests SET state = 'received', failure_class = NULL, failure = NULL, not_before_ms = NULL
                     WHERE seq = ? AND state <> 'judged'",
                )
                .bind(request)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
            }
            sqlx::query(
                "INSERT INTO charges SELECT t.stage, q.judge, coalesce(sum(t.reserved), 0)
                 FROM requests q JOIN attempts t ON t.request = q.seq AND t.attempt = q.attempts
                 WHERE q.state = 'sent' AND NOT EXISTS (
                     SELECT 1 FROM batch_items i WHERE i.request = q.seq AND i.attempt = q.attempts)
                 GROUP BY 1, 2
                 ON CONFLICT DO UPDATE SET charged = charged + excluded.charged",
            )
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
            sqlx::query(
                "UPDATE attempts SET class = 'maybe_billed', kind = 'process_ended', charged = reserved, ended_ms = ?,
                                     message = 'the process ended before a reply came'
                 FROM requests q WHERE q.state = 'sent' AND attempts.request = q.seq AND attempts.attempt = q.attempts
                   AND NOT EXISTS (SELECT 1 FROM batch_items i WHERE i.request = q.seq AND i.attempt = q.attempts)",
            )
            .bind(now)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
            sqlx::query(
                "UPDATE requests SET lost_sends = lost_sends + 1, resends = resends + 1, state = 'planned'
                 WHERE state = 'sent' AND NOT EXISTS (
                     SELECT 1 FROM batch_items i WHERE i.request = requests.seq AND i.attempt = requests.attempts)",
            )
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?
            .rows_affected()
        });
        failpoint::hit("store/recovered");
        self.spool.clear()?;
        if found + lost > 0 {
            tracing::warn!(replies = found, lost, "the last process ended with calls in flight");
        }
        Ok(())
    }

    /// Notes, before the first byte is sent, that one request is about to be: [`Store::commit_calls`] for callers that send one at a
    /// time.
    ///
    /// # Errors
    /// If it cannot be written; then do not send.
    pub async fn mark_sent(&self, request_key: &str) -> Result<()> {
        let Some((request, attempts, judge)) = self.find(request_key).await? else { return Ok(()) };
        let claimed = CallEvent::Claimed { request, attempt: attempts + 1, reserved: None };
        self.commit_calls("label", &judge, &[claimed]).await
    }

    /// Notes that a request certainly did no work: never sent, or turned away (429, 401). It is planned again.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn release_request(&self, request_key: &str) -> Result<()> {
        self.end(
            request_key,
            &RequestFailure { class: "rejected", message: "", maybe_billed: false },
            Next::Open,
        )
        .await
    }

    /// Commits the raw body of a reply, before anyone reads it, and returns its number. Only what answers the request belongs here.
    ///
    /// A late reply to a request that was given up or already answered is kept too: it was paid for.
    ///
    /// # Errors
    /// If it cannot be written, or the request is not in the ledger.
    pub async fn put_reply(&self, request_key: &str, http_status: u16, raw: &[u8]) -> Result<i64> {
        let found = self.find(request_key).await?;
        let (request, attempt, judge) = found.ok_or_else(|| StoreError::Conflict {
            path: self.path.clone(),
            doing: "storing a reply",
            what: "no such request".into(),
            id: request_key.to_owned(),
        })?;
        let (usage, cost, charged, spooled) = (None, None, None, None);
        let replied =
            CallEvent::Replied { request, attempt, http_status, raw, usage, cost, charged, spooled };
        self.commit_calls("label", &judge, &[replied]).await?;
        let mut connection = self.lock().await;
        sqlx::query_scalar("SELECT max(id) FROM replies WHERE request = ?")
            .bind(request)
            .fetch_one(&mut *connection)
            .await
            .map_err(|e| self.fail(DOING, e))
    }

    /// Gives a request up, with the reason. A request that has a reply is left as it is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn fail_request(&self, request_key: &str, failure: &RequestFailure<'_>) -> Result<()> {
        self.end(request_key, failure, Next::GiveUp).await
    }

    async fn end(&self, request_key: &str, failure: &RequestFailure<'_>, next: Next) -> Result<()> {
        let Some((request, attempt, judge)) = self.find(request_key).await? else { return Ok(()) };
        let class = if failure.maybe_billed { "maybe_billed" } else { "rejected" };
        let (kind, message) = (failure.class, failure.message);
        let failed = CallEvent::Failed {
            request,
            attempt,
            class,
            kind,
            message,
            http_status: None,
            charged: None,
            next,
        };
        self.commit_calls("label", &judge, &[failed]).await
    }

    async fn find(&self, request_key: &str) -> Result<Option<(i64, u32, String)>> {
        let mut connection = self.lock().await;
        sqlx::query_as("SELECT seq, attempts, judge FROM requests WHERE request_key = ?")
            .bind(request_key)
            .fetch_optional(&mut *connection)
            .await
            .map_err(|e| self.fail(DOING, e))
    }
}
