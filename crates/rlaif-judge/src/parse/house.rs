//! The house style: "Better response: 1", "2" or "tie" on a line of its own, after the explanation.

use super::Parsed;
use super::text::{self, bare, own_lines, regex, sentences};
use regex::Regex;
use rlaif_core::records::Choice;
use std::sync::LazyLock;

/// What may stand before "better response" on its line.
const INTRODUCED: &str = r#"(?:[-+\u{2022}]\s+)?
        (?:in\s+(?:conclusion|summary)\b[\s,:]*
          |(?:based\s+on|considering|given|after)\b[^.:"\[\]]{0,80},\s*
          |(?:i\s+(?:think|believe|conclude|find|judge|would\s+say)|so|therefore|thus|hence|overall|finally|final|verdict|answer|that|my|the)\b[\s,:]*)*"#;

/// The line begins with the verdict, save for a few words that introduce one; a quotation in the middle of a sentence, such as
/// of a response that tells the judge what to say, is none. A list of the choices is none either.
static LINE: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r#"(?ix)^["']?{INTRODUCED}
        better\s+response\s*(?:is\b|would\s+be\b)?\s*(?:[a-z]+ly\s+)?(?:[:=]|->|→|\u{{2013}}|\u{{2014}})?\s*
        ["'(\[<]*(?:(?:an?|the|it\s+is\s+an?|it's\s+an?)\s+)?(?:(?:response|answer|assistant|option|output)\s*)?[\#(]?
        (?P<label>1|2|a|b|one|two|first|second|tie|tied|draw|equal|equally\s+good|neither(?:\s+is\b[^.]*)?|both(?:\s+are\b[^.]*)?)["')\]>]*
        (?:\s+(?:one|response|answer))?
        (?P<rest>\s*\([^()]*\)|,?\s+(?:because|since|as|due\s+to|for|with|by|which)\b.*|[,;]\s.*|\s+[-\u{{2013}}\u{{2014}}]\s.*
          |\s+is\s+(?:[a-z]+ly\s+|the\s+|much\s+|more\s+)*(?:better|best|preferred|superior|preferable|stronger|clearer|helpful|accurate|correct)\b.*)?
        (?P<more>[.!,;](?:\s.*)?)?["']?$"#,
    ))
});

/// The verdict's heading, whose label stands on the next line.
static HEADING: LazyLock<Regex> =
    LazyLock::new(|| regex(&format!(r"(?ix)^{INTRODUCED} better\s+response\s*(?:is)?\s*:?$")));

/// A list of labels behind a label.
static CHOICES: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)^\s*,(?:\s*(?:or\s+)?[\x22']?(?:1|2|a|b|two|tie)\b[\x22']?\s*(?:,|or|$)|\s*or\b)|better\W+response",
    )
});

fn verdict(line: &str) -> Option<Choice> {
    let found = LINE.captures(line)?;
    // "1, 2 or tie" lists the choices; "1. Wait, …" takes it back; "1. Better response: 2" goes on to another.
    let more = found.name("more").map_or("", |more| more.as_str());
    let rest = found.name("rest").map_or("", |rest| rest.as_str());
    let listed = CHOICES.is_match(rest) || CHOICES.is_match(more);
    let more = more.trim_start_matches(['.', '!', ',', ';']);
    if listed || NAMED.is_match(more) || sentences(more).into_iter().any(text::retracts) {
        return None;
    }
    let label = found["label"].to_lowercase();
    Some(match label.as_str() {
        "1" | "a" | "one" | "first" => Choice::First,
        "2" | "b" | "two" | "second" => Choice::Second,
        _ => Choice::Tie,
    })
}

/// A line that is a verdict.
struct Found {
    line: String,
    choice: Choice,
    is_final: bool,
    at: usize,
}

/// What a text without it cannot say in this style.
static NAMED: LazyLock<Regex> = LazyLock::new(|| regex(r"(?i)better\W+response"));

pub(super) fn parse(text: &str) -> Parsed {
    let lines = if NAMED.is_match(text) { own_lines(text) } else { Vec::new() };
    let mut found: Vec<Found> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let whole = match at.checked_sub(1).map(|before| &lines[before]) {
            Some(heading) if HEADING.is_match(heading) => {
                format!("{}: {line}", heading.trim_end_matches(':'))
            }
            _ => line.clone(),
        };
        if let Some(choice) = verdict(&whole) {
            let is_final = whole.to_lowercase().contains("final");
            found.push(Found { line: whole, choice, is_final, at });
        }
    }
    // The last sentence of all may be the verdict where no line is: "Response 1 is vague. The better response is 2."
    if found.is_empty()
        && let Some(line) = lines.last()
        && let [.., _, last] = sentences(line).as_slice()
        && !line.contains('"')
        && NAMED.find_iter(text).count() == 1
        && let Some(choice) = verdict(last.trim())
    {
        found.push(Found { line: last.trim().to_owned(), choice, is_final: false, at: lines.len() });
    }
    // A verdict that is called final holds against what was taken back before it.
    let retracted = lines.iter().rposition(|line| text::retracts(line)).unwrap_or(0);
    if found.last().is_some_and(|last| last.is_final && last.at >= retracted) {
        found.retain(|found| found.at >= retracted);
    }
    let Some(last) = found.last() else {
        return Parsed::unparsable("no line `Better response: 1`, `2` or `tie`");
    };
    match found.iter().find(|other| other.choice != last.choice) {
        None => Parsed::found(last.choice, format!("`{}`", last.line)),
        Some(other) => Parsed::ambiguous(format!("both `{}` and `{}`", other.line, last.line)),
    }
}

/// The text without the lines that are a verdict.
pub(super) fn without_verdict(text: &str) -> String {
    text.lines().filter(|line| verdict(&bare(line)).is_none()).collect::<Vec<_>>().join("\n")
}
