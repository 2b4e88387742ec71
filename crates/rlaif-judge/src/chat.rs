//! One call of a chat model: the request, the raw reply, and every way in which it fails.

use crate::capability::Form;
use crate::limits::LimitHints;
use rlaif_core::config::JudgeConfig;
use rlaif_core::records::Message;
use serde_json::{Map, Value};
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// A judge behind a network interface, in one provider's dialect.
pub trait ChatModel {
    /// The bytes that ask this, the same for the same request: what is sent, stored and hashed into the request's key.
    fn body(&self, request: &ChatRequest) -> String;

    /// Sends a body once: no retries, no parsing. Dropping the future abandons the call, which may then have been billed.
    ///
    /// # Errors
    /// Everything that is not a complete reply with a status of success; see [`CallErrorKind`].
    fn send(&self, body: &str) -> impl Future<Output = Result<RawReply, CallError>> + Send;
}

/// Candidates a token whose log-probabilities are asked for: the most that OpenAI and vLLM give.
pub const TOP_LOGPROBS: u8 = 20;

/// What is asked of a chat model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChatRequest {
    /// The endpoint's name of the model.
    pub model: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Most tokens of the reply.
    pub max_tokens: usize,
    /// Sampling temperature; `None` for reasoning models, which refuse both a temperature and the old name of the limit, so
    /// that the limit is then sent as `max_completion_tokens`.
    pub temperature: Option<f64>,
    /// Seed of the sampling, where the endpoint knows one.
    pub seed: Option<u64>,
    /// Ask for the log-probabilities of this many candidates at each token.
    pub top_logprobs: Option<u8>,
    /// How much a reasoning model thinks, in the provider's words.
    pub reasoning_effort: Option<String>,
    /// The form of the answer as a JSON schema, used where the endpoint holds answers to one; see
    /// [`crate::capability::Capabilities`]. All keys required, no others allowed.
    pub schema: Option<Value>,
    /// The only answers there are, used where the endpoint holds answers to a choice.
    pub choices: Vec<String>,
    /// More fields of the body, as they are.
    pub extra: Map<String, Value>,
}

impl ChatRequest {
    /// A request with what a judge's config says of all its requests: model, limits, temperature, reasoning,
    /// further fields.
    pub fn of_judge(judge: &JudgeConfig, messages: Vec<Message>) -> Self {
        Self {
            model: judge.model.clone(),
            messages,
            max_tokens: judge.max_tokens,
            temperature: judge.sampling_temperature,
            seed: None,
            top_logprobs: judge.logprobs.then_some(TOP_LOGPROBS),
            reasoning_effort: judge.reasoning_effort.clone(),
            schema: None,
            choices: Vec::new(),
            extra: judge.extra.clone(),
        }
    }

    /// The body in OpenAI's dialect, free text; see [`ChatModel::body`].
    pub fn canonical_body(&self) -> String {
        Value::Object(crate::openai::body(self, Form::Text)).to_string()
    }

    /// An upper bound on the prompt's tokens: no tokenizer of ours makes more tokens than bytes, and 16 a message cover the
    /// chat template's own. A schema is part of the prompt with some providers, which put some 350 tokens of their own around it.
    pub fn prompt_tokens_at_most(&self) -> u64 {
        let turns: usize = self.messages.iter().map(|m| m.role.len() + m.content.len() + 16).sum();
        let form = self.schema.as_ref().map_or(0, |schema| schema.to_string().len() + 512);
        let choices: usize = self.choices.iter().map(|choice| choice.len() + 16).sum();
        let extra: usize = self.extra.values().map(|value| value.to_string().len()).sum();
        (turns + form + choices + extra) as u64 + 16
    }
}

/// A complete reply with a status of success, before anyone has looked into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawReply {
    /// HTTP status.
    pub status: u16,
    /// The bytes that came.
    pub body: Vec<u8>,
    /// The provider's name of this call (`x-request-id`, `request-id`).
    pub request_id: Option<String>,
    /// From sending to the last byte.
    pub latency: Duration,
    /// What the headers say of the endpoint's limits.
    pub limits: Option<Box<LimitHints>>,
}

/// What is known about money after a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallFate {
    /// The request never left this machine.
    NotSent,
    /// The provider refused it and bills nothing.
    Rejected,
    /// Nobody can know: it was sent and no reply came.
    MaybeBilled,
}

impl CallFate {
    /// The ledger's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Rejected => "rejected",
            Self::MaybeBilled => "maybe_billed",
        }
    }
}

/// Why a call gave no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallErrorKind {
    /// No connection: refused, name unknown, TLS.
    Connect,
    /// No complete reply within the timeout.
    Timeout,
    /// The connection broke after the request was sent.
    Disconnected,
    /// 429: too many requests or tokens a minute.
    RateLimited,
    /// 503 or 529: the provider is overloaded.
    Overloaded,
    /// Another 5xx, or 408 and 409.
    Server,
    /// 401: the key is missing or wrong.
    Unauthorized,
    /// 403: the key may not do this.
    Forbidden,
    /// 402, or 429 with `insufficient_quota`: the account has no money.
    Quota,
    /// 404: no such model or path.
    NotFound,
    /// 400: the endpoint refuses a parameter of ours.
    UnsupportedParameter,
    /// 400 or 413: the request is longer than the model's context.
    TooLong,
    /// 400: the provider's content filter refused the prompt.
    Filtered,
    /// Another 4xx.
    BadRequest,
    /// 3xx: redirects are not followed, since they would carry the key elsewhere.
    Redirect,
    /// The reply is larger than any verdict.
    TooLarge,
}

impl CallErrorKind {
    /// True if the same call can succeed later.
    pub fn is_transient(self) -> bool {
        use CallErrorKind as K;
        matches!(self, K::Connect | K::Timeout | K::Disconnected | K::RateLimited | K::Overloaded | K::Server)
    }

    /// True if the endpoint says that it is asked too much.
    pub fn is_congestion(self) -> bool {
        matches!(self, Self::RateLimited | Self::Overloaded)
    }

    /// True if no other call can succeed either, so that the run stops with its queue intact.
    pub fn is_fatal(self) -> bool {
        use CallErrorKind as K;
        matches!(
            self,
            K::Unauthorized | K::Forbidden | K::Quota | K::NotFound | K::UnsupportedParameter | K::Redirect
        )
    }

    /// The word in the ledger and in reports.
    pub fn as_str(self) -> &'static str {
        use CallErrorKind as K;
        match self {
            K::Connect => "connect",
            K::Timeout => "timeout",
            K::Disconnected => "disconnected",
            K::RateLimited => "rate_limited",
            K::Overloaded => "overloaded",
            K::Server => "server_error",
            K::Unauthorized => "unauthorized",
            K::Forbidden => "forbidden",
            K::Quota => "quota",
            K::NotFound => "not_found",
            K::UnsupportedParameter => "unsupported_parameter",
            K::TooLong => "too_long",
            K::Filtered => "filtered",
            K::BadRequest => "bad_request",
            K::Redirect => "redirect",
            K::TooLarge => "too_large",
        }
    }
}

/// A call without a reply. `message` is scrubbed of keys and fit for a terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// Why.
    pub kind: CallErrorKind,
    /// What is known about money.
    pub fate: CallFate,
    /// One sentence: what, where and the next step.
    pub message: String,
    /// HTTP status, where one came.
    pub status: Option<u16>,
    /// How long the provider asks us to wait.
    pub retry_after: Option<Duration>,
    /// What the headers say of the endpoint's limits.
    pub limits: Option<Box<LimitHints>>,
}

impl CallError {
    /// An error without status or waiting time.
    pub fn new(kind: CallErrorKind, fate: CallFate, message: impl Into<String>) -> Self {
        Self { kind, fate, message: message.into(), status: None, retry_after: None, limits: None }
    }
}

impl fmt::Display for CallErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for CallFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ChatRequest {
        ChatRequest {
            model: "judge-1".into(),
            messages: vec![Message::system("Judge."), Message::user("A or \"B\"?")],
            max_tokens: 64,
            temperature: Some(0.0),
            seed: Some(7),
            ..ChatRequest::default()
        }
    }

    #[test]
    fn the_body_is_canonical() {
        insta::assert_snapshot!(request().canonical_body(), @r#"{"model":"judge-1","messages":[{"role":"system","content":"Judge."},{"role":"user","content":"A or \"B\"?"}],"max_tokens":64,"temperature":0.0,"seed":7}"#);
    }

    #[test]
    fn a_reasoning_model_gets_neither_temperature_nor_the_old_limit() {
        let body = ChatRequest { temperature: None, seed: None, top_logprobs: Some(20), ..request() }
            .canonical_body();
        insta::assert_snapshot!(body, @r#"{"model":"judge-1","messages":[{"role":"system","content":"Judge."},{"role":"user","content":"A or \"B\"?"}],"max_completion_tokens":64,"logprobs":true,"top_logprobs":20}"#);
    }

    #[test]
    fn the_bound_on_prompt_tokens_counts_bytes() {
        assert!(request().prompt_tokens_at_most() >= "systemJudge.userA or \"B\"?".len() as u64);
    }
}
