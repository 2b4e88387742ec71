//! Prompts that must not get worse: `{"prompt": "…", "check": {"contains": "Paris"}}`, with an optional `id`. A check has one or more of the
//! keys of [`Check`]; each is counted by itself.

use super::lines::{for_each_object, kind};
use super::prompts::{present, prompt_text, text};
use super::{Rows, read_file};
use crate::Result;
use rlaif_core::records::PromptText;
use serde_json::{Map, Value};
use std::io::BufRead;
use std::path::Path;

/// One prompt and what its answer must hold to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegressionRow {
    /// Its line, from 1.
    pub line: u64,
    /// The row's `id`, or `line N`.
    pub id: String,
    /// What is asked.
    pub prompt: PromptText,
    /// What is checked, in the order of the list of keys.
    pub checks: Vec<Check>,
}

/// What an answer must hold to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// `"contains": "…"` or a list: every text stands in it, upper and lower case told apart.
    Contains(Vec<String>),
    /// `"not_contains": "…"` or a list: none of the texts stands in it.
    NotContains(Vec<String>),
    /// `"regex": "…"`: the pattern is found in it; not yet compiled.
    Regex(String),
    /// `"max_words": 50`: it has no more words, which are what blanks separate.
    MaxWords(u64),
    /// `"json": true`: all of it is one JSON value.
    Json,
    /// `"refusal": true` or `false`: it is a refusal, or is none.
    Refusal(bool),
    /// `"judge": true`: judges do not find it worse than the baseline's answer.
    Judge,
}

/// The keys of a check.
const KEYS: [&str; 7] = ["contains", "not_contains", "regex", "max_words", "json", "refusal", "judge"];

/// Reads the rows of a file.
///
/// # Errors
/// If the file cannot be read, or holds no usable row.
pub fn read_regression(path: &Path) -> Result<Rows<RegressionRow>> {
    read_file(path, read_regression_from)
}

/// Reads rows from anything.
///
/// # Errors
/// If reading fails; rows that are no prompt with a check are returned as bad rows.
pub fn read_regression_from(reader: impl BufRead) -> std::io::Result<Rows<RegressionRow>> {
    let mut good: Vec<RegressionRow> = Vec::new();
    let bad = for_each_object(reader, |line, row| {
        let prompt = prompt_text(&row)?;
        let id = match present(&row, "id") {
            None => format!("line {line}"),
            Some(id) => text(id, "id")?,
        };
        if good.iter().any(|other| other.id == id) {
            return Err(format!("the id `{id}` is taken by another line"));
        }
        let checks = match present(&row, "check") {
            Some(Value::Object(checks)) if !checks.is_empty() => checks_of(checks)?,
            Some(Value::Object(_)) | None => {
                return Err(format!("`check` is missing: a table with one of {}", list()));
            }
            Some(other) => return Err(format!("`check` must be an object, got {}", kind(other))),
        };
        good.push(RegressionRow { line, id, prompt, checks });
        Ok(())
    })?;
    Ok(Rows { good, bad })
}

fn checks_of(given: &Map<String, Value>) -> std::result::Result<Vec<Check>, String> {
    if let Some(unknown) = given.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("there is no check `{unknown}`; there are {}", list()));
    }
    KEYS.iter().filter_map(|key| Some(check(key, given.get(*key)?))).collect()
}

fn check(key: &str, value: &Value) -> std::result::Result<Check, String> {
    let place = format!("check.{key}");
    let is_true = |check: Check| match value {
        Value::Bool(true) => Ok(check),
        _ => Err(format!("`{place}` can only be true")),
    };
    match key {
        "contains" => texts(value, &place).map(Check::Contains),
        "not_contains" => texts(value, &place).map(Check::NotContains),
        "regex" => text(value, &place).map(Check::Regex),
        "max_words" => value.as_u64().map(Check::MaxWords).ok_or(format!("`{place}` must be a whole number")),
        "refusal" => value.as_bool().map(Check::Refusal).ok_or(format!("`{place}` must be true or false")),
        "json" => is_true(Check::Json),
        _ => is_true(Check::Judge),
    }
}

fn texts(value: &Value, place: &str) -> std::result::Result<Vec<String>, String> {
    match value {
        Value::Array(values) if !values.is_empty() => values.iter().map(|value| text(value, place)).collect(),
        Value::Array(_) => Err(format!("`{place}` is empty")),
        value => Ok(vec![text(value, place)?]),
    }
}

fn list() -> String {
    KEYS.map(|key| format!("`{key}`")).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_a_prompt_and_its_checks() {
        let file = r#"{"id": "fr", "prompt": "Capital of France?", "check": {"contains": "Paris", "max_words": 9}}
{"prompt": [{"role": "user", "content": "JSON?"}], "check": {"json": true, "not_contains": ["`", "Sure"]}}
{"prompt": "Bombs?", "check": {"refusal": true}}
{"prompt": "Poem?", "check": {"judge": true}}
"#;
        let rows = read_regression_from(file.as_bytes()).unwrap();
        assert_eq!(rows.bad, []);
        let checks: Vec<&[Check]> = rows.good.iter().map(|row| row.checks.as_slice()).collect();
        assert_eq!(checks[0], [Check::Contains(vec!["Paris".into()]), Check::MaxWords(9)]);
        assert_eq!(checks[1], [Check::NotContains(vec!["`".into(), "Sure".into()]), Check::Json]);
        assert_eq!((checks[2], checks[3]), (&[Check::Refusal(true)][..], &[Check::Judge][..]));
        assert_eq!((rows.good[0].id.as_str(), rows.good[1].id.as_str()), ("fr", "line 2"));
    }

    #[test]
    fn what_is_no_check_is_told() {
        let bad = |row: &str| read_regression_from(row.as_bytes()).unwrap().bad[0].reason.clone();
        assert!(bad(r#"{"prompt": "a"}"#).contains("`check` is missing"));
        assert!(bad(r#"{"prompt": "a", "check": {"containts": "b"}}"#).contains("no check `containts`"));
        assert!(bad(r#"{"prompt": "a", "check": {"json": false}}"#).contains("can only be true"));
        assert!(bad(r#"{"prompt": "a", "check": {"max_words": "b"}}"#).contains("a whole number"));
        assert!(bad(r#"{"prompt": "a", "check": {"contains": []}}"#).contains("is empty"));
        assert!(bad(r#"{"check": {"judge": true}}"#).contains("neither `prompt` nor `messages`"));
        let twice = "{\"id\": \"x\", \"prompt\": \"a\", \"check\": {\"judge\": true}}\n".repeat(2);
        assert!(bad(&twice).contains("the id `x` is taken"));
    }
}
