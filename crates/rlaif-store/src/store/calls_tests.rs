//! Calls: groups, leases, fences, the spool, the budget across restarts, asking again.

use super::tests::{Folder, fill, keys, plan, planned, vote_of};
use super::*;
use rlaif_core::MicroUsd;
use rlaif_core::money::Usage;
use rlaif_core::records::{Choice, NoVerdict, Order, Verdict};

pub(super) fn claimed(request: i64, attempt: u32, reserved: i64) -> CallEvent<'static> {
    CallEvent::Claimed { request, attempt, reserved: Some(MicroUsd(reserved)) }
}

fn replied(request: i64, attempt: u32, raw: &[u8], cost: i64, spooled: Option<Spooled>) -> CallEvent<'_> {
    let cost = Some(MicroUsd(cost));
    CallEvent::Replied { request, attempt, http_status: 200, raw, usage: None, cost, charged: cost, spooled }
}

pub(super) fn failed(
    request: i64,
    attempt: u32,
    class: &'static str,
    charged: i64,
    next: Next,
) -> CallEvent<'static> {
    let (kind, message, http_status) = ("timeout", "no answer", None);
    CallEvent::Failed {
        request,
        attempt,
        class,
        kind,
        message,
        http_status,
        charged: Some(MicroUsd(charged)),
        next,
    }
}

/// `n` planned requests, numbered from 1.
pub(super) async fn with_requests(folder: &Folder, n: u32) -> Store {
    let store = folder.open().await;
    fill(&store).await;
    let plans: Vec<_> = (1..=n).map(|vote| vote_of("p1/0-1", Order::Ab, vote, &format!("k{vote}"))).collect();
    store.plan_requests(&plans).await.unwrap();
    store
}

pub(super) async fn charged(store: &Store) -> (i64, i64) {
    let (all, label) = store.charged("label").await.unwrap();
    // The kept total is what adding up would give.
    let mut connection = store.lock().await;
    let sum: i64 = sqlx::query_scalar("SELECT coalesce(sum(charged), 0) FROM attempts")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    assert_eq!(sum, all.0);
    (all.0, label.0)
}

async fn attempts(store: &Store) -> Vec<(i64, i64, Option<String>, Option<i64>)> {
    let mut connection = store.lock().await;
    sqlx::query_as("SELECT request, attempt, class, charged FROM attempts ORDER BY 1, 2")
        .fetch_all(&mut *connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_group_is_stored_whole_and_in_order() {
    let folder = Folder::new();
    let store = with_requests(&folder, 4).await;
    store
        .commit_calls("label", "gpt", &[claimed(1, 1, 50), claimed(2, 1, 50), claimed(3, 1, 50)])
        .await
        .unwrap();
    assert_eq!(keys(&planned(&store).await), ["k4"]);
    // A failure and the next claim of the same request may be in one group.
    let group = [
        replied(1, 1, b"one", 7, None),
        failed(2, 1, "rejected", 0, Next::Retry),
        claimed(2, 2, 50),
        failed(3, 1, "maybe_billed", 50, Next::GiveUp),
        claimed(4, 1, 50),
    ];
    store.commit_calls("label", "gpt", &group).await.unwrap();
    assert_eq!(keys(&planned(&store).await), [] as [&str; 0]);
    assert_eq!(charged(&store).await, (57, 57));
    let class = |class: &str| Some(class.to_owned());
    assert_eq!(
        attempts(&store).await,
        [
            (1, 1, None, Some(7)),
            (2, 1, class("rejected"), Some(0)),
            (2, 2, None, None),
            (3, 1, class("maybe_billed"), Some(50)),
            (4, 1, None, None)
        ]
    );
    // A group that cannot be stored whole is not stored at all.
    let broken = [failed(2, 2, "rejected", 0, Next::Open), claimed(99, 1, 1)];
    assert!(store.commit_calls("label", "gpt", &broken).await.is_err());
    assert_eq!(attempts(&store).await[2].2, None);
}

#[tokio::test]
async fn a_reply_in_the_spool_survives_and_what_is_in_flight_counts_at_its_worst() {
    let folder = Folder::new();
    let store = with_requests(&folder, 4).await;
    let claims = [claimed(1, 1, 50), claimed(2, 1, 60), claimed(3, 1, 70)];
    store.commit_calls("evaluate", "gpt", &claims).await.unwrap();
    let spooled = store.spool(1, 1, 200, b"one").unwrap();
    store.commit_calls("evaluate", "gpt", &[replied(1, 1, b"one", 7, Some(spooled))]).await.unwrap();
    store.spool(2, 1, 200, b"two").unwrap();

    let (folder, survivor) = folder.after_kill().await;
    let unread = survivor.unread_replies("v1", 10).await.unwrap();
    assert_eq!(unread.iter().map(|reply| reply.raw.as_slice()).collect::<Vec<_>>(), [&b"one"[..], b"two"]);
    assert_eq!(keys(&planned(&survivor).await), ["k3", "k4"]);
    assert_eq!(planned(&survivor).await[0].resends, 1);
    assert_eq!(charged(&survivor).await, (7 + 60 + 70, 0));
    // Once it is read, the true cost counts.
    let verdict = Verdict::choice(Choice::First);
    let usage = Usage { prompt_tokens: 1, ..Usage::default() };
    survivor.put_verdict(&unread[1], "v1", &verdict, Some(usage), Some(MicroUsd(9))).await.unwrap();
    assert_eq!(charged(&survivor).await, (7 + 9 + 70, 0));

    // Opened again, nothing is read twice or counted twice.
    let (_folder, again) = folder.after_kill().await;
    assert_eq!(charged(&again).await, (7 + 9 + 70, 0));
    assert_eq!(again.spend().await.unwrap().calls, 2);
    assert_eq!(again.possibly_billed().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_late_reply_to_an_earlier_attempt_is_kept() {
    let folder = Folder::new();
    let store = with_requests(&folder, 1).await;
    store.commit_calls("label", "gpt", &[claimed(1, 1, 50)]).await.unwrap();
    store.commit_calls("label", "gpt", &[failed(1, 1, "maybe_billed", 50, Next::Retry)]).await.unwrap();
    store.commit_calls("label", "gpt", &[claimed(1, 2, 50)]).await.unwrap();
    store.commit_calls("label", "gpt", &[replied(1, 1, b"late", 5, None)]).await.unwrap();
    assert_eq!(store.unread_replies("v1", 10).await.unwrap()[0].raw, b"late");
    assert_eq!(planned(&store).await, [], "it is not sent again");
}

#[tokio::test]
async fn parked_requests_come_back_in_time_and_others_do_not_wait() {
    let folder = Folder::new();
    let store = with_requests(&folder, 3).await;
    store.commit_calls("label", "gpt", &[claimed(1, 1, 50), claimed(2, 1, 50)]).await.unwrap();
    let parked =
        [failed(1, 1, "rejected", 0, Next::Park(2000)), failed(2, 1, "rejected", 0, Next::Park(1000))];
    store.commit_calls("label", "gpt", &parked).await.unwrap();
    assert_eq!(keys(&planned(&store).await), ["k3"]);
    assert_eq!(store.open_requests("gpt", TRAIN_PAIRS).await.unwrap(), (3, 3));
    let due = |after, now| store.due("gpt", &[TRAIN_PAIRS], after, now, 10);
    assert_eq!(due((0, 0), 999).await.unwrap(), []);
    assert_eq!(store.next_due("gpt", &[TRAIN_PAIRS], (0, 0)).await.unwrap(), Some(1000));
    let found = due((0, 0), 5000).await.unwrap();
    let found: Vec<_> = found.iter().map(|(time, request)| (*time, request.seq, request.retries)).collect();
    assert_eq!(found, [(1000, 2, 1), (2000, 1, 1)]);
    assert_eq!(due((2000, 1), 5000).await.unwrap(), []);
    assert_eq!(store.next_due("gpt", &[TRAIN_PAIRS], (1000, 2)).await.unwrap(), Some(2000));
    store.commit_calls("label", "gpt", &[claimed(2, 2, 50)]).await.unwrap();
    assert_eq!(due((0, 0), 5000).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_useless_reply_is_asked_for_once_more_and_its_place_is_taken() {
    let folder = Folder::new();
    let store = folder.open().await;
    fill(&store).await;
    let plans =
        [plan("p1/0-1", Order::Ab, "k1"), plan("p1/0-2", Order::Ab, "k1"), plan("p2/0-1", Order::Ab, "k2")];
    store.plan_requests(&plans).await.unwrap();
    let (bad, good) = (Verdict::none(NoVerdict::Truncated), Verdict::choice(Choice::Second));
    let read = async |fault: Option<&str>, verdict: &Verdict| {
        let unread = store.unread_replies("v1", 10).await.unwrap();
        let readings: Vec<_> = unread
            .iter()
            .map(|reply| ReadReply {
                reply,
                verdict: Some(verdict),
                usage: None,
                cost: None,
                fault,
                model: Some("j"),
            })
            .collect();
        store.put_readings("v1", &readings).await.unwrap();
    };
    store.mark_sent("k1").await.unwrap();
    store.put_reply("k1", 200, b"cut o").await.unwrap();
    read(Some("truncated"), &bad).await;
    let useless = store.useless_replies("gpt", &[TRAIN_PAIRS], 0, 10).await.unwrap();
    assert_eq!((useless.len(), useless[0].fault.as_str(), useless[0].max_tokens), (1, "truncated", 10));
    let again = AskAgain { seq: 1, request_key: "k1+".into(), body: "more".into(), max_tokens: 40 };
    store.ask_again(&[again.clone(), again.clone()]).await.unwrap();
    assert_eq!(store.useless_replies("gpt", &[TRAIN_PAIRS], 0, 10).await.unwrap(), []);
    let open = planned(&store).await;
    assert_eq!(keys(&open), ["k2", "k1+"]);
    assert_eq!((open[1].body.as_str(), open[1].max_tokens, open[1].prompt_tokens_at_most), ("more", 40, 100));

    assert_eq!(store.verdicts(TRAIN_PAIRS).await.unwrap().len(), 0);

    // Whatever the second reply is, that is that: both pairs have its verdict.
    store.mark_sent("k1+").await.unwrap();
    store.put_reply("k1+", 200, b"cut of").await.unwrap();
    read(Some("truncated"), &good).await;
    assert_eq!(store.useless_replies("gpt", &[TRAIN_PAIRS], 0, 10).await.unwrap(), []);
    let again = AskAgain { seq: open[1].seq, request_key: "k1++".into(), ..again };
    store.ask_again(&[again]).await.unwrap();
    assert_eq!(keys(&planned(&store).await), ["k2"]);
    let verdicts = store.verdicts(TRAIN_PAIRS).await.unwrap();
    assert!(verdicts.len() == 2 && verdicts.iter().all(|row| row.verdict == good), "{verdicts:?}");
    assert_eq!(store.spend().await.unwrap().calls, 2, "both were paid for");

    // Planned anew, it is not asked a third time, and a better parser reads the second reply.
    store.plan_requests(&plans).await.unwrap();
    assert_eq!(keys(&planned(&store).await), ["k2"]);
    assert!(store.unread_replies("v2", 10).await.unwrap().iter().all(|reply| reply.raw == b"cut of"));
}

#[tokio::test]
async fn a_whole_plan_is_known_until_a_pair_of_it_is_gone() {
    let folder = Folder::new();
    let store = with_requests(&folder, 3).await;
    assert!(!store.is_planned("gpt", TRAIN_PAIRS, "f").await.unwrap());
    store.put_planned("gpt", TRAIN_PAIRS, "f").await.unwrap();
    assert!(store.is_planned("gpt", TRAIN_PAIRS, "f").await.unwrap());
    assert!(!store.is_planned("gpt", TRAIN_PAIRS, "g").await.unwrap());
    assert_eq!(store.open_requests("gpt", TRAIN_PAIRS).await.unwrap(), (3, 3));
    store.clear_generate().await.unwrap();
    assert!(!store.is_planned("gpt", TRAIN_PAIRS, "f").await.unwrap(), "its presentations are gone too");
}

#[tokio::test]
async fn what_was_possibly_billed_stays_held_unless_it_may_be_resent() {
    let folder = Folder::new();
    let store = with_requests(&folder, 2).await;
    store.commit_calls("label", "gpt", &[claimed(1, 1, 50), claimed(2, 1, 50)]).await.unwrap();
    let ended = [failed(1, 1, "maybe_billed", 50, Next::GiveUp), failed(2, 1, "rejected", 0, Next::GiveUp)];
    store.commit_calls("label", "gpt", &ended).await.unwrap();
    assert_eq!(store.retry_failed("gpt", false).await.unwrap(), 1);
    assert_eq!(keys(&planned(&store).await), ["k2"]);
    assert_eq!(store.retry_failed("gpt", true).await.unwrap(), 1);
    assert_eq!(keys(&planned(&store).await), ["k1", "k2"]);
}

/// At a million rows no statement of the engine may look at more rows than it is about: the plans say so at any size.
#[tokio::test]
async fn statements_of_the_engine_use_their_indexes() {
    let folder = Folder::new();
    let store = with_requests(&folder, 3).await;
    let mut connection = store.lock().await;
    // What is in the sources is what runs: every statement between two quotes.
    let sources = [include_str!("calls.rs"), include_str!("requests.rs")].concat();
    let mut seen = 0;
    for sql in sources
        .split('"')
        .filter(|text| !text.starts_with("EXISTS"))
        .filter(|text| text.contains("json_each(") || text.starts_with("SELECT (SELECT count"))
    {
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(AssertSqlSafe(sql.clone())).fetch_all(&mut *connection).await.unwrap();
        let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
        let whole = ["SCAN requests", "SCAN attempts", "requests_by_state", "TEMP B-TREE"];
        assert!(whole.iter().all(|word| !plan.contains(word)), "{sql}: {plan}");
        seen += 1;
    }
    assert!(seen >= 7, "{seen} statements");
}
