//! The client against a server on this machine: every status and body that a provider sends.

use rlaif_core::config::JudgeConfig;
use rlaif_core::money::MicroUsd;
use rlaif_core::records::{Choice, Message, NoVerdict};
use rlaif_judge::chat::{CallError, CallErrorKind, CallFate, ChatModel, ChatRequest, RawReply};
use rlaif_judge::engine::{EngineOptions, Event, Journal, Listed, Task, judge_all};
use rlaif_judge::openai::{MAX_BODY, SetupError};
use rlaif_judge::retry::RetryPolicy;
use rlaif_judge::{Budget, OpenAi, Style, read_reply};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wiremock::matchers::{body_string, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const KEY: &str = "sk-test-abcdefgh12345678";

fn request() -> ChatRequest {
    ChatRequest {
        model: "judge".into(),
        messages: vec![Message::user("A or B?")],
        max_tokens: 100,
        temperature: Some(0.0),
        ..ChatRequest::default()
    }
}

fn client(base: &str) -> OpenAi {
    OpenAi::new(base, Some(("JUDGE_KEY", SecretString::from(KEY))), Duration::from_secs(5)).unwrap()
}

async fn answer(template: ResponseTemplate) -> Result<RawReply, CallError> {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path("/v1/chat/completions")).respond_with(template).mount(&server).await;
    client(&format!("{}/v1/", server.uri())).send(&request().canonical_body()).await
}

fn completion(content: &str) -> Value {
    json!({"model": "judge-0", "choices": [{"finish_reason": "stop", "message": {"content": content}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5}})
}

#[tokio::test]
async fn a_good_call_sends_the_canonical_body_and_the_key() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/chat/completions"))
        .and(header("authorization", format!("Bearer {KEY}")))
        .and(header("content-type", "application/json"))
        .and(body_string(request().canonical_body()))
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_json(completion("Fine.\nBetter response: 2"))
                .insert_header("x-request-id", "req-7"),
        )
        .expect(1)
        .mount(&server)
        .await;
    let reply = client(&format!("{}/v1", server.uri())).send(&request().canonical_body()).await.unwrap();
    assert_eq!((reply.status, reply.request_id.as_deref()), (200, Some("req-7")));
    assert_eq!(read_reply(&reply.body, Style::BetterResponse, 100).verdict.choice, Ok(Choice::Second));
}

#[tokio::test]
async fn every_status_has_its_class() {
    use CallErrorKind as K;
    let error =
        |code: Value, message: &str| json!({"error": {"message": message, "type": "x", "code": code}});
    let cases = [
        (401, error(json!("invalid_api_key"), "no"), K::Unauthorized, CallFate::Rejected),
        (403, error(Value::Null, "no"), K::Forbidden, CallFate::Rejected),
        (402, error(Value::Null, "pay"), K::Quota, CallFate::Rejected),
        (404, error(json!("model_not_found"), "no model"), K::NotFound, CallFate::Rejected),
        (408, json!({}), K::Server, CallFate::MaybeBilled),
        (413, json!({"detail": "too large"}), K::TooLong, CallFate::Rejected),
        (429, error(json!("rate_limit_exceeded"), "slow"), K::RateLimited, CallFate::Rejected),
        (429, error(json!("insufficient_quota"), "You exceeded"), K::Quota, CallFate::Rejected),
        (
            429,
            json!({"object": "error", "type": "rate_limited", "code": "1300"}),
            K::RateLimited,
            CallFate::Rejected,
        ),
        (429, error(json!(429), "an integer code"), K::RateLimited, CallFate::Rejected),
        (500, json!("oops"), K::Server, CallFate::Rejected),
        (503, json!({}), K::Overloaded, CallFate::Rejected),
        (529, error(Value::Null, "overloaded_error"), K::Overloaded, CallFate::Rejected),
        (504, json!({}), K::Server, CallFate::MaybeBilled),
        (400, error(json!("context_length_exceeded"), "long"), K::TooLong, CallFate::Rejected),
        (
            400,
            error(Value::Null, "This model's maximum context length is 4096 tokens"),
            K::TooLong,
            CallFate::Rejected,
        ),
        (
            400,
            error(json!("unsupported_parameter"), "'max_tokens'"),
            K::UnsupportedParameter,
            CallFate::Rejected,
        ),
        (
            400,
            error(json!("unsupported_value"), "'temperature'"),
            K::UnsupportedParameter,
            CallFate::Rejected,
        ),
        (400, error(json!("content_filter"), "filtered"), K::Filtered, CallFate::Rejected),
        (400, error(Value::Null, "bad"), K::BadRequest, CallFate::Rejected),
        (307, json!({}), K::Redirect, CallFate::Rejected),
    ];
    for (status, body, kind, fate) in cases {
        let error = answer(ResponseTemplate::new(status).set_body_json(&body)).await.unwrap_err();
        assert_eq!((error.kind, error.fate, error.status), (kind, fate, Some(status)), "{body}: {error}");
    }
    let filtered = CallError::new(K::Filtered, CallFate::Rejected, "x");
    assert_eq!(filtered.no_verdict(), NoVerdict::Filtered);
}

#[tokio::test]
async fn a_wrong_key_is_named_by_its_variable_and_never_shown() {
    let said = format!("Incorrect API key provided: {KEY}. Also sk-abcd****5678 and\n\u{1b}[31mBearer {KEY}");
    let body = json!({"error": {"message": said, "code": "invalid_api_key"}});
    let error = answer(ResponseTemplate::new(401).set_body_json(body)).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("`JUDGE_KEY`"), "{text}");
    assert!(!text.contains("abcd") && !text.contains("5678") && !text.contains('\u{1b}'), "{text}");
    assert!(!format!("{:?}", client("http://127.0.0.1:9/v1")).contains("abcdefgh"));
}

#[tokio::test]
async fn retry_after_comes_with_the_error() {
    let slow = |name: &'static str, value: &str| ResponseTemplate::new(429).insert_header(name, value);
    let wait = |error: CallError| error.retry_after.map(|d| d.as_millis());
    assert_eq!(wait(answer(slow("retry-after", "7")).await.unwrap_err()), Some(7000));
    assert_eq!(wait(answer(slow("retry-after-ms", "70")).await.unwrap_err()), Some(70));
    assert_eq!(wait(answer(slow("x-other", "7")).await.unwrap_err()), None);
}

#[tokio::test]
async fn long_error_pages_are_cut_and_huge_replies_refused() {
    let page = format!("<html>{}</html>", "é".repeat(5000));
    let error = answer(ResponseTemplate::new(502).set_body_string(page)).await.unwrap_err();
    assert!(error.message.chars().count() < 450, "{}", error.message.len());
    let huge = ResponseTemplate::new(200).set_body_bytes(vec![b' '; MAX_BODY + 1]);
    let error = answer(huge).await.unwrap_err();
    assert_eq!((error.kind, error.fate), (CallErrorKind::TooLarge, CallFate::MaybeBilled));
}

#[tokio::test]
async fn a_reply_that_is_no_verdict_is_still_a_reply() {
    for body in ["", "<html>", "{\"choices\":[]}", "{\"choices\":[{\"mess"] {
        let reply = answer(ResponseTemplate::new(200).set_body_string(body)).await.unwrap();
        assert_eq!(reply.body, body.as_bytes(), "raw first");
        assert!(read_reply(&reply.body, Style::BetterResponse, 100).verdict.choice.is_err());
    }
}

#[tokio::test]
async fn nobody_listens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&base).send(&request().canonical_body()).await.unwrap_err();
    assert_eq!((error.kind, error.fate), (CallErrorKind::Connect, CallFate::NotSent), "{error}");
    assert!(error.message.contains("cannot connect to `http://127.0.0.1"), "{error}");
}

/// A server that reads the request and then does something that no HTTP library does.
async fn rude(reply: &'static [u8], then_hang: bool) -> CallError {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let mut read = 0;
        while !buffer[..read].ends_with(b"}") {
            read += socket.read(&mut buffer[read..]).await.unwrap();
        }
        socket.write_all(reply).await.unwrap();
        if then_hang {
            std::future::pending::<()>().await;
        }
    });
    let client = OpenAi::new(&base, None, Duration::from_millis(150)).unwrap();
    let error = client.send(&request().canonical_body()).await.unwrap_err();
    server.abort();
    error
}

#[tokio::test]
async fn a_connection_that_breaks_after_sending_may_have_been_billed() {
    for reply in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"choices\""] {
        let error = rude(reply, false).await;
        assert_eq!((error.kind, error.fate), (CallErrorKind::Disconnected, CallFate::MaybeBilled), "{error}");
    }
    let error = rude(b"", true).await;
    assert_eq!((error.kind, error.fate), (CallErrorKind::Timeout, CallFate::MaybeBilled), "{error}");
}

#[test]
fn the_key_comes_from_the_environment_and_goes_to_its_host_only() {
    let with = |base_url: Option<&str>, api_key_env: Option<&str>| {
        let judge = JudgeConfig {
            base_url: base_url.map(String::from),
            api_key_env: api_key_env.map(String::from),
            ..JudgeConfig::default()
        };
        OpenAi::from_config(&judge, |name| (name == "SET").then(|| "k1\n".to_owned()))
    };
    assert!(with(Some("http://localhost:8000/v1"), None).is_ok(), "a local server needs no key");
    assert!(with(Some("https://judge.example/v1"), Some("SET")).is_ok());
    let error = with(None, None).unwrap_err();
    insta::assert_snapshot!(error, @"the environment variable `OPENAI_API_KEY` with the key for `https://api.openai.com/v1` is not set, and neither is `OPENAI_API_KEY_FILE`");
    assert!(matches!(with(Some("https://judge.example/v1"), Some("UNSET")), Err(SetupError::NoKey { .. })));
    for base in ["http://judge.example/v1", "http://10.0.0.1/v1", "http://localhost.evil.example/v1"] {
        assert!(matches!(with(Some(base), None), Err(SetupError::Insecure { .. })), "{base}");
    }
    assert!(with(Some("http://[::1]:8000/v1"), None).is_ok());
    assert!(matches!(with(Some("https://me:pw@judge.example/v1"), None), Err(SetupError::CredentialsInUrl)));
    for base in ["judge", "ftp://judge.example", ""] {
        assert!(matches!(with(Some(base), None), Err(SetupError::BadUrl { .. })), "{base}");
    }
}

/// Task, body and cost of a reply.
type KeptReply = (i64, Vec<u8>, Option<MicroUsd>);

/// Replies by task.
#[derive(Default)]
struct Kept(RefCell<Vec<KeptReply>>);

impl Journal for Kept {
    type Error = std::convert::Infallible;
    type Kept = ();

    fn arrived(&self, _: i64, _: u32, _: &RawReply) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn record(&self, events: Vec<Event<()>>) -> Result<(), Self::Error> {
        for event in events {
            if let Event::Replied { task, reply, cost, .. } = event {
                self.0.borrow_mut().push((task, reply.body, cost));
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn the_whole_way_with_a_rate_limit_and_an_outage() {
    let server = MockServer::start().await;
    let post = || Mock::given(method("POST"));
    let limited = ResponseTemplate::new(429).insert_header("retry-after-ms", "1");
    post().respond_with(limited).up_to_n_times(1).with_priority(1).mount(&server).await;
    let down = ResponseTemplate::new(500).insert_header("retry-after-ms", "1");
    post().respond_with(down).up_to_n_times(1).with_priority(2).mount(&server).await;
    let fine = ResponseTemplate::new(200).set_body_json(completion("Good.\nBetter response: 1"));
    post().respond_with(fine).with_priority(3).expect(3).mount(&server).await;

    let model = client(&format!("{}/v1", server.uri()));
    let budget = Budget::within(vec![]);
    let (_keep, stop) = tokio::sync::watch::channel(false);
    let mut retry = RetryPolicy::new(5);
    retry.base = Duration::from_millis(1);
    let options = EngineOptions { concurrency: 2, retry, ..EngineOptions::new(&budget, stop) };
    let tasks = (0..3).map(|id| Task {
        id,
        body: request().canonical_body(),
        prompt_tokens_at_most: request().prompt_tokens_at_most(),
        max_tokens: request().max_tokens as u64,
        attempts: 0,
        retries: 0,
        resends: 0,
        first_sent_ms: None,
    });
    let kept = Kept::default();
    let summary = judge_all(&model, &mut Listed::new(tasks), options, &kept).await.unwrap();
    assert_eq!((summary.replied, summary.retries, summary.given_up), (3, 2, 0));
    let mut kept = kept.0.into_inner();
    kept.sort();
    let ids: Vec<i64> = kept.iter().map(|(id, _, _)| *id).collect();
    assert_eq!(ids, [0, 1, 2]);
    for (_, body, cost) in &kept {
        assert_eq!(*cost, None, "an unknown price is no price of 0");
        assert_eq!(read_reply(body, Style::BetterResponse, 100).verdict.choice, Ok(Choice::First));
    }
}
