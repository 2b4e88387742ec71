//! What an endpoint holds answers to. Servers that do not know a field often say nothing and ignore it, so whether one is obeyed
//! is asked once, with a tiny request whose free answer would be another.

use crate::chat::{CallError, CallErrorKind, ChatModel, ChatRequest, RawReply};
use crate::completion::Completion;
use crate::provider::Provider;
use rlaif_core::records::Message;
use serde::{Deserialize, Serialize};
use serde_json::json;

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

/// What is known of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities {
    /// How its answers are held to a form.
    pub form: Form,
}

/// One question of the probe and what came back.
#[derive(Debug)]
pub struct Probe {
    /// What was tried.
    pub form: Form,
    /// As it was sent.
    pub body: String,
    /// What came back: a reply, which was paid for, or the reason why there is none.
    pub outcome: Result<RawReply, CallError>,
}

impl Probe {
    /// True if the answer has the form that was asked for.
    pub fn obeyed(&self) -> bool {
        let Ok(reply) = &self.outcome else { return false };
        let Ok(completion) = Completion::read(&reply.body) else { return false };
        let Some(text) = completion.text else { return false };
        match self.form {
            Form::Text => true,
            Form::Choice => CODES.contains(&text.trim()),
            Form::JsonSchema | Form::Tool => serde_json::from_str::<serde_json::Value>(text.trim())
                .is_ok_and(|value| {
                    value.get("verdict").and_then(|v| v.as_str()).is_some_and(|v| CODES.contains(&v))
                }),
        }
    }

    /// Why the form is not used, for the user; `None` if it is.
    pub fn complaint(&self) -> Option<String> {
        match &self.outcome {
            _ if self.obeyed() => None,
            Ok(_) => Some("the endpoint ignores it".into()),
            Err(error) => Some(error.message.clone()),
        }
    }
}

/// Words that no judge says by itself.
const CODES: [&str; 2] = ["qx", "zk"];

/// Tokens of a probe's answer: enough for `{"verdict": "qx"}`, with some room for a reasoning model's thoughts.
const PROBE_TOKENS: usize = 64;

impl Provider {
    /// The forms to try, best first.
    pub fn forms_to_probe(&self) -> &'static [Form] {
        match self {
            Self::OpenAi(_) => &[Form::Choice, Form::JsonSchema],
            Self::Azure(_) => &[Form::JsonSchema],
            Self::Anthropic(_) => &[Form::JsonSchema, Form::Tool],
        }
    }

    /// The request of a probe.
    pub fn probe_request(&self, model: &str, like: &ChatRequest) -> ChatRequest {
        ChatRequest {
            model: model.into(),
            messages: vec![Message::user("Answer with the one word banana.")],
            max_tokens: if like.temperature.is_some() {
                PROBE_TOKENS
            } else {
                PROBE_TOKENS.max(like.max_tokens)
            },
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

    /// Tries one form: one call, one attempt.
    pub async fn probe(&self, form: Form, request: &ChatRequest) -> Probe {
        let asked = self.clone().with_capabilities(Capabilities { form });
        let body = asked.body(request);
        let outcome = asked.send(&body).await;
        Probe { form, body, outcome }
    }
}

/// True if a failed probe says something of the endpoint's capabilities; another failure (a wrong key, no network) says nothing
/// and stops the run, as it would stop the first call.
pub fn says_unsupported(error: &CallError) -> bool {
    matches!(error.kind, CallErrorKind::UnsupportedParameter | CallErrorKind::BadRequest)
}
