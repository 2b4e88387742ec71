//! One response's rating from 1 to 10: a score, never a verdict.

use super::Parsed;
use super::text::{head, own_lines, regex, tail};
use regex::Regex;
use rlaif_core::records::NoVerdict;
use std::sync::LazyLock;

/// A number, with a decimal point or comma, and perhaps its scale.
const NUMBER: &str = r"(?P<n>-?\d+(?:[.,]\d{1,3})?)(?P<of>\s*(?:/|out\s+of)\s*(?P<scale>\d+))?";

/// After a rating stands nothing that would make it another number.
const END: &str = r"(?:$|[^\w./%,-]|[.,](?:\D|$)|-\D)";

/// Each pattern counts where no earlier one is found.
static PATTERNS: LazyLock<[Regex; 6]> = LazyLock::new(|| {
    let is = r#"["']?\s*(?:\([^()]{0,40}\)\s*)?(?:is\s*:?|of|[:=]|\s[-\u{2013}\u{2014}]\s|\s(?:on|out|from)\s[^:.\n]{0,40}:)\s*(?:an?\s+)?["'\[(<]*"#;
    let words = r"(?:(?:it|this|that|the|an?|response|answer|output|reply|assistant|one|as|at|of|with|to|be|score|rating|solid|strong|weak|firm|about|overall|final|grade|mark)\s+)";
    [
        format!(r"\[\[\s*{NUMBER}\s*\]\]"),
        format!(r"(?i)\b(?:overall|final|total)(?:\s+(?:rating|score|grade|mark))?{is}{NUMBER}{END}"),
        format!(r"(?i)\b(?:rating|score|grade|mark){is}{NUMBER}{END}"),
        format!(r"(?i)\b(?:give|giving|rate|rating|score|award|assign|deserves|gets|earns|receives|merits)\s+{words}{{0,8}}{NUMBER}{END}"),
        r"(?i)(?:^|[^\w./,-])(?P<n>-?\d+(?:[.,]\d{1,3})?)(?P<of>\s*(?:/|out\s+of)\s*(?P<scale>10))\b".to_owned(),
        format!(r#"^["'\[(]*{NUMBER}(?:\s+(?:points|stars))?[.!]?["')\]]*[.!]?$"#),
    ]
    .map(|pattern| regex(&pattern))
});

/// "6 or 7", "between 6 and 7", "6-7": no one number.
static RANGE_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)\d(?:\s*/\s*10)?\s*(?:-|\u{2013}|\bor\b|\bto\b|~)\s*$|\bbetween\s+(?:an?\s+)?[\d./]+\s+and\s+(?:an?\s+)?$",
    )
});
static RANGE_AFTER: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?i)^(?:\s*/\s*10)?\s*(?:-|\u{2013}|or\b|to\b|~)\s*(?:an?\s+|perhaps\s+|maybe\s+|even\s+)*\d")
});

/// Said of a number that is not the rating: an example of the form, or a denial.
static DENIED: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)(?:\b(?:for\s+example|for\s+instance|e\.g\.|such\s+as|like|format|not|instead\s+of|rather\s+than)|n't)[\s,:"'`(]*(?:an?\s+|rating\W+|give\s+it\s+)*["'`]*$"#,
    )
});

/// The heading of a rating that stands on the next line.
static HEADING: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)^(?:(?:final|overall)\s+)?(?:rating|score)\s*:?$"));

/// `[[8]]`, else "Overall: 8", else "Rating: 8.5", else "I'd give it an 8", else "8/10", else a number alone on the first or
/// last line. Two different ones of a kind are none, nor is a range.
pub(super) fn parse(text: &str) -> Parsed {
    let lines = own_lines(text);
    for (tier, pattern) in PATTERNS.iter().enumerate() {
        let mut found: Vec<f64> = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            if !line.bytes().any(|b| b.is_ascii_digit()) {
                continue;
            }
            let headed = at > 0 && HEADING.is_match(&lines[at - 1]);
            if tier == 5 && at != 0 && at + 1 != lines.len() && !headed {
                continue;
            }
            match values(pattern, line) {
                Ok(values) => found.extend(values),
                Err(range) => return Parsed::ambiguous(format!("`{range}` is a range and no rating")),
            }
        }
        let Some(&last) = found.last() else { continue };
        if found.iter().any(|&other| other != last) {
            return Parsed::ambiguous("two different ratings");
        }
        if !(1.0..=10.0).contains(&last) {
            return Parsed::unparsable(format!("the rating {last} is not from 1 to 10"));
        }
        let rating =
            Parsed::none(NoVerdict::Unparsable, "a rating of one response is a score, not a verdict");
        return Parsed { scores: Some(vec![last]), ..rating };
    }
    Parsed::unparsable("no rating from 1 to 10")
}

/// The numbers that a pattern finds in a line, or the range that one of them belongs to.
fn values(pattern: &Regex, line: &str) -> Result<Vec<f64>, String> {
    let mut values = Vec::new();
    for found in pattern.captures_iter(line) {
        let (Some(whole), Some(number)) = (found.get(0), found.name("n")) else { continue };
        if found.name("scale").is_some_and(|scale| scale.as_str() != "10") {
            continue;
        }
        let end = found.name("of").map_or(number.end(), |of| of.end());
        if RANGE_BEFORE.is_match(tail(&line[..number.start()])) || RANGE_AFTER.is_match(head(&line[end..])) {
            return Err(head(whole.as_str()).trim().to_owned());
        }
        if DENIED.is_match(tail(&line[..number.start()])) || DENIED.is_match(tail(&line[..whole.start()])) {
            continue;
        }
        values.extend(number.as_str().replace(',', ".").parse::<f64>().ok());
    }
    Ok(values)
}
