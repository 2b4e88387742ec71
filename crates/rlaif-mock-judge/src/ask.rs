//! What a request asks for, whichever provider's words it uses.

use crate::options::{FormKind, Options};
use serde_json::Value;

/// Whose protocol a call speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// OpenAI, and what is compatible with it: vLLM, Azure, OpenRouter.
    OpenAi,
    /// Anthropic.
    Anthropic,
}

/// The form that the reply must have.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// Any text.
    Free,
    /// JSON, by a schema where one is given.
    Json(Option<Value>),
    /// One of these texts (vLLM's `structured_outputs.choice`, and `guided_choice` before it).
    OneOf(Vec<String>),
    /// A call of this tool (Anthropic), whose input follows a schema.
    Tool(String, Value),
}

/// A request, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Whose protocol.
    pub provider: Provider,
    /// The model that is asked.
    pub model: String,
    /// Role and text of each message; Anthropic's `system` is the first.
    pub messages: Vec<(String, String)>,
    /// Most tokens of the reply.
    pub max_tokens: Option<u64>,
    /// How many candidates to show at each token; `None` for no log-probabilities at all.
    pub top_logprobs: Option<usize>,
    /// The form of the reply.
    pub format: Format,
    /// Tokens of the prompt, as the mock counts them.
    pub prompt_tokens: u64,
}

/// Why a request cannot be answered: the message of a 400, and the parameter that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRequest {
    /// What is wrong.
    pub message: String,
    /// The parameter.
    pub param: &'static str,
}

fn bad(param: &'static str, message: impl Into<String>) -> BadRequest {
    BadRequest { message: message.into(), param }
}

/// Four bytes a token, and four tokens a message: near enough to real tokenizers on English, and the same every time.
fn prompt_tokens(messages: &[(String, String)]) -> u64 {
    messages.iter().map(|(_, text)| (text.len() as u64).div_ceil(4) + 4).sum::<u64>() + 3
}

impl Ask {
    /// Reads the body of a request. `deployment` is Azure's name of the model, which stands in the path.
    ///
    /// # Errors
    /// If a provider would answer 400.
    pub fn read(provider: Provider, body: &Value, deployment: Option<&str>) -> Result<Self, BadRequest> {
        if !body.is_object() {
            return Err(bad("body", "the body must be a JSON object"));
        }
        if body.get("stream").and_then(Value::as_bool) == Some(true) {
            return Err(bad("stream", "the mock judge does not stream; leave out `stream`"));
        }
        let model = match (deployment, body.get("model").and_then(Value::as_str)) {
            (Some(name), _) | (None, Some(name)) if !name.is_empty() => name.to_owned(),
            _ => return Err(bad("model", "you must provide a model parameter")),
        };
        let mut messages = Vec::new();
        if let Some(system) = body.get("system") {
            messages.push(("system".to_owned(), text(system)));
        }
        let listed = body.get("messages").and_then(Value::as_array).filter(|listed| !listed.is_empty());
        let listed = listed.ok_or_else(|| bad("messages", "`messages` must be a list with a message"))?;
        for message in listed {
            let role = message.get("role").and_then(Value::as_str);
            let role = role.ok_or_else(|| bad("messages", "a message has no `role`"))?;
            messages.push((role.to_owned(), message.get("content").map(text).unwrap_or_default()));
        }
        let count = |name: &str| body.get(name).and_then(Value::as_u64);
        let max_tokens = count("max_completion_tokens").or_else(|| count("max_tokens"));
        if provider == Provider::Anthropic && max_tokens.is_none() {
            return Err(bad("max_tokens", "max_tokens: Field required"));
        }
        if max_tokens == Some(0) {
            return Err(bad("max_tokens", "`max_tokens` must be at least 1"));
        }
        let prompt_tokens = prompt_tokens(&messages);
        let (top_logprobs, format) = match provider {
            Provider::OpenAi => (top_logprobs(body)?, openai_format(body)?),
            Provider::Anthropic => (None, anthropic_format(body)),
        };
        Ok(Self { provider, model, messages, max_tokens, top_logprobs, format, prompt_tokens })
    }

    /// The same request to a server that ignores or refuses some forms.
    ///
    /// # Errors
    /// If it refuses the form.
    pub fn to_server(mut self, options: &Options) -> Result<Self, BadRequest> {
        let kind = match &self.format {
            Format::Free => return Ok(self),
            Format::OneOf(_) => FormKind::Choice,
            Format::Json(_) => FormKind::JsonSchema,
            Format::Tool(..) => FormKind::Tool,
        };
        if options.refuse_forms.contains(&kind) {
            return Err(match (kind, self.provider) {
                (FormKind::Choice, _) => {
                    bad("structured_outputs", "Unknown parameter: 'structured_outputs'.")
                }
                (FormKind::JsonSchema, Provider::OpenAi) => bad(
                    "response_format",
                    "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
                ),
                (FormKind::JsonSchema, Provider::Anthropic) => {
                    bad("output_config", "output_config: Extra inputs are not permitted")
                }
                (FormKind::Tool, _) => bad("tools", "tools: tool use is not supported with this model"),
            });
        }
        if options.ignore_forms.contains(&kind) {
            self.format = Format::Free;
        }
        Ok(self)
    }
}

/// The text of a message: a string, or the text parts of a list.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
        }
        _ => String::new(),
    }
}

fn top_logprobs(body: &Value) -> Result<Option<usize>, BadRequest> {
    let wanted = body.get("logprobs").and_then(Value::as_bool).unwrap_or(false);
    match body.get("top_logprobs").filter(|value| !value.is_null()) {
        None => Ok(wanted.then_some(0)),
        Some(_) if !wanted => Err(bad("top_logprobs", "'top_logprobs' needs 'logprobs' to be true")),
        Some(value) => match value.as_u64() {
            Some(top @ 0..=20) => Ok(Some(top as usize)),
            _ => Err(bad("top_logprobs", format!("'top_logprobs' must be from 0 to 20, got {value}"))),
        },
    }
}

fn openai_format(body: &Value) -> Result<Format, BadRequest> {
    for path in ["/structured_outputs/choice", "/guided_choice"] {
        if let Some(options) = body.pointer(path).and_then(Value::as_array) {
            return Ok(Format::OneOf(options.iter().filter_map(Value::as_str).map(str::to_owned).collect()));
        }
    }
    match body.pointer("/response_format/type").and_then(Value::as_str) {
        Some("json_schema") => {
            let name = body.pointer("/response_format/json_schema/name").and_then(Value::as_str);
            let fits = |name: &str| {
                (1..=64).contains(&name.len())
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            };
            if !name.is_some_and(fits) {
                return Err(bad(
                    "response_format",
                    "'response_format.json_schema.name' must match ^[a-zA-Z0-9_-]{1,64}$",
                ));
            }
            match body.pointer("/response_format/json_schema/schema") {
                Some(schema) => Ok(Format::Json(Some(schema.clone()))),
                None => Err(bad("response_format", "'response_format.json_schema.schema' is missing")),
            }
        }
        Some("json_object") => Ok(Format::Json(None)),
        _ => Ok(body
            .pointer("/structured_outputs/json")
            .map_or(Format::Free, |schema| Format::Json(Some(schema.clone())))),
    }
}

fn anthropic_format(body: &Value) -> Format {
    if let Some(schema) = body.pointer("/output_config/format/schema") {
        return Format::Json(Some(schema.clone()));
    }
    let chosen = body.pointer("/tool_choice/name").and_then(Value::as_str);
    let tools = body.get("tools").and_then(Value::as_array);
    let tool = chosen
        .and_then(|name| tools?.iter().find(|tool| tool.get("name").and_then(Value::as_str) == Some(name)));
    match (chosen, tool.and_then(|tool| tool.get("input_schema"))) {
        (Some(name), Some(schema)) => Format::Tool(name.to_owned(), schema.clone()),
        _ => Format::Free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn openai(body: Value) -> Result<Ask, BadRequest> {
        Ask::read(Provider::OpenAi, &body, None)
    }

    #[test]
    fn both_protocols_come_to_the_same() {
        let ask = openai(json!({"model": "m", "messages": [{"role": "system", "content": "Judge."},
            {"role": "user", "content": [{"type": "text", "text": "A "}, {"type": "text", "text": "or B"}]}],
            "max_completion_tokens": 9, "logprobs": true, "top_logprobs": 20}))
        .unwrap();
        assert_eq!(ask.messages[1], ("user".into(), "A or B".into()));
        assert_eq!((ask.max_tokens, ask.top_logprobs, ask.prompt_tokens), (Some(9), Some(20), 15));
        let body = json!({"model": "m", "system": [{"type": "text", "text": "Judge."}], "max_tokens": 9,
            "messages": [{"role": "user", "content": "A or B"}]});
        let other = Ask::read(Provider::Anthropic, &body, None).unwrap();
        assert_eq!(other.messages, ask.messages);
        let azure = Ask::read(Provider::OpenAi, &json!({"messages": [{"role": "user"}]}), Some("judge"));
        assert_eq!(azure.unwrap().model, "judge");
    }

    #[test]
    fn what_a_provider_refuses() {
        let messages = json!([{"role": "user", "content": "x"}]);
        for (body, param) in [
            (json!([]), "body"),
            (json!({"messages": messages}), "model"),
            (json!({"model": "m", "messages": []}), "messages"),
            (json!({"model": "m", "messages": [{}]}), "messages"),
            (json!({"model": "m", "messages": messages, "stream": true}), "stream"),
            (json!({"model": "m", "messages": messages, "top_logprobs": 5}), "top_logprobs"),
            (
                json!({"model": "m", "messages": messages, "logprobs": true, "top_logprobs": 21}),
                "top_logprobs",
            ),
            (
                json!({"model": "m", "messages": messages, "response_format":
                {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}}),
                "response_format",
            ),
        ] {
            assert_eq!(openai(body.clone()).unwrap_err().param, param, "{body}");
        }
        let body = json!({"model": "m", "messages": messages});
        assert_eq!(Ask::read(Provider::Anthropic, &body, None).unwrap_err().param, "max_tokens");
    }

    #[test]
    fn formats_of_every_server() {
        let with = |extra: Value| {
            let mut body =
                json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            body
        };
        let schema = json!({"type": "object"});
        let format = json!({"type": "json_schema", "json_schema": {"name": "v", "schema": schema}});
        let read = |body| openai(body).unwrap().format;
        assert_eq!(read(with(json!({"response_format": format}))), Format::Json(Some(schema.clone())));
        assert_eq!(read(with(json!({"response_format": {"type": "json_object"}}))), Format::Json(None));
        let choice = Format::OneOf(vec!["A".into(), "B".into()]);
        assert_eq!(read(with(json!({"structured_outputs": {"choice": ["A", "B"]}}))), choice);
        let anthropic = |body| Ask::read(Provider::Anthropic, &body, None).unwrap().format;
        let output = json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}});
        assert_eq!(anthropic(with(output)), Format::Json(Some(schema.clone())));
        let tool = json!({"tools": [{"name": "verdict", "input_schema": schema}],
            "tool_choice": {"type": "tool", "name": "verdict"}});
        assert_eq!(anthropic(with(tool)), Format::Tool("verdict".into(), schema));
    }
}
