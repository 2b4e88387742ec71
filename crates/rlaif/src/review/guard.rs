//! What every request must show before anything looks at it. A page on another site can make a browser send requests here (CSRF), and a
//! name that it owns can be made to point here (DNS rebinding); neither can forge the checks below all at once.
//!
//! | check | refuses |
//! |---|---|
//! | method | all but GET, HEAD and POST: an allow-list, since block-lists forget one |
//! | `Host` | names that are not ours |
//! | `Origin`, `Sec-Fetch-Site` | what another site sent |
//! | session cookie | who has not opened the printed address; `HttpOnly`, `SameSite=Strict` |
//! | form | bodies that are no form, are too large, or lack the session's CSRF token |

use super::App;
use super::pages::Message;
use anyhow::{Result, anyhow};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Largest form: a note with a few thousand characters, percent-encoded.
const MOST_BODY: usize = 64 << 10;

/// For as long a request may take, its body included.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sessions that are kept; the oldest ends when one more begins.
const MOST_SESSIONS: usize = 500;

/// Wrong tokens in a minute, after which nobody is told whether another one is right.
const WRONG_TOKENS: usize = 20;

/// The path of the printed address.
pub const START: &str = "/start";

/// Where browsers report what the content security policy stopped.
pub const CSP_REPORT: &str = "/csp-report";

/// What is shown to anybody: it tells nothing.
const OPEN: [&str; 2] = [START, "/style.css"];

/// Only our own style, script and forms; nothing is loaded from anywhere, whatever a response says.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'none'; connect-src 'none'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'; \
    report-uri /csp-report";

/// A browser that has opened the printed address.
#[derive(Debug, Clone)]
pub struct Session {
    id: String,
    /// What its forms must carry.
    pub csrf: String,
    /// Who sits there; empty until they have said so.
    pub reviewer: String,
}

/// The fields of a form that has passed.
#[derive(Debug, Clone, Default)]
pub struct Form(HashMap<String, String>);

impl Form {
    /// A field; empty if it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// The secrets of this process and who has shown them.
pub struct Guard {
    token: String,
    hosts: Vec<String>,
    cookie: String,
    sessions: Mutex<VecDeque<Session>>,
    wrong: Mutex<VecDeque<Instant>>,
    stopped_by_policy: AtomicU64,
}

impl Guard {
    /// A guard for the server at this address, which also answers to other names (`HOST:PORT`).
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new(address: SocketAddr, names: &[String]) -> Result<Self> {
        let port = address.port();
        let mut hosts: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        if !address.ip().is_unspecified() {
            hosts.push(address.to_string());
        }
        if address.ip().is_loopback() || address.ip().is_unspecified() {
            hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(|name| format!("{name}:{port}")));
        }
        Ok(Self {
            token: secret()?,
            hosts,
            cookie: format!("rlaif_review_{port}"), // cookies do not know ports
            sessions: Mutex::default(),
            wrong: Mutex::default(),
            stopped_by_policy: AtomicU64::new(0),
        })
    }

    /// The path and query that begin a session.
    pub fn start_path(&self) -> String {
        format!("{START}?token={}", self.token)
    }

    /// Begins a session for who shows the token; returns its `Set-Cookie`.
    ///
    /// # Errors
    /// The answer to who does not.
    pub fn start(&self, token: &str) -> std::result::Result<HeaderValue, Refusal> {
        if !same(token, &self.token) {
            let mut wrong = lock(&self.wrong);
            let now = Instant::now();
            wrong.retain(|at| now.duration_since(*at) < Duration::from_secs(60));
            if wrong.len() >= WRONG_TOKENS {
                return Err(Refusal::TooMany);
            }
            wrong.push_back(now);
            return Err(Refusal::WrongToken);
        }
        let (id, csrf) = secret().and_then(|id| Ok((id, secret()?))).map_err(|_| Refusal::NoRandom)?;
        let cookie = format!("{}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age=86400", self.cookie);
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= MOST_SESSIONS {
            sessions.pop_front();
        }
        sessions.push_back(Session { id, csrf, reviewer: String::new() });
        HeaderValue::from_str(&cookie).map_err(|_| Refusal::NoRandom)
    }

    /// Notes who sits at a session.
    pub fn set_reviewer(&self, session: &Session, reviewer: &str) {
        if let Some(session) = lock(&self.sessions).iter_mut().find(|known| known.id == session.id) {
            session.reviewer = reviewer.to_string();
        }
    }

    /// Counts a report of a browser; says so once.
    pub fn note_stopped(&self) -> bool {
        self.stopped_by_policy.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Who it is, where everything but the form is as it must be.
    fn check(&self, request: &Request) -> std::result::Result<Option<Session>, Refusal> {
        let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
        if ![Method::GET, Method::HEAD, Method::POST].contains(method) {
            return Err(Refusal::Method);
        }
        let host = one(headers, header::HOST).ok_or(Refusal::Host)?.to_ascii_lowercase();
        let in_line = request.uri().authority().map(|authority| authority.as_str().to_ascii_lowercase());
        if !self.hosts.contains(&host) || in_line.is_some_and(|name| name != host) {
            return Err(Refusal::Host);
        }
        let posts = method == Method::POST;
        let origin = one(headers, header::ORIGIN);
        match (headers.contains_key(header::ORIGIN), posts) {
            (false, false) => {}
            _ if origin.is_some_and(|origin| origin.to_ascii_lowercase() == format!("http://{host}")) => {}
            _ => return Err(Refusal::Origin),
        }
        let site = headers.get("sec-fetch-site").map(|site| site.to_str().unwrap_or_default());
        // The printed address may be a link on another page; everything else is reached from our own.
        let from_here = match site {
            None | Some("same-origin") => true,
            Some("none") => !posts,
            Some(_) => path == START && !posts,
        };
        if !from_here {
            return Err(Refusal::Origin);
        }
        let session = self.session(headers);
        let open = OPEN.contains(&path) && !posts;
        if session.is_none() && !open {
            return Err(Refusal::Session);
        }
        Ok(session)
    }

    fn session(&self, headers: &HeaderMap) -> Option<Session> {
        let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let shown: Vec<&str> = cookies
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter_map(|(name, value)| (name == self.cookie).then_some(value))
            .collect();
        let sessions = lock(&self.sessions);
        sessions.iter().find(|session| shown.iter().any(|shown| same(shown, &session.id))).cloned()
    }
}

/// Lets a request through to its page, or answers it; every answer has the same headers.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(PATIENCE, let_through(&app, request, next));
    let mut response = match answer.await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => Refusal::Slow.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // `no-referrer` would take the origin from our own forms too: their `Origin` would be `null`.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn let_through(app: &App, mut request: Request, next: Next) -> std::result::Result<Response, Refusal> {
    let session = app.guard.check(&request)?;
    if request.method() == Method::POST && request.uri().path() != CSP_REPORT {
        let (parts, body) = request.into_parts();
        let kind = one(&parts.headers, header::CONTENT_TYPE).unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("application/x-www-form-urlencoded") {
            return Err(Refusal::NoForm);
        }
        let bytes = to_bytes(body, MOST_BODY).await.map_err(|_| Refusal::TooLarge)?;
        let form = Form(form_urlencoded::parse(&bytes).into_owned().collect());
        if !session.as_ref().is_some_and(|session| same(form.get("csrf"), &session.csrf)) {
            return Err(Refusal::Csrf);
        }
        request = Request::from_parts(parts, Body::empty());
        request.extensions_mut().insert(form);
    }
    if let Some(session) = session {
        request.extensions_mut().insert(session);
    }
    Ok(next.run(request).await)
}

/// Why a request is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// None of the allowed methods.
    Method,
    /// No name of ours.
    Host,
    /// Another site's.
    Origin,
    /// No session.
    Session,
    /// A token that is not ours.
    WrongToken,
    /// Too many of those.
    TooMany,
    /// No form.
    NoForm,
    /// Too large a form.
    TooLarge,
    /// A form that is not of this session.
    Csrf,
    /// It took too long to arrive.
    Slow,
    /// The system has no random numbers.
    NoRandom,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "There is no such method here."),
            Self::Host => (StatusCode::MISDIRECTED_REQUEST, "This server does not answer to that name."),
            Self::Origin => (StatusCode::FORBIDDEN, "That came from another page than ours."),
            Self::Session => (
                StatusCode::UNAUTHORIZED,
                "Open the address that `rlaif review` has printed; it changes each time it is started.",
            ),
            Self::WrongToken => (
                StatusCode::FORBIDDEN,
                "That address is not the one that `rlaif review` has printed; it changes each time it is started.",
            ),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "Too many wrong addresses; wait a minute."),
            Self::NoForm => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "That is no form."),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "That is more than a form may hold."),
            Self::Csrf => {
                (StatusCode::FORBIDDEN, "That form is not of this session. Go back and load the page again.")
            }
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "That took too long."),
            Self::NoRandom => (StatusCode::INTERNAL_SERVER_ERROR, "The system gives no random numbers."),
        };
        let mut response = Message::new(status, words).into_response();
        if self == Self::Method {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
        }
        response
    }
}

/// 256 random bits of the system, in hex.
fn secret() -> Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Compared by their hashes, in constant time.
fn same(shown: &str, known: &str) -> bool {
    blake3::hash(shown.as_bytes()) == blake3::hash(known.as_bytes())
}

/// A header that stands there once.
fn one(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.to_str().ok()).flatten()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
