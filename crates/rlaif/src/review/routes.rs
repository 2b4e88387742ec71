//! What the pages do. A verdict is in the ledger before its answer leaves.

use super::guard::{self, CSP_REPORT, Form, Refusal, START, Session};
use super::pages::{self, Message, page};
use super::queues::a_left;
use super::{App, agreement, markup};
use crate::progress::say;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rlaif_core::clock::now_ms;
use rlaif_core::people::HumanChoice;
use rlaif_store::store::NewHumanVerdict;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Longest note in characters.
const LONGEST_NOTE: usize = 4000;

/// Longest name in characters.
const LONGEST_NAME: usize = 40;

/// All pages behind the guard.
pub fn pages(app: Arc<App>) -> Router {
    Router::new()
        .route(START, get(start))
        .route("/style.css", get(|| async { pages::file("text/css; charset=utf-8", pages::STYLE) }))
        .route("/review.js", get(|| async { pages::file("text/javascript; charset=utf-8", pages::SCRIPT) }))
        .route("/", get(queues))
        .route("/name", get(name).post(set_name))
        .route("/pair", get(pair))
        .route("/verdict", post(verdict))
        .route("/undo", post(undo))
        .route("/agreement", get(show_agreement))
        .route(CSP_REPORT, post(stopped_by_policy))
        .fallback(|| async { Message::new(StatusCode::NOT_FOUND, "There is no such page.") })
        .method_not_allowed_fallback(|| async { Refusal::Method })
        .layer(from_fn_with_state(Arc::clone(&app), guard::guard))
        .with_state(app)
}

/// An answer, or one that says why there is none.
type Answer = Result<Response, Response>;

async fn start(State(app): State<Arc<App>>, query: RawQuery) -> Answer {
    let token = fields(&query).remove("token").unwrap_or_default();
    let cookie = app.guard.start(&token).map_err(IntoResponse::into_response)?;
    Ok(([(header::SET_COOKIE, cookie)], Message::go_on()).into_response())
}

async fn name(Extension(session): Extension<Session>) -> Response {
    page(&pages::NamePage { csrf: session.csrf, reviewer: session.reviewer, problem: "" })
}

async fn set_name(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    Extension(form): Extension<Form>,
) -> Response {
    let name = form.get("name").split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = |c: char| c.is_alphanumeric() || " .-_@'".contains(c);
    let problem = match name.chars().count() {
        0 => "A name is needed: it keeps your verdicts apart from those of others.",
        n if n > LONGEST_NAME => "That name is too long.",
        _ if !name.chars().all(shown) => "A name is made of letters, digits, spaces and . - _ @ '",
        _ => {
            app.guard.set_reviewer(&session, &name);
            return see("/");
        }
    };
    page(&pages::NamePage { csrf: session.csrf, reviewer: session.reviewer, problem })
}

async fn queues(State(app): State<Arc<App>>, Extension(session): Extension<Session>) -> Answer {
    let reviewer = named(&session)?;
    let desk = app.desk.lock().await;
    let line = |queue: &super::queues::Queue| pages::QueueLine {
        link: encode(&queue.name),
        title: queue.title.clone(),
        about: queue.about.clone(),
        progress: desk.progress(queue, &reviewer),
    };
    let queues = desk.queues().queues.iter().map(line).collect();
    Ok(page(&pages::QueuesPage { reviewer, queues, ratings: app.config.review.ratings_per_pair }))
}

async fn pair(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    query: RawQuery,
) -> Answer {
    let reviewer = named(&session)?;
    let fields = fields(&query);
    let name = fields.get("queue").map(String::as_str).unwrap_or_default();
    let mut desk = app.desk.lock().await;
    let Some(queue) = desk.queues().queue(name).cloned() else { return Err(no_queue()) };
    let wanted = fields.get("pair").map(String::as_str);
    let handed = desk.next(name, &reviewer, wanted, now_ms());
    let progress = desk.progress(&queue, &reviewer);
    let item = handed.as_ref().map(|handed| desk.queues().items[handed.place].clone());
    drop(desk);
    let why = handed.and_then(|handed| queue.reasons.get(&handed.place).cloned()).unwrap_or_default();
    let (csrf, title) = (session.csrf, queue.title);
    let Some(item) = item else {
        return Ok(page(&pages::DonePage { csrf, reviewer, queue: queue.name, title, progress }));
    };
    let texts = app.store.pair_texts(&item.pair.id).await.map_err(broken)?;
    let (prompt, a, b) = texts.ok_or_else(no_queue)?;
    let (left, right) = if a_left(app.config.run.seed, &reviewer, &item.key) { (a, b) } else { (b, a) };
    let criteria = app.config.label.criteria.iter().enumerate().map(|(i, criterion)| pages::CriterionField {
        field: format!("c{i}"),
        name: criterion.name.clone(),
        about: criterion.description.clone().unwrap_or_default(),
    });
    Ok(page(&pages::PairPage {
        csrf,
        reviewer,
        queue: queue.name,
        title,
        why,
        pair: item.key.hash,
        turns: prompt.messages().into_iter().map(|turn| (turn.role, markup::plain(&turn.content))).collect(),
        diff: markup::word_diff(&left, &right),
        left: markup::markdown(&left),
        right: markup::markdown(&right),
        criteria: criteria.collect(),
        pace: pages::pace(&progress),
        progress,
    }))
}

async fn verdict(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    Extension(form): Extension<Form>,
) -> Answer {
    let reviewer = named(&session)?;
    let queue = form.get("queue");
    let mut desk = app.desk.lock().await;
    let Some(item) = desk.find(queue, form.get("pair")).cloned() else { return Err(no_queue()) };
    let a_left = a_left(app.config.run.seed, &reviewer, &item.key);
    let bad = || Message::new(StatusCode::BAD_REQUEST, "That is no verdict.").into_response();
    let choice = choice(form.get("choice"), a_left).ok_or_else(bad)?;
    let mut criteria = BTreeMap::new();
    for (i, criterion) in app.config.label.criteria.iter().enumerate() {
        let said = form.get(&format!("c{i}"));
        if !said.is_empty() {
            criteria.insert(criterion.name.clone(), self::choice(said, a_left).ok_or_else(bad)?);
        }
    }
    let note = form.get("note").trim();
    if note.chars().count() > LONGEST_NOTE {
        return Err(Message::new(StatusCode::BAD_REQUEST, "That note is too long.").into_response());
    }
    let texts = app.store.pair_texts(&item.pair.id).await.map_err(broken)?;
    let (prompt, a, b) = texts.ok_or_else(no_queue)?;
    let judged_ms = now_ms();
    let shown_ms = desk.shown(&item.key.hash, &reviewer).unwrap_or(judged_ms);
    let new = NewHumanVerdict {
        prompt: &prompt,
        a: &a,
        b: &b,
        reviewer: &reviewer,
        queue,
        a_left,
        choice,
        criteria: &criteria,
        note: (!note.is_empty()).then_some(note),
        shown_ms,
        judged_ms,
    };
    app.store.put_human_verdict(&new).await.map_err(broken)?;
    let choice = if item.key.a_first { choice } else { choice.swapped() };
    desk.say(&item.key.hash, &reviewer, choice, judged_ms - shown_ms);
    Ok(see(&format!("/pair?queue={}", encode(queue))))
}

async fn undo(
    State(app): State<Arc<App>>,
    Extension(session): Extension<Session>,
    Extension(form): Extension<Form>,
) -> Answer {
    let reviewer = named(&session)?;
    let mut desk = app.desk.lock().await;
    let Some(undone) = app.store.undo_human_verdict(&reviewer, now_ms()).await.map_err(broken)? else {
        return Ok(see(&format!("/pair?queue={}", encode(form.get("queue")))));
    };
    desk.unsay(&undone.pair_key, &undone.queue, &reviewer, now_ms());
    Ok(see(&format!("/pair?queue={}&pair={}", encode(&undone.queue), undone.pair_key)))
}

async fn show_agreement(State(app): State<Arc<App>>, Extension(session): Extension<Session>) -> Answer {
    let reviewer = named(&session)?;
    let audit = app.desk.lock().await.queues().audit_order();
    let found = agreement::agreement(&app.store, &app.config, &audit).await.map_err(broken)?;
    Ok(page(&pages::AgreementPage { reviewer, found }))
}

/// A browser's word that a page tried to load or run something: it did not, but somebody should know.
async fn stopped_by_policy(State(app): State<Arc<App>>, report: Bytes) -> StatusCode {
    if app.guard.note_stopped() {
        let words: String = String::from_utf8_lossy(&report).chars().take(300).collect();
        say(&format!(
            "warning: review: a browser stopped what a page tried to load or run: {}",
            words.escape_debug()
        ));
    }
    StatusCode::NO_CONTENT
}

/// A side as a choice of a (first) and b (second).
fn choice(word: &str, a_left: bool) -> Option<HumanChoice> {
    Some(match (word, a_left) {
        ("left", true) | ("right", false) => HumanChoice::First,
        ("left", false) | ("right", true) => HumanChoice::Second,
        ("tie", _) => HumanChoice::Tie,
        ("skip", _) => HumanChoice::Skip,
        _ => return None,
    })
}

/// Who sits there; who has not said so is asked.
#[expect(clippy::result_large_err, reason = "a response is what a handler answers with")]
fn named(session: &Session) -> Result<String, Response> {
    if session.reviewer.is_empty() { Err(see("/name")) } else { Ok(session.reviewer.clone()) }
}

fn no_queue() -> Response {
    Message::new(StatusCode::NOT_FOUND, "There is no such pair or queue.").into_response()
}

/// What is wrong with the ledger is for the terminal: a message names files of this machine.
fn broken(error: impl Into<anyhow::Error>) -> Response {
    say(&format!("error: review: {:#}", error.into()));
    let words =
        "The ledger cannot be read or written; the terminal says why. What was judged before is kept.";
    Message::new(StatusCode::INTERNAL_SERVER_ERROR, words).into_response()
}

/// A redirect after a form.
fn see(to: &str) -> Response {
    match HeaderValue::from_str(to) {
        Ok(to) => (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response(),
        Err(_) => no_queue(),
    }
}

fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn fields(RawQuery(query): &RawQuery) -> HashMap<String, String> {
    form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()).into_owned().collect()
}
