//! The body of a reply, in the same words whoever sent it. Its shape says whose it is, so that stored bytes can be read without
//! the config that bought them.

use crate::json_mend::{self, BadJson};
use crate::usage::parse_usage;
use rlaif_core::money::Usage;
use serde_json::Value;
use std::fmt;

/// What a chat model answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Completion {
    /// The text; of a tool that had to be used, its arguments as JSON. `None` if there is none.
    pub text: Option<String>,
    /// Present if the model refused.
    pub refusal: Option<Refusal>,
    /// How it ended, as the provider says; see [`Completion::cut_off`] for what is believed of it.
    pub finish: Finish,
    /// The provider's word for it.
    pub finish_word: Option<String>,
    /// What the provider says went wrong, in a reply with a status of success.
    pub error: Option<String>,
    /// Tokens, where the provider counted them.
    pub usage: Option<Usage>,
    /// The model that answered, which may not be the one that was asked.
    pub model: Option<String>,
    /// The provider's name of the configuration that answered (OpenAI's `system_fingerprint`).
    pub fingerprint: Option<String>,
    /// One entry a token, where log-probabilities were asked for and given.
    pub logprobs: Vec<TokenLogprob>,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    /// In the model's words.
    pub text: Option<String>,
    /// In the provider's: why (Anthropic's `stop_details.category`).
    pub category: Option<String>,
}

/// How a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Finish {
    /// The model ended its turn.
    Stop,
    /// The token limit, or the end of the context.
    Length,
    /// The provider's content filter.
    Filter,
    /// The model refused.
    Refusal,
    /// The server says that it failed.
    Error,
    /// Not said, or in a word that this program does not know.
    #[default]
    Unknown,
}

/// A token and what else could have stood in its place.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenLogprob {
    /// The token's bytes: half a character may be a token.
    pub bytes: Vec<u8>,
    /// Its log-probability; `None` where the server gave no finite number, or OpenAI's -9999, which means "very unlikely".
    pub logprob: Option<f64>,
    /// The likeliest candidates, mostly with the token itself among them.
    pub top: Vec<(Vec<u8>, Option<f64>)>,
}

/// Why a body is no chat completion at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadBody {
    /// Nothing came.
    Empty,
    /// A page for people, as proxies send.
    Html,
    /// Compressed, although nobody asked for that.
    Compressed,
    /// JSON that ends in the middle.
    CutOff,
    /// Not JSON.
    NotJson,
    /// JSON that gives a key twice, so that it says two things.
    Duplicate(String),
    /// JSON of another kind.
    OtherJson,
}

impl fmt::Display for BadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the body is empty"),
            Self::Html => f.write_str("the body is a web page, as a proxy sends"),
            Self::Compressed => f.write_str("the body is compressed"),
            Self::CutOff => f.write_str("the body ends in the middle of its JSON"),
            Self::NotJson => f.write_str("the body is not JSON"),
            Self::Duplicate(key) => write!(f, "the body gives the key `{key}` twice"),
            Self::OtherJson => f.write_str("the reply has no choices"),
        }
    }
}

impl Completion {
    /// Reads the body of a reply.
    ///
    /// # Errors
    /// If it is no chat completion of any provider.
    pub fn read(body: &[u8]) -> Result<Self, BadBody> {
        let trimmed = body.trim_ascii();
        if trimmed.is_empty() {
            return Err(BadBody::Empty);
        }
        let reply = json_mend::parse(body).map_err(|bad| match bad {
            BadJson::Duplicate(key) => BadBody::Duplicate(key),
            BadJson::CutOff => BadBody::CutOff,
            BadJson::NotJson
                if [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd"].iter().any(|m| body.starts_with(m)) =>
            {
                BadBody::Compressed
            }
            BadJson::NotJson if trimmed.starts_with(b"<") => BadBody::Html,
            BadJson::NotJson => BadBody::NotJson,
        })?;
        let text_at = |path: &str| reply.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let shared = Self {
            usage: parse_usage(&reply),
            model: text_at("/model"),
            fingerprint: text_at("/system_fingerprint"),
            error: text_at("/error/message").or_else(|| text_at("/choices/0/error/message")),
            ..Self::default()
        };
        if reply.pointer("/choices/0").is_some_and(Value::is_object) {
            Ok(openai(&reply["choices"][0], shared))
        } else if reply.get("type").is_some_and(|kind| kind == "message")
            || reply.get("stop_reason").is_some()
        {
            Ok(anthropic(&reply, shared))
        } else if shared.error.is_some() {
            Ok(Self { finish: Finish::Error, ..shared })
        } else {
            Err(BadBody::OtherJson)
        }
    }

    /// True if the reply was cut off at its limit of `max_tokens`. A finish reason alone is not trusted: some servers say `stop`
    /// or `tool_calls` when the limit was reached (vLLM #47963), so that a completion of as many tokens is cut off whatever they say.
    pub fn cut_off(&self, max_tokens: usize) -> bool {
        self.finish == Finish::Length
            || self.usage.is_some_and(|usage| usage.completion_tokens >= max_tokens as u64)
    }

    /// Blank space at the end of the text, if that is most of it: a server that holds answers to a grammar may write spaces to
    /// the limit (vLLM #38696).
    pub fn blank_tail(&self) -> Option<usize> {
        let text = self.text.as_deref()?;
        let blank = text.chars().rev().take_while(|c| c.is_whitespace()).count();
        (blank >= 32 && blank * 2 > text.chars().count()).then_some(blank)
    }
}

fn finish(word: Option<&str>) -> Finish {
    match word.unwrap_or_default().to_ascii_lowercase().as_str() {
        "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" | "tool_use" | "tool_calls" => {
            Finish::Stop
        }
        "length" | "max_tokens" | "model_length" | "model_context_window_exceeded" => Finish::Length,
        "content_filter" | "safety" | "recitation" | "blocklist" | "prohibited_content" => Finish::Filter,
        "refusal" => Finish::Refusal,
        "error" | "abort" => Finish::Error,
        _ => Finish::Unknown,
    }
}

fn openai(choice: &Value, shared: Completion) -> Completion {
    let text_at = |path: &str| choice.pointer(path).and_then(Value::as_str);
    let finish_word = text_at("/finish_reason").map(str::to_owned);
    let refusal = text_at("/message/refusal").filter(|text| !text.trim().is_empty());
    let arguments = || text_at("/message/tool_calls/0/function/arguments").map(str::to_owned);
    let finish = finish(finish_word.as_deref());
    let refused = finish == Finish::Refusal;
    Completion {
        text: content(choice.pointer("/message/content")).or_else(arguments),
        refusal: (refusal.is_some() || refused)
            .then(|| Refusal { text: refusal.map(str::to_owned), category: None }),
        finish,
        finish_word,
        logprobs: logprobs(choice.pointer("/logprobs/content")),
        ..shared
    }
}

fn anthropic(reply: &Value, shared: Completion) -> Completion {
    let text_at = |path: &str| reply.pointer(path).and_then(Value::as_str);
    let finish_word = text_at("/stop_reason").map(str::to_owned);
    let finish = finish(finish_word.as_deref());
    let blocks = reply.get("content").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // Where a tool had to be used its arguments are the answer, whatever was said before.
    let arguments = blocks
        .iter()
        .find(|block| block.get("type").is_some_and(|kind| kind == "tool_use"))
        .and_then(|block| block.get("input"))
        .map(Value::to_string);
    let text = arguments.or_else(|| content(reply.get("content")));
    let refusal = (finish == Finish::Refusal).then(|| Refusal {
        text: text.clone().filter(|text| !text.trim().is_empty()),
        category: text_at("/stop_details/category").map(str::to_owned),
    });
    Completion { text, refusal, finish, finish_word, ..shared }
}

/// The text of a message: a string, or the text parts of a list.
fn content(content: Option<&Value>) -> Option<String> {
    match content? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<&str> =
                parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
            (!texts.is_empty()).then(|| texts.concat())
        }
        _ => None,
    }
}

fn logprobs(content: Option<&Value>) -> Vec<TokenLogprob> {
    let tokens = content.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let pair = |entry: &Value| (bytes(entry), logprob(entry));
    tokens
        .iter()
        .map(|entry| {
            let (bytes, logprob) = pair(entry);
            let top =
                entry.get("top_logprobs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            TokenLogprob { bytes, logprob, top: top.iter().map(pair).collect() }
        })
        .collect()
}

/// `bytes` says what the token is; `token` alone may be half a character in words like `bytes:\xf0`.
fn bytes(entry: &Value) -> Vec<u8> {
    let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
    let bytes = entry.get("bytes").and_then(Value::as_array).filter(|bytes| !bytes.is_empty());
    let bytes = bytes.and_then(|bytes| bytes.iter().map(byte).collect::<Option<Vec<u8>>>());
    bytes.unwrap_or_else(|| entry["token"].as_str().unwrap_or_default().as_bytes().to_vec())
}

/// OpenAI writes -9999.0 for what it does not say; nothing real is below -1000.
fn logprob(entry: &Value) -> Option<f64> {
    entry.get("logprob").and_then(Value::as_f64).filter(|logprob| logprob.is_finite() && *logprob > -9999.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(reply: Value) -> Completion {
        Completion::read(reply.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_message_of_anthropic() {
        let reply = read(json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
            "content": [{"type": "thinking", "thinking": "Better response: 2"}, {"type": "text", "text": "Better response: 1"}],
            "stop_reason": "end_turn", "usage": {"input_tokens": 9, "output_tokens": 5}}));
        assert_eq!(reply.text.as_deref(), Some("Better response: 1"), "thoughts are no answer");
        assert_eq!((reply.finish, reply.model.as_deref()), (Finish::Stop, Some("claude-x")));
        let tool = read(json!({"type": "message", "stop_reason": "tool_use", "content": [
            {"type": "text", "text": "Let me see."}, {"type": "tool_use", "name": "verdict", "input": {"verdict": "1"}}]}));
        assert_eq!(tool.text.as_deref(), Some(r#"{"verdict":"1"}"#));
    }

    #[test]
    fn refusals_keep_their_words_and_category() {
        let claude = read(json!({"type": "message", "content": [], "stop_reason": "refusal",
            "stop_details": {"type": "refusal", "category": "frontier_llm"}}));
        assert_eq!(claude.refusal, Some(Refusal { text: None, category: Some("frontier_llm".into()) }));
        let openai = read(
            json!({"choices": [{"finish_reason": "stop", "message": {"content": null, "refusal": "No."}}]}),
        );
        assert_eq!(openai.refusal.unwrap().text.as_deref(), Some("No."));
    }

    #[test]
    fn log_probabilities_come_by_their_bytes() {
        let reply = read(json!({"choices": [{"message": {"content": "1"}, "logprobs": {"content": [
            {"token": " 1", "bytes": [32, 49], "logprob": -0.1, "top_logprobs": [
                {"token": "1", "bytes": null, "logprob": -0.1}, {"token": "\\xf0", "bytes": [240], "logprob": -9999.0}]}]}}]}));
        let token = &reply.logprobs[0];
        assert_eq!((token.bytes.as_slice(), token.logprob), (&b" 1"[..], Some(-0.1)));
        assert_eq!(token.top, [(b"1".to_vec(), Some(-0.1)), (vec![240], None)]);
    }

    #[test]
    fn bodies_that_are_no_reply_say_why() {
        let bad = |body: &[u8]| Completion::read(body).unwrap_err();
        assert_eq!(bad(b" \n"), BadBody::Empty);
        assert_eq!(bad(b"<html>502 Bad Gateway"), BadBody::Html);
        assert_eq!(bad(b"\x1f\x8b\x08\x00garbage"), BadBody::Compressed);
        assert_eq!(bad(b"{\"choices\":[{\"message\":{\"con"), BadBody::CutOff);
        assert_eq!(bad(b"data: {}"), BadBody::NotJson);
        assert_eq!(bad(b"{\"choices\":[]}"), BadBody::OtherJson);
        let twice = br#"{"choices":[{"message":{"content":"1","content":"2"}}]}"#;
        assert_eq!(bad(twice), BadBody::Duplicate("content".into()));
        assert_eq!(bad(twice).to_string(), "the body gives the key `content` twice");
    }

    #[test]
    fn errors_inside_a_reply_of_status_200() {
        for reply in [
            json!({"error": {"message": "upstream timed out", "code": 502}}),
            json!({"choices": [{"finish_reason": "error", "error": {"message": "upstream timed out"}, "message": {"content": ""}}]}),
        ] {
            assert_eq!(read(reply).error.as_deref(), Some("upstream timed out"));
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Completion::read(&bytes);
        }
    }
}
