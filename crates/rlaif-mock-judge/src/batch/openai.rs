//! OpenAI's files and batches.

use super::{Answer, Done, Item, ListQuery, Owner, Progress, Refusal, Shelves, Stored, owner, page, work};
use crate::ask::Provider;
use crate::call::Core;
use crate::chaos::Mode;
use crate::ledger::Entry;
use crate::options::BatchEnd;
use crate::wire::{ApiError, invalid, not_found, unix_seconds};
use axum::Json;
use axum::body::Bytes;
use axum::extract::multipart::{Multipart, MultipartError};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// OpenAI's limits of a batch file.
const MAX_LINES: usize = 50_000;
/// In bytes.
pub(crate) const MAX_FILE: usize = 200 << 20;

/// A batch.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    owner: Owner,
    input_file: String,
    metadata: Value,
    created: u64,
    progress: Progress,
    items: Arc<Vec<Item>>,
    /// What is wrong with the input file; such a batch fails.
    errors: Vec<Value>,
    cancelling: bool,
    end: Option<End>,
}

#[derive(Debug, Clone)]
struct End {
    status: &'static str,
    at: u64,
    output_file: Option<String>,
    error_file: Option<String>,
    completed: usize,
    failed: usize,
}

fn refuse(status: StatusCode, error: &ApiError<'_>) -> Refusal {
    Refusal::new(Provider::OpenAi, status, error)
}

fn missing(what: &str, id: &str) -> Refusal {
    refuse(StatusCode::NOT_FOUND, &not_found(&format!("No such {what} object: {id}")))
}

fn allowed(core: &Core, headers: &HeaderMap) -> Result<Owner, Refusal> {
    match core.refuses_key(headers) {
        Some(error) => Err(refuse(StatusCode::UNAUTHORIZED, &error)),
        None => Ok(owner(headers)),
    }
}

/// `POST /v1/files`
pub(crate) async fn upload(State(core): State<Arc<Core>>, headers: HeaderMap, mut form: Multipart) -> Answer {
    let owner = allowed(&core, &headers)?;
    let unreadable =
        |error: MultipartError| refuse(StatusCode::BAD_REQUEST, &invalid(&error.body_text(), "file"));
    let (mut purpose, mut file) = (None, None);
    while let Some(field) = form.next_field().await.map_err(unreadable)? {
        match field.name() {
            Some("purpose") => purpose = Some(field.text().await.map_err(unreadable)?),
            Some("file") => {
                let name = field.file_name().unwrap_or("file").to_owned();
                file = Some((name, field.bytes().await.map_err(unreadable)?));
            }
            _ => {}
        }
    }
    let Some((name, bytes)) = file else {
        return Err(refuse(StatusCode::BAD_REQUEST, &invalid("'file' is a required property", "file")));
    };
    match purpose.as_deref() {
        Some("batch") => {}
        Some(other) => {
            let message = format!("the mock judge keeps files with purpose 'batch' only, got '{other}'");
            return Err(refuse(StatusCode::BAD_REQUEST, &invalid(&message, "purpose")));
        }
        None => {
            let error = invalid("'purpose' is a required property", "purpose");
            return Err(refuse(StatusCode::BAD_REQUEST, &error));
        }
    }
    let stored = Stored {
        name,
        purpose: "batch".into(),
        created: unix_seconds(),
        owner,
        bytes: Arc::new(bytes.to_vec()),
    };
    let mut shelves = core.batches.shelves();
    let id = shelves.store(stored.clone());
    Ok(Json(file_object(&id, &stored)).into_response())
}

/// `GET /v1/files`
pub(crate) async fn files(
    State(core): State<Arc<Core>>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Answer {
    let owner = allowed(&core, &headers)?;
    let mut files: Vec<(String, Stored)> = {
        let shelves = core.batches.shelves();
        let own = shelves.files.iter().filter(|(_, file)| file.owner == owner);
        own.map(|(id, file)| (id.clone(), file.clone())).collect()
    };
    // Ids are numbered, so that their order is the order of creation.
    files.sort_by(|a, b| b.0.cmp(&a.0));
    let (files, has_more) = page(files, &query);
    let data: Vec<Value> = files.iter().map(|(id, file)| file_object(id, file)).collect();
    Ok(Json(json!({"object": "list", "data": data, "has_more": has_more})).into_response())
}

/// `GET /v1/files/{id}`
pub(crate) async fn file(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let file = find_file(&core, &id, &headers)?;
    Ok(Json(file_object(&id, &file)).into_response())
}

/// `GET /v1/files/{id}/content`
pub(crate) async fn content(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let file = find_file(&core, &id, &headers)?;
    let mut entry = Entry::new("download", &blake3::hash(id.as_bytes()), 1, Mode::Download);
    (entry.status, entry.written) = (Some(200), true);
    core.ledger.record(entry);
    Ok(([("content-type", "application/octet-stream")], file.bytes.to_vec()).into_response())
}

fn find_file(core: &Core, id: &str, headers: &HeaderMap) -> Result<Stored, Refusal> {
    let owner = allowed(core, headers)?;
    let shelves = core.batches.shelves();
    let file = shelves.files.get(id).filter(|file| file.owner == owner);
    file.cloned().ok_or_else(|| missing("File", id))
}

fn file_object(id: &str, file: &Stored) -> Value {
    json!({"id": id, "object": "file", "bytes": file.bytes.len(), "created_at": file.created,
        "filename": file.name, "purpose": file.purpose, "status": "processed"})
}

/// `POST /v1/batches`
pub(crate) async fn create(State(core): State<Arc<Core>>, headers: HeaderMap, body: Bytes) -> Answer {
    let owner = allowed(&core, &headers)?;
    let bad = |message: &str, param: &str| refuse(StatusCode::BAD_REQUEST, &invalid(message, param));
    let body: Value = serde_json::from_slice(&body)
        .map_err(|error| bad(&format!("We could not parse the JSON body of your request: {error}"), ""))?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let input = text("input_file_id").ok_or_else(|| bad("'input_file_id' is required", "input_file_id"))?;
    if text("endpoint") != Some("/v1/chat/completions") {
        return Err(bad("the mock judge has batches of '/v1/chat/completions' only", "endpoint"));
    }
    if text("completion_window") != Some("24h") {
        return Err(bad("'completion_window' must be '24h'", "completion_window"));
    }
    let metadata = body.get("metadata").cloned().unwrap_or(Value::Null);
    check_metadata(&metadata).map_err(|message| bad(&message, "metadata"))?;
    let mut shelves = core.batches.shelves();
    let file = shelves.files.get(input).filter(|file| file.owner == owner).cloned();
    let file = file.ok_or_else(|| missing("File", input))?;
    let (items, mut errors) = read_lines(&file.bytes);
    if core.options.batch_end == BatchEnd::Failed && errors.is_empty() {
        errors.push(json!({"code": "token_limit_exceeded", "line": null, "param": null, "message":
            format!("Enqueued token limit reached for {} in organization org-mock.", core.options.model)}));
    }
    let batch = Batch {
        owner,
        input_file: input.to_owned(),
        metadata,
        created: unix_seconds(),
        progress: Progress::new(),
        items: Arc::new(items),
        errors,
        cancelling: false,
        end: None,
    };
    let number = shelves.next_number();
    let object = batch.object(number, "validating");
    shelves.openai.insert(number, batch);
    Ok(Json(object).into_response())
}

/// At most 16 pairs of texts, of 64 and 512 characters.
fn check_metadata(metadata: &Value) -> Result<(), String> {
    let none = Map::new();
    let pairs = match metadata {
        Value::Null => &none,
        Value::Object(pairs) => pairs,
        _ => return Err("'metadata' must be an object".into()),
    };
    if pairs.len() > 16 {
        return Err(format!("'metadata' has {} pairs, at most 16 are allowed", pairs.len()));
    }
    for (key, value) in pairs {
        let fits = value.as_str().is_some_and(|value| value.chars().count() <= 512);
        if key.chars().count() > 64 || !fits {
            return Err(format!("'metadata.{key}' must be a text of at most 512 characters"));
        }
    }
    Ok(())
}

/// The requests of a file, and what is wrong with its lines.
fn read_lines(bytes: &[u8]) -> (Vec<Item>, Vec<Value>) {
    #[derive(serde::Deserialize)]
    struct Line {
        custom_id: String,
        method: String,
        url: String,
        body: Box<RawValue>,
    }
    let mut errors = Vec::new();
    let mut error = |code: &str, message: String, line: Option<usize>| {
        errors.push(json!({"code": code, "message": message, "param": null, "line": line}));
    };
    let mut items: Vec<Item> = Vec::new();
    let (mut ids, mut models) = (HashSet::new(), HashSet::new());
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let at = Some(number + 1);
        let line: Line = match serde_json::from_slice(line) {
            Ok(line) => line,
            Err(problem) => {
                error(
                    "invalid_json_line",
                    format!("This line is not parseable as valid JSON: {problem}"),
                    at,
                );
                continue;
            }
        };
        if line.method != "POST" || line.url != "/v1/chat/completions" {
            error("invalid_url", format!("'{} {}' is not the batch's endpoint", line.method, line.url), at);
        }
        if !ids.insert(line.custom_id.clone()) {
            error("duplicate_custom_id", format!("The custom_id '{}' is not unique.", line.custom_id), at);
        }
        let body: Result<Value, _> = serde_json::from_str(line.body.get());
        if let Some(model) = body.ok().and_then(|body| Some(body.get("model")?.as_str()?.to_owned())) {
            models.insert(model);
        }
        items.push(Item { custom_id: line.custom_id, body: line.body });
    }
    if items.is_empty() && errors.is_empty() {
        errors.push(
            json!({"code": "empty_file", "message": "The input file is empty.", "param": null, "line": null}),
        );
    } else if models.len() > 1 {
        errors.push(json!({"code": "mismatched_model", "param": "body.model", "line": null,
            "message": "The provided models are not all the same."}));
    } else if items.len() > MAX_LINES {
        errors.push(json!({"code": "too_many_tasks", "param": null, "line": null,
            "message": format!("The input file has {} requests, at most {MAX_LINES} are allowed.", items.len())}));
    }
    (items, errors)
}

/// `GET /v1/batches/{id}`: the batch as it is now, one step further if it was asked for often enough.
pub(crate) async fn retrieve(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let owner = allowed(&core, &headers)?;
    let mut shelves = core.batches.shelves();
    let (number, mut batch) = find(&shelves, &id, owner)?;
    let status = batch.advance(number, &core, &mut shelves);
    let object = batch.object(number, status);
    shelves.openai.insert(number, batch);
    Ok(Json(object).into_response())
}

/// `POST /v1/batches/{id}/cancel`
pub(crate) async fn cancel(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let owner = allowed(&core, &headers)?;
    let mut shelves = core.batches.shelves();
    let (number, mut batch) = find(&shelves, &id, owner)?;
    if let Some(end) = &batch.end {
        let message = format!("Cannot cancel a batch with status '{}'.", end.status);
        return Err(refuse(StatusCode::CONFLICT, &invalid(&message, "")));
    }
    batch.cancelling = true;
    batch.progress = Progress::new();
    let object = batch.object(number, "cancelling");
    shelves.openai.insert(number, batch);
    Ok(Json(object).into_response())
}

/// `GET /v1/batches`: newest first, with metadata; does not advance any.
pub(crate) async fn list(
    State(core): State<Arc<Core>>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Answer {
    let owner = allowed(&core, &headers)?;
    let batches: Vec<(String, Value)> = {
        let shelves = core.batches.shelves();
        let own = shelves.openai.iter().rev().filter(|(_, batch)| batch.owner == owner);
        own.map(|(&number, batch)| (name(number), batch.object(number, batch.status(&core)))).collect()
    };
    let (batches, has_more) = page(batches, &query);
    let ids: Vec<&String> = batches.iter().map(|(id, _)| id).collect();
    let (first, last) = (ids.first().copied().cloned(), ids.last().copied().cloned());
    let data: Vec<Value> = batches.into_iter().map(|(_, object)| object).collect();
    let body =
        json!({"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more});
    Ok(Json(body).into_response())
}

fn name(number: u64) -> String {
    format!("batch_mock{number:08}")
}

fn find(shelves: &Shelves, id: &str, owner: Owner) -> Result<(u64, Batch), Refusal> {
    let number = id.strip_prefix("batch_mock").and_then(|number| number.parse().ok());
    let found = number.and_then(|number: u64| Some((number, shelves.openai.get(&number)?.clone())));
    found.filter(|(_, batch)| batch.owner == owner).ok_or_else(|| missing("Batch", id))
}

impl Batch {
    fn status(&self, core: &Core) -> &'static str {
        match (&self.end, self.cancelling) {
            (Some(end), _) => end.status,
            (None, true) => "cancelling",
            (None, false) => ["validating", "in_progress", "finalizing", "finalizing"]
                [self.progress.step(&core.options, 3) as usize],
        }
    }

    /// Counts a poll, and ends the batch if its time has come.
    fn advance(&mut self, number: u64, core: &Core, shelves: &mut Shelves) -> &'static str {
        if self.end.is_some() {
            return self.status(core);
        }
        self.progress.poll();
        let steps = if self.cancelling { 1 } else { 3 };
        let step = self.progress.step(&core.options, steps);
        let fails = !self.errors.is_empty() && !self.cancelling && step > 0;
        if step < steps && !fails {
            return self.status(core);
        }
        let (status, all) = match (fails, self.cancelling, core.options.batch_end) {
            (true, ..) => ("failed", false),
            (_, true, _) => ("cancelled", false),
            (_, _, BatchEnd::Expired) => ("expired", false),
            _ => ("completed", true),
        };
        let done = match fails {
            true => Vec::new(),
            false => work(core, Provider::OpenAi, &name(number), &self.items, all),
        };
        let (mut output, mut errors) = (String::new(), String::new());
        let (mut completed, mut failed) = (0, 0);
        for (custom_id, done) in done {
            let id = format!("batch_req_{}", &blake3::hash(custom_id.as_bytes()).to_hex()[..16]);
            let (file, line) = match done {
                Done::Replied(reply, request_id) => {
                    // By hand, since a body with half a surrogate pair is no value that could be copied.
                    let line = format!(
                        r#"{{"id":{},"custom_id":{},"response":{{"status_code":{},"request_id":{},"body":{}}},"error":null}}"#,
                        json!(id),
                        json!(custom_id),
                        reply.status,
                        json!(format!("req_{request_id}")),
                        reply.body
                    );
                    if reply.status == 200 {
                        completed += 1;
                        (&mut output, line)
                    } else {
                        failed += 1;
                        (&mut errors, line)
                    }
                }
                unanswered => {
                    let (code, message) = match unanswered {
                        Done::TimedOut => ("request_timeout", "This request took too long."),
                        _ if self.cancelling => {
                            ("batch_cancelled", "This request was not executed: the batch was cancelled.")
                        }
                        _ => (
                            "batch_expired",
                            "This request could not be executed before the completion window expired.",
                        ),
                    };
                    failed += 1;
                    let error = json!({"code": code, "message": message});
                    let line = json!({"id": id, "custom_id": custom_id, "response": null, "error": error});
                    (&mut errors, line.to_string())
                }
            };
            file.push_str(&line);
            file.push('\n');
        }
        let mut store = |text: String, kind: &str| {
            (!text.is_empty()).then(|| {
                shelves.store(Stored {
                    name: format!("{}_{kind}.jsonl", name(number)),
                    purpose: "batch_output".into(),
                    created: unix_seconds(),
                    owner: self.owner,
                    bytes: Arc::new(text.into_bytes()),
                })
            })
        };
        let (output_file, error_file) = (store(output, "output"), store(errors, "error"));
        self.end = Some(End { status, at: unix_seconds(), output_file, error_file, completed, failed });
        status
    }

    fn object(&self, number: u64, status: &str) -> Value {
        let end = self.end.as_ref();
        let at = |wanted: &str| end.filter(|end| end.status == wanted).map(|end| end.at);
        let errors = (status == "failed").then(|| json!({"object": "list", "data": self.errors}));
        json!({
            "id": name(number),
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "errors": errors,
            "input_file_id": self.input_file,
            "completion_window": "24h",
            "status": status,
            "output_file_id": end.and_then(|end| end.output_file.clone()),
            "error_file_id": end.and_then(|end| end.error_file.clone()),
            "created_at": self.created,
            "expires_at": self.created + 86_400,
            "completed_at": at("completed"),
            "failed_at": at("failed"),
            "expired_at": at("expired"),
            "cancelled_at": at("cancelled"),
            "request_counts": {
                "total": if status == "validating" || status == "failed" { 0 } else { self.items.len() },
                "completed": end.map_or(0, |end| end.completed),
                "failed": end.map_or(0, |end| end.failed),
            },
            "metadata": self.metadata,
        })
    }
}
