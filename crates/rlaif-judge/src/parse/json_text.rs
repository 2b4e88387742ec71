//! JSON as models write it: objects found in prose, with comments, trailing commas, single quotes and raw line ends.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A JSON value that keeps an object's entries in their order, duplicates too: the last of two verdicts must not win in silence.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Entries in their order.
    Object(Vec<(String, Node)>),
    /// Items.
    Array(Vec<Node>),
    /// Text.
    Text(String),
    /// Any number.
    Number(f64),
    /// A boolean or null, which names no response.
    Other,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::Array(items))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Number(number))
    }

    #[expect(clippy::cast_precision_loss, reason = "labels and scores are small")]
    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "labels and scores are small")]
    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Number(number as f64))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
}

/// An object of a text.
pub(super) struct Found {
    pub node: Node,
    /// True if it is no JSON as it stands, only after its commas, comments or quotes were put right.
    pub repaired: bool,
}

/// What a text holds.
pub(super) struct Objects {
    pub found: Vec<Found>,
    /// True if an object has no end.
    pub cut: bool,
    /// True if the text was given up: braces within braces that are no objects.
    pub gave_up: bool,
}

/// How many times a long text may be read in all, before it is given up; prose with a few braces takes two or three.
const READINGS: usize = 6;

/// All outermost objects of a text.
pub(super) fn objects(text: &str) -> Objects {
    let mut all = Objects { found: Vec::new(), cut: false, gave_up: false };
    let mut budget = READINGS * text.len() + (1 << 18);
    let mut at = 0;
    while let Some(open) = text[at..].find('{').map(|offset| at + offset) {
        at = open + 1;
        let rest = &text[open..];
        // What is no key behind the brace makes it prose, or LaTeX.
        let inside = rest[1..].trim_start();
        if !inside.starts_with(['"', '\'', '}', '/', '_']) && !inside.starts_with(char::is_alphabetic) {
            continue;
        }
        let Some(tidied) = tidy(rest) else {
            // An object that only lacks its end is a cut-off reply; "{x and so on" is prose.
            if begins_with_a_key(inside) {
                all.cut = true;
                return all;
            }
            budget = budget.saturating_sub(rest.len());
            if budget == 0 {
                all.gave_up = true;
                return all;
            }
            continue;
        };
        let Some(left) = budget.checked_sub(tidied.length) else {
            all.gave_up = true;
            return all;
        };
        budget = left;
        let strict = serde_json::from_str::<Node>(&rest[..tidied.length]).ok();
        let repaired = strict.is_none();
        if let Some(node) = strict.or_else(|| serde_json::from_str(&tidied.text).ok()) {
            all.found.push(Found { node, repaired });
            at = open + tidied.length;
        }
    }
    all
}

/// True for `"verdict": …`, and for a key that is itself cut off.
fn begins_with_a_key(inside: &str) -> bool {
    let inside = inside.trim_end();
    let Some(quote) = inside.chars().next().filter(|c| matches!(c, '"' | '\'')) else { return false };
    match inside[1..].find(quote) {
        Some(end) => {
            let after = inside[1 + end + 1..].trim_start();
            after.is_empty() || after.starts_with(':')
        }
        None => quote == '"' && !inside.contains(['{', '\n']),
    }
}

/// An object with its faults mended.
struct Tidied {
    text: String,
    /// Length of the original, from its opening to its closing brace.
    length: usize,
}

/// Reads from an opening brace to its closing one and mends on the way: comments and trailing commas go, single quotes become
/// double, bare keys are quoted, Python's words become JSON's, raw line ends and stray backslashes in texts are escaped.
/// `None` if the closing brace is missing.
fn tidy(text: &str) -> Option<Tidied> {
    let mut out = String::with_capacity(64);
    let mut chars = text.char_indices().peekable();
    let mut depth = 0_usize;
    while let Some((at, c)) = chars.next() {
        match c {
            '"' | '\'' => quoted(c, &mut chars, &mut out)?,
            '/' if text[at..].starts_with("//") => while chars.next_if(|(_, c)| *c != '\n').is_some() {},
            '/' if text[at..].starts_with("/*") => {
                let end = at + 2 + text[at + 2..].find("*/")?;
                while chars.next_if(|(at, _)| *at < end + 2).is_some() {}
            }
            '{' | '[' => {
                depth += 1;
                out.push(c);
            }
            '}' | ']' => {
                let kept = out.trim_end();
                if kept.ends_with(',') {
                    out.truncate(kept.len() - 1);
                }
                out.push(c);
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(Tidied { text: out, length: at + 1 });
                }
            }
            c if c.is_alphabetic() || c == '_' => {
                let mut word = String::from(c);
                while let Some((_, c)) = chars.next_if(|(_, c)| c.is_alphanumeric() || *c == '_') {
                    word.push(c);
                }
                while chars.next_if(|(_, c)| *c == ' ').is_some() {}
                match word.as_str() {
                    _ if chars.peek().is_some_and(|(_, c)| *c == ':') => {
                        out.push('"');
                        out.push_str(&word);
                        out.push('"');
                    }
                    "True" => out.push_str("true"),
                    "False" => out.push_str("false"),
                    "None" | "NaN" | "undefined" => out.push_str("null"),
                    // The exponent of a number, JSON's own words, or what no reader understands.
                    _ => out.push_str(&word),
                }
            }
            c => out.push(c),
        }
    }
    None
}

type Chars<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

/// Copies a text behind its opening quote as a JSON text. `None` if it has no end.
fn quoted(quote: char, chars: &mut Chars<'_>, out: &mut String) -> Option<()> {
    out.push('"');
    loop {
        let (_, c) = chars.next()?;
        match c {
            c if c == quote => break,
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {}
            '\\' => match chars.next()?.1 {
                '\'' => out.push('\''),
                c @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' | 'u') => {
                    out.push('\\');
                    out.push(c);
                }
                // LaTeX: "\(x\)".
                c => {
                    out.push_str("\\\\");
                    out.push(c);
                }
            },
            c => out.push(c),
        }
    }
    out.push('"');
    Some(())
}
