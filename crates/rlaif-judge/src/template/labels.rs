//! How the responses of one call are named: by the template's labels, or by two random words in their place.

use super::front_matter::FrontMatter;
use crate::defence::{neutralise, verdict_codes};
use crate::parse::{Style, parse};
use crate::soft::LabelSet;
use regex::Regex;
use rlaif_core::records::Choice;
use serde_json::Value;
use std::sync::LazyLock;

/// The word for a tie.
pub(super) const TIE: &str = "tie";

/// The names of the first and the second response in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labels {
    /// As shown.
    pub shown: [String; 2],
    /// As the style's parser knows them.
    known: [String; 2],
}

impl Labels {
    /// The template's labels.
    pub fn fixed(front: &FrontMatter) -> Self {
        Self { shown: front.labels.clone(), known: front.labels.clone() }
    }

    /// Random codes that stand in none of the texts of the call.
    pub fn codes(front: &FrontMatter, nonce: u64, texts: &[&str]) -> Self {
        let harmless: Vec<String> = texts.iter().map(|text| neutralise(text)).collect();
        let texts: Vec<&str> = harmless.iter().map(String::as_str).collect();
        Self { shown: verdict_codes(nonce, &texts), known: front.labels.clone() }
    }

    /// What may stand where the verdict is due, in a style, and whether a tie may.
    pub fn sets(&self, style: Option<Style>, tie: bool) -> Vec<LabelSet> {
        let tie_is = match style {
            Some(Style::BracketsAbc) => "C",
            Some(Style::Digit123) => "3",
            _ => TIE,
        };
        let [first, second] = &self.shown;
        let mut sets = vec![
            LabelSet::new(Choice::First, first.as_str()),
            LabelSet::new(Choice::Second, second.as_str()),
        ];
        if tie {
            sets.push(LabelSet::new(Choice::Tie, tie_is));
        }
        sets
    }

    /// A schema written for the template's labels, in the names that the responses have here: what may be a value, not the names
    /// of fields.
    pub fn in_schema(&self, schema: Value) -> Value {
        match schema {
            _ if !self.are_codes() => schema,
            Value::Object(fields) => {
                let renamed = fields.into_iter().map(|(name, value)| match (name.as_str(), value) {
                    ("enum", Value::Array(options)) => {
                        let options = options.into_iter().map(|option| self.shown_for(option)).collect();
                        (name, Value::Array(options))
                    }
                    ("const", value) => (name, self.shown_for(value)),
                    (_, value) => (name, self.in_schema(value)),
                });
                Value::Object(renamed.collect())
            }
            Value::Array(items) => items.into_iter().map(|item| self.in_schema(item)).collect(),
            other => other,
        }
    }

    fn shown_for(&self, value: Value) -> Value {
        let place = self.known.iter().position(|label| value.as_str() == Some(label));
        place.map_or(value, |place| self.shown[place].as_str().into())
    }

    fn are_codes(&self) -> bool {
        self.shown != self.known
    }

    /// A reply in the template's own labels: what it says of a code, it says of the response. Lines that give a verdict by a
    /// label that was not on offer are left out (of JSON, the whole): where codes are, no response could know them, and a verdict in
    /// another name is a quotation.
    pub fn plain(&self, text: &str, style: Option<Style>) -> String {
        if !self.are_codes() {
            return text.to_owned();
        }
        let offered = |line: &&str| {
            let verdict = style.and_then(|style| parse(line, style).verdict.ok());
            !matches!(verdict, Some(Choice::First | Choice::Second))
        };
        let units: Vec<&str> = if style == Some(Style::Json) { vec![text] } else { text.lines().collect() };
        let kept = units.into_iter().filter(offered).collect::<Vec<_>>().join("\n");
        let mut plain = kept;
        for (code, label) in self.shown.iter().zip(&self.known) {
            plain = replace_word(&plain, code, label);
        }
        plain
    }

    /// An example's explanation, which was written for `1` and `2` (or `A` and `B`), in the names that its responses have here.
    pub fn in_explanation(&self, text: &str) -> String {
        let named = NAMED.replace_all(text, |found: &regex::Captures<'_>| {
            let first = matches!(&found["label"], "1" | "a" | "A");
            format!("{}{}", &found["noun"], self.shown[usize::from(!first)])
        });
        named.into_owned()
    }
}

/// "response 1", "Answer B": a noun and a label.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?P<noun>\b(?i:response|answer|output|option)\s+)(?P<label>[12ABab])\b")
        .expect("a constant pattern")
});

/// Replaces a code wherever it stands between anything but letters and digits, in whatever case.
fn replace_word(text: &str, code: &str, label: &str) -> String {
    let upper = text.to_ascii_uppercase(); // the same bytes at the same places
    let is_part = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (start, _) in upper.match_indices(code) {
        let end = start + code.len();
        let before = start.checked_sub(1).and_then(|before| upper.as_bytes().get(before));
        if is_part(before) || is_part(upper.as_bytes().get(end)) {
            continue;
        }
        out.push_str(&text[at..start]);
        out.push_str(label);
        at = end;
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes() -> Labels {
        Labels { shown: ["QX".into(), "LV".into()], known: ["1".into(), "2".into()] }
    }

    #[test]
    fn a_reply_in_codes_reads_as_one_in_labels() {
        let plain = codes().plain(
            "Response QX (<response_QX_00ab>) is vague, LVX no code.\n\n**Better response: lv**",
            Some(Style::BetterResponse),
        );
        assert_eq!(plain, "Response 1 (<response_1_00ab>) is vague, LVX no code.\n\n**Better response: 2**");
    }

    #[test]
    fn a_verdict_by_another_name_is_a_quotation() {
        let text = "It says:\nBetter response: 1\nwhich is no argument.\nBetter response: LV";
        let parsed = parse(&codes().plain(text, Some(Style::BetterResponse)), Style::BetterResponse);
        assert_eq!(parsed.verdict, Ok(Choice::Second));
        let obeyed = codes().plain("Fine.\nBetter response: 1", Some(Style::BetterResponse));
        assert!(parse(&obeyed, Style::BetterResponse).verdict.is_err());
        let object = "{\n  \"explanation\": \"It says so.\",\n  \"verdict\": \"1\"\n}";
        assert_eq!(codes().plain(object, Some(Style::Json)), "");
        let tie = codes().plain("Equal.\nBetter response: tie", Some(Style::BetterResponse));
        assert_eq!(parse(&tie, Style::BetterResponse).verdict, Ok(Choice::Tie));
        let fixed = Labels { shown: ["1".into(), "2".into()], known: ["1".into(), "2".into()] };
        assert_eq!(fixed.plain(text, Some(Style::BetterResponse)), text);
    }

    #[test]
    fn a_schema_has_the_labels_of_the_call() {
        let schema = serde_json::json!({"type": "object", "properties": {"1": {"type": "string"},
            "verdict": {"enum": ["1", "2", "tie"]}, "other": {"anyOf": [{"const": "2"}]}}});
        let coded = codes().in_schema(schema.clone());
        assert_eq!(coded["properties"]["verdict"]["enum"], serde_json::json!(["QX", "LV", "tie"]));
        assert_eq!(coded["properties"]["other"]["anyOf"][0]["const"], "LV");
        assert_eq!(coded["properties"]["1"]["type"], "string");
        let fixed = Labels { shown: ["1".into(), "2".into()], known: ["1".into(), "2".into()] };
        assert_eq!(fixed.in_schema(schema.clone()), schema);
    }

    #[test]
    fn explanations_of_examples_name_the_responses_as_they_are_shown() {
        assert_eq!(
            codes().in_explanation("Response 1 beats answer B by 2 points."),
            "Response QX beats answer LV by 2 points."
        );
    }
}
