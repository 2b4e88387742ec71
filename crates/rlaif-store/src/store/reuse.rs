//! Replies that another run has bought. The same request gets the same answer, whoever paid for it.

use super::{MIGRATIONS, Store, to_json, transaction};
use crate::{Result, StoreError};
use rlaif_core::clock::now_ms;
use rlaif_core::failpoint;
use sqlx::FromRow;
use std::path::Path;

/// A reply that was of use to the run that bought it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct GoodReply {
    /// The key of its request.
    pub request_key: String,
    /// HTTP status.
    pub http_status: u16,
    /// The body, byte for byte.
    pub raw: Vec<u8>,
}

impl Store {
    /// Opens the ledger of another run to take replies from it. It may be at work: readers of a write-ahead log hold up no writer.
    ///
    /// # Errors
    /// As [`Store::open_read_only`], and if another version of this program laid it out.
    pub async fn open_to_reuse(path: impl AsRef<Path>) -> Result<Self> {
        let store = Self::open_read_only(path).await?;
        let (found, known) = (store.layout().await?, MIGRATIONS.len() as i64);
        match found < known {
            true => Err(StoreError::Older { path: store.path, found, known }),
            false => Ok(store),
        }
    }

    /// The replies to requests of these keys that were read and found to be of use.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn good_replies(&self, keys: &[&str]) -> Result<Vec<GoodReply>> {
        let keys = to_json("requests", &keys)?;
        let mut connection = self.lock().await;
        // Of several replies to a request the first is the one that is read.
        sqlx::query_as(
            "SELECT q.request_key, y.http_status, y.raw
             FROM requests q JOIN replies y ON y.request = q.seq
                  JOIN attempts t ON t.request = y.request AND t.attempt = y.attempt
             WHERE q.request_key IN (SELECT value FROM json_each(?)) AND t.class = 'billed_good'
               AND y.id = (SELECT min(id) FROM replies WHERE request = q.seq)
             ORDER BY q.seq",
        )
        .bind(keys)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("looking for replies to reuse", e))
    }

    /// Stores replies of another run to requests that are still to be sent, at no cost. `origin` says where they were taken from.
    /// Returns how many were needed.
    ///
    /// # Errors
    /// If they cannot be written.
    pub async fn put_reused(&self, stage: &str, origin: &str, replies: &[GoodReply]) -> Result<u64> {
        const DOING: &str = "storing replies of another run";
        let now = now_ms();
        let mut count = 0;
        transaction!(self, DOING, |tx| {
            for reply in replies {
                let request: Option<i64> = sqlx::query_scalar(
                    "UPDATE requests SET state = 'received', failure_class = NULL, failure = NULL, not_before_ms = NULL
                     WHERE request_key = ? AND state = 'planned'
                       AND NOT EXISTS (SELECT 1 FROM replies WHERE request = requests.seq)
                     RETURNING seq",
                )
                .bind(&reply.request_key)
                .fetch_optional(&mut *tx)
                .await
                .map_err(|e| self.fail_row(DOING, &reply.request_key, e))?;
                let Some(request) = request else { continue };
                sqlx::query(
                    "INSERT INTO replies (request, attempt, http_status, raw, cost_micro_usd, origin) VALUES (?, 0, ?, ?, 0, ?)",
                )
                .bind(request)
                .bind(reply.http_status)
                .bind(&reply.raw)
                .bind(origin)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail_row(DOING, &reply.request_key, e))?;
                // What is read of it is noted here, as for those that were bought.
                sqlx::query(
                    "INSERT INTO attempts (request, attempt, stage, session, http_status, reserved, charged, ended_ms)
                     VALUES (?, 0, ?, ?, ?, 0, 0, ?)",
                )
                .bind(request)
                .bind(stage)
                .bind(self.session)
                .bind(reply.http_status)
                .bind(now)
                .execute(&mut *tx)
                .await
                .map_err(|e| self.fail_row(DOING, &reply.request_key, e))?;
                count += 1;
            }
            failpoint::hit("store/in_reuse");
        });
        Ok(count)
    }
}
