//! A key goes to its endpoint and nowhere else: not into a file of the run, not into an error, not into a page.

use crate::common::{Lab, shown_response};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Runtime;
use wiremock::matchers::{body_string_contains, header, method};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

const KEY: &str = "sk-planted/7f3a+91c0==";
/// The key as it would stand in a URL, and in base64.
const DISGUISES: [&str; 2] = ["sk-planted%2F7f3a%2B91c0%3D%3D", "c2stcGxhbnRlZC83ZjNhKzkxYzA9PQ=="];

/// An endpoint that repeats the key in an error, as some do, and answers the next call: what comes first in the alphabet.
struct Blabbing(AtomicUsize);

impl Respond for Blabbing {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let shown = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap();
        let better = if shown_response(shown, "1") <= shown_response(shown, "2") { 1 } else { 2 };
        let call = self.0.fetch_add(1, Ordering::SeqCst);
        if call.is_multiple_of(2) {
            let (status, message) =
                if call.is_multiple_of(4) { (503, "overloaded") } else { (400, "bad request") };
            let error = json!({"error": {"message": format!("{message} for key {KEY}"), "type": "error"}});
            return ResponseTemplate::new(status).set_body_json(error);
        }
        ResponseTemplate::new(200).set_body_json(json!({
            "id": "x", "object": "chat.completion", "model": "fake-1",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {
                "role": "assistant", "content": format!("It is kinder.\n\nBetter response: {better}")}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }))
    }
}

fn assert_absent(what: &str, bytes: &[u8]) {
    for secret in [KEY].into_iter().chain(DISGUISES) {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{what} holds `{secret}`");
    }
}

fn assert_absent_below(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_absent_below(&path);
        } else {
            assert_absent(&path.display().to_string(), &fs::read(&path).unwrap());
        }
    }
}

#[test]
fn no_file_page_or_message_holds_the_key() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(MockServer::start());
    let authorized = || Mock::given(method("POST")).and(header("authorization", format!("Bearer {KEY}")));
    runtime.block_on(authorized().respond_with(Blabbing(AtomicUsize::new(0))).mount(&server));
    // A login that is refused repeats the key too.
    let refused = json!({"error": {"message": format!("Incorrect API key provided: {KEY}"), "code": "invalid_api_key"}});
    let refused = authorized()
        .and(body_string_contains("locked-1"))
        .respond_with(ResponseTemplate::new(401).set_body_json(refused))
        .with_priority(1);
    runtime.block_on(refused.mount(&server));

    let lab = Lab::new();
    let section = format!(
        "[[label.judges]]\nname = \"fake\"\nkind = \"openai\"\nmodel = \"fake-1\"\nbase_url = \"{}/v1\"\n\
         api_key_env = \"PLANTED_KEY\"\nusd_per_million_input = 1.0\nusd_per_million_output = 5.0\nmax_retries = 3\n",
        server.uri()
    );
    lab.judged_by(&section, "");

    let locked = ["--set", "label.judges[0].model=locked-1"];
    let label = ["run", "rlaif.toml", "--until", "label"];
    for (args, code) in [
        ([&label[..], &locked].concat(), 1),
        (label.to_vec(), 1),
        (["plan", "rlaif.toml"].to_vec(), 0),
        (["config", "show", "rlaif.toml"].to_vec(), 0),
        (["export", "rlaif.toml"].to_vec(), 0),
        (["report", "rlaif.toml"].to_vec(), 0),
    ] {
        let output = lab.rlaif(&args).env("PLANTED_KEY", KEY).env("RUST_LOG", "trace").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_absent(&format!("stdout of {args:?}"), &output.stdout);
        assert_absent(&format!("stderr of {args:?}"), &output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    }
    let folder = lab.run_folder();
    assert!(folder.join("rlaif.db").is_file() && folder.join("report.html").is_file());
    assert_absent_below(&lab.path(""));
}
