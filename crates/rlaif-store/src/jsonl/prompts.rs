//! Prompts: `{"prompt": "…"}` or `{"prompt": [{"role": "user", "content": "…"}]}`, or the latter under `messages`; and
//! optionally `id`, `tags`, `reference`. Other fields are passed over.

use super::lines::{for_each_object, kind};
use super::{Rows, read_file};
use crate::Result;
use rlaif_core::records::{Message, Prompt, PromptText};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;

/// Reads the prompts of a file.
///
/// # Errors
/// If the file cannot be read, or holds no usable row.
pub fn read_prompts(path: &Path) -> Result<Rows<Prompt>> {
    read_file(path, read_prompts_from)
}

/// Reads prompts from anything.
///
/// # Errors
/// If reading fails; rows that are no prompts are returned as bad rows.
pub fn read_prompts_from(reader: impl BufRead) -> std::io::Result<Rows<Prompt>> {
    let mut good: Vec<Prompt> = Vec::new();
    let mut first_line: HashMap<String, u64> = HashMap::new();
    let bad = for_each_object(reader, |line, row| {
        let prompt = prompt(&row)?;
        if let Some(first) = first_line.get(&prompt.id) {
            return Err(if present(&row, "id").is_some() {
                format!("the id `{}` is taken by line {first}", prompt.id)
            } else {
                format!("the same prompt is on line {first}; give both an `id` to use it twice")
            });
        }
        first_line.insert(prompt.id.clone(), line);
        good.push(prompt);
        Ok(())
    })?;
    Ok(Rows { good, bad })
}

/// The id of a prompt that has none of its own: the first 16 hex digits of the BLAKE3 hash of its text, or of its messages
/// as JSON.
pub fn prompt_id(prompt: &PromptText) -> String {
    let mut hasher = blake3::Hasher::new();
    match prompt {
        PromptText::Text(text) => hasher.update(text.as_bytes()),
        PromptText::Messages(messages) => {
            // Lengths before contents, so that no two conversations are the same bytes.
            for message in messages {
                for part in [&message.role, &message.content] {
                    hasher.update(&(part.len() as u64).to_le_bytes());
                    hasher.update(part.as_bytes());
                }
            }
            &mut hasher
        }
    };
    hasher.finalize().to_hex()[..16].to_owned()
}

fn prompt(row: &Map<String, Value>) -> std::result::Result<Prompt, String> {
    let prompt = prompt_text(row)?;
    let id = match present(row, "id") {
        None => prompt_id(&prompt),
        Some(Value::String(id)) if id.trim().is_empty() => return Err("`id` is empty".into()),
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(number)) if number.is_u64() || number.is_i64() => number.to_string(),
        Some(other) => return Err(format!("`id` must be a string or a whole number, got {}", kind(other))),
    };
    let tags = match present(row, "tags") {
        None => Vec::new(),
        Some(Value::Array(tags)) => tags
            .iter()
            .map(|tag| tag.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or("`tags` must be an array of strings")?,
        Some(other) => return Err(format!("`tags` must be an array of strings, got {}", kind(other))),
    };
    let reference = match present(row, "reference") {
        None => None,
        Some(value) => Some(text(value, "reference")?),
    };
    Ok(Prompt { id, prompt, tags, reference })
}

/// The row's `prompt` or `messages`.
pub(super) fn prompt_text(row: &Map<String, Value>) -> std::result::Result<PromptText, String> {
    match (present(row, "prompt"), present(row, "messages")) {
        (Some(_), Some(_)) => Err("the row has both `prompt` and `messages`; keep one".into()),
        (Some(Value::String(text)), None) if text.trim().is_empty() => Err("`prompt` is empty".into()),
        (Some(Value::String(text)), None) => Ok(PromptText::Text(text.clone())),
        (Some(value @ Value::Array(_)), None) => conversation(value, "prompt").map(PromptText::Messages),
        (Some(other), None) => {
            Err(format!("`prompt` must be a string or an array of messages, got {}", kind(other)))
        }
        (None, Some(value)) => conversation(value, "messages").map(PromptText::Messages),
        (None, None) if row.get("prompt").is_some_and(Value::is_null) => Err("`prompt` is null".into()),
        (None, None) => {
            let keys: Vec<String> = row.keys().take(8).map(|key| format!("`{key}`")).collect();
            let found = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
            Err(format!(
                "the row has neither `prompt` nor `messages` (its fields: {found}); rename the field to `prompt`"
            ))
        }
    }
}

/// A conversation that a response can follow: turns with text, the last of them the user's.
fn conversation(value: &Value, field: &str) -> std::result::Result<Vec<Message>, String> {
    let messages = messages(value, field)?;
    match messages.last() {
        Some(last) if last.role == "user" => Ok(messages),
        Some(last) => Err(format!("`{field}` must end with a turn of `user`, not of `{}`", last.role)),
        None => Err(format!("`{field}` is empty")),
    }
}

/// An array of `{"role", "content"}`.
pub(super) fn messages(value: &Value, field: &str) -> std::result::Result<Vec<Message>, String> {
    let Value::Array(turns) = value else {
        return Err(format!("`{field}` must be an array of messages, got {}", kind(value)));
    };
    turns
        .iter()
        .enumerate()
        .map(|(index, turn)| {
            let part = |name: &str| {
                let place = format!("{field}[{index}].{name}");
                text(turn.get(name).unwrap_or(&Value::Null), &place)
            };
            let message = Message { role: part("role")?, content: part("content")? };
            if !["system", "user", "assistant"].contains(&message.role.as_str()) {
                let role = &message.role;
                return Err(format!(
                    "`{field}[{index}].role` must be `system`, `user` or `assistant`, got `{role}`"
                ));
            }
            Ok(message)
        })
        .collect()
}

/// A string with something in it.
pub(super) fn text(value: &Value, field: &str) -> std::result::Result<String, String> {
    match value {
        Value::String(text) if text.trim().is_empty() => Err(format!("`{field}` is empty")),
        Value::String(text) => Ok(text.clone()),
        Value::Null => Err(format!("`{field}` is missing")),
        other => Err(format!("`{field}` must be a string, got {}", kind(other))),
    }
}

/// A field, where null is as good as none: exporters write every column of a row.
pub(super) fn present<'a>(row: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    row.get(field).filter(|value| !value.is_null())
}
