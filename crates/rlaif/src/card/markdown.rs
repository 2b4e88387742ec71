//! Text of others in Markdown: as text, and nothing else.

use serde_json::Value;
use std::fmt::Write;

/// Characters of a text of others that a card shows.
const LONGEST: usize = 400;

/// A text on one line with nothing in it that Markdown or HTML would read.
pub fn text(of: &str) -> String {
    let mut escaped = String::new();
    for c in shown(of).chars() {
        let harmless = matches!(c, '.' | ',' | ';' | '\'' | '"' | '/' | '?' | '%' | '-');
        if c.is_ascii_punctuation() && !harmless {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    // GitHub makes links of bare addresses: the escaped colon breaks `https:`, and this the other kind.
    escaped.replace("www.", "www\\.")
}

/// A text as code, whatever backticks it holds.
pub fn code(of: &str) -> String {
    let shown = shown(of);
    let longest = shown.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if shown.starts_with('`') || shown.ends_with('`') || shown.is_empty() { " " } else { "" };
    format!("{fence}{pad}{shown}{pad}{fence}")
}

/// A block of code for a shell.
pub fn shell(command: &str) -> String {
    format!("```sh\n{}\n```\n", shown(command).replace("```", "` ` `"))
}

/// A value of YAML: JSON's strings are YAML's.
pub fn yaml(of: &str) -> String {
    Value::from(shown(of)).to_string()
}

/// On one line, cut where it is long, without control characters and those that turn the direction of text or cannot be seen.
fn shown(text: &str) -> String {
    let invisible = |c: &char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let one_line = text.replace(['\n', '\t'], " ");
    let mut visible = one_line.chars().filter(|c| !invisible(c));
    let mut shown: String = visible.by_ref().take(LONGEST).collect();
    if visible.next().is_some() {
        shown.push('…');
    }
    shown
}

/// A card that grows by sections and lines.
#[derive(Debug, Default)]
pub struct Card(pub String);

impl Card {
    /// A section's heading.
    pub fn section(&mut self, heading: &str) {
        let _ = write!(self.0, "\n## {heading}\n\n");
    }

    /// A paragraph.
    pub fn say(&mut self, paragraph: &str) {
        let _ = write!(self.0, "{paragraph}\n\n");
    }

    /// A line of a list.
    pub fn item(&mut self, item: &str) {
        let _ = writeln!(self.0, "- {item}");
    }

    /// The card, with one empty line at most between others.
    pub fn finished(self) -> String {
        let mut text = self.0;
        while text.contains("\n\n\n") {
            text = text.replace("\n\n\n", "\n\n");
        }
        format!("{}\n", text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_becomes_markup() {
        assert_eq!(text("<b>*x*</b>\n# [a](http://b) `c`"), r"\<b\>\*x\*\</b\> \# \[a\]\(http\://b\) \`c\`");
        assert_eq!(code("a`b``c"), "```a`b``c```");
        assert_eq!(code("`"), "`` ` ``");
        assert_eq!(code("a\n\n# b"), "`a  # b`");
        assert_eq!(yaml("a\": b\n- c"), r#""a\": b - c""#);
        assert_eq!(text("a\u{202e}b\u{1b}[31mc"), r"ab\[31mc");
        assert!(text(&"x".repeat(1000)).chars().count() == LONGEST + 1);
        assert!(!shell("a\n```\nb").trim_end().trim_end_matches("```").contains("\n```\n"));
    }

    /// As a parser of CommonMark reads it.
    #[test]
    fn a_parser_finds_only_text_in_it() {
        use pulldown_cmark::{Event, Parser};
        for of in [
            "<script>alert(1)</script>",
            "![x](http://evil)",
            "**b** _i_ ~~s~~",
            "[a]: http://b",
            "a | b",
            "&lt;",
            "https://a.b",
        ] {
            for written in [text(of), code(of)] {
                let line = format!("- {written} end");
                let markup = Parser::new(&line).any(|event| {
                    matches!(event, Event::Html(_) | Event::InlineHtml(_))
                        || matches!(&event, Event::Start(tag) if !matches!(tag, pulldown_cmark::Tag::List(_) | pulldown_cmark::Tag::Item))
                });
                assert!(!markup, "{written}");
            }
        }
    }
}
