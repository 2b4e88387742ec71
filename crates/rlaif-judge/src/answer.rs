//! Raw reply → what the judge answered, before anyone asks what it means: text, log-probabilities, or why there is none.

use crate::local::Greedy;
use crate::usage::parse_usage;
use rlaif_core::money::Usage;
use rlaif_core::records::NoVerdict;
use serde_json::Value;

/// What came back for one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The whole text, or why there is none that counts.
    pub text: Result<String, NoText>,
    /// The tokens of the text with their likeliest alternatives; empty where the endpoint gave none.
    pub tokens: Vec<Token>,
    /// Tokens billed, where the provider counted them.
    pub usage: Option<Usage>,
}

/// Why an answer has no text that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoText {
    /// The verdict's reason.
    pub reason: NoVerdict,
    /// What the judge said of it, such as its refusal.
    pub said: Option<String>,
}

/// A token of a text, and what could have stood in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its text.
    pub text: String,
    /// The likeliest tokens at this place with their log-probabilities.
    pub alternatives: Vec<(String, f64)>,
}

impl Answer {
    /// An answer that is only a text, such as a local model's.
    pub fn of_text(text: impl Into<String>) -> Self {
        Self { text: Ok(text.into()), tokens: Vec::new(), usage: None }
    }

    /// What a local model said; cut off where it did not end its turn.
    pub fn of_local(reply: Greedy) -> Self {
        if reply.text.trim().is_empty() {
            return Self::none(NoVerdict::Empty, None);
        }
        match reply.ended {
            true => Self::of_text(reply.text),
            false => Self {
                text: Err(NoText { reason: NoVerdict::Truncated, said: Some(reply.text) }),
                ..Self::none(NoVerdict::Truncated, None)
            },
        }
    }

    fn none(reason: NoVerdict, usage: Option<Usage>) -> Self {
        Self { text: Err(NoText { reason, said: None }), tokens: Vec::new(), usage }
    }
}

/// Reads a chat completion: refusal, filter and truncation first, then the text. See [`crate::read_reply`] for what
/// `max_tokens` is for. One token is whole however the reply ends: with `max_tokens` of a step that wants a token, give
/// `usize::MAX`.
pub fn read_answer(body: &[u8], max_tokens: usize) -> Answer {
    let Ok(reply) = serde_json::from_slice::<Value>(body) else {
        let empty = String::from_utf8_lossy(body).trim().is_empty();
        return Answer::none(if empty { NoVerdict::Empty } else { NoVerdict::Unparsable }, None);
    };
    let usage = parse_usage(&reply);
    let text_at = |path: &str| reply.pointer(path).and_then(Value::as_str);
    let finish_reason = text_at("/choices/0/finish_reason");
    let whole = max_tokens == usize::MAX;
    let cut_off = !whole
        && (finish_reason == Some("length")
            || usage.is_some_and(|usage| usage.completion_tokens >= max_tokens as u64));
    if let Some(refusal) = text_at("/choices/0/message/refusal").filter(|text| !text.trim().is_empty()) {
        let no_text = NoText { reason: NoVerdict::Refused, said: Some(refusal.to_owned()) };
        return Answer { text: Err(no_text), tokens: Vec::new(), usage };
    }
    let reason = match finish_reason {
        Some("content_filter") => Some(NoVerdict::Filtered),
        Some("refusal") => Some(NoVerdict::Refused),
        _ if text_at("/error/message").is_some() => {
            text_at("/error/message").map(|message| NoVerdict::Failed(message.to_owned()))
        }
        _ if reply.pointer("/choices/0").is_none() => Some(NoVerdict::Unparsable),
        _ if cut_off => Some(NoVerdict::Truncated),
        _ => None,
    };
    if let Some(reason) = reason {
        return Answer::none(reason, usage);
    }
    let text = match content(&reply) {
        Some(text) if !text.trim().is_empty() => Ok(text),
        _ => Err(NoText { reason: NoVerdict::Empty, said: None }),
    };
    Answer { text, tokens: tokens(&reply), usage }
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

/// `choices[0].logprobs.content`; a token's text is that of its bytes, where they are given.
fn tokens(reply: &Value) -> Vec<Token> {
    let content = reply.pointer("/choices/0/logprobs/content").and_then(Value::as_array);
    let token = |entry: &Value| {
        let alternatives = entry.get("top_logprobs").and_then(Value::as_array);
        let alternatives = alternatives.into_iter().flatten().filter_map(|entry| {
            let logprob = entry.get("logprob")?.as_f64()?;
            Some((token_text(entry)?, logprob))
        });
        Some(Token { text: token_text(entry)?, alternatives: alternatives.collect() })
    };
    content.into_iter().flatten().map_while(token).collect()
}

fn token_text(entry: &Value) -> Option<String> {
    let bytes = entry.get("bytes").and_then(Value::as_array).and_then(|bytes| {
        bytes
            .iter()
            .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
            .collect::<Option<Vec<u8>>>()
    });
    match bytes {
        Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        None => entry.get("token").and_then(Value::as_str).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(reply: Value, max_tokens: usize) -> Answer {
        read_answer(reply.to_string().as_bytes(), max_tokens)
    }

    #[test]
    fn what_has_no_text_says_why() {
        let completion = |content: Value, finish: &str, tokens: u64| {
            json!({"choices": [{"finish_reason": finish, "message": {"content": content}}],
                "usage": {"prompt_tokens": 9, "completion_tokens": tokens}})
        };
        let refused = json!({"choices": [{"finish_reason": "stop", "message": {"content": null, "refusal": "I can't."}}]});
        for (reply, max_tokens, want) in [
            (completion(json!("x"), "length", 3), 10, Some(NoVerdict::Truncated)),
            (completion(json!("x"), "stop", 10), 10, Some(NoVerdict::Truncated)),
            (completion(json!("A"), "length", 1), usize::MAX, None),
            (completion(json!("x"), "content_filter", 3), 10, Some(NoVerdict::Filtered)),
            (completion(json!(" "), "stop", 3), 10, Some(NoVerdict::Empty)),
            (completion(json!([{"type": "text", "text": "x"}]), "stop", 3), 10, None),
            (json!({"error": {"message": "boom"}}), 10, Some(NoVerdict::Failed("boom".into()))),
            (refused, 10, Some(NoVerdict::Refused)),
            (json!({"choices": []}), 10, Some(NoVerdict::Unparsable)),
        ] {
            assert_eq!(read(reply.clone(), max_tokens).text.err().map(|no| no.reason), want, "{reply}");
        }
        assert_eq!(read_answer(b"<html>", 9).text.unwrap_err().reason, NoVerdict::Unparsable);
        assert_eq!(read_answer(b"", 9).text.unwrap_err().reason, NoVerdict::Empty);
    }

    #[test]
    fn tokens_are_read_from_their_bytes() {
        let reply = json!({"choices": [{"finish_reason": "stop", "message": {"content": " A"}, "logprobs": {"content": [
            {"token": "ĠA", "bytes": [32, 65], "logprob": -0.1, "top_logprobs": [
                {"token": "ĠA", "bytes": [32, 65], "logprob": -0.1}, {"token": "B", "bytes": null, "logprob": -9999.0}]}]}}]});
        let tokens = read(reply, 9).tokens;
        assert_eq!(tokens[0].text, " A");
        assert_eq!(tokens[0].alternatives, [(" A".to_owned(), -0.1), ("B".to_owned(), -9999.0)]);
    }
}
