//! `rlaif parse`: transcripts in, verdicts out, one JSON object a line.

use super::{Style, parse};
use rlaif_core::records::Choice;
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, Read, Write};

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
/// `"first"`, `"second"`, `"tie"` or null. Every row gets an answer, in its order.
///
/// # Errors
/// If reading or writing fails.
pub fn jsonl(mut reader: impl BufRead, mut writer: impl Write) -> io::Result<JsonlCounts> {
    let mut counts = JsonlCounts::default();
    let mut line = Vec::new();
    let mut number = 0_usize;
    loop {
        line.clear();
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        number += 1;
        let too_long = line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n');
        if too_long {
            reader.skip_until(b'\n')?;
        } else if line.trim_ascii().is_empty() {
            continue;
        }
        counts.rows += 1;
        let row = match too_long {
            true => Err((Value::Null, format!("longer than {MAX_LINE} bytes"))),
            false => row(line.trim_ascii().strip_prefix(b"\xef\xbb\xbf").unwrap_or(line.trim_ascii())),
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
    }
    writer.flush()?;
    Ok(counts)
}

/// A row, or its id as far as it can be read, and what is wrong with it.
fn row(line: &[u8]) -> Result<(Value, String, Style), (Value, String)> {
    let value: Value = serde_json::from_slice(line).map_err(|e| (Value::Null, format!("not JSON: {e}")))?;
    let Value::Object(mut fields) = value else {
        return Err((Value::Null, "not an object".into()));
    };
    let id = fields.remove("id").unwrap_or(Value::Null);
    let text = match fields.remove("text") {
        Some(Value::String(text)) => text,
        Some(_) => return Err((id, "`text` is not a string".into())),
        None => return Err((id, "`text` is missing".into())),
    };
    let style = match fields.get("style") {
        Some(Value::String(name)) => name.parse::<Style>().map_err(|e| e.to_string()),
        Some(_) => Err("`style` is not a string".into()),
        None => Err("`style` is missing".into()),
    };
    match style {
        Ok(style) => Ok((id, text, style)),
        Err(why) => Err((id, why)),
    }
}
