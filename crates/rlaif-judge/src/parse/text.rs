//! What all styles share: the answer without thinking, in plain characters.

use regex::Regex;
use std::sync::LazyLock;

/// The part of a text that counts.
pub(super) struct Answer {
    /// Without thinking, in plain characters.
    pub text: String,
    /// True if the text ends inside thinking.
    pub cut: bool,
}

/// Opening and closing marks of thinking: DeepSeek, Qwen and most others; Mistral; Kimi; Seed.
static THINKING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)(?P<open><\s*(?:think|thinking|thought|thoughts|seed:think)\s*>|\[THINK\]|◁think▷)|(?P<close><\s*/\s*(?:think|thinking|thought|thoughts|seed:think)\s*>|\[/THINK\]|◁/think▷)",
    )
    .expect("a constant pattern")
});

/// Removes thinking. A block ends at the next closing mark; a closing mark without an opening one ends thinking that began
/// before the text did (templates often put the opening mark into the prompt); an opening one without a closing one never ends.
pub(super) fn answer(raw: &str) -> Answer {
    let mut kept = String::with_capacity(raw.len());
    let mut at = 0;
    let mut thinking = false;
    for mark in THINKING.captures_iter(raw) {
        let Some(whole) = mark.get(0) else { continue };
        match (thinking, mark.name("open").is_some()) {
            (false, true) => {
                kept.push_str(&raw[at..whole.start()]);
                kept.push('\n');
                thinking = true;
            }
            (false, false) => kept.clear(),
            (true, true) => {}
            (true, false) => thinking = false,
        }
        at = whole.end();
    }
    if !thinking {
        kept.push_str(&raw[at..]);
    }
    Answer { text: plain(&kept), cut: thinking }
}

/// Full-width forms become ASCII, curly quotes straight, all spaces one kind, line ends `\n`; invisible characters go.
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
            // The block of full-width ASCII lies 0xFEE0 above ASCII.
            '\u{ff01}'..='\u{ff5e}' => out.push(char::from_u32(c as u32 - 0xfee0).unwrap_or(c)),
            '‘' | '’' | '‚' => out.push('\''),
            '“' | '”' | '„' => out.push('"'),
            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}' => {}
            '\n' | '\t' => out.push(c),
            c if c.is_whitespace() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A line without the marks that only dress it: Markdown emphasis, headings, quotes, list bullets, surrounding spaces.
pub(super) fn bare(line: &str) -> String {
    let without: String = line.chars().filter(|c| !matches!(c, '*' | '`')).collect();
    let trimmed = without.trim().trim_matches('_');
    trimmed.trim_start_matches(['#', '>', ' ']).trim().to_owned()
}

/// The lines that are not empty, bare.
pub(super) fn bare_lines(text: &str) -> Vec<String> {
    text.lines().map(bare).filter(|line| !line.is_empty()).collect()
}

/// "I'm sorry, but I can't …" and its relatives at the beginning.
static REFUSAL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)^\W*(?:(?:i'?m|i am) (?:really |very |so )?sorry|sorry|i apologi[sz]e|unfortunately)?\W*(?:but )?(?:as an ai(?: language model)?\W*)?i(?:'m| am)? ?(?:can(?:not|'t| not)|won'?t|will not|am unable to|unable to|not able to|must decline|have to decline|decline to|refuse to)\b",
    )
    .expect("a constant pattern")
});

pub(super) fn is_refusal(text: &str) -> bool {
    REFUSAL.is_match(text)
}
