//! One call over HTTP: read, limited, judged, delayed, recorded, sent.

use crate::ask::{Ask, Provider};
use crate::chaos::{Chaos, Mode};
use crate::connection::Connection;
use crate::ledger::{Entry, Ledger};
use crate::limits::{Limits, Verdict};
use crate::options::Options;
use crate::reply::{Case, Reply, limited};
use crate::wire::{ApiError, invalid};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use rand::RngExt;
use rlaif_core::money::Price;
use std::time::Instant;

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Core {
    pub options: Options,
    pub price: Price,
    pub ledger: Ledger,
    pub chaos: Chaos,
    pub limits: Limits,
    pub batches: crate::batch::Batches,
    /// `http://127.0.0.1:PORT`
    pub url: String,
}

/// A call as it came.
pub(crate) struct Incoming<'a> {
    pub provider: Provider,
    /// Azure's name of the model in the path.
    pub deployment: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub body: &'a Bytes,
}

/// The first 8 bytes of a hash, from which a request's random streams are derived.
pub(crate) fn index(request: &blake3::Hash) -> u64 {
    u64::from_le_bytes(request.as_bytes()[..8].try_into().expect("8 of 32 bytes"))
}

impl Core {
    /// Answers a call. Dropping the future (the client went away) records the call with what was decided by then: a provider
    /// that has read a request does the work and bills it, whether anyone still listens or not.
    pub(crate) async fn answer(&self, incoming: Incoming<'_>, connection: &Connection) -> Response<Body> {
        let started = Instant::now();
        let request = blake3::hash(incoming.body);
        let endpoint = match incoming.provider {
            Provider::OpenAi => "chat",
            Provider::Anthropic => "messages",
        };
        let (mut entry, mut reply, mode) = self.decide(&incoming, &request, endpoint, started);
        entry.status = Some(reply.status);
        entry.billed = reply.billed;
        entry.usage = reply.usage;
        if reply.billed {
            // Single calls are served at the list price.
            entry.cost = self.price.cost(&reply.usage).expect("the mock has a price for every tier it names");
        }
        entry.said = reply.said();
        entry.position_biased = reply.opinion.is_some_and(|opinion| opinion.position_biased);
        let id = format!("{}{}", &entry.request[..16], entry.attempt);
        let call = self.ledger.begin(entry);
        if mode.takes_time() {
            let mut rng = rlaif_core::seed::stream(self.options.seed, "mock/latency", index(&request));
            let latency = self.options.latency.at(rng.random());
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
        }
        if let Some(hang) = reply.hang {
            tokio::time::sleep(hang).await;
        }
        let ms = started.elapsed().as_millis().to_string();
        match incoming.provider {
            Provider::OpenAi => {
                reply.headers.push(("x-request-id", format!("req_{id}")));
                reply.headers.push(("openai-processing-ms", ms));
            }
            Provider::Anthropic => reply.headers.push(("request-id", format!("req_{id}"))),
        }
        connection.promise(call, reply.body.len(), reply.broken);
        response(reply)
    }

    fn decide(
        &self,
        incoming: &Incoming<'_>,
        request: &blake3::Hash,
        endpoint: &str,
        now: Instant,
    ) -> (Entry, Reply, Mode) {
        let provider = incoming.provider;
        let early = |mode: Mode, make: &dyn Fn(&str) -> Reply| {
            let entry = Entry::new(endpoint, request, self.chaos.came(request), mode);
            let reply = make(&format!("{}{}", &entry.request[..16], entry.attempt));
            (entry, reply, mode)
        };
        if let Some(refused) = self.refuses_key(incoming.headers) {
            return early(Mode::Unauthorized, &|id| Reply::error(provider, 401, &refused, id));
        }
        let ask = match read(incoming, &self.options) {
            Ok(ask) => ask,
            Err((message, param)) => {
                return early(Mode::BadRequest, &|id| {
                    Reply::error(provider, 400, &invalid(&message, param), id)
                });
            }
        };
        let (verdict, headers) =
            self.limits.take(provider, ask.prompt_tokens + ask.max_tokens.unwrap_or(0), now);
        if let Verdict::Wait(wait, what) = verdict {
            let (entry, mut reply, mode) =
                early(Mode::Limited, &|id| limited(provider, &ask.model, what, wait.as_secs_f64(), id));
            // Whole seconds, rounded up as providers do, and the exact time beside it.
            reply.headers.push(("retry-after", format!("{}", wait.as_secs_f64().ceil())));
            if provider == Provider::OpenAi {
                reply.headers.push(("retry-after-ms", format!("{}", (wait.as_secs_f64() * 1000.0).ceil())));
            }
            reply.headers.extend(headers);
            return (entry, reply, mode);
        }
        let (attempt, drawn) = self.chaos.next(request);
        let too_long = ask.prompt_tokens > self.options.context_tokens;
        let mode = if too_long { Mode::ContextOverflow } else { drawn };
        let entry = Entry::new(endpoint, request, attempt, mode);
        let id = format!("{}{attempt}", &entry.request[..16]);
        let case = Case {
            options: &self.options,
            ask: &ask,
            index: index(request),
            attempt,
            mode,
            id: &id,
            service_tier: "standard",
        };
        let mut reply = case.reply();
        reply.headers.extend(headers);
        (entry, reply, mode)
    }

    /// The error for a wrong key, where one is required.
    pub(crate) fn refuses_key(&self, headers: &HeaderMap) -> Option<ApiError<'static>> {
        let required = self.options.require_key.as_deref()?;
        (key(headers) != Some(required)).then_some(ApiError {
            message: "Incorrect API key provided.",
            kind: "invalid_request_error",
            code: "invalid_api_key",
            param: "",
            anthropic: "authentication_error",
        })
    }
}

/// The key of a call: OpenAI's bearer token, Anthropic's or Azure's header.
pub(crate) fn key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| text("x-api-key")).or_else(|| text("api-key"))
}

fn read(incoming: &Incoming<'_>, options: &Options) -> Result<Ask, (String, &'static str)> {
    if incoming.provider == Provider::Anthropic && !incoming.headers.contains_key("anthropic-version") {
        return Err(("anthropic-version: header is required".into(), "anthropic-version"));
    }
    let value = serde_json::from_slice(incoming.body)
        .map_err(|error| (format!("We could not parse the JSON body of your request: {error}"), "body"))?;
    Ask::read(incoming.provider, &value, incoming.deployment)
        .and_then(|ask| ask.to_server(options))
        .map_err(|bad| (bad.message, bad.param))
}

fn response(reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(reply.content_type));
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}
