//! What a judge's text says.

mod brackets;
mod house;
mod json;
mod json_text;
mod jsonl;
mod lone_digit;
mod output_ab;
mod rating;
mod scores;
mod text;
mod thinking;

pub use jsonl::{JsonlCounts, jsonl};
pub(crate) use text::half_width;
pub use text::is_refusal;

use rlaif_core::records::{Choice, NoVerdict};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How judges write their verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// LLMBar with reasoning: "Therefore, Output (a) is better."
    LlmbarCot,
    /// LLMBar without: "Output (a)".
    LlmbarVanilla,
    /// 1, 2 or 3 (tie) on the last line.
    #[serde(rename = "digit-123")]
    Digit123,
    /// Two scores on the first line, or late in prose.
    ScorePair,
    /// MT-bench: `[[A]]`, `[[B]]`, `[[C]]` (tie).
    BracketsAbc,
    /// Arena-hard: `[[A>>B]]` to `[[B>>A]]`.
    ArenaBrackets,
    /// The house style: "Better response: 1", "2" or "tie" on the last line.
    BetterResponse,
    /// A JSON object with a verdict or with two scores.
    Json,
    /// One response's rating from 1 to 10; a score, never a verdict.
    #[serde(rename = "rating-1-10")]
    Rating1To10,
    /// Whatever of these the text is written in.
    Auto,
}

impl Style {
    /// Every style, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::LlmbarCot,
        Self::LlmbarVanilla,
        Self::Digit123,
        Self::ScorePair,
        Self::BracketsAbc,
        Self::ArenaBrackets,
        Self::BetterResponse,
        Self::Json,
        Self::Rating1To10,
        Self::Auto,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::LlmbarCot => "llmbar-cot",
            Self::LlmbarVanilla => "llmbar-vanilla",
            Self::Digit123 => "digit-123",
            Self::ScorePair => "score-pair",
            Self::BracketsAbc => "brackets-abc",
            Self::ArenaBrackets => "arena-brackets",
            Self::BetterResponse => "better-response",
            Self::Json => "json",
            Self::Rating1To10 => "rating-1-10",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No style has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no verdict style; there are {}", Style::ALL.map(Style::name).join(", "))]
pub struct UnknownStyle {
    /// As given.
    pub name: String,
}

impl FromStr for Style {
    type Err = UnknownStyle;

    fn from_str(name: &str) -> Result<Self, UnknownStyle> {
        let known = Self::ALL.into_iter().find(|style| style.name() == name);
        known.ok_or_else(|| UnknownStyle { name: name.to_owned() })
    }
}

/// What was read from a judge's text.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The verdict, or why there is none.
    pub verdict: Result<Choice, NoVerdict>,
    /// What decided it, or what was missing.
    pub reason: String,
    /// Scores of (first, second), or the one rating.
    pub scores: Option<Vec<f64>>,
}

impl Parsed {
    fn found(choice: Choice, reason: impl Into<String>) -> Self {
        Self { verdict: Ok(choice), reason: reason.into(), scores: None }
    }

    fn none(why: NoVerdict, reason: impl Into<String>) -> Self {
        Self { verdict: Err(why), reason: reason.into(), scores: None }
    }

    fn ambiguous(reason: impl Into<String>) -> Self {
        Self::none(NoVerdict::Ambiguous, reason)
    }

    fn unparsable(reason: impl Into<String>) -> Self {
        Self::none(NoVerdict::Unparsable, reason)
    }
}

/// Reads the verdict of a text in a style. Thinking (`<think>` and its relatives) never decides; two different verdicts are none;
/// nothing is guessed.
pub fn parse(text: &str, style: Style) -> Parsed {
    let answer = text::answer(text);
    if answer.text.trim().is_empty() {
        return match answer.cut {
            true => Parsed::none(NoVerdict::Truncated, "the text ends while the judge is still thinking"),
            false => Parsed::none(NoVerdict::Empty, "the text is empty"),
        };
    }
    let mut parsed = read(&answer.text, style);
    if parsed.verdict == Err(NoVerdict::Unparsable) && parsed.scores.is_none() {
        if text::is_refusal(&answer.text) {
            parsed = Parsed::none(NoVerdict::Refused, "the judge refused");
        } else if answer.cut {
            parsed = Parsed::none(NoVerdict::Truncated, "the text ends while the judge is still thinking");
        }
    }
    parsed
}

fn read(text: &str, style: Style) -> Parsed {
    match style {
        Style::LlmbarCot | Style::LlmbarVanilla => output_ab::parse(text),
        Style::Digit123 => lone_digit::parse(text),
        Style::ScorePair => scores::pair(text),
        Style::BracketsAbc => brackets::abc(text),
        Style::ArenaBrackets => brackets::arena(text),
        Style::BetterResponse => house::parse(text),
        Style::Json => json::parse(text),
        Style::Rating1To10 => rating::parse(text),
        Style::Auto => auto(text),
    }
}

/// Tries what judges are told to write verbatim first, then what can also be prose. Styles of one group that disagree are
/// ambiguous; a rating is only a rating where nothing is a verdict.
fn auto(text: &str) -> Parsed {
    let as_json = json::parse(text);
    // What else an object's texts say is its reasoning.
    if json::is_all(text, &as_json) {
        let rating = rating::parse(text);
        return match as_json.verdict {
            Err(NoVerdict::Unparsable) if rating.scores.is_some() => rating,
            _ => Parsed { reason: format!("{}: {}", Style::Json, as_json.reason), ..as_json },
        };
    }
    let groups: [&[Style]; 2] = [
        &[Style::ArenaBrackets, Style::BracketsAbc, Style::BetterResponse, Style::Json],
        &[Style::LlmbarCot, Style::ScorePair, Style::Digit123],
    ];
    for group in groups {
        let read: Vec<(Style, Parsed)> = group
            .iter()
            .map(|&style| (style, if style == Style::Json { as_json.clone() } else { read(text, style) }))
            .collect();
        if let Some((style, parsed)) = read.iter().find(|(_, p)| p.verdict == Err(NoVerdict::Ambiguous)) {
            return Parsed { reason: format!("{style}: {}", parsed.reason), ..parsed.clone() };
        }
        let found: Vec<&(Style, Parsed)> = read.iter().filter(|(_, p)| p.verdict.is_ok()).collect();
        if let Some((style, parsed)) = found.first() {
            if let Some((other, _)) = found.iter().find(|(_, p)| p.verdict != parsed.verdict) {
                return Parsed::ambiguous(format!("{style} and {other} give different verdicts"));
            }
            return Parsed { reason: format!("{style}: {}", parsed.reason), ..parsed.clone() };
        }
    }
    let rating = rating::parse(text);
    match rating.scores {
        Some(_) => rating,
        None => Parsed::unparsable("no style finds a verdict"),
    }
}

/// The reasoning before the verdict: the answer without thinking and without a last line that is the house style's verdict.
pub fn explanation(text: &str) -> Option<String> {
    let answer = text::answer(text).text;
    let kept = house::without_verdict(&answer);
    let kept = kept.trim();
    (!kept.is_empty()).then(|| kept.to_owned())
}

#[cfg(test)]
mod tests;
