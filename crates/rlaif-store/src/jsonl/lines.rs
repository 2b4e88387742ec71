//! Lines to JSON objects, one at a time and never more than one in memory.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io::BufRead;

/// Longest line that is read, in bytes. A prompt of 8 MB is beyond every context there is; without a limit, a file that is
/// not JSONL at all would be read into memory whole.
pub const MAX_LINE_BYTES: usize = 8 * 1024 * 1024;

/// How much of a bad row is kept to recognise it by, in characters.
const EXCERPT_CHARS: usize = 200;

/// A row that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// Its line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
    /// Its beginning, with bytes that are not UTF-8 replaced.
    pub excerpt: String,
}

impl BadRow {
    pub(super) fn new(line: u64, reason: impl Into<String>, raw: &[u8]) -> Self {
        // Four bytes hold any character, so this much is always enough.
        let head = &raw[..raw.len().min(EXCERPT_CHARS * 4)];
        let text = String::from_utf8_lossy(head);
        let mut excerpt: String = text.chars().take(EXCERPT_CHARS).collect();
        if excerpt.len() < raw.len() {
            excerpt.push('…');
        }
        Self { line, reason: reason.into(), excerpt }
    }
}

/// Calls `row` with the line number and the object of each line that holds one; blank lines are passed over. What `row`
/// returns as an error, and every line that holds no object, becomes a bad row.
pub(super) fn for_each_object(
    mut reader: impl BufRead,
    mut row: impl FnMut(u64, Map<String, Value>) -> Result<(), String>,
) -> std::io::Result<Vec<BadRow>> {
    let mut bad = Vec::new();
    let mut raw = Vec::new();
    let mut line = 0;
    while let Some(length) = next_line(&mut reader, &mut raw)? {
        line += 1;
        // Editors on Windows start UTF-8 files with a byte order mark, which is no JSON.
        let start = if line == 1 && raw.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let text = raw[start..].trim_ascii();
        if length <= MAX_LINE_BYTES && text.is_empty() {
            continue;
        }
        let outcome = if length > MAX_LINE_BYTES {
            Err(format!("the line has {length} bytes, more than {MAX_LINE_BYTES}"))
        } else {
            object(text).and_then(|object| row(line, object))
        };
        if let Err(reason) = outcome {
            bad.push(BadRow::new(line, reason, text));
        }
    }
    Ok(bad)
}

/// Reads a line without its end into `raw`, at most [`MAX_LINE_BYTES`] of it, and returns its whole length; `None` at the
/// end of the file.
///
/// # Errors
/// If the file cannot be read.
pub fn next_line(reader: &mut impl BufRead, raw: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    raw.clear();
    let mut length = 0;
    let mut any = false;
    loop {
        let buffer = match reader.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok(any.then_some(length));
        }
        any = true;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = MAX_LINE_BYTES.saturating_sub(raw.len()).min(part.len());
        raw.extend_from_slice(&part[..room]);
        length += part.len();
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(length));
        }
    }
}

fn object(text: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(text).map_err(|e| {
        format!("not UTF-8: byte {} of the line is not part of a character", e.valid_up_to() + 1)
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => {
            Err(format!("the row must be an object such as {{\"prompt\": \"…\"}}, got {}", kind(&other)))
        }
        // serde_json counts lines within the text it is given, which is always one here.
        Err(error) => {
            let (message, _) = error.to_string().rsplit_once(" at line ").map_or_else(
                || (error.to_string(), String::new()),
                |(message, place)| (message.to_owned(), place.to_owned()),
            );
            Err(format!("not JSON: {message}, at byte {}", error.column()))
        }
    }
}

/// A value's type, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
