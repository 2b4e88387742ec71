//! `report.html`: one self-contained page. The result first, in a sentence and a picture; then what supports it.
//!
//! | file | is |
//! |---|---|
//! | [`data`] | what the report needs to know; also the schema of `evaluation.json` |
//! | [`comparison`] | the part of it that compares policies: win rates, ranking, regression set |
//! | `collect` | fills that from the run folder and the store; `write` makes the page |
//! | `held_out` | what stages `sft`, `reward` and `dpo` leave for the report |
//! | `headline` | the sentence, which claims no more than its interval does |
//! | `chart`, `curves` | the pictures |
//! | `files` | the curves as files |
//! | `page`, `format` | from numbers to strings |
//! | `templates/report.html` | the page; model output reaches it as escaped text only |

mod chart;
pub mod collect;
pub mod comparison;
mod curves;
pub mod data;
mod files;
mod format;
mod headline;
mod held_out;
mod page;

pub use collect::write;
pub use files::write_curves;

use anyhow::{Context, Result};
use askama::Template;
use data::ReportData;

/// The page as one string of HTML.
///
/// # Errors
/// If a chart cannot be drawn.
pub fn render(data: &ReportData) -> Result<String> {
    page::Page::new(data)?.render().context("filling in the template of `report.html`")
}

#[cfg(test)]
mod tests;
