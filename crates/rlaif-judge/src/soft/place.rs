//! Where in the tokens of a reply its verdict or rating stands.

use crate::completion::TokenLogprob;
use crate::parse::half_width;
use regex::Regex;
use std::sync::LazyLock;

/// What may stand before the one token that is asked for.
static LEAD: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^[\s*_`#>]*(?:(?:better|best)\s+response|verdict|answer|rating|score)?\s*(?:is)?\s*[:=]?[\s*_`\[\(\x22']*(?:response\s+)?")
        .expect("a constant pattern")
});

/// What stands right before a verdict in words: `Better response: `, `"verdict": "`, `[[`.
static BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?i)(?:\[\[\s*|\b(?:(?:better|best)\s+(?:response|answer|output|option)|verdict|winner|better|best|choice|preferred|preference|decision|judge?ment|answer|chosen|selected|label)["'*_`\s]*(?:\bis\b|[:=])["'*_`\[(\s]*(?:(?:response|answer|output|option)\s+)?)$"#,
    )
    .expect("a constant pattern")
});

/// Bytes in which [`BEFORE`] is looked for.
const LOOK_BACK: usize = 64;

/// What may close a verdict.
const CLOSING: [char; 10] = ['"', '\'', '`', '*', '_', ']', ')', '.', '!', ' '];

/// The set of the label that is the verdict, and the token in which it begins: the last one that stands after words which announce
/// a verdict; without any, the last word of the text.
///
/// A label elsewhere is talked about: the probability of `1` in "response 1 is vague" says nothing of which is better.
pub(super) fn of_verdict(tokens: &[TokenLogprob], spellings: &[(usize, String)]) -> Option<(usize, usize)> {
    let joined = Joined::of(tokens);
    let text = &joined.text;
    let (offsets, chars): (Vec<usize>, Vec<char>) =
        text.char_indices().map(|(at, c)| (at, half_width(c))).unzip();
    let lower: Vec<char> = chars.iter().map(char::to_ascii_lowercase).collect();
    let is_word = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|c| c.is_alphanumeric());
    let first_word = chars.iter().position(|c| c.is_alphanumeric());
    let mut best: Option<((bool, usize), usize)> = None;
    for (set, label) in spellings {
        let wanted: Vec<char> = label.chars().collect();
        for at in 0..=chars.len().saturating_sub(wanted.len()) {
            let end = at + wanted.len();
            if lower.get(at..end) != Some(&wanted[..]) || is_word(at.checked_sub(1)) || is_word(Some(end)) {
                continue;
            }
            let before = tail(&text[..offsets[at]]);
            let announced =
                BEFORE.is_match(before) && (before.trim_end().ends_with("[[") || closes(&chars[end..]));
            let is_last = !chars[end..].iter().any(|c| c.is_alphanumeric());
            // In a text of more than the label its case counts: `A` is a verdict there and `a` is an article.
            let article = wanted.len() == 1 && chars[at].is_ascii_lowercase() && first_word != Some(at);
            if (announced || is_last && !article) && best.is_none_or(|(rank, _)| (announced, at) > rank) {
                best = Some(((announced, at), *set));
            }
        }
    }
    best.map(|((_, at), set)| (set, joined.token_at(offsets[at])))
}

/// Whether a value ends here: with the line, the text, or the field of an object.
fn closes(after: &[char]) -> bool {
    let next = after.iter().find(|c| !CLOSING.contains(c));
    next.is_none_or(|c| matches!(c, '\n' | '\r' | ',' | '}'))
}

/// The end of a text.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(LOOK_BACK);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// The token that holds the first character of the one that is asked for.
pub(super) fn of_token(tokens: &[TokenLogprob]) -> Option<usize> {
    let joined = Joined::of(tokens);
    let lead = LEAD.find(&joined.text).map_or(0, |lead| lead.end());
    (lead < joined.text.len()).then(|| joined.token_at(lead))
}

/// The first word after what may stand before the one token that is asked for.
pub(super) fn token_said(said: &str) -> &str {
    let lead = LEAD.find(said).map_or(0, |lead| lead.end());
    let rest = &said[lead..];
    let end = rest.find(|c: char| !half_width(c).is_ascii_alphanumeric()).unwrap_or(rest.len());
    // "A is vague" begins with an article, or with a label: only a line of its own is a verdict.
    match rest[end..].lines().next().is_some_and(|line| line.chars().any(char::is_alphanumeric)) {
        true => "",
        false => &rest[..end],
    }
}

/// The last whole number from 1 to 10 that stands by itself, and its token; the 10 of `7/10` is none.
pub(super) fn of_rating(tokens: &[TokenLogprob]) -> Option<(u8, usize)> {
    let joined = Joined::of(tokens);
    let (text, bytes) = (&joined.text, joined.text.as_bytes());
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let mut at = bytes.len();
    while let Some(end) = (0..at).rev().find(|&at| bytes[at].is_ascii_digit()).map(|last| last + 1) {
        let start = (0..end).rev().take_while(|&at| bytes[at].is_ascii_digit()).last().unwrap_or(end - 1);
        at = start;
        let before = text[..start].trim_end();
        let part = (bytes.get(end) == Some(&b'.') && digit(Some(end + 1)))
            || (start >= 2 && bytes[start - 1] == b'.' && digit(Some(start - 2)));
        let total = before.ends_with('/') || before.ends_with("out of");
        if let Ok(rating @ 1..=10) = text[start..end].parse::<u8>()
            && !part
            && !total
        {
            return Some((rating, joined.token_at(start)));
        }
    }
    None
}

/// The text of all tokens, and where each begins in it.
struct Joined {
    text: String,
    starts: Vec<usize>,
}

impl Joined {
    fn of(tokens: &[TokenLogprob]) -> Self {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.bytes.iter().copied()).collect();
        let mut starts = Vec::with_capacity(tokens.len());
        let mut at = 0;
        for token in tokens {
            starts.push(at);
            at += token.bytes.len();
        }
        let text = String::from_utf8(bytes).unwrap_or_else(|error| {
            // One character a byte, so that places stay right: only ASCII is looked for.
            let ascii = |byte: u8| if byte.is_ascii() { char::from(byte) } else { '\u{1}' };
            error.into_bytes().into_iter().map(ascii).collect()
        });
        Self { text, starts }
    }

    /// The token at a byte of the text.
    fn token_at(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset).saturating_sub(1)
    }
}
