//! `rlaif parse`: transcripts in, verdicts out, one JSON object a line.

use super::text::regex;
use super::{Style, parse};
use regex::Regex;
use rlaif_core::records::Choice;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, Read, Write};
use std::sync::LazyLock;

/// Longest line that is read; a judge's reply is a few kilobytes.
const MAX_LINE: u64 = 16 << 20;

/// What went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JsonlCounts {
    /// Lines that are not blank.
    pub rows: usize,
    /// Rows with a verdict.
    pub verdicts: usize,
    /// Rows that are no `{"id", "text", "style"}`; each is answered by a row without a verdict that says why.
    pub malformed: usize,
}

/// Reads `{"id", "text", "style"}` a line and writes `{"id", "verdict", "reason", "scores"?}` a line, where the verdict is
/// `"first"`, `"second"`, `"tie"` or null. Every row gets an answer at once, in its order; other keys are ignored.
///
/// # Errors
/// If reading or writing fails.
pub fn jsonl(reader: impl BufRead, writer: impl Write) -> io::Result<JsonlCounts> {
    jsonl_up_to(MAX_LINE, reader, writer)
}

/// The same with lines of at most `max_line` bytes, line end included.
pub(super) fn jsonl_up_to(
    max_line: u64,
    mut reader: impl BufRead,
    mut writer: impl Write,
) -> io::Result<JsonlCounts> {
    let mut counts = JsonlCounts::default();
    let mut line = Vec::new();
    let mut number = 0_usize;
    loop {
        line.clear();
        // One byte more than is allowed tells a line of just that length from one that goes on.
        if reader.by_ref().take(max_line + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        number += 1;
        let too_long = line.len() as u64 > max_line;
        if too_long && line.last() != Some(&b'\n') {
            reader.skip_until(b'\n')?;
        }
        let bytes = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line).trim_ascii();
        if bytes.is_empty() && !too_long {
            continue;
        }
        counts.rows += 1;
        let row = match too_long {
            true => Err((begun_id(bytes), format!("longer than {max_line} bytes"))),
            false => row(bytes),
        };
        let answer = match row {
            Ok((id, text, style)) => {
                let parsed = parse(&text, style);
                let verdict = parsed.verdict.ok().map(|choice| match choice {
                    Choice::First => "first",
                    Choice::Second => "second",
                    Choice::Tie => "tie",
                });
                counts.verdicts += usize::from(verdict.is_some());
                let mut answer = Map::new();
                answer.insert("id".into(), id);
                answer.insert("verdict".into(), json!(verdict));
                answer.insert("reason".into(), json!(parsed.reason));
                if let Some(scores) = parsed.scores {
                    answer.insert("scores".into(), json!(scores));
                }
                Value::Object(answer)
            }
            Err((id, why)) => {
                counts.malformed += 1;
                json!({"id": id, "verdict": null, "reason": format!("line {number}: {why}")})
            }
        };
        writeln!(writer, "{answer}")?;
        // A script that asks row by row waits for each answer.
        writer.flush()?;
    }
    writer.flush()?;
    Ok(counts)
}

/// A row as it is written. The derived reader refuses a key that stands twice; of two texts, neither is the row's.
#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    id: Value,
    text: Option<Value>,
    style: Option<Value>,
}

/// A row, or its id as far as it can be read, and what is wrong with it.
fn row(line: &[u8]) -> Result<(Value, String, Style), (Value, String)> {
    if line.first() != Some(&b'{') && serde_json::from_slice::<Value>(line).is_ok() {
        return Err((Value::Null, "not an object".into()));
    }
    let Row { id, text, style } =
        serde_json::from_slice(line).map_err(|error| (known_id(line), said_of(&error)))?;
    let text = match text {
        Some(Value::String(text)) => text,
        Some(_) => return Err((id, "`text` is not a string".into())),
        None => return Err((id, "`text` is missing".into())),
    };
    let style = match style {
        Some(Value::String(name)) => name.parse::<Style>().map_err(|e| e.to_string()),
        Some(_) => Err("`style` is not a string".into()),
        None => Err("`style` is missing; `auto` reads any".into()),
    };
    match style {
        Ok(style) => Ok((id, text, style)),
        Err(why) => Err((id, why)),
    }
}

/// The error without serde's "at line 1": the line is the file's, and is told before.
fn said_of(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or(&said);
    match error.is_data() {
        true => said.to_owned(),
        false => format!("not JSON: {said} at column {}", error.column()),
    }
}

/// The id of a line that is no row: of the object if it is one, else as far as it goes.
fn known_id(line: &[u8]) -> Value {
    match serde_json::from_slice::<Map<String, Value>>(line) {
        Ok(mut fields) => fields.remove("id").unwrap_or(Value::Null),
        Err(_) => begun_id(line),
    }
}

/// An id that stands first in an object whose rest cannot be read, and whole.
fn begun_id(line: &[u8]) -> Value {
    static ID: LazyLock<Regex> =
        LazyLock::new(|| regex(r#"^\{\s*"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)\s*[,}]"#));
    let mut end = line.len().min(1000);
    while end > 0 && std::str::from_utf8(&line[..end]).is_err() {
        end -= 1;
    }
    let found = std::str::from_utf8(&line[..end]).ok().and_then(|text| ID.captures(text));
    found.and_then(|found| serde_json::from_str(&found[1]).ok()).unwrap_or(Value::Null)
}
