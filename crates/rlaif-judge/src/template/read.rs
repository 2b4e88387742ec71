//! What the replies to a template's steps say. Pure: the same replies always give the same verdict.

use crate::json_mend;
use crate::parse::{Style, parse};
use regex::Regex;
use rlaif_core::records::{Choice, NoVerdict, Verdict};
use serde_json::Value;
use std::collections::BTreeMap;

/// Keys of a JSON object that hold the judge's reasoning.
const EXPLANATIONS: [&str; 6] = ["explanation", "reasoning", "reason", "rationale", "analysis", "thoughts"];

/// A verdict in words, in the template's own labels.
pub(super) fn text(plain: &str, style: Style, tie: bool) -> Verdict {
    let parsed = parse(plain, style);
    let mut scores = BTreeMap::new();
    if let Some([first, second]) = parsed.scores.as_deref() {
        scores.insert("overall".to_owned(), (*first, *second));
    }
    let choice = match parsed.verdict {
        Ok(Choice::Tie) if !tie => Err(NoVerdict::Unparsable), // it was not on offer
        verdict => verdict,
    };
    let explanation = match style {
        Style::Json => in_object(plain),
        _ => crate::parse::explanation(plain),
    };
    Verdict { scores, explanation, ..Verdict::of(choice) }
}

/// The explanation in a JSON object; the whole text where it is not an object and nothing else.
fn in_object(plain: &str) -> Option<String> {
    let Ok(Value::Object(object)) = json_mend::parse(plain.trim().as_bytes()) else {
        return crate::parse::explanation(plain);
    };
    let found = object.iter().find(|(key, _)| EXPLANATIONS.contains(&key.to_lowercase().as_str()));
    found.and_then(|(_, text)| text.as_str()).map(str::trim).filter(|text| !text.is_empty()).map(String::from)
}

/// Ratings on each criterion: a line `name: LABEL = 7, LABEL = 5`. A criterion without one such line, or with two that differ, has
/// none.
pub(super) fn criterion_scores(
    plain: &str,
    names: &[&str],
    labels: &[String; 2],
) -> BTreeMap<String, (f64, f64)> {
    let mut scores = BTreeMap::new();
    for name in names {
        let [name, first, second] = [*name, &labels[0], &labels[1]].map(|word| regex::escape(word.trim()));
        let number = r"(10|[1-9])(?:\.(\d+))?(?:\s*/\s*10)?";
        let pattern = format!(
            r"(?im)^[\s*_`\-\u{{2022}}\d.)#]*{name}[\s*_`]*[:\u{{2013}}-][\s*_`]*(?:response\s+)?{first}\s*[=:]\s*{number}[\s*_`]*[,;/|]?\s*(?:and\s+)?(?:response\s+)?{second}\s*[=:]\s*{number}"
        );
        let Ok(pattern) = Regex::new(&pattern) else { continue };
        let value = |found: &regex::Captures<'_>, at: usize| -> Option<f64> {
            let fraction = found.get(at + 1).map_or("0", |digits| digits.as_str());
            format!("{}.{fraction}", &found[at]).parse().ok().filter(|rating| (1.0..=10.0).contains(rating))
        };
        let mut found: Vec<(f64, f64)> =
            pattern.captures_iter(plain).filter_map(|found| value(&found, 1).zip(value(&found, 3))).collect();
        found.dedup();
        if let [pair] = found.as_slice() {
            scores.insert(unescaped(names, &name), *pair);
        }
    }
    scores
}

fn unescaped(names: &[&str], escaped: &str) -> String {
    let same = |name: &&&str| regex::escape(name.trim()) == escaped;
    names.iter().find(same).map_or(escaped, |name| name.trim()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_explanation_of_an_object_is_its_own_field() {
        let read = |plain: &str| text(plain, Style::Json, true);
        let verdict = read(r#"{"explanation": " B rhymes. ", "verdict": "B"}"#);
        assert_eq!((verdict.choice, verdict.explanation.as_deref()), (Ok(Choice::Second), Some("B rhymes.")));
        assert_eq!(read(r#"{"verdict": "B"}"#).explanation, None);
        let fenced = read("So:\n```json\n{\"verdict\": \"A\"}\n```");
        assert_eq!(fenced.choice, Ok(Choice::First));
        assert!(fenced.explanation.unwrap().starts_with("So:"));
    }

    #[test]
    fn ratings_on_criteria_are_read_line_by_line() {
        let labels = ["1".to_owned(), "2".to_owned()];
        let text = "**accuracy**: 1 = 7, 2 = 5.5 (a slip)\n- clarity: 1 = 10/10, 2 = 3/10 (vague)\nhelpfulness: 1 = 12, 2 = 3\nsafety: 1 = 4, 2 = 4\nsafety: 1 = 5, 2 = 4\n\nBetter response: 1";
        let scores =
            criterion_scores(text, &["accuracy", "clarity", "helpfulness", "safety", "a (b)"], &labels);
        assert_eq!(scores.get("accuracy"), Some(&(7.0, 5.5)));
        assert_eq!(scores.get("clarity"), Some(&(10.0, 3.0)));
        assert_eq!(scores.len(), 2, "out of range and contradictory ones are none: {scores:?}");
    }
}
