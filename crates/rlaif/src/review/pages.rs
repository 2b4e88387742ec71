//! What the pages show. Templates escape everything but what [`super::markup`] made.

use super::agreement::{Agreement, Row};
use super::desk::Progress;
use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use rlaif_core::stats::Interval;

/// The style of all pages.
pub const STYLE: &str =
    concat!(include_str!("../../templates/theme.css"), include_str!("../../templates/review/style.css"));

/// Keys; every page works without it.
pub const SCRIPT: &str = include_str!("../../templates/review/review.js");

/// One sentence, where there is nothing else to show.
#[derive(Template)]
#[template(path = "review/message.html")]
pub struct Message {
    status: StatusCode,
    words: String,
    refresh: bool,
}

impl Message {
    /// A message with its status.
    pub fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self { status, words: words.into(), refresh: false }
    }

    /// Goes on to the first page. A redirect would not do: where the address was a link on another page, the cookie that has just
    /// been set is sent only with what our own page asks for.
    pub fn go_on() -> Self {
        Self { refresh: true, ..Self::new(StatusCode::OK, "You are in.") }
    }
}

impl IntoResponse for Message {
    fn into_response(self) -> Response {
        (self.status, Html(self.render().unwrap_or_default())).into_response()
    }
}

/// Where people say who they are.
#[derive(Template)]
#[template(path = "review/name.html")]
pub struct NamePage {
    /// Of the session.
    pub csrf: String,
    /// Who it was so far.
    pub reviewer: String,
    /// What was wrong with the name.
    pub problem: &'static str,
}

/// The queues.
#[derive(Template)]
#[template(path = "review/queues.html")]
pub struct QueuesPage {
    /// Who sits there.
    pub reviewer: String,
    /// One line each.
    pub queues: Vec<QueueLine>,
    /// How many people judge each pair.
    pub ratings: usize,
}

/// A queue in the list.
pub struct QueueLine {
    /// Percent-encoded.
    pub link: String,
    /// For people.
    pub title: String,
    /// What is in it.
    pub about: String,
    /// How far it is.
    pub progress: Progress,
}

/// A pair.
#[derive(Template)]
#[template(path = "review/pair.html")]
pub struct PairPage {
    /// Of the session.
    pub csrf: String,
    /// Who sits there.
    pub reviewer: String,
    /// The queue's name.
    pub queue: String,
    /// The queue's title.
    pub title: String,
    /// Why the pair is in the queue; empty where the title says it.
    pub why: String,
    /// The hash of the pair's key.
    pub pair: String,
    /// Roles and turns, as HTML.
    pub turns: Vec<(String, String)>,
    /// As HTML.
    pub left: String,
    /// As HTML.
    pub right: String,
    /// Both with what differs marked, as HTML.
    pub diff: (String, String),
    /// What to look at.
    pub criteria: Vec<CriterionField>,
    /// How far the queue is.
    pub progress: Progress,
    /// "14 s a pair, about 20 minutes left".
    pub pace: String,
}

/// A criterion that can be judged by itself.
pub struct CriterionField {
    /// `c0`.
    pub field: String,
    /// Its name.
    pub name: String,
    /// What it means.
    pub about: String,
}

/// Nothing is left.
#[derive(Template)]
#[template(path = "review/done.html")]
pub struct DonePage {
    /// Of the session.
    pub csrf: String,
    /// Who sits there.
    pub reviewer: String,
    /// The queue's name.
    pub queue: String,
    /// The queue's title.
    pub title: String,
    /// How far the queue is.
    pub progress: Progress,
}

/// How far people agree.
#[derive(Template)]
#[template(path = "review/agreement.html")]
pub struct AgreementPage {
    /// Who sits there.
    pub reviewer: String,
    /// What was found.
    pub found: Agreement,
}

impl AgreementPage {
    fn known_bad(&self) -> String {
        self.found.known_bad.map_or(String::new(), |(share, n)| {
            format!("People preferred the known-bad response on {} of {n} pairs.", percent(&Some(share)))
        })
    }

    fn tables(&self) -> [(&'static str, &'static str, &[Row]); 3] {
        let people = "Pairs that both judged.";
        let audit =
            "On the random audit, as far as it is judged without a gap: what holds for all pairs of the run.";
        let all = "On every pair that people judged, many of them chosen because judges were unsure: no picture of the whole.";
        [
            ("People with each other", people, &self.found.people),
            ("Judges and people, random audit", audit, &self.found.audit),
            ("Judges and people, all judged pairs", all, &self.found.all),
        ]
    }
}

/// "71 % (58 to 82)".
pub fn percent(interval: &Option<Interval>) -> String {
    interval.map_or("too few".into(), |it| {
        format!("{:.0} % ({:.0} to {:.0})", 100.0 * it.estimate, 100.0 * it.low, 100.0 * it.high)
    })
}

/// "0.42 (0.10 to 0.71)".
pub fn decimal(interval: &Option<Interval>) -> String {
    interval.map_or("too few".into(), |it| format!("{:.2} ({:.2} to {:.2})", it.estimate, it.low, it.high))
}

/// "14 s a pair, about 20 minutes left"; empty before the first pair.
pub fn pace(progress: &Progress) -> String {
    let Some(seconds) = progress.seconds else { return String::new() };
    let minutes = (seconds * progress.left as f64 / 60.0).ceil();
    format!("{seconds:.0} s a pair, about {minutes:.0} min left")
}

/// A template as a page.
pub fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => Html(html).into_response(),
        Err(_) => {
            Message::new(StatusCode::INTERNAL_SERVER_ERROR, "The page cannot be shown.").into_response()
        }
    }
}

/// A file of ours.
pub fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
