//! Batches: what is set aside and what is charged, whatever ends in whichever way and however often it is told.

use super::calls_tests::{charged, claimed, failed, with_requests};
use super::tests::{Folder, keys, planned};
use super::*;
use rlaif_core::MicroUsd;
use rlaif_core::money::{ServiceTier, Usage};
use rlaif_core::records::{Choice, NoVerdict, Verdict};

const BATCH: NewBatch<'static> = NewBatch { name: "b1", judge: "gpt", stage: "label", account: Some("me") };

/// Of each request the claim of this attempt, at 50 each.
fn claims(requests: &[i64], attempt: u32) -> Vec<BatchClaim> {
    let claim = |&request: &i64| BatchClaim {
        request,
        attempt,
        custom_id: format!("c-{request}-{attempt}"),
        reserved: Some(MicroUsd(50)),
    };
    requests.iter().map(claim).collect()
}

fn replied<'a>(custom_id: &'a str, raw: &'a [u8], cost: i64) -> BatchResult<'a> {
    let usage = Usage { prompt_tokens: 9, tier: ServiceTier::Batch, ..Usage::default() };
    let outcome = BatchOutcome::Replied { raw, usage: Some(usage), cost: Some(MicroUsd(cost)) };
    BatchResult { custom_id, outcome }
}

fn not_done(custom_id: &str) -> BatchResult<'_> {
    BatchResult { custom_id, outcome: BatchOutcome::NotDone("too late") }
}

fn end(word: &str) -> EndOfBatch<'_> {
    EndOfBatch { word, problem: None, possibly_billed: false, most_tries: Some(3), max_resends: 2 }
}

async fn made(store: &Store, batch: NewBatch<'_>, claims: &[BatchClaim]) {
    store.intend_batch(&batch, claims).await.unwrap();
    store.creating_batch(batch.name).await.unwrap();
    store.created_batch(batch.name, &format!("provider's {}", batch.name)).await.unwrap();
}

/// (request, attempt, class, kind, charged)
async fn attempts(store: &Store) -> Vec<(i64, i64, Option<String>, Option<String>, Option<i64>)> {
    let mut connection = store.lock().await;
    sqlx::query_as("SELECT request, attempt, class, kind, charged FROM attempts ORDER BY 1, 2")
        .fetch_all(&mut *connection)
        .await
        .unwrap()
}

async fn states(store: &Store) -> Vec<String> {
    let mut connection = store.lock().await;
    sqlx::query_scalar("SELECT state FROM requests ORDER BY seq").fetch_all(&mut *connection).await.unwrap()
}

#[tokio::test]
async fn what_is_in_a_batch_is_drawn_by_nobody_counts_at_its_worst_and_survives() {
    let folder = Folder::new();
    let store = with_requests(&folder, 4).await;
    store.intend_batch(&BATCH, &claims(&[1, 2], 1)).await.unwrap();
    store.commit_calls("label", "gpt", &[claimed(3, 1, 70)]).await.unwrap();
    for creating in [false, true] {
        let (_folder, survivor) = folder.after_kill().await;
        assert_eq!(keys(&planned(&survivor).await), ["k3", "k4"], "only the single call was lost");
        assert_eq!(charged(&survivor).await, (2 * 50 + 70, 2 * 50 + 70));
        assert_eq!(survivor.possibly_billed().await.unwrap().len(), 1);
        let open = survivor.open_batches(Some("gpt")).await.unwrap();
        assert_eq!(open.len(), 1);
        assert_eq!((open[0].requests, open[0].waiting, open[0].creating), (2, 2, creating));
        assert_eq!((open[0].account.as_deref(), open[0].id.as_deref()), (Some("me"), None));
        store.creating_batch("b1").await.unwrap();
    }
    store.created_batch("b1", "batch_9").await.unwrap();
    assert_eq!(keys(&planned(&store).await), ["k4"]);
    assert_eq!(store.open_batches(None).await.unwrap()[0].id.as_deref(), Some("batch_9"));
    assert_eq!(store.open_batches(Some("other")).await.unwrap(), []);
    assert_eq!(store.batch_ids().await.unwrap(), ["batch_9"]);
    let item = ("c-2-1".to_owned(), "b1".to_owned(), "gpt".to_owned());
    assert_eq!(store.batch_items(&["c-2-1", "c-9-1"]).await.unwrap(), [item]);
    assert_eq!(store.open_requests("gpt", TRAIN_PAIRS).await.unwrap(), (4, 1));
}

#[tokio::test]
async fn a_request_that_is_not_planned_joins_no_batch() {
    let folder = Folder::new();
    let store = with_requests(&folder, 3).await;
    store.commit_calls("label", "gpt", &[claimed(2, 1, 70)]).await.unwrap();
    for wrong in [claims(&[1, 2], 1), claims(&[1, 2], 2), claims(&[1, 3], 2), claims(&[1, 9], 1)] {
        let error = store.intend_batch(&BATCH, &wrong).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
        assert_eq!(keys(&planned(&store).await), ["k1", "k3"], "nothing of it is stored");
        assert_eq!(store.open_batches(None).await.unwrap(), []);
    }
    assert_eq!(charged(&store).await, (0, 0));
    store.intend_batch(&BATCH, &claims(&[1], 1)).await.unwrap();
    let twice = store.intend_batch(&NewBatch { name: "b2", ..BATCH }, &claims(&[1], 2)).await;
    assert!(twice.is_err(), "it is in one already");
}

#[tokio::test]
async fn results_that_come_twice_change_nothing() {
    let folder = Folder::new();
    let store = with_requests(&folder, 4).await;
    made(&store, BATCH, &claims(&[1, 2, 3], 1)).await;
    let refused = BatchResult { custom_id: "c-3-1", outcome: BatchOutcome::Refused("too long") };
    let results = [replied("c-1-1", b"one", 7), not_done("c-2-1"), refused, not_done("c-8-1")];
    let first = store.harvest_batch(&results).await.unwrap();
    assert_eq!((first.replies, first.known, first.not_done, first.refused), (1, 0, 1, 1));
    assert_eq!(first.strangers, ["c-8-1"]);
    let before = (attempts(&store).await, states(&store).await, charged(&store).await);
    assert_eq!(before.2, (7, 7));
    assert_eq!(
        before.1,
        ["received", "sent", "failed", "planned"],
        "it is asked again once the batch has ended"
    );
    // Told again, also after a crash and with another order and another body.
    let (_folder, survivor) = folder.after_kill().await;
    assert_eq!(survivor.open_batches(None).await.unwrap()[0].waiting, 0);
    let again = [not_done("c-2-1"), replied("c-1-1", b"other", 9), refused];
    let second = survivor.harvest_batch(&again).await.unwrap();
    assert_eq!((second.replies, second.known), (0, 1));
    let mut after = (attempts(&survivor).await, states(&survivor).await, charged(&survivor).await);
    assert_eq!(after, before);
    assert_eq!(survivor.open_batches(None).await.unwrap()[0].waiting, 0, "each is counted once");
    survivor.end_batch("b1", &end("expired")).await.unwrap();
    survivor.end_batch("b1", &end("expired")).await.unwrap();
    survivor.harvest_batch(&again).await.unwrap();
    after = (attempts(&survivor).await, states(&survivor).await, charged(&survivor).await);
    assert_eq!((&after.0, after.2), (&before.0, before.2));
    assert_eq!(after.1, ["received", "planned", "failed", "planned"]);
    assert_eq!(survivor.open_batches(None).await.unwrap(), []);

    let unread = survivor.unread_replies("v1", 9).await.unwrap();
    assert_eq!((unread.len(), unread[0].raw.as_slice()), (1, &b"one"[..]));
    let usage = Usage { prompt_tokens: 9, tier: ServiceTier::Batch, ..Usage::default() };
    let verdict = Verdict::choice(Choice::First);
    survivor.put_verdict(&unread[0], "v1", &verdict, Some(usage), Some(MicroUsd(7))).await.unwrap();
    assert_eq!(charged(&survivor).await, (7, 7));
    let verdicts = survivor.verdicts(TRAIN_PAIRS).await.unwrap();
    let reasons: Vec<_> = verdicts.iter().map(|row| row.verdict.choice.clone()).collect();
    assert_eq!(reasons, [Ok(Choice::First), Err(NoVerdict::Failed("too long".into()))]);
}

#[tokio::test]
async fn what_expires_is_asked_again_and_given_up_after_three_times() {
    let folder = Folder::new();
    let store = with_requests(&folder, 1).await;
    for attempt in 1..=3 {
        let name = format!("b{attempt}");
        made(&store, NewBatch { name: &name, ..BATCH }, &claims(&[1], attempt)).await;
        assert_eq!(charged(&store).await, (50, 50));
        // A word of the provider's, or none at all: neither was billed.
        if attempt > 1 {
            store.harvest_batch(&[not_done(&format!("c-1-{attempt}"))]).await.unwrap();
        }
        store.end_batch(&name, &end("expired")).await.unwrap();
        assert_eq!(charged(&store).await, (0, 0));
        assert_eq!(planned(&store).await.len(), usize::from(attempt < 3), "attempt {attempt}");
    }
    let rows = attempts(&store).await;
    let kinds: Vec<_> =
        rows.iter().map(|row| (row.2.as_deref().unwrap(), row.3.as_deref().unwrap())).collect();
    assert_eq!(kinds, [("rejected", "no_result"), ("rejected", "not_done"), ("rejected", "not_done")]);
    let verdicts = store.verdicts(TRAIN_PAIRS).await.unwrap();
    assert_eq!(verdicts[0].verdict.choice, Err(NoVerdict::Failed("too late".into())));
    // Another run tries again, from the beginning.
    assert_eq!(store.retry_failed("gpt", false).await.unwrap(), 1);
    assert_eq!(planned(&store).await[0].retries, 0);
}

#[tokio::test]
async fn a_batch_that_fails_as_a_whole_says_nothing_against_its_requests() {
    let folder = Folder::new();
    let store = with_requests(&folder, 1).await;
    for attempt in 1..=5 {
        let name = format!("b{attempt}");
        made(&store, NewBatch { name: &name, ..BATCH }, &claims(&[1], attempt)).await;
        let failed = EndOfBatch { problem: Some("no room"), most_tries: None, ..end("failed") };
        store.end_batch(&name, &failed).await.unwrap();
    }
    assert_eq!((planned(&store).await.len(), charged(&store).await), (1, (0, 0)));
}

#[tokio::test]
async fn silence_in_a_batch_that_was_done_is_possibly_billed() {
    let folder = Folder::new();
    let store = with_requests(&folder, 2).await;
    for attempt in 1..=2 {
        let name = format!("b{attempt}");
        made(&store, NewBatch { name: &name, ..BATCH }, &claims(&[1], attempt)).await;
        let silent = EndOfBatch { possibly_billed: true, max_resends: 1, ..end("completed") };
        store.end_batch(&name, &silent).await.unwrap();
        assert_eq!(charged(&store).await, (50 * i64::from(attempt), 50 * i64::from(attempt)));
    }
    let lost = store.possibly_billed().await.unwrap();
    assert_eq!((lost[0].lost_sends, lost[0].state), (2, RequestState::Failed), "it was sent again once");
    assert_eq!(keys(&planned(&store).await), ["k2"]);
    // A reply that comes late is kept, and costs what it costs.
    store.harvest_batch(&[replied("c-1-1", b"late", 7)]).await.unwrap();
    assert_eq!(charged(&store).await, (57, 57));
    assert_eq!(store.unread_replies("v1", 9).await.unwrap()[0].raw, b"late");
}

#[tokio::test]
async fn a_batch_that_was_never_made_leaves_no_trace_on_its_requests() {
    let folder = Folder::new();
    let store = with_requests(&folder, 2).await;
    let before = planned(&store).await;
    for _ in 0..2 {
        for name in ["b1", "b2"] {
            let name = format!("{name}-{}", attempts(&store).await.len());
            let batch = NewBatch { name: &name, ..BATCH };
            // The second time around its name is new, its items' may be the same.
            if store.intend_batch(&batch, &claims(&[1, 2], 1)).await.is_ok() {
                store.forget_batch(&name).await.unwrap();
                store.forget_batch(&name).await.unwrap();
            }
            let after = planned(&store).await;
            assert_eq!((keys(&after), after[0].attempts), (keys(&before), 0));
            assert_eq!((attempts(&store).await.len(), charged(&store).await), (0, (0, 0)));
        }
    }
    // One of whose requests a reply has come all the same keeps that one.
    made(&store, NewBatch { name: "b3", ..BATCH }, &claims(&[1, 2], 1)).await;
    store.harvest_batch(&[replied("c-1-1", b"one", 7)]).await.unwrap();
    store.forget_batch("b3").await.unwrap();
    assert_eq!((keys(&planned(&store).await), charged(&store).await), (vec!["k2"], (7, 7)));
    assert_eq!(store.unread_replies("v1", 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn files_are_out_until_they_come_back() {
    let folder = Folder::new();
    let store = with_requests(&folder, 3).await;
    let file = NewBatch { name: "f", account: None, ..BATCH };
    store.intend_batch(&file, &claims(&[1, 2], 1)).await.unwrap();
    assert_eq!(store.in_files("gpt", &[TRAIN_PAIRS, "probe"]).await.unwrap(), 2);
    assert_eq!(store.in_files("gpt", &["probe"]).await.unwrap(), 0);
    assert_eq!(store.in_files("other", &[TRAIN_PAIRS]).await.unwrap(), 0);
    store.harvest_batch(&[replied("c-1-1", b"one", 7)]).await.unwrap();
    assert_eq!(store.in_files("gpt", &[TRAIN_PAIRS]).await.unwrap(), 1);
    assert_eq!(store.open_batches(None).await.unwrap()[0].waiting, 1);
    let released =
        EndOfBatch { possibly_billed: true, most_tries: None, max_resends: u32::MAX, ..end("released") };
    store.end_batch("f", &released).await.unwrap();
    assert_eq!(keys(&planned(&store).await), ["k2", "k3"]);
    assert_eq!(charged(&store).await, (57, 57), "nobody knows whether it was submitted");
    assert_eq!(store.in_files("gpt", &[TRAIN_PAIRS]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_waits_or_was_lost_too_often_is_readied() {
    let folder = Folder::new();
    let store = with_requests(&folder, 3).await;
    store.commit_calls("label", "gpt", &[claimed(1, 1, 50), claimed(2, 1, 50)]).await.unwrap();
    let parked = failed(1, 1, "rejected", 0, Next::Park(i64::MAX));
    store
        .commit_calls("label", "gpt", &[parked, failed(2, 1, "maybe_billed", 50, Next::Retry)])
        .await
        .unwrap();
    store.ready_for_batches("gpt", 1).await.unwrap();
    assert_eq!(keys(&planned(&store).await), ["k1", "k2", "k3"], "a batch need not wait");
    store.ready_for_batches("gpt", 0).await.unwrap();
    assert_eq!(keys(&planned(&store).await), ["k1", "k3"], "it may not be sent again");
}

/// Two batches, one after the other, with every kind of result; killed after each step, and the step told again.
#[tokio::test]
async fn killed_after_any_step_it_comes_to_the_same_end() {
    const STEPS: usize = 9;
    async fn step(store: &Store, number: usize) {
        let second = NewBatch { name: "b2", ..BATCH };
        match number {
            // An intent is told once: the driver takes another name.
            0 => drop(store.intend_batch(&BATCH, &claims(&[1, 2, 3], 1)).await),
            1 => store.creating_batch("b1").await.unwrap(),
            2 => store.created_batch("b1", "x").await.unwrap(),
            3 => {
                let refused = BatchResult { custom_id: "c-3-1", outcome: BatchOutcome::Refused("no") };
                drop(
                    store
                        .harvest_batch(&[replied("c-1-1", b"one", 7), not_done("c-2-1"), refused])
                        .await
                        .unwrap(),
                );
            }
            4 => store.end_batch("b1", &end("expired")).await.unwrap(),
            5 => drop(store.intend_batch(&second, &claims(&[2], 2)).await),
            6 => store.created_batch("b2", "y").await.unwrap(),
            7 => drop(store.harvest_batch(&[replied("c-2-2", b"two", 8)]).await.unwrap()),
            _ => store.end_batch("b2", &end("completed")).await.unwrap(),
        }
    }
    let mut ends = Vec::new();
    for dies_after in 0..STEPS {
        let mut folder = Folder::new();
        let mut store = with_requests(&folder, 3).await;
        for number in 0..STEPS {
            step(&store, number).await;
            if number == dies_after {
                (folder, store) = folder.after_kill().await;
                step(&store, number).await;
            }
        }
        assert_eq!(charged(&store).await, (15, 15), "died after {dies_after}");
        assert_eq!(store.possibly_billed().await.unwrap(), [], "a batch is not lost with the process");
        assert_eq!(store.spend().await.unwrap().calls, 2);
        ends.push((attempts(&store).await, states(&store).await));
        drop(folder);
    }
    assert_eq!(ends[0].1, ["received", "received", "failed"]);
    assert!(ends.iter().all(|one| *one == ends[0]), "{ends:#?}");
}

/// No statement may look at more rows than the batch has.
#[tokio::test]
async fn statements_use_their_indexes() {
    let folder = Folder::new();
    let store = with_requests(&folder, 3).await;
    let mut connection = store.lock().await;
    let mut seen = 0;
    let is_sql = |text: &&str| {
        ["SELECT ", "UPDATE ", "DELETE ", "INSERT ", "WITH "].iter().any(|word| text.starts_with(word))
    };
    for sql in include_str!("batches.rs").split('"').filter(is_sql) {
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(AssertSqlSafe(sql.clone())).fetch_all(&mut *connection).await.unwrap();
        let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
        let whole = ["SCAN requests", "SCAN q", "SCAN attempts", "SCAN t", "SCAN i", "SCAN batch_items"];
        assert!(whole.iter().all(|word| !plan.contains(word)), "{sql}: {plan}");
        seen += 1;
    }
    assert!(seen >= 20, "{seen} statements");
}
