//! Prompts and their split.

use super::{Store, from_json, to_json, transaction, word};
use crate::{Result, StoreError};
use rlaif_core::records::{Prompt, Split};

impl Store {
    /// Stores prompts in the order of the user's files. Those that are there already stay where they are.
    ///
    /// # Errors
    /// [`StoreError::PromptChanged`] if an id is taken by a prompt that differs; nothing is stored then.
    pub async fn put_prompts(&self, prompts: &[(Prompt, Split)]) -> Result<()> {
        const DOING: &str = "storing prompts";
        transaction!(self, DOING, |tx| {
            for (prompt, split) in prompts {
                let (text, tags) = (to_json("prompts", &prompt.prompt)?, to_json("prompts", &prompt.tags)?);
                let split = word("prompts", split)?;
                let stored: Option<(String, String, String, Option<String>)> =
                    sqlx::query_as("SELECT split, prompt, tags, reference FROM prompts WHERE id = ?")
                        .bind(&prompt.id)
                        .fetch_optional(&mut *tx)
                        .await
                        .map_err(|e| self.fail(DOING, e))?;
                match stored {
                    Some(stored)
                        if stored
                            == (split.clone(), text.clone(), tags.clone(), prompt.reference.clone()) => {}
                    Some(_) => return Err(StoreError::PromptChanged { id: prompt.id.clone() }),
                    None => {
                        sqlx::query(
                            "INSERT INTO prompts (id, split, prompt, tags, reference) VALUES (?, ?, ?, ?, ?)",
                        )
                        .bind(&prompt.id)
                        .bind(split)
                        .bind(text)
                        .bind(tags)
                        .bind(&prompt.reference)
                        .execute(&mut *tx)
                        .await
                        .map_err(|e| self.fail_row(DOING, &prompt.id, e))?;
                    }
                }
            }
        });
        Ok(())
    }

    /// The prompts of a split that stages use, in the order of the user's files.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn prompts(&self, split: Split) -> Result<Vec<Prompt>> {
        let mut connection = self.lock().await;
        let rows: Vec<PromptRow> = sqlx::query_as(
            "SELECT id, prompt, tags, reference FROM prompts WHERE split = ? AND set_aside IS NULL ORDER BY seq",
        )
        .bind(word("prompts", &split)?)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading prompts", e))?;
        rows.into_iter().map(prompt).collect()
    }

    /// Takes a prompt out of every stage, with the reason: longer than the context, for instance.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn set_aside_prompt(&self, prompt_id: &str, reason: &str) -> Result<()> {
        let mut connection = self.lock().await;
        sqlx::query("UPDATE prompts SET set_aside = ? WHERE id = ?")
            .bind(reason)
            .bind(prompt_id)
            .execute(&mut *connection)
            .await
            .map_err(|e| self.fail("setting a prompt aside", e))?;
        Ok(())
    }

    /// The prompts that were set aside, with their reasons.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn prompts_set_aside(&self) -> Result<Vec<(String, String)>> {
        let mut connection = self.lock().await;
        sqlx::query_as("SELECT id, set_aside FROM prompts WHERE set_aside IS NOT NULL ORDER BY seq")
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| self.fail("reading prompts", e))
    }

    /// The prompts of a split for which a policy has fewer than `n` responses.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn prompts_without_responses(
        &self,
        policy: &str,
        split: Split,
        n: usize,
    ) -> Result<Vec<Prompt>> {
        let mut connection = self.lock().await;
        let rows: Vec<PromptRow> = sqlx::query_as(
            "SELECT id, prompt, tags, reference FROM prompts
             WHERE split = ? AND set_aside IS NULL
               AND (SELECT count(*) FROM responses r WHERE r.prompt_id = prompts.id AND r.policy = ?) < ?
             ORDER BY seq",
        )
        .bind(word("prompts", &split)?)
        .bind(policy)
        .bind(i64::try_from(n).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading prompts", e))?;
        rows.into_iter().map(prompt).collect()
    }
}

type PromptRow = (String, String, String, Option<String>);

fn prompt((id, text, tags, reference): PromptRow) -> Result<Prompt> {
    Ok(Prompt { id, prompt: from_json("prompts", &text)?, tags: from_json("prompts", &tags)?, reference })
}
