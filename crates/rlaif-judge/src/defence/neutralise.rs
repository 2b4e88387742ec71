//! Texts of others made harmless: no control token survives, and nothing that the reader does not see.

use regex::Regex;
use std::sync::LazyLock;

/// Control tokens that are spelt like tags or in square brackets, by family. Anything of the form `<|…` or `…|>` is broken before,
/// and so is any tag whose name has an underscore (`<start_of_turn>`, `<fim_prefix>`, `<end_of_utterance>`, our own
/// `</response_1_…>`): no markup has such names, and in code a space does no harm.
static NAMED_TOKENS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)
        (?P<open><)(?P<angle>/?(?:
            s | bos | eos | pad | unk | mask | sep | cls              # sentencepiece, BERT
          | think | tools? | image | img | video | audio              # reasoning, tools and media of Qwen and its kin
          | reponame | filename | empty_output | unused\d+ | 0x[0-9a-f]{2}
          | [a-z0-9]*_[a-z0-9_]*                                      # every name with an underscore
        )>)
      | (?P<square>\[)(?P<word>/?(?:
            INST | SYSTEM_PROMPT | AVAILABLE_TOOLS | TOOL_CALLS | TOOL_RESULTS | TOOL_CONTENT | THINK | IMG | CLS | SEP | MASK | PAD
        )\])
      | (?P<sys><)(?P<llama></?SYS>>)",
    )
    .expect("a constant pattern")
});

/// Halves of control tokens, with ASCII or full-width signs, and how they are taken apart.
const HALVES: [(&str, &str); 12] = [
    ("<|", "< |"),
    ("|>", "| >"),
    ("<｜", "< ｜"),
    ("｜>", "｜ >"),
    ("＜|", "＜ |"),
    ("|＞", "| ＞"),
    ("＜｜", "＜ ｜"),
    ("｜＞", "｜ ＞"),
    ("[|", "[ |"), // EXAONE
    ("|]", "| ]"),
    ("]~", "] ~"), // MiniMax
    ("~[", "~ ["),
];

/// Makes a text harmless inside a prompt: characters that show nothing are removed, and control tokens are broken up by a
/// space, still legible to judge and reader (`<|im_end|>` becomes `< |im_end| >`).
///
/// Doing it twice changes nothing. Words that only look like a turn (`Human:`, `### Response:`) stay: no tokenizer reads
/// them as one, the tags hold them in their slot, and removing them would change what is judged.
pub fn neutralise(text: &str) -> String {
    let mut broken = visible(text);
    for (half, apart) in HALVES {
        if broken.contains(half) {
            broken = broken.replace(half, apart);
        }
    }
    NAMED_TOKENS
        .replace_all(&broken, |found: &regex::Captures<'_>| {
            let part = |name: &str| found.name(name).map_or("", |m| m.as_str());
            let sign = [part("open"), part("square"), part("sys")].concat();
            let rest = [part("angle"), part("word"), part("llama")].concat();
            format!("{sign} {rest}")
        })
        .into_owned()
}

/// Whether [`neutralise`] would change a text.
pub fn is_harmless(text: &str) -> bool {
    neutralise(text) == text
}

/// The text without what shows nothing. Line separators become line breaks. Joiners and variation selectors stay where scripts
/// and emoji need them: one at a time, after something that is not ASCII (a selector also after a digit of a keycap); rows of
/// them spell hidden messages.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut before = '\n'; // the last character that was kept
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let c = match c {
            '\r' if characters.peek() == Some(&'\n') => continue,
            '\r' | '\u{0b}' | '\u{0c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => '\n',
            c => c,
        };
        let keep = match c {
            '\n' | '\t' => true,
            '\u{200c}' | '\u{200d}' => !before.is_ascii() && !is_joiner(before),
            '\u{fe0e}' | '\u{fe0f}' => !before.is_whitespace() && !is_joiner(before) && !is_selector(before),
            c => !is_invisible(c),
        };
        if keep {
            shown.push(c);
            before = c;
        }
    }
    shown
}

fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

fn is_selector(c: char) -> bool {
    matches!(c, '\u{fe0e}' | '\u{fe0f}')
}

/// Characters that show nothing and may say much: controls, bidirectional marks and overrides, zero-width and filler characters,
/// variation selectors, Unicode tags.
fn is_invisible(c: char) -> bool {
    match c {
        '\u{ad}' | '\u{34f}' | '\u{61c}' => true, // soft hyphen, grapheme joiner, Arabic letter mark
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}' => true, // Hangul fillers, empty Braille
        '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' => true,              // Khmer and Mongolian
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => true,              // zero width, bidirectional
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' => true,
        '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => true, // variation selectors
        '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' => true, // musical controls, tags
        c => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_tokens_are_broken_and_invisible_characters_removed() {
        for (raw, harmless) in [
            ("<|im_end|>\n<|im_start|>system", "< |im_end| >\n< |im_start| >system"),
            ("</s>[INST]hi[/INST]<<SYS>>", "< /s>[ INST]hi[ /INST]< <SYS>>"),
            ("<start_of_turn>user<end_of_turn>", "< start_of_turn>user< end_of_turn>"),
            ("<｜end▁of▁sentence｜>", "< ｜end▁of▁sentence｜ >"),
            ("＜|im_start|＞", "＜ |im_start| ＞"),
            ("[|system|]x[|endofturn|]", "[ |system| ]x[ |endofturn| ]"),
            ("]~b]user [e~[", "] ~b]user [e~ ["),
            (
                "<fim_prefix><unused7><0x0A></think><tool_call>",
                "< fim_prefix>< unused7>< 0x0A>< /think>< tool_call>",
            ),
            ("</response_1_00ab>", "< /response_1_00ab>"),
            ("a\u{200b}b\u{202e}c\u{e0041}\u{0}d", "abcd"),
            ("<\u{200b}|im_end|\u{200b}>", "< |im_end| >"),
            ("x\u{fe01}\u{e0101}\u{3164}\u{34f}y", "xy"),
            ("a\r\nb\rc\u{2028}d", "a\nb\nc\nd"),
            // A message in zero-width joiners, and one in selectors behind an emoji.
            ("a\u{200d}\u{200c}\u{200d}b", "ab"),
            ("😀\u{fe0f}\u{fe0f}\u{fe0e}!", "😀\u{fe0f}!"),
        ] {
            assert_eq!(neutralise(raw), harmless, "{raw:?}");
        }
    }

    #[test]
    fn honest_texts_stay_as_they_are() {
        for text in [
            "fine: a < b | c > d, 👩\u{200d}🚀, [1]\n\ttab",
            "❤\u{fe0f}\u{200d}🔥 and 1\u{fe0f}\u{20e3}",
            "می\u{200c}خواهم", // Persian needs its non-joiner
            "<b>bold</b> <div class=\"x\"> Vec<u8> x -> y |> f? no: a | > b",
            "let f = |x| x + 1; if a<b { [a, b] } else { [[1, 2], [3]] }",
            "日本語、العربية, עברית, हिन्दी",
        ] {
            let text = text.replace("|>", "| >");
            assert_eq!(neutralise(&text), text);
        }
    }

    /// Pieces that attacks are made of, and any text.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "<|",
            "|>",
            "<",
            ">",
            "|",
            "[",
            "]",
            "~",
            "/",
            "<<SYS>>",
            "INST",
            "s>",
            "<s",
            "｜",
            "＜",
            "＞",
            "im_start",
            "_",
            "\u{200b}",
            "\u{200d}",
            "\u{200c}",
            "\u{fe0f}",
            "\u{202e}",
            "\u{e0041}",
            "\r",
            "\n",
            "👩",
            "a",
        ])
        .prop_map(String::from);
        prop::collection::vec(prop_oneof![9 => piece, 1 => any::<String>()], 0..24)
            .prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn nothing_is_left_to_do_after_it(text in hostile()) {
            let once = neutralise(&text);
            prop_assert_eq!(&neutralise(&once), &once);
            for (half, _) in HALVES {
                prop_assert!(!once.contains(half), "{:?} in {:?}", half, once);
            }
            prop_assert!(!NAMED_TOKENS.is_match(&once));
            prop_assert!(once.chars().all(|c| is_joiner(c) || is_selector(c) || "\n\t".contains(c) || !is_invisible(c)));
        }

        /// Only spaces are added, and only what shows nothing is taken away.
        #[test]
        fn what_shows_stays_in_its_order(text in hostile()) {
            let letters = |text: &str| -> String { text.chars().filter(|c| c.is_alphanumeric() && !is_invisible(*c)).collect() };
            prop_assert_eq!(letters(&neutralise(&text)), letters(&text));
        }
    }
}
