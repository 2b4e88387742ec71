//! Every way in which a call fails, over the wire, in both protocols.

use crate::common::*;
use rlaif_core::records::{Choice, NoVerdict};
use rlaif_judge::retry::retry_after;
use rlaif_judge::{Style, read_reply};
use rlaif_mock_judge::{Entry, Group, MockJudge, Mode, Options, Weighted};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// What a client sees of one call.
#[derive(Debug)]
struct Seen {
    status: u16,
    headers: reqwest::header::HeaderMap,
    /// What was read, and whether it was all.
    body: Vec<u8>,
    whole: bool,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn wait(&self) -> Option<Duration> {
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        retry_after(header, SystemTime::now())
    }
}

/// Sends a request that meets this mode, with a limit of 120 tokens. `None`: there was no reply at all.
async fn meet(mode: Mode, anthropic_too: bool) -> (Option<Seen>, Entry) {
    let options =
        Options { script: vec![mode], retry_after: 1.5, usd_per_million_output: 1.0, ..Options::default() };
    let judge = start(options).await;
    let body = pair_body(7, "a [q=0.9]", "b [q=0.1]", 120);
    let (url, body) = match anthropic_too {
        false => (chat(&judge), body),
        true => (format!("{}/v1/messages", judge.url()), anthropic(&body)),
    };
    let patience = Duration::from_millis(if mode == Mode::Hang { 300 } else { 20_000 });
    let sent = client()
        .post(url)
        .timeout(patience)
        .header("anthropic-version", "2023-06-01")
        .json(&body)
        .send()
        .await;
    let seen = match sent {
        Err(_) => None,
        Ok(mut response) => {
            let (mut bytes, mut whole) = (Vec::new(), true);
            loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                    Ok(None) => break,
                    Err(_) => {
                        whole = false;
                        break;
                    }
                }
            }
            Some(Seen {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                body: bytes,
                whole,
            })
        }
    };
    assert!(judge.ledger().settled(Duration::from_secs(5)).await, "{mode}: the call does not end");
    let entry = judge.ledger().entries().pop().unwrap();
    assert_eq!(entry.mode, mode.as_str());
    assert_eq!(entry.written, seen.as_ref().is_some_and(|seen| seen.whole), "{mode}: {entry:?}");
    assert_eq!(entry.cost.0 > 0, entry.billed && entry.usage.completion_tokens > 0, "{mode}");
    (seen, entry)
}

/// What must be true of the replies of a mode.
fn check(mode: Mode, seen: Option<&Seen>, entry: &Entry, anthropic: bool) {
    use Mode as M;
    let no_reply = matches!(mode, M::ResetBeforeBody | M::Hang | M::ResetAfterBody | M::ClosedAfterBody);
    assert_eq!(seen.is_none(), no_reply, "{mode}: {seen:?}");
    let Some(seen) = seen else { return };
    let error = |kind: &str| {
        let body = seen.json();
        assert!(body["error"]["message"].is_string(), "{mode}");
        let told = if anthropic { &body["error"]["type"] } else { &body["error"]["code"] };
        assert_eq!(told, kind, "{mode}: {body}");
        assert!(!entry.billed, "{mode}");
    };
    let status = |expected: u16| assert_eq!(seen.status, expected, "{mode}");
    match mode {
        M::RetryAfterSeconds
        | M::RetryAfterFraction
        | M::RetryAfterMs
        | M::RetryAfterDate
        | M::RetryAfterAbsent
        | M::RetryAfterPast
        | M::ClockSkew => {
            status(429);
            error(if anthropic { "rate_limit_error" } else { "rate_limit_exceeded" });
            let seconds = seen.wait().map(|wait| wait.as_secs_f64());
            match mode {
                M::RetryAfterSeconds => assert_eq!(seconds, Some(2.0)),
                M::RetryAfterFraction | M::RetryAfterMs => assert_eq!(seconds, Some(1.5)),
                M::RetryAfterAbsent => assert_eq!(seconds, None),
                M::RetryAfterPast => assert_eq!(seconds, Some(0.0)),
                // By its own clock, whole seconds, rounded up.
                _ => assert!((1.0..=3.0).contains(&seconds.unwrap()), "{mode}: {seconds:?}"),
            }
            if mode == M::ClockSkew {
                let date = httpdate::parse_http_date(seen.headers["date"].to_str().unwrap()).unwrap();
                assert!(date.duration_since(SystemTime::now()).unwrap() > Duration::from_secs(3500));
            }
        }
        M::ServerError => status(500),
        M::BadGateway => {
            status(502);
            assert!(seen.text().starts_with("<!DOCTYPE html>"));
        }
        M::Unavailable => status(503),
        M::GatewayTimeout => status(504),
        M::Overloaded => status(529),
        M::Unauthorized => status(401),
        M::BillingError => status(402),
        M::Forbidden => status(403),
        M::InsufficientQuota if anthropic => {
            status(400);
            assert!(seen.text().contains("credit balance is too low"));
        }
        M::InsufficientQuota => {
            status(429);
            error("insufficient_quota");
        }
        M::UnsupportedParameter => {
            status(400);
            error(if anthropic { "invalid_request_error" } else { "unsupported_parameter" });
        }
        M::FilterRejected => {
            status(400);
            error(if anthropic { "invalid_request_error" } else { "content_filter" });
        }
        M::ContextOverflow => {
            status(400);
            error(if anthropic { "invalid_request_error" } else { "context_length_exceeded" });
        }
        M::ClosedInReply => {
            status(200);
            assert!(!seen.whole && !seen.body.is_empty() && entry.billed);
        }
        M::SseError => {
            status(200);
            assert_eq!(seen.headers["content-type"], "text/event-stream");
            assert!(seen.text().contains("data: {") && seen.text().contains("\"error\""));
        }
        M::EmptyBody => {
            status(200);
            assert!(seen.body.is_empty());
        }
        M::Html => {
            status(200);
            assert!(seen.headers["content-type"].to_str().unwrap().starts_with("text/html"));
        }
        _ => {
            status(200);
            assert!(entry.billed, "{mode}");
            if anthropic { anthropic_content(mode, seen) } else { openai_content(mode, seen, entry) }
        }
    }
}

fn openai_content(mode: Mode, seen: &Seen, entry: &Entry) {
    use Mode as M;
    let verdict = read_reply(&seen.body, Style::BetterResponse, 120).verdict.choice;
    if mode == M::LoneSurrogate {
        assert!(seen.text().contains("\\ud83d"), "half a pair, escaped");
        assert!(serde_json::from_slice::<Value>(&seen.body).is_err(), "which is no text");
        return;
    }
    let body = seen.json();
    let choice = &body["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap_or_default();
    match mode {
        M::Answer | M::WrongModel => {
            assert_eq!(verdict, Ok(Choice::First));
            assert_eq!(body["model"] != "judge-1", mode == M::WrongModel);
        }
        M::Truncated => {
            assert_eq!(choice["finish_reason"], "length");
            assert_eq!((entry.usage.completion_tokens, verdict), (120, Err(NoVerdict::Truncated)));
        }
        M::TruncatedLying => {
            assert_eq!(choice["finish_reason"], "stop");
            assert_eq!((entry.usage.completion_tokens, verdict), (120, Err(NoVerdict::Truncated)));
        }
        M::WhitespaceLoop => {
            assert_eq!(choice["finish_reason"], "length");
            let blanks = text.len() - text.trim_end().len();
            assert!(text.starts_with('{') && blanks > 80, "{blanks} blanks");
        }
        M::Refusal => {
            assert!(choice["message"]["content"].is_null() && choice["message"]["refusal"].is_string());
            assert_eq!(verdict, Err(NoVerdict::Refused));
        }
        M::FilterWithheld => {
            assert_eq!(choice["finish_reason"], "content_filter");
            assert!(choice["message"].get("content").is_none());
            assert_eq!(verdict, Err(NoVerdict::Filtered));
        }
        M::MalformedJson | M::HugeNumber => {
            assert!(text.starts_with('{') && serde_json::from_str::<Value>(text).is_err(), "{text}");
            assert_eq!(text.contains("1e999"), mode == M::HugeNumber);
            assert_eq!(choice["finish_reason"], "stop");
        }
        M::DuplicateKeys => {
            assert!(text.contains("\"verdict\": \"1\", \"verdict\": \"2\""), "{text}");
        }
        M::ExtraProse => assert!(text.contains("Better response: 1\n\nI hope this helps!")),
        M::CodeFence => assert!(text.starts_with("```\n") && text.ends_with("Better response: 1\n```")),
        M::WrongLabel => {
            assert!(text.contains("\nBetter response: ") && !text.ends_with(": 1") && !text.ends_with(": 2"));
            assert!(verdict.is_err(), "{text}");
        }
        M::NoChoices => assert_eq!(body["choices"], serde_json::json!([])),
        M::NullContent => {
            assert!(choice["message"]["content"].is_null() && choice["finish_reason"] == "stop")
        }
        M::HugeBody => assert!(seen.body.len() > 1 << 20),
        other => panic!("{other} is not checked"),
    }
}

fn anthropic_content(mode: Mode, seen: &Seen) {
    use Mode as M;
    if mode == M::LoneSurrogate {
        return assert!(seen.text().contains("\\ud83d"));
    }
    let body = seen.json();
    let stop = body["stop_reason"].as_str().unwrap();
    match mode {
        M::Truncated | M::WhitespaceLoop => assert_eq!(stop, "max_tokens"),
        M::Refusal => {
            assert_eq!((stop, &body["stop_details"]["category"]), ("refusal", &"frontier_llm".into()));
            assert_eq!(body["content"], serde_json::json!([]));
        }
        M::FilterWithheld => assert_eq!(stop, "refusal"),
        M::NoChoices => assert_eq!(body["content"], serde_json::json!([])),
        M::NullContent => assert!(body["content"].is_null()),
        M::WrongModel => assert_eq!(body["model"], "judge-1-mini"),
        M::HugeBody => assert!(seen.body.len() > 1 << 20),
        _ => assert!(!body["content"][0]["text"].as_str().unwrap().is_empty()),
    }
}

#[tokio::test]
async fn every_mode_is_seen_as_what_it_is_and_recorded_as_what_it_was() {
    for anthropic in [false, true] {
        for &mode in Mode::ALL.iter().filter(|mode| mode.can_be_drawn()) {
            let (seen, entry) = meet(mode, anthropic).await;
            check(mode, seen.as_ref(), &entry, anthropic);
        }
    }
}

#[tokio::test]
async fn what_could_be_billed_is_billed_by_a_fair_coin() {
    let options = Options { chaos: 1.0, ..Options::default() };
    let modes = [Mode::ResetAfterBody, Mode::ClosedAfterBody, Mode::GatewayTimeout];
    let chaos_modes = modes.map(|mode| Weighted::mode(mode, 1.0)).to_vec();
    let judge = start(Options { chaos_modes, ..options }).await;
    for number in 0..400 {
        let _ = try_post(&chat(&judge), &planted(number).0).await;
    }
    let summary = judge.settled_summary().await;
    assert_share(summary.billed as usize, 400, 0.5);
    assert_eq!(summary.bought, 0);
    let seen: BTreeSet<&str> = summary.modes.keys().map(String::as_str).collect();
    assert_eq!(seen, modes.iter().map(|mode| mode.as_str()).collect());
}

#[tokio::test]
async fn a_transient_failure_succeeds_when_tried_again() {
    let chaos_modes = vec![Weighted::group(Group::Transient), Weighted::mode(Mode::Hang, 0.0)];
    let judge = start(Options { chaos: 1.0, chaos_modes, ..Options::default() }).await;
    for number in 0..60 {
        let failed = match try_post(&chat(&judge), &planted(number).0).await {
            Ok(response) => !response.status().is_success() || response.bytes().await.is_err(),
            Err(_) => true,
        };
        assert!(failed, "request {number} did not fail");
        let reply = post(&chat(&judge), &planted(number).0).await.bytes().await.unwrap();
        assert!(read_reply(&reply, Style::BetterResponse, 200).verdict.choice.is_ok());
    }
    let summary = judge.settled_summary().await;
    assert_eq!((summary.bought, summary.bought_again, summary.calls), (60, 0, 120));
}

#[tokio::test]
async fn a_dead_account_stays_dead() {
    let judge =
        start(Options { fatal: Some(Mode::InsufficientQuota), fatal_after: 3, ..Options::default() }).await;
    let mut statuses = Vec::new();
    for number in [0, 1, 2, 3, 3, 4] {
        statuses.push(post(&chat(&judge), &planted(number).0).await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
}

#[tokio::test]
async fn connections_are_refused_before_a_byte_is_read() {
    let judge = start(Options { refuse_connections: 1.0, ..Options::default() }).await;
    assert!(try_post(&chat(&judge), &planted(0).0).await.is_err());
    let summary = judge.settled_summary().await;
    assert_eq!((summary.calls, summary.refused_connections > 0), (0, true));
}

#[tokio::test]
async fn a_client_with_retries_gets_through() {
    let chaos_modes = vec![Weighted::group(Group::Transient), Weighted::mode(Mode::Hang, 0.0)];
    let judge: MockJudge =
        start(Options { chaos: 0.5, chaos_modes, seed: 2, retry_after: 0.01, ..Options::default() }).await;
    let mut answered = 0;
    for number in 0..100 {
        let mut attempts = 0;
        loop {
            attempts += 1;
            assert!(attempts <= 2, "request {number} failed twice in a row");
            let sent = client().post(chat(&judge)).json(&planted(number).0).send().await;
            let Ok(response) = sent else { continue };
            if !response.status().is_success() {
                continue;
            }
            let Ok(body) = response.bytes().await else { continue };
            answered += usize::from(read_reply(&body, Style::BetterResponse, 200).verdict.choice.is_ok());
            break;
        }
    }
    let summary = judge.settled_summary().await;
    assert_eq!((answered, summary.bought, summary.bought_again), (100, 100, 0));
    assert!(summary.calls > 130, "{} calls", summary.calls);
}
