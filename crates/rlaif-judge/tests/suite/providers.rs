//! Every provider's client against a server on this machine: what is sent, where the key goes, and what comes back.

use rlaif_core::config::{JudgeConfig, JudgeKind};
use rlaif_core::records::{Choice, Message, NoVerdict};
use rlaif_judge::capability::{Capabilities, Form};
use rlaif_judge::chat::{CallErrorKind, CallFate, ChatModel, ChatRequest};
use rlaif_judge::http::SetupError;
use rlaif_judge::{Provider, Style, read_reply};
use serde_json::{Value, json};
use wiremock::matchers::{any, body_json, header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

const CANARY: &str = "sk-canary-0123456789abcdef";

fn judge(kind: JudgeKind, base_url: &str) -> JudgeConfig {
    JudgeConfig {
        kind,
        model: "judge-1".into(),
        base_url: Some(base_url.into()),
        api_key_env: Some("JUDGE_KEY".into()),
        max_tokens: 100,
        ..JudgeConfig::default()
    }
}

fn provider(judge: &JudgeConfig) -> Provider {
    Provider::from_config(judge, |name| (name == "JUDGE_KEY").then(|| CANARY.to_owned())).unwrap()
}

fn request(judge: &JudgeConfig) -> ChatRequest {
    let schema = json!({"type": "object", "properties": {"verdict": {"enum": ["1", "2"]}}, "required": ["verdict"], "additionalProperties": false});
    ChatRequest {
        schema: Some(schema),
        choices: vec!["1".into(), "2".into()],
        ..ChatRequest::of_judge(judge, vec![Message::system("Rubric."), Message::user("A or B?")])
    }
}

fn body(provider: &Provider, request: &ChatRequest) -> Value {
    serde_json::from_str(&provider.body(request)).unwrap()
}

#[tokio::test]
async fn anthropic_gets_its_own_dialect_and_headers() {
    let server = MockServer::start().await;
    let judge = JudgeConfig {
        extra: json!({"metadata": {"user_id": "r1"}}).as_object().unwrap().clone(),
        ..judge(JudgeKind::Anthropic, &format!("{}/v1", server.uri()))
    };
    let want = json!({
        "model": "judge-1", "max_tokens": 100,
        "system": [{"type": "text", "text": "Rubric.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "A or B?"}],
        "temperature": 0.0, "metadata": {"user_id": "r1"},
    });
    let reply = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "judge-1-2026",
        "content": [{"type": "text", "text": "Fine.\nBetter response: 2"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 5, "cache_read_input_tokens": 30, "service_tier": "standard"}});
    Mock::given(method("POST"))
        .and(path("/v1/messages"))
        .and(header("x-api-key", CANARY))
        .and(header("anthropic-version", "2023-06-01"))
        .and(body_json(&want))
        .respond_with(ResponseTemplate::new(200).set_body_json(reply).insert_header("request-id", "req_9"))
        .expect(1)
        .mount(&server)
        .await;
    let model = provider(&judge);
    let reply = model.send(&model.body(&request(&judge))).await.unwrap();
    assert_eq!(reply.request_id.as_deref(), Some("req_9"));
    let reading = read_reply(&reply.body, Style::BetterResponse, 100);
    assert_eq!((reading.verdict.choice, reading.usage.unwrap().prompt_tokens), (Ok(Choice::Second), 39));
}

#[test]
fn anthropic_is_held_to_a_schema_or_a_tool() {
    let judge = JudgeConfig { prompt_cache: false, ..judge(JudgeKind::Anthropic, "https://a.example/v1") };
    let request = request(&judge);
    let with = |form| body(&provider(&judge).with_capabilities(Capabilities { form }), &request);
    let schema = request.schema.clone().unwrap();
    assert_eq!(
        with(Form::JsonSchema)["output_config"],
        json!({"format": {"type": "json_schema", "schema": schema}})
    );
    let tool = with(Form::Tool);
    assert_eq!(tool["tools"][0]["input_schema"], schema);
    assert_eq!(tool["tool_choice"], json!({"type": "tool", "name": "verdict"}));
    assert_eq!(tool["system"], json!([{"type": "text", "text": "Rubric."}]));
    let text = with(Form::Text);
    assert!(text.get("tools").is_none() && text.get("output_config").is_none());
}

#[test]
fn openai_is_held_to_a_schema_or_a_choice_and_reasoning_models_get_their_own_words() {
    let judge = JudgeConfig {
        sampling_temperature: None,
        reasoning_effort: Some("low".into()),
        extra: json!({"service_tier": "flex", "provider": {"order": ["x"]}}).as_object().unwrap().clone(),
        ..judge(JudgeKind::Openai, "https://a.example/v1")
    };
    let request = request(&judge);
    let with = |form, request: &ChatRequest| {
        body(&provider(&judge).with_capabilities(Capabilities { form }), request)
    };
    let text = with(Form::Text, &request);
    assert_eq!(
        text,
        json!({"model": "judge-1", "messages": [{"role": "system", "content": "Rubric."}, {"role": "user", "content": "A or B?"}],
            "max_completion_tokens": 100, "reasoning_effort": "low", "service_tier": "flex", "provider": {"order": ["x"]}})
    );
    let choice = with(Form::Choice, &request);
    assert_eq!(choice["structured_outputs"], json!({"choice": ["1", "2"]}));
    assert!(choice.get("response_format").is_none());
    let format = json!({"type": "json_schema", "json_schema": {"name": "verdict", "strict": true, "schema": request.schema}});
    assert_eq!(with(Form::JsonSchema, &request)["response_format"], format);
    // An explanation and a verdict are no choice among words: where the server can do either, the schema holds.
    let free = ChatRequest { choices: Vec::new(), ..request.clone() };
    assert_eq!(with(Form::Choice, &free)["response_format"], format);
    assert!(request.prompt_tokens_at_most() > free.prompt_tokens_at_most());
}

#[tokio::test]
async fn azure_has_the_deployment_in_the_path_and_a_header_for_the_key() {
    let server = MockServer::start().await;
    let judge = JudgeConfig {
        model: "my judge/4".into(),
        api_version: Some("2025-01-01-preview".into()),
        ..judge(JudgeKind::Azure, &server.uri())
    };
    let filtered = json!({"error": {"message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": null, "param": "prompt", "code": "content_filter", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"violence": {"filtered": true, "severity": "medium"}}}}});
    Mock::given(method("POST"))
        .and(path("/openai/deployments/my%20judge%2F4/chat/completions"))
        .and(query_param("api-version", "2025-01-01-preview"))
        .and(header("api-key", CANARY))
        .respond_with(ResponseTemplate::new(400).set_body_json(filtered))
        .expect(1)
        .mount(&server)
        .await;
    let model = provider(&judge);
    let error = model.send(&model.body(&request(&judge))).await.unwrap_err();
    assert_eq!((error.kind, error.fate), (CallErrorKind::Filtered, CallFate::Rejected), "{error}");
    assert_eq!(error.no_verdict(), NoVerdict::Filtered);
    let sent = &server.received_requests().await.unwrap()[0];
    assert!(sent.headers.get("authorization").is_none(), "the key has one header only");
}

#[tokio::test]
async fn the_errors_of_anthropic_have_their_class() {
    use CallErrorKind as K;
    let error = |kind: &str, message: &str| json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"});
    let cases = [
        (
            400,
            error("invalid_request_error", "temperature: Extra inputs are not permitted"),
            K::UnsupportedParameter,
        ),
        (
            400,
            error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
            K::TooLong,
        ),
        (
            400,
            error("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
            K::Quota,
        ),
        (400, error("invalid_request_error", "messages: roles must alternate"), K::BadRequest),
        (401, error("authentication_error", "invalid x-api-key"), K::Unauthorized),
        (402, error("billing_error", "pay"), K::Quota),
        (403, error("permission_error", "no"), K::Forbidden),
        (404, error("not_found_error", "model: x"), K::NotFound),
        (413, error("request_too_large", "Request exceeds the maximum size"), K::TooLong),
        (429, error("rate_limit_error", "slow"), K::RateLimited),
        (500, error("api_error", "oops"), K::Server),
        (504, error("timeout_error", "late"), K::Server),
        (529, error("overloaded_error", "Overloaded"), K::Overloaded),
    ];
    for (status, body, kind) in cases {
        let server = MockServer::start().await;
        Mock::given(any())
            .respond_with(ResponseTemplate::new(status).set_body_json(&body))
            .mount(&server)
            .await;
        let model = provider(&judge(JudgeKind::Anthropic, &server.uri()));
        let error = model.send("{}").await.unwrap_err();
        assert_eq!((error.kind, error.status), (kind, Some(status)), "{body}: {error}");
        assert!(!error.message.contains("canary"));
    }
}

/// A key never goes where it was not meant for: not after a redirect, not over plain HTTP, not to a host that the config names
/// without naming the variable too.
#[tokio::test]
async fn the_key_goes_to_its_own_host_only() {
    let thief = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).expect(0).mount(&thief).await;
    let server = MockServer::start().await;
    let to_thief = ResponseTemplate::new(307).insert_header("location", thief.uri());
    Mock::given(any()).respond_with(to_thief).mount(&server).await;
    for kind in [JudgeKind::Openai, JudgeKind::Anthropic, JudgeKind::Azure] {
        let judge = judge(kind, &server.uri());
        let error = provider(&judge).send("{}").await.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::Redirect, "{kind:?}");

        let unnamed = JudgeConfig { api_key_env: None, ..judge.clone() };
        let model = Provider::from_config(&unnamed, |_| Some(CANARY.into())).unwrap();
        model.send("{}").await.unwrap_err();

        let plain = JudgeConfig { base_url: Some("http://judge.example/v1".into()), ..judge };
        assert!(matches!(
            Provider::from_config(&plain, |_| Some(CANARY.into())),
            Err(SetupError::Insecure { .. })
        ));
    }
    let with_key = |request: &wiremock::Request| {
        request.headers.values().any(|value| value.to_str().unwrap().contains(CANARY))
    };
    let requests = server.received_requests().await.unwrap();
    assert_eq!(
        requests.iter().filter(|request| with_key(request)).count(),
        3,
        "only where the variable was named"
    );
    assert_eq!(requests.len(), 6);
}

#[test]
fn a_key_may_be_in_a_file() {
    let dir = std::env::temp_dir().join(format!("rlaif-key-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("key");
    std::fs::write(&file, format!("{CANARY}\n")).unwrap();
    let judge = judge(JudgeKind::Anthropic, "https://a.example/v1");
    let from = |path: String| {
        Provider::from_config(&judge, move |name| (name == "JUDGE_KEY_FILE").then(|| path.clone()))
    };
    let model = from(file.display().to_string()).unwrap();
    let same = provider(&judge);
    assert_eq!(model.account(), same.account(), "the account is that of the key, wherever it came from");
    assert!(!format!("{model:?} {}", model.account()).contains("canary"));
    let missing = from(dir.join("none").display().to_string()).unwrap_err();
    assert!(matches!(missing, SetupError::KeyFile { .. }), "{missing}");
    std::fs::write(&file, " \n").unwrap();
    assert!(matches!(from(file.display().to_string()), Err(SetupError::NoKey { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Whatever a server does, the key is in no error, no `Debug` and no name of the account, in no form.
#[tokio::test]
async fn the_canary_key_is_nowhere() {
    let echo = json!({"error": {"message": format!("You sent {CANARY}, Bearer {CANARY} and x-api-key={CANARY}"), "code": "invalid_api_key"}});
    for status in [400, 401, 403, 404, 429, 500, 503] {
        for kind in [JudgeKind::Openai, JudgeKind::Anthropic, JudgeKind::Azure] {
            let server = MockServer::start().await;
            Mock::given(any())
                .respond_with(ResponseTemplate::new(status).set_body_json(&echo))
                .mount(&server)
                .await;
            let model = provider(&judge(kind, &server.uri()));
            let error = model.send("{}").await.unwrap_err();
            let said = format!("{error} {error:?} {model:?} {} {}", model.url(), model.account());
            assert!(!said.contains("canary") && !said.contains("0123456789abcdef"), "{said}");
        }
    }
}
