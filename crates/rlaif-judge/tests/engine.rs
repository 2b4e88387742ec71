//! The engine against a scripted model, in paused time: waits cost nothing and their lengths are exact.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use rlaif_core::money::{MicroUsd, Price};
use rlaif_core::records::Message;
use rlaif_judge::chat::{CallError, CallErrorKind, CallFate, ChatModel, ChatRequest, RawReply};
use rlaif_judge::engine::{EngineOptions, Event, Journal, Stop, Summary, Task, Then, judge_all};
use rlaif_judge::retry::RetryPolicy;
use rlaif_judge::{Budget, Style, read_reply};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

type Answer = Result<u64, CallError>;

/// Answers call `n` of task `name` as the script says, after a second; counts who is in flight.
struct Scripted<F: Fn(&str, usize) -> Answer> {
    script: F,
    calls: Mutex<HashMap<String, usize>>,
    in_flight: Mutex<(usize, usize)>,
    sent_at: Mutex<Vec<(String, Duration)>>,
    start: Instant,
}

impl<F: Fn(&str, usize) -> Answer> Scripted<F> {
    fn new(script: F) -> Self {
        Self {
            script,
            calls: Mutex::default(),
            in_flight: Mutex::default(),
            sent_at: Mutex::default(),
            start: Instant::now(),
        }
    }

    fn sent(&self) -> Vec<(String, f64)> {
        self.sent_at.lock().unwrap().iter().map(|(name, at)| (name.clone(), at.as_secs_f64())).collect()
    }
}

impl<F: Fn(&str, usize) -> Answer + Sync> ChatModel for Scripted<F> {
    fn body(&self, request: &ChatRequest) -> String {
        request.canonical_body()
    }

    async fn send(&self, body: &str) -> Result<RawReply, CallError> {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let name = body["messages"][0]["content"].as_str().unwrap().to_owned();
        let number = {
            let mut calls = self.calls.lock().unwrap();
            let count = calls.entry(name.clone()).or_default();
            *count += 1;
            *count - 1
        };
        self.sent_at.lock().unwrap().push((name.clone(), self.start.elapsed()));
        {
            let mut flight = self.in_flight.lock().unwrap();
            flight.0 += 1;
            flight.1 = flight.1.max(flight.0);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.in_flight.lock().unwrap().0 -= 1;
        let tokens = (self.script)(&name, number)?;
        let body = serde_json::json!({
            "choices": [{"finish_reason": "stop", "message": {"content": "Fine.\nBetter response: 1"}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": tokens}
        });
        let body = body.to_string().into_bytes();
        Ok(RawReply { status: 200, body, request_id: None, latency: Duration::from_secs(1) })
    }
}

/// Keeps events as lines; refuses the n-th if told to.
#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    charged: i64,
    full_after: Option<usize>,
}

impl Journal for Lines {
    type Error = &'static str;

    async fn record(&mut self, event: Event<'_>) -> Result<(), Self::Error> {
        if self.full_after == Some(self.lines.len()) {
            return Err("disk full");
        }
        let (line, charged) = match event {
            Event::Sending { key, attempt, .. } => (format!("{key}/{attempt} sending"), None),
            Event::Replied { key, attempt, reply, charged, .. } => {
                assert!(read_reply(&reply.body, Style::BetterResponse, 101).verdict.choice.is_ok());
                (format!("{key}/{attempt} replied"), charged)
            }
            Event::Failed { key, attempt, error, charged, then } => {
                let then = match then {
                    Then::Retry(_) => "retry",
                    Then::GivenUp => "given up",
                    Then::StopsTheRun => "stops the run",
                };
                (format!("{key}/{attempt} {} {}: {then}", error.kind, error.fate), charged)
            }
        };
        self.charged += charged.map_or(0, |amount| amount.0);
        self.lines.push(line);
        Ok(())
    }
}

fn task(name: &str) -> Task {
    let request = ChatRequest {
        model: "judge".into(),
        messages: vec![Message::user(name)],
        max_tokens: 100,
        temperature: Some(0.0),
        ..ChatRequest::default()
    };
    Task {
        key: name.into(),
        body: request.canonical_body(),
        prompt_tokens_at_most: request.prompt_tokens_at_most(),
        max_tokens: 100,
    }
}

fn tasks(n: usize) -> Vec<Task> {
    (0..n).map(|i| task(&format!("t{i}"))).collect()
}

fn error(kind: CallErrorKind, fate: CallFate) -> CallError {
    CallError::new(kind, fate, format!("scripted {kind}"))
}

async fn go<F: Fn(&str, usize) -> Answer + Sync>(
    model: &Scripted<F>,
    tasks: Vec<Task>,
    concurrency: usize,
    budget: &Budget,
    journal: &mut Lines,
) -> Result<Summary, Stop<&'static str>> {
    let (_keep, stop) = watch::channel(false);
    let price = Some(Price::from_dollars(1.0, 100.0, None).unwrap());
    let options = EngineOptions { concurrency, retry: RetryPolicy::new(3), price, budget, stop, seed: 1 };
    judge_all(model, tasks, options, journal).await
}

fn unlimited() -> Budget {
    Budget::new(None, MicroUsd::ZERO)
}

#[tokio::test(start_paused = true)]
async fn all_tasks_are_answered_and_concurrency_is_bounded() {
    let model = Scripted::new(|_, _| Ok(5));
    let (budget, mut journal) = (unlimited(), Lines::default());
    let summary = go(&model, tasks(10), 3, &budget, &mut journal).await.unwrap();
    assert_eq!(summary, Summary { replied: 10, ..Summary::default() });
    assert_eq!(model.in_flight.lock().unwrap().1, 3);
    assert_eq!(model.start.elapsed(), Duration::from_secs(4), "ten calls of a second, three at a time");
    for i in 0..10 {
        let at =
            |what: &str| journal.lines.iter().position(|line| *line == format!("t{i}/0 {what}")).unwrap();
        assert!(at("sending") < at("replied"));
    }
    // 10 prompt tokens at $1 and 5 at $100 a million: 510 micro-dollars a call.
    assert_eq!((budget.spent(), budget.reserved()), (MicroUsd(5100), MicroUsd::ZERO));
    assert_eq!(journal.charged, 5100);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_and_holds_the_others_back() {
    let model = Scripted::new(|name, call| match (name, call) {
        ("t0", 0) => Err(CallError {
            retry_after: Some(Duration::from_secs(20)),
            ..error(CallErrorKind::RateLimited, CallFate::Rejected)
        }),
        _ => Ok(1),
    });
    let (budget, mut journal) = (unlimited(), Lines::default());
    let summary = go(&model, tasks(3), 1, &budget, &mut journal).await.unwrap();
    assert_eq!((summary.replied, summary.retries), (3, 1));
    assert_eq!(journal.lines[1], "t0/0 rate_limited rejected: retry");
    let sent = model.sent();
    assert_eq!(sent[0], ("t0".into(), 0.0));
    assert!(sent[1].1 >= 21.0, "nothing is sent while the provider asks for quiet: {sent:?}");
    assert!(sent.iter().all(|(_, at)| *at < 27.0), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_parked_task_leaves_its_place_to_others() {
    let model = Scripted::new(|name, call| match (name, call) {
        ("t0", 0..=2) => Err(error(CallErrorKind::Server, CallFate::Rejected)),
        _ => Ok(1),
    });
    let (budget, mut journal) = (unlimited(), Lines::default());
    let summary = go(&model, tasks(5), 1, &budget, &mut journal).await.unwrap();
    assert_eq!((summary.replied, summary.given_up, summary.retries), (5, 0, 3));
    assert_eq!(
        journal.lines[..4],
        ["t0/0 sending", "t0/0 server_error rejected: retry", "t1/0 sending", "t1/0 replied"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_possibly_billed_call_is_repeated_twice_at_most_and_counted() {
    let model = Scripted::new(|_, _| Err(error(CallErrorKind::Timeout, CallFate::MaybeBilled)));
    let (budget, mut journal) = (unlimited(), Lines::default());
    let summary = go(&model, tasks(1), 1, &budget, &mut journal).await.unwrap();
    assert_eq!((summary.given_up, summary.retries), (1, 2));
    assert_eq!(journal.lines.last().unwrap(), "t0/2 timeout maybe_billed: given up");
    let worst =
        Price::from_dollars(1.0, 100.0, None).unwrap().worst_case(task("t0").prompt_tokens_at_most, 100);
    assert_eq!(budget.spent(), MicroUsd(3 * worst.0), "what may have been billed counts as billed");
    assert_eq!(journal.charged, 3 * worst.0);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_stops_the_run_and_what_is_in_flight_is_kept() {
    let model = Scripted::new(|name, _| match name {
        "t1" => Err(error(CallErrorKind::Unauthorized, CallFate::Rejected)),
        _ => Ok(1),
    });
    let (budget, mut journal) = (unlimited(), Lines::default());
    let stop = go(&model, tasks(100), 3, &budget, &mut journal).await.unwrap_err();
    assert_eq!(stop, Stop::Fatal(error(CallErrorKind::Unauthorized, CallFate::Rejected)));
    assert!(journal.lines.contains(&"t1/0 unauthorized rejected: stops the run".to_owned()));
    let count = |what: &str| journal.lines.iter().filter(|line| line.ends_with(what)).count();
    assert_eq!(count("sending"), count("replied") + 1, "every other call in flight was awaited");
    assert!(count("sending") <= 5, "the other tasks stay open: {:?}", journal.lines);
    assert_eq!(budget.reserved(), MicroUsd::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_down_stops_the_run_after_its_retries() {
    let model = Scripted::new(|_, _| Err(error(CallErrorKind::Connect, CallFate::NotSent)));
    let (budget, mut journal) = (unlimited(), Lines::default());
    let stop = go(&model, tasks(50), 2, &budget, &mut journal).await.unwrap_err();
    assert!(matches!(stop, Stop::Fatal(e) if e.kind == CallErrorKind::Connect));
    assert!(!journal.lines.iter().any(|line| line.ends_with("given up")), "no task is lost to an outage");
    assert_eq!(budget.spent(), MicroUsd::ZERO, "what was never sent costs nothing");
}

#[tokio::test(start_paused = true)]
async fn a_bad_request_is_given_up_alone() {
    let model = Scripted::new(|name, _| match name {
        "t1" => Err(error(CallErrorKind::TooLong, CallFate::Rejected)),
        _ => Ok(1),
    });
    let (budget, mut journal) = (unlimited(), Lines::default());
    let summary = go(&model, tasks(4), 2, &budget, &mut journal).await.unwrap();
    assert_eq!((summary.replied, summary.given_up), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_never_exceeded_at_any_concurrency() {
    let worst =
        Price::from_dollars(1.0, 100.0, None).unwrap().worst_case(task("t0").prompt_tokens_at_most, 100);
    for concurrency in [1, 7, 64] {
        // Every call uses all it may: the dearest case.
        let model = Scripted::new(|_, _| Ok(100));
        let max = MicroUsd(10 * worst.0 + 17);
        let (budget, mut journal) = (Budget::new(Some(max), MicroUsd::ZERO), Lines::default());
        let stop = go(&model, tasks(500), concurrency, &budget, &mut journal).await.unwrap_err();
        assert!(matches!(stop, Stop::Budget { .. }), "{stop:?}");
        assert!(budget.spent() <= max, "{concurrency}: {:?}", budget.spent());
        assert!(budget.spent().0 > max.0 - worst.0, "and the purse is nearly empty: {:?}", budget.spent());
        assert_eq!(journal.charged, budget.spent().0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_without_a_price_is_refused() {
    let model = Scripted::new(|_, _| Ok(1));
    let budget = Budget::new(Some(MicroUsd(1)), MicroUsd::ZERO);
    let (_keep, stop) = watch::channel(false);
    let retry = RetryPolicy::new(0);
    let options = EngineOptions { concurrency: 1, retry, price: None, budget: &budget, stop, seed: 1 };
    let stop = judge_all(&model, tasks(1), options, &mut Lines::default()).await.unwrap_err();
    assert_eq!(stop, Stop::UnknownPrice { max: MicroUsd(1) });
    assert!(model.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn stopping_finishes_what_is_in_flight_even_while_the_rest_is_held_back() {
    let model = Scripted::new(|name, _| match name {
        "t0" => Err(CallError {
            retry_after: Some(Duration::from_secs(500)),
            ..error(CallErrorKind::RateLimited, CallFate::Rejected)
        }),
        _ => Ok(1),
    });
    let (budget, mut journal) = (unlimited(), Lines::default());
    let (ask, stop) = watch::channel(false);
    let retry = RetryPolicy::new(3);
    let options = EngineOptions { concurrency: 2, retry, price: None, budget: &budget, stop, seed: 1 };
    let start = Instant::now();
    let (summary, ()) = tokio::join!(judge_all(&model, tasks(9), options, &mut journal), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        ask.send(true).unwrap();
    });
    let summary = summary.unwrap();
    assert!(summary.interrupted);
    assert_eq!(summary.replied, 1);
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_not_sent() {
    let model = Scripted::new(|_, _| Ok(1));
    let (budget, mut journal) = (unlimited(), Lines { full_after: Some(2), ..Lines::default() });
    let stop = go(&model, tasks(9), 1, &budget, &mut journal).await.unwrap_err();
    assert_eq!(stop, Stop::Journal("disk full"));
    assert_eq!(model.sent().len(), 1);
}
