use super::*;
use rlaif_core::MicroUsd;
use rlaif_core::money::Usage;
use rlaif_core::records::{
    Choice, Fate, FinishReason, NoVerdict, Order, Pair, Preference, Prompt, PromptText, Response, Split,
    Verdict,
};
use std::path::PathBuf;

pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn db(&self) -> PathBuf {
        self.0.path().join("rlaif.db")
    }

    pub(super) async fn open(&self) -> Store {
        Store::open(self.db()).await.unwrap()
    }

    /// What a killed process leaves: a copy of the files as they are on the disk while the store is still open.
    pub(super) async fn after_kill(&self) -> (Self, Store) {
        let copy = Self::new();
        for entry in std::fs::read_dir(self.0.path()).unwrap() {
            let entry = entry.unwrap();
            // The -shm file is shared memory, rebuilt from the log by whoever opens it next.
            if !entry.file_name().to_string_lossy().ends_with("-shm") {
                std::fs::copy(entry.path(), copy.0.path().join(entry.file_name())).unwrap();
            }
        }
        let store = copy.open().await;
        (copy, store)
    }
}

pub(super) fn prompt(id: &str) -> Prompt {
    Prompt {
        id: id.into(),
        prompt: PromptText::Text(format!("What is {id}?")),
        tags: vec![],
        reference: None,
    }
}

fn response(policy: &str, prompt_id: &str, index: usize) -> Response {
    let prefix = if policy == BASELINE { String::new() } else { format!("{policy}:") };
    Response {
        id: format!("{prefix}{prompt_id}/{index}"),
        prompt_id: prompt_id.into(),
        index,
        text: format!("{policy} says {index}"),
        token_ids: vec![1, 70_000, u32::MAX],
        logprobs: vec![-0.25, -1e-9, f32::NEG_INFINITY],
        finish_reason: FinishReason::Stop,
    }
}

fn pair(prompt_id: &str, a: usize, b: usize) -> Pair {
    Pair {
        id: format!("{prompt_id}/{a}-{b}"),
        prompt_id: prompt_id.into(),
        a: format!("{prompt_id}/{a}"),
        b: format!("{prompt_id}/{b}"),
    }
}

pub(super) fn plan(pair_id: &str, order: Order, key: &str) -> PlannedRequest {
    vote_of(pair_id, order, 0, key)
}

pub(super) fn vote_of(pair_id: &str, order: Order, vote: u32, key: &str) -> PlannedRequest {
    let (judge, template) = ("gpt".into(), "explain".into());
    PlannedRequest {
        presentation: Presentation { pair_id: pair_id.into(), judge, template, order, vote },
        step: 0,
        last_step: true,
        request_key: key.into(),
        body: format!("{{\"key\":\"{key}\"}}"),
        prompt_tokens_at_most: 100,
        max_tokens: 10,
    }
}

/// All requests of the judge that training pairs wait for.
pub(super) async fn planned(store: &Store) -> Vec<Request> {
    store.planned("gpt", TRAIN_PAIRS, 0, 100).await.unwrap()
}

/// Two training prompts and one held out; three baseline responses each, in reverse order of storing; three pairs.
pub(super) async fn fill(store: &Store) {
    let prompts = [(prompt("p1"), Split::Train), (prompt("e1"), Split::Eval), (prompt("p2"), Split::Train)];
    store.put_prompts(&prompts).await.unwrap();
    for id in ["p2", "e1", "p1"] {
        let responses: Vec<_> = (0..3).map(|index| response(BASELINE, id, index)).collect();
        store.put_responses(BASELINE, &responses).await.unwrap();
    }
    let pairs = [pair("p2", 0, 1), pair("p1", 0, 1), pair("p1", 0, 2)];
    store.put_pairs(TRAIN_PAIRS, &pairs).await.unwrap();
}

#[tokio::test]
async fn pairs_move_between_sets_with_what_was_said_of_them() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let verdict = VerdictRow {
        pair_id: "p1/0-1".into(),
        judge: "cheap".into(),
        template: "explain".into(),
        order: Order::Ab,
        vote: 0,
        verdict: Verdict::choice(Choice::First),
    };
    store.put_verdicts("v1", std::slice::from_ref(&verdict)).await.unwrap();
    store.move_pairs("pool", &[pair("p1", 0, 1), pair("p1", 1, 2)]).await.unwrap();
    assert_eq!(store.pairs("pool").await.unwrap(), [pair("p1", 0, 1)], "what is not there is passed over");
    assert_eq!(store.pairs(TRAIN_PAIRS).await.unwrap(), [pair("p1", 0, 2), pair("p2", 0, 1)]);
    assert_eq!(store.verdicts("pool").await.unwrap(), [verdict]);
    assert_eq!(store.verdicts(TRAIN_PAIRS).await.unwrap(), []);
}

pub(super) fn keys(requests: &[Request]) -> Vec<&str> {
    requests.iter().map(|request| request.request_key.as_str()).collect()
}

#[tokio::test]
async fn inserts_can_be_repeated_and_order_is_that_of_the_prompts() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let first = (
        store.prompts(Split::Train).await.unwrap(),
        store.responses(BASELINE, None).await.unwrap(),
        store.pairs(TRAIN_PAIRS).await.unwrap(),
    );
    fill(&store).await;
    let again = (
        store.prompts(Split::Train).await.unwrap(),
        store.responses(BASELINE, None).await.unwrap(),
        store.pairs(TRAIN_PAIRS).await.unwrap(),
    );
    assert_eq!(first, again);
    assert_eq!(again.0, [prompt("p1"), prompt("p2")]);
    assert_eq!(
        again.1.iter().map(|r| r.id.as_str()).collect::<Vec<_>>()[..4],
        ["p1/0", "p1/1", "p1/2", "e1/0"]
    );
    assert_eq!(again.1[0], response(BASELINE, "p1", 0));
    assert_eq!(again.2, [pair("p1", 0, 1), pair("p1", 0, 2), pair("p2", 0, 1)]);
    assert_eq!(store.count_responses(BASELINE, Some(Split::Eval)).await.unwrap(), 3);
}

#[tokio::test]
async fn a_changed_prompt_is_refused_and_nothing_of_the_batch_is_stored() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let changed = Prompt { prompt: PromptText::Text("Another?".into()), ..prompt("p1") };
    let error =
        store.put_prompts(&[(prompt("new"), Split::Train), (changed, Split::Train)]).await.unwrap_err();
    assert!(matches!(error, StoreError::PromptChanged { id } if id == "p1"));
    let error = store.put_prompts(&[(prompt("e1"), Split::Train)]).await.unwrap_err();
    assert!(
        matches!(error, StoreError::PromptChanged { .. }),
        "a held-out prompt must not slip into training"
    );
    assert_eq!(store.prompts(Split::Train).await.unwrap().len(), 2);
}

#[tokio::test]
async fn rows_that_hang_in_the_air_are_refused_by_name() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let lost = store.put_responses(BASELINE, &[response(BASELINE, "nobody", 0)]).await.unwrap_err();
    assert!(matches!(&lost, StoreError::Conflict { id, .. } if id == "nobody/0"), "{lost}");
    let taken = Response { id: "p1/0".into(), ..response(PPO, "p1", 0) };
    let taken = store.put_responses(PPO, &[taken]).await.unwrap_err();
    assert!(matches!(&taken, StoreError::Conflict { what, .. } if what.contains("responses.id")), "{taken}");
    assert!(store.put_pairs(TRAIN_PAIRS, &[pair("p1", 0, 9)]).await.is_err());
    assert!(store.put_pairs(TRAIN_PAIRS, &[pair("p1", 1, 1)]).await.is_err());
}

#[tokio::test]
async fn prompts_without_enough_responses_are_those_still_to_do() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let todo = |policy: &'static str, split, n| {
        let store = &store;
        async move {
            let prompts = store.prompts_without_responses(policy, split, n).await.unwrap();
            prompts.into_iter().map(|prompt| prompt.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(todo(BASELINE, Split::Train, 3).await, [""; 0]);
    assert_eq!(todo(BASELINE, Split::Train, 4).await, ["p1", "p2"]);
    assert_eq!(todo(PPO, Split::Eval, 1).await, ["e1"]);
    store.set_aside_prompt("p1", "1200 tokens, context is 1024").await.unwrap();
    assert_eq!(todo(BASELINE, Split::Train, 4).await, ["p2"]);
    assert_eq!(
        store.prompts_set_aside().await.unwrap(),
        [("p1".to_owned(), "1200 tokens, context is 1024".to_owned())]
    );
}

#[tokio::test]
async fn a_reply_is_never_bought_twice() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let plans = [
        plan("p2/0-1", Order::Ab, "k3"),
        plan("p1/0-1", Order::Ab, "k1"),
        plan("p1/0-1", Order::Ba, "k2"),
        // The same two texts under another pair: the same question.
        plan("p1/0-2", Order::Ab, "k1"),
    ];
    assert_eq!(store.plan_requests(&plans).await.unwrap(), PlanSummary { new: 3, answered: 0 });
    assert_eq!(keys(&planned(&store).await), ["k3", "k1", "k2"], "in the order of planning");

    store.mark_sent("k1").await.unwrap();
    let reply_id = store.put_reply("k1", 200, b"{\"raw\": 1}\xff").await.unwrap();
    assert_eq!(store.plan_requests(&plans).await.unwrap(), PlanSummary { new: 0, answered: 2 });
    assert_eq!(keys(&planned(&store).await), ["k3", "k2"]);
    // Even marked by mistake, it is not sent again.
    store.mark_sent("k1").await.unwrap();
    assert_eq!(keys(&planned(&store).await), ["k3", "k2"]);

    // Read before it is judged; then judged for both presentations at once.
    let unread = store.unread_replies("v1", 10).await.unwrap();
    assert_eq!(
        unread.iter().map(|reply| reply.presentation.pair_id.as_str()).collect::<Vec<_>>(),
        ["p1/0-1", "p1/0-2"],
        "one reply, read for each presentation that shares it"
    );
    assert_eq!((unread[0].reply_id, unread[0].raw.as_slice()), (reply_id, &b"{\"raw\": 1}\xff"[..]));
    let verdict = Verdict { p_first: Some(0.8), ..Verdict::choice(Choice::First) };
    for reply in &unread {
        store.put_verdict(reply, "v1", &verdict, None, None).await.unwrap();
    }
    assert_eq!(store.unread_replies("v1", 10).await.unwrap(), []);
    let verdicts = store.verdicts(TRAIN_PAIRS).await.unwrap();
    assert_eq!(verdicts.iter().map(|row| row.pair_id.as_str()).collect::<Vec<_>>(), ["p1/0-1", "p1/0-2"]);
    assert!(verdicts.iter().all(|row| row.verdict == verdict && row.order == Order::Ab));

    // A better parser, dropped verdicts or a cleared stage read what was bought.
    assert_eq!(store.unread_replies("v2", 10).await.unwrap().len(), 2);
    store.clear_verdicts(TRAIN_PAIRS).await.unwrap();
    assert_eq!(store.unread_replies("v1", 10).await.unwrap().len(), 2);
    store.clear_prompts().await.unwrap();
    assert_eq!(store.unread_replies("v1", 10).await.unwrap(), []);
    assert_eq!(store.spend().await.unwrap().calls, 1);
    fill(&store).await;
    assert_eq!(store.plan_requests(&plans).await.unwrap(), PlanSummary { new: 0, answered: 2 });
    assert_eq!(keys(&planned(&store).await), ["k3", "k2"]);
    assert_eq!(store.unread_replies("v1", 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_changed_question_replaces_the_old_one() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    store.plan_requests(&[plan("p1/0-1", Order::Ab, "old")]).await.unwrap();
    store.plan_requests(&[plan("p1/0-1", Order::Ab, "new")]).await.unwrap();
    assert_eq!(keys(&planned(&store).await), ["new"]);
}

#[tokio::test]
async fn what_was_in_flight_when_killed_is_possibly_billed_and_planned_again() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    store
        .plan_requests(&[
            plan("p1/0-1", Order::Ab, "k1"),
            plan("p1/0-1", Order::Ba, "k2"),
            plan("p2/0-1", Order::Ab, "k3"),
        ])
        .await
        .unwrap();
    for key in ["k1", "k2", "k3"] {
        store.mark_sent(key).await.unwrap();
    }
    store.put_reply("k1", 200, b"one").await.unwrap();
    store.release_request("k3").await.unwrap();

    let (folder, survivor) = folder.after_kill().await;
    assert_eq!(keys(&planned(&survivor).await), ["k2", "k3"]);
    assert_eq!(planned(&survivor).await[0].attempts, 1);
    assert_eq!(survivor.unread_replies("v1", 10).await.unwrap()[0].raw, b"one");
    let lost = LostRequest {
        request_key: "k2".into(),
        judge: "gpt".into(),
        lost_sends: 1,
        state: RequestState::Planned,
    };
    assert_eq!(survivor.possibly_billed().await.unwrap(), [lost]);

    // Sent again and answered: it was still possibly billed twice.
    survivor.mark_sent("k2").await.unwrap();
    survivor.put_reply("k2", 200, b"two").await.unwrap();
    survivor.close().await.unwrap();
    let survivor = folder.open().await;
    let spend = survivor.spend().await.unwrap();
    assert_eq!((spend.calls, spend.possibly_billed), (2, 1));
    assert_eq!(survivor.possibly_billed().await.unwrap()[0].state, RequestState::Received);
}

#[tokio::test]
async fn costs_add_up_and_an_unknown_one_is_not_zero() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let plans =
        [plan("p1/0-1", Order::Ab, "k1"), plan("p1/0-1", Order::Ba, "k2"), plan("p2/0-1", Order::Ab, "k3")];
    store.plan_requests(&plans).await.unwrap();
    let verdict = Verdict::choice(Choice::Second);
    let usage = Usage {
        prompt_tokens: 100,
        cached_tokens: 10,
        completion_tokens: 20,
        reasoning_tokens: 5,
        ..Usage::default()
    };
    for (key, usage, cost) in [("k1", Some(usage), Some(MicroUsd(150))), ("k2", None, None)] {
        store.mark_sent(key).await.unwrap();
        store.put_reply(key, 200, key.as_bytes()).await.unwrap();
        let unread = store.unread_replies("v1", 1).await.unwrap();
        store.put_verdict(&unread[0], "v1", &verdict, usage, cost).await.unwrap();
    }
    store.mark_sent("k3").await.unwrap();
    let failure = RequestFailure { class: "timeout", message: "no answer in 120 s", maybe_billed: true };
    store.fail_request("k3", &failure).await.unwrap();

    let want =
        Spend { calls: 2, known: MicroUsd(150), unknown_calls: 1, possibly_billed: 1, usage, reused: 0 };
    assert_eq!(store.spend().await.unwrap(), want);
    assert_eq!(store.spend_by_judge().await.unwrap()["gpt"], want);

    // A failed request is a verdict that says so, and is asked again only on demand.
    let verdicts = store.verdicts(TRAIN_PAIRS).await.unwrap();
    assert_eq!(verdicts[2].verdict, Verdict::none(NoVerdict::Failed("no answer in 120 s".into())));
    let counts = store.request_counts(TRAIN_PAIRS).await.unwrap();
    let count = |state, failure_class: Option<&str>, count| RequestCount {
        judge: "gpt".into(),
        state,
        failure_class: failure_class.map(str::to_owned),
        count,
    };
    assert_eq!(
        counts,
        [count(RequestState::Failed, Some("timeout"), 1), count(RequestState::Judged, None, 2)]
    );
    assert_eq!(planned(&store).await, []);
    assert_eq!(store.retry_failed("gpt", true).await.unwrap(), 1);
    assert_eq!(keys(&planned(&store).await), ["k3"]);

    // A late reply to a request that was given up is kept and read.
    store.fail_request("k3", &failure).await.unwrap();
    store.put_reply("k3", 200, b"late").await.unwrap();
    assert_eq!(store.unread_replies("v1", 10).await.unwrap()[0].raw, b"late");
}

#[tokio::test]
async fn preferences_are_turned_to_the_better_response() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let preference = |pair: Pair, p: Option<f64>, fate| Preference {
        pair_id: pair.id,
        prompt_id: pair.prompt_id,
        p,
        spread: None,
        fate,
        judges: vec!["tone".into()],
        explanation: None,
    };
    let preferences = [
        preference(pair("p1", 0, 1), Some(0.25), Fate::Kept),
        preference(pair("p1", 0, 2), Some(0.9), Fate::Inconsistent),
        preference(pair("p2", 0, 1), Some(0.75), Fate::Kept),
    ];
    store.put_preferences(&preferences).await.unwrap();
    store.put_preferences(&preferences).await.unwrap();
    assert_eq!(store.preferences(TRAIN_PAIRS).await.unwrap(), preferences);

    let pairs = store.preferred_pairs(TRAIN_PAIRS).await.unwrap();
    assert_eq!(pairs.len(), 2, "what was not kept is no training data");
    assert_eq!(
        (pairs[0].chosen.id.as_str(), pairs[0].rejected.id.as_str(), pairs[0].row.p),
        ("p1/1", "p1/0", 0.75)
    );
    assert_eq!(
        (pairs[1].chosen.id.as_str(), pairs[1].rejected.id.as_str(), pairs[1].row.p),
        ("p2/0", "p2/1", 0.75)
    );
    let rows = store.preference_rows(TRAIN_PAIRS).await.unwrap();
    assert_eq!((rows[0].chosen.as_str(), rows[0].rejected.as_str()), ("baseline says 1", "baseline says 0"));
    assert_eq!(rows[0].prompt, prompt("p1").prompt);

    let count = |fate, count| LabelCount { judges: vec!["tone".into()], fate, count };
    assert_eq!(
        store.label_counts(TRAIN_PAIRS).await.unwrap(),
        [count(Fate::Inconsistent, 1), count(Fate::Kept, 2)]
    );
    store.clear_preferences(TRAIN_PAIRS).await.unwrap();
    assert_eq!(store.preferences(TRAIN_PAIRS).await.unwrap(), []);
}

#[tokio::test]
async fn clearing_a_stage_drops_what_it_made_and_nothing_else() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    store.put_responses(PPO, &[response(PPO, "e1", 0)]).await.unwrap();
    let comparison =
        Pair { id: "ppo:e1/0".into(), prompt_id: "e1".into(), a: "e1/0".into(), b: "ppo:e1/0".into() };
    store.put_pairs("ppo", std::slice::from_ref(&comparison)).await.unwrap();
    store.put_scores("tone", &[("p1/0".into(), 0.5), ("e1/0".into(), -0.5)]).await.unwrap();
    store.put_scores("tone", &[("p1/0".into(), 0.75)]).await.unwrap();
    let dropped = DroppedPair { a: "p1/1".into(), b: "p1/2".into(), distance: 0.04 };
    store.put_dropped(std::slice::from_ref(&dropped)).await.unwrap();
    assert_eq!(store.dropped_pairs().await.unwrap(), [dropped]);
    assert_eq!(
        store.scores("tone").await.unwrap(),
        [("e1/0".to_owned(), -0.5), ("p1/0".to_owned(), 0.75)].into()
    );

    store.clear_label().await.unwrap();
    assert_eq!(store.pairs(TRAIN_PAIRS).await.unwrap(), []);
    assert_eq!(store.dropped_pairs().await.unwrap(), []);
    assert_eq!(store.scores("tone").await.unwrap(), [("e1/0".to_owned(), -0.5)].into());
    assert_eq!(store.pairs("ppo").await.unwrap(), [comparison]);

    store.clear_generate().await.unwrap();
    assert_eq!(store.count_responses(BASELINE, Some(Split::Train)).await.unwrap(), 0);
    assert_eq!(store.count_responses(BASELINE, Some(Split::Eval)).await.unwrap(), 3);

    store.clear_policy(PPO).await.unwrap();
    assert_eq!(store.pairs("ppo").await.unwrap(), []);
    store.clear_evaluate().await.unwrap();
    assert_eq!(store.count_responses(BASELINE, None).await.unwrap(), 0);
    assert_eq!(store.prompts(Split::Eval).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_batch_is_stored_whole_or_not_at_all() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let verdict = |pair_id: &str| VerdictRow {
        pair_id: pair_id.into(),
        template: "explain".into(),
        judge: "local".into(),
        order: Order::Ab,
        vote: 0,
        verdict: Verdict::choice(Choice::Tie),
    };
    assert!(store.put_verdicts("v1", &[verdict("p1/0-1"), verdict("nobody")]).await.is_err());
    assert_eq!(store.verdicts(TRAIN_PAIRS).await.unwrap(), []);
    store.put_verdicts("v1", &[verdict("p1/0-1")]).await.unwrap();
    let (_folder, survivor) = folder.after_kill().await;
    assert_eq!(survivor.verdicts(TRAIN_PAIRS).await.unwrap(), [verdict("p1/0-1")]);
}

#[tokio::test]
async fn a_torn_log_loses_the_last_commits_and_never_the_file() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let log = std::fs::read(wal_path(&folder.db())).unwrap();
    let copy = Folder::new();
    for cut in (0..=log.len()).step_by(log.len() / 23) {
        std::fs::copy(folder.db(), copy.db()).unwrap();
        std::fs::write(wal_path(&copy.db()), &log[..cut]).unwrap();
        let survivor = copy.open().await;
        survivor.check().await.unwrap();
        let (responses, pairs) = (
            survivor.count_responses(BASELINE, None).await.unwrap(),
            survivor.pairs(TRAIN_PAIRS).await.unwrap(),
        );
        assert!(responses % 3 == 0 && (pairs.is_empty() || responses == 9), "units are whole and in order");
        fill(&survivor).await;
        assert_eq!(survivor.pairs(TRAIN_PAIRS).await.unwrap().len(), 3);
        survivor.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_says_so_and_loses_nothing() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    // As full as a disk can be made without one: no page more than there are.
    let pages: i64 =
        sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *store.lock().await).await.unwrap();
    let limit = AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
    sqlx::raw_sql(limit).execute(&mut *store.lock().await).await.unwrap();
    let long = Response { text: "long ".repeat(100_000), ..response(BASELINE, "p1", 3) };
    let error = store.put_responses(BASELINE, &[long]).await.unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(error.to_string().starts_with("the disk is full: storing responses failed in `"));
    assert_eq!(store.count_responses(BASELINE, None).await.unwrap(), 9);
}

#[tokio::test]
async fn a_reader_sees_what_the_writer_committed_and_writes_nothing() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    store.plan_requests(&[plan("p1/0-1", Order::Ab, "k1")]).await.unwrap();
    store.mark_sent("k1").await.unwrap();
    let reader = Store::open_read_only(folder.db()).await.unwrap();
    assert_eq!(reader.prompts(Split::Train).await.unwrap().len(), 2);
    assert_eq!(reader.possibly_billed().await.unwrap(), [], "the request may well be in flight");
    let error = reader.put_prompts(&[(prompt("p3"), Split::Train)]).await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    assert!(Store::open_read_only(folder.0.path().join("none.db")).await.is_err());
}

#[tokio::test]
async fn files_that_are_no_ledgers_are_left_alone() {
    let folder = Folder::new();
    std::fs::write(folder.db(), "prompt,chosen\n".repeat(1000)).unwrap();
    assert!(matches!(Store::open(folder.db()).await.unwrap_err(), StoreError::NotALedger { .. }));

    let foreign = Folder::new();
    let options = SqliteConnectOptions::new().filename(foreign.db()).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE theirs (x)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    assert!(matches!(Store::open(foreign.db()).await.unwrap_err(), StoreError::NotALedger { .. }));

    let newer = Folder::new();
    let store = newer.open().await;
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut *store.lock().await).await.unwrap();
    store.close().await.unwrap();
    let error = Store::open(newer.db()).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");

    let nowhere = folder.0.path().join("no/such/folder/rlaif.db");
    assert!(matches!(Store::open(nowhere).await.unwrap_err(), StoreError::Open { .. }));
}

#[tokio::test]
async fn the_ledger_is_opened_as_its_promises_need() {
    let folder = Folder::new();
    let store = folder.open().await;
    let mut connection = store.lock().await;
    let journal: String =
        sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
    let synchronous: i64 =
        sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await.unwrap();
    let foreign_keys: i64 =
        sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&mut *connection).await.unwrap();
    assert_eq!((journal.as_str(), synchronous, foreign_keys), ("wal", 2, 1));
    assert!(!new_enough("3.51.2") && new_enough("3.51.3") && new_enough("3.100.0") && new_enough("4.0"));
}

#[tokio::test]
async fn notes_are_replaced_by_name() {
    let folder = Folder::new();
    let store = folder.open().await;
    assert_eq!(store.meta::<u64>("seed").await.unwrap(), None);
    store.put_meta("seed", &1_u64).await.unwrap();
    store.put_meta("seed", &u64::MAX).await.unwrap();
    assert_eq!(store.meta::<u64>("seed").await.unwrap(), Some(u64::MAX));
    assert!(store.meta::<String>("seed").await.is_err());
}

#[tokio::test]
async fn many_tasks_take_turns() {
    let folder = Folder::new();
    let store = std::sync::Arc::new(folder.open().await);
    fill(&store).await;
    let plans: Vec<_> = (0..40).map(|vote| vote_of("p1/0-1", Order::Ab, vote, &format!("k{vote}"))).collect();
    store.plan_requests(&plans).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for plan in plans {
        let store = store.clone();
        tasks.spawn(async move {
            store.mark_sent(&plan.request_key).await.unwrap();
            let reply_id = store.put_reply(&plan.request_key, 200, b"{}").await.unwrap();
            store.put_usage(reply_id, None, Some(MicroUsd(1))).await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let spend = store.spend().await.unwrap();
    assert_eq!((spend.calls, spend.known, spend.unknown_calls), (40, MicroUsd(40), 0));
}

/// A template of two steps: the first reply is paid for and read, and only the second makes a verdict.
#[tokio::test]
async fn a_later_step_builds_on_the_reply_to_an_earlier_one() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let step = |step, last_step, key| PlannedRequest { step, last_step, ..plan("p1/0-1", Order::Ab, key) };
    store.plan_requests(&[step(0, false, "why")]).await.unwrap();
    store.mark_sent("why").await.unwrap();
    store.put_reply("why", 200, b"because").await.unwrap();
    let unread = store.unread_replies("v1", 10).await.unwrap();
    assert!(!unread[0].last_step);
    store.put_usage(unread[0].reply_id, None, Some(MicroUsd(7))).await.unwrap();
    assert_eq!(store.unread_replies("v1", 10).await.unwrap(), []);
    assert_eq!(store.verdicts(TRAIN_PAIRS).await.unwrap(), []);

    store.plan_requests(&[step(1, true, "which")]).await.unwrap();
    assert_eq!(keys(&planned(&store).await), ["which"]);
    assert_eq!(store.open_requests("gpt", TRAIN_PAIRS).await.unwrap(), (2, 1));
    store.mark_sent("which").await.unwrap();
    store.put_reply("which", 200, b"1").await.unwrap();
    let unread = store.unread_replies("v1", 10).await.unwrap();
    store.put_verdict(&unread[0], "v1", &Verdict::choice(Choice::First), None, None).await.unwrap();
    assert_eq!(store.verdicts(TRAIN_PAIRS).await.unwrap().len(), 1);
    assert_eq!(store.spend().await.unwrap().calls, 2);
}

/// What another run has bought and could use is not bought again; what it could not use is.
#[tokio::test]
async fn replies_of_another_run_are_taken_at_no_cost() {
    let theirs = Folder::new();
    let other = theirs.open().await;
    fill(&other).await;
    let [ab, ba] = [Order::Ab, Order::Ba];
    other
        .plan_requests(&[plan("p1/0-1", ab, "good"), plan("p1/0-1", ba, "bad"), plan("p1/0-2", ab, "unread")])
        .await
        .unwrap();
    for key in ["good", "bad", "unread"] {
        other.mark_sent(key).await.unwrap();
        other.put_reply(key, 200, key.as_bytes()).await.unwrap();
    }
    let unread = other.unread_replies("v1", 10).await.unwrap();
    let verdict = Verdict::choice(Choice::First);
    for (reply, fault) in unread.iter().zip([None, Some("malformed")]) {
        let (usage, cost, model) = (None, Some(MicroUsd(5)), None);
        let reading = ReadReply { reply, verdict: Some(&verdict), usage, cost, fault, model };
        other.put_readings("v1", &[reading]).await.unwrap();
    }

    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    store
        .plan_requests(&[plan("p1/0-1", ab, "good"), plan("p1/0-1", ba, "bad"), plan("p1/0-2", ab, "unread")])
        .await
        .unwrap();
    // Their run is still at work, and goes on.
    let reader = Store::open_to_reuse(theirs.db()).await.unwrap();
    let found = reader.good_replies(&["good", "bad", "unread", "none"]).await.unwrap();
    assert_eq!(found.iter().map(|reply| reply.raw.as_slice()).collect::<Vec<_>>(), [b"good"]);
    other.plan_requests(&[plan("p1/0-2", ba, "later")]).await.unwrap();
    assert_eq!(store.put_reused("label", "runs/theirs", &found).await.unwrap(), 1);
    assert_eq!(store.put_reused("label", "runs/theirs", &found).await.unwrap(), 0, "it has its reply");
    assert_eq!(keys(&planned(&store).await), ["bad", "unread"]);

    let unread = store.unread_replies("v1", 10).await.unwrap();
    let usage = Usage { prompt_tokens: 100, completion_tokens: 20, ..Usage::default() };
    store.put_verdict(&unread[0], "v1", &verdict, Some(usage), Some(MicroUsd(150))).await.unwrap();
    assert_eq!(store.verdicts(TRAIN_PAIRS).await.unwrap().len(), 1);
    let spend = store.spend().await.unwrap();
    assert_eq!(spend, Spend { reused: 1, ..Spend::default() }, "it cost this run nothing");
    assert_eq!(store.charged("label").await.unwrap().0, MicroUsd::ZERO);
    // A third run may take it from here.
    assert_eq!(store.good_replies(&["good"]).await.unwrap(), found);
}

#[tokio::test]
async fn replies_are_taken_from_ledgers_of_the_same_layout_only() {
    let folder = Folder::new();
    folder.open().await.close().await.unwrap();
    let options = SqliteConnectOptions::new().filename(folder.db());
    let mut old = options.connect().await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 2").execute(&mut old).await.unwrap();
    old.close().await.unwrap();
    let error = Store::open_to_reuse(folder.db()).await.unwrap_err();
    assert!(matches!(error, StoreError::Older { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("`rlaif plan` with its config"), "{error}");
    assert!(Store::open_to_reuse(folder.0.path().join("none.db")).await.is_err());
}

/// A ledger of the first layout keeps its replies, its verdicts and the order of its requests.
#[tokio::test]
async fn an_older_layout_is_brought_up_to_date() {
    let folder = Folder::new();
    let options = SqliteConnectOptions::new().filename(folder.db()).create_if_missing(true);
    let mut old = options.connect().await.unwrap();
    let application = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;");
    for sql in [
        MIGRATIONS[0],
        application.as_str(),
        "INSERT INTO prompts VALUES (1, 'p', 'train', '\"q\"', '[]', NULL, NULL);
         INSERT INTO responses VALUES (1, 'p/0', 'baseline', 'p', 0, 'x', x'', x'', 'stop'),
                                      (2, 'p/1', 'baseline', 'p', 1, 'y', x'', x'', 'stop');
         INSERT INTO pairs VALUES (1, 'p/0-1', 'train', 'p', 'p/0', 'p/1');
         INSERT INTO requests (request_key, judge, body, state, planned_at) VALUES
             ('a', 'gpt', '{}', 'planned', '2'), ('b', 'gpt', '{}', 'judged', '1');
         INSERT INTO replies (id, request_key, attempt, http_status, raw, cost_micro_usd) VALUES (7, 'b', 1, 200, x'00ff', 5);
         INSERT INTO presentations VALUES ('p/0-1', 'gpt', 'ab', 0, 'b'), ('p/0-1', 'gpt', 'ba', 0, 'a');
         INSERT INTO verdicts VALUES ('p/0-1', 'gpt', 'ab', 0, 'v1', '{\"choice\": {\"Ok\": \"first\"}}');",
    ] {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();

    let store = folder.open().await;
    assert_eq!(keys(&planned(&store).await), ["a"]);
    assert_eq!(store.unread_replies("v2", 9).await.unwrap()[0].raw, [0, 255]);
    let verdicts = store.verdicts(TRAIN_PAIRS).await.unwrap();
    assert_eq!((verdicts.len(), verdicts[0].template.as_str()), (1, "explain"));
    assert_eq!(store.spend().await.unwrap().known, MicroUsd(5));
}
