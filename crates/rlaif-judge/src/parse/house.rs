//! The house style: "Better response: 1", "2" or "tie" on a line of its own, after the explanation.

use super::Parsed;
use super::text::bare;
use regex::Regex;
use rlaif_core::records::Choice;
use std::sync::LazyLock;

/// The line begins with the verdict, save for a few words that introduce one; a quotation in the middle of a sentence, such as
/// of a response that tells the judge what to say, is none. A list of the choices is none either.
static LINE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?ix)^(?:[-\u{2022}]\s+)?
        (?:(?:so|therefore|thus|hence|overall|finally|final|verdict|my|the)\b[\s,:]*)*
        better\s+response\s*(?:is\b|would\s+be\b)?\s*[:=]?\s*
        ["'(\[<]*(?:(?:response|answer|assistant|option|output)\s*)?\#?
        (?P<label>1|2|a|b|one|two|first|second|tie|tied|equal|neither)["')\]>]*
        (?:\s*\([^()]*\)|\s+(?:because|since|as)\b.*|\s+[-\u{2013}\u{2014}]\s.*)?
        (?:[.!](?:\s.*)?)?$"#,
    )
    .expect("a constant pattern")
});

fn verdict(line: &str) -> Option<Choice> {
    let found = LINE.captures(line)?;
    Some(match found["label"].to_lowercase().as_str() {
        "1" | "a" | "one" | "first" => Choice::First,
        "2" | "b" | "two" | "second" => Choice::Second,
        _ => Choice::Tie,
    })
}

pub(super) fn parse(text: &str) -> Parsed {
    let found: Vec<(String, Choice)> =
        text.lines().map(bare).filter_map(|line| verdict(&line).map(|choice| (line, choice))).collect();
    let Some((line, choice)) = found.last() else {
        return Parsed::unparsable("no line `Better response: 1`, `2` or `tie`");
    };
    match found.iter().find(|(_, other)| other != choice) {
        None => Parsed::found(*choice, format!("`{line}`")),
        Some((other, _)) => Parsed::ambiguous(format!("both `{other}` and `{line}`")),
    }
}

/// The text without the lines that are a verdict.
pub(super) fn without_verdict(text: &str) -> String {
    text.lines().filter(|line| verdict(&bare(line)).is_none()).collect::<Vec<_>>().join("\n")
}
