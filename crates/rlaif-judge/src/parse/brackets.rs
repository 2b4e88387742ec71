//! Verdicts in double brackets: MT-bench's `[[A]]`, `[[B]]`, `[[C]]` and arena-hard's `[[A>>B]]` to `[[B>>A]]`.

use super::Parsed;
use regex::Regex;
use rlaif_core::records::Choice;
use std::sync::LazyLock;

/// Double brackets around something short; Markdown sometimes escapes them.
static BRACKETS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\\?\[\\?\[([^\[\]\n]{1,40}?)\\?\]\\?\]").expect("a constant pattern"));

/// `[[A>>B]]`, `[[A>B]]`, `[[A=B]]`, `[[B>A]]`, `[[B>>A]]`; two different ones are no verdict, not even if they agree on
/// the winner.
pub(super) fn arena(text: &str) -> Parsed {
    let mut seen: Vec<(String, Choice)> = Vec::new();
    for found in BRACKETS.captures_iter(text) {
        let label = found[1].replace("&gt;", ">").replace("&lt;", "<");
        let label: String =
            label.chars().filter(|c| !c.is_whitespace() && *c != '*').collect::<String>().to_uppercase();
        let choice = match label.as_str() {
            "A>>B" | "A>B" | "B<A" | "B<<A" => Choice::First,
            "B>>A" | "B>A" | "A<B" | "A<<B" => Choice::Second,
            "A=B" | "B=A" => Choice::Tie,
            _ => continue,
        };
        if !seen.iter().any(|(other, _)| *other == label) {
            seen.push((label, choice));
        }
    }
    match seen.as_slice() {
        [] => Parsed::unparsable("no `[[A>>B]]`, `[[A>B]]`, `[[A=B]]`, `[[B>A]]` or `[[B>>A]]`"),
        [(label, choice)] => Parsed::found(*choice, format!("`[[{label}]]`")),
        [(one, _), (other, _), ..] => Parsed::ambiguous(format!("both `[[{one}]]` and `[[{other}]]`")),
    }
}

/// A label with where it stands.
struct Mention {
    label: char,
    start: usize,
    end: usize,
}

/// Said of a label just before it: not this one.
static DENIED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?i)(?:\bnot|n't|\bnever|\brather than|\binstead of|\bover)\s*["'*(]*$"#)
        .expect("a constant pattern")
});

/// Said just after it: what the label would mean, as in the judge's instructions.
static EXPLAINED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?i)^["'*`)]*\s*(?:,\s*)?(?:if|when|means|meaning|indicates|stands for|would mean)\b"#)
        .expect("a constant pattern")
});

/// Said just before it: this is the verdict.
static DECLARED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?i)\b(?:final|verdict|decision|judge?ment|conclusion)\b[^\[\]\n]{0,40}$"#)
        .expect("a constant pattern")
});

/// `[[A]]`, `[[B]]`, `[[C]]` (tie). Labels that are denied or explained do not count, quoted ones only where no other stands;
/// of two different ones the last is the verdict only if it alone is declared to be.
pub(super) fn abc(text: &str) -> Parsed {
    let mut plain: Vec<Mention> = Vec::new();
    let mut quoted: Vec<Mention> = Vec::new();
    for found in BRACKETS.captures_iter(text) {
        let Some(whole) = found.get(0) else { continue };
        let Some(label) = label(&found[1]) else { continue };
        let mention = Mention { label, start: whole.start(), end: whole.end() };
        let (before, after) = (line_before(text, mention.start), &text[mention.end..]);
        // "[[A]] if …, [[B]] if …, [[C]] for a tie" explains; "Final verdict: [[C]] for a tie" decides.
        let listed =
            before.contains("[[") && after.trim_start_matches(['"', '\'', '`']).starts_with(" for a tie");
        if listed || DENIED.is_match(before) || EXPLAINED.is_match(after) {
            continue;
        }
        match is_quoted(before, after) {
            true => quoted.push(mention),
            false => plain.push(mention),
        }
    }
    let mentions = if plain.is_empty() { quoted } else { plain };
    let Some(last) = mentions.last() else {
        return Parsed::unparsable("no `[[A]]`, `[[B]]` or `[[C]]`");
    };
    let Some(other) = mentions.iter().find(|m| m.label != last.label) else {
        return Parsed::found(choice(last.label), format!("`[[{}]]`", last.label));
    };
    let mut declared = mentions.iter().filter(|m| DECLARED.is_match(line_before(text, m.start)));
    if declared.clone().next().is_some() && declared.all(|m| m.start == last.start) {
        return Parsed::found(
            choice(last.label),
            format!("`[[{}]]`, declared as the verdict at the end", last.label),
        );
    }
    Parsed::ambiguous(format!("both `[[{}]]` and `[[{}]]`", other.label, last.label))
}

fn label(inside: &str) -> Option<char> {
    let inside = inside.trim_matches(|c: char| c.is_whitespace() || "*\"'`".contains(c)).to_lowercase();
    let inside = ["assistant", "response", "answer", "model"]
        .iter()
        .find_map(|word| inside.strip_prefix(word))
        .unwrap_or(&inside);
    match inside.trim() {
        "a" => Some('A'),
        "b" => Some('B'),
        "c" | "tie" => Some('C'),
        _ => None,
    }
}

fn choice(label: char) -> Choice {
    match label {
        'A' => Choice::First,
        'B' => Choice::Second,
        _ => Choice::Tie,
    }
}

fn line_before(text: &str, end: usize) -> &str {
    let start = text[..end].rfind('\n').map_or(0, |at| at + 1);
    &text[start..end]
}

fn is_quoted(before: &str, after: &str) -> bool {
    ['"', '\'', '`'].iter().any(|&q| before.ends_with(q) && after.starts_with(q))
}
