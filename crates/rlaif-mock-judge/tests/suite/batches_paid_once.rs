//! What the program does with batches, against both providers' protocols: nothing is made, lost or paid for twice, wherever it dies. The
//! file that joins batches and ledger is the program's own; the oracle is the mock's ledger.

#[allow(dead_code, reason = "the program reads more of it")]
#[path = "../../../rlaif/src/judging/batches.rs"]
mod batches;

use self::batches::{BatchTally, BatchTerms, Batches, Cap, NotDrawn, import, release};
use crate::paying::{Findings, JUDGE, check, check_entries, plan_as, price, read};
use reqwest::multipart::{Form, Part};
use rlaif_core::config::{JudgeConfig, JudgeKind};
use rlaif_core::money::MicroUsd;
use rlaif_judge::batch::{BatchLimits, BatchOptions, BatchStop, BatchSummary, drive};
use rlaif_judge::engine::Stop;
use rlaif_judge::{ChatModel, Provider};
use rlaif_mock_judge::{BatchEnd, MockJudge, Options};
use rlaif_store::store::{Store, TRAIN_PAIRS};
use rlaif_store::{StoreError, store::RequestState};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

const KINDS: [JudgeKind; 2] = [JudgeKind::Openai, JudgeKind::Anthropic];

fn options() -> Options {
    Options { usd_per_million_input: 1.0, usd_per_million_output: 4.0, seed: 7, ..Options::default() }
}

fn provider(kind: JudgeKind, url: &str) -> Provider {
    let judge = JudgeConfig {
        kind,
        base_url: Some(url.to_owned()),
        api_key_env: Some("KEY".into()),
        model: "mock-judge".into(),
        ..JudgeConfig::default()
    };
    Provider::from_config(&judge, |_| Some("a-key".into())).unwrap()
}

/// A ledger with planned requests, and a judge.
struct Lab {
    _folder: TempDir,
    db: PathBuf,
    judge: MockJudge,
    kind: JudgeKind,
}

/// How a run differs from the usual one.
#[derive(Default)]
struct Ways {
    max: Option<MicroUsd>,
    strict_model: Option<String>,
    fetches_only: bool,
    stopped: bool,
}

type Ended = Result<(BatchSummary, BatchTally), BatchStop<Stop<StoreError>>>;

impl Lab {
    async fn new(kind: JudgeKind, n: usize, options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("rlaif.db");
        let judge = MockJudge::start_on_thread(options).unwrap();
        let model = provider(kind, &judge.base_url());
        plan_as(&db, n, |request| model.body(request)).await.unwrap();
        Self { _folder: folder, db, judge, kind }
    }

    async fn run(&self, ways: Ways) -> Ended {
        let store = Store::open(&self.db).await.unwrap();
        run(&store, self.kind, &self.judge.base_url(), ways).await
    }

    async fn check(&self) -> Findings {
        check(&self.db, &self.judge, None).await
    }

    async fn get(&self, path: &str) -> Value {
        let request = reqwest::Client::new().get(format!("{}{path}", self.judge.base_url()));
        let request = request.bearer_auth("a-key").header("x-api-key", "a-key");
        request.header("anthropic-version", "2023-06-01").send().await.unwrap().json().await.unwrap()
    }

    /// Every batch at the provider is one that the ledger knows, and has ended.
    async fn no_batch_is_left(&self) -> usize {
        let (path, key, ends) = match self.kind {
            JudgeKind::Anthropic => ("/messages/batches", "processing_status", &["ended"][..]),
            _ => ("/batches", "status", &["completed", "expired", "failed", "cancelled"][..]),
        };
        let list = self.get(&format!("{path}?limit=100")).await;
        let made = list["data"].as_array().unwrap();
        let store = Store::open(&self.db).await.unwrap();
        let known = store.batch_ids().await.unwrap();
        for batch in made {
            assert!(ends.contains(&batch[key].as_str().unwrap()), "{batch}");
            assert!(known.iter().any(|id| batch["id"] == **id), "a batch that nobody knows: {batch}");
        }
        assert_eq!(made.len(), known.len());
        assert_eq!(store.open_batches(None).await.unwrap(), []);
        made.len()
    }
}

/// Sends what is planned in batches of four, and reads the replies.
async fn run(store: &Store, kind: JudgeKind, url: &str, ways: Ways) -> Ended {
    let max = ways.max;
    let terms = BatchTerms {
        stage: "label",
        judge: JUDGE,
        sets: &[TRAIN_PAIRS],
        price: Some(price()),
        caps: max.map(|max| Cap { key: "label.max_usd", max, of_stage: false }).into_iter().collect(),
        max_resends: 2,
        strict_model: ways.strict_model,
        sends: !ways.fetches_only,
    };
    let (_keep, stop) = watch::channel(ways.stopped);
    let options = BatchOptions {
        limits: BatchLimits { requests: 4, bytes: 1 << 20 },
        most_open: 2,
        poll: Duration::from_millis(1),
        poll_at_most: Duration::from_millis(4),
        settle: Duration::ZERO,
        stop,
    };
    let told = |tally: &BatchTally| {
        assert!(max.is_none_or(|max| tally.charged <= max), "above the limit: {tally:?}");
    };
    let mut ledger =
        Batches::new(store, terms, told).await.map_err(|e| BatchStop::Ledger(Stop::Journal(e)))?;
    let client = provider(kind, url).batches().unwrap();
    let ended = drive(&client, &mut ledger, &options).await;
    read(store).await.unwrap();
    Ok((ended?, ledger.tally()))
}

#[tokio::test]
async fn a_quiet_run_costs_what_the_mock_billed_and_is_bought_once() {
    for kind in KINDS {
        let lab = Lab::new(kind, 30, options()).await;
        let (summary, tally) = lab.run(Ways::default()).await.unwrap();
        assert_eq!((summary.created, summary.replies, tally.replies), (8, 30, 30), "{kind:?}");
        let found = lab.check().await;
        assert_eq!((found.calls, found.bought_again), (30, 0));
        assert_eq!((found.known, found.charged), (found.billed, found.billed), "to the micro-dollar");
        assert!(found.billed > 0 && tally.charged.0 == found.billed);
        assert_eq!(found.states.get("judged"), Some(&30));
        assert_eq!(lab.no_batch_is_left().await, 8);
        // Run again, nothing is made.
        lab.run(Ways::default()).await.unwrap();
        assert_eq!(lab.no_batch_is_left().await, 8);
    }
}

/// The process in which [`killed_at_every_step`] does its work; on its own it does nothing.
#[tokio::test]
async fn child() {
    let Ok(db) = std::env::var("BATCHES_DB") else { return };
    let url = std::env::var("BATCHES_URL").unwrap();
    let kind = if std::env::var("BATCHES_KIND").unwrap() == "anthropic" { KINDS[1] } else { KINDS[0] };
    let store = Store::open(Path::new(&db)).await.unwrap();
    run(&store, kind, &url, Ways::default()).await.unwrap();
}

fn child_dies(lab: &Lab, at: &str) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "batches_paid_once::child", "--nocapture"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.env("BATCHES_DB", &lab.db).env("BATCHES_URL", lab.judge.base_url());
    command.env("BATCHES_KIND", lab.kind.name()).env("RLAIF_DIE_AT", at);
    !command.status().unwrap().success()
}

/// Before every step, and in and after its commit: so between every two calls to the provider.
#[tokio::test]
async fn killed_at_every_step() {
    let steps = ["intend", "creating", "created", "harvest", "end"].map(|step| format!("store/batch_{step}"));
    let commits = ["store/in_batch", "store/batch_written"].map(str::to_owned);
    for kind in KINDS {
        let lab = Lab::new(kind, 200, options()).await;
        for step in steps.iter().chain(&commits) {
            for time in 1..=3 {
                assert!(child_dies(&lab, &format!("{step}:{time}")), "{kind:?}: {step} was not met");
            }
        }
        // What it does about an intent that came to nothing.
        assert!(child_dies(&lab, "store/batch_creating:1"));
        assert!(child_dies(&lab, "store/batch_forget:1"));
        let (summary, _) = lab.run(Ways::default()).await.unwrap();
        assert!(summary.created > 2, "it was not done before: {summary:?}");
        let found = lab.check().await;
        assert_eq!(found.states.get("judged"), Some(&200), "{kind:?}: {found:?}");
        assert_eq!((found.calls, found.bought_again), (200, 0), "{kind:?}: {found:?}");
        assert_eq!((found.known, found.charged), (found.billed, found.billed), "{kind:?}");
        assert_eq!(lab.no_batch_is_left().await, 50, "{kind:?}: four requests each");
    }
}

#[tokio::test]
async fn what_expires_is_asked_again_is_not_charged_and_is_given_up_after_three_times() {
    for kind in KINDS {
        let lab = Lab::new(kind, 60, Options { batch_end: BatchEnd::Expired, ..options() }).await;
        let (summary, _) = lab.run(Ways::default()).await.unwrap();
        let found = lab.check().await;
        let (judged, given_up) = (found.states["judged"], found.states["failed"]);
        assert_eq!(judged + given_up, 60, "{kind:?}: {found:?}");
        // Each has a chance of one half, three times.
        assert!((1..20).contains(&given_up) && summary.without_reply > 30, "{kind:?}: {found:?}");
        assert_eq!((found.known, found.charged, found.bought_again), (found.billed, found.billed, 0));
        assert!(!found.classes.contains_key("maybe_billed"), "{kind:?}: {found:?}");
        lab.no_batch_is_left().await;

        // Another run, of another mind, at an endpoint that has the time.
        let other = MockJudge::start_on_thread(options()).unwrap();
        let store = Store::open(&lab.db).await.unwrap();
        assert_eq!(store.retry_failed(JUDGE, false).await.unwrap(), given_up);
        run(&store, kind, &other.base_url(), Ways::default()).await.unwrap();
        drop(store);
        assert!(other.ledger().settled(Duration::from_secs(10)).await);
        let entries = [lab.judge.ledger().entries(), other.ledger().entries()].concat();
        let found = check_entries(&lab.db, &entries, None).await;
        assert_eq!((found.states.get("judged"), found.charged), (Some(&60), found.billed));
    }
}

#[tokio::test]
async fn the_money_is_never_exceeded_and_the_run_stops_as_single_calls_do() {
    for kind in KINDS {
        let lab = Lab::new(kind, 60, options()).await;
        let max = MicroUsd(3500);
        for _ in 0..2 {
            let stop = lab.run(Ways { max: Some(max), ..Ways::default() }).await.unwrap_err();
            let BatchStop::Ledger(Stop::Budget { key, worst_case, left, max: told }) = stop else {
                panic!("{stop:?}")
            };
            assert_eq!((key, told), ("label.max_usd", max));
            assert!(worst_case > left, "{kind:?}");
            let found = lab.check().await;
            assert!(found.billed <= max.0 && found.charged == found.billed, "{kind:?}: {found:?}");
            assert_eq!(left.0, max.0 - found.charged);
            assert!(found.calls > 5 && found.calls < 60, "{kind:?}: {found:?}");
        }
        lab.run(Ways::default()).await.unwrap();
        let found = lab.check().await;
        assert_eq!((found.states.get("judged"), found.charged), (Some(&60), found.billed));
    }
}

#[tokio::test]
async fn what_is_out_stays_with_the_provider_and_is_fetched_by_whoever_comes() {
    for kind in KINDS {
        let lab = Lab::new(kind, 20, options()).await;
        let store = Store::open(&lab.db).await.unwrap();
        let planned = store.planned(JUDGE, TRAIN_PAIRS, 0, 8).await.unwrap();
        let worst =
            planned.iter().map(|q| price().worst_case_in_batch(q.prompt_tokens_at_most, q.max_tokens));
        let worst: MicroUsd = worst.sum();
        // Two are made, and the user has seen enough.
        assert!(child_dies(&lab, "store/batch_written:6"));
        let (summary, tally) = lab.run(Ways { stopped: true, ..Ways::default() }).await.unwrap();
        assert!(summary.interrupted && tally.open == 2 && tally.waiting == 8, "{kind:?}: {tally:?}");
        assert_eq!(tally.charged, worst, "what is out counts at its worst, at half the price");
        // The judge asks for no batches any more: what is in them is fetched all the same, and nothing more is sent.
        let (summary, _) = lab.run(Ways { fetches_only: true, ..Ways::default() }).await.unwrap();
        assert_eq!((summary.created, summary.replies), (0, 8), "{kind:?}");
        assert_eq!(store.planned(JUDGE, TRAIN_PAIRS, 0, 99).await.unwrap().len(), 12);
        assert_eq!(lab.no_batch_is_left().await, 2);
        lab.run(Ways::default()).await.unwrap();
        assert_eq!(lab.check().await.bought_again, 0);
    }
}

#[tokio::test]
async fn another_model_stops_the_run_and_its_replies_are_kept() {
    let lab = Lab::new(JudgeKind::Openai, 4, options()).await;
    for _ in 0..2 {
        let stop = lab.run(Ways { strict_model: Some("gpt-x".into()), ..Ways::default() }).await.unwrap_err();
        assert!(
            matches!(&stop, BatchStop::Ledger(Stop::WrongModel { served, .. }) if served == "mock-judge"),
            "{stop:?}"
        );
    }
    lab.run(Ways::default()).await.unwrap();
    let found = lab.check().await;
    assert_eq!((found.calls, found.known, found.bought_again), (4, found.billed, 0));
}

/// A file of requests, submitted by hand.
async fn submit(lab: &Lab, lines: &str) -> Vec<String> {
    let http = reqwest::Client::new();
    let base = lab.judge.base_url();
    let file = Part::bytes(lines.as_bytes().to_vec()).file_name("in.jsonl");
    let form = Form::new().text("purpose", "batch").part("file", file);
    let sent = http.post(format!("{base}/files")).bearer_auth("a-key").multipart(form).send().await.unwrap();
    let file: Value = sent.json().await.unwrap();
    let body =
        json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    let sent = http.post(format!("{base}/batches")).bearer_auth("a-key").json(&body).send().await.unwrap();
    let batch: Value = sent.json().await.unwrap();
    let path = format!("/batches/{}", batch["id"].as_str().unwrap());
    let mut batch = batch;
    while batch["status"] != "completed" {
        batch = lab.get(&path).await;
    }
    let output = batch["output_file_id"].as_str().unwrap();
    let request = http.get(format!("{base}/files/{output}/content")).bearer_auth("a-key");
    let text = request.send().await.unwrap().text().await.unwrap();
    text.lines().map(str::to_owned).collect()
}

fn terms(max: Option<MicroUsd>) -> BatchTerms<'static> {
    BatchTerms {
        stage: "label",
        judge: JUDGE,
        sets: &[TRAIN_PAIRS],
        price: Some(price()),
        caps: max.map(|max| Cap { key: "label.max_usd", max, of_stage: true }).into_iter().collect(),
        max_resends: 2,
        strict_model: None,
        sends: true,
    }
}

#[tokio::test]
async fn a_file_goes_out_and_its_results_come_back_in_any_state() {
    let lab = Lab::new(JudgeKind::Openai, 40, options()).await;
    let store = Store::open(&lab.db).await.unwrap();
    let price_of = |judge: &str| (judge == JUDGE).then(price);
    let mut batches = Batches::new(&store, terms(None), |_| ()).await.unwrap();
    let mut file = Vec::new();
    assert_eq!(batches.write_file(30, &mut file).await.unwrap(), 30);
    assert_eq!(store.planned(JUDGE, TRAIN_PAIRS, 0, 99).await.unwrap().len(), 40, "not set aside yet");
    let name = batches.set_aside().await.unwrap();
    let mut none = Vec::new();
    assert_eq!(batches.write_file(99, &mut none).await.unwrap(), 10, "the others");
    let lines = String::from_utf8(file).unwrap();
    let results = submit(&lab, &lines).await;
    assert_eq!(results.len(), 30);

    // Twenty of them, one twice, with one that was not done, one refused, two bad lines and a stranger among them.
    let failed = |line: &str, status: u64| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line["response"] = json!({"status_code": status, "body": {"error": {"message": "no"}}});
        line.to_string()
    };
    let mut given: Vec<String> = results[..18].to_vec();
    given.push(results[0].clone());
    given.insert(2, "{\"custom_id\": \"cut of".into());
    given.insert(5, String::new());
    given.insert(6, "null".into());
    given.push(json!({"custom_id": "abc", "response": {"status_code": 200, "body": {}}}).to_string());
    given.push(failed(&results[18], 500));
    given.push(failed(&results[19], 400));
    let text = format!("\u{feff}{}\r\n", given.join("\r\n"));
    let imported = import(&store, price_of, text.as_bytes()).await.unwrap();
    let harvest = &imported.harvest;
    assert_eq!((harvest.replies, harvest.known, harvest.not_done, harvest.refused), (18, 1, 1, 1));
    assert_eq!((imported.bad_lines.as_slice(), imported.waiting), (&[3, 7][..], 10));
    assert_eq!(harvest.strangers, ["abc"]);
    assert_eq!(
        store.in_files(JUDGE, &[TRAIN_PAIRS]).await.unwrap(),
        11,
        "it is asked again when its file is done"
    );

    // The same file again changes nothing.
    let charged = store.charged("label").await.unwrap();
    let again = import(&store, price_of, text.as_bytes()).await.unwrap();
    assert_eq!((again.harvest.replies, again.harvest.known, again.waiting), (0, 19, 10));
    assert_eq!(store.charged("label").await.unwrap(), charged);

    // Whoever imports the rest has the file behind him, and what was not done is asked again.
    let rest = import(&store, price_of, results[20..].join("\n").as_bytes()).await.unwrap();
    assert_eq!((rest.harvest.replies, rest.waiting), (10, 0));
    assert_eq!(store.open_batches(None).await.unwrap(), []);
    assert_eq!(store.planned(JUDGE, TRAIN_PAIRS, 0, 99).await.unwrap().len(), 11, "{name}");
    // A reply that was turned into a failure above was bought all the same, and can still be imported.
    import(&store, price_of, results[18..20].join("\n").as_bytes()).await.unwrap();
    run(&store, JudgeKind::Openai, &lab.judge.base_url(), Ways::default()).await.unwrap();
    drop(store);
    let found = lab.check().await;
    assert_eq!((found.states.get("judged"), found.bought_again), (Some(&40), 0), "{found:?}");
    assert_eq!((found.known, found.charged), (found.billed, found.billed), "to the micro-dollar");
}

#[tokio::test]
async fn a_file_is_within_the_money_and_can_be_taken_back() {
    let lab = Lab::new(JudgeKind::Openai, 40, options()).await;
    let store = Store::open(&lab.db).await.unwrap();
    let max = MicroUsd(5000);
    let mut batches = Batches::new(&store, terms(Some(max)), |_| ()).await.unwrap();
    let written = batches.write_file(99, &mut Vec::new()).await.unwrap();
    assert!((1..40).contains(&written), "{written}");
    let first = batches.set_aside().await.unwrap();
    let (charged, _) = store.charged("label").await.unwrap();
    assert!(charged <= max && charged.0 > max.0 * 9 / 10, "{charged}");
    let stop = batches.write_file(99, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(stop, NotDrawn::Stop(Stop::Budget { .. })), "{stop:?}");

    // Submitted nowhere, it is as if it had never been; submitted, it counts until its results come.
    release(&store, &first, false).await.unwrap();
    assert_eq!(store.charged("label").await.unwrap().0, MicroUsd::ZERO);
    assert_eq!(batches.write_file(99, &mut Vec::new()).await.unwrap(), written);
    let second = batches.set_aside().await.unwrap();
    release(&store, &second, true).await.unwrap();
    assert_eq!(store.charged("label").await.unwrap().0, charged);
    let lost = store.possibly_billed().await.unwrap();
    assert!(lost.len() == written && lost.iter().all(|one| one.state == RequestState::Planned));

    let unknown = BatchTerms { price: None, ..terms(Some(max)) };
    let mut batches = Batches::new(&store, unknown, |_| ()).await.unwrap();
    let stop = batches.write_file(99, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(stop, NotDrawn::Stop(Stop::UnknownPrice { .. })), "{stop:?}");
}
