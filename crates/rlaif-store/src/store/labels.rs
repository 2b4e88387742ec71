//! What judges said: verdicts, scores, and the preferences they add up to. All of it can be computed again.

use super::responses::ResponseRow;
use super::{Store, from_json, from_word, to_json, transaction, word};
use crate::{Result, StoreError};
use rlaif_core::records::{Fate, NoVerdict, Order, Preference, PreferenceRow, Response, Verdict};
use sqlx::FromRow;
use std::collections::BTreeMap;

/// A verdict and what it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct VerdictRow {
    /// The pair.
    pub pair_id: String,
    /// The judge's name.
    pub judge: String,
    /// The template's name; for judges that are asked without one, what they do instead, such as `contrastive`.
    pub template: String,
    /// Which response was shown first.
    pub order: Order,
    /// Which of several votes of the same judge and template, from 0.
    pub vote: u32,
    /// What was said.
    pub verdict: Verdict,
}

/// Pairs with one fate, by who judged them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelCount {
    /// Names of the judges.
    pub judges: Vec<String>,
    /// What became of the pairs.
    pub fate: Fate,
    /// How many.
    pub count: u64,
}

/// A kept preference with its responses turned so that the better one is `chosen`.
#[derive(Debug, Clone, PartialEq)]
pub struct PreferredPair {
    /// As it is exported.
    pub row: PreferenceRow,
    /// The better response, with its tokens.
    pub chosen: Response,
    /// The worse response, with its tokens.
    pub rejected: Response,
}

impl Store {
    /// Stores verdicts of judges that are asked directly, without a request: local models, people. A verdict on the same
    /// presentation is replaced.
    ///
    /// # Errors
    /// If a pair is not in the ledger.
    pub async fn put_verdicts(&self, parser: &str, verdicts: &[VerdictRow]) -> Result<()> {
        const DOING: &str = "storing verdicts";
        transaction!(self, DOING, |tx| {
            for row in verdicts {
                sqlx::query(
                    "INSERT INTO verdicts (pair_id, judge, template, shown, vote, parser, verdict) VALUES (?, ?, ?, ?, ?, ?, ?)
                     ON CONFLICT (pair_id, judge, template, shown, vote)
                     DO UPDATE SET parser = excluded.parser, verdict = excluded.verdict",
                )
                .bind(&row.pair_id)
                .bind(&row.judge)
                .bind(&row.template)
                .bind(word("verdicts", &row.order)?)
                .bind(row.vote)
                .bind(parser)
                .bind(to_json("verdicts", &row.verdict)?)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail_row(DOING, &row.pair_id, e))?;
            }
        });
        Ok(())
    }

    /// All verdicts on the pairs of a set, in the order of pairs, judges, templates, orders and votes. A request that failed for good
    /// stands here too, as a verdict that is [`NoVerdict::Failed`]; one that is still open does not.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn verdicts(&self, set: &str) -> Result<Vec<VerdictRow>> {
        let mut connection = self.lock().await;
        let rows: Vec<SaidRow> = sqlx::query_as(
            "WITH said AS (
                 SELECT pair_id, judge, template, shown, vote, verdict, NULL AS failure FROM verdicts
                 UNION ALL
                 SELECT s.pair_id, s.judge, s.template, s.shown, s.vote, NULL, coalesce(q.failure, q.failure_class)
                 FROM presentations s JOIN requests q USING (request_key)
                 WHERE q.state = 'failed' AND NOT EXISTS (
                     SELECT 1 FROM verdicts v
                     WHERE (v.pair_id, v.judge, v.template, v.shown, v.vote)
                         = (s.pair_id, s.judge, s.template, s.shown, s.vote))
             )
             SELECT said.* FROM said JOIN pairs r ON r.id = said.pair_id JOIN prompts p ON p.id = r.prompt_id
             WHERE r.pair_set = ? ORDER BY p.seq, r.seq, said.judge, said.template, said.shown, said.vote",
        )
        .bind(set)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading verdicts", e))?;
        rows.into_iter().map(VerdictRow::try_from).collect()
    }

    /// Stores one number a response: a contrastive judge's score, the reward model's reward. Scores are replaced.
    ///
    /// # Errors
    /// If a response is not in the ledger, or a score is not finite.
    pub async fn put_scores(&self, judge: &str, scores: &[(String, f64)]) -> Result<()> {
        const DOING: &str = "storing scores";
        transaction!(self, DOING, |tx| {
            for (response_id, score) in scores {
                sqlx::query(
                    "INSERT INTO scores VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET score = excluded.score",
                )
                .bind(judge)
                .bind(response_id)
                .bind(score)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail_row(DOING, response_id, e))?;
            }
        });
        Ok(())
    }

    /// A judge's scores by response id.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn scores(&self, judge: &str) -> Result<BTreeMap<String, f64>> {
        let mut connection = self.lock().await;
        let rows: Vec<(String, f64)> =
            sqlx::query_as("SELECT response_id, score FROM scores WHERE judge = ?")
                .bind(judge)
                .fetch_all(&mut *connection)
                .await
                .map_err(|e| self.fail("reading scores", e))?;
        Ok(rows.into_iter().collect())
    }

    /// Stores what the verdicts on pairs add up to. Preferences are replaced.
    ///
    /// # Errors
    /// If a pair is not in the ledger.
    pub async fn put_preferences(&self, preferences: &[Preference]) -> Result<()> {
        const DOING: &str = "storing preferences";
        transaction!(self, DOING, |tx| {
            for preference in preferences {
                sqlx::query(
                    "INSERT INTO preferences (pair_id, p, spread, fate, judges, explanation) VALUES (?, ?, ?, ?, ?, ?)
                     ON CONFLICT (pair_id) DO UPDATE SET p = excluded.p, spread = excluded.spread, fate = excluded.fate,
                                                         judges = excluded.judges, explanation = excluded.explanation",
                )
                .bind(&preference.pair_id)
                .bind(preference.p)
                .bind(preference.spread)
                .bind(word("preferences", &preference.fate)?)
                .bind(to_json("preferences", &preference.judges)?)
                .bind(&preference.explanation)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail_row(DOING, &preference.pair_id, e))?;
            }
        });
        Ok(())
    }

    /// The preferences on the pairs of a set, whatever became of them, in the order of pairs.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn preferences(&self, set: &str) -> Result<Vec<Preference>> {
        let mut connection = self.lock().await;
        let rows: Vec<StoredPreference> = sqlx::query_as(
            "SELECT f.pair_id, r.prompt_id, f.p, f.spread, f.fate, f.judges, f.explanation
             FROM preferences f JOIN pairs r ON r.id = f.pair_id JOIN prompts p ON p.id = r.prompt_id
             WHERE r.pair_set = ? ORDER BY p.seq, r.seq",
        )
        .bind(set)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading preferences", e))?;
        rows.into_iter()
            .map(|row| {
                Ok(Preference {
                    pair_id: row.pair_id,
                    prompt_id: row.prompt_id,
                    p: row.p,
                    spread: row.spread,
                    fate: from_word("preferences", row.fate)?,
                    judges: from_json("preferences", &row.judges)?,
                    explanation: row.explanation,
                })
            })
            .collect()
    }

    /// The kept preferences of a set as they are exported, in the order of pairs: the better response is `chosen`, and p is
    /// turned with it. At p = ½ response a is `chosen`.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn preference_rows(&self, set: &str) -> Result<Vec<PreferenceRow>> {
        Ok(self.preferred_pairs(set).await?.into_iter().map(|pair| pair.row).collect())
    }

    /// As [`Store::preference_rows`], with the responses' tokens, which trainers need.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn preferred_pairs(&self, set: &str) -> Result<Vec<PreferredPair>> {
        self.preferred_pairs_over(set, &BTreeMap::new()).await
    }

    /// As [`Store::preferred_pairs`], with preferences that come before the stored ones, by pair: those that people made.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn preferred_pairs_over(
        &self,
        set: &str,
        over: &BTreeMap<String, Preference>,
    ) -> Result<Vec<PreferredPair>> {
        let mut connection = self.lock().await;
        let rows: Vec<LabelledRow> = sqlx::query_as(
            "SELECT r.id AS pair_id, r.prompt_id, p.prompt, f.p, f.fate, f.judges, f.explanation
             FROM pairs r JOIN prompts p ON p.id = r.prompt_id LEFT JOIN preferences f ON f.pair_id = r.id
             WHERE r.pair_set = ? ORDER BY p.seq, r.seq",
        )
        .bind(set)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading preferences", e))?;
        let mut pairs = Vec::with_capacity(rows.len());
        for row in rows {
            let over = over.get(&row.pair_id);
            let Some(row) = row.kept(over)? else { continue };
            let sides: Vec<ResponseRow> = sqlx::query_as(
                "SELECT s.id, s.prompt_id, s.idx, s.text, s.token_ids, s.logprobs, s.finish_reason
                 FROM pairs r JOIN responses s ON s.id IN (r.a, r.b) WHERE r.id = ? ORDER BY s.id = r.b",
            )
            .bind(&row.pair_id)
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| self.fail("reading preferences", e))?;
            let mut sides = sides.into_iter();
            let (Some(a), Some(b)) = (sides.next(), sides.next()) else { continue };
            pairs.push(row.turned(a.try_into()?, b.try_into()?)?);
        }
        Ok(pairs)
    }

    /// How many pairs of a set met each fate, by who judged them.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn label_counts(&self, set: &str) -> Result<Vec<LabelCount>> {
        let mut connection = self.lock().await;
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT f.judges, f.fate, count(*) FROM preferences f JOIN pairs r ON r.id = f.pair_id
             WHERE r.pair_set = ? GROUP BY 1, 2 ORDER BY 1, 2",
        )
        .bind(set)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("counting labels", e))?;
        rows.into_iter()
            .map(|(judges, fate, count)| {
                let (judges, fate) = (from_json("preferences", &judges)?, from_word("preferences", fate)?);
                Ok(LabelCount { judges, fate, count: count.unsigned_abs() })
            })
            .collect()
    }
}

#[derive(FromRow)]
struct SaidRow {
    pair_id: String,
    judge: String,
    template: String,
    shown: String,
    vote: u32,
    verdict: Option<String>,
    failure: Option<String>,
}

impl TryFrom<SaidRow> for VerdictRow {
    type Error = StoreError;

    fn try_from(row: SaidRow) -> Result<Self> {
        let verdict = match row.verdict {
            Some(json) => from_json("verdicts", &json)?,
            None => Verdict::none(NoVerdict::Failed(row.failure.unwrap_or_default())),
        };
        let order = from_word("verdicts", row.shown)?;
        let SaidRow { pair_id, judge, template, vote, .. } = row;
        Ok(Self { pair_id, judge, template, order, vote, verdict })
    }
}

#[derive(FromRow)]
struct StoredPreference {
    pair_id: String,
    prompt_id: String,
    p: Option<f64>,
    spread: Option<f64>,
    fate: String,
    judges: String,
    explanation: Option<String>,
}

#[derive(FromRow)]
struct LabelledRow {
    pair_id: String,
    prompt_id: String,
    prompt: String,
    p: Option<f64>,
    fate: Option<String>,
    judges: Option<String>,
    explanation: Option<String>,
}

impl LabelledRow {
    /// The row as a preference to train on, if it is one: the stored one, or the one that comes before it.
    fn kept(self, over: Option<&Preference>) -> Result<Option<KeptRow>> {
        let (p, fate, judges, explanation) = match over {
            Some(over) => (over.p, Some(over.fate), over.judges.clone(), over.explanation.clone()),
            None => {
                let fate = self.fate.map(|fate| from_word("preferences", fate)).transpose()?;
                let judges = self.judges.map(|judges| from_json("preferences", &judges)).transpose()?;
                (self.p, fate, judges.unwrap_or_default(), self.explanation)
            }
        };
        let Some(p) = p.filter(|_| fate == Some(Fate::Kept)) else { return Ok(None) };
        let Self { pair_id, prompt_id, prompt, .. } = self;
        Ok(Some(KeptRow { pair_id, prompt_id, prompt, p, judges, explanation }))
    }
}

struct KeptRow {
    pair_id: String,
    prompt_id: String,
    prompt: String,
    p: f64,
    judges: Vec<String>,
    explanation: Option<String>,
}

impl KeptRow {
    fn turned(self, a: Response, b: Response) -> Result<PreferredPair> {
        let (chosen, rejected, p) = if self.p >= 0.5 { (a, b, self.p) } else { (b, a, 1.0 - self.p) };
        let row = PreferenceRow {
            prompt: from_json("prompts", &self.prompt)?,
            chosen: chosen.text.clone(),
            rejected: rejected.text.clone(),
            p,
            explanation: self.explanation,
            judges: self.judges,
            prompt_id: self.prompt_id,
            pair_id: self.pair_id,
        };
        Ok(PreferredPair { row, chosen, rejected })
    }
}
