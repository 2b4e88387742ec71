//! A JSON object with a verdict, or with two scores, alone or in prose or a code fence.

use super::json_text::{Found, Node, Objects, objects};
use super::text::regex;
use super::{Parsed, brackets, scores};
use regex::Regex;
use rlaif_core::records::{Choice, NoVerdict};
use std::sync::LazyLock;

/// Keys of a verdict, without case, spaces and underscores, and without what [`stem`] takes off.
const VERDICT_KEYS: [&str; 19] = [
    "verdict",
    "winner",
    "winning",
    "better",
    "best",
    "choice",
    "preference",
    "preferred",
    "decision",
    "judgment",
    "judgement",
    "chosen",
    "selected",
    "selection",
    "pick",
    "result",
    "outcome",
    "answer",
    "label",
];

/// The last of [`VERDICT_KEYS`], which can hold other things than a verdict.
const VAGUE_KEYS: [&str; 4] = ["result", "outcome", "answer", "label"];

/// Objects that hold the whole judgment where others hold parts of it.
const WHOLE_KEYS: [&str; 6] = ["overall", "final", "total", "evaluation", "judgment", "assessment"];

pub(super) fn parse(text: &str) -> Parsed {
    let Objects { found, cut, gave_up } = objects(text);
    if cut {
        return Parsed::none(NoVerdict::Truncated, "a JSON object has no end");
    }
    if gave_up {
        return Parsed::unparsable("too many braces that hold no JSON object");
    }
    if found.is_empty() {
        return Parsed::unparsable("no JSON object");
    }
    let read: Vec<Parsed> = found.iter().filter_map(one).collect();
    let Some(last) = read.last() else {
        return Parsed::unparsable("no key of the JSON object holds a verdict");
    };
    match read.iter().find(|other| other.verdict != last.verdict) {
        None => last.clone(),
        Some(_) => Parsed::ambiguous("JSON objects with different verdicts"),
    }
}

/// True if a text is a JSON object and nothing else, perhaps in a code fence; or if it begins as one and was read as cut off.
pub(super) fn is_all(text: &str, read: &Parsed) -> bool {
    let text = text.trim();
    let inside = match text.strip_prefix("```") {
        Some(fenced) => {
            let fenced = fenced.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
            fenced.trim_end().trim_end_matches('`')
        }
        None => text,
    };
    let inside = inside.trim();
    inside.starts_with('{') && (inside.ends_with('}') || read.verdict == Err(NoVerdict::Truncated))
}

fn one(found: &Found) -> Option<Parsed> {
    let Node::Object(entries) = &found.node else { return None };
    let mut parsed = object(entries)?;
    if found.repaired {
        parsed.reason.push_str(", once its syntax was put right");
    }
    Some(parsed)
}

fn object(entries: &[(String, Node)]) -> Option<Parsed> {
    let mut said: Vec<(&str, Choice)> = Vec::new();
    let mut unclear = false;
    for (key, value) in entries {
        let stem = stem(key);
        if VERDICT_KEYS.contains(&stem.as_str()) {
            match choice(value) {
                Some(choice) => said.push((key, choice)),
                // An object behind the key is looked into below.
                None => unclear |= !VAGUE_KEYS.contains(&stem.as_str()) && !matches!(value, Node::Object(_)),
            }
        } else if matches!(stem.as_str(), "ranking" | "rank" | "order") {
            said.extend(ranked_first(value).map(|choice| (key.as_str(), choice)));
        }
    }
    let scores = scores(entries);
    if let Some((key, choice)) = said.last() {
        if said.iter().any(|(_, other)| other != choice) {
            return Some(Parsed::ambiguous("the JSON object holds different verdicts"));
        }
        let parsed = Parsed::found(*choice, format!("`{key}` of the JSON object"));
        let Ok(scores) = scores else {
            return Some(Parsed::ambiguous("the JSON object holds two scores of one response"));
        };
        let opposite = |(first, second): (f64, f64)| match choice {
            Choice::First => first < second,
            Choice::Second => first > second,
            Choice::Tie => false,
        };
        if scores.is_some_and(opposite) {
            return Some(Parsed::ambiguous(format!("`{key}` of the JSON object and its scores differ")));
        }
        return Some(Parsed { scores: scores.map(|(first, second)| vec![first, second]), ..parsed });
    }
    // A verdict that is there and says nothing known is not replaced by the scores.
    if unclear {
        return None;
    }
    match scores {
        Ok(Some((first, second))) => Some(scores::verdict(first, second, "in the JSON object")),
        Ok(None) => nested(entries),
        Err(()) => Some(Parsed::ambiguous("the JSON object holds two scores of one response")),
    }
}

/// The verdict of the objects inside: of the one that is said to be the whole, else of all if they agree.
fn nested(entries: &[(String, Node)]) -> Option<Parsed> {
    let read: Vec<(&str, Parsed)> = entries
        .iter()
        .flat_map(|(key, value)| match value {
            Node::Object(entries) => vec![(key.as_str(), entries)],
            Node::Array(items) => items
                .iter()
                .filter_map(|item| match item {
                    Node::Object(entries) => Some((key.as_str(), entries)),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        })
        .filter_map(|(key, entries)| Some((key, object(entries)?)))
        .collect();
    let whole: Vec<&(&str, Parsed)> =
        read.iter().filter(|(key, _)| WHOLE_KEYS.contains(&plain(key).as_str())).collect();
    let counted = if whole.is_empty() { read.iter().collect() } else { whole };
    let (key, last) = counted.last()?;
    if counted.iter().any(|(_, other)| other.verdict != last.verdict) {
        return Some(Parsed::ambiguous("the JSON object holds different verdicts"));
    }
    Some(Parsed { reason: format!("{}, under `{key}`", last.reason), ..last.clone() })
}

fn plain(key: &str) -> String {
    key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A key without what does not change its meaning: "final_verdict", "better_response", "overall winner".
fn stem(key: &str) -> String {
    let plain = plain(key);
    let mut stem = plain.as_str();
    for prefix in ["overall", "final", "my", "the"] {
        stem = stem.strip_prefix(prefix).filter(|rest| !rest.is_empty()).unwrap_or(stem);
    }
    for suffix in ["response", "answer", "output", "assistant", "model", "option", "candidate"] {
        stem = stem.strip_suffix(suffix).filter(|rest| !rest.is_empty()).unwrap_or(stem);
    }
    stem.to_owned()
}

static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)^(?:the\s+)?(?:(?:response|assistant|output|answer|option|model|candidate)[\s_-]*)?[\(#]?(a|b|c|1|2|one|two|first|second|tie|tied|draw|equal|equally\s+good|both(?:\s+are)?\s+equal(?:ly\s+good)?|neither)\)?(?:\s+(?:one|response|answer|output))?(?:\s+(?:is\s+(?:[a-z]+ly\s+)?better|wins)(?:\s+than\s+[\w ()]{1,20})?)?(?:\s+\((?:slightly|much|clearly|significantly)?\s*better\))?\.?$",
    )
});

/// A verdict in words or as 1 or 2. Booleans, null, 0 and probabilities name no response.
fn choice(value: &Node) -> Option<Choice> {
    match value {
        Node::Text(text) => name(text),
        Node::Number(number) if *number == 1.0 => Some(Choice::First),
        Node::Number(number) if *number == 2.0 => Some(Choice::Second),
        _ => None,
    }
}

fn name(text: &str) -> Option<Choice> {
    let name = text.trim().trim_matches(['[', ']', '"', '\'', '*', '`', ' ']);
    let Some(found) = NAMED.captures(name) else {
        return brackets::arena_label(name).map(|(_, choice)| choice);
    };
    Some(match found[1].to_lowercase().as_str() {
        "a" | "1" | "one" | "first" => Choice::First,
        "b" | "2" | "two" | "second" => Choice::Second,
        _ => Choice::Tie,
    })
}

/// The first of exactly two different names; numbers could be ranks as well as responses.
fn ranked_first(value: &Node) -> Option<Choice> {
    let Node::Array(items) = value else { return None };
    let [Node::Text(first), Node::Text(second)] = items.as_slice() else { return None };
    let (first, second) = (name(first)?, name(second)?);
    (first != second && first != Choice::Tie && second != Choice::Tie).then_some(first)
}

/// The two scores: under keys that name the responses, or in a list, here or under "scores". `Err` if one response has two.
fn scores(entries: &[(String, Node)]) -> Result<Option<(f64, f64)>, ()> {
    let flat = keyed(entries)?;
    if flat.is_some() {
        return Ok(flat);
    }
    for (key, value) in entries {
        if !matches!(stem(key).as_str(), "scores" | "ratings" | "score" | "rating" | "points" | "grades") {
            continue;
        }
        let pair = match value {
            Node::Array(pair) => match pair.as_slice() {
                [first, second] => number(first).zip(number(second)),
                _ => None,
            },
            Node::Object(entries) => keyed(entries)?,
            _ => None,
        };
        if pair.is_some() {
            return Ok(pair);
        }
    }
    Ok(None)
}

/// Scores whose keys name the response: "score_a", "A", "Response 1", "assistant_2_score", "first".
fn keyed(entries: &[(String, Node)]) -> Result<Option<(f64, f64)>, ()> {
    let (mut first, mut second): (Option<f64>, Option<f64>) = (None, None);
    for (key, value) in entries {
        let mut who = plain(key);
        for word in ["overall", "final", "total", "scores", "score", "rating", "points", "for", "of"] {
            who = who.replace(word, "");
        }
        let Some(score) = number(value) else { continue };
        let slot = match name(&who) {
            Some(Choice::First) => &mut first,
            Some(Choice::Second) => &mut second,
            _ => continue,
        };
        if slot.is_some_and(|other| other != score) {
            return Err(());
        }
        *slot = Some(score);
    }
    Ok(first.zip(second))
}

/// A score: a number, "8", "8/10", or an object that holds one.
fn number(value: &Node) -> Option<f64> {
    match value {
        Node::Number(number) => Some(*number),
        Node::Text(text) => {
            let text = text.trim();
            text.strip_suffix("/10")
                .unwrap_or(text)
                .trim()
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
        }
        Node::Object(entries) => {
            let mut scores = entries
                .iter()
                .filter(|(key, _)| {
                    matches!(
                        plain(key).as_str(),
                        "score" | "rating" | "overall" | "total" | "overallscore" | "totalscore"
                    )
                })
                .filter_map(|(_, value)| match value {
                    Node::Number(number) => Some(*number),
                    _ => None,
                });
            scores.next().filter(|_| scores.next().is_none())
        }
        _ => None,
    }
}
