//! What all styles share: the answer without thinking, in plain characters, and its lines.

use super::thinking;
use regex::Regex;
use std::borrow::Cow;
use std::sync::LazyLock;

/// A constant pattern. Its word boundaries are those of ASCII: labels are, Unicode's would cost a megabyte of other letters
/// seconds, and where a script has no spaces ("最终verdict") they would hide a label.
pub(super) fn regex(pattern: &str) -> Regex {
    Regex::new(&pattern.replace(r"\b", r"(?-u:\b)")).expect("a constant pattern")
}

/// The part of a text that counts.
pub(super) struct Answer {
    /// Without thinking, in plain characters.
    pub text: String,
    /// True if the text ends inside thinking.
    pub cut: bool,
}

/// The text in plain characters, without thinking.
pub(super) fn answer(raw: &str) -> Answer {
    let (text, cut) = thinking::without(&plain(raw));
    Answer { text, cut }
}

/// `Ａ` as `A`: the full-width forms of ASCII, a block that lies 0xFEE0 above it.
pub(crate) fn half_width(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

/// Full-width forms become ASCII, quotes and brackets of other scripts their plain kin, all spaces one kind, line ends `\n`;
/// invisible characters go.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                if chars.peek() != Some(&'\n') {
                    out.push('\n');
                }
            }
            '\u{2028}' | '\u{2029}' | '\u{85}' => out.push('\n'),
            '\u{ff01}'..='\u{ff5e}' => out.push(half_width(c)),
            '‘' | '’' | '‚' => out.push('\''),
            '“' | '”' | '„' | '«' | '»' | '「' | '」' | '『' | '』' => out.push('"'),
            '【' => out.push('['),
            '】' => out.push(']'),
            '。' => out.push('.'),
            '、' => out.push(','),
            // The minus sign and the hyphens that never break.
            '\u{2212}' | '\u{2010}' | '\u{2011}' => out.push('-'),
            // Zero-width, directional, variation and tag characters, and the keycap that makes a digit an emoji.
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' => {}
            '\u{feff}' | '\u{ad}' | '\u{34f}' | '\u{20e3}' | '\u{fe00}'..='\u{fe0f}' => {}
            '\u{e0000}'..='\u{e007f}' => {}
            '\n' | '\t' => out.push(c),
            c if c.is_whitespace() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// LaTeX that only dresses its argument.
static WRAPPED: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\\(?:boxed|fbox|text|textbf|textit|mathbf|mathrm)\s*\{([^{}]*)\}"));

/// Tags that judges are told to put around their verdict.
static TAG: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)</?\s*(?:final[_ -]?)?(?:answer|verdict|decision|judge?ment|output|result|choice|conclusion|scores?|rating)\s*>",
    )
});

/// A line without what only dresses it: Markdown emphasis, headings, quotes, emoji, LaTeX boxes, tags of the answer, spaces.
pub(super) fn bare(line: &str) -> String {
    let trimmed = line.trim();
    if trimmed.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'.' | b',' | b'-' | b'/')) {
        return trimmed.to_owned();
    }
    let mut line = Cow::Borrowed(line);
    // A box may hold a text that holds the label.
    for _ in 0..3 {
        if !line.contains('\\') {
            break;
        }
        line = Cow::Owned(WRAPPED.replace_all(&line, "$1").into_owned());
    }
    if line.contains('<') {
        line = Cow::Owned(TAG.replace_all(&line, "").into_owned());
    }
    let without: String = line.chars().filter(|c| !matches!(c, '*' | '`')).collect();
    let without = without.replace("__", "");
    let mut trimmed = without.trim().trim_matches('_');
    if trimmed.len() > 1 && trimmed.starts_with('$') && trimmed.ends_with('$') {
        trimmed = trimmed.trim_matches('$');
    }
    trimmed
        .trim_start_matches(|c| matches!(c, '#' | '>' | ' ') || is_sign(c))
        .trim_end_matches(is_sign)
        .trim()
        .to_owned()
}

/// Emoji, arrows, bullets and the like. Dashes are not: one of them may be a minus.
fn is_sign(c: char) -> bool {
    !c.is_ascii() && !c.is_alphanumeric() && !('\u{2012}'..='\u{2015}').contains(&c)
}

/// A line with whether it is quoted: in a block quote or a code block.
pub(super) struct Line<'a> {
    pub raw: &'a str,
    /// Where it begins in the text.
    pub start: usize,
    pub quoted: bool,
}

/// The lines of a text that say something. What is quoted at its very end, or in a code block at its very beginning, is the
/// judge's own verdict in a frame; elsewhere it is somebody else's words.
pub(super) fn lines(text: &str) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    let mut fenced = false;
    let mut framed_from_the_start = false;
    let mut start = 0;
    for whole in text.split_inclusive('\n') {
        let raw = whole.trim();
        if raw.starts_with("```") || raw.starts_with("~~~") {
            // "```2```" is a line and no fence.
            let inline = raw.len() > 6 && raw.ends_with("```");
            if !inline {
                fenced = !fenced;
                framed_from_the_start = fenced && lines.is_empty();
                start += whole.len();
                continue;
            }
        }
        if raw.chars().any(char::is_alphanumeric) {
            let quoted = raw.starts_with('>') || (fenced && !framed_from_the_start);
            lines.push(Line { raw: whole, start, quoted });
        }
        start += whole.len();
    }
    let courteous =
        lines.iter().rev().take_while(|line| without_courtesy(&bare(line.raw)).is_empty()).count();
    let end = lines.len() - courteous;
    for line in lines[..end].iter_mut().rev().take_while(|line| line.quoted) {
        line.quoted = false;
    }
    lines
}

/// The judge's own lines, bare, without the courtesies that follow a verdict ("Hope this helps!").
pub(super) fn own_lines(text: &str) -> Vec<String> {
    let mut own: Vec<String> = lines(text)
        .iter()
        .filter(|line| !line.quoted)
        .map(|line| bare(line.raw))
        .filter(|line| !line.is_empty())
        .collect();
    while let Some(last) = own.pop() {
        let kept = without_courtesy(&last);
        if !kept.is_empty() {
            own.push(kept.to_owned());
            break;
        }
    }
    own
}

/// What judges say after they are done.
static COURTESY: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)(?:^|[.!?][\x22')\]]*\s+)(?P<said>(?:i\s+|we\s+)?hope\s+(?:this|that|it|my)\b[^.!?]{0,80}[.!?:)\s]*|(?:please\s+|and\s+|do\s+)*(?:let\s+me\s+know|feel\s+free)\b[^.!?]{0,120}[.!?\s]*|(?:thanks|thank\s+you)\b[^.!?]{0,60}[.!?\s]*|(?:best|kind)\s+regards[.,!\s]*|cheers[.!\s]*|is\s+there\s+anything\s+else\b[^.!?]{0,80}[.!?\s]*|have\s+a\s+(?:nice|great|good)\s+day[.!\s]*)$",
    )
});

fn without_courtesy(line: &str) -> &str {
    let mut line = line;
    // One pass a sentence; judges say no more than a few.
    for _ in 0..4 {
        let Some(said) = COURTESY.captures(line).and_then(|found| found.name("said")) else { break };
        line = line[..said.start()].trim_end();
    }
    line
}

/// Cuts a line after `.`, `!` or `?` with a space behind it.
pub(super) fn sentences(line: &str) -> Vec<&str> {
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
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// How far around a label its context reaches, in bytes; bounded, so that a hostile line of a megabyte costs no more than prose.
const CONTEXT: usize = 160;

/// The end of a text, at most [`CONTEXT`] long.
pub(super) fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(CONTEXT);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// The beginning of a text, at most [`CONTEXT`] long.
pub(super) fn head(text: &str) -> &str {
    let mut end = text.len().min(CONTEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// How a judge takes back what it said, at the beginning of a sentence.
static RETRACTS: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)^\W*(?:(?:oh|hmm+|hm|no|but|oops|well)\W+)*(?:wait\b|actually,|correction\b|scratch\s+that|on\s+second\s+thoughts?|on\s+reflection|(?:up)?on\s+(?:closer|further|re-?)|let\s+me\s+(?:reconsider|re-?think|re-?evaluate|re-?check|re-?examine|double)|i\s+(?:take\s+that\s+back|made\s+a\s+mistake|was\s+wrong|need\s+to\s+correct|must\s+correct|misread)|my\s+mistake|i\s+stand\s+corrected)",
    )
});

/// True for "Wait, …", "Actually, …", "On second thought …".
pub(super) fn retracts(sentence: &str) -> bool {
    RETRACTS.is_match(sentence)
}

/// "I'm sorry, but I can't …" and its relatives at the beginning.
static REFUSAL: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)^\W*(?:(?:i'?m|i am) (?:really |very |so )?(?:sorry|afraid)|sorry|i apologi[sz]e|unfortunately|apologies|my apologies)?\W*(?:but |that )?(?:as an ai(?: language model| assistant)?\W*)?i(?:'m| am)? ?(?:can(?:not|'t| not)|won'?t|will not|am unable to|unable to|not able to|not comfortable|must decline|have to decline|decline to|refuse to)\b",
    )
});

/// Whether a text begins as those do that refuse to answer, in English.
pub fn is_refusal(text: &str) -> bool {
    REFUSAL.is_match(text)
}
