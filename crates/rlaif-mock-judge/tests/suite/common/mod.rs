//! What the tests share.

use rlaif_core::config::{Criterion, FewShot};
use rlaif_judge::template::{Asker, Settings, Template, View};
use rlaif_mock_judge::{MockJudge, Options};
use serde_json::{Value, json};
use std::sync::LazyLock;

pub async fn start(options: Options) -> MockJudge {
    MockJudge::start(options).await.unwrap()
}

/// A built-in template as a run uses it.
pub fn asker(name: &str, secrets: bool) -> Asker {
    let settings = Settings {
        seed: 1,
        criteria: ["accuracy", "clarity"].map(Criterion::named).to_vec(),
        shuffle_criteria: false,
        few_shot: Vec::<FewShot>::new(),
        few_shot_n: None,
        principles: vec!["Choose the kinder response.".into()],
        min_mass: 0.5,
        secrets,
    };
    Asker::new(Template::built_in(name).unwrap(), settings).unwrap()
}

/// The body that our own client sends for a pair; `number` makes requests differ.
pub fn pair_body(number: usize, first: &str, second: &str, max_tokens: usize) -> Value {
    static EXPLAIN: LazyLock<Asker> = LazyLock::new(|| asker("explain", false));
    let prompt = format!("Question {number}?");
    let view =
        View { prompt: &prompt, first, second: Some(second), reference: None, nonce: number as u64, vote: 0 };
    let messages = EXPLAIN.messages(&view, &[]).unwrap();
    json!({"model": "judge-1", "messages": messages, "max_tokens": max_tokens, "temperature": 0.0})
}

/// A pair whose better response stands first in every second request.
pub fn planted(number: usize) -> (Value, bool) {
    let first_is_better = number.is_multiple_of(2);
    let (first, second) =
        if first_is_better { ("x [q=0.9]", "y [q=0.1]") } else { ("y [q=0.1]", "x [q=0.9]") };
    (pair_body(number, first, second, 200), first_is_better)
}

pub fn anthropic(openai: &Value) -> Value {
    let messages = openai["messages"].as_array().unwrap();
    json!({"model": openai["model"], "max_tokens": openai["max_tokens"],
        "system": messages[0]["content"], "messages": messages[1..]})
}

pub async fn post(url: &str, body: &Value) -> reqwest::Response {
    try_post(url, body).await.unwrap()
}

/// One client for all tests, as making one takes a while; it keeps no connection, since each test has a runtime of its own.
pub fn client() -> &'static reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> =
        LazyLock::new(|| reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap());
    &CLIENT
}

pub async fn try_post(url: &str, body: &Value) -> reqwest::Result<reqwest::Response> {
    client().post(url).header("anthropic-version", "2023-06-01").json(body).send().await
}

pub fn chat(judge: &MockJudge) -> String {
    format!("{}/chat/completions", judge.base_url())
}

pub fn content(reply: &Value) -> &str {
    reply["choices"][0]["message"]["content"].as_str().unwrap()
}

/// Asserts that a share of `n` is what was planted, within five standard deviations.
pub fn assert_share(hits: usize, n: usize, want: f64) {
    let bound = 5.0 * (want * (1.0 - want) * n as f64).sqrt();
    assert!((hits as f64 - want * n as f64).abs() <= bound, "{hits} of {n}, expected a share of {want}");
}
