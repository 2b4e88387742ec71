//! `hf:owner/name`, with a Hub on this machine that serves the golden model.

use crate::common::{Lab, tiny_llama};
use serde_json::json;
use std::fs;
use tokio::runtime::Runtime;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// What the Hub holds of `tiny/llama`; the last is none of ours to fetch.
const FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
    "pytorch_model.bin",
];

async fn hub() -> MockServer {
    let server = MockServer::start().await;
    let api = "/api/models/tiny/llama";
    for (route, body) in [
        (format!("{api}/revision/main"), json!({"id": "tiny/llama", "sha": COMMIT})),
        (
            format!("{api}/tree/{COMMIT}"),
            FILES
                .map(|file| json!({"type": "file", "oid": file, "size": contents(file).len(), "path": file}))
                .into(),
        ),
    ] {
        let answer = ResponseTemplate::new(200).set_body_json(body);
        Mock::given(method("GET")).and(path(route)).respond_with(answer).mount(&server).await;
    }
    for file in FILES {
        let answer = ResponseTemplate::new(200)
            .insert_header("etag", format!("\"{file}-1\"").as_str())
            .insert_header("x-repo-commit", COMMIT)
            .set_body_bytes(contents(file));
        let route = path(format!("/tiny/llama/resolve/{COMMIT}/{file}"));
        Mock::given(route).respond_with(answer).mount(&server).await;
    }
    server
}

fn contents(file: &str) -> Vec<u8> {
    fs::read(tiny_llama().join(file)).unwrap_or_else(|_| b"a pickle".to_vec())
}

#[test]
fn a_model_comes_from_the_hub_once_and_serves_without_it() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(hub());
    let lab = Lab::new();
    let logprobs = |model: &str, hub: &str| {
        lab.rlaif(&["logprobs", model])
            .env("HF_ENDPOINT", hub)
            .env("HF_HOME", lab.path("hub"))
            .env("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
            .write_stdin("{\"ids\": [5, 6, 7]}\n")
            .output()
            .unwrap()
    };
    let local = logprobs(tiny_llama().to_str().unwrap(), "http://127.0.0.1:1");
    let first = logprobs("hf:tiny/llama", &server.uri());
    let stderr = String::from_utf8_lossy(&first.stderr).into_owned();
    assert_eq!(first.status.code(), Some(0), "{stderr}");
    assert_eq!(first.stdout, local.stdout);
    let fetched = |server: &MockServer| {
        let requests = runtime.block_on(server.received_requests()).unwrap();
        let of_file = |request: &&wiremock::Request| {
            request.method.as_str() == "GET" && request.url.path().contains("/resolve/")
        };
        requests.iter().filter(of_file).map(|request| request.url.path().to_string()).collect::<Vec<_>>()
    };
    assert!(fetched(&server).iter().any(|file| file.ends_with("model.safetensors")));
    assert!(
        !fetched(&server).iter().any(|file| file.ends_with("pytorch_model.bin")),
        "{:?}",
        fetched(&server)
    );

    let downloads = fetched(&server).len();
    assert_eq!(logprobs("hf:tiny/llama", &server.uri()).stdout, local.stdout);
    assert_eq!(fetched(&server).len(), downloads, "the cache has it");

    let missing = logprobs("hf:tiny/lama", &server.uri());
    let stderr = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("hf:tiny/lama") && stderr.contains("HF_TOKEN"), "{stderr}");

    let alone = logprobs("hf:tiny/llama", "http://127.0.0.1:1");
    let stderr = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert_eq!(alone.stdout, local.stdout, "{stderr}");
    assert!(stderr.contains("cannot be reached"), "{stderr}");
}
