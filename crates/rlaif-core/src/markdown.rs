//! How much markdown is in a text: judges like what looks tidy (Zhang et al. 2024, "From lists to emojis",
//! <https://arxiv.org/abs/2409.11704>).

/// Counts of what markdown marks. Within a fence of code nothing else counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Markdown {
    /// Lines that begin with one to six `#` and a space.
    pub headers: u64,
    /// Lines that begin with `-`, `*` or `+`, or with up to nine digits and `.` or `)`, and a space.
    pub items: u64,
    /// Spans of text between two `**` or two `__` on one line.
    pub bold: u64,
    /// Fenced blocks, and spans between two backticks on one line.
    pub code: u64,
}

impl Markdown {
    /// Counts it.
    pub fn of(text: &str) -> Self {
        let mut found = Self::default();
        let mut fence: Option<&str> = None;
        for line in text.lines().map(str::trim_start) {
            let mark = ["```", "~~~"].into_iter().find(|mark| line.starts_with(mark));
            match (fence, mark) {
                (None, Some(mark)) => {
                    found.code += 1;
                    fence = Some(mark);
                }
                (Some(open), Some(mark)) if open == mark => fence = None,
                (Some(_), _) => {}
                (None, None) => found.line(line),
            }
        }
        found
    }

    /// All of it.
    pub fn total(self) -> u64 {
        self.headers + self.items + self.bold + self.code
    }

    fn line(&mut self, line: &str) {
        let hashes = line.len() - line.trim_start_matches('#').len();
        if (1..=6).contains(&hashes) && line[hashes..].starts_with(' ') {
            self.headers += 1;
        }
        if is_item(line) {
            self.items += 1;
        }
        self.bold += spans(line, "**") + spans(line, "__");
        self.code += spans(line, "`");
    }
}

fn is_item(line: &str) -> bool {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    match digits {
        0 => ["- ", "* ", "+ "].iter().any(|mark| line.starts_with(mark)),
        1..=9 => line[digits..].starts_with(". ") || line[digits..].starts_with(") "),
        _ => false,
    }
}

/// Texts between two marks that are not empty; a mark is used once.
fn spans(line: &str, mark: &str) -> u64 {
    let pieces: Vec<&str> = line.split(mark).collect();
    let inside = pieces.iter().take(pieces.len().saturating_sub(1)).skip(1).step_by(2);
    inside.filter(|text| !text.trim().is_empty()).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_and_plain_text_has_none() {
        let text = "# Title\n\nSome **bold** and __strong__ text, `x` and `y`.\n- one\n  * two\n1. three\n2) four\n\
                    ```rust\n# no header\n- no **item**\n```\n### Sub";
        assert_eq!(Markdown::of(text), Markdown { headers: 2, items: 4, bold: 2, code: 3 });
        assert_eq!(Markdown::of(text).total(), 11);
        for plain in [
            "",
            "2 * 3 * 4 = 24, a-b - c",
            "#hashtag and ####### seven",
            "1.5 litres, 2024.",
            "a ** b and one ` tick",
            "****",
            "1234567890. no",
        ] {
            assert_eq!(Markdown::of(plain), Markdown::default(), "{plain}");
        }
    }

    #[test]
    fn a_fence_ends_with_its_own_mark_or_with_the_text() {
        assert_eq!(
            Markdown::of("~~~\n```\n# x\n~~~\n# y"),
            Markdown { headers: 1, code: 1, ..Markdown::default() }
        );
        assert_eq!(Markdown::of("```\n# x"), Markdown { code: 1, ..Markdown::default() });
    }
}
