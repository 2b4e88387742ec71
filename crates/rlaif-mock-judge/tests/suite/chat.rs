//! Single calls over the wire: shapes, planted behaviour, limits, bills, the ledger.

use crate::common::*;
use futures_util::StreamExt;
use rlaif_core::config::{JudgeConfig, JudgeKind};
use rlaif_core::money::{MicroUsd, Price, Usage};
use rlaif_core::records::Choice;
use rlaif_judge::{Capabilities, ChatModel, ChatRequest, Form, Style, read_reply};
use rlaif_mock_judge::{
    AnswerStyle, FormKind, Latency, MockJudge, Mode, Options, OptionsError, Position, StartError,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_chat_completion_as_openai_sends_it() {
    let judge = start(Options { cached_share: 0.5, reasoning_tokens: 7, ..Options::default() }).await;
    let body = pair_body(1, "a [q=0.2]", "b [q=0.7]", 200);
    let response = post(&chat(&judge), &body).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("x-request-id"));
    assert!(response.headers().contains_key("openai-processing-ms"));
    assert!(response.headers().contains_key("date"));
    let reply: Value = response.json().await.unwrap();
    assert_eq!(reply["object"], "chat.completion");
    assert_eq!(reply["model"], "judge-1");
    let choice = &reply["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["role"]), (&json!("stop"), &json!("assistant")));
    assert_eq!((&choice["message"]["refusal"], &choice["logprobs"]), (&Value::Null, &Value::Null));
    assert!(content(&reply).ends_with("\nBetter response: 2"), "{reply}");
    let usage = &reply["usage"];
    let count = |path: &str| usage.pointer(path).and_then(Value::as_u64).unwrap();
    assert_eq!(count("/total_tokens"), count("/prompt_tokens") + count("/completion_tokens"));
    assert_eq!(count("/prompt_tokens_details/cached_tokens"), count("/prompt_tokens") / 2);
    assert_eq!(count("/completion_tokens_details/reasoning_tokens"), 7);
    let reading = read_reply(&serde_json::to_vec(&reply).unwrap(), Style::BetterResponse, 200);
    assert_eq!(reading.verdict.choice, Ok(Choice::Second));
}

#[tokio::test]
async fn a_message_as_anthropic_sends_it() {
    let judge = start(Options { cached_share: 0.25, ..Options::default() }).await;
    let url = format!("{}/v1/messages", judge.url());
    let body = anthropic(&pair_body(1, "a [q=0.9]", "b [q=0.7]", 200));
    let response = post(&url, &body).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("request-id"));
    let reply: Value = response.json().await.unwrap();
    assert_eq!((&reply["type"], &reply["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!((&reply["stop_reason"], &reply["content"][0]["type"]), (&json!("end_turn"), &json!("text")));
    assert!(reply["content"][0]["text"].as_str().unwrap().ends_with("Better response: 1"));
    let entry = judge_entry(&judge).await;
    assert_eq!(reply["usage"]["cache_read_input_tokens"], entry.usage.cached_tokens);
    let rest = entry.usage.prompt_tokens - entry.usage.cached_tokens;
    assert_eq!(reply["usage"]["input_tokens"], rest);
    assert_eq!(reply["usage"]["output_tokens"], entry.usage.completion_tokens);

    let bare = client().post(&url).json(&body).send().await.unwrap();
    assert_eq!(bare.status(), 400, "the version header is required");
    let error: Value = bare.json().await.unwrap();
    assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!("invalid_request_error")));
    assert!(error["request_id"].is_string());

    let schema = json!({"type": "object", "properties": {"reason": {"type": "string"},
        "verdict": {"type": "string", "enum": ["1", "2", "tie"]}}});
    let mut with_tool = body.clone();
    with_tool["tools"] = json!([{"name": "verdict", "input_schema": schema}]);
    with_tool["tool_choice"] = json!({"type": "tool", "name": "verdict"});
    let reply: Value = post(&url, &with_tool).await.json().await.unwrap();
    assert_eq!(
        (&reply["stop_reason"], &reply["content"][0]["type"]),
        (&json!("tool_use"), &json!("tool_use"))
    );
    assert_eq!(reply["content"][0]["input"]["verdict"], "1");
}

async fn judge_entry(judge: &MockJudge) -> rlaif_mock_judge::Entry {
    assert!(judge.ledger().settled(Duration::from_secs(5)).await);
    judge.ledger().entries().pop().unwrap()
}

#[tokio::test]
async fn azure_models_and_paths_that_do_not_exist() {
    let judge = start(Options::default()).await;
    let path = format!("{}/openai/deployments/my-judge/chat/completions", judge.url());
    let mut body = pair_body(1, "a [q=0.9]", "b [q=0.7]", 200);
    body.as_object_mut().unwrap().remove("model");
    assert_eq!(post(&path, &body).await.status(), 404, "a version is required");
    let reply: Value = post(&format!("{path}?api-version=2025-04-01"), &body).await.json().await.unwrap();
    assert_eq!(reply["model"], "my-judge");
    let models: Value =
        reqwest::get(format!("{}/models", judge.base_url())).await.unwrap().json().await.unwrap();
    assert_eq!(models["data"][0]["id"], "mock-judge");
    let lost = reqwest::get(format!("{}/v1/nothing", judge.url())).await.unwrap();
    assert_eq!(lost.status(), 404);
    assert!(
        lost.json::<Value>().await.unwrap()["error"]["message"].as_str().unwrap().contains("/v1/nothing")
    );
}

#[tokio::test]
async fn json_labels_and_log_probabilities_where_they_are_asked_for() {
    let judge = start(Options { accuracy: 0.8, ..Options::default() }).await;
    let mut body = pair_body(1, "a [q=0.2]", "b [q=0.7]", 200);
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "verdict", "strict": true,
        "schema": {"type": "object", "properties": {"reason": {"type": "string"},
            "verdict": {"type": "string", "enum": ["1", "2", "tie"]}}}}});
    let reply: Value = post(&chat(&judge), &body).await.json().await.unwrap();
    let inner: Value = serde_json::from_str(content(&reply)).unwrap();
    assert!(["1", "2"].contains(&inner["verdict"].as_str().unwrap()));

    let mut body = pair_body(2, "a [q=0.2]", "b [q=0.7]", 1);
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(20);
    let reply: Value = post(&chat(&judge), &body).await.json().await.unwrap();
    let token = &reply["choices"][0]["logprobs"]["content"][0];
    assert_eq!(token["token"], content(&reply));
    let p_of = |label: &str| -> f64 {
        let of_label = token["top_logprobs"].as_array().unwrap().iter();
        let of_label = of_label.filter(|entry| {
            let bytes: Vec<u8> = serde_json::from_value(entry["bytes"].clone()).unwrap();
            String::from_utf8(bytes).unwrap().trim() == label
        });
        of_label.map(|entry| entry["logprob"].as_f64().unwrap().exp()).sum()
    };
    assert!((p_of("1") + p_of("2") - 0.98).abs() < 1e-9);
    assert_eq!(p_of("1") > p_of("2"), content(&reply) == "1", "the likelier label is the one that is said");

    let rating = json!({"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content":
        "<response_00aa11bb>\nhm [q=1]\n</response_00aa11bb>\nRate it from 1 to 10."}]});
    let reply: Value = post(&chat(&judge), &rating).await.json().await.unwrap();
    assert_eq!(content(&reply), "10", "there is no room for more");
}

/// Every template of `rlaif-judge`, each step over the wire, read by its own reader; the last step with log-probabilities where a
/// template reads a token, or where they are asked for.
async fn judged(judge: &MockJudge, name: &str, secrets: bool, logprobs: bool, texts: [&str; 2]) -> Judged {
    use rlaif_judge::answer::read_answer;
    use rlaif_judge::template::{AnswerKind, TemplateProtocol, View};
    let asker = asker(name, secrets);
    let rates = asker.protocol() == TemplateProtocol::Rating;
    let view = View {
        prompt: "Name a colour.",
        first: texts[0],
        second: (!rates).then_some(texts[1]),
        reference: Some("Blue."),
        nonce: name.len() as u64,
        vote: 0,
    };
    let mut earlier = Vec::new();
    for (index, step) in asker.steps().iter().enumerate() {
        let token = step.answer == AnswerKind::Token;
        let last = index + 1 == asker.steps().len();
        let max_tokens = step.max_tokens.unwrap_or(512);
        let mut body = json!({"model": "m", "messages": asker.messages(&view, &earlier).unwrap(),
            "max_tokens": max_tokens, "temperature": 0.0});
        if token || logprobs && last {
            body["logprobs"] = json!(true);
            body["top_logprobs"] = json!(20);
        }
        let reply = post(&chat(judge), &body).await.bytes().await.unwrap();
        let answer = read_answer(&reply, if token { usize::MAX } else { max_tokens });
        if last && rates {
            return Judged::Rating(asker.read_rating(&answer).unwrap());
        }
        if last {
            return Judged::Verdict(asker.read(&view, &earlier, &answer));
        }
        earlier.push(answer.text.unwrap());
    }
    unreachable!("a template has a last step")
}

#[derive(Debug)]
enum Judged {
    Verdict(rlaif_core::records::Verdict),
    Rating(f64),
}

#[tokio::test]
async fn every_built_in_template_gets_the_verdict_that_was_planted() {
    use rlaif_judge::template::built_in_names;
    let judge = start(Options::default()).await;
    for name in built_in_names() {
        for (secrets, logprobs) in [(false, false), (true, false), (false, true), (true, true)] {
            let texts = ["A stone. [q=0.2]", "Red. [q=0.8]"];
            let verdict = match judged(&judge, name, secrets, logprobs, texts).await {
                Judged::Verdict(verdict) => verdict,
                // 0.2 is a rating of 2.8, which is −0.6 from −1 to 1.
                Judged::Rating(rating) => {
                    assert!((rating + 0.6).abs() < 0.05, "{rating}");
                    continue;
                }
            };
            assert_eq!(verdict.choice, Ok(Choice::Second), "{name}, {secrets}: {verdict:?}");
            if name == "per_criterion" {
                assert_eq!(verdict.scores["accuracy"], (3.0, 8.0));
            }
            let soft = logprobs || ["verdict_only", "two_step", "confidence"].contains(&name);
            assert_eq!(verdict.p_first.is_some(), soft, "{name}, {secrets}: {verdict:?}");
            assert_eq!(verdict.mass.is_some(), soft && (logprobs || name != "confidence"), "{name}");
        }
    }
}

/// What a judge is unsure of comes out as a probability, however it is told: by a token, in words with log-probabilities, or by its
/// own word, which has whole per cents.
#[tokio::test]
async fn a_judge_says_how_sure_it_is_in_three_ways() {
    let judge = start(Options { accuracy: 0.8, ..Options::default() }).await;
    for (name, logprobs) in [("verdict_only", true), ("explain", true), ("confidence", false)] {
        let (mut sure, mut right, mut whole) = (0.0, 0.0, 0);
        let n = 300_u16;
        for number in 0..n {
            let texts = [format!("A stone {number}. [q=0.2]"), "Red. [q=0.8]".to_owned()];
            let Judged::Verdict(verdict) = judged(&judge, name, true, logprobs, [&texts[0], &texts[1]]).await
            else {
                unreachable!("it compares")
            };
            let p = verdict.p_first.unwrap();
            assert!(p == 0.5 || (verdict.choice == Ok(Choice::First)) == (p > 0.5), "{name}: {verdict:?}");
            sure += p.max(1.0 - p) / f64::from(n);
            right += f64::from(u8::from(p < 0.5)) / f64::from(n);
            whole += usize::from((100.0 * p - (100.0 * p).round()).abs() < 1e-9);
        }
        // Of the verdicts given with c, a share c is right; both means are the accuracy, up to five standard errors.
        assert!((sure - 0.8).abs() < 0.07 && (right - 0.8).abs() < 0.12, "{name}: {sure}, {right}");
        assert_eq!(whole == usize::from(n), name == "confidence", "{name}: {whole}");
    }
}

fn client_of(judge: &MockJudge, kind: JudgeKind) -> (rlaif_judge::Provider, ChatRequest) {
    let config =
        JudgeConfig { kind, model: "m".into(), base_url: Some(judge.base_url()), ..JudgeConfig::default() };
    let client = rlaif_judge::Provider::from_config(&config, |_| None).unwrap();
    (client, ChatRequest::of_judge(&config, Vec::new()))
}

/// What a client's probe finds out of a server that knows each form, ignores it, or refuses it.
#[tokio::test]
async fn a_probe_tells_servers_that_hold_a_form_from_those_that_ignore_or_refuse_it() {
    use rlaif_judge::capability::{REFUSALS, obeys, probe_request};
    let forms = [
        (JudgeKind::Openai, Form::Choice, FormKind::Choice),
        (JudgeKind::Openai, Form::JsonSchema, FormKind::JsonSchema),
        (JudgeKind::Anthropic, Form::JsonSchema, FormKind::JsonSchema),
        (JudgeKind::Anthropic, Form::Tool, FormKind::Tool),
    ];
    for (kind, form, named) in forms {
        let send = async |options: Options| {
            let judge = start(options).await;
            let (client, like) = client_of(&judge, kind);
            let client = client.with_capabilities(Capabilities { form });
            let reply = client.send(&client.body(&probe_request(&like))).await;
            (reply, judge.settled_summary().await.billed)
        };
        let (held, billed) = send(Options::default()).await;
        assert!(obeys(form, &held.unwrap().body) && billed == 1, "{kind:?} {form}");
        let (ignored, billed) = send(Options { ignore_forms: vec![named], ..Options::default() }).await;
        assert!(!obeys(form, &ignored.unwrap().body) && billed == 1, "{kind:?} {form}");
        let (refused, billed) = send(Options { refuse_forms: vec![named], ..Options::default() }).await;
        let error = refused.unwrap_err();
        assert!(REFUSALS.contains(&error.kind) && billed == 0, "{kind:?} {form}: {error}");
    }
}

/// Templates that want one token or an object, in every form to which an endpoint can hold them.
#[tokio::test]
async fn verdicts_are_the_planted_ones_in_every_form() {
    use rlaif_judge::answer::read_answer;
    use rlaif_judge::template::{AnswerKind, TemplateProtocol, View};
    let judge = start(Options::default()).await;
    let cases = [
        (JudgeKind::Openai, Form::Text),
        (JudgeKind::Openai, Form::Choice),
        (JudgeKind::Openai, Form::JsonSchema),
        (JudgeKind::Anthropic, Form::Text),
        (JudgeKind::Anthropic, Form::JsonSchema),
        (JudgeKind::Anthropic, Form::Tool),
    ];
    for (kind, form) in cases {
        let (client, like) = client_of(&judge, kind);
        let client = client.with_capabilities(Capabilities { form });
        for (name, secrets) in [("json", false), ("json", true), ("verdict_only", false), ("rating", false)] {
            let asker = asker(name, secrets);
            let step = &asker.steps()[0];
            let token = step.answer == AnswerKind::Token;
            if token && kind == JudgeKind::Anthropic {
                continue; // it gives no log-probabilities, and the program refuses such a judge
            }
            let rates = asker.protocol() == TemplateProtocol::Rating;
            let view = View {
                prompt: "Name a colour.",
                first: "A stone. [q=0.2]",
                second: (!rates).then_some("Red. [q=0.8]"),
                reference: None,
                nonce: 5,
                vote: 0,
            };
            let max_tokens = step.max_tokens.unwrap_or(like.max_tokens);
            let request = ChatRequest {
                messages: asker.messages(&view, &[]).unwrap(),
                max_tokens,
                top_logprobs: (kind == JudgeKind::Openai).then_some(20),
                schema: asker.schema(0, &view),
                choices: asker.choices(0),
                ..like.clone()
            };
            let reply = client.send(&client.body(&request)).await.unwrap().body;
            let answer = read_answer(&reply, if token { usize::MAX } else { max_tokens });
            if rates {
                assert!((asker.read_rating(&answer).unwrap() + 0.6).abs() < 0.05, "{form}: {answer:?}");
                continue;
            }
            let verdict = asker.read(&view, &[], &answer);
            assert_eq!(verdict.choice, Ok(Choice::Second), "{kind:?} {form} {name}: {answer:?}");
            assert_eq!(verdict.p_first.is_some(), kind == JudgeKind::Openai, "{form} {name}: {answer:?}");
            let said = answer.text.unwrap();
            if name == "json" {
                assert!(verdict.explanation.unwrap().contains("esponse 2"), "{said}");
            }
            if token && form == Form::Choice {
                assert_eq!(said, "Better response: B");
            }
        }
    }
}

#[tokio::test]
async fn a_reply_without_room_is_cut_off_and_says_so() {
    let judge = start(Options { style: AnswerStyle::House, ..Options::default() }).await;
    let reply: Value = post(&chat(&judge), &pair_body(1, "a", "b", 5)).await.json().await.unwrap();
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
    assert_eq!(reply["usage"]["completion_tokens"], 5);
}

/// Verdicts of many requests: how many name the better response, and how many the second position.
async fn verdicts(options: Options, n: usize) -> (usize, usize) {
    let judge = start(options).await;
    // With kept connections: thousands of calls are made in one runtime.
    let client = reqwest::Client::new();
    let url = chat(&judge);
    let calls = futures_util::stream::iter(0..n).map(|number| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let (body, first_is_better) = planted(number);
            let reply = client.post(url).json(&body).send().await.unwrap().bytes().await.unwrap();
            let choice = read_reply(&reply, Style::BetterResponse, 200).verdict.choice.unwrap();
            (choice == if first_is_better { Choice::First } else { Choice::Second }, choice == Choice::Second)
        }
    });
    let said: Vec<(bool, bool)> = calls.buffer_unordered(32).collect().await;
    (said.iter().filter(|(right, _)| *right).count(), said.iter().filter(|(_, second)| *second).count())
}

#[tokio::test]
async fn planted_accuracy_and_position_bias_are_recovered_over_the_wire() {
    let n = 1500;
    let (right, second) = verdicts(Options { accuracy: 0.8, ..Options::default() }, n).await;
    assert_share(right, n, 0.8);
    assert_share(second, n, 0.5);
    let biased = Options {
        accuracy: 0.9,
        position_bias: 0.4,
        biased_to: Position::Second,
        seed: 3,
        ..Options::default()
    };
    let (right, second) = verdicts(biased, n).await;
    // Biased requests name the second, which is the better one in half of them.
    assert_share(right, n, 0.6 * 0.9 + 0.4 * 0.5);
    assert_share(second, n, 0.6 * 0.5 + 0.4);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_answers_and_another_seed_others() {
    let mut replies = Vec::new();
    for seed in [7, 7, 8] {
        let judge = start(Options { accuracy: 0.6, seed, ..Options::default() }).await;
        let mut texts = Vec::new();
        for number in 0..40 {
            let reply: Value = post(&chat(&judge), &planted(number).0).await.json().await.unwrap();
            texts.push(content(&reply).to_owned());
        }
        let again: Value = post(&chat(&judge), &planted(0).0).await.json().await.unwrap();
        assert_eq!(content(&again), texts[0], "the same request, the same answer");
        replies.push(texts);
    }
    assert_eq!(replies[0], replies[1]);
    assert_ne!(replies[0], replies[2]);
}

#[tokio::test]
async fn the_ledger_is_what_the_client_saw_to_the_micro_dollar() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calls.jsonl");
    let judge = start(Options {
        usd_per_million_input: 0.15,
        usd_per_million_output: 0.6,
        usd_per_million_cached_input: Some(0.075),
        cached_share: 0.3,
        ledger: Some(path.clone()),
        ..Options::default()
    })
    .await;
    let price = Price::from_dollars(0.15, 0.6, Some(0.075)).unwrap();
    let (mut cost, mut usage) = (0, Usage::default());
    for number in 0..50 {
        let body = planted(number).0;
        let reply: Value = post(&chat(&judge), &body).await.json().await.unwrap();
        let seen = rlaif_judge::usage::parse_usage(&reply).unwrap();
        cost += price.cost(&seen).unwrap().0;
        usage = usage.plus(seen);
    }
    let summary = judge.settled_summary().await;
    assert_eq!((summary.calls, summary.requests, summary.billed, summary.written), (50, 50, 50, 50));
    assert_eq!((summary.cost, summary.usage, summary.bought_again), (MicroUsd(cost), usage, 0));
    let lines = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<rlaif_mock_judge::Entry> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, judge.ledger().entries());
    let first = &lines[0];
    let sent = blake3::hash(planted(0).0.to_string().as_bytes()).to_hex().to_string();
    assert_eq!((&first.request, first.attempt, first.status), (&sent, 1, Some(200)));
    assert_eq!(first.said, Some(Choice::First));
    assert!(first.finished_us >= first.received_us);
    let over_http: Value =
        reqwest::get(format!("{}/ledger/summary", judge.url())).await.unwrap().json().await.unwrap();
    assert_eq!((&over_http["cost_micro_usd"], &over_http["calls"]), (&json!(cost), &json!(50)));
    let _ = post(&chat(&judge), &planted(0).0).await.bytes().await.unwrap();
    assert_eq!(judge.settled_summary().await.bought_again, 1);
}

#[tokio::test]
async fn a_client_that_leaves_is_billed_and_its_reply_is_not_written() {
    let slow = Latency::Fixed(Duration::from_secs(30));
    let judge = start(Options { latency: slow, usd_per_million_input: 1.0, ..Options::default() }).await;
    let call = client().post(chat(&judge)).json(&planted(0).0).timeout(Duration::from_millis(200));
    assert!(call.send().await.unwrap_err().is_timeout());
    let entry = judge_entry(&judge).await;
    assert_eq!((entry.mode.as_str(), entry.billed, entry.written), ("answer", true, false));
    assert!(entry.cost.0 > 0);
}

#[tokio::test]
async fn rate_limits_hold_and_say_when_to_come_back() {
    let judge = start(Options {
        requests_per_minute: Some(120),
        tokens_per_minute: Some(1_000_000),
        burst_seconds: 2.5,
        ..Options::default()
    })
    .await;
    // Five at once, then two a second: also on a busy machine, some of thirty come too early.
    let (mut waits, mut passed) = (Vec::new(), 0);
    for number in 0..30 {
        let response = post(&chat(&judge), &planted(number).0).await;
        let headers = response.headers().clone();
        assert_eq!(headers["x-ratelimit-limit-requests"], "120");
        assert!(headers.contains_key("x-ratelimit-reset-tokens"));
        if response.status() == 429 {
            assert!(headers.contains_key("retry-after"));
            let ms: f64 = headers["retry-after-ms"].to_str().unwrap().parse().unwrap();
            let error: Value = response.json().await.unwrap();
            assert_eq!(error["error"]["code"], "rate_limit_exceeded");
            waits.push((number, ms));
        } else {
            passed += 1;
        }
        if waits.len() == 2 {
            break;
        }
    }
    assert!(passed >= 5, "the burst passes");
    let (number, ms) = *waits.last().expect("some come too early");
    tokio::time::sleep(Duration::from_secs_f64(ms / 1000.0)).await;
    let response = post(&chat(&judge), &planted(number).0).await;
    assert_eq!(response.status(), 200, "after the time that it asked for");
    let summary = judge.settled_summary().await;
    assert_eq!(summary.modes["limited"], waits.len() as u64);
    assert_eq!(summary.billed, passed + 1);

    let anthropic_judge = start(Options { tokens_per_minute: Some(1), ..Options::default() }).await;
    let url = format!("{}/v1/messages", anthropic_judge.url());
    let body = anthropic(&planted(0).0);
    assert_eq!(post(&url, &body).await.status(), 200);
    let limited = post(&url, &body).await;
    assert_eq!(limited.status(), 429);
    for name in ["requests", "tokens", "input-tokens", "output-tokens"] {
        let present = limited.headers().contains_key(format!("anthropic-ratelimit-{name}-reset"));
        assert_eq!(present, name != "requests", "{name}");
    }
    let error: Value = limited.json().await.unwrap();
    assert_eq!(error["error"]["type"], "rate_limit_error");
}

#[tokio::test]
async fn keys_contexts_and_bad_requests_are_refused_without_a_bill() {
    let judge =
        start(Options { require_key: Some("right".into()), context_tokens: 2000, ..Options::default() })
            .await;
    let client = client();
    let body = planted(0).0;
    let with_key = |key: &str, body: Value| client.post(chat(&judge)).bearer_auth(key).json(&body).send();
    assert_eq!(with_key("wrong", body.clone()).await.unwrap().status(), 401);
    assert_eq!(with_key("right", body).await.unwrap().status(), 200);
    let long = pair_body(1, &"long ".repeat(2000), "short", 100);
    let response = with_key("right", long).await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "context_length_exceeded");
    assert_eq!(with_key("right", json!({"model": "m"})).await.unwrap().status(), 400);
    let broken = client.post(chat(&judge)).bearer_auth("right").body("{\"model\":").send().await.unwrap();
    assert_eq!(broken.status(), 400);
    let summary = judge.settled_summary().await;
    assert_eq!((summary.calls, summary.billed), (5, 1));
    assert_eq!((summary.modes["unauthorized"], summary.modes["bad_request"]), (1, 2));
}

#[tokio::test]
async fn it_listens_on_this_machine_only() {
    let listen = "0.0.0.0:0".parse().unwrap();
    let refused = MockJudge::start(Options { listen, ..Options::default() }).await.unwrap_err();
    assert!(matches!(refused, StartError::Options(OptionsError::NotLoopback(_))), "{refused}");
}

#[tokio::test]
async fn it_stops_when_it_is_dropped() {
    let judge = start(Options::default()).await;
    let (address, url) = (judge.address(), chat(&judge));
    post(&url, &planted(0).0).await;
    drop(judge);
    let started = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(5), "still listening");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_test_that_is_not_async_gets_a_thread() {
    let judge = MockJudge::start_on_thread(Options { script: vec![Mode::ServerError], ..Options::default() });
    let judge = judge.unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let statuses = runtime.block_on(async {
        [post(&chat(&judge), &planted(0).0).await.status(), post(&chat(&judge), &planted(0).0).await.status()]
    });
    assert_eq!(statuses.map(|status| status.as_u16()), [500, 200]);
}
