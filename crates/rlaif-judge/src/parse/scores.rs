//! Scores: FastChat's two on the first line (or, for worked solutions, late in prose), and one response's rating.

use super::Parsed;
use super::text::{bare, bare_lines};
use regex::Regex;
use rlaif_core::records::{Choice, NoVerdict};
use std::sync::LazyLock;

/// A score, perhaps out of ten or a hundred.
const SCORE: &str = r"(\d{1,3}(?:\.\d+)?)(?:\s*/\s*100?\b)?";

/// Two scores and nothing else: "8 9", "(8, 9)", "Scores: 8.5, 9", "8/10 9/10".
static PAIR_LINE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(
        r"(?i)^(?:(?:the\s+)?(?:final\s+|overall\s+)?(?:scores?|ratings?|output)(?:\s+tuple)?\s*(?:are|is)?\s*[:=]?\s*)?[\[(]?\s*{SCORE}(?:\s*[,;|&]\s*|\s+and\s+|\s+){SCORE}\s*[\])]?\.?$"
    ))
    .expect("a constant pattern")
});

/// A tuple in a sentence about scores.
static TUPLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(r"[\[(]\s*{SCORE}\s*,\s*{SCORE}\s*[\])]")).expect("a constant pattern")
});

/// A response by its number.
const WHO: &str = r"(?:assistant|response|answer|output|model)\s*\(?\#?(1|2|a|b)\)?";

/// "Assistant 1: 8", "Assistant 1 score: 8/10 (no steps)".
static LABELLED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(
        r"(?i)^(?:[-\u{{2022}}+]\s+)?{WHO}(?:'s)?\s*(?:final\s+|overall\s+)?(?:score|rating)?\s*(?:is\s*)?[:=-]\s*{SCORE}(?:\.?|[.,]\s.*|\s*[;(\[].*|\s+[\u{{2013}}\u{{2014}}-].*)$"
    ))
    .expect("a constant pattern")
});

/// "Assistant 1 a score of 10", "Assistant 2 gets a 7": up to four words between.
static GIVEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(
        r"(?i)\b{WHO}(?:'s)?\s+(?:[a-z]+\s+){{0,4}}?(?:(?:score|rating)\s+(?:of\s+|is\s+|as\s+)?(?:an?\s+)?|(?:gets|receives|earns|scores|deserves)\s+(?:an?\s+)?){SCORE}(?:\W|$)"
    ))
    .expect("a constant pattern")
});

/// "a score of 10 to Assistant 1".
static GIVEN_TO: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(r"(?i)\b(?:score|rating)\s+of\s+{SCORE}\s+(?:to|for)\s+(?:the\s+)?{WHO}"))
        .expect("a constant pattern")
});

/// A paragraph on one response that states its score at the end: "Assistant 2: … Therefore, the score is 5."
static ABOUT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(
        r"(?i)^(?:[-\u{{2022}}+]\s+)?{WHO}\s*:.*\bscore\s+(?:is|of|would be)\s*:?\s*{SCORE}(?:\W|$)"
    ))
    .expect("a constant pattern")
});

static ABOUT_SCORES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)\b(?:scores?|ratings?|rate|tuple|output)\b").expect("a constant pattern")
});

/// How far above a labelled line its heading "Scores:" may stand.
const HEADING: usize = 4;

/// Two scores: the higher one wins, equal ones tie.
pub(super) fn pair(text: &str) -> Parsed {
    let lines = bare_lines(text);
    if let Some((first, second)) = lines.first().and_then(|line| pair_line(line)) {
        return compare(first, second, "on the first line");
    }
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    let mut of_first: Vec<f64> = Vec::new();
    let mut of_second: Vec<f64> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let on_topic = ABOUT_SCORES.is_match(line);
        if on_topic || at + 1 == lines.len() {
            pairs.extend(pair_line(line));
        }
        if on_topic {
            pairs.extend(TUPLE.captures_iter(line).filter_map(|found| both(&found)));
        }
        let under_heading =
            lines[at.saturating_sub(HEADING)..=at].iter().any(|near| ABOUT_SCORES.is_match(near));
        let mut labelled: Vec<(String, f64)> = Vec::new();
        if under_heading {
            labelled.extend(LABELLED.captures(line).and_then(|found| one(&found, 1, 2)));
        }
        labelled.extend(ABOUT.captures(line).and_then(|found| one(&found, 1, 2)));
        labelled.extend(GIVEN.captures_iter(line).filter_map(|found| one(&found, 1, 2)));
        labelled.extend(GIVEN_TO.captures_iter(line).filter_map(|found| one(&found, 2, 1)));
        for (who, score) in labelled {
            if matches!(who.as_str(), "1" | "a") { of_first.push(score) } else { of_second.push(score) }
        }
    }
    for (first, second) in pairs {
        of_first.push(first);
        of_second.push(second);
    }
    let (Some(&first), Some(&second)) = (of_first.last(), of_second.last()) else {
        return Parsed::unparsable("no two scores, on the first line or after the response they are of");
    };
    if of_first.iter().any(|&score| score != first) || of_second.iter().any(|&score| score != second) {
        return Parsed::ambiguous("a response is given two different scores");
    }
    compare(first, second, "in the text")
}

fn pair_line(line: &str) -> Option<(f64, f64)> {
    PAIR_LINE.captures(line).and_then(|found| both(&found))
}

fn both(found: &regex::Captures<'_>) -> Option<(f64, f64)> {
    let (first, second): (f64, f64) = (found[1].parse().ok()?, found[2].parse().ok()?);
    (first <= 100.0 && second <= 100.0).then_some((first, second))
}

fn one(found: &regex::Captures<'_>, who: usize, score: usize) -> Option<(String, f64)> {
    let score: f64 = found[score].parse().ok()?;
    (score <= 100.0).then(|| (found[who].to_lowercase(), score))
}

pub(super) fn compare(first: f64, second: f64, place: &str) -> Parsed {
    let choice = match first.total_cmp(&second) {
        std::cmp::Ordering::Greater => Choice::First,
        std::cmp::Ordering::Less => Choice::Second,
        std::cmp::Ordering::Equal => Choice::Tie,
    };
    Parsed {
        scores: Some(vec![first, second]),
        ..Parsed::found(choice, format!("scores {first} and {second}, {place}"))
    }
}

/// A rating is followed by nothing that would make it another number.
const RATING: &str = r"(-?\d+(?:\.\d+)?)(?P<of>\s*(?:/|out\s+of)\s*(\d+))?(?:$|[^\w./%-]|\.(?:\D|$)|-\D)";

static RATING_PATTERNS: LazyLock<[Regex; 4]> = LazyLock::new(|| {
    [
        r"\[\[\s*(-?\d+(?:\.\d+)?)(?P<of>\s*/\s*(\d+))?\s*\]\]".to_owned(),
        format!(r#"(?i)\b(?:rating|score|grade)["']?\s*(?:is\s*:?|of|[:=])\s*["'\[(]*{RATING}"#),
        r"(?i)(?:^|[^\w./-])(-?\d+(?:\.\d+)?)(?P<of>\s*(?:/|out\s+of)\s*(10))\b".to_owned(),
        format!(r#"^["'\[(]*{RATING}["')\]]*$"#),
    ]
    .map(|pattern| Regex::new(&pattern).expect("a constant pattern"))
});

/// One response's rating from 1 to 10: `[[8]]`, else "Rating: 8.5", else "8/10", else a number alone on the first or last line.
pub(super) fn rating(text: &str) -> Parsed {
    let lines: Vec<String> = text.lines().map(bare).filter(|line| !line.is_empty()).collect();
    let lone = || [lines.first(), lines.last()].into_iter().flatten();
    for (tier, pattern) in RATING_PATTERNS.iter().enumerate() {
        let found: Vec<f64> = match tier {
            3 => lone().flat_map(|line| values(pattern, line)).collect(),
            _ => lines.iter().flat_map(|line| values(pattern, line)).collect(),
        };
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

fn values(pattern: &Regex, line: &str) -> Vec<f64> {
    pattern
        .captures_iter(line)
        .filter(|found| {
            found.name("of").is_none_or(|of| {
                of.as_str().trim_end().ends_with("10") && !of.as_str().trim_end().ends_with("110")
            })
        })
        .filter_map(|found| found[1].parse().ok())
        .collect()
}
