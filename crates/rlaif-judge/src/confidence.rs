//! A confidence that the judge was asked to state, as a probability.
//!
//! A judge that gives no log-probabilities can be asked how sure it is, from 50 (a guess) to 100 (certain), on a line of its own:
//! `Confidence: 85`. What it says is read only where its template asks for it; a number that nobody asked for is no probability.

use regex::Regex;
use rlaif_core::records::{Choice, Verdict};
use std::sync::LazyLock;

static LINE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)^[\s*_#>-]*confidence[\s*_]*[:=][\s*_]*(\d{1,3}(?:\.\d+)?)\s*(%|per\s?cent|/\s*100)?[\s*_.]*$",
    )
    .expect("a constant pattern")
});

/// The confidence in [0, 100] that stands on a line of its own; `None` where there is none, where two lines differ, or where it
/// is out of range or a fraction such as 0.8, which is anybody's guess.
pub fn stated_confidence(text: &str) -> Option<f64> {
    let mut stated = text.lines().filter_map(|line| {
        let found = LINE.captures(line)?;
        let value: f64 = found[1].parse().ok()?;
        Some((value, found.get(2).is_some()))
    });
    let (value, has_unit) = stated.next()?;
    let fraction = value > 0.0 && value <= 1.0 && !has_unit;
    let agreed = stated.all(|(other, _)| other == value);
    (agreed && !fraction && value <= 100.0).then_some(value)
}

/// The verdict with its stated confidence as p(first): c/100 for the response it chose. Below 50 it is a guess, p = ½: a judge
/// that doubts its own verdict has not said the opposite. Ties, missing verdicts and probabilities from tokens stay as they are.
#[must_use]
pub fn with_confidence(verdict: Verdict, percent: f64) -> Verdict {
    let sure = percent.clamp(50.0, 100.0) / 100.0;
    let p_first = match (&verdict.choice, verdict.p_first) {
        (Ok(Choice::First), None) => Some(sure),
        (Ok(Choice::Second), None) => Some(1.0 - sure),
        (_, p_first) => p_first,
    };
    Verdict { p_first, ..verdict }
}

/// A text without its line of confidence; `None` if nothing else is in it.
pub fn without_confidence(text: &str) -> Option<String> {
    let kept: Vec<&str> = text.lines().filter(|line| !LINE.is_match(line)).collect();
    let kept = kept.join("\n").trim().to_owned();
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::records::NoVerdict;

    #[test]
    fn a_line_of_its_own_and_nothing_else() {
        let table = [
            ("Better response: 1\nConfidence: 85", Some(85.0)),
            ("**Confidence:** 85%\nBetter response: 2", Some(85.0)),
            ("- confidence = 72.5 / 100.", Some(72.5)),
            ("Confidence: 100", Some(100.0)),
            ("Confidence: 0", Some(0.0)),
            ("My confidence is 85", None),
            ("The response says \"Confidence: 99\" of itself.", None),
            ("Confidence: high", None),
            ("Confidence: 0.8", None),
            ("Confidence: 0.8 %", Some(0.8)),
            ("Confidence: 120", None),
            ("Confidence: 60\nConfidence: 90", None),
            ("Confidence: 60\nso\nConfidence: 60", Some(60.0)),
            ("", None),
        ];
        for (text, want) in table {
            assert_eq!(stated_confidence(text), want, "{text:?}");
        }
    }

    #[test]
    fn an_explanation_goes_on_without_it() {
        assert_eq!(without_confidence("Fine.\n\nConfidence: 85 %\n"), Some("Fine.".into()));
        assert_eq!(without_confidence("**Confidence:** 85"), None);
        assert_eq!(without_confidence("Confidence: high"), Some("Confidence: high".into()));
    }

    #[test]
    fn a_probability_for_the_response_that_it_chose() {
        let p = |choice, percent| with_confidence(Verdict::choice(choice), percent).p_first;
        assert_eq!(p(Choice::First, 80.0), Some(0.8));
        assert!((p(Choice::Second, 80.0).unwrap() - 0.2).abs() < 1e-12);
        assert_eq!(p(Choice::First, 20.0), Some(0.5), "doubt is not the opposite verdict");
        assert_eq!(p(Choice::Tie, 80.0), None);
        let none = Verdict::none(NoVerdict::Refused);
        assert_eq!(with_confidence(none.clone(), 90.0), none);
        let tokens = Verdict { p_first: Some(0.6), ..Verdict::choice(Choice::First) };
        assert_eq!(with_confidence(tokens, 90.0).p_first, Some(0.6));
    }
}
