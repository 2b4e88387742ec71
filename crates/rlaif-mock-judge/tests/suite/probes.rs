//! The calls that find out what an endpoint holds answers to: paid, kept and counted like all others. The files that send them are the
//! program's own.

#![allow(dead_code, reason = "the program needs more of these files")]

#[path = "../../../rlaif/src/judging/lone.rs"]
mod lone;

use crate::paying::ledger;
use rlaif_core::config::{JudgeConfig, JudgeKind};
use rlaif_core::money::{MicroUsd, Price};
use rlaif_judge::budget::Limit;
use rlaif_judge::capability::{obeys, probe_request};
use rlaif_judge::engine::{EngineOptions, Stop, Summary};
use rlaif_judge::retry::RetryPolicy;
use rlaif_judge::{Budget, Capabilities, ChatModel, ChatRequest, Form, Provider};
use rlaif_mock_judge::{FormKind, Latency, MockJudge, Mode, Options};
use rlaif_store::StoreError;
use rlaif_store::store::{Capability, Lone, LoneReading, NewRequest, Store};
use std::time::Duration;

struct Probe {
    folder: tempfile::TempDir,
    judge: MockJudge,
    client: Provider,
    request: ChatRequest,
    body: String,
    max_usd: MicroUsd,
}

impl Probe {
    async fn new(options: Options) -> Self {
        let prices = Options { usd_per_million_input: 1.0, usd_per_million_output: 4.0, ..options };
        let judge = MockJudge::start(prices).await.unwrap();
        let config = JudgeConfig {
            kind: JudgeKind::Openai,
            model: "m".into(),
            base_url: Some(judge.base_url()),
            ..JudgeConfig::default()
        };
        let client = Provider::from_config(&config, |_| None).unwrap();
        let client = client.with_capabilities(Capabilities { form: Form::Choice });
        let request = probe_request(&ChatRequest::of_judge(&config, Vec::new()));
        let body = client.body(&request);
        let folder = tempfile::tempdir().unwrap();
        Self { folder, judge, client, request, body, max_usd: MicroUsd(1_000_000) }
    }

    async fn store(&self) -> Store {
        Store::open(self.folder.path().join("rlaif.db")).await.unwrap()
    }

    fn worst_case(&self) -> MicroUsd {
        price().worst_case(self.request.prompt_tokens_at_most(), self.request.max_tokens as u64)
    }

    fn lone(&self) -> NewRequest<'_> {
        NewRequest {
            judge: "mock",
            request_key: "probe",
            body: &self.body,
            prompt_tokens_at_most: self.request.prompt_tokens_at_most(),
            max_tokens: self.request.max_tokens as u64,
        }
    }

    /// Sends it, unless it is answered, as the program does.
    async fn send(&self, store: &Store) -> Result<Option<Summary>, Stop<StoreError>> {
        let Lone::Open(request) = store.plan_lone(self.lone(), true).await.unwrap() else { return Ok(None) };
        let (spent, _) = store.charged("label").await.unwrap();
        let budget = Budget::within(vec![Limit { key: "label.max_usd", max: self.max_usd, spent }]);
        let (_keep, stop) = tokio::sync::watch::channel(false);
        let retry = RetryPolicy { base: Duration::from_millis(2), max_resends: 2, ..RetryPolicy::new(5) };
        let options = EngineOptions { retry, price: Some(price()), ..EngineOptions::new(&budget, stop) };
        lone::send_alone(store, "label", "mock", &self.client, options, request).await.map(Some)
    }
}

fn price() -> Price {
    Price::from_dollars(1.0, 4.0, None).unwrap()
}

#[tokio::test]
async fn a_probe_is_tried_again_like_any_call_and_its_bill_is_the_judges() {
    let script = vec![Mode::ServerError, Mode::Overloaded, Mode::Answer];
    let probe = Probe::new(Options { script, ..Options::default() }).await;
    let store = probe.store().await;
    let summary = probe.send(&store).await.unwrap().unwrap();
    assert_eq!((summary.replied, summary.retries), (1, 2));
    let billed = probe.judge.settled_summary().await;
    assert_eq!((billed.calls, billed.billed, store.charged("label").await.unwrap().0), (3, 1, billed.cost));
    drop(store);

    // Another process finds the reply, reads it, and pays nothing.
    let store = probe.store().await;
    assert!(probe.send(&store).await.unwrap().is_none());
    let Lone::Replied(reply_id, raw) = store.lone("probe").await.unwrap() else { panic!("it is answered") };
    assert!(obeys(Form::Choice, &raw));
    let usage = rlaif_judge::Completion::read(&raw).unwrap().usage;
    let cost = price().cost(&usage.unwrap());
    let reading = LoneReading { reply_id, usage, cost, model: None };
    let found = Capability { form: "choice".into(), obeyed: true, complaint: None };
    store.put_capability("openai x", "m", &found, Some(reading)).await.unwrap();
    assert_eq!(store.charged("label").await.unwrap().0, billed.cost);
    assert_eq!(store.spend().await.unwrap().known, billed.cost);
    assert_eq!(probe.judge.settled_summary().await.calls, 3);
}

#[tokio::test]
async fn a_form_that_is_refused_is_an_answer_that_costs_nothing() {
    let probe = Probe::new(Options { refuse_forms: vec![FormKind::Choice], ..Options::default() }).await;
    let store = probe.store().await;
    assert_eq!(probe.send(&store).await.unwrap().unwrap().given_up, 1);
    let Lone::Failed { class, message } = store.lone("probe").await.unwrap() else { panic!("it is refused") };
    assert!(class == "unsupported_parameter" && message.contains("structured_outputs"), "{class}: {message}");
    assert_eq!(store.charged("label").await.unwrap().0, MicroUsd::ZERO);
    assert_eq!(probe.judge.settled_summary().await.cost, MicroUsd::ZERO);
}

#[tokio::test]
async fn other_failures_stop_as_they_stop_any_first_call() {
    let options = Options { require_key: Some("another".into()), ..Options::default() };
    let probe = Probe::new(options).await;
    let store = probe.store().await;
    let stop = probe.send(&store).await.unwrap_err();
    assert!(matches!(stop, Stop::Fatal(_)), "{stop}");
    assert!(
        matches!(store.lone("probe").await.unwrap(), Lone::Open(_)),
        "it is to be sent once that is mended"
    );

    let poor = Probe { max_usd: MicroUsd(1), ..Probe::new(Options::default()).await };
    let store = poor.store().await;
    let stop = poor.send(&store).await.unwrap_err();
    assert!(matches!(stop, Stop::Budget { key: "label.max_usd", .. }), "{stop}");
    assert_eq!(poor.judge.settled_summary().await.calls, 0);
}

/// The process dies while a probe is out: it may have been billed, and counts as if it were.
#[tokio::test]
async fn a_probe_that_was_out_when_the_process_died_counts_at_its_worst_case() {
    let latency = Latency::Fixed(Duration::from_millis(400));
    let mut probe = Probe::new(Options { latency, ..Options::default() }).await;
    let store = probe.store().await;
    let dies = tokio::time::timeout(Duration::from_millis(200), probe.send(&store)).await;
    assert!(dies.is_err(), "it was still out");
    drop(store);

    let worst_case = probe.worst_case();
    let store = probe.store().await;
    assert_eq!(store.charged("label").await.unwrap().0, worst_case);
    probe.max_usd = MicroUsd(2 * worst_case.0 - 1);
    let stop = probe.send(&store).await.unwrap_err();
    assert!(matches!(stop, Stop::Budget { .. }), "a second one might not fit: {stop}");
    probe.max_usd = MicroUsd(2 * worst_case.0);
    assert_eq!(probe.send(&store).await.unwrap().unwrap().replied, 1);
    let billed = probe.judge.settled_summary().await;
    let (charged, _) = store.charged("label").await.unwrap();
    assert_eq!((billed.calls, billed.billed), (2, 2), "the provider did the lost one too");
    assert_eq!(charged.0, worst_case.0 + billed.cost.0 / 2, "what was lost counts at its worst case");
    assert!(billed.cost <= charged);
}
