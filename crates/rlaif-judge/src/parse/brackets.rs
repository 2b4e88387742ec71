//! Verdicts in double brackets: MT-bench's `[[A]]`, `[[B]]`, `[[C]]` and arena-hard's `[[A>>B]]` to `[[B>>A]]`.

use super::Parsed;
use super::text::{self, bare, head, regex, tail};
use regex::Regex;
use rlaif_core::records::Choice;
use std::sync::LazyLock;

/// Double brackets around something short; Markdown sometimes escapes them.
static BRACKETS: LazyLock<Regex> = LazyLock::new(|| regex(r"\\?\[\\?\[([^\[\]\n]{1,40}?)\\?\]\\?\]"));

/// `[[A>>B]]`, `[[A>B]]`, `[[A=B]]`, `[[B>A]]`, `[[B>>A]]`; two different ones are no verdict, not even if they agree on
/// the winner.
pub(super) fn arena(text: &str) -> Parsed {
    let mut seen: Vec<(&str, Choice)> = Vec::new();
    for found in BRACKETS.captures_iter(text) {
        let Some(read) = arena_label(&found[1]) else { continue };
        if !seen.contains(&read) {
            seen.push(read);
        }
    }
    match seen.as_slice() {
        [] => Parsed::unparsable("no `[[A>>B]]`, `[[A>B]]`, `[[A=B]]`, `[[B>A]]` or `[[B>>A]]`"),
        [(label, choice)] => Parsed::found(*choice, format!("`[[{label}]]`")),
        [(one, _), (other, _), ..] => Parsed::ambiguous(format!("both `[[{one}]]` and `[[{other}]]`")),
    }
}

/// The label as the style spells it, and what it means.
pub(super) fn arena_label(inside: &str) -> Option<(&'static str, Choice)> {
    if !inside.contains(['>', '<', '=', '&', '\\', '≫', '≪']) {
        return None;
    }
    let mut label = inside.to_lowercase();
    for (written, meant) in [
        ("&gt;", ">"),
        ("&lt;", "<"),
        ("\\gg", ">>"),
        ("\\ll", "<<"),
        ("≫", ">>"),
        ("≪", "<<"),
        ("assistant", ""),
        ("response", ""),
        ("model", ""),
    ] {
        label = label.replace(written, meant);
    }
    let label: String = label
        .chars()
        .filter(|c| !c.is_whitespace() && !"*\"'`$\\".contains(*c))
        .map(latin)
        .flat_map(char::to_uppercase)
        .collect();
    Some(match label.as_str() {
        "A>>B" | "B<<A" => ("A>>B", Choice::First),
        "A>B" | "B<A" => ("A>B", Choice::First),
        "A=B" | "B=A" | "A==B" | "B==A" => ("A=B", Choice::Tie),
        "B>A" | "A<B" => ("B>A", Choice::Second),
        "B>>A" | "A<<B" => ("B>>A", Choice::Second),
        _ => return None,
    })
}

/// Cyrillic and Greek letters that look like the labels; keyboards in those scripts type them.
fn latin(c: char) -> char {
    match c {
        'а' | 'А' | 'Α' | 'α' => 'a',
        'в' | 'В' | 'Β' | 'β' => 'b',
        'с' | 'С' => 'c',
        c => c,
    }
}

/// A label with where it stands.
struct Mention {
    label: char,
    start: usize,
    declared: bool,
}

/// Said of a label just before it: not this one.
static DENIED: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)(?:\b(?:not|never|cannot|neither|nor)|n't)(?:\s+(?:be|been|say|choose|choosing|pick|select|give|giving|award|assign|output|call|go|with|for|to|it|a|an|the|clear|clearly|deserve|warrant|justify|simply|just|quite|verdict|answer|label|necessarily)){0,5}\s*["'*(`]*$|\b(?:rather\s+than|instead\s+of|as\s+opposed\s+to|over|against)\s*["'*(`]*$|\b(?:for\s+example|for\s+instance|e\.g\.|such\s+as|like)[\s,:]*["'*(`]*$"#,
    )
});

/// Said just after it: what the label would mean, as in the judge's instructions, or a question.
static EXPLAINED: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)^["'*`)]*\s*(?:\?|,?\s*(?:if|when|means|meaning|indicates|stands\s+for|would\s+(?:mean|be|have)|could\s+be|might\s+be|is\s+(?:not|wrong|incorrect)|isn't)\b)"#,
    )
});

/// Said just before it: this is the verdict.
static DECLARED: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?i)\b(?:final|verdict|decision|judge?ment|conclusion|conclude|answer|winner|therefore|thus|hence|overall|ultimately|i\s+(?:choose|pick|select|go\s+with|vote\s+for))\b[^\[\]\n]{0,60}$"#,
    )
});

/// `[[A]]`, `[[B]]`, `[[C]]` (tie). Labels that are denied, asked or explained do not count, quoted ones only where no other
/// stands and they are declared to be the verdict. Of two different ones the last is the verdict if it alone is declared:
/// by a word, by a line of its own, or by opening the text. A declared one can be taken back ("Wait, …") by a declared one.
pub(super) fn abc(text: &str) -> Parsed {
    let mut plain: Vec<Mention> = Vec::new();
    let mut quoted: Vec<Mention> = Vec::new();
    let mut retracted_at: Option<usize> = None;
    for (at, line) in text::lines(text).iter().enumerate() {
        let raw = line.raw;
        let alone = {
            let bare = bare(raw);
            BRACKETS.find(&bare).is_some_and(|found| {
                let around = bare.len() - found.len();
                around <= 4 && !bare[..found.start()].chars().any(char::is_alphanumeric)
            })
        };
        let mut quotes = Quotes { line: raw, at: 0, open: false, last: raw.rfind('"').unwrap_or(0) };
        let mut sentence = 0;
        for found in BRACKETS.captures_iter(raw) {
            let Some(whole) = found.get(0) else { continue };
            let (before, after) = (tail(&raw[..whole.start()]), head(&raw[whole.end()..]));
            let in_quotes = quotes.open_at(whole.start());
            // Sentences that begin before this label and after the one before it.
            for part in text::sentences(&raw[sentence..whole.start()]) {
                if text::retracts(part) {
                    retracted_at = Some(line.start + whole.start());
                }
            }
            sentence = whole.end();
            let Some(label) = label(&found[1]) else { continue };
            // "[[A]] if …, [[B]] if …, [[C]] for a tie" explains; "Final verdict: [[C]] for a tie" decides.
            let listed =
                before.contains("[[") && after.trim_start_matches(['"', '\'', '`']).starts_with(" for a tie");
            if listed || DENIED.is_match(before) || EXPLAINED.is_match(after) {
                continue;
            }
            let opens = at == 0 && !raw[..whole.start()].chars().any(char::is_alphanumeric);
            let declared = alone || opens || DECLARED.is_match(before);
            let mention = Mention { label, start: line.start + whole.start(), declared };
            match line.quoted || in_quotes || is_quoted(before, after) {
                true => quoted.push(mention),
                false => plain.push(mention),
            }
        }
        // A retraction that no label of its line follows.
        if text::sentences(&raw[sentence..]).into_iter().any(text::retracts) {
            retracted_at = Some(line.start + raw.len());
        }
    }
    let mut mentions = plain;
    if mentions.is_empty() {
        mentions = quoted.into_iter().filter(|m| m.declared).collect();
    }
    if let Some(retracted) = retracted_at
        && mentions.iter().any(|m| m.declared && m.start >= retracted)
    {
        mentions.retain(|m| m.start >= retracted);
    }
    let Some(last) = mentions.last() else {
        return Parsed::unparsable("no `[[A]]`, `[[B]]` or `[[C]]` that is said to be the verdict");
    };
    let Some(other) = mentions.iter().find(|m| m.label != last.label) else {
        return Parsed::found(choice(last.label), format!("`[[{}]]`", last.label));
    };
    if last.declared && mentions.iter().all(|m| !m.declared || m.label == last.label) {
        return Parsed::found(
            choice(last.label),
            format!("`[[{}]]`, declared as the verdict at the end", last.label),
        );
    }
    Parsed::ambiguous(format!("both `[[{}]]` and `[[{}]]`", other.label, last.label))
}

/// Whether a place of a line lies between quotation marks, asked from left to right.
struct Quotes<'a> {
    line: &'a str,
    at: usize,
    open: bool,
    /// Where the last mark stands.
    last: usize,
}

impl Quotes<'_> {
    fn open_at(&mut self, end: usize) -> bool {
        self.open ^= self.line[self.at..end].bytes().filter(|&b| b == b'"').count() % 2 == 1;
        self.at = end;
        // An opening mark that nothing closes is a typing error.
        self.open && self.last >= end
    }
}

fn label(inside: &str) -> Option<char> {
    let inside = inside.trim_matches(|c: char| c.is_whitespace() || "*\"'`".contains(c)).to_lowercase();
    let inside = ["assistant", "response", "answer", "model"]
        .iter()
        .find_map(|word| inside.strip_prefix(word))
        .unwrap_or(&inside);
    let inside = inside.strip_suffix(" is better").unwrap_or(inside);
    let label: String = inside.trim().chars().map(latin).collect();
    match label.as_str() {
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

fn is_quoted(before: &str, after: &str) -> bool {
    ['"', '\'', '`'].iter().any(|&q| before.ends_with(q) && after.starts_with(q))
}
