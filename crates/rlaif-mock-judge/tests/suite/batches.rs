//! The life of a batch, at both providers.

use crate::common::*;
use reqwest::multipart::{Form, Part};
use rlaif_core::money::{MicroUsd, Price};
use rlaif_mock_judge::{BatchEnd, MockJudge, Mode, Options, Weighted};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

fn line(custom_id: &str, body: &Value) -> String {
    format!(
        "{}\n",
        json!({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})
    )
}

fn lines(n: usize) -> String {
    (0..n).map(|number| line(&format!("task-{number}"), &planted(number).0)).collect()
}

struct Client {
    http: &'static reqwest::Client,
    url: String,
}

impl Client {
    fn new(judge: &MockJudge) -> Self {
        Self { http: client(), url: format!("{}/v1", judge.url()) }
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.http.get(format!("{}{path}", self.url)).header("anthropic-version", "2023-06-01");
        request.send().await.unwrap().json().await.unwrap()
    }

    async fn text(&self, path: &str) -> String {
        let request = self.http.get(format!("{}{path}", self.url)).header("anthropic-version", "2023-06-01");
        request.send().await.unwrap().text().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        post(&format!("{}{path}", self.url), body).await.json().await.unwrap()
    }

    async fn upload(&self, text: String) -> Value {
        let file = Part::bytes(text.into_bytes()).file_name("in.jsonl");
        let form = Form::new().text("purpose", "batch").part("file", file);
        let sent = self.http.post(format!("{}/files", self.url)).multipart(form).send().await.unwrap();
        sent.json().await.unwrap()
    }

    async fn create(&self, text: String) -> Value {
        let file = self.upload(text).await;
        self.post(
            "/batches",
            &json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions",
            "completion_window": "24h", "metadata": {"run_id": "r1", "shard": "0"}}),
        )
        .await
    }

    /// The states that it goes through, and the batch at its end.
    async fn follow(&self, path: &str, status: &str, terminal: &[&str]) -> (Vec<String>, Value) {
        let mut states = Vec::new();
        for _ in 0..50 {
            let batch = self.get(path).await;
            let state = batch[status].as_str().unwrap().to_owned();
            let ended = terminal.contains(&state.as_str());
            states.push(state);
            if ended {
                return (states, batch);
            }
        }
        panic!("the batch does not end: {states:?}");
    }

    async fn openai_end(&self, batch: &Value) -> (Vec<String>, Value) {
        let path = format!("/batches/{}", batch["id"].as_str().unwrap());
        self.follow(&path, "status", &["completed", "failed", "expired", "cancelled"]).await
    }

    async fn file(&self, id: &Value) -> Vec<Value> {
        let Some(id) = id.as_str() else { return Vec::new() };
        let text = self.text(&format!("/files/{id}/content")).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn ids(lines: &[Value]) -> BTreeSet<String> {
    let ids: BTreeSet<String> =
        lines.iter().map(|line| line["custom_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), lines.len(), "no id comes twice");
    ids
}

#[tokio::test]
async fn openai_completes_in_any_order_at_half_the_price() {
    let judge = start(Options {
        usd_per_million_input: 2.0,
        usd_per_million_output: 10.0,
        batch_polls: 2,
        ..Options::default()
    })
    .await;
    let client = Client::new(&judge);
    let created = client.create(lines(30)).await;
    assert_eq!((&created["object"], &created["status"]), (&json!("batch"), &json!("validating")));
    assert_eq!(created["metadata"], json!({"run_id": "r1", "shard": "0"}));
    assert!(created["output_file_id"].is_null());
    let (states, batch) = client.openai_end(&created).await;
    assert_eq!(states, ["validating", "in_progress", "in_progress", "finalizing", "finalizing", "completed"]);
    assert_eq!(batch["request_counts"], json!({"total": 30, "completed": 30, "failed": 0}));
    assert!(batch["error_file_id"].is_null() && batch["completed_at"].is_u64());
    let output = client.file(&batch["output_file_id"]).await;
    assert_eq!(ids(&output).len(), 30);
    let order: Vec<&str> = output.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
    let asked: Vec<String> = (0..30).map(|number| format!("task-{number}")).collect();
    assert_ne!(order, asked, "shuffled");
    // The reply says that it was a batch's, and so has half the price.
    let price = Price::from_dollars(2.0, 10.0, None).unwrap();
    let mut cost = 0;
    for line in &output {
        assert_eq!((&line["response"]["status_code"], &line["error"]), (&json!(200), &Value::Null));
        let body = &line["response"]["body"];
        assert!(content(body).contains("Better response: "));
        cost += price.cost(&rlaif_judge::usage::parse_usage(body).unwrap()).unwrap().0;
    }
    let summary = judge.settled_summary().await;
    assert_eq!((summary.cost, summary.bought), (MicroUsd(cost), 30));
    assert_eq!(summary.modes["download"], 1);
    let entry = &judge.ledger().entries()[0];
    assert_eq!(entry.batch.as_deref(), batch["id"].as_str());

    let list = client.get("/batches?limit=1").await;
    assert_eq!((&list["data"][0]["id"], &list["has_more"]), (&batch["id"], &json!(false)));
    assert_eq!(list["data"][0]["metadata"]["run_id"], "r1");
}

#[tokio::test]
async fn the_answers_of_a_batch_are_those_of_single_calls() {
    let options = Options { accuracy: 0.6, ..Options::default() };
    let judge = start(options.clone()).await;
    let client = Client::new(&judge);
    let (_, batch) = client.openai_end(&client.create(lines(20)).await).await;
    let single = start(options).await;
    for line in client.file(&batch["output_file_id"]).await {
        let number = line["custom_id"].as_str().unwrap()["task-".len()..].parse().unwrap();
        let reply: Value = post(&chat(&single), &planted(number).0).await.json().await.unwrap();
        assert_eq!(content(&line["response"]["body"]), content(&reply));
    }
    let keys = |judge: &MockJudge| -> BTreeSet<String> {
        let entries = judge.ledger().entries().into_iter();
        entries.filter(|entry| entry.endpoint != "download").map(|entry| entry.request).collect()
    };
    single.settled_summary().await;
    assert_eq!(keys(&judge), keys(&single), "and so are the requests in the ledger");
}

#[tokio::test]
async fn openai_fails_expires_and_is_cancelled() {
    for (text, code) in [
        (String::new(), "empty_file"),
        ("{\n".into(), "invalid_json_line"),
        (lines(2) + &line("task-1", &planted(5).0), "duplicate_custom_id"),
        (lines(1) + &line("x", &json!({"model": "other", "messages": []})), "mismatched_model"),
    ] {
        let judge = start(Options::default()).await;
        let client = Client::new(&judge);
        let (states, batch) = client.openai_end(&client.create(text).await).await;
        assert_eq!(states, ["failed"]);
        assert_eq!(batch["errors"]["data"][0]["code"], code);
        assert!(batch["output_file_id"].is_null());
        assert_eq!(judge.settled_summary().await.billed, 0);
    }
    let judge = start(Options { batch_end: BatchEnd::Failed, ..Options::default() }).await;
    let client = Client::new(&judge);
    let (_, batch) = client.openai_end(&client.create(lines(2)).await).await;
    assert_eq!(batch["errors"]["data"][0]["code"], "token_limit_exceeded");

    let judge = start(Options { batch_end: BatchEnd::Expired, ..Options::default() }).await;
    let client = Client::new(&judge);
    let (states, batch) = client.openai_end(&client.create(lines(40)).await).await;
    assert_eq!(states, ["in_progress", "finalizing", "expired"]);
    harvested(&client, &batch, 40, "batch_expired").await;

    let judge = start(Options { batch_delay: Duration::from_secs(3600), ..Options::default() }).await;
    let client = Client::new(&judge);
    let created = client.create(lines(40)).await;
    let path = format!("/batches/{}", created["id"].as_str().unwrap());
    assert_eq!(client.get(&path).await["status"], "validating", "it takes its time");
    assert_eq!(client.post(&format!("{path}/cancel"), &json!({})).await["status"], "cancelling");
}

#[tokio::test]
async fn openai_keeps_what_was_done_before_a_cancel() {
    let judge = start(Options::default()).await;
    let client = Client::new(&judge);
    let created = client.create(lines(40)).await;
    let path = format!("/batches/{}/cancel", created["id"].as_str().unwrap());
    assert_eq!(client.post(&path, &json!({})).await["status"], "cancelling");
    let (states, batch) = client.openai_end(&created).await;
    assert_eq!(states, ["cancelled"]);
    harvested(&client, &batch, 40, "batch_cancelled").await;
    assert!(client.post(&path, &json!({})).await["error"]["message"].is_string(), "only once");
}

/// Output and error file together hold every request once; what was not done says why, and was not billed.
async fn harvested(client: &Client, batch: &Value, n: usize, code: &str) {
    let (output, errors) =
        (client.file(&batch["output_file_id"]).await, client.file(&batch["error_file_id"]).await);
    assert!(output.len() > 5 && errors.len() > 5, "{} and {}", output.len(), errors.len());
    assert!(ids(&output).is_disjoint(&ids(&errors)));
    assert_eq!(output.len() + errors.len(), n);
    assert!(errors.iter().all(|line| line["error"]["code"] == code && line["response"].is_null()));
    let summary = client.http.get(client.url.replace("/v1", "/ledger/summary")).send().await.unwrap();
    assert_eq!(summary.json::<Value>().await.unwrap()["billed"], output.len());
}

#[tokio::test]
async fn requests_fail_inside_a_batch_and_are_missing_from_its_output() {
    let modes = [Mode::ServerError, Mode::ContextOverflow, Mode::Refusal, Mode::LoneSurrogate];
    let chaos_modes = modes.map(|mode| Weighted::mode(mode, 1.0)).to_vec();
    let judge = start(Options { chaos: 1.0, chaos_modes, ..Options::default() }).await;
    let client = Client::new(&judge);
    let (_, batch) = client.openai_end(&client.create(lines(60)).await).await;
    let counts = &batch["request_counts"];
    let errors = client.file(&batch["error_file_id"]).await;
    assert_eq!(counts["failed"], errors.len());
    assert!(errors.iter().any(|line| line["error"]["code"] == "request_timeout"));
    assert!(errors.iter().any(|line| line["response"]["status_code"] == 400));
    let text = client.text(&format!("/files/{}/content", batch["output_file_id"].as_str().unwrap())).await;
    assert_eq!(counts["completed"], text.lines().count());
    assert!(text.lines().any(|line| line.contains("\\ud83d")) && text.contains("\"refusal\":\"I'm sorry"));
}

#[tokio::test]
async fn what_is_refused_at_the_door() {
    let judge = start(Options::default()).await;
    let client = Client::new(&judge);
    let file = client.upload(lines(1)).await;
    assert_eq!((&file["object"], &file["purpose"]), (&json!("file"), &json!("batch")));
    assert_eq!(client.get("/files").await["data"][0], file);
    assert_eq!(client.get(&format!("/files/{}", file["id"].as_str().unwrap())).await, file);
    let good =
        json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    for (name, value) in [
        ("input_file_id", json!("file-unknown")),
        ("endpoint", json!("/v1/embeddings")),
        ("completion_window", json!("1h")),
        ("metadata", json!({"a": 1})),
        ("metadata", json!({"a": "x".repeat(513)})),
    ] {
        let mut bad = good.clone();
        bad[name] = value;
        assert!(client.post("/batches", &bad).await["error"]["message"].is_string(), "{name}");
    }
    let created = client.post("/batches", &good).await;
    let path = format!("{}/batches/{}", client.url, created["id"].as_str().unwrap());
    let other = client.http.get(path).bearer_auth("another account").send().await.unwrap();
    assert_eq!(other.status(), 404, "a batch is bound to its account");
    let form = Form::new().text("purpose", "fine-tune").part("file", Part::bytes(vec![1]).file_name("f"));
    let refused = client.http.post(format!("{}/files", client.url)).multipart(form).send().await.unwrap();
    assert_eq!(refused.status(), 400);
}

fn requests(n: usize) -> Value {
    let one =
        |number| json!({"custom_id": format!("task-{number}"), "params": anthropic(&planted(number).0)});
    json!({"requests": (0..n).map(one).collect::<Vec<_>>()})
}

#[tokio::test]
async fn anthropic_ends_with_results_in_any_order() {
    let judge = start(Options { usd_per_million_output: 15.0, ..Options::default() }).await;
    let client = Client::new(&judge);
    let created = client.post("/messages/batches", &requests(30)).await;
    assert_eq!(
        (&created["type"], &created["processing_status"]),
        (&json!("message_batch"), &json!("in_progress"))
    );
    assert_eq!(created["request_counts"]["processing"], 30);
    let id = created["id"].as_str().unwrap();
    let early = client.get(&format!("/messages/batches/{id}/results")).await;
    assert_eq!(early["error"]["type"], "not_found_error");
    let path = format!("/messages/batches/{id}");
    let (states, batch) = client.follow(&path, "processing_status", &["ended"]).await;
    assert_eq!(states, ["in_progress", "in_progress", "ended"]);
    let counts = json!({"processing": 0, "succeeded": 30, "errored": 0, "canceled": 0, "expired": 0});
    assert_eq!(batch["request_counts"], counts);
    let results = client.http.get(batch["results_url"].as_str().unwrap());
    let results =
        results.header("anthropic-version", "2023-06-01").send().await.unwrap().text().await.unwrap();
    let results: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ids(&results).len(), 30);
    assert!(!results.is_sorted_by_key(|line| {
        line["custom_id"].as_str().unwrap()["task-".len()..].parse::<usize>().unwrap()
    }));
    assert!(results.iter().all(|line| line["result"]["type"] == "succeeded"));
    assert_eq!(results[0]["result"]["message"]["usage"]["service_tier"], "batch");
    let summary = judge.settled_summary().await;
    assert_eq!(summary.bought, 30);
    // Half of 15 dollars a million, rounded up by call.
    let entries = judge.ledger().entries().into_iter().filter(|entry| entry.endpoint == "messages_batch");
    let expected: i64 = entries.map(|entry| (entry.usage.completion_tokens as i64 * 15 + 1) / 2).sum();
    assert_eq!(summary.cost, MicroUsd(expected));
    let list = client.get("/messages/batches?limit=5").await;
    assert_eq!((&list["data"][0]["id"], &list["first_id"]), (&batch["id"], &batch["id"]));
}

#[tokio::test]
async fn anthropic_expires_is_cancelled_and_errors() {
    let result_types = async |options: Options, cancel: bool| {
        let judge = start(options).await;
        let client = Client::new(&judge);
        let created = client.post("/messages/batches", &requests(40)).await;
        let path = format!("/messages/batches/{}", created["id"].as_str().unwrap());
        if cancel {
            let batch = client.post(&format!("{path}/cancel"), &json!({})).await;
            assert_eq!(batch["processing_status"], "canceling");
            assert!(batch["cancel_initiated_at"].is_string());
        }
        client.follow(&path, "processing_status", &["ended"]).await;
        let text = client.text(&format!("{path}/results")).await;
        let types = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        types.map(|line| line["result"]["type"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let ending = |batch_end| Options { batch_end, ..Options::default() };
    assert_eq!(result_types(ending(BatchEnd::Expired), false).await, set(&["expired", "succeeded"]));
    assert_eq!(result_types(Options::default(), true).await, set(&["canceled", "succeeded"]));
    assert_eq!(result_types(ending(BatchEnd::Failed), false).await, set(&["errored"]));
    let judge = start(Options::default()).await;
    let client = Client::new(&judge);
    let twice = json!({"requests": [requests(1)["requests"][0], requests(1)["requests"][0]]});
    for bad in [twice, json!({"requests": []}), json!({})] {
        assert_eq!(client.post("/messages/batches", &bad).await["error"]["type"], "invalid_request_error");
    }
}
