//! What every provider's client shares: one endpoint, its key, one attempt a call. A key is sent to its own host only: over
//! https or to this machine, never after a redirect; it is in no error, no log and no `Debug`.

use crate::chat::{CallError, CallErrorKind, CallFate, RawReply};
use crate::http_error::{ErrorDetail, KEY_LIKE, classify, innermost};
use crate::limits::LimitHints;
use crate::retry::retry_after;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use std::time::{Duration, Instant, SystemTime};

/// Largest reply that is read. Verdicts are a few kilobytes.
pub const MAX_BODY: usize = 1 << 20;

/// Longest line of a batch's results.
const MAX_LINE: usize = 4 << 20;

/// Most time for a connection to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How the key is shown to the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyHeader {
    /// `authorization: Bearer …`
    Bearer,
    /// A header of this name.
    Named(&'static str),
}

/// One endpoint and its key. `Debug` shows no key.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    client: Client,
    base: Url,
    key: Option<Key>,
    timeout: Duration,
}

/// A key and the variable that it came from.
#[derive(Debug, Clone)]
pub struct Key {
    /// Name of the variable, for messages.
    pub env: String,
    /// The key.
    pub secret: SecretString,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL cannot be read.
    #[error("`{url}` is no URL of an endpoint, such as `https://api.openai.com/v1`")]
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
    #[error(
        "the environment variable `{env}` with the key for `{url}` is not set, and neither is `{env}_FILE`"
    )]
    NoKey {
        /// Name of the variable.
        env: String,
        /// The endpoint.
        url: String,
    },
    /// The file that `…_FILE` names cannot be read.
    #[error("the file with the key that `{env}` names cannot be read")]
    KeyFile {
        /// Name of the variable.
        env: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key cannot be a header.
    #[error("the key in `{env}` holds characters that no key has, such as a line break")]
    BadKey {
        /// Name of the variable.
        env: String,
    },
    /// The config is for a judge that this program loads itself.
    #[error("a `local` judge has no endpoint")]
    Local,
    /// TLS or the client itself could not start.
    #[error("no HTTP client could be made")]
    Client(#[source] reqwest::Error),
}

impl Key {
    /// The key in the variable `name`, or in the file that `name_FILE` names.
    ///
    /// # Errors
    /// If neither is set, or the file cannot be read.
    pub fn from_env(name: &str, url: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, SetupError> {
        let given = |value: String| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        if let Some(value) = env(name).and_then(given) {
            return Ok(Self { env: name.into(), secret: value.into() });
        }
        let file_env = format!("{name}_FILE");
        let Some(path) = env(&file_env).and_then(given) else {
            return Err(SetupError::NoKey { env: name.into(), url: url.into() });
        };
        let value = std::fs::read_to_string(path)
            .map_err(|source| SetupError::KeyFile { env: file_env.clone(), source })?;
        match given(value) {
            Some(value) => Ok(Self { env: file_env, secret: value.into() }),
            None => Err(SetupError::NoKey { env: name.into(), url: url.into() }),
        }
    }
}

impl Endpoint {
    /// An endpoint at `base_url` with its key and further headers of every request.
    pub(crate) fn new(
        base_url: &str,
        key: Option<Key>,
        key_header: KeyHeader,
        more: &[(&'static str, &'static str)],
        timeout: Duration,
    ) -> Result<Self, SetupError> {
        let bad_url = || SetupError::BadUrl { url: base_url.into() };
        // With a slash at its end, so that paths are appended to it.
        let base = Url::parse(&format!("{}/", base_url.trim_end_matches('/'))).map_err(|_| bad_url())?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(SetupError::CredentialsInUrl);
        }
        let host = base.host_str().ok_or_else(bad_url)?;
        match base.scheme() {
            "https" => {}
            "http" if is_loopback(host) => {}
            "http" => return Err(SetupError::Insecure { url: base_url.into() }),
            _ => return Err(bad_url()),
        }
        let mut headers = HeaderMap::new();
        for (name, value) in more {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        if let Some(key) = &key {
            let (name, shown) = match key_header {
                KeyHeader::Bearer => ("authorization", format!("Bearer {}", key.secret.expose_secret())),
                KeyHeader::Named(name) => (name, key.secret.expose_secret().to_owned()),
            };
            let mut value =
                HeaderValue::from_str(&shown).map_err(|_| SetupError::BadKey { env: key.env.clone() })?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
        let client = Client::builder()
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .user_agent(concat!("rlaif/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(SetupError::Client)?;
        Ok(Self { client, base, key, timeout })
    }

    /// The endpoint's URL with a path behind it.
    pub(crate) fn at(&self, path: &str) -> Result<Url, SetupError> {
        let url = format!("{}{path}", self.base);
        Url::parse(&url).map_err(|_| SetupError::BadUrl { url })
    }

    /// The same, of a path of ours, which fits every base.
    pub(crate) fn path(&self, path: &str) -> Url {
        self.base.join(path).unwrap_or_else(|_| self.base.clone())
    }

    /// A URL that the endpoint itself has named, if it is on the same host: the key goes nowhere else.
    pub(crate) fn same_host(&self, url: &str) -> Option<Url> {
        let url = self.base.join(url).ok()?;
        (url.origin() == self.base.origin()).then_some(url)
    }

    /// Who pays, without saying what the key is: a hash of endpoint and key.
    pub(crate) fn account(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("rlaif 2026 account identity");
        hasher.update(self.base.as_str().as_bytes());
        if let Some(key) = &self.key {
            hasher.update(key.secret.expose_secret().as_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// Posts JSON once.
    pub(crate) async fn post(&self, url: &Url, body: String) -> Result<RawReply, CallError> {
        let request = self.client.request(Method::POST, url.clone());
        self.call(url, request.header(CONTENT_TYPE, "application/json").body(body)).await
    }

    /// Posts a body of another kind once, such as a file.
    pub(crate) async fn upload(
        &self,
        url: &Url,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<RawReply, CallError> {
        let request = self.client.request(Method::POST, url.clone());
        self.call(url, request.header(CONTENT_TYPE, content_type).body(body)).await
    }

    /// Gets a small reply.
    pub(crate) async fn get(&self, url: &Url) -> Result<RawReply, CallError> {
        self.call(url, self.client.request(Method::GET, url.clone())).await
    }

    /// Gets a long reply line by line. There is no limit on the whole, since results may take long; every wait has the timeout.
    pub(crate) async fn lines(&self, url: &Url) -> Result<Lines, CallError> {
        let started = Instant::now();
        let request = self.client.request(Method::GET, url.clone());
        let mut response = match tokio::time::timeout(self.timeout, request.send()).await {
            Ok(sent) => sent.map_err(|error| self.transport_error(url, &error, started))?,
            Err(_) => return Err(self.timed_out(url, started)),
        };
        if !response.status().is_success() {
            let (status, headers) = (response.status(), response.headers().clone());
            let bytes = self.body(url, &mut response, started).await?;
            return Err(self.status_error(url, status, &headers, &bytes));
        }
        Ok(Lines {
            endpoint: self.clone(),
            url: url.clone(),
            response,
            rest: Vec::new(),
            at: 0,
            ended: false,
        })
    }

    async fn call(&self, url: &Url, request: RequestBuilder) -> Result<RawReply, CallError> {
        let started = Instant::now();
        let sent = request.timeout(self.timeout).send().await;
        let mut response = sent.map_err(|error| self.transport_error(url, &error, started))?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = self.body(url, &mut response, started).await?;
        if !status.is_success() {
            return Err(self.status_error(url, status, &headers, &body));
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let request_id = header("x-request-id").or_else(|| header("request-id")).map(str::to_owned);
        let limits = LimitHints::read(header, SystemTime::now());
        Ok(RawReply { status: status.as_u16(), body, request_id, latency: started.elapsed(), limits })
    }

    async fn body(&self, url: &Url, response: &mut Response, started: Instant) -> Result<Vec<u8>, CallError> {
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.transport_error(url, &error, started))?
        {
            if bytes.len() + chunk.len() > MAX_BODY {
                let message = format!("`{url}` sent more than {MAX_BODY} bytes");
                let fate = if status.is_success() { CallFate::MaybeBilled } else { CallFate::Rejected };
                return Err(CallError {
                    status: Some(status.as_u16()),
                    ..CallError::new(CallErrorKind::TooLarge, fate, message)
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn timed_out(&self, url: &Url, started: Instant) -> CallError {
        let seconds = started.elapsed().as_secs_f64();
        let message = format!("`{url}` did not answer in {seconds:.1}s");
        CallError::new(CallErrorKind::Timeout, CallFate::MaybeBilled, message)
    }

    fn transport_error(&self, url: &Url, error: &reqwest::Error, started: Instant) -> CallError {
        let seconds = started.elapsed().as_secs_f64();
        let cause = self.scrub(&innermost(error));
        if error.is_connect() {
            let message = format!("cannot connect to `{url}`: {cause}");
            CallError::new(CallErrorKind::Connect, CallFate::NotSent, message)
        } else if error.is_builder() {
            let message = format!("the request to `{url}` could not be built: {cause}");
            CallError::new(CallErrorKind::BadRequest, CallFate::NotSent, message)
        } else if error.is_timeout() {
            self.timed_out(url, started)
        } else {
            let message = format!("`{url}` broke the connection after {seconds:.1}s: {cause}");
            CallError::new(CallErrorKind::Disconnected, CallFate::MaybeBilled, message)
        }
    }

    fn status_error(&self, url: &Url, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> CallError {
        let detail = ErrorDetail::of(body);
        let kind = classify(status.as_u16(), &detail);
        let fate = match status.as_u16() {
            408 | 504 => CallFate::MaybeBilled,
            _ => CallFate::Rejected,
        };
        let said = self.scrub(&detail.message);
        let answered = format!("`{url}` answered {}: {said}", status.as_u16());
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
            limits: LimitHints::read(header, SystemTime::now()),
        }
    }

    /// Error text may echo parts of the key or whole pages: keys out, control characters out, 300 characters at most.
    pub(crate) fn scrub(&self, text: &str) -> String {
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

/// A long reply, line by line.
#[derive(Debug)]
pub(crate) struct Lines {
    endpoint: Endpoint,
    url: Url,
    response: Response,
    rest: Vec<u8>,
    /// Up to here `rest` was handed out.
    at: usize,
    ended: bool,
}

impl Lines {
    /// The next line that is not blank. A last line without an end is handed out too: whether it is whole, its JSON shows.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, CallError> {
        let started = Instant::now();
        loop {
            let rest = &self.rest[self.at..];
            let end = rest.iter().position(|&byte| byte == b'\n').or(self.ended.then_some(rest.len()));
            if let Some(end) = end {
                let line = rest[..end].trim_ascii().to_vec();
                self.at = (self.at + end + 1).min(self.rest.len());
                if !line.is_empty() {
                    return Ok(Some(line));
                }
                if self.ended && self.at == self.rest.len() {
                    return Ok(None);
                }
                continue;
            }
            if rest.len() > MAX_LINE {
                let message = format!("`{}` sent a line of more than {MAX_LINE} bytes", self.url);
                return Err(CallError::new(CallErrorKind::TooLarge, CallFate::Rejected, message));
            }
            self.rest.drain(..self.at);
            self.at = 0;
            match tokio::time::timeout(self.endpoint.timeout, self.response.chunk()).await {
                Err(_) => return Err(self.endpoint.timed_out(&self.url, started)),
                Ok(Err(error)) => return Err(self.endpoint.transport_error(&self.url, &error, started)),
                Ok(Ok(Some(chunk))) => self.rest.extend_from_slice(&chunk),
                Ok(Ok(None)) => self.ended = true,
            }
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
