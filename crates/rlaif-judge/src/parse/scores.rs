//! FastChat's two scores, on the first line or, for worked solutions, late in prose.

use super::Parsed;
use super::text::{own_lines, regex, sentences};
use regex::{Captures, Regex};
use rlaif_core::records::Choice;
use std::sync::LazyLock;

/// A score, perhaps out of ten or a hundred.
const SCORE: &str = r"(\d{1,3}(?:\.\d+)?)(?:\s*/\s*(100?)\b)?";

/// Between two scores.
const AND: &str = r"(?:\s*[,;|&]\s*|\s+(?:and|vs\.?|versus)\s+|\s+)";

/// Two scores and nothing else: "8 9", "(8, 9)", "Scores: 8.5, 9", "8/10 9/10".
static PAIR_LINE: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r"(?i)^(?:(?:the\s+)?(?:(?:final\s+|overall\s+)?(?:scores?|ratings?|output)(?:\s+tuple)?|overall|total)\s*(?:are|is)?\s*[:=|]?\s*)?[\[(]?\s*{SCORE}{AND}{SCORE}\s*[\])]?\.?$"
    ))
});

/// A tuple in a sentence about scores.
static TUPLE: LazyLock<Regex> = LazyLock::new(|| regex(&format!(r"[\[(]\s*{SCORE}\s*,\s*{SCORE}\s*[\])]")));

/// A response by its number.
const WHO: &str = r"(?:assistant|response|answer|output|model)\s*\(?\#?(1|2|a|b)\)?";

/// What must not follow a score: more digits, a range, another scale.
const END: &str = r"(?:$|[\s;)\]]|[.,](?:\D|$))";

/// "Assistant 1: 8", "Assistant 1 score: 8/10 (no steps)".
static LABELLED: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r"(?i)^(?:[-\u{{2022}}+]\s+)?(?:\d\.\s+)?(?:score\s+(?:for|of)\s+)?(?:assistant|response|answer|output|model|score|rating)\s*\(?\#?(1|2|a|b)\)?(?:'s)?\s*(?:final\s+|overall\s+)?(?:score|rating)?\s*(?:is\s*)?[:=-]\s*{SCORE}(?:\.?|[.,]\s.*|\s*[;(\[].*|\s+[\u{{2013}}\u{{2014}}-].*)$"
    ))
});

/// "Assistant 1: 8, Assistant 2: 7" on one line.
static BOTH_LABELLED: LazyLock<Regex> = LazyLock::new(|| {
    let one = format!(r"{WHO}(?:'s\s+score|\s+score|'s\s+rating|\s+rating)?\s*(?:is\s*|[:=]\s*){SCORE}");
    regex(&format!(
        r"(?i)^(?:.*?scores?\s*:\s*|[-+]\s+)?[(\[]?{one}\s*(?:[,;|/]|and|\s)\s*(?:and\s+)?{one}[)\]]?\.?$"
    ))
});

/// "Assistant 1 a score of 10", "Assistant 2 gets a 7": up to four words between.
static GIVEN: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r"(?i)\b{WHO}(?:'s)?\s+(?:[a-z]+\s+){{0,4}}?(?:(?:score|rating)\s+(?:of\s+|is\s+|as\s+)?(?:an?\s+)?|(?:gets|receives|received|earns|earned|scores|scored|deserves)\s+(?:an?\s+)?){SCORE}(?:\W|$)"
    ))
});

/// "I would give Assistant 1 an 8 and Assistant 2 a 6", "I rate Assistant 1 8/10 and Assistant 2 7/10".
static GIVEN_BOTH: LazyLock<Regex> = LazyLock::new(|| {
    let one = format!(r"{WHO}\s+(?:with\s+|at\s+|as\s+)?(?:an?\s+)?{SCORE}");
    regex(&format!(
        r"(?i)\b(?:give|award|assign|rate|score)\s+{one}\s*,?\s*(?:and|but|while)\s+(?:i\s+)?(?:give\s+|rate\s+)?{one}{END}"
    ))
});

/// "a score of 10 to Assistant 1".
static GIVEN_TO: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(r"(?i)\b(?:score|rating)\s+of\s+{SCORE}\s+(?:to|for)\s+(?:the\s+)?{WHO}"))
});

/// "8 for Assistant 1 and 7 for Assistant 2", "8 (Assistant 1), 7 (Assistant 2)".
static FOR_BOTH: LazyLock<Regex> = LazyLock::new(|| {
    let one = format!(r"{SCORE}\s*(?:\s(?:to|for)\s+|\()\s*{WHO}\)?");
    regex(&format!(r"(?i)(?:^|[^\w./,-]\s*){one}\s*(?:,|;|and|\s)\s*(?:and\s+)?{one}"))
});

/// "Both assistants get a score of 8".
static EQUAL: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r"(?i)\b(?:(?:give|rate|award|assign)\s+both(?:\s+(?:assistants|responses|answers|models|of\s+them))?|both(?:\s+(?:assistants|responses|answers|models))?\s+(?:would\s+)?(?:get|receive|deserve|earn|score))\s+(?:an?\s+)?(?:score\s+of\s+|rating\s+of\s+)?{SCORE}{END}"
    ))
});

/// A paragraph on one response that states its score at the end: "Assistant 2: … Therefore, the score is 5."
static ABOUT: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r"(?i)^(?:[-\u{{2022}}+]\s+)?{WHO}\s*:.*\bscore\s+(?:is|of|would be)\s*:?\s*{SCORE}(?:\W|$)"
    ))
});

/// A line that can give a score to somebody.
static SOMEONE: LazyLock<Regex> = LazyLock::new(|| regex(r"(?i)assistant|response|answer|output|model|both"));

static ABOUT_SCORES: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)\b(?:scores?|ratings?|rate|tuple|output)\b"));

/// A heading that announces the scores.
static HEADING: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)^(?:the\s+)?(?:final\s+|overall\s+)?(?:scores?|ratings?)\s*(?:are\s*)?:?$"));

/// The heading of a section on one response.
static SECTION: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r"(?i)^(?:\d\.\s+)?(?:(?:evaluation|analysis|assessment|review)\s+(?:of|for)\s+)?{WHO}(?:'s\s+(?:answer|response))?\s*:?$"
    ))
});

/// The score of the section it stands in.
static SECTION_SCORE: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(r"(?i)^(?:[-+]\s+)?(?:final\s+|overall\s+)?(?:score|rating)\s*[:=-]\s*{SCORE}\.?$"))
});

/// A number alone on its line.
static LONE: LazyLock<Regex> = LazyLock::new(|| regex(&format!(r"^{SCORE}$")));

/// How far above a labelled line its heading "Scores:" may stand.
const UNDER_HEADING: usize = 4;

/// A score with its scale, where that is written.
type Score = (f64, Option<u32>);

/// All that is said about either response's score.
#[derive(Default)]
struct Said {
    first: Vec<Score>,
    second: Vec<Score>,
}

impl Said {
    fn one(&mut self, who: &str, score: Option<Score>) {
        if let Some(score) = score {
            if matches!(who.to_lowercase().as_str(), "1" | "a") { &mut self.first } else { &mut self.second }
                .push(score);
        }
    }

    fn pair(&mut self, pair: Option<(Score, Score)>) {
        if let Some((first, second)) = pair {
            self.first.push(first);
            self.second.push(second);
        }
    }
}

/// Two scores: the higher one wins, equal ones tie.
pub(super) fn pair(text: &str) -> Parsed {
    let lines: Vec<String> = own_lines(text).iter().map(|line| row(line)).collect();
    let opening = opening(&lines);
    let rest = if opening.is_some() { &lines[1..] } else { &lines[..] };
    let said = said(rest);
    if let Some(pair) = opening {
        let parsed = compare(pair, "on the first line");
        // A later account that turns the verdict around leaves none.
        if let (Some(&first), Some(&second)) = (said.first.last(), said.second.last())
            && let Ok(later) = compare((first, second), "").verdict
            && let Ok(now) = parsed.verdict
            && later != now
        {
            return Parsed::ambiguous("the scores on the first line and later ones differ in who wins");
        }
        return parsed;
    }
    let (Some(&first), Some(&second)) = (said.first.last(), said.second.last()) else {
        return Parsed::unparsable("no two scores, on the first line or after the response they are of");
    };
    if said.first.iter().any(|score| score.0 != first.0)
        || said.second.iter().any(|score| score.0 != second.0)
    {
        return Parsed::ambiguous("a response is given two different scores");
    }
    compare((first, second), "in the text")
}

/// A row of a Markdown table as text: "| Assistant 1 | 8 |" is "Assistant 1: 8".
fn row(line: &str) -> String {
    match line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) {
        Some(cells) => {
            let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
            match cells.split_first() {
                Some((name, values)) if !values.is_empty() => format!("{name}: {}", values.join(" | ")),
                _ => line.to_owned(),
            }
        }
        None => line.to_owned(),
    }
}

/// The pair that the text begins with: on one line, or a score a line.
fn opening(lines: &[String]) -> Option<(Score, Score)> {
    let first = lines.first()?;
    // "Scores: 9 and 8. Assistant 1 is better."
    if let Some(found) = sentences(first).first().and_then(|sentence| PAIR_LINE.captures(sentence)) {
        return both(&found);
    }
    if HEADING.is_match(first) {
        return lone_pair(&lines[1..]);
    }
    if let Some(pair) = lone_pair(lines) {
        return Some(pair);
    }
    // "Assistant 1: 8" and "Assistant 2: 7" where the style has its scores need no heading.
    let mut said = Said::default();
    if let Some(found) = BOTH_LABELLED.captures(first) {
        both_labelled(&mut said, &found);
    } else {
        for line in lines.iter().take(2) {
            let found = LABELLED.captures(line)?;
            said.one(&found[1], score(&found, 2));
        }
    }
    match (said.first.as_slice(), said.second.as_slice()) {
        ([first], [second]) => Some((*first, *second)),
        _ => None,
    }
}

/// Exactly two lines that are a score each.
fn lone_pair(lines: &[String]) -> Option<(Score, Score)> {
    let lone =
        |at: usize| lines.get(at).and_then(|line| LONE.captures(line)).and_then(|found| score(&found, 1));
    if lone(2).is_some() { None } else { lone(0).zip(lone(1)) }
}

fn both_labelled(said: &mut Said, found: &Captures<'_>) {
    said.one(&found[1], score(found, 2));
    said.one(&found[4], score(found, 5));
}

fn said(lines: &[String]) -> Said {
    let mut said = Said::default();
    let on_topic: Vec<bool> = lines.iter().map(|line| ABOUT_SCORES.is_match(line)).collect();
    let mut section: Option<String> = None;
    for (at, line) in lines.iter().enumerate() {
        if let Some(found) = SECTION.captures(line) {
            section = Some(found[1].to_owned());
        } else if HEADING.is_match(line) {
            section = None;
        } else if let Some((who, found)) = section.as_deref().zip(SECTION_SCORE.captures(line)) {
            said.one(who, score(&found, 1));
        }
        let after_heading = at > 0 && on_topic[at - 1] && lines[at - 1].ends_with(':');
        if on_topic[at] || after_heading || at + 1 == lines.len() {
            said.pair(PAIR_LINE.captures(line).and_then(|found| both(&found)));
        }
        if HEADING.is_match(line) {
            said.pair(lone_pair(&lines[at + 1..]));
        }
        if on_topic[at] {
            TUPLE.captures_iter(line).for_each(|found| said.pair(both(&found)));
        }
        if on_topic[at] || after_heading {
            for found in FOR_BOTH.captures_iter(line) {
                said.one(&found[3], score(&found, 1));
                said.one(&found[6], score(&found, 4));
            }
        }
        if !SOMEONE.is_match(line) {
            continue;
        }
        let under_heading = on_topic[at.saturating_sub(UNDER_HEADING)..=at].contains(&true);
        if let Some(found) = BOTH_LABELLED.captures(line).filter(|_| under_heading) {
            both_labelled(&mut said, &found);
        } else if let Some(found) = LABELLED.captures(line)
            && (under_heading || found.get(3).is_some())
        {
            said.one(&found[1], score(&found, 2));
        }
        if let Some(found) = ABOUT.captures(line) {
            said.one(&found[1], score(&found, 2));
        }
        for found in GIVEN.captures_iter(line) {
            said.one(&found[1], score(&found, 2));
        }
        for found in GIVEN_BOTH.captures_iter(line) {
            both_labelled(&mut said, &found);
        }
        for found in GIVEN_TO.captures_iter(line) {
            said.one(&found[3], score(&found, 1));
        }
        for found in EQUAL.captures_iter(line) {
            said.pair(score(&found, 1).map(|score| (score, score)));
        }
    }
    said
}

fn both(found: &Captures<'_>) -> Option<(Score, Score)> {
    score(found, 1).zip(score(found, 3))
}

/// The score in a group, with its scale in the next one.
fn score(found: &Captures<'_>, group: usize) -> Option<Score> {
    let value: f64 = found.get(group)?.as_str().parse().ok()?;
    let scale: Option<u32> = found.get(group + 1).and_then(|scale| scale.as_str().parse().ok());
    (value <= f64::from(scale.unwrap_or(100))).then_some((value, scale))
}

/// Ten is the style's scale, a hundred where both scores say so or both are above ten.
fn compare(((first, of_first), (second, of_second)): (Score, Score), place: &str) -> Parsed {
    let scale = |value: f64, written: Option<u32>| written.unwrap_or(if value > 10.0 { 100 } else { 10 });
    let written = of_first.or(of_second);
    let (of_first, of_second) = (of_first.or(written), of_second.or(written));
    if scale(first, of_first) != scale(second, of_second) {
        return Parsed::unparsable(format!("the scores {first} and {second} are not on one scale"));
    }
    verdict(first, second, place)
}

/// The verdict of two scores on one scale.
pub(super) fn verdict(first: f64, second: f64, place: &str) -> Parsed {
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
