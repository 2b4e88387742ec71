//! What is tuned on: pairs, or single responses with a verdict, as TRL and `datasets` have them.

use super::lines::{for_each_object, kind};
use super::preferences::{PreferenceData, answer, preference_data};
use super::prompts::{present, prompt_text, text};
use super::{Rows, prompt_id, read_file};
use crate::Result;
use rlaif_core::records::PromptText;
use serde_json::{Map, Value};
use std::io::BufRead;
use std::path::Path;

/// A response of which someone says whether it is a good one, from a file of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseData {
    /// Its line, from 1.
    pub line: u64,
    /// What was asked.
    pub prompt: PromptText,
    /// The prompt's id: `prompt_id`, or one that follows from the prompt.
    pub prompt_id: String,
    /// The response.
    pub completion: String,
    /// Whether it is desirable.
    pub label: bool,
    /// Who says so: `source`, or `human`.
    pub source: String,
}

/// A row that a policy is tuned on.
#[derive(Debug, Clone, PartialEq)]
pub enum TuningRow {
    /// `prompt`, `chosen`, `rejected`.
    Pair(PreferenceData),
    /// `prompt`, `completion`, `label`.
    Response(ResponseData),
}

/// Reads rows to tune on: pairs as [`read_preference_data`](super::read_preference_data) reads them, or `{"prompt", "completion",
/// "label"}` with a label that is true or false. All rows of a file are of one kind, that of the first.
///
/// # Errors
/// If the file cannot be read, or holds no usable row.
pub fn read_tuning_rows(path: &Path) -> Result<Rows<TuningRow>> {
    read_file(path, read_tuning_rows_from)
}

/// Reads rows to tune on from anything.
///
/// # Errors
/// If reading fails; rows that are neither pairs nor responses, or not of the first one's kind, are returned as bad rows.
pub fn read_tuning_rows_from(reader: impl BufRead) -> std::io::Result<Rows<TuningRow>> {
    let mut good = Vec::new();
    let mut first: Option<(u64, bool)> = None;
    let bad = for_each_object(reader, |line, row| {
        let single = is_response(&row);
        match *first.get_or_insert((line, single)) {
            (first, true) if !single => Err(format!(
                "the row is a pair, and line {first} a single response; keep the two in files of their own"
            )),
            (first, false) if single => Err(format!(
                "the row is a single response, and line {first} a pair; keep the two in files of their own"
            )),
            (_, true) => {
                good.push(TuningRow::Response(response(line, &row)?));
                Ok(())
            }
            (_, false) => {
                good.push(TuningRow::Pair(preference_data(line, &row)?));
                Ok(())
            }
        }
    })?;
    Ok(Rows { good, bad })
}

/// Whether a row means to be a single response; a pair may have any field besides its own.
pub(super) fn is_response(row: &Map<String, Value>) -> bool {
    let has = |field: &str| present(row, field).is_some();
    !has("chosen") && !has("rejected") && (has("completion") || has("label"))
}

fn response(line: u64, row: &Map<String, Value>) -> std::result::Result<ResponseData, String> {
    let (prompt, completion) = (prompt_text(row)?, answer(row, "completion")?);
    let label = match present(row, "label") {
        Some(Value::Bool(label)) => *label,
        None => return Err("`label` is missing: true for a desirable response, false for another".into()),
        Some(other) => return Err(format!("`label` must be true or false, got {}", kind(other))),
    };
    let optional = |field: &str| present(row, field).map(|value| text(value, field)).transpose();
    let prompt_id = optional("prompt_id")?.unwrap_or_else(|| prompt_id(&prompt));
    let source = optional("source")?.unwrap_or_else(|| "human".into());
    Ok(ResponseData { line, prompt, prompt_id, completion, label, source })
}
