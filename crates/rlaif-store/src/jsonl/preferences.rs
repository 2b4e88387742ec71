//! Preferences as TRL and `datasets` have them, and the labelled pairs that judges are probed with.

use super::lines::{for_each_object, kind};
use super::prompts::{messages, present, prompt_text, text};
use super::responses::is_response;
use super::{Rows, prompt_id, read_file, write_jsonl};
use crate::Result;
use rlaif_core::records::{PreferenceRow, PromptText};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::io::BufRead;
use std::path::Path;

/// A pair of which someone knows the better response: what a judge's validity is measured on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbePair {
    /// What was asked.
    pub prompt: PromptText,
    /// The better response.
    pub better: String,
    /// The worse response.
    pub worse: String,
}

/// A preference to train on, from a file of the user's.
#[derive(Debug, Clone, PartialEq)]
pub struct PreferenceData {
    /// Its line, from 1.
    pub line: u64,
    /// The preference; p is at least ½, since a row with less is turned round.
    pub row: PreferenceRow,
    /// By how much the chosen response is to win (TRL's `margin`); 0 where the row has none.
    pub margin: f64,
    /// How much the pair counts; 1 where the row does not say.
    pub weight: f64,
    /// Who labelled it: `source`, or `judges` joined by `+`, or `human`.
    pub source: String,
}

/// Writes kept preferences, one a line, as [`preference_lines`] has them.
///
/// # Errors
/// If the file cannot be written; it is then as it was before.
pub fn write_preferences(path: &Path, rows: &[PreferenceRow]) -> Result<()> {
    write_jsonl(path, preference_lines(rows))
}

/// Preferences as TRL and `datasets` load them: `prompt`, `chosen`, `rejected` and, beside them, `p`, `explanation`, `judges`,
/// `prompt_id`, `pair_id`. All rows have the same fields and types, as Arrow wants it: if any prompt is a conversation, all are
/// written as conversations.
pub fn preference_lines(rows: &[PreferenceRow]) -> impl Iterator<Item = Value> + '_ {
    let conversational = rows.iter().any(|row| matches!(row.prompt, PromptText::Messages(_)));
    rows.iter().map(move |row| preference_line(row, conversational))
}

/// One preference, as text or as a conversation: for a stream of rows whose form is known beforehand.
pub fn preference_line(row: &PreferenceRow, conversational: bool) -> Value {
    let answer = |text: &str| {
        if conversational { json!([{"role": "assistant", "content": text}]) } else { json!(text) }
    };
    let prompt = if conversational { json!(row.prompt.messages()) } else { json!(row.prompt.display()) };
    json!({
        "prompt": prompt,
        "chosen": answer(&row.chosen),
        "rejected": answer(&row.rejected),
        "p": row.p,
        "explanation": row.explanation,
        "judges": row.judges,
        "prompt_id": row.prompt_id,
        "pair_id": row.pair_id,
    })
}

/// Reads preferences: ours, or anyone's with `prompt`, `chosen` and `rejected` as texts or messages. Without `p`, p is 1;
/// without `pair_id`, it is `line-N`.
///
/// # Errors
/// If the file cannot be read, or holds no usable row.
pub fn read_preferences(path: &Path) -> Result<Rows<PreferenceRow>> {
    read_file(path, read_preferences_from)
}

/// Reads preferences from anything.
///
/// # Errors
/// If reading fails; rows that are no preferences are returned as bad rows.
pub fn read_preferences_from(reader: impl BufRead) -> std::io::Result<Rows<PreferenceRow>> {
    let mut good = Vec::new();
    let bad = for_each_object(reader, |line, row| {
        good.push(preference(line, &row)?);
        Ok(())
    })?;
    Ok(Rows { good, bad })
}

/// Reads preferences to train on: as [`read_preferences`], with p anywhere in [0, 1] and the optional `margin`, `weight` and
/// `source`.
///
/// # Errors
/// If the file cannot be read, or holds no usable row.
pub fn read_preference_data(path: &Path) -> Result<Rows<PreferenceData>> {
    read_file(path, read_preference_data_from)
}

/// Reads preferences to train on from anything.
///
/// # Errors
/// If reading fails; rows that are no preferences are returned as bad rows.
pub fn read_preference_data_from(reader: impl BufRead) -> std::io::Result<Rows<PreferenceData>> {
    let mut good = Vec::new();
    let bad = for_each_object(reader, |line, row| {
        good.push(preference_data(line, &row)?);
        Ok(())
    })?;
    Ok(Rows { good, bad })
}

/// Reads labelled pairs: `{"prompt", "better", "worse"}`.
///
/// # Errors
/// If the file cannot be read, or holds no usable row.
pub fn read_probe(path: &Path) -> Result<Rows<ProbePair>> {
    read_file(path, read_probe_from)
}

/// Reads labelled pairs from anything.
///
/// # Errors
/// If reading fails; rows that are no pairs are returned as bad rows.
pub fn read_probe_from(reader: impl BufRead) -> std::io::Result<Rows<ProbePair>> {
    let mut good = Vec::new();
    let bad = for_each_object(reader, |_, row| {
        let (prompt, better, worse) = (prompt_text(&row)?, answer(&row, "better")?, answer(&row, "worse")?);
        if better == worse {
            return Err("`better` and `worse` are the same text".into());
        }
        good.push(ProbePair { prompt, better, worse });
        Ok(())
    })?;
    Ok(Rows { good, bad })
}

fn preference(line: u64, row: &Map<String, Value>) -> std::result::Result<PreferenceRow, String> {
    let row = any_preference(line, row)?;
    match row.p >= 0.5 {
        true => Ok(row),
        false => Err(format!("`p` is P(chosen beats rejected) and must be in [0.5, 1], got {}", row.p)),
    }
}

pub(super) fn preference_data(
    line: u64,
    object: &Map<String, Value>,
) -> std::result::Result<PreferenceData, String> {
    if is_response(object) {
        return Err(
            "the row is a single response, and this learns from pairs: `prompt`, `chosen`, `rejected`".into(),
        );
    }
    let mut row = any_preference(line, object)?;
    let (mut margin, weight) = margin_and_weight(object)?;
    if row.p < 0.5 {
        std::mem::swap(&mut row.chosen, &mut row.rejected);
        (row.p, margin) = (1.0 - row.p, -margin);
    }
    let source = match present(object, "source") {
        Some(value) => text(value, "source")?,
        None if row.judges.is_empty() => "human".into(),
        None => row.judges.join("+"),
    };
    Ok(PreferenceData { line, row, margin, weight, source })
}

/// By how much the chosen response is to win, and how much the pair counts.
pub(super) fn margin_and_weight(object: &Map<String, Value>) -> std::result::Result<(f64, f64), String> {
    let weight = number(object, "weight")?.unwrap_or(1.0);
    if weight <= 0.0 {
        return Err(format!("`weight` must be above 0, got {weight}; delete the row if it is not to count"));
    }
    Ok((number(object, "margin")?.unwrap_or(0.0), weight))
}

/// A finite number, if the row has the field.
fn number(row: &Map<String, Value>, field: &str) -> std::result::Result<Option<f64>, String> {
    match present(row, field) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("`{field}` must be a finite number, got {}", kind(value))),
        },
    }
}

/// A preference with p anywhere in [0, 1].
fn any_preference(line: u64, row: &Map<String, Value>) -> std::result::Result<PreferenceRow, String> {
    let prompt = prompt_text(row)?;
    let (chosen, rejected) = (answer(row, "chosen")?, answer(row, "rejected")?);
    if chosen == rejected {
        return Err("`chosen` and `rejected` are the same text".into());
    }
    let p = match present(row, "p") {
        None => 1.0,
        Some(value) => match value.as_f64() {
            Some(p) if (0.0..=1.0).contains(&p) => p,
            Some(p) => {
                return Err(format!("`p` is P(chosen beats rejected) and must be in [0, 1], got {p}"));
            }
            None => return Err(format!("`p` must be a number, got {}", kind(value))),
        },
    };
    let optional = |field: &str| present(row, field).map(|value| text(value, field)).transpose();
    let judges = match present(row, "judges") {
        None => Vec::new(),
        Some(Value::Array(judges)) => {
            judges.iter().map(|judge| text(judge, "judges")).collect::<std::result::Result<_, _>>()?
        }
        Some(other) => return Err(format!("`judges` must be an array of strings, got {}", kind(other))),
    };
    let prompt_id = optional("prompt_id")?.unwrap_or_else(|| prompt_id(&prompt));
    let pair_id = optional("pair_id")?.unwrap_or_else(|| format!("line-{line}"));
    let explanation = optional("explanation")?;
    Ok(PreferenceRow { prompt, chosen, rejected, p, explanation, judges, prompt_id, pair_id })
}

/// A response: a text, or one turn of the assistant.
pub(super) fn answer(row: &Map<String, Value>, field: &str) -> std::result::Result<String, String> {
    match row.get(field).unwrap_or(&Value::Null) {
        value @ Value::Array(_) => {
            let turns = messages(value, field)?;
            match turns.as_slice() {
                [turn] if turn.role == "assistant" => Ok(turn.content.clone()),
                _ => Err(format!(
                    "`{field}` must be one turn of `assistant`; the turns before it belong into `prompt`"
                )),
            }
        }
        value => text(value, field),
    }
}
