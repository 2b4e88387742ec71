//! Pairs, in named sets: the training pairs, and one set for each comparison of policies.

use super::{Store, transaction};
use crate::Result;
use rlaif_core::records::Pair;

/// The set of pairs that labels are made of; evaluations use sets of their own, such as `ppo`.
pub const TRAIN_PAIRS: &str = "train";

/// Two responses that were too near each other to become a pair.
#[derive(Debug, Clone, PartialEq)]
pub struct DroppedPair {
    /// A response.
    pub a: String,
    /// The other.
    pub b: String,
    /// Their distance in [0, 1].
    pub distance: f64,
}

impl Store {
    /// Stores pairs of a set. Those that are there already stay.
    ///
    /// # Errors
    /// If a response is not in the ledger, or an id belongs to another pair.
    pub async fn put_pairs(&self, set: &str, pairs: &[Pair]) -> Result<()> {
        const DOING: &str = "storing pairs";
        transaction!(self, DOING, |tx| {
            for pair in pairs {
                sqlx::query(
                    "INSERT INTO pairs (id, pair_set, prompt_id, a, b) VALUES (?, ?, ?, ?, ?)
                     ON CONFLICT (pair_set, a, b) DO NOTHING",
                )
                .bind(&pair.id)
                .bind(set)
                .bind(&pair.prompt_id)
                .bind(&pair.a)
                .bind(&pair.b)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail_row(DOING, &pair.id, e))?;
            }
        });
        Ok(())
    }

    /// Moves pairs to another set, with all that was said of them. Ids that are not there are passed over.
    ///
    /// # Errors
    /// If the ledger cannot be written, or the set has the same two responses under another id.
    pub async fn move_pairs(&self, set: &str, pairs: &[Pair]) -> Result<()> {
        const DOING: &str = "moving pairs";
        transaction!(self, DOING, |tx| {
            for pair in pairs {
                sqlx::query("UPDATE pairs SET pair_set = ? WHERE id = ?")
                    .bind(set)
                    .bind(&pair.id)
                    .execute(&mut *tx)
                    .await
                    .map_err(|e| self.fail_row(DOING, &pair.id, e))?;
            }
        });
        Ok(())
    }

    /// The pairs of a set, in the order of prompts, then of storing.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn pairs(&self, set: &str) -> Result<Vec<Pair>> {
        let mut connection = self.lock().await;
        let rows: Vec<(String, String, String, String)> = sqlx::query_as(
            "SELECT r.id, r.prompt_id, r.a, r.b FROM pairs r JOIN prompts p ON p.id = r.prompt_id
             WHERE r.pair_set = ? ORDER BY p.seq, r.seq",
        )
        .bind(set)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading pairs", e))?;
        Ok(rows.into_iter().map(|(id, prompt_id, a, b)| Pair { id, prompt_id, a, b }).collect())
    }

    /// Stores what was too near to become a pair.
    ///
    /// # Errors
    /// If a response is not in the ledger.
    pub async fn put_dropped(&self, dropped: &[DroppedPair]) -> Result<()> {
        const DOING: &str = "storing dropped pairs";
        transaction!(self, DOING, |tx| {
            for pair in dropped {
                sqlx::query("INSERT INTO dropped_pairs VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
                    .bind(&pair.a)
                    .bind(&pair.b)
                    .bind(pair.distance)
                    .execute(&mut *tx)
                    .await
                    .map_err(|e| self.fail_row(DOING, &pair.a, e))?;
            }
        });
        Ok(())
    }

    /// What was too near to become a pair, nearest first.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn dropped_pairs(&self) -> Result<Vec<DroppedPair>> {
        let mut connection = self.lock().await;
        let rows: Vec<(String, String, f64)> =
            sqlx::query_as("SELECT a, b, distance FROM dropped_pairs ORDER BY distance, a, b")
                .fetch_all(&mut *connection)
                .await
                .map_err(|e| self.fail("reading dropped pairs", e))?;
        Ok(rows.into_iter().map(|(a, b, distance)| DroppedPair { a, b, distance }).collect())
    }
}
