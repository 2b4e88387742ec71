//! The bodies that providers send: replies, usage and errors, in OpenAI's and Anthropic's shapes.

use crate::ask::{Ask, Format, Provider};
use rlaif_core::money::Usage;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// It was complete.
    Stop,
    /// The token limit.
    Length,
    /// The judge refused.
    Refusal,
    /// The content filter withheld it.
    Filter,
}

/// What stands where the text should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Text(String),
    /// A refusal in these words.
    Refused(&'static str),
    Null,
    /// An empty list of choices, or of content blocks.
    Nothing,
}

/// A reply before it has a provider's shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Completion<'a> {
    /// The call's own name.
    pub id: &'a str,
    /// The model that says it answered.
    pub model: &'a str,
    pub content: Content,
    pub finish: Finish,
    pub usage: Usage,
    pub logprobs: Option<Value>,
    /// `standard` or `batch`.
    pub service_tier: &'static str,
}

/// Stands for half of a surrogate pair until the body is bytes: a private character that no answer holds.
pub(crate) const LONE_SURROGATE: char = '\u{e000}';

impl Completion<'_> {
    /// The body.
    pub(crate) fn body(&self, ask: &Ask) -> String {
        let body = match ask.provider {
            Provider::OpenAi => self.openai(),
            Provider::Anthropic => self.anthropic(ask),
        };
        let text = body.to_string();
        if text.contains(LONE_SURROGATE) { text.replace(LONE_SURROGATE, "\\ud83d") } else { text }
    }

    fn openai(&self) -> Value {
        let (content, refusal) = match &self.content {
            Content::Text(text) => (json!(text), Value::Null),
            Content::Refused(words) => (Value::Null, json!(words)),
            Content::Null | Content::Nothing => (Value::Null, Value::Null),
        };
        let finish = match self.finish {
            // OpenAI ends a refusal as any other reply; the `refusal` field says what it is.
            Finish::Stop | Finish::Refusal => "stop",
            Finish::Length => "length",
            Finish::Filter => "content_filter",
        };
        let mut message =
            json!({"role": "assistant", "content": content, "refusal": refusal, "annotations": []});
        if self.finish == Finish::Filter
            && let Some(fields) = message.as_object_mut()
        {
            fields.remove("content");
        }
        let choice =
            json!({"index": 0, "message": message, "logprobs": self.logprobs, "finish_reason": finish});
        let choices = if self.content == Content::Nothing { json!([]) } else { json!([choice]) };
        json!({
            "id": format!("chatcmpl-{}", self.id),
            "object": "chat.completion",
            "created": unix_seconds(),
            "model": self.model,
            "choices": choices,
            "usage": openai_usage(&self.usage),
            "service_tier": if self.service_tier == "batch" { "batch" } else { "default" },
            "system_fingerprint": "fp_mock",
        })
    }

    fn anthropic(&self, ask: &Ask) -> Value {
        let content = match (&self.content, &ask.format) {
            (Content::Text(text), Format::Tool(name, _)) => {
                // What is no JSON could not be a tool's input; such servers then send the text.
                match serde_json::from_str::<Value>(text) {
                    Ok(input) => json!([{"type": "tool_use", "id": format!("toolu_{}", self.id),
                        "name": name, "input": input}]),
                    Err(_) => json!([{"type": "text", "text": text}]),
                }
            }
            (Content::Text(text), _) => json!([{"type": "text", "text": text}]),
            (Content::Null, _) => Value::Null,
            (Content::Refused(_) | Content::Nothing, _) => json!([]),
        };
        let is_tool = content.pointer("/0/type").and_then(Value::as_str) == Some("tool_use");
        let (stop_reason, details) = match self.finish {
            Finish::Stop if is_tool => ("tool_use", Value::Null),
            Finish::Stop => ("end_turn", Value::Null),
            Finish::Length => ("max_tokens", Value::Null),
            Finish::Refusal => (
                "refusal",
                json!({"type": "refusal", "category": "frontier_llm",
                "explanation": "This could assist the development of competing AI models."}),
            ),
            Finish::Filter => ("refusal", json!({"type": "refusal", "category": null, "explanation": null})),
        };
        let mut usage = anthropic_usage(&self.usage);
        usage["service_tier"] = json!(self.service_tier);
        json!({
            "id": format!("msg_{}", self.id),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": null,
            "stop_details": details,
            "usage": usage,
        })
    }
}

/// OpenAI counts the cached tokens among those of the prompt, and the reasoning ones among those of the completion.
fn openai_usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    })
}

/// Anthropic counts the cached tokens apart from the others.
fn anthropic_usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": usage.completion_tokens,
    })
}

/// An error as each provider words it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ApiError<'a> {
    pub message: &'a str,
    /// OpenAI's `type`.
    pub kind: &'a str,
    /// OpenAI's `code`; empty for null.
    pub code: &'a str,
    /// OpenAI's `param`; empty for null.
    pub param: &'a str,
    /// Anthropic's `type`.
    pub anthropic: &'a str,
}

impl ApiError<'_> {
    pub(crate) fn body(&self, provider: Provider, request_id: &str) -> String {
        let or_null = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        let body = match provider {
            Provider::OpenAi => json!({"error": {"message": self.message, "type": self.kind,
                "param": or_null(self.param), "code": or_null(self.code)}}),
            Provider::Anthropic => json!({"type": "error",
                "error": {"type": self.anthropic, "message": self.message}, "request_id": request_id}),
        };
        body.to_string()
    }
}

/// The request is at fault.
pub(crate) fn invalid<'a>(message: &'a str, param: &'a str) -> ApiError<'a> {
    ApiError { message, kind: "invalid_request_error", code: "", param, anthropic: "invalid_request_error" }
}

/// There is nothing by that name.
pub(crate) fn not_found(message: &str) -> ApiError<'_> {
    ApiError { message, kind: "invalid_request_error", code: "", param: "", anthropic: "not_found_error" }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `2026-02-25T20:02:37Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
