//! Anthropic's message batches.

use super::{Answer, Done, Item, ListQuery, Owner, Progress, Refusal, Shelves, owner, page, work};
use crate::ask::Provider;
use crate::call::Core;
use crate::chaos::Mode;
use crate::ledger::Entry;
use crate::options::BatchEnd;
use crate::wire::{ApiError, invalid, not_found, rfc3339};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Anthropic's limit of a batch.
const MAX_REQUESTS: usize = 100_000;
/// In bytes.
pub(crate) const MAX_BODY: usize = 256 << 20;

/// A batch.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    owner: Owner,
    created: SystemTime,
    progress: Progress,
    items: Arc<Vec<Item>>,
    cancel_initiated: Option<SystemTime>,
    end: Option<End>,
}

#[derive(Debug, Clone)]
struct End {
    at: SystemTime,
    results: Arc<String>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    succeeded: usize,
    errored: usize,
    canceled: usize,
    expired: usize,
}

fn refuse(status: StatusCode, error: &ApiError<'_>) -> Refusal {
    Refusal::new(Provider::Anthropic, status, error)
}

fn bad(message: &str) -> Refusal {
    refuse(StatusCode::BAD_REQUEST, &invalid(message, ""))
}

fn allowed(core: &Core, headers: &HeaderMap) -> Result<Owner, Refusal> {
    if let Some(error) = core.refuses_key(headers) {
        return Err(refuse(StatusCode::UNAUTHORIZED, &error));
    }
    if !headers.contains_key("anthropic-version") {
        return Err(bad("anthropic-version: header is required"));
    }
    Ok(owner(headers))
}

/// `POST /v1/messages/batches`
pub(crate) async fn create(State(core): State<Arc<Core>>, headers: HeaderMap, body: Bytes) -> Answer {
    #[derive(serde::Deserialize)]
    struct Request {
        custom_id: String,
        params: Box<RawValue>,
    }
    #[derive(serde::Deserialize)]
    struct Create {
        requests: Vec<Request>,
    }
    let owner = allowed(&core, &headers)?;
    let create: Create = serde_json::from_slice(&body).map_err(|error| bad(&format!("requests: {error}")))?;
    if create.requests.is_empty() || create.requests.len() > MAX_REQUESTS {
        return Err(bad(&format!(
            "requests: a batch has 1 to {MAX_REQUESTS}, got {}",
            create.requests.len()
        )));
    }
    let mut ids = HashSet::new();
    for request in &create.requests {
        let fits = |id: &str| {
            (1..=64).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        if !fits(&request.custom_id) {
            return Err(bad("requests.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"));
        }
        if !ids.insert(&request.custom_id) {
            return Err(bad(&format!("requests.custom_id: `{}` is not unique", request.custom_id)));
        }
    }
    let items = create.requests.into_iter();
    let items = items.map(|request| Item { custom_id: request.custom_id, body: request.params }).collect();
    let batch = Batch {
        owner,
        created: SystemTime::now(),
        progress: Progress::new(),
        items: Arc::new(items),
        cancel_initiated: None,
        end: None,
    };
    let mut shelves = core.batches.shelves();
    let number = shelves.next_number();
    let object = batch.object(number, &core);
    shelves.anthropic.insert(number, batch);
    Ok(Json(object).into_response())
}

/// `GET /v1/messages/batches/{id}`
pub(crate) async fn retrieve(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let owner = allowed(&core, &headers)?;
    let mut shelves = core.batches.shelves();
    let (number, mut batch) = find(&shelves, &id, owner)?;
    batch.advance(number, &core);
    let object = batch.object(number, &core);
    shelves.anthropic.insert(number, batch);
    Ok(Json(object).into_response())
}

/// `POST /v1/messages/batches/{id}/cancel`
pub(crate) async fn cancel(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let owner = allowed(&core, &headers)?;
    let mut shelves = core.batches.shelves();
    let (number, mut batch) = find(&shelves, &id, owner)?;
    // Cancelling what has ended changes nothing.
    if batch.end.is_none() && batch.cancel_initiated.is_none() {
        batch.cancel_initiated = Some(SystemTime::now());
        batch.progress = Progress::new();
    }
    let object = batch.object(number, &core);
    shelves.anthropic.insert(number, batch);
    Ok(Json(object).into_response())
}

/// `GET /v1/messages/batches/{id}/results`
pub(crate) async fn results(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let owner = allowed(&core, &headers)?;
    let (_, batch) = find(&core.batches.shelves(), &id, owner)?;
    let Some(end) = batch.end else {
        return Err(refuse(
            StatusCode::NOT_FOUND,
            &not_found(&format!("Batch {id} has no available results.")),
        ));
    };
    let mut entry = Entry::new("download", &blake3::hash(id.as_bytes()), 1, Mode::Download);
    (entry.status, entry.written) = (Some(200), true);
    core.ledger.record(entry);
    Ok(([("content-type", "application/x-jsonl")], end.results.as_str().to_owned()).into_response())
}

/// `GET /v1/messages/batches`: newest first; does not advance any.
pub(crate) async fn list(
    State(core): State<Arc<Core>>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Answer {
    let owner = allowed(&core, &headers)?;
    let batches: Vec<(String, Value)> = {
        let shelves = core.batches.shelves();
        let own = shelves.anthropic.iter().rev().filter(|(_, batch)| batch.owner == owner);
        own.map(|(&number, batch)| (name(number), batch.object(number, &core))).collect()
    };
    let (batches, has_more) = page(batches, &query);
    let (first, last) = (batches.first().map(|(id, _)| id.clone()), batches.last().map(|(id, _)| id.clone()));
    let data: Vec<Value> = batches.into_iter().map(|(_, object)| object).collect();
    Ok(Json(json!({"data": data, "has_more": has_more, "first_id": first, "last_id": last})).into_response())
}

fn name(number: u64) -> String {
    format!("msgbatch_mock{number:08}")
}

fn find(shelves: &Shelves, id: &str, owner: Owner) -> Result<(u64, Batch), Refusal> {
    let number = id.strip_prefix("msgbatch_mock").and_then(|number| number.parse().ok());
    let found = number.and_then(|number: u64| Some((number, shelves.anthropic.get(&number)?.clone())));
    let own = found.filter(|(_, batch)| batch.owner == owner);
    own.ok_or_else(|| refuse(StatusCode::NOT_FOUND, &not_found(&format!("Batch {id} not found"))))
}

impl Batch {
    /// Counts a poll, and ends the batch if its time has come.
    fn advance(&mut self, number: u64, core: &Core) {
        if self.end.is_some() {
            return;
        }
        self.progress.poll();
        let steps = if self.cancel_initiated.is_some() { 1 } else { 3 };
        if self.progress.step(&core.options, steps) < steps {
            return;
        }
        let all = self.cancel_initiated.is_none() && core.options.batch_end != BatchEnd::Expired;
        let mut counts = Counts::default();
        let mut lines = String::new();
        let done: Vec<(String, Option<Done>)> = match core.options.batch_end {
            BatchEnd::Failed => self.items.iter().map(|item| (item.custom_id.clone(), None)).collect(),
            _ => {
                let done = work(core, Provider::Anthropic, &name(number), &self.items, all);
                done.into_iter().map(|(id, done)| (id, Some(done))).collect()
            }
        };
        let error = |kind: &str, message: &str| {
            let error = json!({"type": "error", "error": {"type": kind, "message": message}});
            json!({"type": "errored", "error": error}).to_string()
        };
        for (custom_id, done) in done {
            let result = match done {
                // By hand, since a body with half a surrogate pair is no value that could be copied.
                Some(Done::Replied(reply, _)) if reply.status == 200 => {
                    counts.succeeded += 1;
                    format!(r#"{{"type":"succeeded","message":{}}}"#, reply.body)
                }
                Some(Done::Replied(reply, _)) => {
                    counts.errored += 1;
                    format!(r#"{{"type":"errored","error":{}}}"#, reply.body)
                }
                Some(Done::Left) if self.cancel_initiated.is_some() => {
                    counts.canceled += 1;
                    json!({"type": "canceled"}).to_string()
                }
                Some(Done::Left) => {
                    counts.expired += 1;
                    json!({"type": "expired"}).to_string()
                }
                Some(Done::TimedOut) => {
                    counts.errored += 1;
                    error("api_error", "Internal server error")
                }
                None => {
                    counts.errored += 1;
                    error("overloaded_error", "Overloaded")
                }
            };
            lines.push_str(&format!("{{\"custom_id\":{},\"result\":{result}}}\n", json!(custom_id)));
        }
        self.end = Some(End { at: SystemTime::now(), results: Arc::new(lines), counts });
    }

    /// Counts move only when the whole batch has ended, as Anthropic says they do.
    fn object(&self, number: u64, core: &Core) -> Value {
        let id = name(number);
        let counts = self.end.as_ref().map(|end| end.counts).unwrap_or_default();
        let status = match (&self.end, self.cancel_initiated) {
            (Some(_), _) => "ended",
            (None, Some(_)) => "canceling",
            (None, None) => "in_progress",
        };
        let results_url = self.end.as_ref().map(|_| format!("{}/v1/messages/batches/{id}/results", core.url));
        json!({
            "id": id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {
                "processing": if self.end.is_some() { 0 } else { self.items.len() },
                "succeeded": counts.succeeded,
                "errored": counts.errored,
                "canceled": counts.canceled,
                "expired": counts.expired,
            },
            "created_at": rfc3339(self.created),
            "expires_at": rfc3339(self.created + Duration::from_secs(86_400)),
            "ended_at": self.end.as_ref().map(|end| rfc3339(end.at)),
            "cancel_initiated_at": self.cancel_initiated.map(rfc3339),
            "archived_at": null,
            "results_url": results_url,
        })
    }
}
