//! The engine against a scripted model, in paused time: waits cost nothing and their lengths are exact.

use rlaif_core::money::{MicroUsd, Price};
use rlaif_core::records::Message;
use rlaif_judge::budget::Limit;
use rlaif_judge::chat::{CallError, CallErrorKind, CallFate, ChatModel, ChatRequest, RawReply};
use rlaif_judge::engine::{
    EngineOptions, Event, Journal, Listed, Stop, Summary, Task, TaskSource, Then, judge_all,
};
use rlaif_judge::retry::RetryPolicy;
use rlaif_judge::{Budget, Style, read_reply};
use std::cell::RefCell;
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
    latency: Duration,
    /// The model that says it answers.
    served: Option<&'static str>,
}

impl<F: Fn(&str, usize) -> Answer> Scripted<F> {
    fn new(script: F) -> Self {
        Self {
            script,
            calls: Mutex::default(),
            in_flight: Mutex::default(),
            sent_at: Mutex::default(),
            start: Instant::now(),
            latency: Duration::from_secs(1),
            served: None,
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
        tokio::time::sleep(self.latency).await;
        self.in_flight.lock().unwrap().0 -= 1;
        let tokens = (self.script)(&name, number)?;
        let body = serde_json::json!({
            "model": self.served,
            "choices": [{"finish_reason": "stop", "message": {"content": "Fine.\nBetter response: 1"}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": tokens}
        });
        let body = body.to_string().into_bytes();
        Ok(RawReply { status: 200, body, request_id: None, latency: Duration::from_secs(1), limits: None })
    }
}

/// Keeps events as lines; refuses the n-th commit if told to.
#[derive(Default)]
struct Lines {
    lines: RefCell<Vec<String>>,
    /// How many events each commit held.
    commits: RefCell<Vec<usize>>,
    charged: RefCell<i64>,
    full_after: Option<usize>,
    /// How long a commit takes.
    slow: Duration,
    /// Tasks that were parked, with the instant from which they are due.
    parked: RefCell<Vec<(Instant, Task)>>,
}

impl Lines {
    fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    fn count(&self, what: &str) -> usize {
        self.lines.borrow().iter().filter(|line| line.ends_with(what)).count()
    }

    fn at(&self, line: &str) -> usize {
        self.lines.borrow().iter().position(|other| other == line).unwrap_or_else(|| panic!("no `{line}`"))
    }
}

impl Journal for Lines {
    type Error = &'static str;
    type Kept = ();

    fn arrived(&self, task: i64, attempt: u32, _: &RawReply) -> Result<(), Self::Error> {
        self.lines.borrow_mut().push(format!("t{task}/{attempt} arrived"));
        Ok(())
    }

    async fn record(&self, events: Vec<Event<()>>) -> Result<(), Self::Error> {
        if self.full_after == Some(self.commits.borrow().len()) {
            return Err("disk full");
        }
        tokio::time::sleep(self.slow).await;
        self.commits.borrow_mut().push(events.len());
        for event in events {
            let (line, charged) = match event {
                Event::Claimed { task, attempt, .. } => (format!("t{task}/{attempt} claimed"), None),
                Event::Replied { task, attempt, reply, kept, charged, .. } => {
                    assert!(kept.is_some());
                    assert!(read_reply(&reply.body, Style::BetterResponse, 101).verdict.choice.is_ok());
                    (format!("t{task}/{attempt} replied"), charged)
                }
                Event::Failed { task, attempt, error, charged, then } => {
                    let then = match then {
                        Then::Retry(_) => "retry",
                        Then::Park(wait) => {
                            let parked =
                                Task { attempts: attempt, retries: attempt as usize, ..numbered(task) };
                            self.parked.borrow_mut().push((Instant::now() + wait, parked));
                            "park"
                        }
                        Then::GivenUp => "given up",
                        Then::StopsTheRun => "stops the run",
                    };
                    (format!("t{task}/{attempt} {} {}: {then}", error.kind, error.fate), charged)
                }
                Event::Held { task, resends } => (format!("t{task} held after {resends}"), None),
            };
            *self.charged.borrow_mut() += charged.map_or(0, |amount| amount.0);
            self.lines.borrow_mut().push(line);
        }
        Ok(())
    }
}

/// A million tasks of which nobody makes a list, and those that the journal parked.
struct Endless<'a> {
    next: i64,
    end: i64,
    drawn: &'a RefCell<i64>,
    journal: &'a Lines,
}

impl TaskSource for Endless<'_> {
    type Error = &'static str;

    async fn fresh(&mut self, at_most: usize) -> Result<Vec<Task>, Self::Error> {
        let from = self.next;
        self.next = self.end.min(from + i64::try_from(at_most).unwrap());
        *self.drawn.borrow_mut() = self.next;
        Ok((from..self.next).map(numbered).collect())
    }

    async fn due(&mut self, at_most: usize) -> Result<(Vec<Task>, Option<Duration>), Self::Error> {
        let now = Instant::now();
        let mut parked = self.journal.parked.borrow_mut();
        let (due, later): (Vec<_>, Vec<_>) = parked.drain(..).partition(|(at, _)| *at <= now);
        parked.extend(later);
        let mut due: Vec<Task> = due.into_iter().map(|(_, task)| task).collect();
        for task in due.drain(due.len().min(at_most)..) {
            parked.push((now, task));
        }
        Ok((due, parked.iter().map(|(at, _)| *at - now).min()))
    }
}

fn numbered(id: i64) -> Task {
    Task { id, ..task(&format!("t{id}")) }
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
        id: 0,
        body: request.canonical_body(),
        prompt_tokens_at_most: request.prompt_tokens_at_most(),
        max_tokens: 100,
        attempts: 0,
        retries: 0,
        resends: 0,
        first_sent_ms: None,
    }
}

fn tasks(n: i64) -> Vec<Task> {
    (0..n).map(numbered).collect()
}

fn error(kind: CallErrorKind, fate: CallFate) -> CallError {
    CallError::new(kind, fate, format!("scripted {kind}"))
}

fn price() -> Option<Price> {
    Some(Price::from_dollars(1.0, 100.0, None).unwrap())
}

async fn go<F: Fn(&str, usize) -> Answer + Sync>(
    model: &Scripted<F>,
    tasks: Vec<Task>,
    concurrency: usize,
    budget: &Budget,
    journal: &Lines,
) -> Result<Summary, Stop<&'static str>> {
    let (_keep, stop) = watch::channel(false);
    let options = EngineOptions {
        concurrency,
        retry: RetryPolicy::new(3),
        price: price(),
        seed: 1,
        ..EngineOptions::new(budget, stop)
    };
    judge_all(model, &mut Listed::new(tasks), options, journal).await
}

fn unlimited() -> Budget {
    Budget::within(vec![])
}

fn limited(max: MicroUsd) -> Budget {
    Budget::within(vec![Limit { key: "label.max_usd", max, spent: MicroUsd::ZERO }])
}

#[tokio::test(start_paused = true)]
async fn all_tasks_are_answered_and_concurrency_is_bounded() {
    let model = Scripted::new(|_, _| Ok(5));
    let (budget, journal) = (unlimited(), Lines::default());
    let summary = go(&model, tasks(10), 3, &budget, &journal).await.unwrap();
    assert_eq!(summary, Summary { replied: 10, ..Summary::default() });
    assert_eq!(model.in_flight.lock().unwrap().1, 3);
    assert_eq!(model.start.elapsed(), Duration::from_secs(4), "ten calls of a second, three at a time");
    for i in 0..10 {
        let at = |what: &str| journal.at(&format!("t{i}/1 {what}"));
        assert!(at("claimed") < at("arrived") && at("arrived") < at("replied"));
    }
    // 10 prompt tokens at $1 and 5 at $100 a million: 510 micro-dollars a call.
    assert_eq!((budget.spent(), budget.reserved()), (MicroUsd(5100), MicroUsd::ZERO));
    assert_eq!(*journal.charged.borrow(), 5100);
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
    let (budget, journal) = (unlimited(), Lines::default());
    let summary = go(&model, tasks(3), 1, &budget, &journal).await.unwrap();
    assert_eq!((summary.replied, summary.retries), (3, 1));
    assert_eq!(journal.lines()[1], "t0/1 rate_limited rejected: retry");
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
    let (budget, journal) = (unlimited(), Lines::default());
    let summary = go(&model, tasks(5), 1, &budget, &journal).await.unwrap();
    assert_eq!((summary.replied, summary.given_up, summary.retries), (5, 0, 3));
    assert_eq!(
        journal.lines()[..5],
        ["t0/1 claimed", "t0/1 server_error rejected: retry", "t1/1 claimed", "t1/1 arrived", "t1/1 replied"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_possibly_billed_call_is_repeated_twice_at_most_and_counted() {
    let model = Scripted::new(|_, _| Err(error(CallErrorKind::Timeout, CallFate::MaybeBilled)));
    let (budget, journal) = (unlimited(), Lines::default());
    let summary = go(&model, tasks(1), 1, &budget, &journal).await.unwrap();
    assert_eq!((summary.given_up, summary.retries), (1, 2));
    assert_eq!(journal.lines().last().unwrap(), "t0/3 timeout maybe_billed: given up");
    let worst =
        Price::from_dollars(1.0, 100.0, None).unwrap().worst_case(task("t0").prompt_tokens_at_most, 100);
    assert_eq!(budget.spent(), MicroUsd(3 * worst.0), "what may have been billed counts as billed");
    assert_eq!(*journal.charged.borrow(), 3 * worst.0);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_stops_the_run_and_what_is_in_flight_is_kept() {
    let model = Scripted::new(|name, _| match name {
        "t1" => Err(error(CallErrorKind::Unauthorized, CallFate::Rejected)),
        _ => Ok(1),
    });
    let (budget, journal) = (unlimited(), Lines::default());
    let stop = go(&model, tasks(100), 3, &budget, &journal).await.unwrap_err();
    assert_eq!(stop, Stop::Fatal(error(CallErrorKind::Unauthorized, CallFate::Rejected)));
    assert_eq!(journal.count("t1/1 unauthorized rejected: stops the run"), 1);
    let ended = journal.count(" replied") + journal.count("not_sent: stops the run");
    assert_eq!(journal.count("claimed"), ended + 1, "every other call in flight was awaited");
    assert!(journal.count("claimed") <= 6, "the other tasks stay open: {:?}", journal.lines());
    assert_eq!(budget.reserved(), MicroUsd::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_down_stops_the_run_after_its_retries() {
    let model = Scripted::new(|_, _| Err(error(CallErrorKind::Connect, CallFate::NotSent)));
    let (budget, journal) = (unlimited(), Lines::default());
    let stop = go(&model, tasks(50), 2, &budget, &journal).await.unwrap_err();
    assert!(matches!(stop, Stop::Fatal(e) if e.kind == CallErrorKind::Connect));
    assert_eq!(journal.count("given up"), 0, "no task is lost to an outage");
    assert_eq!(budget.spent(), MicroUsd::ZERO, "what was never sent costs nothing");
}

#[tokio::test(start_paused = true)]
async fn a_bad_request_is_given_up_alone() {
    let model = Scripted::new(|name, _| match name {
        "t1" => Err(error(CallErrorKind::TooLong, CallFate::Rejected)),
        _ => Ok(1),
    });
    let (budget, journal) = (unlimited(), Lines::default());
    let summary = go(&model, tasks(4), 2, &budget, &journal).await.unwrap();
    assert_eq!((summary.replied, summary.given_up), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_never_exceeded_at_any_concurrency() {
    let worst =
        Price::from_dollars(1.0, 100.0, None).unwrap().worst_case(task("t0").prompt_tokens_at_most, 100);
    for concurrency in [1, 7, 64, 1000] {
        // Every call uses all it may: the dearest case.
        let model = Scripted::new(|_, _| Ok(100));
        let max = MicroUsd(10 * worst.0 + 17);
        let (budget, journal) = (limited(max), Lines::default());
        let stop = go(&model, tasks(500), concurrency, &budget, &journal).await.unwrap_err();
        assert!(matches!(stop, Stop::Budget { .. }), "{stop:?}");
        assert!(budget.spent() <= max, "{concurrency}: {:?}", budget.spent());
        assert!(budget.spent().0 > max.0 - worst.0, "and the purse is nearly empty: {:?}", budget.spent());
        assert_eq!(*journal.charged.borrow(), budget.spent().0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_without_a_price_is_refused() {
    let model = Scripted::new(|_, _| Ok(1));
    let budget = limited(MicroUsd(1));
    let (_keep, stop) = watch::channel(false);
    let options = EngineOptions::new(&budget, stop);
    let stop = judge_all(&model, &mut Listed::new(tasks(1)), options, &Lines::default()).await.unwrap_err();
    assert_eq!(stop, Stop::UnknownPrice { key: "label.max_usd", max: MicroUsd(1) });
    assert!(model.sent().is_empty());
}

/// Starts nine tasks two at a time, and asks for a stop after five seconds.
async fn stopped_after_five_seconds<F: Fn(&str, usize) -> Answer + Sync>(
    model: &Scripted<F>,
    drain: Duration,
    journal: &Lines,
) -> Summary {
    let budget = unlimited();
    let (ask, stop) = watch::channel(false);
    let options = EngineOptions { concurrency: 2, drain, seed: 1, ..EngineOptions::new(&budget, stop) };
    let mut source = Listed::new(tasks(9));
    let (summary, ()) = tokio::join!(judge_all(model, &mut source, options, journal), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        ask.send(true).unwrap();
    });
    summary.unwrap()
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
    let journal = Lines::default();
    let summary = stopped_after_five_seconds(&model, Duration::from_secs(30), &journal).await;
    assert!(summary.interrupted);
    assert_eq!(summary.replied, 1);
    assert_eq!(model.start.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_time_is_abandoned_as_possibly_billed() {
    let model = Scripted { latency: Duration::from_secs(3600), ..Scripted::new(|_, _| Ok(1)) };
    let journal = Lines::default();
    let summary = stopped_after_five_seconds(&model, Duration::from_secs(30), &journal).await;
    assert_eq!((summary.interrupted, summary.abandoned, summary.replied), (true, 2, 0));
    assert_eq!(journal.count("disconnected maybe_billed: stops the run"), 2);
    assert_eq!(model.start.elapsed(), Duration::from_secs(35));
}

/// Memory holds pages, not the queue; a commit holds many events, and a call goes out only after the commit of its claim.
#[tokio::test(start_paused = true)]
async fn a_long_queue_is_drawn_page_by_page_and_committed_in_groups() {
    let model = Scripted::new(|_, _| Ok(1));
    let journal = Lines { slow: Duration::from_millis(20), ..Lines::default() };
    let (budget, drawn) = (unlimited(), RefCell::new(0));
    let (ask, stop) = watch::channel(false);
    let mut source = Endless { next: 0, end: 1_000_000, drawn: &drawn, journal: &journal };
    let options = EngineOptions { concurrency: 500, seed: 1, ..EngineOptions::new(&budget, stop) };
    let (summary, ()) = tokio::join!(judge_all(&model, &mut source, options, &journal), async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        ask.send(true).unwrap();
    });
    let summary = summary.unwrap();
    assert!(summary.interrupted && summary.replied > 4000, "{summary:?}");
    let ahead = *drawn.borrow() - i64::try_from(summary.replied).unwrap();
    assert!(ahead <= 500 + 2 * 256, "{ahead} tasks in memory");
    let (events, commits) = (journal.lines().len() - summary.replied, journal.commits.borrow().len());
    assert!(events / commits >= 10, "{events} events in {commits} commits");
    assert_eq!(journal.count("claimed"), summary.replied + journal.count("stops the run"));
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_is_spent_in_the_ledger_and_ends() {
    let hour = Duration::from_secs(3600);
    let model = Scripted::new(|name, call| match (name, call) {
        ("t3", 0) => Err(CallError {
            retry_after: Some(hour),
            ..error(CallErrorKind::RateLimited, CallFate::Rejected)
        }),
        _ => Ok(1),
    });
    let journal = Lines::default();
    let (budget, drawn) = (unlimited(), RefCell::new(0));
    let (_keep, stop) = watch::channel(false);
    let mut source = Endless { next: 0, end: 20, drawn: &drawn, journal: &journal };
    let park_after = Duration::from_secs(60);
    let options = EngineOptions { concurrency: 4, park_after, ..EngineOptions::new(&budget, stop) };
    let summary = judge_all(&model, &mut source, options, &journal).await.unwrap();
    assert_eq!((summary.replied, summary.retries, summary.given_up), (20, 1, 0));
    assert_eq!(journal.count("t3/1 rate_limited rejected: park"), 1);
    assert!(journal.at("t3/2 claimed") > journal.at("t3/1 rate_limited rejected: park"));
    let sent = model.sent();
    assert!(sent.iter().all(|(_, at)| *at < 2.0 || *at >= 3601.0), "all wait as the provider asks: {sent:?}");
}

/// With a fifth of all calls failing, retries are at most a tenth of what is sent while there is anything else to send.
#[tokio::test(start_paused = true)]
async fn retries_are_a_small_share_of_sends_while_fresh_tasks_are_left() {
    let model = Scripted::new(|_, call| match call {
        0 => Err(error(CallErrorKind::Server, CallFate::Rejected)),
        _ => Ok(1),
    });
    let (budget, journal) = (unlimited(), Lines::default());
    let summary = go(&model, tasks(400), 10, &budget, &journal).await.unwrap();
    assert_eq!((summary.replied, summary.retries), (400, 400));
    let sent = model.sent();
    let mut seen = std::collections::HashSet::new();
    let (mut retries, mut fresh) = (0, 0);
    for (name, _) in &sent {
        if seen.insert(name) {
            fresh += 1
        } else {
            retries += 1
        }
        if fresh < 400 - 10 {
            assert!(retries <= 11 + (retries + fresh) / 10 + 10, "{retries} of {}", retries + fresh);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_configured_pace_is_kept() {
    let model = Scripted::new(|_, _| Ok(1));
    let (budget, journal) = (unlimited(), Lines::default());
    let (_keep, stop) = watch::channel(false);
    let limits = rlaif_judge::LimitOptions { requests_per_minute: Some(600), tokens_per_minute: None };
    let options = EngineOptions { concurrency: 100, limits, ..EngineOptions::new(&budget, stop) };
    judge_all(&model, &mut Listed::new(tasks(1200)), options, &journal).await.unwrap();
    let sent = model.sent();
    for second in 1..119 {
        let from = f64::from(second);
        let count = sent.iter().filter(|(_, at)| (from..from + 1.0).contains(at)).count();
        assert!((9..=12).contains(&count), "{count} in second {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_fall_when_the_endpoint_has_too_many() {
    // At most ten at a time, or it says 529.
    let busy = std::sync::atomic::AtomicUsize::new(0);
    let model = Scripted::new(|_, _| Ok(1));
    struct Narrow<'a, F: Fn(&str, usize) -> Answer>(
        &'a Scripted<F>,
        &'a std::sync::atomic::AtomicUsize,
        Mutex<usize>,
    );
    impl<F: Fn(&str, usize) -> Answer + Sync> ChatModel for Narrow<'_, F> {
        fn body(&self, request: &ChatRequest) -> String {
            request.canonical_body()
        }

        async fn send(&self, body: &str) -> Result<RawReply, CallError> {
            use std::sync::atomic::Ordering::SeqCst;
            let too_many = self.1.fetch_add(1, SeqCst) >= 10;
            let reply = if too_many {
                *self.2.lock().unwrap() += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
                Err(error(CallErrorKind::Overloaded, CallFate::Rejected))
            } else {
                self.0.send(body).await
            };
            self.1.fetch_sub(1, SeqCst);
            reply
        }
    }
    let narrow = Narrow(&model, &busy, Mutex::new(0));
    let (budget, journal) = (unlimited(), Lines::default());
    let (_keep, stop) = watch::channel(false);
    let options = EngineOptions { concurrency: 100, ..EngineOptions::new(&budget, stop) };
    let summary = judge_all(&narrow, &mut Listed::new(tasks(2000)), options, &journal).await.unwrap();
    assert_eq!((summary.replied, summary.given_up), (2000, 0));
    let refused = *narrow.2.lock().unwrap();
    assert!(refused < 300, "{refused} refusals for 2000 replies");
    assert!(model.start.elapsed() < Duration::from_secs(300), "{:?}", model.start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_too_often_is_held() {
    let model = Scripted::new(|_, _| Ok(1));
    let (budget, journal) = (unlimited(), Lines::default());
    let held = Task { resends: 3, ..numbered(1) };
    let summary = go(&model, vec![numbered(0), held], 2, &budget, &journal).await.unwrap();
    assert_eq!((summary.replied, summary.given_up), (1, 1));
    assert_eq!(journal.count("t1 held after 3"), 1);
}

#[tokio::test(start_paused = true)]
async fn another_model_stops_the_run_if_told_to() {
    let model = Scripted { served: Some("judge-mini"), ..Scripted::new(|_, _| Ok(1)) };
    let (budget, journal) = (unlimited(), Lines::default());
    for (asked, stops) in [(None, false), (Some("judge"), true), (Some("judge-mini"), false)] {
        let (_keep, stop) = watch::channel(false);
        let strict_model = asked.map(str::to_owned);
        let options = EngineOptions { concurrency: 1, strict_model, ..EngineOptions::new(&budget, stop) };
        let ended = judge_all(&model, &mut Listed::new(tasks(9)), options, &journal).await;
        assert_eq!(matches!(ended, Err(Stop::WrongModel { .. })), stops, "{asked:?}: {ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_not_sent() {
    let model = Scripted::new(|_, _| Ok(1));
    let (budget, journal) = (unlimited(), Lines { full_after: Some(1), ..Lines::default() });
    let stop = go(&model, tasks(9), 1, &budget, &journal).await.unwrap_err();
    assert_eq!(stop, Stop::Journal("disk full"));
    assert_eq!(model.sent().len(), 1);
}
