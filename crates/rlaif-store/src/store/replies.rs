//! Replies: read for the presentations that need them, from the raw bytes that were bought.

use super::{Presentation, Store, from_word, to_json, transaction, word};
use crate::{Result, StoreError};
use rlaif_core::money::Usage;
use rlaif_core::records::Verdict;
use rlaif_core::{MicroUsd, failpoint};
use sqlx::FromRow;
use sqlx::sqlite::SqliteConnection;

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
    /// Most tokens that it could have.
    pub max_tokens: u32,
    /// HTTP status.
    pub http_status: u16,
    /// The body, byte for byte.
    pub raw: Vec<u8>,
}

/// What was read from a reply.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadReply<'a> {
    /// The reply.
    pub reply: &'a Reply,
    /// What it says; `None` for a reply on which a later step builds.
    pub verdict: Option<&'a Verdict>,
    /// Tokens, where the provider counted them.
    pub usage: Option<Usage>,
    /// What it cost; `None` if that is unknown.
    pub cost: Option<MicroUsd>,
    /// What makes it no use, in a word such as `truncated`; see [`Store::useless_replies`].
    pub fault: Option<&'a str>,
    /// Who answered, by its own word.
    pub model: Option<&'a str>,
}

impl Store {
    /// Replies that this version of the parser has not read for a presentation that needs them, oldest first. After
    /// a better parser, or [`Store::clear_verdicts`], that is all of them. Read them, [`Store::put_verdict`] or
    /// [`Store::put_usage`], and ask again until none is left.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn unread_replies(&self, parser: &str, limit: usize) -> Result<Vec<Reply>> {
        self.unread_replies_after(parser, 0, limit).await
    }

    /// As [`Store::unread_replies`], those with a higher number than `after`: whoever reads a million does not look at the first ones
    /// again and again.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn unread_replies_after(&self, parser: &str, after: i64, limit: usize) -> Result<Vec<Reply>> {
        let mut connection = self.lock().await;
        let rows: Vec<ReplyRow> = sqlx::query_as(
            "SELECT y.id, q.request_key, s.pair_id, s.judge, s.template, s.shown, s.vote, s.step, s.final, q.max_tokens,
                    y.http_status, y.raw
             FROM replies y JOIN requests q ON q.seq = y.request JOIN presentations s USING (request_key)
                  LEFT JOIN verdicts v ON (v.pair_id, v.judge, v.template, v.shown, v.vote)
                                        = (s.pair_id, s.judge, s.template, s.shown, s.vote)
             WHERE y.id > ? AND y.id = (SELECT min(id) FROM replies WHERE request = y.request)
               AND CASE WHEN s.final THEN v.parser IS NOT ? ELSE q.state = 'received' END
             ORDER BY y.id, s.pair_id, s.template, s.shown, s.vote LIMIT ?",
        )
        .bind(after)
        .bind(parser)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading replies", e))?;
        rows.into_iter().map(Reply::try_from).collect()
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
        let (verdict, fault, model) = (Some(verdict), None, None);
        self.put_readings(parser, &[ReadReply { reply, verdict, usage, cost, fault, model }]).await
    }

    /// Stores what was read from replies, all of it or nothing.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn put_readings(&self, parser: &str, readings: &[ReadReply<'_>]) -> Result<()> {
        const DOING: &str = "storing verdicts";
        transaction!(self, DOING, |tx| {
            for reading in readings {
                let shown = &reading.reply.presentation;
                let reply = reading.reply.reply_id;
                self.put_usage_in(&mut tx, reply, reading.usage, reading.cost).await?;
                self.classify_in(&mut tx, reply, reading.fault, reading.model).await?;
                let Some(verdict) = reading.verdict else { continue };
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
                .bind(to_json("verdicts", verdict)?)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
            }
            failpoint::hit("store/in_reading");
        });
        failpoint::hit("store/read");
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

    /// What became of the attempt that a reply answered, and who answered it.
    pub(super) async fn classify_in(
        &self,
        tx: &mut SqliteConnection,
        reply_id: i64,
        fault: Option<&str>,
        model: Option<&str>,
    ) -> Result<()> {
        sqlx::query(
            "UPDATE attempts SET class = ?, kind = ?, model = ?
             FROM replies y WHERE y.id = ? AND attempts.request = y.request AND attempts.attempt = y.attempt",
        )
        .bind(fault.map_or("billed_good", |_| "billed_bad"))
        .bind(fault)
        .bind(model)
        .bind(reply_id)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.fail("storing what became of a call", e))?;
        Ok(())
    }

    /// Usage and cost of a reply, whose request is then read; one that another run has bought costs nothing. Where the cost is another
    /// than what the budget counted until now (the worst case, if nobody had read the reply yet), the budget follows.
    pub(super) async fn put_usage_in(
        &self,
        tx: &mut SqliteConnection,
        reply_id: i64,
        usage: Option<Usage>,
        cost: Option<MicroUsd>,
    ) -> Result<()> {
        const DOING: &str = "storing the usage of a reply";
        let [prompt, cached, written, written_1h, completion, reasoning] = token_counts(usage);
        sqlx::query(
            "UPDATE replies SET prompt_tokens = ?, cached_tokens = ?, cache_write_tokens = ?, cache_write_1h_tokens = ?,
                                completion_tokens = ?, reasoning_tokens = ?, tier = ?,
                                cost_micro_usd = iif(origin IS NULL, ?, 0) WHERE id = ?",
        )
        .bind(prompt)
        .bind(cached)
        .bind(written)
        .bind(written_1h)
        .bind(completion)
        .bind(reasoning)
        .bind(usage.map(|usage| usage.tier.as_str()))
        .bind(cost.map(|cost| cost.0))
        .bind(reply_id)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.fail(DOING, e))?;
        sqlx::query(
            "UPDATE requests SET state = 'judged' WHERE seq = (SELECT request FROM replies WHERE id = ?)",
        )
        .bind(reply_id)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.fail(DOING, e))?;
        let Some(MicroUsd(cost)) = cost else { return Ok(()) };
        let counted: Option<(String, String, i64)> = sqlx::query_as(
            "SELECT t.stage, q.judge, coalesce(t.charged, 0) FROM replies y JOIN requests q ON q.seq = y.request
                    JOIN attempts t ON t.request = y.request AND t.attempt = y.attempt
             WHERE y.id = ? AND y.origin IS NULL AND t.charged IS NOT ?",
        )
        .bind(reply_id)
        .bind(cost)
        .fetch_optional(&mut *tx)
        .await
        .map_err(|e| self.fail(DOING, e))?;
        if let Some((stage, judge, counted)) = counted {
            self.charge(tx, &stage, &judge, cost - counted).await?;
            sqlx::query(
                "UPDATE attempts SET charged = ? FROM replies y
                 WHERE y.id = ? AND attempts.request = y.request AND attempts.attempt = y.attempt",
            )
            .bind(cost)
            .bind(reply_id)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
        }
        Ok(())
    }
}

/// The tokens of a usage in the order of the ledger's columns, if the provider counted them.
pub(super) fn token_counts(usage: Option<Usage>) -> [Option<i64>; 6] {
    let counts = usage.map(|u| {
        [
            u.prompt_tokens,
            u.cached_tokens,
            u.cache_write_tokens,
            u.cache_write_1h_tokens,
            u.completion_tokens,
            u.reasoning_tokens,
        ]
    });
    let counts = counts.map(|counts| counts.map(|tokens| Some(i64::try_from(tokens).unwrap_or(i64::MAX))));
    counts.unwrap_or_default()
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
    max_tokens: u32,
    http_status: u16,
    raw: Vec<u8>,
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
            max_tokens: row.max_tokens,
            http_status: row.http_status,
            raw: row.raw,
        })
    }
}
