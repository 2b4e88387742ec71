//! Responses, with their tokens and log-probs.

use super::{Store, from_word, transaction, word};
use crate::{Result, StoreError};
use rlaif_core::records::{Response, Split};
use sqlx::FromRow;

/// The supervised baseline: its responses on training prompts make the pairs, those on held-out prompts are what tuned
/// policies are compared with.
pub const BASELINE: &str = "baseline";
/// What the first of several rounds started from, where a run is a later one.
pub const ORIGIN: &str = "origin";
/// The policy tuned by PPO.
pub const PPO: &str = "ppo";
/// What the names of rollouts begin with that live judges saw; each is the `policy` of its responses, and the set of its pairs.
pub const LIVE: &str = "ppo-live-";
/// The policy tuned by DPO.
pub const DPO: &str = "dpo";

/// A response of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairedResponse {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub policy: String,
    /// Decoded text.
    pub text: String,
    /// How many tokens were sampled; 0 of a text that no policy sampled.
    pub tokens: u64,
}

impl Store {
    /// Stores responses of a policy in one transaction: one unit of generation. Those that are there already stay.
    ///
    /// # Errors
    /// If a prompt is not in the ledger, or an id belongs to another policy, prompt or index.
    pub async fn put_responses(&self, policy: &str, responses: &[Response]) -> Result<()> {
        const DOING: &str = "storing responses";
        transaction!(self, DOING, |tx| {
            for response in responses {
                sqlx::query(
                    "INSERT INTO responses (id, policy, prompt_id, idx, text, token_ids, logprobs, finish_reason)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (policy, prompt_id, idx) DO NOTHING",
                )
                .bind(&response.id)
                .bind(policy)
                .bind(&response.prompt_id)
                .bind(i64::try_from(response.index).unwrap_or(i64::MAX))
                .bind(&response.text)
                .bind(response.token_ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())
                .bind(response.logprobs.iter().flat_map(|logp| logp.to_le_bytes()).collect::<Vec<u8>>())
                .bind(word("responses", &response.finish_reason)?)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail_row(DOING, &response.id, e))?;
            }
        });
        Ok(())
    }

    /// The responses of a policy, in one split or in both, in the order of prompts and samples.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn responses(&self, policy: &str, split: Option<Split>) -> Result<Vec<Response>> {
        let split = split.map(|split| word("prompts", &split)).transpose()?;
        let mut connection = self.lock().await;
        let rows: Vec<ResponseRow> = sqlx::query_as(
            "SELECT r.id, r.prompt_id, r.idx, r.text, r.token_ids, r.logprobs, r.finish_reason
             FROM responses r JOIN prompts p ON p.id = r.prompt_id
             WHERE r.policy = ?1 AND (?2 IS NULL OR p.split = ?2) AND p.set_aside IS NULL
             ORDER BY p.seq, r.idx",
        )
        .bind(policy)
        .bind(split)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading responses", e))?;
        rows.into_iter().map(Response::try_from).collect()
    }

    /// The responses that are in a pair of a set, without their tokens.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn paired_responses(&self, set: &str) -> Result<Vec<PairedResponse>> {
        let mut connection = self.lock().await;
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
            "SELECT id, policy, text, length(token_ids) / 4 FROM responses
             WHERE id IN (SELECT a FROM pairs WHERE pair_set = ?1 UNION SELECT b FROM pairs WHERE pair_set = ?1)",
        )
        .bind(set)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading responses", e))?;
        let response = |(id, policy, text, tokens): (String, String, String, i64)| PairedResponse {
            id,
            policy,
            text,
            tokens: tokens.unsigned_abs(),
        };
        Ok(rows.into_iter().map(response).collect())
    }

    /// How many responses a policy has, in one split or in both.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn count_responses(&self, policy: &str, split: Option<Split>) -> Result<u64> {
        let split = split.map(|split| word("prompts", &split)).transpose()?;
        let mut connection = self.lock().await;
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM responses r JOIN prompts p ON p.id = r.prompt_id
             WHERE r.policy = ?1 AND (?2 IS NULL OR p.split = ?2) AND p.set_aside IS NULL",
        )
        .bind(policy)
        .bind(split)
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| self.fail("counting responses", e))?;
        Ok(count.unsigned_abs())
    }
}

#[derive(FromRow)]
pub(super) struct ResponseRow {
    id: String,
    prompt_id: String,
    idx: i64,
    text: String,
    token_ids: Vec<u8>,
    logprobs: Vec<u8>,
    finish_reason: String,
}

impl TryFrom<ResponseRow> for Response {
    type Error = StoreError;

    fn try_from(row: ResponseRow) -> Result<Self> {
        let broken = |what: &str| StoreError::Unreadable {
            table: "responses",
            what: format!("{what} of `{}`", row.id),
        };
        let token_ids: Vec<u32> =
            words(&row.token_ids).ok_or_else(|| broken("token ids"))?.map(u32::from_le_bytes).collect();
        let logprobs: Vec<f32> =
            words(&row.logprobs).ok_or_else(|| broken("log-probs"))?.map(f32::from_le_bytes).collect();
        let index = usize::try_from(row.idx).map_err(|_| broken("index"))?;
        let finish_reason = from_word("responses", row.finish_reason)?;
        Ok(Self {
            id: row.id,
            prompt_id: row.prompt_id,
            index,
            text: row.text,
            token_ids,
            logprobs,
            finish_reason,
        })
    }
}

/// Groups of four bytes, if they come out even.
fn words(bytes: &[u8]) -> Option<impl Iterator<Item = [u8; 4]> + '_> {
    let (words, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| words.iter().copied())
}
