//! A judge that is asked in batches, played by a server on this machine, and one that is asked by file.

use crate::common::Lab;
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// What the provider has.
#[derive(Default)]
struct Shop {
    /// Lines of the files, by number.
    files: Vec<Vec<Value>>,
    /// Of each batch its file and how often it was looked at.
    batches: Vec<(usize, usize)>,
    /// Looks before a batch ends.
    looks: usize,
    single_calls: usize,
}

#[derive(Clone)]
struct Provider(Arc<Mutex<Shop>>);

/// What a comparison sees of a text: judges are never shown control characters.
fn key(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).collect()
}

/// The response that comes first in the alphabet is the better one.
fn answer(body: &Value) -> Value {
    let shown = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
    let response = |label: &str| {
        let text = &shown[shown.find(&format!("<response_{label}_")).unwrap()..];
        text[text.find('>').unwrap() + 1..text.find("</response").unwrap()].trim().to_string()
    };
    let verdict = if key(&response("1")) <= key(&response("2")) { 1 } else { 2 };
    let content = match shown.contains("{\"explanation\"") {
        true => json!({"explanation": "I looked at both.", "verdict": verdict.to_string()}).to_string(),
        false => format!("I looked at both.\n\nBetter response: {verdict}"),
    };
    json!({
        "id": "x", "object": "chat.completion", "model": "fake-1",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    })
}

/// The requests of an exported file.
fn lines(lab: &Lab, file: &str) -> Vec<Value> {
    lab.read(file).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes the results of an exported file.
fn answer_file(lab: &Lab, requests: &str, results: &str) {
    let done: Vec<String> = lines(lab, requests).iter().map(|line| result(line).to_string()).collect();
    lab.write(results, &done.join("\n"));
}

fn result(line: &Value) -> Value {
    json!({"id": "r", "custom_id": line["custom_id"], "error": null,
        "response": {"status_code": 200, "request_id": "q", "body": answer(&line["body"])}})
}

impl Respond for Provider {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut shop = self.0.lock().unwrap();
        let ok = |value: Value| ResponseTemplate::new(200).set_body_json(value);
        let path = request.url.path().to_owned();
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        let number = |id: &str| -> usize { id.rsplit('-').next().unwrap().parse().unwrap() };
        let object = |shop: &Shop, batch: usize| {
            let ended = shop.batches[batch].1 >= shop.looks;
            let output = ended.then(|| format!("file-out-{batch}"));
            json!({"id": format!("batch-{batch}"), "status": if ended { "completed" } else { "in_progress" },
                "metadata": {}, "output_file_id": output, "error_file_id": null, "errors": null})
        };
        match (request.method.as_str(), parts.as_slice()) {
            ("POST", ["files"]) => {
                let text = String::from_utf8(request.body.clone()).unwrap();
                let lines = text.lines().filter(|line| line.starts_with('{'));
                shop.files.push(lines.map(|line| serde_json::from_str(line).unwrap()).collect());
                ok(json!({"id": format!("file-{}", shop.files.len() - 1)}))
            }
            ("POST", ["batches"]) => {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                shop.batches.push((number(body["input_file_id"].as_str().unwrap()), 0));
                ok(object(&shop, shop.batches.len() - 1))
            }
            ("GET", ["batches", id]) => {
                let batch = number(id);
                shop.batches[batch].1 += 1;
                ok(object(&shop, batch))
            }
            ("GET", ["files", id, "content"]) => {
                let file = shop.batches[number(id)].0;
                let lines: Vec<String> =
                    shop.files[file].iter().rev().map(|line| result(line).to_string()).collect();
                ResponseTemplate::new(200).set_body_string(lines.join("\n"))
            }
            _ => {
                shop.single_calls += 1;
                ResponseTemplate::new(404)
            }
        }
    }
}

struct Endpoint {
    _runtime: Runtime,
    server: MockServer,
    shop: Arc<Mutex<Shop>>,
}

impl Endpoint {
    /// One whose batches end when they are looked at so often.
    fn new(looks: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(MockServer::start());
        let shop = Arc::new(Mutex::new(Shop { looks, ..Shop::default() }));
        runtime.block_on(Mock::given(any()).respond_with(Provider(shop.clone())).mount(&server));
        Self { _runtime: runtime, server, shop }
    }

    fn lab(&self) -> Lab {
        let lab = Lab::new();
        let judge = format!(
            "[[label.judges]]\nname = \"fake\"\nkind = \"openai\"\nmodel = \"fake-1\"\nbase_url = \"{}/v1\"\nbatch = true\n\
             batch_poll_seconds = 0.02\nusd_per_million_input = 1.0\nusd_per_million_output = 5.0\n",
            self.server.uri()
        );
        lab.judged_by(&judge, "");
        lab
    }

    /// Batches made, the requests in them, and calls that were none of theirs.
    fn made(&self) -> (usize, usize, usize) {
        let shop = self.shop.lock().unwrap();
        (
            shop.batches.len(),
            shop.batches.iter().map(|(file, _)| shop.files[*file].len()).sum(),
            shop.single_calls,
        )
    }
}

const LABEL: [&str; 5] = ["run", "rlaif.toml", "--until", "label", "--json"];

#[test]
fn a_batch_costs_half_and_is_made_once() {
    let endpoint = Endpoint::new(3);
    let lab = endpoint.lab();
    let (plan, _) = lab.done(&["plan", "rlaif.toml", "--json"]);
    let (single, _) = lab.done(&["plan", "rlaif.toml", "--json", "--set", "label.judges[0].batch=false"]);
    let cost = |plan: &str| {
        let stages: Vec<Value> = serde_json::from_str(plan).unwrap();
        let label = stages.iter().find(|stage| stage["stage"] == "label").unwrap();
        label["judges"][0]["micro_usd"].as_f64().unwrap()
    };
    assert!((cost(&single) / cost(&plan) - 2.0).abs() < 0.02, "{plan} {single}");

    let (stdout, stderr) = lab.done(&LABEL);
    assert_eq!(endpoint.made(), (1, 72, 0), "12 prompts, 3 pairs each, in both orders; {stderr}");
    let outcome: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(outcome["cost_micro_usd"], 72 * (100 + 50) / 2);
    assert!(stderr.contains("label: 72 requests of `fake` are out in 1 batch"), "{stderr}");
    assert!(stderr.contains("label: 72 replies of `fake` out of batches"), "{stderr}");
    assert!(stderr.contains("label: 36 preferences of 36 pairs"), "{stderr}");
    lab.done(&["label", "rlaif.toml", "--set", "label.judges[0].batch=false"]);
    assert_eq!(endpoint.made(), (1, 72, 0), "how it was asked does not matter");
}

#[test]
fn ctrl_c_leaves_a_batch_with_the_provider() {
    let endpoint = Endpoint::new(usize::MAX);
    let lab = endpoint.lab();
    let child = lab.process(&LABEL).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let patience = Instant::now();
    while endpoint.made().0 == 0 {
        assert!(patience.elapsed() < Duration::from_secs(60), "no batch");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("left with the provider: 1 batch with 72 requests"), "{stderr}");
    assert!(stderr.contains("go on with `rlaif run rlaif.toml`"), "{stderr}");
    let (list, _) = lab.done(&["batch", "list", "rlaif.toml"]);
    assert!(list.contains("72 of 72 requests wait for a result, at the provider as `batch-0`"), "{list}");

    endpoint.shop.lock().unwrap().looks = 0;
    let (_, stderr) = lab.done(&LABEL);
    assert!(stderr.contains("label: 36 preferences of 36 pairs"), "{stderr}");
    assert_eq!(endpoint.made(), (1, 72, 0));
    let (list, said) = lab.done(&["batch", "list", "rlaif.toml"]);
    assert_eq!((list.as_str(), said.as_str()), ("", "no batch is out\n"));
}

#[test]
fn a_budget_lets_out_what_it_can_pay() {
    let endpoint = Endpoint::new(1);
    let lab = endpoint.lab();
    let (_, stderr) = lab.ends_with(1, &[&LABEL[..], &["--set", "label.max_usd=0.005"]].concat());
    assert!(stderr.contains("of the $0.005000 of `label.max_usd`"), "{stderr}");
    let (_, requests, _) = endpoint.made();
    assert!(requests > 0 && requests * 75 <= 5000, "{requests} requests");
    lab.done(&LABEL);
    assert_eq!(endpoint.made().1, 72);
}

#[test]
fn a_file_goes_out_and_comes_back_without_an_endpoint() {
    let endpoint = Endpoint::new(1);
    let lab = endpoint.lab();
    lab.edit("batch = true\n", "api_key_env = \"KEY_THAT_NOBODY_HAS\"\n");
    let export = ["batch", "export", "rlaif.toml", "requests.jsonl", "--judge", "fake"];
    let (_, stderr) = lab.ends_with(1, &export);
    assert!(stderr.contains("stage `label` needs `generate`"), "{stderr}");
    lab.done(&["generate", "rlaif.toml"]);
    let (_, stderr) = lab.done(&export);
    assert!(stderr.contains("batch: 72 requests of `fake` are in `requests.jsonl`"), "{stderr}");
    let (_, stderr) = lab.ends_with(1, &export);
    assert!(stderr.contains("`requests.jsonl` is there already"), "{stderr}");
    let (_, stderr) = lab.ends_with(1, &["batch", "export", "rlaif.toml", "more.jsonl", "--judge", "fake"]);
    assert!(
        stderr.contains("nothing left to be asked now") && stderr.contains("72 requests are out"),
        "{stderr}"
    );
    let (_, stderr) = lab.ends_with(1, &["batch", "export", "rlaif.toml", "more.jsonl", "--judge", "fike"]);
    assert!(stderr.contains("no judge `fike`") && stderr.contains("`fake`"), "{stderr}");

    let label = |code: i32| {
        let output = lab.rlaif(&["label", "rlaif.toml"]).env("KEY_THAT_NOBODY_HAS", "k").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        stderr
    };
    let stderr = label(1);
    assert!(
        stderr.contains("72 of its requests are out in a file") && stderr.contains("rlaif batch import"),
        "{stderr}"
    );

    let mut results: Vec<String> =
        lines(&lab, "requests.jsonl").iter().map(|line| result(line).to_string()).collect();
    results.insert(1, "{\"custom_id\":".into());
    results.push(
        json!({"custom_id": "somebody-else", "error": null, "response": {"status_code": 200, "body": {}}})
            .to_string(),
    );
    lab.write("results.jsonl", &results.join("\n"));
    let (_, stderr) = lab.ends_with(1, &["batch", "import", "rlaif.toml", "results.jsonl"]);
    assert!(stderr.contains("batch: 72 replies out of `results.jsonl`"), "{stderr}");
    assert!(stderr.contains("error: 1 line is no result of a batch: line 2\n"), "{stderr}");
    assert!(
        stderr.contains("error: 1 result is of a request that this run has not handed out: `somebody-else`"),
        "{stderr}"
    );
    let stderr = label(0);
    assert!(stderr.contains("label: 36 preferences of 36 pairs"), "{stderr}");
    assert_eq!(endpoint.made(), (0, 0, 0), "nobody was asked");
    let (_, stderr) = lab.ends_with(1, &["batch", "release", "rlaif.toml"]);
    assert!(stderr.contains("no file is out"), "{stderr}");
}

/// What went into a file is what is asked for later: nobody finds out afterwards that the endpoint could be asked in another way.
#[test]
fn a_file_settles_in_which_form_answers_are_asked_for() {
    let endpoint = Endpoint::new(1);
    let lab = endpoint.lab();
    lab.edit("batch = true\n", "templates = [\"json\"]\n");
    lab.done(&["generate", "rlaif.toml"]);
    let export = |file: &str, set: &str| {
        lab.done(&[
            "batch",
            "export",
            "rlaif.toml",
            file,
            "--judge",
            "fake",
            "--max-requests",
            "40",
            "--set",
            set,
        ])
        .1
    };
    let same = "label.judges[0].max_concurrency=3";
    let stderr = export("first.jsonl", same);
    assert!(
        stderr.contains("answers are read as free text (`json_schema`: nobody asked the endpoint"),
        "{stderr}"
    );
    let stderr = export("second.jsonl", same);
    assert!(!stderr.contains("free text"), "it is told once: {stderr}");
    assert_eq!((lines(&lab, "first.jsonl").len(), lines(&lab, "second.jsonl").len()), (40, 32));
    for (requests, results) in [("first.jsonl", "first-done.jsonl"), ("second.jsonl", "second-done.jsonl")] {
        answer_file(&lab, requests, results);
        lab.done(&["batch", "import", "rlaif.toml", results]);
    }
    let (_, stderr) = lab.done(&["label", "rlaif.toml"]);
    assert!(stderr.contains("label: 36 preferences of 36 pairs"), "{stderr}");
    assert_eq!(endpoint.made(), (0, 0, 0), "nothing is asked in another form");

    // A form by its name is used without asking.
    export("third.jsonl", "label.judges[0].structured_output=json_schema");
    let held =
        |file: &str| lines(&lab, file).iter().filter(|l| l["body"].get("response_format").is_some()).count();
    assert_eq!((held("first.jsonl"), held("third.jsonl")), (0, 40));
}
