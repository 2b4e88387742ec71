//! The dialect of Anthropic's messages: the system prompt stands apart, a key has a header of its own, there are no
//! log-probabilities and no seed.

use crate::capability::{Capabilities, Form};
use crate::chat::{CallError, ChatModel, ChatRequest, RawReply};
use crate::http::{Endpoint, Key, KeyHeader, SetupError};
use crate::openai::timeout;
use reqwest::Url;
use rlaif_core::config::JudgeConfig;
use serde_json::{Map, Value, json};

/// The version of the API that this client speaks.
const API_VERSION: &str = "2023-06-01";

/// The name of the tool that the judge must use where answers have no other form.
const VERDICT_TOOL: &str = "verdict";

/// A client of the messages API. `Debug` shows no key.
#[derive(Debug, Clone)]
pub struct Anthropic {
    pub(crate) endpoint: Endpoint,
    url: Url,
    prompt_cache: bool,
    pub(crate) capabilities: Capabilities,
}

impl Anthropic {
    /// The client for a judge's config. The key's variable is `ANTHROPIC_API_KEY` with the default URL, and none with another
    /// URL unless the config names one.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn from_config(
        judge: &JudgeConfig,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SetupError> {
        let base = judge.base_url();
        let key = judge.api_key_env().map(|name| Key::from_env(name, base, env)).transpose()?;
        let version = [("anthropic-version", API_VERSION)];
        let endpoint = Endpoint::new(base, key, KeyHeader::Named("x-api-key"), &version, timeout(judge))?;
        let url = endpoint.at("messages")?;
        let prompt_cache = judge.prompt_cache;
        Ok(Self { endpoint, url, prompt_cache, capabilities: Capabilities::default() })
    }

    /// Where calls go, for messages.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    fn params(&self, request: &ChatRequest) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("model".into(), json!(request.model));
        body.insert("max_tokens".into(), json!(request.max_tokens));
        let (system, turns): (Vec<_>, Vec<_>) = request.messages.iter().partition(|m| m.role == "system");
        if !system.is_empty() {
            let text = system.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n\n");
            let mut block = json!({"type": "text", "text": text});
            if self.prompt_cache {
                block["cache_control"] = json!({"type": "ephemeral"});
            }
            body.insert("system".into(), json!([block]));
        }
        let turns: Vec<Value> = turns.iter().map(|m| json!({"role": m.role, "content": m.content})).collect();
        body.insert("messages".into(), Value::Array(turns));
        if let Some(temperature) = request.temperature {
            body.insert("temperature".into(), json!(temperature));
        }
        match (self.capabilities.form, &request.schema) {
            (Form::JsonSchema, Some(schema)) => {
                let format = json!({"type": "json_schema", "schema": schema});
                body.insert("output_config".into(), json!({"format": format}));
            }
            (Form::Tool, Some(schema)) => {
                let tool = json!({"name": VERDICT_TOOL, "description": "Gives the verdict.", "input_schema": schema});
                body.insert("tools".into(), json!([tool]));
                body.insert("tool_choice".into(), json!({"type": "tool", "name": VERDICT_TOOL}));
            }
            _ => {}
        }
        for (name, value) in &request.extra {
            body.insert(name.clone(), value.clone());
        }
        body
    }
}

impl ChatModel for Anthropic {
    fn body(&self, request: &ChatRequest) -> String {
        Value::Object(self.params(request)).to_string()
    }

    async fn send(&self, body: &str) -> Result<RawReply, CallError> {
        self.endpoint.post(&self.url, body.to_owned()).await
    }
}
