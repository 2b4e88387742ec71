//! Untrusted text to HTML. What comes out is made of constant tags without attributes and of escaped text: a response cannot bring
//! a tag, an attribute, a link or an image with it. Characters that nobody sees are shown by their numbers.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use similar::{ChangeTag, TextDiff};
use std::time::Duration;

/// Elements inside each other; deeper ones are left out and their text stays.
const DEEPEST: usize = 24;

/// Characters of a text that are shown; more would only stop the browser.
const MOST_CHARS: usize = 200_000;

/// For as long a word diff may look for the shortest one.
const DIFF_PATIENCE: Duration = Duration::from_millis(200);

/// Markdown as HTML. Raw HTML in it is text; a link is its text with the address beside it; an image is its description.
pub fn markdown(text: &str) -> String {
    let (text, cut) = cut(text);
    let mut html = String::with_capacity(text.len() * 5 / 4);
    let mut open: Vec<Option<&'static str>> = Vec::new();
    let mut addresses: Vec<String> = Vec::new();
    for event in Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
        match event {
            Event::Start(tag) => {
                if let Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } = &tag {
                    addresses.push(dest_url.to_string());
                }
                if let Tag::Image { .. } = &tag {
                    html += "<span class=\"aside\">image: ";
                }
                let name = element(&tag).filter(|_| open.iter().flatten().count() < DEEPEST);
                if let Some(name) = name {
                    html += &format!("<{name}>");
                }
                open.push(name);
            }
            Event::End(tag) => {
                if let Some(name) = open.pop().flatten() {
                    html += &format!("</{name}>");
                }
                if let TagEnd::Link | TagEnd::Image = tag {
                    let address = addresses.pop().unwrap_or_default();
                    html += &format!(" <span class=\"address\">({})</span>", escape(&address));
                }
                if let TagEnd::Image = tag {
                    html += "</span>";
                }
            }
            Event::Code(code) => html += &format!("<code>{}</code>", escape(&code)),
            Event::SoftBreak => html.push('\n'), // shown as one: style.css keeps line ends
            Event::HardBreak => html += "<br>",
            Event::Rule => html += "<hr>",
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => html += &escape(&text),
            Event::InlineMath(math) | Event::DisplayMath(math) => html += &escape(&math),
            Event::FootnoteReference(name) => html += &escape(&name),
            Event::TaskListMarker(done) => html += if done { "☑ " } else { "☐ " },
        }
    }
    open.into_iter().rev().flatten().for_each(|name| html += &format!("</{name}>"));
    html + if cut { "<p class=\"aside\">cut here</p>" } else { "" }
}

/// Text as HTML, with its line ends.
pub fn plain(text: &str) -> String {
    let (text, cut) = cut(text);
    escape(text) + if cut { " <span class=\"aside\">cut here</span>" } else { "" }
}

/// Both texts with the words marked that the other has not, `<mark>` in each.
pub fn word_diff(left: &str, right: &str) -> (String, String) {
    let (left, right) = (cut(left).0, cut(right).0);
    let diff = TextDiff::configure().timeout(DIFF_PATIENCE).diff_words(left, right);
    let (mut in_left, mut in_right) = (Marked::default(), Marked::default());
    for change in diff.iter_all_changes() {
        let text = change.value();
        match change.tag() {
            ChangeTag::Equal => {
                in_left.push(text, false);
                in_right.push(text, false);
            }
            ChangeTag::Delete => in_left.push(text, true),
            ChangeTag::Insert => in_right.push(text, true),
        }
    }
    (in_left.finish(), in_right.finish())
}

/// A text of which runs of words are marked.
#[derive(Default)]
struct Marked {
    html: String,
    marking: bool,
}

impl Marked {
    fn push(&mut self, text: &str, marked: bool) {
        if marked != self.marking {
            self.html += if marked { "<mark>" } else { "</mark>" };
            self.marking = marked;
        }
        self.html += &escape(text);
    }

    fn finish(mut self) -> String {
        if self.marking {
            self.html += "</mark>";
        }
        self.html
    }
}

/// The element of a piece of markdown; `None` where its text stands alone.
fn element(tag: &Tag) -> Option<&'static str> {
    Some(match tag {
        Tag::Paragraph => "p",
        Tag::Heading { level, .. } => match *level as usize {
            1 => "h3",
            2 => "h4",
            3 => "h5",
            _ => "h6",
        },
        Tag::BlockQuote(_) => "blockquote",
        Tag::CodeBlock(_) | Tag::HtmlBlock => "pre",
        Tag::List(None) => "ul",
        Tag::List(Some(_)) => "ol",
        Tag::Item => "li",
        Tag::Table(_) => "table",
        Tag::TableHead | Tag::TableRow => "tr",
        Tag::TableCell => "td",
        Tag::Emphasis => "em",
        Tag::Strong => "strong",
        Tag::Strikethrough => "s",
        _ => return None,
    })
}

/// Text that stands for itself in HTML, also inside a quoted attribute. What cannot be seen is shown by its number.
pub fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + text.len() / 8);
    let mut chars = text.chars().peekable();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            '\r' if chars.peek() == Some(&'\n') => {}
            _ if is_unseen(c) && !joins(before, c, chars.peek().copied()) => {
                html += &format!("<span class=\"unseen\">U+{:04X}</span>", u32::from(c));
            }
            _ => html.push(c),
        }
        before = c;
    }
    html
}

/// Controls, marks of direction, and characters without width: they hide text or turn it round.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{0}'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}'
        | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a joiner does its work: between letters of scripts that need it, and between the parts of an emoji.
fn joins(before: char, c: char, after: Option<char>) -> bool {
    let needs = |c: char| c >= '\u{600}' && !is_unseen(c);
    matches!(c, '\u{200c}' | '\u{200d}') && needs(before) && after.is_some_and(needs)
}

/// The text up to [`MOST_CHARS`], and whether that is not all of it.
fn cut(text: &str) -> (&str, bool) {
    match text.char_indices().nth(MOST_CHARS) {
        None => (text, false),
        Some((at, _)) => (&text[..at], true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_has_its_form_and_no_html_of_its_own() {
        assert_eq!(
            markdown("# Hi\n\nA *b* **c**\n* x\n* `y<`"),
            "<h3>Hi</h3><p>A <em>b</em> <strong>c</strong></p><ul><li>x</li><li><code>y&lt;</code></li></ul>"
        );
        assert_eq!(
            markdown("see [here](javascript:alert(1)) ![pic](http://x/y.png \"t\")"),
            "<p>see here <span class=\"address\">(javascript:alert(1))</span> <span class=\"aside\">image: pic \
             <span class=\"address\">(http://x/y.png)</span></span></p>"
        );
        assert_eq!(markdown("<script>alert(1)</script>"), "<pre>&lt;script&gt;alert(1)&lt;/script&gt;</pre>");
        assert_eq!(markdown("a <b onclick='x'>"), "<p>a &lt;b onclick=&#39;x&#39;&gt;</p>");
    }

    #[test]
    fn what_cannot_be_seen_is_shown() {
        assert_eq!(escape("a\u{202e}b"), "a<span class=\"unseen\">U+202E</span>b");
        assert_eq!(escape("a\u{200b}b\r\nc"), "a<span class=\"unseen\">U+200B</span>b\nc");
        assert_eq!(escape("👩\u{200d}💻 می\u{200c}خواهم"), "👩\u{200d}💻 می\u{200c}خواهم");
        assert!(escape("a\u{200d}b").contains("U+200D"));
    }

    #[test]
    fn a_diff_marks_in_each_what_the_other_has_not() {
        let (left, right) = word_diff("the old <cat> sat", "the <cat> sat down");
        assert_eq!(left, "the <mark>old </mark>&lt;cat&gt; sat");
        assert_eq!(right, "the &lt;cat&gt; sat<mark> down</mark>");
    }

    #[test]
    fn deep_nesting_comes_to_a_shallow_page_and_every_tag_is_closed() {
        let html = markdown(&format!("{} deep", ">".repeat(5000)));
        assert_eq!(html.matches("<blockquote>").count(), DEEPEST);
        assert_eq!(html.matches("</blockquote>").count(), DEEPEST);
        assert!(html.contains("deep"));
    }
}
