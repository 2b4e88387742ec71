//! Raw reply → verdict and usage. A pure function: a better parser is a free recomputation over stored bytes.

use crate::parse::{Style, parse};
use crate::usage::parse_usage;
use rlaif_core::money::Usage;
use rlaif_core::records::{NoVerdict, Verdict};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is read from the body of one reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The verdict, or why there is none.
    pub verdict: Verdict,
    /// Why, in words: what was matched, or what was missing.
    pub reason: String,
    /// Tokens, where the provider counted them.
    pub usage: Option<Usage>,
    /// The provider's word for how the reply ended.
    pub finish_reason: Option<String>,
    /// The model that answered, which may not be the one that was asked.
    pub model: Option<String>,
}

/// Usage alone, to settle the budget before anyone has read the verdict.
pub fn read_usage(body: &[u8]) -> Option<Usage> {
    parse_usage(&serde_json::from_slice(body).ok()?)
}

/// Reads a chat completion: refusal, filter and truncation first, then the text in the given style.
///
/// `max_tokens` is what was asked for. A finish reason alone is not trusted: some servers say `stop` or `tool_calls` when the
/// limit was reached (vLLM #47963), so a completion of `max_tokens` tokens is truncated whatever they say.
pub fn read_reply(body: &[u8], style: Style, max_tokens: usize) -> Reading {
    let Ok(reply) = serde_json::from_slice::<Value>(body) else {
        let (reason, words) = match String::from_utf8_lossy(body).trim().is_empty() {
            true => (NoVerdict::Empty, "the body is empty"),
            false => (NoVerdict::Unparsable, "the body is not JSON"),
        };
        return Reading {
            verdict: Verdict::none(reason),
            reason: words.into(),
            usage: None,
            finish_reason: None,
            model: None,
        };
    };
    let text_at = |path: &str| reply.pointer(path).and_then(Value::as_str);
    let finish_reason = text_at("/choices/0/finish_reason");
    let usage = parse_usage(&reply);
    let content = content(&reply);
    let cut_off = finish_reason == Some("length")
        || usage.is_some_and(|usage| usage.completion_tokens >= max_tokens as u64);

    let none = |reason: NoVerdict, words: &str| (Verdict::none(reason), words.to_owned());
    let refusal = text_at("/choices/0/message/refusal").filter(|text| !text.trim().is_empty());
    let (verdict, reason) = if let Some(refusal) = refusal {
        let verdict = Verdict { explanation: Some(refusal.to_owned()), ..Verdict::none(NoVerdict::Refused) };
        (verdict, "the judge refused".to_owned())
    } else if finish_reason == Some("content_filter") {
        none(NoVerdict::Filtered, "the provider's content filter withheld the reply")
    } else if finish_reason == Some("refusal") {
        none(NoVerdict::Refused, "the judge refused")
    } else if let Some(error) = text_at("/error/message") {
        none(NoVerdict::Failed(error.to_owned()), "the reply is an error")
    } else if reply.pointer("/choices/0").is_none() {
        none(NoVerdict::Unparsable, "the reply has no choices")
    } else if cut_off {
        none(NoVerdict::Truncated, "the reply was cut off at its token limit")
    } else {
        match content {
            Some(text) => verdict_of(&text, style),
            None => none(NoVerdict::Empty, "the reply has no text"),
        }
    };
    Reading {
        verdict,
        reason,
        usage,
        finish_reason: finish_reason.map(str::to_owned),
        model: text_at("/model").map(str::to_owned),
    }
}

/// The text of the first choice: a string, or the text parts of a list.
fn content(reply: &Value) -> Option<String> {
    match reply.pointer("/choices/0/message/content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<&str> =
                parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
            (!texts.is_empty()).then(|| texts.concat())
        }
        _ => None,
    }
}

fn verdict_of(text: &str, style: Style) -> (Verdict, String) {
    let parsed = parse(text, style);
    let mut scores = BTreeMap::new();
    if let Some([first, second]) = parsed.scores.as_deref() {
        scores.insert("overall".to_owned(), (*first, *second));
    }
    let explanation = crate::parse::explanation(text);
    let verdict = Verdict { scores, explanation, ..Verdict::of(parsed.verdict) };
    (verdict, parsed.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::records::Choice;
    use serde_json::json;

    fn read(reply: Value) -> Reading {
        read_reply(reply.to_string().as_bytes(), Style::BetterResponse, 100)
    }

    fn completion(content: Value, finish_reason: &str, completion_tokens: u64) -> Value {
        json!({"id": "x", "model": "judge-1-2026", "choices": [{"index": 0, "finish_reason": finish_reason,
            "message": {"role": "assistant", "content": content, "refusal": null}}],
            "usage": {"prompt_tokens": 50, "completion_tokens": completion_tokens}})
    }

    #[test]
    fn a_whole_reply() {
        let reading = read(completion(json!("1 is vague.\n\nBetter response: 2"), "stop", 12));
        assert_eq!(reading.verdict.choice, Ok(Choice::Second));
        assert_eq!(reading.verdict.explanation.as_deref(), Some("1 is vague."));
        assert_eq!(reading.usage.unwrap().completion_tokens, 12);
        assert_eq!(reading.model.as_deref(), Some("judge-1-2026"));
        let parts =
            json!([{"type": "text", "text": "Fine.\nBetter "}, {"type": "text", "text": "response: 1"}]);
        assert_eq!(read(completion(parts, "stop", 9)).verdict.choice, Ok(Choice::First));
    }

    #[test]
    fn what_is_no_verdict_and_why() {
        let verdict = json!("Better response: 2");
        let refusal = json!({"choices": [{"finish_reason": "stop", "message": {"content": null, "refusal": "I can't."}}]});
        let cases = [
            (completion(verdict.clone(), "length", 12), NoVerdict::Truncated),
            // The finish reason lies: exactly max_tokens tokens came.
            (completion(verdict.clone(), "stop", 100), NoVerdict::Truncated),
            (completion(verdict, "content_filter", 12), NoVerdict::Filtered),
            (refusal, NoVerdict::Refused),
            (completion(Value::Null, "stop", 0), NoVerdict::Empty),
            (completion(json!("  \n"), "stop", 1), NoVerdict::Empty),
            (completion(json!("Both are fine"), "stop", 3), NoVerdict::Unparsable),
            (json!({"choices": []}), NoVerdict::Unparsable),
            (json!([1, 2]), NoVerdict::Unparsable),
            (json!({"error": {"message": "boom"}}), NoVerdict::Failed("boom".into())),
        ];
        for (reply, want) in cases {
            assert_eq!(read(reply.clone()).verdict.choice, Err(want), "{reply}");
        }
        let body = |bytes: &[u8]| read_reply(bytes, Style::BetterResponse, 100).verdict.choice;
        assert_eq!(body(b"<html>502 Bad Gateway"), Err(NoVerdict::Unparsable));
        assert_eq!(body(b"{\"choices\":[{\"message\":{\"con"), Err(NoVerdict::Unparsable));
        assert_eq!(body(b"\xff\xfe\x00"), Err(NoVerdict::Unparsable));
        assert_eq!(body(b""), Err(NoVerdict::Empty));
    }
}
