//! QLoRA's style: 1, 2 or 3 (tie) on a line of its own at the end.

use super::Parsed;
use super::text::{own_lines, regex};
use regex::Regex;
use rlaif_core::records::Choice;
use std::sync::LazyLock;

/// The digit, in brackets or after "Final answer:" if need be, and nothing else but a remark in parentheses.
static LINE: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)^(?:(?:so|therefore|thus)\W+)?(?:(?:my|the)\s+)?(?:final\s+)?(?:(?:verdict|answer|choice|decision|judge?ment|output|result|winner)\s*(?:is)?\s*[:=]?\s*)?(?P<open>["'(\[]*)(?P<digit>[123])(?P<close>["')\]]*)[.!]?(?P<remark>\s*\([^()]*\)\.?)?$"#,
    )
});

/// A note that may follow the verdict.
static NOTE: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?i)^(?:\(.*\)|\[.*\]|(?:please\s+)?note\b.*|n\.?b\.?:.*|p\.?s\.?:?\s.*|disclaimer\b.*)$")
});

/// A heading whose number is a score or an answer, not the verdict.
static HEADS_A_NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)\b(?:assistant|response|answer|model|output)\s*\(?[12ab]\)?(?:'s)?\s*(?:answer|score|rating)?\s*:$|\b(?:scores?|ratings?)\b.*:$",
    )
});

fn digit(line: &str) -> Option<char> {
    let found = LINE.captures(line)?;
    let digit = found["digit"].chars().next()?;
    // "1)" numbers an item.
    if found["close"].contains(')') && !found["open"].contains('(') {
        return None;
    }
    let Some(remark) = found.name("remark").map(|remark| remark.as_str().to_lowercase()) else {
        return Some(digit);
    };
    let says_tie = ["tie", "equal", "equivalent"].iter().any(|word| remark.contains(word));
    let other = remark.chars().any(|c| c.is_ascii_digit() && c != digit);
    (!other && says_tie == (digit == '3')).then_some(digit)
}

pub(super) fn parse(text: &str) -> Parsed {
    let lines = own_lines(text);
    let notes = lines.iter().rev().take_while(|line| digit(line).is_none() && NOTE.is_match(line)).count();
    let lines = &lines[..lines.len() - notes];
    let Some(last) = lines.last().and_then(|line| digit(line)) else {
        return Parsed::unparsable("the last line is not 1, 2 or 3");
    };
    // Two digits on lines that follow each other are a list or two scores, not a verdict.
    if let Some(other) = lines.iter().rev().map_while(|line| digit(line)).find(|&other| other != last) {
        return Parsed::ambiguous(format!("the text ends with both {other} and {last}"));
    }
    if lines.len() > 1 && HEADS_A_NUMBER.is_match(&lines[lines.len() - 2]) {
        return Parsed::ambiguous(format!("{last} on the last line belongs to the heading above it"));
    }
    // A text that opens with a verdict and closes with another.
    if let Some(first) = lines.first().filter(|line| !line.ends_with('.')).and_then(|line| digit(line))
        && first != last
    {
        return Parsed::ambiguous(format!("the text begins with {first} and ends with {last}"));
    }
    // "2." after an item "1. …" is a list that breaks off.
    let item = char::from(last as u8 - 1);
    if lines.last().is_some_and(|line| line.ends_with('.') && line.len() == 2)
        && lines.iter().any(|line| line.starts_with(&format!("{item}. ")))
    {
        return Parsed::unparsable(format!("`{last}.` on the last line begins an item of a list"));
    }
    let choice = match last {
        '1' => Choice::First,
        '2' => Choice::Second,
        _ => Choice::Tie,
    };
    Parsed::found(choice, format!("{last} on the last line"))
}
