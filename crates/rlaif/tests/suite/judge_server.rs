//! A judge behind an OpenAI-compatible endpoint, played by a server on this machine: what it says, costs and fails is kept.

use crate::common::{Lab, shown_response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// Whom the server prefers.
#[derive(Clone, Copy)]
enum Taste {
    /// The response that comes first in the alphabet, wherever it stands.
    Alphabet,
    /// Whatever stands first.
    FirstPlace,
}

/// What the alphabet sees of a text: judges are never shown control characters.
fn key(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).collect()
}

struct Judge {
    taste: Taste,
    calls: Arc<AtomicUsize>,
    /// So many calls are turned away first.
    refusals: usize,
    delay: Duration,
}

impl Respond for Judge {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        if self.calls.fetch_add(1, Ordering::SeqCst) < self.refusals {
            let error = json!({"error": {"message": "this request is odd", "type": "invalid_request_error"}});
            return ResponseTemplate::new(400).set_body_json(error);
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let shown = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
        let first_is_better = match self.taste {
            Taste::FirstPlace => true,
            Taste::Alphabet => key(shown_response(shown, "1")) <= key(shown_response(shown, "2")),
        };
        let verdict = if first_is_better { 1 } else { 2 };
        let reply = json!({
            "id": "x", "object": "chat.completion", "model": "fake-1",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {
                "role": "assistant", "content": format!("I looked at both.\n\nBetter response: {verdict}")}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        });
        ResponseTemplate::new(200).set_body_json(reply).set_delay(self.delay)
    }
}

struct Endpoint {
    runtime: Runtime,
    server: MockServer,
    calls: Arc<AtomicUsize>,
}

impl Endpoint {
    fn new(taste: Taste, delay: Duration) -> Self {
        Self::refusing(0, taste, delay)
    }

    fn refusing(refusals: usize, taste: Taste, delay: Duration) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(MockServer::start());
        let calls = Arc::new(AtomicUsize::new(0));
        let judge = Judge { taste, calls: calls.clone(), refusals, delay };
        let mock = Mock::given(method("POST"))
            .and(path("/v1/chat/completions"))
            .and(header("authorization", "Bearer right-key"))
            .respond_with(judge);
        runtime.block_on(mock.mount(&server));
        let refused = json!({"error": {"message": "Incorrect API key provided: wro****key", "code": "invalid_api_key"}});
        let mock = Mock::given(method("POST"))
            .respond_with(ResponseTemplate::new(401).set_body_json(refused))
            .with_priority(9);
        runtime.block_on(mock.mount(&server));
        Self { runtime, server, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// A lab whose judge is this endpoint: 1 dollar a million prompt tokens, 5 a million completion tokens.
    fn lab(&self) -> Lab {
        let lab = Lab::new();
        let judge = format!(
            r#"[[label.judges]]
name = "fake"
kind = "openai"
protocol = "pairwise"
model = "fake-1"
base_url = "{}/v1"
api_key_env = "FAKE_KEY"
usd_per_million_input = 1.0
usd_per_million_output = 5.0
max_concurrency = 4
max_retries = 2
"#,
            self.server.uri()
        );
        lab.judged_by(&judge, "");
        lab
    }
}

fn run(lab: &Lab, key: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let output = lab.rlaif(args).env("FAKE_KEY", key).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const UNTIL_LABEL: [&str; 4] = ["run", "rlaif.toml", "--until", "label"];

#[test]
fn both_orders_are_asked_and_nothing_is_bought_twice() {
    let endpoint = Endpoint::new(Taste::Alphabet, Duration::ZERO);
    let lab = endpoint.lab();
    let (code, stdout, stderr) = run(&lab, "right-key", &["run", "rlaif.toml", "--until", "label", "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let calls = endpoint.calls();
    assert_eq!(calls, 72, "12 prompts, 3 pairs each, in both orders");
    let outcome: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(outcome["cost_micro_usd"], 72 * (100 + 50), "100 tokens in and 10 out, exactly");
    assert!(stderr.contains("label: 36 preferences of 36 pairs"), "{stderr}");
    assert!(stderr.contains("same place in both orders on 0 % of 36 pairs"), "{stderr}");

    let (preferences, _) = lab.done(&["export", "rlaif.toml"]);
    for line in preferences.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let (chosen, rejected) = (row["chosen"].as_str().unwrap(), row["rejected"].as_str().unwrap());
        assert!(key(chosen) <= key(rejected), "the better one is chosen: {row}");
        assert_eq!((row["p"].as_f64(), row["judges"][0].as_str()), (Some(1.0), Some("fake")));
        assert!(row["explanation"].as_str().unwrap().contains("I looked at both"));
    }

    let (code, _, stderr) =
        run(&lab, "right-key", &["run", "rlaif.toml", "--until", "label", "--set", "label.tie_margin=0.1"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(endpoint.calls(), calls, "another aggregation is free");
}

#[test]
fn replies_of_another_run_are_not_bought_again() {
    let endpoint = Endpoint::new(Taste::Alphabet, Duration::ZERO);
    let lab = endpoint.lab();
    let (code, _, stderr) = run(&lab, "right-key", &UNTIL_LABEL);
    assert_eq!(code, Some(0), "{stderr}");
    let second = |folder: &str| {
        let reuse = format!("label.reuse_replies=[\"{folder}\"]");
        run(
            &lab,
            "right-key",
            &[&UNTIL_LABEL[..], &["--json", "--set", "run.name=second", "--set", &reuse]].concat(),
        )
    };
    let (code, _, stderr) = second("runs/nowhere");
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("`label.reuse_replies` names `runs/nowhere`, and there is no"), "{stderr}");
    assert!(!stderr.contains("generate:"), "refused before anything is computed: {stderr}");

    let (code, stdout, stderr) = second("runs/tiny");
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(endpoint.calls(), 72, "all were bought by the first run");
    assert!(stderr.contains("label: 72 replies of `fake` are taken from `runs/tiny`"), "{stderr}");
    assert!(stderr.contains("no calls, no cost, 72 replies reused from other runs"), "{stderr}");
    let outcome: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(outcome["cost_micro_usd"], 0);
    let first = lab.done(&["export", "rlaif.toml"]).0;
    assert_eq!(lab.done(&["export", "rlaif.toml", "--set", "run.name=second"]).0, first);
    // Nor do they go into a file.
    let third = ["--set", "run.name=third", "--set", "label.reuse_replies=[\"runs/tiny\"]"];
    lab.done(&[&["generate", "rlaif.toml"][..], &third].concat());
    let export = ["batch", "export", "rlaif.toml", "requests.jsonl", "--judge", "fake"];
    let (_, stderr) = lab.ends_with(1, &[&export[..], &third].concat());
    assert!(stderr.contains("nothing left to be asked now"), "{stderr}");
    // Where they come from is no part of what the labels are.
    let (code, _, stderr) =
        run(&lab, "right-key", &[&UNTIL_LABEL[..], &["--set", "run.name=second"]].concat());
    assert!(code == Some(0) && stderr.contains("label: done before"), "{stderr}");
}

#[test]
fn a_judge_of_places_makes_no_preferences_and_training_says_so() {
    let endpoint = Endpoint::new(Taste::FirstPlace, Duration::ZERO);
    let lab = endpoint.lab();
    let (code, _, stderr) = run(&lab, "right-key", &["run", "rlaif.toml", "--until", "reward"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("36 inconsistent"), "{stderr}");
    assert!(stderr.contains("same place in both orders on 100 % of 36 pairs"), "{stderr}");
    assert!(stderr.contains("no preference is left to train on"), "{stderr}");
}

#[test]
fn a_wrong_key_stops_with_everything_kept_and_never_shows_the_key() {
    let endpoint = Endpoint::new(Taste::Alphabet, Duration::ZERO);
    let lab = endpoint.lab();
    let (code, _, stderr) = run(&lab, "wrong-key-123456", &UNTIL_LABEL);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("FAKE_KEY") && stderr.contains("hint:"), "{stderr}");
    assert!(!stderr.contains("wrong-key-123456"), "{stderr}");
    // So does the call that finds out what the endpoint holds answers to.
    let token = [&UNTIL_LABEL[..], &["--set", "label.judges[0].templates=verdict_only"]].concat();
    let (code, _, stderr) = run(&lab, "wrong-key-123456", &token);
    assert!(code == Some(1) && stderr.contains("FAKE_KEY") && !stderr.contains("free text"), "{stderr}");
    let (code, _, stderr) = run(&lab, "right-key", &UNTIL_LABEL);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("generate: done before"), "{stderr}");
    assert_eq!(endpoint.calls(), 72);
}

#[test]
fn a_missing_key_names_its_variable() {
    let endpoint = Endpoint::new(Taste::Alphabet, Duration::ZERO);
    let lab = endpoint.lab();
    let output = lab.rlaif(&UNTIL_LABEL).env_remove("FAKE_KEY").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("`FAKE_KEY`") && stderr.contains("is not set"), "{stderr}");
    assert!(!stderr.contains("generate:"), "refused before anything is computed: {stderr}");
}

#[test]
fn an_endpoint_that_is_down_is_told_after_retries() {
    let endpoint = Endpoint::new(Taste::Alphabet, Duration::ZERO);
    let lab = endpoint.lab();
    // A port that was free a moment ago has nobody listening.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    lab.edit(&endpoint.server.uri(), &format!("http://{free}"));
    let (code, _, stderr) = run(
        &lab,
        "right-key",
        &["run", "rlaif.toml", "--until", "label", "--set", "label.judges[0].max_retries=1"],
    );
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot connect to `http://127.0.0.1"), "{stderr}");
    assert!(stderr.contains("every answer that arrived is kept"), "{stderr}");
}

#[test]
fn a_budget_is_never_passed_and_the_rest_is_bought_when_it_is_raised() {
    let endpoint = Endpoint::new(Taste::Alphabet, Duration::ZERO);
    let lab = endpoint.lab();
    // Twenty calls at 150 micro-dollars, if the worst case of one (512 tokens out at $5 a million, and the prompt) still fits.
    let (code, _, stderr) =
        run(&lab, "right-key", &["run", "rlaif.toml", "--until", "label", "--set", "label.max_usd=0.01"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("label.max_usd"), "{stderr}");
    let bought = endpoint.calls();
    assert!(bought > 0 && bought * 150 <= 10_000, "{bought} calls");
    let (code, _, stderr) = run(&lab, "right-key", &UNTIL_LABEL);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(endpoint.calls(), 72, "what was bought is not bought again");
}

#[test]
fn failed_calls_are_counted_make_exit_code_1_and_can_be_tried_again() {
    let endpoint = Endpoint::refusing(1, Taste::Alphabet, Duration::ZERO);
    let lab = endpoint.lab();
    let (code, _, stderr) = run(&lab, "right-key", &UNTIL_LABEL);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("label: 35 preferences of 36 pairs (1 failed)"), "{stderr}");
    assert!(stderr.contains("`rlaif label rlaif.toml` tries them again"), "{stderr}");
    let (code, _, stderr) = run(&lab, "right-key", &UNTIL_LABEL);
    assert_eq!((code, endpoint.calls()), (Some(1), 72), "a finished stage keeps its failures: {stderr}");
    let (code, _, stderr) = run(&lab, "right-key", &["label", "rlaif.toml"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("label: 36 preferences of 36 pairs"), "{stderr}");
    assert_eq!(endpoint.calls(), 73, "only what failed is asked again");
}

#[test]
fn kill_in_the_middle_of_labelling_loses_at_most_what_was_in_flight() {
    let endpoint = Endpoint::new(Taste::Alphabet, Duration::from_millis(40));
    let lab = endpoint.lab();
    let mut child = lab
        .process(&UNTIL_LABEL)
        .env("FAKE_KEY", "right-key")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let patience = std::time::Instant::now();
    while endpoint.calls() < 20 {
        assert!(patience.elapsed() < Duration::from_secs(60), "no calls");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = endpoint.calls();
    let (code, _, stderr) = run(&lab, "right-key", &UNTIL_LABEL);
    assert_eq!(code, Some(0), "{stderr}");
    let again = endpoint.calls() - 72;
    assert!(
        again <= 4,
        "{again} calls were bought twice, and only 4 can be in flight (killed after {before})"
    );
    assert_eq!(lab.done(&["export", "rlaif.toml"]).0.lines().count(), 36);
    drop(endpoint.runtime);
}
