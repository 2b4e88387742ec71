//! `report.html`: one self-contained page. The result first, in a sentence; then what it cost, how far judges can be trusted, what got
//! worse, and everything that supports these.
//!
//! | file | is |
//! |---|---|
//! | [`data`], [`evidence`] | what the report needs to know; `data` is also the schema of `evaluation.json` |
//! | [`comparison`] | the part of it that compares policies: win rates, ranking, regression set |
//! | [`view`], `collect` | fill that from the run folder and the store; `write` makes the page |
//! | `held_out` | what stages `sft`, `reward` and `dpo` leave for the report |
//! | `headline` | the sentence, which claims no more than its interval does |
//! | `cost`, `trust`, `audit`, `labels`, `worse`, `results`, `training` | the sections, from numbers to strings |
//! | `samples` | the browsers of samples and of pairs on which judges and people disagreed |
//! | `block`, `format`, `chart`, `curves` | what sections are made of |
//! | `files` | the curves as files |
//! | [`side_by_side`] | runs beside each other: `compare.html` |
//! | `page`, `templates/report/` | the page; text of models and people reaches it escaped |

mod audit;
mod block;
mod chart;
pub mod collect;
pub mod comparison;
mod cost;
mod curves;
pub mod data;
pub mod evidence;
mod files;
mod format;
mod headline;
mod held_out;
mod labels;
mod page;
mod results;
mod samples;
pub mod side_by_side;
mod training;
mod trust;
pub mod view;
mod worse;

pub use collect::write;
pub use files::write_curves;

use anyhow::{Context, Result};
use askama::Template;
use data::ReportData;
use serde::Serialize;

/// The style of the pages, the first part of which the review page has too.
const STYLE: &str =
    concat!(include_str!("../../templates/theme.css"), include_str!("../../templates/report/style.css"));

/// Every page is whole without it.
const SCRIPT: &str = include_str!("../../templates/report/script.js");

/// The page as one string of HTML.
///
/// # Errors
/// If a chart cannot be drawn.
pub fn render(data: &ReportData) -> Result<String> {
    page::Page::new(data)?.render().context("filling in the template of `report.html`")
}

/// The word by which a page's own style and script are known. It hangs on everything that the page shows, so that no text on it can hold
/// it, and the same run makes the same page.
fn nonce(data: &impl Serialize) -> Result<String> {
    let shown = serde_json::to_vec(data).context("reading the report's data")?;
    Ok(blake3::hash(&shown).to_hex()[..32].to_string())
}

#[cfg(test)]
pub mod tests;
