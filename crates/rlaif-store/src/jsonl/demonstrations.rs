//! Demonstrations for supervised fine-tuning, in the shapes that TRL and `datasets` know: `{"prompt", "completion"}`, each a text or
//! messages, `{"messages": […]}`, or `{"text"}`. Other fields are passed over.

use super::lines::for_each_object;
use super::preferences::answer;
use super::prompts::{messages, present, prompt_text, text};
use super::{Rows, read_file};
use crate::Result;
use rlaif_core::records::Demonstration;
use serde_json::{Map, Value};
use std::io::BufRead;
use std::path::Path;

/// Reads the demonstrations of a file, each with its line.
///
/// # Errors
/// If the file cannot be read, or holds no usable row.
pub fn read_demonstrations(path: &Path) -> Result<Rows<(u64, Demonstration)>> {
    read_file(path, read_demonstrations_from)
}

/// Reads demonstrations from anything.
///
/// # Errors
/// If reading fails; rows that are no demonstrations are returned as bad rows.
pub fn read_demonstrations_from(reader: impl BufRead) -> std::io::Result<Rows<(u64, Demonstration)>> {
    let mut good = Vec::new();
    let bad = for_each_object(reader, |line, row| {
        good.push((line, demonstration(&row)?));
        Ok(())
    })?;
    Ok(Rows { good, bad })
}

fn demonstration(row: &Map<String, Value>) -> std::result::Result<Demonstration, String> {
    let has = |field: &str| present(row, field).is_some();
    match (has("prompt") || has("completion"), has("messages"), has("text")) {
        (true, false, false) => Ok(Demonstration::Completion {
            prompt: prompt_text(row)?,
            completion: answer(row, "completion")?,
        }),
        (false, true, false) => conversation(row),
        (false, false, true) => Ok(Demonstration::Text { text: text(&row["text"], "text")? }),
        (false, false, false) => {
            let fields: Vec<String> = row.keys().take(8).map(|key| format!("`{key}`")).collect();
            let fields = if fields.is_empty() { "none".to_owned() } else { fields.join(", ") };
            Err(format!(
                "the row has none of `prompt` with `completion`, `messages` and `text` (its fields: {fields}); rename its fields to one of these shapes"
            ))
        }
        _ => {
            Err("the row has more than one of `prompt` with `completion`, `messages` and `text`; keep one"
                .into())
        }
    }
}

/// A conversation of which something can be learnt.
fn conversation(row: &Map<String, Value>) -> std::result::Result<Demonstration, String> {
    let messages = messages(&row["messages"], "messages")?;
    match messages.iter().position(|turn| turn.role == "assistant") {
        None => Err("`messages` has no turn of `assistant`, so there is nothing to learn".into()),
        Some(0) => Err("`messages` must not begin with a turn of `assistant`".into()),
        Some(_) => Ok(Demonstration::Messages { messages }),
    }
}
