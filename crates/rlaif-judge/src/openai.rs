//! The dialect of OpenAI's chat completions, which vLLM, SGLang, llama.cpp, Ollama, OpenRouter and Azure speak too. One call,
//! one attempt; [`crate::engine`] decides what is tried again.

use crate::capability::{Capabilities, Form};
use crate::chat::{CallError, ChatModel, ChatRequest, RawReply};
use crate::http::{Endpoint, Key, KeyHeader};
use reqwest::Url;
use rlaif_core::config::JudgeConfig;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use std::time::Duration;

pub use crate::http::{MAX_BODY, SetupError};

/// A client of one endpoint. `Debug` shows no key.
#[derive(Debug, Clone)]
pub struct OpenAi {
    pub(crate) endpoint: Endpoint,
    url: Url,
    pub(crate) capabilities: Capabilities,
}

impl OpenAi {
    /// The client for a judge's config. `env` reads environment variables. The key's variable is `OPENAI_API_KEY` with the
    /// default URL, and none with another URL unless the config names one: a key is sent to no host it was not meant for.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn from_config(
        judge: &JudgeConfig,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SetupError> {
        let url = judge.base_url();
        let key = judge.api_key_env().map(|name| Key::from_env(name, url, env)).transpose()?;
        Self::at(url, key, timeout(judge))
    }

    /// A client for `base_url` (up to and including `/v1`) with the key and the name of the variable that it came from.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(
        base_url: &str,
        key: Option<(&str, SecretString)>,
        timeout: Duration,
    ) -> Result<Self, SetupError> {
        Self::at(base_url, key.map(|(env, secret)| Key { env: env.into(), secret }), timeout)
    }

    fn at(base_url: &str, key: Option<Key>, timeout: Duration) -> Result<Self, SetupError> {
        let endpoint = Endpoint::new(base_url, key, KeyHeader::Bearer, &[], timeout)?;
        let url = endpoint.at("chat/completions")?;
        Ok(Self { endpoint, url, capabilities: Capabilities::default() })
    }

    /// A client of a deployment in Azure OpenAI: the model is part of the path, the key has a header of its own.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn azure(judge: &JudgeConfig, env: impl Fn(&str) -> Option<String>) -> Result<Self, SetupError> {
        let base = judge.base_url();
        let key = judge.api_key_env().map(|name| Key::from_env(name, base, env)).transpose()?;
        let endpoint = Endpoint::new(base, key, KeyHeader::Named("api-key"), &[], timeout(judge))?;
        let mut url = endpoint.at("openai/deployments/")?;
        let bad_url = || SetupError::BadUrl { url: base.into() };
        url.path_segments_mut().map_err(|()| bad_url())?.pop_if_empty().extend([
            &judge.model,
            "chat",
            "completions",
        ]);
        url.query_pairs_mut().append_pair("api-version", judge.api_version());
        Ok(Self { endpoint, url, capabilities: Capabilities::default() })
    }

    /// Where calls go, for messages.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }
}

pub(crate) fn timeout(judge: &JudgeConfig) -> Duration {
    Duration::try_from_secs_f64(judge.timeout_seconds).unwrap_or(Duration::from_secs(120))
}

/// The body in OpenAI's dialect, held to a form as the server can.
pub(crate) fn body(request: &ChatRequest, form: Form) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    let messages: Vec<Value> =
        request.messages.iter().map(|m| json!({"role": m.role, "content": m.content})).collect();
    body.insert("messages".into(), Value::Array(messages));
    let limit = if request.temperature.is_some() { "max_tokens" } else { "max_completion_tokens" };
    body.insert(limit.into(), json!(request.max_tokens));
    if let Some(temperature) = request.temperature {
        body.insert("temperature".into(), json!(temperature));
    }
    if let Some(effort) = &request.reasoning_effort {
        body.insert("reasoning_effort".into(), json!(effort));
    }
    if let Some(seed) = request.seed {
        body.insert("seed".into(), json!(seed));
    }
    if let Some(top) = request.top_logprobs {
        body.insert("logprobs".into(), json!(true));
        body.insert("top_logprobs".into(), json!(top));
    }
    match (form, &request.schema) {
        (Form::Choice, _) if !request.choices.is_empty() => {
            body.insert("structured_outputs".into(), json!({"choice": request.choices}));
        }
        (Form::JsonSchema | Form::Choice, Some(schema)) => {
            let schema = json!({"name": "verdict", "strict": true, "schema": schema});
            let format = json!({"type": "json_schema", "json_schema": schema});
            body.insert("response_format".into(), format);
        }
        _ => {}
    }
    for (name, value) in &request.extra {
        body.insert(name.clone(), value.clone());
    }
    body
}

impl ChatModel for OpenAi {
    fn body(&self, request: &ChatRequest) -> String {
        Value::Object(body(request, self.capabilities.form)).to_string()
    }

    async fn send(&self, body: &str) -> Result<RawReply, CallError> {
        self.endpoint.post(&self.url, body.to_owned()).await
    }
}
