//! What an endpoint holds answers to. Servers that do not know a field often say nothing and ignore it, so whether one is obeyed
//! is asked once, with a tiny request whose free answer would be another. Here is what is asked and how the answer is read; sending
//! and paying it is the caller's, as with any other call.

use crate::chat::{CallErrorKind, ChatRequest};
use crate::completion::Completion;
use rlaif_core::config::{JudgeKind, StructuredOutput};
use rlaif_core::records::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;

/// How answers are held to a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Free text.
    #[default]
    Text,
    /// One of a few words (vLLM's `structured_outputs.choice`); a JSON schema where a request has only that.
    Choice,
    /// A JSON schema (`response_format`, `output_config`).
    JsonSchema,
    /// The arguments of a tool that must be used (Anthropic).
    Tool,
}

impl Form {
    /// The form that a config names; `None` where the endpoint is to be asked.
    pub fn named(by: StructuredOutput) -> Option<Self> {
        match by {
            StructuredOutput::Auto => None,
            StructuredOutput::Off => Some(Self::Text),
            StructuredOutput::Choice => Some(Self::Choice),
            StructuredOutput::JsonSchema => Some(Self::JsonSchema),
            StructuredOutput::Tool => Some(Self::Tool),
        }
    }

    /// The word in configs and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Choice => "choice",
            Self::JsonSchema => "json_schema",
            Self::Tool => "tool",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities {
    /// How its answers are held to a form.
    pub form: Form,
}

/// Words that no judge says by itself.
const CODES: [&str; 2] = ["qx", "zk"];

/// Tokens of a probe's answer: enough for `{"verdict": "qx"}`, with some room for a reasoning model's thoughts.
const PROBE_TOKENS: usize = 64;

/// Failures of a probe that say that the endpoint does not take the form; another failure (a wrong key, no network) says nothing
/// and stops the run, as it would stop the first call.
pub const REFUSALS: [CallErrorKind; 2] = [CallErrorKind::UnsupportedParameter, CallErrorKind::BadRequest];

/// The forms that endpoints of a kind may hold answers to, best first.
pub fn forms_of(kind: JudgeKind) -> &'static [Form] {
    match kind {
        JudgeKind::Local => &[],
        JudgeKind::Openai => &[Form::Choice, Form::JsonSchema],
        JudgeKind::Azure => &[Form::JsonSchema],
        JudgeKind::Anthropic => &[Form::JsonSchema, Form::Tool],
    }
}

/// What a probe asks, with the model and the further fields of `like`. Sent by an endpoint's client
/// [`with_capabilities`](crate::Provider::with_capabilities) of a form, it asks for that form.
pub fn probe_request(like: &ChatRequest) -> ChatRequest {
    ChatRequest {
        messages: vec![Message::user("Answer with the one word banana.")],
        max_tokens: if like.temperature.is_some() { PROBE_TOKENS } else { PROBE_TOKENS.max(like.max_tokens) },
        schema: Some(json!({
            "type": "object",
            "properties": {"verdict": {"type": "string", "enum": CODES}},
            "required": ["verdict"],
            "additionalProperties": false,
        })),
        choices: CODES.map(String::from).to_vec(),
        top_logprobs: None,
        seed: None,
        ..like.clone()
    }
}

/// True if the reply to a probe has the form that was asked for.
pub fn obeys(form: Form, reply: &[u8]) -> bool {
    let Some(text) = Completion::read(reply).ok().and_then(|completion| completion.text) else {
        return false;
    };
    let verdict =
        |value: &Value| value.get("verdict").and_then(Value::as_str).is_some_and(|v| CODES.contains(&v));
    match form {
        Form::Text => true,
        Form::Choice => CODES.contains(&text.trim()),
        Form::JsonSchema | Form::Tool => serde_json::from_str(text.trim()).is_ok_and(|value| verdict(&value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openai(content: &str) -> Vec<u8> {
        json!({"choices": [{"finish_reason": "stop", "message": {"content": content}}]})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn a_form_is_obeyed_where_the_answer_could_be_no_other() {
        for (form, content, want) in [
            (Form::Choice, " zk\n", true),
            (Form::Choice, "banana", false),
            (Form::Choice, "qx or zk", false),
            (Form::JsonSchema, "{\"verdict\": \"qx\"}", true),
            (Form::JsonSchema, "{\"verdict\": \"banana\"}", false),
            (Form::JsonSchema, "```json\n{\"verdict\": \"qx\"}\n```", false),
            (Form::JsonSchema, "qx", false),
            (Form::Text, "banana", true),
        ] {
            assert_eq!(obeys(form, &openai(content)), want, "{form} {content:?}");
        }
        let tool = json!({"type": "message", "stop_reason": "tool_use",
            "content": [{"type": "tool_use", "name": "verdict", "input": {"verdict": "zk"}}]});
        assert!(obeys(Form::Tool, tool.to_string().as_bytes()));
        assert!(!obeys(Form::JsonSchema, b"<html>"));
    }

    #[test]
    fn a_probe_costs_little_and_leaves_a_reasoning_model_room_to_think() {
        let like =
            ChatRequest { max_tokens: 512, temperature: Some(0.0), seed: Some(7), ..ChatRequest::default() };
        let probe = probe_request(&like);
        assert_eq!((probe.max_tokens, probe.seed, probe.top_logprobs), (PROBE_TOKENS, None, None));
        assert_eq!(probe_request(&ChatRequest { temperature: None, ..like }).max_tokens, 512);
    }

    #[test]
    fn words_of_the_config_and_the_ledger() {
        for form in [Form::Text, Form::Choice, Form::JsonSchema, Form::Tool] {
            assert_eq!(serde_json::to_value(form).unwrap(), form.as_str());
        }
        assert_eq!(Form::named(StructuredOutput::Auto), None);
        assert_eq!(Form::named(StructuredOutput::Off), Some(Form::Text));
    }
}
