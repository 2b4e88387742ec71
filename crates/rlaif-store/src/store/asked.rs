//! What a judge was asked through one template: replies in pages, for whoever reads them or builds the next step on them.

use super::replies::ReplyRow;
use super::{Presentation, Reply, Store, word};
use crate::Result;

/// Which replies: those of one judge through one template on the pairs of one set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The judge's name.
    pub judge: &'a str,
    /// The template's name.
    pub template: &'a str,
    /// The set of pairs.
    pub set: &'a str,
}

/// Everything about a reply and its presentation.
const COLUMNS: &str = "y.id, s.request_key, s.pair_id, s.judge, s.template, s.shown, s.vote, s.step, s.final, q.max_tokens, y.http_status, y.raw";

/// The first reply to each presentation's request, after a place; a request that several presentations share has a row for each. A
/// `CROSS JOIN` is SQLite's word for "in this order": a page begins at its first reply, where any other order would sort the whole set.
const FROM: &str =
    "replies y CROSS JOIN requests q ON q.seq = y.request CROSS JOIN presentations s USING (request_key)
                    CROSS JOIN pairs r ON r.id = s.pair_id
                    WHERE s.judge = ?1 AND s.template = ?2 AND r.pair_set = ?3
                      AND y.id = (SELECT min(z.id) FROM replies z WHERE z.request = q.seq)
                      AND y.id >= ?4 AND (y.id, s.pair_id, s.shown, s.vote, s.step) > (?4, ?5, ?6, ?7, ?8)";

const PAGE: &str = "ORDER BY y.id, s.pair_id, s.shown, s.vote, s.step LIMIT ?9";

impl Store {
    /// A page of the replies that this version of the parser has not read, after the reply `after`.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn unread(
        &self,
        asked: Asked<'_>,
        parser: &str,
        after: Option<&Reply>,
        limit: usize,
    ) -> Result<Vec<Reply>> {
        let unread = "AND CASE WHEN s.final THEN NOT EXISTS (
                          SELECT 1 FROM verdicts v
                          WHERE (v.pair_id, v.judge, v.template, v.shown, v.vote) = (s.pair_id, s.judge, s.template, s.shown, s.vote)
                            AND v.parser = ?10)
                      ELSE q.state = 'received' END";
        self.replies(asked, unread, parser, 0, after, limit).await
    }

    /// A page of the replies to the step before `step` on which that step is still to be planned: it has no request yet, and the
    /// presentation no verdict that this version of the parser gave it instead. After the reply `after`.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn ready_for_step(
        &self,
        asked: Asked<'_>,
        parser: &str,
        step: u32,
        after: Option<&Reply>,
        limit: usize,
    ) -> Result<Vec<Reply>> {
        let ready = "AND s.step = ?11 - 1
                     AND NOT EXISTS (
                         SELECT 1 FROM presentations n
                         WHERE (n.pair_id, n.judge, n.template, n.shown, n.vote, n.step)
                             = (s.pair_id, s.judge, s.template, s.shown, s.vote, ?11))
                     AND NOT EXISTS (
                         SELECT 1 FROM verdicts v
                         WHERE (v.pair_id, v.judge, v.template, v.shown, v.vote) = (s.pair_id, s.judge, s.template, s.shown, s.vote)
                           AND v.parser = ?10)";
        self.replies(asked, ready, parser, step, after, limit).await
    }

    /// A page of all replies, read or not, after the reply `after`.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn all_replies(
        &self,
        asked: Asked<'_>,
        after: Option<&Reply>,
        limit: usize,
    ) -> Result<Vec<Reply>> {
        self.replies(asked, "", "", 0, after, limit).await
    }

    /// The raw replies to the steps of a presentation before `step`, each with the most tokens that it could have, in their order; fewer
    /// where one has none.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn earlier_replies(&self, shown: &Presentation, step: u32) -> Result<Vec<(Vec<u8>, u32)>> {
        let mut connection = self.lock().await;
        sqlx::query_as(
            "SELECT y.raw, q.max_tokens FROM presentations s JOIN requests q USING (request_key) JOIN replies y ON y.request = q.seq
             WHERE (s.pair_id, s.judge, s.template, s.shown, s.vote) = (?, ?, ?, ?, ?) AND s.step < ?
               AND y.id = (SELECT min(z.id) FROM replies z WHERE z.request = q.seq)
             ORDER BY s.step",
        )
        .bind(&shown.pair_id)
        .bind(&shown.judge)
        .bind(&shown.template)
        .bind(word("presentations", &shown.order)?)
        .bind(shown.vote)
        .bind(step)
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| self.fail("reading replies", e))
    }

    async fn replies(
        &self,
        asked: Asked<'_>,
        which: &'static str,
        parser: &str,
        step: u32,
        after: Option<&Reply>,
        limit: usize,
    ) -> Result<Vec<Reply>> {
        // Only constants of ours are put into this text.
        let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM {FROM} {which} {PAGE}"));
        let shown = after.map(|reply| &reply.presentation);
        let mut connection = self.lock().await;
        let rows: Vec<ReplyRow> = sqlx::query_as(sql)
            .bind(asked.judge)
            .bind(asked.template)
            .bind(asked.set)
            .bind(after.map_or(0, |reply| reply.reply_id))
            .bind(shown.map_or("", |shown| shown.pair_id.as_str()))
            .bind(shown.map(|shown| word("presentations", &shown.order)).transpose()?.unwrap_or_default())
            .bind(shown.map_or(0, |shown| shown.vote))
            .bind(after.map_or(0, |reply| reply.step))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(parser)
            .bind(step)
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| self.fail("reading replies", e))?;
        rows.into_iter().map(Reply::try_from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{PlannedRequest, TRAIN_PAIRS, VerdictRow};
    use rlaif_core::records::{
        Choice, FinishReason, Order, Pair, Prompt, PromptText, Response, Split, Verdict,
    };

    /// Three pairs of one prompt; the first steps of the first two are the same request.
    async fn filled(folder: &tempfile::TempDir) -> Store {
        let store = Store::open(folder.path().join("rlaif.db")).await.unwrap();
        let prompt =
            Prompt { id: "p".into(), prompt: PromptText::Text("?".into()), tags: vec![], reference: None };
        store.put_prompts(&[(prompt, Split::Train)]).await.unwrap();
        let response = |index: usize| Response {
            id: format!("p/{index}"),
            prompt_id: "p".into(),
            index,
            text: format!("{index}"),
            token_ids: vec![],
            logprobs: vec![],
            finish_reason: FinishReason::Stop,
        };
        store.put_responses("baseline", &(0..4).map(response).collect::<Vec<_>>()).await.unwrap();
        let pairs: Vec<Pair> = (1..4)
            .map(|b| Pair {
                id: format!("p/0-{b}"),
                prompt_id: "p".into(),
                a: "p/0".into(),
                b: format!("p/{b}"),
            })
            .collect();
        store.put_pairs(TRAIN_PAIRS, &pairs).await.unwrap();
        let first: Vec<PlannedRequest> =
            pairs.iter().zip(["same", "same", "other"]).map(|(pair, key)| step(&pair.id, 0, key)).collect();
        store.plan_requests(&first).await.unwrap();
        for key in ["same", "other"] {
            answer(&store, key, key).await;
        }
        store
    }

    fn step(pair_id: &str, step: u32, key: &str) -> PlannedRequest {
        PlannedRequest {
            presentation: Presentation {
                pair_id: pair_id.into(),
                judge: "gpt".into(),
                template: "two".into(),
                order: Order::Ab,
                vote: 0,
            },
            step,
            last_step: step == 1,
            request_key: key.into(),
            body: "{}".into(),
            prompt_tokens_at_most: 1,
            max_tokens: 1,
        }
    }

    async fn answer(store: &Store, key: &str, raw: &str) {
        store.mark_sent(key).await.unwrap();
        store.put_reply(key, 200, raw.as_bytes()).await.unwrap();
    }

    const ASKED: Asked<'static> = Asked { judge: "gpt", template: "two", set: TRAIN_PAIRS };

    fn pairs(replies: &[Reply]) -> Vec<&str> {
        replies.iter().map(|reply| reply.presentation.pair_id.as_str()).collect()
    }

    #[tokio::test]
    async fn a_shared_reply_is_there_for_every_presentation_page_by_page() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(&folder).await;
        let mut seen = Vec::new();
        let mut after: Option<Reply> = None;
        loop {
            let page = store.all_replies(ASKED, after.as_ref(), 1).await.unwrap();
            seen.extend(page.iter().map(|reply| reply.presentation.pair_id.clone()));
            let Some(last) = page.into_iter().next_back() else { break };
            after = Some(last);
        }
        assert_eq!(seen, ["p/0-1", "p/0-2", "p/0-3"]);
        let other = Asked { template: "one", ..ASKED };
        assert_eq!(store.all_replies(other, None, 9).await.unwrap(), []);
        assert_eq!(store.all_replies(Asked { set: "probe", ..ASKED }, None, 9).await.unwrap(), []);
    }

    /// At a million replies a page may not look at those before it, nor sort those behind it.
    #[tokio::test]
    async fn a_page_costs_no_more_than_itself() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(&folder).await;
        let mut connection = store.lock().await;
        let sql = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN SELECT {COLUMNS} FROM {FROM} {PAGE}"));
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sql).fetch_all(&mut *connection).await.unwrap();
        let plan: Vec<String> = rows.into_iter().map(|row| row.3).collect();
        assert_eq!(plan[0], "SEARCH y USING INTEGER PRIMARY KEY (rowid>?)", "{plan:?}");
        assert!(
            !plan.iter().any(|step| step.contains("SCAN") || step == "USE TEMP B-TREE FOR ORDER BY"),
            "{plan:?}"
        );
    }

    #[tokio::test]
    async fn a_step_is_ready_until_it_is_planned_or_the_question_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(&folder).await;
        let ready = store.ready_for_step(ASKED, "v1", 1, None, 9).await.unwrap();
        assert_eq!(pairs(&ready), ["p/0-1", "p/0-2", "p/0-3"]);
        store.plan_requests(&[step("p/0-1", 1, "next")]).await.unwrap();
        let shown = ready[1].presentation.clone();
        let ended = VerdictRow {
            pair_id: shown.pair_id,
            judge: shown.judge,
            template: shown.template,
            order: shown.order,
            vote: shown.vote,
            verdict: Verdict::choice(Choice::Tie),
        };
        store.put_verdicts("v1", &[ended]).await.unwrap();
        assert_eq!(pairs(&store.ready_for_step(ASKED, "v1", 1, None, 9).await.unwrap()), ["p/0-3"]);
        // Another parser looks again at what ended.
        assert_eq!(pairs(&store.ready_for_step(ASKED, "v2", 1, None, 9).await.unwrap()), ["p/0-2", "p/0-3"]);

        answer(&store, "next", "verdict").await;
        let unread = store.unread(ASKED, "v1", None, 9).await.unwrap();
        let last = unread.iter().find(|reply| reply.last_step).unwrap();
        assert_eq!((unread.len(), last.raw.as_slice()), (4, "verdict".as_bytes()));
        let earlier = store.earlier_replies(&last.presentation, last.step).await.unwrap();
        assert_eq!(earlier, [(b"same".to_vec(), 1)]);
        store.put_verdict(last, "v1", &Verdict::choice(Choice::First), None, None).await.unwrap();
        for reply in unread.iter().filter(|reply| !reply.last_step) {
            store.put_usage(reply.reply_id, None, None).await.unwrap();
        }
        assert_eq!(store.unread(ASKED, "v1", None, 9).await.unwrap(), []);
        assert_eq!(pairs(&store.unread(ASKED, "v2", None, 9).await.unwrap()), ["p/0-1"]);
    }
}
