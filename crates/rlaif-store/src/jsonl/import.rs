//! Human preferences in the shapes they are published in, as rows that `reward.data` and `dpo.data` read.
//!
//! | shape | a row is |
//! |---|---|
//! | [`Shape::Trl`] | `prompt`, `chosen`, `rejected`, or whole conversations that differ in their last answer (UltraFeedback binarized) |
//! | [`Shape::Hh`] | two transcripts in one string each, `\n\nHuman: … \n\nAssistant: …` (Bai et al. 2022, hh-rlhf) |
//! | [`Shape::UltraFeedback`] | `instruction` and scored `completions` (Cui et al. 2023): every two of different scores are a preference |
//! | [`Shape::Argilla`] | `fields` and rankings of them by any number of people: p is the share who prefer, ties half |

use super::lines::{for_each_object, kind};
use super::parquet::{for_each_row, is_parquet};
use super::preferences::{PreferenceData, margin_and_weight, preference_data};
use super::prompts::{messages, present, text};
use super::{BadRow, Rows, prompt_id, read_file};
use crate::Result;
use flate2::bufread::MultiGzDecoder;
use rlaif_core::records::{Message, PreferenceRow, PromptText};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// How a file of preferences is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// TRL's and `datasets`'.
    Trl,
    /// Anthropic's hh-rlhf.
    Hh,
    /// UltraFeedback with all its completions.
    UltraFeedback,
    /// Records of Argilla, of its first and its second version.
    Argilla,
}

type RowResult<T> = std::result::Result<T, String>;

/// What a gzipped file begins with, RFC 1952.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Bytes that a gzipped file may unpack to: a file of a few kilobytes can claim to be endless.
const MAX_UNPACKED_BYTES: u64 = 64 << 30;

/// Reads a file of preferences: one JSON object a line or one array of them, also gzipped, or Parquet. Without a shape, each row tells its
/// own. p may be below ½ nowhere: a row is turned so that the chosen response is the preferred one.
///
/// # Errors
/// If the file cannot be read, is packed in another way, or holds no usable row.
pub fn import_preferences(path: &Path, shape: Option<Shape>) -> Result<Rows<PreferenceData>> {
    read_file(path, |mut reader| match reader.fill_buf()? {
        head if is_parquet(head) => {
            let mut importing = Importing { shape, good: Vec::new() };
            let bad = for_each_row(reader.into_inner(), |line, object| importing.row(line, object))?;
            Ok(Rows { good: importing.good, bad })
        }
        head if head.starts_with(&GZIP) => {
            let unpacked = Bounded { inner: MultiGzDecoder::new(reader), left: MAX_UNPACKED_BYTES };
            import_preferences_from(BufReader::new(unpacked), shape)
        }
        _ => import_preferences_from(reader, shape),
    })
}

/// [`import_preferences`] from anything that is not packed; rows of an array are numbered from 1 as lines are.
///
/// # Errors
/// If reading fails.
pub fn import_preferences_from(
    mut reader: impl BufRead,
    shape: Option<Shape>,
) -> std::io::Result<Rows<PreferenceData>> {
    let mut importing = Importing { shape, good: Vec::new() };
    let bad = if reader.fill_buf()?.trim_ascii_start().starts_with(b"[") {
        let objects: Vec<Value> = serde_json::from_reader(reader)?;
        let mut bad = Vec::new();
        for (line, value) in (1..).zip(objects) {
            let excerpt = value.to_string();
            let read = match value {
                Value::Object(object) => importing.row(line, object),
                other => Err(format!("the row must be an object, got {}", kind(&other))),
            };
            bad.extend(read.err().map(|reason| BadRow::new(line, reason, excerpt.as_bytes())));
        }
        bad
    } else {
        for_each_object(reader, |line, object| importing.row(line, object))?
    };
    Ok(Rows { good: importing.good, bad })
}

/// Rows as they come in.
struct Importing {
    shape: Option<Shape>,
    good: Vec<PreferenceData>,
}

impl Importing {
    fn row(&mut self, line: u64, object: Map<String, Value>) -> RowResult<()> {
        let shape = self.shape.map_or_else(|| shape_of(&object), Ok)?;
        let found = match shape {
            Shape::Trl => vec![trl(line, &object)?],
            Shape::Hh => vec![plain(hh(&object)?)],
            Shape::UltraFeedback => ultrafeedback(&object)?.into_iter().map(plain).collect(),
            Shape::Argilla => argilla(&object)?.into_iter().map(plain).collect(),
        };
        let several = found.len() > 1;
        self.good.extend(found.into_iter().enumerate().map(|(index, mut data)| {
            data.line = line;
            data.row.pair_id = if several { format!("line-{line}-{index}") } else { format!("line-{line}") };
            data
        }));
        Ok(())
    }
}

/// A preference of which no more is known.
fn plain(row: PreferenceRow) -> PreferenceData {
    PreferenceData { line: 0, row, margin: 0.0, weight: 1.0, source: "human".into() }
}

/// Ends with an error where more comes out than is left.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.left.checked_sub(read as u64);
        self.left = left.ok_or_else(|| {
            let message = "the gzipped file unpacks to more than 64 GiB; if it really is so large, unpack and split it first";
            std::io::Error::new(std::io::ErrorKind::InvalidData, message)
        })?;
        Ok(read)
    }
}

fn shape_of(row: &Map<String, Value>) -> RowResult<Shape> {
    let is_transcript = |field: &str| {
        row.get(field).and_then(Value::as_str).is_some_and(|text| text.trim_start().starts_with("Human:"))
    };
    match () {
        () if row.contains_key("completions") => Ok(Shape::UltraFeedback),
        () if row.contains_key("fields") && row.contains_key("responses") => Ok(Shape::Argilla),
        () if is_transcript("chosen") && is_transcript("rejected") => Ok(Shape::Hh),
        () if row.contains_key("chosen") && row.contains_key("rejected") => Ok(Shape::Trl),
        () => {
            let fields: Vec<String> = row.keys().take(8).map(|field| format!("`{field}`")).collect();
            Err(format!("no known shape of preferences has these fields: {}", fields.join(", ")))
        }
    }
}

fn preferred(prompt: PromptText, chosen: String, rejected: String, p: f64) -> PreferenceRow {
    let (prompt_id, pair_id) = (prompt_id(&prompt), String::new());
    PreferenceRow { prompt, chosen, rejected, p, explanation: None, judges: Vec::new(), prompt_id, pair_id }
}

/// With its `margin` and `weight`, where it has them.
fn trl(line: u64, row: &Map<String, Value>) -> RowResult<PreferenceData> {
    match (row.get("chosen"), row.get("rejected")) {
        // The prompt stands in both conversations; what `prompt` says beside them is its last turn.
        (Some(chosen @ Value::Array(turns)), Some(rejected)) if turns.len() > 1 => {
            let (margin, weight) = margin_and_weight(row)?;
            let row = of_conversations(messages(chosen, "chosen")?, messages(rejected, "rejected")?)?;
            Ok(PreferenceData { margin, weight, ..plain(row) })
        }
        _ => preference_data(line, row),
    }
}

fn hh(row: &Map<String, Value>) -> RowResult<PreferenceRow> {
    let of = |field: &str| transcript(&text(row.get(field).unwrap_or(&Value::Null), field)?, field);
    of_conversations(of("chosen")?, of("rejected")?)
}

/// `\n\nHuman: … \n\nAssistant: …` as turns.
fn transcript(text: &str, field: &str) -> RowResult<Vec<Message>> {
    const SPEAKERS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];
    let text = format!("\n\n{}", text.trim());
    let mut turns: Vec<Message> = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let speaker = SPEAKERS.iter().find_map(|(mark, role)| Some((rest.strip_prefix(mark)?, *role)));
        let Some((said, role)) = speaker else {
            return Err(format!("`{field}` must be turns of `Human:` and `Assistant:`"));
        };
        let end = SPEAKERS.iter().filter_map(|(mark, _)| said.find(mark)).min().unwrap_or(said.len());
        turns.push(Message { role: role.into(), content: said[..end].trim().to_owned() });
        rest = &said[end..];
    }
    match turns.iter().position(|turn| turn.content.is_empty()) {
        Some(empty) => Err(format!("turn {} of `{field}` is empty", empty + 1)),
        None => Ok(turns),
    }
}

/// Two conversations that are the same up to their last answers.
fn of_conversations(mut chosen: Vec<Message>, mut rejected: Vec<Message>) -> RowResult<PreferenceRow> {
    let answer = |turns: &mut Vec<Message>, field: &str| match turns.pop() {
        Some(last) if last.role == "assistant" => Ok(last.content),
        _ => Err(format!("`{field}` must end with a turn of `assistant`")),
    };
    let (better, worse) = (answer(&mut chosen, "chosen")?, answer(&mut rejected, "rejected")?);
    if chosen != rejected {
        return Err(
            "`chosen` and `rejected` differ before their last turns: they answer different prompts".into()
        );
    }
    if better == worse {
        return Err("`chosen` and `rejected` are the same text".into());
    }
    match chosen.as_slice() {
        [only] if only.role == "user" => {
            Ok(preferred(PromptText::Text(only.content.clone()), better, worse, 1.0))
        }
        [.., last] if last.role == "user" => Ok(preferred(PromptText::Messages(chosen), better, worse, 1.0)),
        _ => Err("before the last answer must stand a turn of `user`".into()),
    }
}

fn ultrafeedback(row: &Map<String, Value>) -> RowResult<Vec<PreferenceRow>> {
    let prompt = PromptText::Text(text(row.get("instruction").unwrap_or(&Value::Null), "instruction")?);
    let Some(Value::Array(completions)) = row.get("completions") else {
        return Err("`completions` must be an array".into());
    };
    let mut scored = Vec::new();
    for (index, completion) in completions.iter().enumerate() {
        let place = format!("completions[{index}]");
        let response =
            text(completion.get("response").unwrap_or(&Value::Null), &format!("{place}.response"))?;
        let score =
            ["overall_score", "fine-grained_score"].iter().find_map(|name| completion.get(*name)?.as_f64());
        let score = score.ok_or_else(|| format!("`{place}` has no number as `overall_score`"))?;
        scored.push((response, score));
    }
    let pairs =
        every_two(scored.len()).filter(|&(i, j)| scored[i].1 != scored[j].1 && scored[i].0 != scored[j].0);
    let rows: Vec<PreferenceRow> = pairs
        .map(|(i, j)| if scored[i].1 > scored[j].1 { (i, j) } else { (j, i) })
        .map(|(i, j)| preferred(prompt.clone(), scored[i].0.clone(), scored[j].0.clone(), 1.0))
        .collect();
    if rows.is_empty() { Err("no two of `completions` differ in score".into()) } else { Ok(rows) }
}

fn every_two(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
}

/// Names under which Argilla's templates show what was asked.
const PROMPT_FIELDS: [&str; 4] = ["prompt", "instruction", "question", "input"];

fn argilla(row: &Map<String, Value>) -> RowResult<Vec<PreferenceRow>> {
    let Some(Value::Object(fields)) = row.get("fields") else {
        return Err("`fields` must be an object".into());
    };
    let Some(asked) = PROMPT_FIELDS.iter().find_map(|name| present(fields, name)) else {
        return Err(format!(
            "`fields` has none of {}",
            PROMPT_FIELDS.map(|name| format!("`{name}`")).join(", ")
        ));
    };
    let prompt = PromptText::Text(text(asked, "fields.prompt")?);
    let rankings = rankings(row.get("responses").unwrap_or(&Value::Null));
    let names: Vec<&String> =
        fields.keys().filter(|name| rankings.iter().any(|r| r.contains_key(*name))).collect();
    let mut rows = Vec::new();
    for (i, j) in every_two(names.len()) {
        let said: Vec<f64> = rankings
            .iter()
            .filter_map(|ranks| Some((ranks.get(names[i])?, ranks.get(names[j])?)))
            .map(|(a, b)| match a.cmp(b) {
                std::cmp::Ordering::Less => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Greater => 0.0,
            })
            .collect();
        let (a, b) = (text(&fields[names[i]], names[i])?, text(&fields[names[j]], names[j])?);
        if said.is_empty() || a == b {
            continue;
        }
        let p = said.iter().sum::<f64>() / said.len() as f64;
        rows.push(if p >= 0.5 {
            preferred(prompt.clone(), a, b, p)
        } else {
            preferred(prompt.clone(), b, a, 1.0 - p)
        });
    }
    if rows.is_empty() { Err("nobody ranked two of its `fields`".into()) } else { Ok(rows) }
}

/// The rank that each person gave each field, 1 or 0 the best. In Argilla 2 `responses` is `{question: [{value, status}]}`, in Argilla 1
/// `[{values: {question: {value}}, status}]`; a ranking is a list of `{value, rank}`, or of names from best to worst.
fn rankings(responses: &Value) -> Vec<BTreeMap<String, u64>> {
    let submitted =
        |answer: &&Value| answer.get("status").and_then(Value::as_str).is_none_or(|s| s == "submitted");
    let values: Vec<&Value> = match responses {
        Value::Object(questions) => {
            let answers = questions.values().filter_map(Value::as_array).flatten();
            answers.filter(submitted).filter_map(|answer| answer.get("value")).collect()
        }
        Value::Array(people) => {
            let answers =
                people.iter().filter(submitted).filter_map(|person| person.get("values")?.as_object());
            answers.flat_map(Map::values).filter_map(|answer| answer.get("value")).collect()
        }
        _ => Vec::new(),
    };
    let ranking = |value: &Value| -> Option<BTreeMap<String, u64>> {
        let places = value.as_array()?.iter().enumerate();
        places
            .map(|(place, option)| match option {
                Value::String(name) => Some((name.clone(), place as u64)),
                option => Some((option.get("value")?.as_str()?.to_owned(), option.get("rank")?.as_u64()?)),
            })
            .collect()
    };
    values.into_iter().filter_map(ranking).filter(|ranks| ranks.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_unpacks_to_more_than_is_allowed_is_an_error() {
        let mut text = Vec::new();
        let within = Bounded { inner: &b"abc"[..], left: 3 }.read_to_end(&mut text);
        assert_eq!((within.unwrap(), text.as_slice()), (3, &b"abc"[..]));
        let beyond = Bounded { inner: &b"abcd"[..], left: 3 }.read_to_end(&mut text);
        assert!(beyond.unwrap_err().to_string().contains("unpacks to more"));
    }
}
