//! Batches of both providers: they wait, advance when they are asked for or with time, and end in every way in which batches
//! end. Results come in shuffled order, as nobody promises any.

pub(crate) mod anthropic;
pub(crate) mod openai;

use crate::ask::{Ask, Provider};
use crate::call::{Core, index};
use crate::chaos::{Group, Mode};
use crate::ledger::Entry;
use crate::options::Options;
use crate::reply::{Case, Reply};
use crate::server::error_response;
use crate::wire::{ApiError, invalid};
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use rand::RngExt;
use rand::seq::SliceRandom;
use rlaif_core::money::{MicroUsd, Price, ServiceTier, Usage};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Every file and batch.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    shelves: Mutex<Shelves>,
}

#[derive(Debug, Default)]
pub(crate) struct Shelves {
    /// Files by id.
    pub files: HashMap<String, Stored>,
    /// OpenAI's batches in the order of their creation.
    pub openai: BTreeMap<u64, openai::Batch>,
    /// Anthropic's batches in the order of their creation.
    pub anthropic: BTreeMap<u64, anthropic::Batch>,
    created: u64,
}

/// A file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub name: String,
    pub purpose: String,
    pub created: u64,
    pub owner: Owner,
    pub bytes: Arc<Vec<u8>>,
}

/// Whose a file or batch is: a hash of the key. Another key does not see it.
pub(crate) type Owner = [u8; 32];

pub(crate) fn owner(headers: &HeaderMap) -> Owner {
    *blake3::hash(crate::call::key(headers).unwrap_or_default().as_bytes()).as_bytes()
}

impl Batches {
    /// A panic elsewhere leaves the shelves between two requests.
    pub(crate) fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    /// A number that no file or batch has.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.created += 1;
        self.created
    }

    /// Stores a file under a new id.
    pub(crate) fn store(&mut self, file: Stored) -> String {
        let id = format!("file-mock{:08}", self.next_number());
        self.files.insert(id.clone(), file);
        id
    }
}

/// A reply that says why not; boxed, since it is rare and large.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Response<Body>>);

impl Refusal {
    pub(crate) fn new(provider: Provider, status: StatusCode, error: &ApiError<'_>) -> Self {
        Self(Box::new(error_response(provider, status, error)))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        *self.0
    }
}

/// What a handler of files or batches gives.
pub(crate) type Answer = Result<Response<Body>, Refusal>;

/// How far a batch is: by how often it was asked for, and by time; the slower counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    created: Instant,
    polls: u32,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { created: Instant::now(), polls: 0 }
    }

    /// Counts one more time that the batch was asked for.
    pub(crate) fn poll(&mut self) {
        self.polls = self.polls.saturating_add(1);
    }

    /// The step that it has reached, of `steps`.
    pub(crate) fn step(&self, options: &Options, steps: u32) -> u32 {
        let by_polls = self.polls / options.batch_polls.max(1);
        let by_time = match options.batch_delay {
            Duration::ZERO => steps,
            delay => {
                let share = self.created.elapsed().as_secs_f64() / delay.as_secs_f64();
                // Saturates at the ends of u32.
                (share * f64::from(steps)) as u32
            }
        };
        by_polls.min(by_time).min(steps)
    }
}

/// One request of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub custom_id: String,
    /// The request as it stands in the file, byte for byte.
    pub body: Box<RawValue>,
}

/// What became of it.
#[derive(Debug, Clone)]
pub(crate) enum Done {
    /// A status and a body, as a single call would have got.
    Replied(Reply, String),
    /// It took too long, as the provider's own words say it.
    TimedOut,
    /// Its turn never came.
    Left,
}

/// Judges the requests of a batch, and records and bills them. Of a batch that ends early, half were done.
pub(crate) fn work(
    core: &Core,
    provider: Provider,
    batch: &str,
    items: &[Item],
    all: bool,
) -> Vec<(String, Done)> {
    let seed = core.options.seed;
    let mut done: Vec<(String, Done)> = items
        .iter()
        .map(|item| {
            let request = blake3::hash(item.body.get().as_bytes());
            // In another batch its turn may come.
            let place = blake3::hash(format!("{batch}\n{request}").as_bytes());
            let mut turn = rlaif_core::seed::stream(seed, "mock/turn", index(&place));
            let came = all || turn.random_bool(0.5);
            (item.custom_id.clone(), one(core, provider, batch, item, &request, came))
        })
        .collect();
    let order = blake3::hash(batch.as_bytes());
    done.shuffle(&mut rlaif_core::seed::stream(seed, "mock/shuffle", index(&order)));
    done
}

fn one(
    core: &Core,
    provider: Provider,
    batch: &str,
    item: &Item,
    request: &blake3::Hash,
    came: bool,
) -> Done {
    let endpoint = match provider {
        Provider::OpenAi => "chat_batch",
        Provider::Anthropic => "messages_batch",
    };
    let record = |mut entry: Entry, reply: Option<&Reply>| {
        entry.batch = Some(batch.to_owned());
        entry.custom_id = Some(item.custom_id.clone());
        entry.written = reply.is_some();
        if let Some(reply) = reply {
            entry.status = Some(reply.status);
            entry.billed = reply.billed;
            entry.usage = reply.usage;
            entry.cost = if reply.billed { batch_cost(&core.price, &reply.usage) } else { MicroUsd::ZERO };
            entry.said = reply.said();
            entry.position_biased = reply.opinion.is_some_and(|opinion| opinion.position_biased);
        }
        core.ledger.record(entry);
    };
    if !came {
        record(Entry::new(endpoint, request, core.chaos.came(request), Mode::Expired), None);
        return Done::Left;
    }
    let read = serde_json::from_str::<Value>(item.body.get()).map_err(|error| error.to_string());
    let ask = read.and_then(|body| {
        let ask = Ask::read(provider, &body, None).and_then(|ask| ask.to_server(&core.options));
        ask.map_err(|bad| bad.message)
    });
    let (entry, reply) = match ask {
        Err(message) => {
            let entry = Entry::new(endpoint, request, core.chaos.came(request), Mode::BadRequest);
            let reply = Reply::error(provider, 400, &invalid(&message, ""), &entry.request[..16]);
            (entry, reply)
        }
        Ok(ask) => {
            let (attempt, mode) = core.chaos.next(request);
            // Nothing goes over the wire here: what would break a connection is work that took too long.
            if mode.group() == Group::Transient {
                record(Entry::new(endpoint, request, attempt, mode), None);
                return Done::TimedOut;
            }
            let entry = Entry::new(endpoint, request, attempt, mode);
            let case = Case {
                options: &core.options,
                ask: &ask,
                index: index(request),
                attempt,
                mode,
                id: &entry.request[..16],
                service_tier: "batch",
            };
            let reply = case.reply();
            // A provider's own results are JSON, whatever a proxy may do to single calls.
            if serde_json::from_str::<&RawValue>(&reply.body).is_err() {
                record(Entry::new(endpoint, request, attempt, mode), None);
                return Done::TimedOut;
            }
            (entry, reply)
        }
    };
    let id = format!("{}{}", &entry.request[..16], entry.attempt);
    record(entry, Some(&reply));
    Done::Replied(reply, id)
}

/// Batches cost half of the list price.
pub(crate) fn batch_cost(price: &Price, usage: &Usage) -> MicroUsd {
    // A price in dollars has one for batches.
    price
        .cost(&Usage { tier: ServiceTier::Batch, ..*usage })
        .expect("a price made from dollars has one of batches")
}

/// A page of a list: the items after the cursor, newest first, and whether there are more.
pub(crate) fn page<T>(items: Vec<(String, T)>, query: &ListQuery) -> (Vec<(String, T)>, bool) {
    let after = query.after.as_ref().or(query.after_id.as_ref());
    let start = match after {
        None => 0,
        Some(id) => items.iter().position(|(known, _)| known == id).map_or(items.len(), |at| at + 1),
    };
    let limit = query.limit.unwrap_or(20).clamp(1, 100);
    let has_more = items.len() > start + limit;
    (items.into_iter().skip(start).take(limit).collect(), has_more)
}

/// What a list is asked with.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct ListQuery {
    limit: Option<usize>,
    /// OpenAI's cursor.
    after: Option<String>,
    /// Anthropic's cursor.
    after_id: Option<String>,
}
