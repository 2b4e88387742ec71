//! Nothing that arrived is lost or bought again, whenever the process dies and whatever the judge does. Small versions of the runs in
//! `examples/paying_once.rs`.

use crate::paying::{Run, check, plan};
use rlaif_core::money::MicroUsd;
use rlaif_judge::LimitOptions;
use rlaif_judge::engine::Stop;
use rlaif_mock_judge::{Group, Latency, MockJudge, Mode, Options, Weighted};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

fn options() -> Options {
    Options { usd_per_million_input: 1.0, usd_per_million_output: 4.0, seed: 7, ..Options::default() }
}

async fn lab(n: usize, options: Options) -> (TempDir, MockJudge, Run) {
    let folder = tempfile::tempdir().unwrap();
    let judge = MockJudge::start_on_thread(options).unwrap();
    let db = folder.path().join("rlaif.db");
    plan(&db, n).await.unwrap();
    let run = Run { safe: Some(folder.path().join("safe")), ..Run::new(db, judge.base_url()) };
    (folder, judge, run)
}

#[tokio::test]
async fn a_fifth_of_all_calls_fails_in_every_way_and_the_books_agree() {
    let options = Options {
        chaos: 0.2,
        chaos_modes: vec![Weighted::group(Group::Transient), Weighted::group(Group::Content)],
        hang: Duration::from_millis(300),
        retry_after: 0.02,
        ..options()
    };
    let (_folder, judge, run) = lab(1500, options).await;
    let run = Run { timeout: Duration::from_millis(250), max_resends: 8, ..run };
    let (summary, tally) = run.to_the_end().await.unwrap();
    let found = check(&run.db, &judge, run.safe.as_deref()).await;
    let ended: u64 = ["judged", "failed"].iter().filter_map(|state| found.states.get(*state)).sum();
    assert_eq!(ended, found.requests, "every task reached its end: {found:?}");
    assert!(found.requests > 1500 && summary.retries > 100, "it was no quiet run: {found:?} {summary:?}");
    assert_eq!(summary.replied as u64 + summary.given_up as u64, found.requests);
    assert!(found.charged >= found.billed, "the budget never counts too little: {found:?}");
    assert!(tally.charged.0 >= found.known);
}

#[tokio::test]
async fn a_quiet_run_costs_what_the_mock_billed_and_is_bought_once() {
    let (_folder, judge, run) = lab(500, options()).await;
    run.to_the_end().await.unwrap();
    let found = check(&run.db, &judge, run.safe.as_deref()).await;
    assert_eq!((found.calls, found.bought_again, found.safe), (500, 0, 500));
    assert_eq!((found.known, found.charged), (found.billed, found.billed));
    // Run again, nothing is sent.
    run.to_the_end().await.unwrap();
    assert_eq!(judge.ledger().summary().calls, 500);
}

/// The process in which [`killed_at_random`] and [`killed_at_every_step`] do their work; on its own it does nothing.
#[tokio::test]
async fn child() {
    let Ok(db) = std::env::var("PAYING_DB") else { return };
    let url = std::env::var("PAYING_URL").unwrap();
    let concurrency = std::env::var("PAYING_CONCURRENCY").unwrap().parse().unwrap();
    let safe = Some(Path::new(&db).with_file_name("safe"));
    let run = Run { concurrency, safe, max_resends: 1000, ..Run::new(db.into(), url) };
    run.to_the_end().await.unwrap();
}

fn spawn(run: &Run, concurrency: usize, die_at: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "paying_once::child", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.env("PAYING_DB", &run.db).env("PAYING_URL", &run.url);
    command.env("PAYING_CONCURRENCY", concurrency.to_string());
    if let Some(die_at) = die_at {
        command.env("RLAIF_DIE_AT", die_at);
    }
    command.spawn().unwrap()
}

#[tokio::test]
async fn killed_at_random() {
    let latency = Latency::Uniform(Duration::from_millis(1), Duration::from_millis(30));
    let (_folder, judge, run) = lab(600, Options { latency, ..options() }).await;
    let mut kills = 0;
    for moment in 0_u64.. {
        let mut child = spawn(&run, 16, None);
        // Anywhere between its start and its end, on a machine however slow.
        tokio::time::sleep(Duration::from_millis(25 + moment * 37 % 300 + moment * 5)).await;
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        assert!(kills < 300, "it never gets to the end");
    }
    let found = check(&run.db, &judge, run.safe.as_deref()).await;
    assert_eq!(found.states.get("judged"), Some(&600), "{found:?}");
    assert!(kills > 3, "{kills} kills");
}

/// With one call in flight it is known what a death at each step costs: after the reply's bytes are kept, nothing.
#[tokio::test]
async fn killed_at_every_step() {
    let steps = [
        ("store/before_commit", 0),
        ("store/in_commit", 0),
        ("store/committed", 0),
        ("engine/claimed", 0),
        // The bytes are here and not yet kept: the one call that may be bought again, and is listed as such.
        ("engine/arrived", 1),
        ("engine/kept", 0),
        ("store/recovered", 0),
        ("store/in_reading", 0),
        ("store/read", 0),
        ("store/in_ask_again", 0),
        ("store/asked_again", 0),
    ];
    // A third of the replies is cut off, so that there is something to ask for again.
    let chaos_modes = vec![Weighted::mode(Mode::Truncated, 1.0)];
    let (_folder, judge, run) = lab(60, Options { chaos: 0.33, chaos_modes, ..options() }).await;
    let (mut deaths, mut may_be_bought_again) = (0, 0);
    for (step, again) in steps {
        for time in [1, 2, 5] {
            let mut child = spawn(&run, 1, Some(&format!("{step}:{time}")));
            if !child.wait().unwrap().success() {
                deaths += 1;
                may_be_bought_again += again;
            }
        }
    }
    assert!(spawn(&run, 1, None).wait().unwrap().success());
    let found = check(&run.db, &judge, run.safe.as_deref()).await;
    assert!(deaths >= 15, "{deaths} deaths");
    assert!(found.bought_again <= may_be_bought_again, "{found:?}");
    assert!(found.requests > 65, "{found:?}");
    assert_eq!(found.states.get("judged"), Some(&found.requests), "{found:?}");
}

#[tokio::test]
async fn the_limit_of_requests_is_used_and_not_run_into() {
    let options = Options { requests_per_minute: Some(6000), burst_seconds: 1.0, ..options() };
    let (_folder, judge, run) = lab(400, options).await;
    let limits = LimitOptions { requests_per_minute: Some(6000), tokens_per_minute: None };
    let run = Run { limits, concurrency: 64, ..run };
    run.to_the_end().await.unwrap();
    let entries = judge.ledger().entries();
    assert_eq!(entries.iter().filter(|entry| entry.status == Some(429)).count(), 0);
    let span = |of: fn(&rlaif_mock_judge::Entry) -> u64| {
        entries.iter().map(of).max().unwrap() - entries.iter().map(of).min().unwrap()
    };
    let seconds = span(|entry| entry.received_us) as f64 / 1e6;
    let used = 400.0 / (seconds * 100.0);
    assert!(used <= 1.2, "no more than is allowed, but for a burst: {used}");
}

#[tokio::test]
async fn the_money_is_never_exceeded_even_across_restarts() {
    let options = Options {
        chaos: 0.3,
        chaos_modes: vec![Weighted::mode(Mode::ResetAfterBody, 1.0), Weighted::mode(Mode::ServerError, 1.0)],
        ..options()
    };
    let (_folder, judge, run) = lab(1000, options).await;
    let max = MicroUsd(30_000);
    let run = Run { max_usd: Some(max), concurrency: 200, ..run };
    for _ in 0..3 {
        let stop = run.to_the_end().await.unwrap_err();
        assert!(matches!(stop, Stop::Budget { .. }), "{stop:?}");
        let found = check(&run.db, &judge, run.safe.as_deref()).await;
        assert!(found.billed <= max.0 && found.charged <= max.0, "{found:?}");
        assert!(found.charged > max.0 * 9 / 10, "and it is used: {found:?}");
    }
}
