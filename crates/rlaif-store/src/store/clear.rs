//! Dropping what a stage derived, so that it can be computed again. Requests and replies stay: they were paid for, and a
//! stage that asks the same question again finds the answer.

use super::{BASELINE, LIVE, Store, TRAIN_PAIRS, transaction};
use crate::Result;

impl Store {
    /// Drops all prompts and everything made from them.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn clear_prompts(&self) -> Result<()> {
        transaction!(self, "clearing prompts", |tx| {
            sqlx::query("DELETE FROM prompts")
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail("clearing prompts", e))?;
        });
        Ok(())
    }

    /// Drops the baseline's responses to training prompts, and their pairs, labels and scores.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn clear_generate(&self) -> Result<()> {
        transaction!(self, "clearing responses", |tx| {
            sqlx::query(
                "DELETE FROM responses WHERE policy = ? AND prompt_id IN (SELECT id FROM prompts WHERE split = 'train')",
            )
            .bind(BASELINE)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail("clearing responses", e))?;
        });
        Ok(())
    }

    /// Drops the training pairs, what was too near to become one, their verdicts and preferences, and all scores of
    /// responses to training prompts.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn clear_label(&self) -> Result<()> {
        const DOING: &str = "clearing labels";
        transaction!(self, DOING, |tx| {
            sqlx::query("DELETE FROM pairs WHERE pair_set = ?")
                .bind(TRAIN_PAIRS)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
            sqlx::query("DELETE FROM dropped_pairs")
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail(DOING, e))?;
            sqlx::query(
                "DELETE FROM scores WHERE response_id IN (
                     SELECT r.id FROM responses r JOIN prompts p ON p.id = r.prompt_id WHERE p.split = 'train')",
            )
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
        });
        Ok(())
    }

    /// Drops the responses to held-out prompts, of every policy, and all that was made from them.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn clear_evaluate(&self) -> Result<()> {
        transaction!(self, "clearing the evaluation", |tx| {
            sqlx::query(
                "DELETE FROM responses WHERE prompt_id IN (SELECT id FROM prompts WHERE split = 'eval')",
            )
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail("clearing the evaluation", e))?;
        });
        Ok(())
    }

    /// Drops the responses of one policy in both splits, and all that was made from them.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn clear_policy(&self, policy: &str) -> Result<()> {
        transaction!(self, "clearing responses", |tx| {
            sqlx::query("DELETE FROM responses WHERE policy = ?")
                .bind(policy)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail("clearing responses", e))?;
        });
        Ok(())
    }

    /// Drops the rollouts that live judges saw, and all that was made from them.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn clear_live(&self) -> Result<()> {
        transaction!(self, "clearing rollouts", |tx| {
            sqlx::query("DELETE FROM responses WHERE policy GLOB ?")
                .bind(format!("{LIVE}*"))
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail("clearing rollouts", e))?;
        });
        Ok(())
    }

    /// Drops the pairs of a set, and their verdicts and preferences.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn clear_pairs(&self, set: &str) -> Result<()> {
        transaction!(self, "clearing pairs", |tx| {
            sqlx::query("DELETE FROM pairs WHERE pair_set = ?")
                .bind(set)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail("clearing pairs", e))?;
        });
        Ok(())
    }

    /// Drops the verdicts of a set; those that came as replies can be read again at no cost.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn clear_verdicts(&self, set: &str) -> Result<()> {
        transaction!(self, "clearing verdicts", |tx| {
            sqlx::query("DELETE FROM verdicts WHERE pair_id IN (SELECT id FROM pairs WHERE pair_set = ?)")
                .bind(set)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail("clearing verdicts", e))?;
        });
        Ok(())
    }

    /// Drops the preferences of a set.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn clear_preferences(&self, set: &str) -> Result<()> {
        transaction!(self, "clearing preferences", |tx| {
            sqlx::query("DELETE FROM preferences WHERE pair_id IN (SELECT id FROM pairs WHERE pair_set = ?)")
                .bind(set)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail("clearing preferences", e))?;
        });
        Ok(())
    }
}
