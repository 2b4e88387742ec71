//! What endpoints hold answers to, and the requests that found it out. They are paid like all others, though no pair needs them.

use super::requests::RequestRow;
use super::{NewRequest, Request, Store, transaction};
use crate::Result;
use rlaif_core::money::Usage;
use rlaif_core::{MicroUsd, failpoint};
use sqlx::{AssertSqlSafe, FromRow};

/// What was found of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Capability {
    /// The form that was asked for, in a word.
    pub form: String,
    /// Whether the answer had it.
    pub obeyed: bool,
    /// Why the form is not used, in words.
    pub complaint: Option<String>,
}

/// Where a request stands that no pair needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lone {
    /// To be sent.
    Open(Request),
    /// Answered: the number of the reply in the ledger, and its body.
    Replied(i64, Vec<u8>),
    /// Given up.
    Failed {
        /// Why, in a word.
        class: String,
        /// Why, in a sentence.
        message: String,
    },
}

/// What was read from a reply that no pair needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoneReading<'a> {
    /// The number of the reply in the ledger.
    pub reply_id: i64,
    /// Tokens, where the provider counted them.
    pub usage: Option<Usage>,
    /// What it cost; `None` if that is unknown.
    pub cost: Option<MicroUsd>,
    /// Who answered, by its own word.
    pub model: Option<&'a str>,
}

impl Store {
    /// What is known of a model at an endpoint.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn capabilities(&self, endpoint: &str, model: &str) -> Result<Vec<Capability>> {
        let mut connection = self.lock().await;
        sqlx::query_as(
            "SELECT form, obeyed, complaint FROM capabilities WHERE endpoint = ? AND model = ? ORDER BY form",
        )
        .bind(endpoint)
        .bind(model)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading what an endpoint can do", e))
    }

    /// Remembers what was found of a model at an endpoint, with the reply that said so where there is one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn put_capability(
        &self,
        endpoint: &str,
        model: &str,
        found: &Capability,
        reading: Option<LoneReading<'_>>,
    ) -> Result<()> {
        const DOING: &str = "noting what an endpoint can do";
        transaction!(self, DOING, |tx| {
            if let Some(LoneReading { reply_id, usage, cost, model }) = reading {
                self.put_usage_in(&mut tx, reply_id, usage, cost).await?;
                self.classify_in(&mut tx, reply_id, None, model).await?;
            }
            sqlx::query(
                "INSERT INTO capabilities (endpoint, model, form, obeyed, complaint) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET obeyed = excluded.obeyed, complaint = excluded.complaint, found_at = excluded.found_at",
            )
            .bind(endpoint)
            .bind(model)
            .bind(&found.form)
            .bind(found.obeyed)
            .bind(&found.complaint)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail(DOING, e))?;
        });
        failpoint::hit("store/capability");
        Ok(())
    }

    /// Plans a request that no pair needs, or says what became of it. One that was given up is planned again, unless it was possibly
    /// billed and `resend` does not allow to pay for it twice.
    ///
    /// # Errors
    /// If the ledger cannot be read or written.
    pub async fn plan_lone(&self, lone: NewRequest<'_>, resend: bool) -> Result<Lone> {
        const DOING: &str = "planning a request";
        transaction!(self, DOING, |tx| {
            self.put_request_in(&mut tx, DOING, lone).await?;
            sqlx::query(AssertSqlSafe(format!(
                "UPDATE requests SET {} WHERE request_key = ? AND state = 'failed' AND (? OR lost_sends = 0)",
                super::requests::PLANNED_AGAIN
            )))
            .bind(lone.request_key)
            .bind(resend)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.fail_row(DOING, lone.request_key, e))?;
        });
        self.lone(lone.request_key).await
    }

    /// Where a request stands that no pair needs.
    ///
    /// # Errors
    /// If the ledger cannot be read, or the request is not in it.
    pub async fn lone(&self, request_key: &str) -> Result<Lone> {
        const DOING: &str = "reading a request";
        let mut connection = self.lock().await;
        let reply: Option<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT y.id, y.raw FROM replies y JOIN requests q ON q.seq = y.request
             WHERE q.request_key = ? ORDER BY y.id LIMIT 1",
        )
        .bind(request_key)
        .fetch_optional(&mut *connection)
        .await
        .map_err(|e| self.fail_row(DOING, request_key, e))?;
        if let Some((id, raw)) = reply {
            return Ok(Lone::Replied(id, raw));
        }
        let failed: Option<(String, String)> = sqlx::query_as(
            "SELECT coalesce(failure_class, ''), coalesce(failure, '') FROM requests
             WHERE request_key = ? AND state = 'failed'",
        )
        .bind(request_key)
        .fetch_optional(&mut *connection)
        .await
        .map_err(|e| self.fail_row(DOING, request_key, e))?;
        if let Some((class, message)) = failed {
            return Ok(Lone::Failed { class, message });
        }
        let sql = format!(
            "{} FROM requests q JOIN request_bodies b USING (seq) WHERE q.request_key = ?",
            super::requests::PAGE
        );
        let row: RequestRow = sqlx::query_as(AssertSqlSafe(sql))
            .bind(request_key)
            .fetch_one(&mut *connection)
            .await
            .map_err(|e| self.fail_row(DOING, request_key, e))?;
        Ok(Lone::Open(row.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{CallEvent, RequestFailure};

    const LONE: NewRequest<'static> = NewRequest {
        judge: "gpt",
        request_key: "probe",
        body: "{\"model\":\"m\"}",
        prompt_tokens_at_most: 40,
        max_tokens: 64,
    };

    async fn open(folder: &tempfile::TempDir) -> Store {
        Store::open(folder.path().join("rlaif.db")).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_found_is_remembered_by_endpoint_and_model() {
        let folder = tempfile::tempdir().unwrap();
        let found = |form: &str, obeyed: bool| Capability {
            form: form.into(),
            obeyed,
            complaint: (!obeyed).then(|| "the endpoint ignores it".into()),
        };
        let store = open(&folder).await;
        store.put_capability("openai http://a", "m", &found("json_schema", true), None).await.unwrap();
        store.put_capability("openai http://a", "m", &found("choice", true), None).await.unwrap();
        store.put_capability("openai http://a", "m", &found("choice", false), None).await.unwrap();
        drop(store);
        let store = open(&folder).await;
        let known = store.capabilities("openai http://a", "m").await.unwrap();
        assert_eq!(known, [found("choice", false), found("json_schema", true)]);
        assert_eq!(store.capabilities("openai http://a", "other").await.unwrap(), []);
        assert_eq!(store.capabilities("anthropic http://a", "m").await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_request_of_no_pair_is_bought_once_and_counted_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder).await;
        let Lone::Open(request) = store.plan_lone(LONE, true).await.unwrap() else { panic!("it is new") };
        assert_eq!((request.body.as_str(), request.attempts, request.max_tokens), (LONE.body, 0, 64));
        let claimed = CallEvent::Claimed { request: request.seq, attempt: 1, reserved: Some(MicroUsd(9)) };
        store.commit_calls("label", "gpt", &[claimed]).await.unwrap();
        drop(store); // the process dies

        let store = open(&folder).await;
        assert_eq!(store.charged("label").await.unwrap().0, MicroUsd(9), "it may have been billed");
        let Lone::Open(again) = store.plan_lone(LONE, true).await.unwrap() else { panic!("it has no reply") };
        assert_eq!((again.seq, again.attempts, again.resends), (request.seq, 1, 1));
        let event = |attempt| CallEvent::Replied {
            request: request.seq,
            attempt,
            http_status: 200,
            raw: b"{}",
            usage: None,
            cost: None,
            charged: Some(MicroUsd(9)),
            spooled: None,
        };
        let claimed = CallEvent::Claimed { request: request.seq, attempt: 2, reserved: Some(MicroUsd(9)) };
        store.commit_calls("label", "gpt", &[claimed]).await.unwrap();
        store.commit_calls("label", "gpt", &[event(2)]).await.unwrap();
        let Lone::Replied(reply_id, raw) = store.plan_lone(LONE, true).await.unwrap() else {
            panic!("answered")
        };
        assert_eq!(raw, b"{}");
        let usage = Usage { prompt_tokens: 3, completion_tokens: 2, ..Usage::default() };
        let reading =
            LoneReading { reply_id, usage: Some(usage), cost: Some(MicroUsd(5)), model: Some("m-1") };
        let found = Capability { form: "choice".into(), obeyed: true, complaint: None };
        store.put_capability("openai http://a", "m", &found, Some(reading)).await.unwrap();
        assert_eq!(
            store.charged("label").await.unwrap().0,
            MicroUsd(9 + 5),
            "what was lost, and what it cost"
        );
        let spend = store.spend().await.unwrap();
        assert_eq!((spend.calls, spend.known, spend.possibly_billed), (1, MicroUsd(5), 1));
        let mut connection = store.lock().await;
        let class: String = sqlx::query_scalar("SELECT class FROM attempts WHERE attempt = 2")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        assert_eq!(class, "billed_good");
    }

    #[tokio::test]
    async fn one_that_was_given_up_is_planned_again_where_that_may_be_paid() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder).await;
        let Lone::Open(request) = store.plan_lone(LONE, true).await.unwrap() else { panic!("it is new") };
        let give_up = |maybe_billed| {
            let failure = RequestFailure { class: "bad_request", message: "no such field", maybe_billed };
            CallEvent::GivenUp { request: request.seq, failure }
        };
        store.commit_calls("label", "gpt", &[give_up(false)]).await.unwrap();
        let want = Lone::Failed { class: "bad_request".into(), message: "no such field".into() };
        assert_eq!(store.lone("probe").await.unwrap(), want);
        assert_eq!(store.retry_failed("gpt", true).await.unwrap(), 0, "no pair needs it");
        assert!(matches!(store.plan_lone(LONE, false).await.unwrap(), Lone::Open(_)), "it cost nothing");

        let claimed = CallEvent::Claimed { request: request.seq, attempt: 1, reserved: None };
        store.commit_calls("label", "gpt", &[claimed]).await.unwrap();
        drop(store); // possibly billed
        let store = open(&folder).await;
        store.commit_calls("label", "gpt", &[give_up(true)]).await.unwrap();
        assert!(matches!(store.plan_lone(LONE, false).await.unwrap(), Lone::Failed { .. }));
        assert!(matches!(store.plan_lone(LONE, true).await.unwrap(), Lone::Open(_)));
    }
}
