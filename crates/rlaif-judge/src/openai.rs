//! The client of OpenAI-compatible chat completions: OpenAI, vLLM, SGLang, llama.cpp, Ollama, OpenRouter. One call, one
//! attempt; [`crate::engine`] decides what is tried again.

use crate::chat::{CallError, CallErrorKind, CallFate, ChatModel, ChatRequest, RawReply};
use crate::retry::retry_after;
use regex::Regex;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use rlaif_core::config::JudgeConfig;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// Where OpenAI's own API is.
pub const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";

/// The variable that holds the key for [`DEFAULT_BASE_URL`].
pub const DEFAULT_KEY_ENV: &str = "OPENAI_API_KEY";

/// Largest reply that is read. Verdicts are a few kilobytes.
pub const MAX_BODY: usize = 1 << 20;

/// Most time for a connection to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one endpoint. `Debug` shows no key.
#[derive(Debug, Clone)]
pub struct OpenAi {
    client: Client,
    url: Url,
    key: Option<Key>,
}

#[derive(Debug, Clone)]
struct Key {
    env: String,
    secret: SecretString,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL cannot be read.
    #[error("`{url}` is no URL of an endpoint, such as `{DEFAULT_BASE_URL}`")]
    BadUrl {
        /// As given.
        url: String,
    },
    /// Plain HTTP to another machine would show key and data to everyone between.
    #[error("`{url}` must begin with `https://`; `http://` is for this machine only")]
    Insecure {
        /// As given.
        url: String,
    },
    /// A URL with a password in it would end up in files and logs.
    #[error(
        "the judge's URL must not hold a user or password; name an environment variable in `api_key_env`"
    )]
    CredentialsInUrl,
    /// The variable is unset or empty.
    #[error("the environment variable `{env}` with the key for `{url}` is not set")]
    NoKey {
        /// Name of the variable.
        env: String,
        /// The endpoint.
        url: String,
    },
    /// The key cannot be a header.
    #[error("the key in `{env}` holds characters that no key has, such as a line break")]
    BadKey {
        /// Name of the variable.
        env: String,
    },
    /// TLS or the client itself could not start.
    #[error("no HTTP client could be made")]
    Client(#[source] reqwest::Error),
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
        let base_url = judge.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL);
        let default_env = (base_url.trim_end_matches('/') == DEFAULT_BASE_URL).then_some(DEFAULT_KEY_ENV);
        let key = match judge.api_key_env.as_deref().or(default_env) {
            None => None,
            Some(name) => {
                let value = env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
                let value =
                    value.ok_or_else(|| SetupError::NoKey { env: name.into(), url: base_url.into() })?;
                Some((name, SecretString::from(value)))
            }
        };
        let timeout = Duration::try_from_secs_f64(judge.timeout_seconds).unwrap_or(Duration::from_secs(120));
        Self::new(base_url, key, timeout)
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
        let bad_url = || SetupError::BadUrl { url: base_url.into() };
        let url = Url::parse(&format!("{}/chat/completions", base_url.trim_end_matches('/')));
        let url = url.map_err(|_| bad_url())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SetupError::CredentialsInUrl);
        }
        let host = url.host_str().ok_or_else(bad_url)?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(host) => {}
            "http" => return Err(SetupError::Insecure { url: base_url.into() }),
            _ => return Err(bad_url()),
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut stored = None;
        if let Some((env, secret)) = key {
            let header = HeaderValue::from_str(&format!("Bearer {}", secret.expose_secret()));
            let mut header = header.map_err(|_| SetupError::BadKey { env: env.into() })?;
            header.set_sensitive(true);
            headers.insert(AUTHORIZATION, header);
            stored = Some(Key { env: env.into(), secret });
        }
        let client = Client::builder()
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .user_agent(concat!("rlaif/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(SetupError::Client)?;
        Ok(Self { client, url, key: stored })
    }

    /// Where calls go, for messages.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    fn transport_error(&self, error: &reqwest::Error, started: Instant) -> CallError {
        let seconds = started.elapsed().as_secs_f64();
        let cause = self.scrub(&innermost(error));
        let url = &self.url;
        if error.is_connect() {
            let message = format!("cannot connect to `{url}`: {cause}");
            CallError::new(CallErrorKind::Connect, CallFate::NotSent, message)
        } else if error.is_builder() {
            let message = format!("the request to `{url}` could not be built: {cause}");
            CallError::new(CallErrorKind::BadRequest, CallFate::NotSent, message)
        } else if error.is_timeout() {
            let message = format!("`{url}` did not answer in {seconds:.1}s");
            CallError::new(CallErrorKind::Timeout, CallFate::MaybeBilled, message)
        } else {
            let message = format!("`{url}` broke the connection after {seconds:.1}s: {cause}");
            CallError::new(CallErrorKind::Disconnected, CallFate::MaybeBilled, message)
        }
    }

    fn status_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> CallError {
        let detail = ErrorDetail::of(body);
        let kind = classify(status.as_u16(), &detail);
        let fate = match status.as_u16() {
            408 | 504 => CallFate::MaybeBilled,
            _ => CallFate::Rejected,
        };
        let said = self.scrub(&detail.message);
        let answered = format!("`{}` answered {}: {said}", self.url, status.as_u16());
        let message = match (kind, &self.key) {
            (CallErrorKind::Unauthorized, Some(key)) => {
                format!("{answered}; check the key in the environment variable `{}`", key.env)
            }
            (CallErrorKind::Unauthorized, None) => {
                format!("{answered}; name the environment variable with its key in `api_key_env`")
            }
            (CallErrorKind::Forbidden, Some(key)) => {
                format!("{answered}; the key in `{}` may not use this model", key.env)
            }
            (CallErrorKind::Quota, _) => format!("{answered}; top up the account and run again"),
            (CallErrorKind::NotFound, _) => format!("{answered}; check `model` and `base_url`"),
            (CallErrorKind::UnsupportedParameter, _) => format!(
                "{answered}; a reasoning model wants no `sampling_temperature`, see the judge's other parameters too"
            ),
            (CallErrorKind::Redirect, _) => {
                format!("{answered}; redirects are not followed, give the final address as `base_url`")
            }
            _ => answered,
        };
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        CallError {
            kind,
            fate,
            message,
            status: Some(status.as_u16()),
            retry_after: retry_after(header, SystemTime::now()),
        }
    }

    /// Error text may echo parts of the key or whole pages: keys out, control characters out, 300 characters at most.
    fn scrub(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => text.replace(key.secret.expose_secret(), "[key]"),
            None => text.to_owned(),
        };
        let text = KEY_LIKE.replace_all(&text, "[key]");
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
        let line = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(300) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }
}

/// `sk-…` and its relatives, anything that providers have masked with stars, and bearer tokens.
static KEY_LIKE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)bearer\s+[^\s,;]+|\b(?:sk|pk|rk|gsk|xai|hf|key)[-_][\w*.-]{6,}|[\w.-]*\*{3,}[\w*.-]*")
        .expect("a constant pattern")
});

impl ChatModel for OpenAi {
    fn body(&self, request: &ChatRequest) -> String {
        request.canonical_body()
    }

    async fn send(&self, body: &str) -> Result<RawReply, CallError> {
        let started = Instant::now();
        let sent = self.client.post(self.url.clone()).body(body.to_owned()).send().await;
        let mut response = sent.map_err(|error| self.transport_error(&error, started))?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut bytes = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.transport_error(&error, started))?
        {
            if bytes.len() + chunk.len() > MAX_BODY {
                let message = format!("`{}` sent more than {MAX_BODY} bytes", self.url);
                let fate = if status.is_success() { CallFate::MaybeBilled } else { CallFate::Rejected };
                return Err(CallError {
                    status: Some(status.as_u16()),
                    ..CallError::new(CallErrorKind::TooLarge, fate, message)
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(self.status_error(status, &headers, &bytes));
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let request_id = header("x-request-id").or_else(|| header("request-id")).map(str::to_owned);
        Ok(RawReply { status: status.as_u16(), body: bytes, request_id, latency: started.elapsed() })
    }
}

/// What an error body says, in whichever of the providers' shapes.
#[derive(Debug, Default)]
struct ErrorDetail {
    message: String,
    /// `code` and `type` together, lower case.
    code: String,
}

impl ErrorDetail {
    fn of(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            let text = String::from_utf8_lossy(body).trim().to_owned();
            return Self {
                message: if text.is_empty() { "no explanation".into() } else { text },
                code: String::new(),
            };
        };
        let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(&value);
        let word = |name: &str| match error.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let message =
            [error.as_str().map(str::to_owned).unwrap_or_default(), word("message"), word("detail")];
        let message = message.into_iter().find(|text| !text.is_empty()).unwrap_or_else(|| error.to_string());
        Self { message, code: format!("{} {}", word("code"), word("type")).to_lowercase() }
    }

    /// True if the code or the message holds one of the phrases.
    fn says(&self, phrases: &[&str]) -> bool {
        let message = self.message.to_lowercase();
        phrases.iter().any(|phrase| self.code.contains(phrase) || message.contains(phrase))
    }
}

fn classify(status: u16, detail: &ErrorDetail) -> CallErrorKind {
    use CallErrorKind as K;
    let broke = ["insufficient_quota", "billing", "insufficient balance", "insufficient credits"];
    match status {
        300..=399 => K::Redirect,
        401 => K::Unauthorized,
        402 => K::Quota,
        403 if detail.says(&broke) => K::Quota,
        403 => K::Forbidden,
        404 => K::NotFound,
        408 | 409 | 425 => K::Server,
        413 => K::TooLong,
        429 if detail.says(&broke) => K::Quota,
        429 => K::RateLimited,
        503 | 529 => K::Overloaded,
        500.. => K::Server,
        _ if detail.says(&["content_filter", "content management policy"]) => K::Filtered,
        _ if detail.says(&[
            "context_length",
            "context length",
            "maximum context",
            "too long",
            "too many tokens",
        ]) =>
        {
            K::TooLong
        }
        _ if detail.says(&[
            "unsupported_",
            "unsupported parameter",
            "unrecognized request argument",
            "not supported",
        ]) =>
        {
            K::UnsupportedParameter
        }
        _ => K::BadRequest,
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The last cause says what happened ("connection refused"); the first ones repeat the URL.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
