//! LLMBar's styles: "Output (a) is better.", as the first sentence, the last, or the whole answer.

use super::Parsed;
use super::text::bare_lines;
use regex::Regex;
use rlaif_core::records::Choice;
use std::sync::LazyLock;

/// How an output is named. Without parentheses the letter is a capital, so that "output a list" is none.
const NAME: &str = r"(?i:outputs?|responses?|answers?)\s*(?:\((?P<p>[abAB])\)|(?P<c>[AB])\b)";

/// "Output (a) is clearly better", also "… is the better one".
static IS_BETTER: LazyLock<Regex> = LazyLock::new(|| {
    let adverbs = r"(?:(?:the|a|an|much|far|also|still|overall|thus|therefore|then|by far|[a-z]+ly)\s+){0,4}";
    let better = r"(?:better|best|superior|preferable|preferred|winner)\b";
    Regex::new(&format!(
        r#"{NAME}["']?\s+(?i:(?:is|was|would be|seems|seems to be|appears to be)\s+{adverbs}{better})"#
    ))
    .expect("a constant pattern")
});

/// "The better output is Output (a)", "I prefer Output (a)", "Verdict: Output (a)".
static BETTER_IS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(
        r#"(?i:\b(?:better|best|superior|preferred)(?:\s+(?:output|response|answer|one|choice|option))?\s*(?:is|:|would be)\s*:?\s*|\bi\s+(?:would\s+|will\s+)?(?:prefer|choose|select|pick|favou?r)\s+|\b(?:verdict|decision|judge?ment|choice|winner)\s*(?:is\s*)?:?\s*)["']?{NAME}"#
    ))
    .expect("a constant pattern")
});

/// The name alone.
static ONLY_NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&format!(r#"^["'(\[]*{NAME}["')\]]*[.!]?$"#)).expect("a constant pattern"));

/// What makes a clause no statement: "neither Output (a) nor …", "whether Output (a) is better", "it is not true that …".
static UNSTATED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)\b(?:neither|nor|whether|if|unless|not|cannot|hard|difficult|unclear|either)\b|n't\b")
        .expect("a constant pattern")
});

/// "… is better at rhyming", "… in terms of detail": better in one respect.
static IN_ONE_RESPECT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)^\s+(?:at|in|for|when|if|on|with (?:respect|regard)|regarding|suited|structured|written)\b",
    )
    .expect("a constant pattern")
});

/// How conclusions begin.
static CONCLUDES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^\W*(?:therefore|thus|hence|so\b|overall|in conclusion|in summary|to conclude|to summari[sz]e|ultimately|as a result|consequently|accordingly|all in all|final|based on|considering|given|taking)")
        .expect("a constant pattern")
});

/// One statement that an output is better.
struct Statement {
    choice: Choice,
    /// In one respect only.
    partial: bool,
    /// In a sentence that concludes.
    concludes: bool,
}

/// A conclusion decides; without one, all statements must agree; those in one respect count where there are no others.
/// The style has no tie: "both are equally good" is no verdict.
pub(super) fn parse(text: &str) -> Parsed {
    let text = text.replace(['*', '`'], "");
    let lines = bare_lines(&text);
    let named: Vec<Choice> =
        [lines.first(), lines.last()].into_iter().flatten().filter_map(|line| only_name(line)).collect();
    let statements: Vec<Statement> =
        lines.iter().flat_map(|line| sentences(line)).flat_map(statements).collect();

    let conclusions = |partial| pick(&statements, |s| s.concludes && s.partial == partial);
    let any = |partial| pick(&statements, |s| s.partial == partial);
    let tiers = [
        ("as the whole line", named),
        ("in the conclusion", conclusions(false)),
        ("stated", any(false)),
        ("in the conclusion, in one respect", conclusions(true)),
        ("stated, in one respect", any(true)),
    ];
    // The line that is only a name and the statements must not contradict each other.
    for (how, choices) in &tiers {
        let Some(first) = choices.first() else { continue };
        if choices.iter().any(|choice| choice != first) {
            return Parsed::ambiguous(format!("both outputs are called better, {how}"));
        }
        if *how == "as the whole line" && any(false).iter().any(|choice| choice != first) {
            return Parsed::ambiguous("the line with the name and the reasoning differ");
        }
        let name = if *first == Choice::First { "(a)" } else { "(b)" };
        return Parsed::found(*first, format!("Output {name} is better, {how}"));
    }
    Parsed::unparsable("neither output is called better")
}

fn pick(statements: &[Statement], test: impl Fn(&Statement) -> bool) -> Vec<Choice> {
    statements.iter().filter(|s| test(s)).map(|s| s.choice).collect()
}

fn only_name(line: &str) -> Option<Choice> {
    ONLY_NAME.captures(line).map(|found| named(&found))
}

fn named(found: &regex::Captures<'_>) -> Choice {
    let letter = found.name("p").or_else(|| found.name("c")).map_or("", |m| m.as_str());
    if letter.eq_ignore_ascii_case("a") { Choice::First } else { Choice::Second }
}

/// Cuts a line after `.`, `!` or `?` with a space behind it.
fn sentences(line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let bytes = line.as_bytes();
    for at in 0..bytes.len() {
        if matches!(bytes[at], b'.' | b'!' | b'?')
            && bytes.get(at + 1).is_some_and(|b| b.is_ascii_whitespace())
        {
            parts.push(&line[start..=at]);
            start = at + 1;
        }
    }
    parts.push(&line[start..]);
    parts
}

fn statements(sentence: &str) -> Vec<Statement> {
    let concludes = CONCLUDES.is_match(sentence);
    [&*IS_BETTER, &*BETTER_IS]
        .into_iter()
        .flat_map(|pattern| pattern.captures_iter(sentence))
        .filter_map(|found| {
            let whole = found.get(0)?;
            let clause = sentence[..whole.start()].rsplit([',', ';', ':']).next().unwrap_or_default();
            if UNSTATED.is_match(clause) || sentence.trim_end().ends_with('?') {
                return None;
            }
            let partial = IN_ONE_RESPECT.is_match(&sentence[whole.end()..]);
            Some(Statement { choice: named(&found), partial, concludes })
        })
        .collect()
}
