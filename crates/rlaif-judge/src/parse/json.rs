//! A JSON object with a verdict, or with two scores, alone or in prose or a code fence.

use super::Parsed;
use super::scores::compare;
use regex::Regex;
use rlaif_core::records::{Choice, NoVerdict};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::sync::LazyLock;

/// An object's entries in their order, duplicates kept: the last of two verdicts must not win in silence.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keep;
        impl<'de> Visitor<'de> for Keep {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Keep)
    }
}

/// Keys of a verdict, without case, spaces and underscores.
const VERDICT_KEYS: [&str; 17] = [
    "verdict",
    "finalverdict",
    "winner",
    "better",
    "betterresponse",
    "betteranswer",
    "best",
    "bestresponse",
    "choice",
    "preference",
    "preferred",
    "preferredresponse",
    "decision",
    "judgment",
    "judgement",
    "answer",
    "label",
];

/// Places of the two scores.
const SCORE_KEYS: [[&str; 2]; 8] = [
    ["scorea", "scoreb"],
    ["score1", "score2"],
    ["ascore", "bscore"],
    ["scorefirst", "scoresecond"],
    ["firstscore", "secondscore"],
    ["ratinga", "ratingb"],
    ["rating1", "rating2"],
    ["first", "second"],
];

/// Most objects that are looked at in one text.
const MAX_OBJECTS: usize = 256;

pub(super) fn parse(text: &str) -> Parsed {
    let (objects, cut) = objects(text);
    if cut {
        return Parsed::none(NoVerdict::Truncated, "a JSON object has no end");
    }
    if objects.is_empty() {
        return Parsed::unparsable("no JSON object");
    }
    let read: Vec<Parsed> = objects.iter().filter_map(object).collect();
    let Some(last) = read.last() else {
        return Parsed::unparsable("no key of the JSON object holds a verdict");
    };
    match read.iter().find(|other| other.verdict != last.verdict) {
        None => last.clone(),
        Some(_) => Parsed::ambiguous("JSON objects with different verdicts"),
    }
}

/// All outermost objects, and whether one of them has no end.
fn objects(text: &str) -> (Vec<Entries>, bool) {
    let mut objects = Vec::new();
    let mut at = 0;
    let mut looks = 0;
    while let Some(open) = text[at..].find('{').map(|offset| at + offset) {
        looks += 1;
        if looks > MAX_OBJECTS {
            break;
        }
        let mut stream = serde_json::Deserializer::from_str(&text[open..]).into_iter::<Entries>();
        match stream.next() {
            Some(Ok(entries)) => {
                objects.push(entries);
                at = open + stream.byte_offset();
            }
            // `{` of prose is a syntax error at once; an object that only lacks its end is a cut-off reply.
            Some(Err(error)) if error.is_eof() && text[open + 1..].trim_start().starts_with('"') => {
                return (objects, true);
            }
            _ => at = open + 1,
        }
    }
    (objects, false)
}

fn object(Entries(entries): &Entries) -> Option<Parsed> {
    let scores = scores(entries);
    let mut found: Vec<(&str, Choice)> = Vec::new();
    for (key, value) in entries {
        if VERDICT_KEYS.contains(&plain(key).as_str()) {
            found.extend(choice(value).map(|choice| (key.as_str(), choice)));
        }
    }
    if let Some((key, choice)) = found.last() {
        if found.iter().any(|(_, other)| other != choice) {
            return Some(Parsed::ambiguous("the JSON object holds different verdicts"));
        }
        let scores = scores.map(|(first, second)| vec![first, second]);
        return Some(Parsed { scores, ..Parsed::found(*choice, format!("`{key}` of the JSON object")) });
    }
    // A verdict that is there and says nothing known is not replaced by the scores.
    if entries.iter().any(|(key, _)| VERDICT_KEYS[..10].contains(&plain(key).as_str())) {
        return None;
    }
    scores.map(|(first, second)| compare(first, second, "in the JSON object"))
}

fn plain(key: &str) -> String {
    key.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
}

static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)^(?:the\s+)?(?:(?:response|assistant|output|answer|option|model|candidate)[\s_-]*)?\(?(a|b|c|1|2|one|two|first|second|tie|tied|draw|equal)\)?(?:\s+(?:one|response|answer|output))?(?:\s+is\s+better)?\.?$",
    )
    .expect("a constant pattern")
});

/// A verdict in words or as 1 or 2. Booleans, null, 0 and probabilities name no response.
fn choice(value: &Value) -> Option<Choice> {
    let name = match value {
        Value::String(text) => text.trim().trim_matches(['[', ']', '"', '\'', '*', ' ']).to_lowercase(),
        Value::Number(number) => number.as_u64()?.to_string(),
        _ => return None,
    };
    if let Some(found) = NAMED.captures(&name) {
        return match &found[1] {
            "a" | "1" | "one" | "first" => Some(Choice::First),
            "b" | "2" | "two" | "second" => Some(Choice::Second),
            _ => Some(Choice::Tie),
        };
    }
    super::brackets::arena(&format!("[[{name}]]")).verdict.ok()
}

fn scores(entries: &[(String, Value)]) -> Option<(f64, f64)> {
    let at = |entries: &[(String, Value)], name: &str| {
        entries.iter().find(|(key, _)| plain(key) == name).and_then(|(_, value)| value.as_f64())
    };
    let flat = SCORE_KEYS.iter().find_map(|[first, second]| at(entries, first).zip(at(entries, second)));
    flat.or_else(|| {
        let (_, nested) =
            entries.iter().find(|(key, _)| matches!(plain(key).as_str(), "scores" | "ratings"))?;
        match nested {
            Value::Array(pair) => match pair.as_slice() {
                [first, second] => first.as_f64().zip(second.as_f64()),
                _ => None,
            },
            Value::Object(map) => {
                let named: Vec<(Choice, f64)> = map
                    .iter()
                    .filter_map(|(key, value)| choice(&Value::String(key.clone())).zip(value.as_f64()))
                    .collect();
                let of = |choice| named.iter().find(|(c, _)| *c == choice).map(|(_, score)| *score);
                of(Choice::First).zip(of(Choice::Second))
            }
            _ => None,
        }
    })
}
