//! What was bought, what it cost, and what may have been billed besides.

use super::{RequestState, Store, from_word};
use crate::Result;
use rlaif_core::MicroUsd;
use rlaif_core::money::Usage;
use sqlx::FromRow;
use std::collections::BTreeMap;

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
    /// Replies that were bought.
    pub calls: u64,
    /// Replies that were taken from other runs.
    pub reused: u64,
    /// Sum over the replies whose cost is known.
    pub known: MicroUsd,
    /// Replies whose cost is not known: the sum is then a lower bound.
    pub unknown_calls: u64,
    /// Sends without an answer, which the provider may have billed.
    pub possibly_billed: u64,
    /// Tokens, over the replies that were bought and state them.
    pub usage: Usage,
}

impl Store {
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
                    coalesce(sum(y.cache_write_tokens), 0) AS cache_write_tokens,
                    coalesce(sum(y.cache_write_1h_tokens), 0) AS cache_write_1h_tokens,
                    coalesce(sum(y.completion_tokens), 0) AS completion_tokens,
                    coalesce(sum(y.reasoning_tokens), 0) AS reasoning_tokens
             FROM requests q LEFT JOIN replies y ON y.request = q.seq AND y.origin IS NULL GROUP BY q.judge",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("adding up costs", e))?;
        let lost: Vec<(String, i64)> =
            sqlx::query_as("SELECT judge, sum(lost_sends) FROM requests GROUP BY judge")
                .fetch_all(&mut *connection)
                .await
                .map_err(|e| self.fail("adding up costs", e))?;
        let reused: Vec<(String, i64)> = sqlx::query_as(
            "SELECT q.judge, count(*) FROM replies y JOIN requests q ON q.seq = y.request WHERE y.origin IS NOT NULL GROUP BY 1",
        )
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("adding up costs", e))?;
        let mut spend: BTreeMap<String, Spend> = rows.into_iter().map(SpendRow::by_judge).collect();
        for (judge, lost) in lost {
            spend.entry(judge).or_default().possibly_billed = lost.unsigned_abs();
        }
        for (judge, reused) in reused {
            spend.entry(judge).or_default().reused = reused.unsigned_abs();
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
            reused: sum.reused + one.reused,
            known: [sum.known, one.known].iter().sum(),
            unknown_calls: sum.unknown_calls + one.unknown_calls,
            possibly_billed: sum.possibly_billed + one.possibly_billed,
            usage: sum.usage.plus(one.usage),
        }))
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
    cache_write_tokens: i64,
    cache_write_1h_tokens: i64,
    completion_tokens: i64,
    reasoning_tokens: i64,
}

impl SpendRow {
    fn by_judge(self) -> (String, Spend) {
        let usage = Usage {
            prompt_tokens: self.prompt_tokens.unsigned_abs(),
            cached_tokens: self.cached_tokens.unsigned_abs(),
            cache_write_tokens: self.cache_write_tokens.unsigned_abs(),
            cache_write_1h_tokens: self.cache_write_1h_tokens.unsigned_abs(),
            completion_tokens: self.completion_tokens.unsigned_abs(),
            reasoning_tokens: self.reasoning_tokens.unsigned_abs(),
            ..Usage::default()
        };
        let (calls, unknown_calls) = (self.calls.unsigned_abs(), self.unknown_calls.unsigned_abs());
        let known = MicroUsd(self.known);
        (self.judge, Spend { calls, known, unknown_calls, usage, ..Spend::default() })
    }
}
