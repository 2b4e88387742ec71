//! QLoRA's style: 1, 2 or 3 (tie) on a line of its own at the end.

use super::Parsed;
use super::text::bare_lines;
use regex::Regex;
use rlaif_core::records::Choice;
use std::sync::LazyLock;

/// The digit, in brackets or after "Final answer:" if need be, and nothing else.
static LINE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?i)^(?:(?:so|therefore|thus)\W+)?(?:(?:my|the)\s+)?(?:final\s+)?(?:(?:verdict|answer|choice|decision|judge?ment|output|result)\s*(?:is)?\s*[:=]?\s*)?["'(\[]*([123])["')\]]*\.?$"#,
    )
    .expect("a constant pattern")
});

fn digit(line: &str) -> Option<char> {
    LINE.captures(line)?[1].chars().next()
}

pub(super) fn parse(text: &str) -> Parsed {
    let lines = bare_lines(text);
    let Some(last) = lines.last().and_then(|line| digit(line)) else {
        return Parsed::unparsable("the last line is not 1, 2 or 3");
    };
    // Two digits on lines that follow each other are a list or two scores, not a verdict.
    if let Some(other) = lines.iter().rev().map_while(|line| digit(line)).find(|&other| other != last) {
        return Parsed::ambiguous(format!("the text ends with both {other} and {last}"));
    }
    let choice = match last {
        '1' => Choice::First,
        '2' => Choice::Second,
        _ => Choice::Tie,
    };
    Parsed::found(choice, format!("{last} on the last line"))
}
