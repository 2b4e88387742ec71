//! What holds for any text, for texts made of pieces of verdicts, and for very long ones.

#[path = "../../../../fuzz/src/lib.rs"]
mod fuzz;

use proptest::prelude::*;
use rlaif_judge::{Style, parse};
use std::time::{Duration, Instant};

/// Pieces that judges' texts are made of.
const PIECES: &[&str] = &[
    "<think>",
    "</think>",
    "`<think>`",
    "<reasoning>",
    "[THINK]",
    "[[A]]",
    "[[B]]",
    "[[C]]",
    "[[B>>A]]",
    "[[A=B]]",
    "[[",
    "]]",
    "\\[\\[",
    "Better response: ",
    "better response",
    "1",
    "2\n",
    "3",
    "12",
    "\n",
    "\n\n",
    "\r",
    "\r\n",
    "{\"verdict\":",
    "\"A\"}",
    "\"B\", ",
    "{'winner': ",
    "}",
    "{",
    "[",
    "]",
    "//",
    "/*",
    "*/",
    "Output (a)",
    "Output (b)",
    " is better",
    ". Therefore, ",
    "better output is ",
    "Assistant 1: ",
    "Assistant 2: ",
    "8/10",
    "7",
    "score",
    "Scores:\n",
    "(9, 8)",
    "9 8\n",
    "Rating: ",
    "between 6 and 7",
    "-",
    ".5",
    "%",
    "not ",
    "if ",
    "neither ",
    "Wait, ",
    "On reflection, ",
    "Final verdict: ",
    "Hope this helps!",
    "Note: ",
    "```\n",
    "```json\n",
    "> ",
    "# ",
    "**",
    "__",
    "`",
    "\"",
    "'",
    "\\",
    "\\boxed{",
    "<answer>",
    "</answer>",
    "$",
    "|",
    "é",
    "［",
    "【",
    "：",
    "\u{0}",
    "\u{200b}",
    "\u{feff}",
    "\u{202e}",
    "İ",
    "ſ",
    "ß",
    "👉",
    "٣",
    "½",
    "，",
    "。",
    "A",
    "B",
    "tie",
];

fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![4 => prop::sample::select(PIECES).prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

/// Final verdicts of every style that has any: two that contradict each other.
const FINALS: &[(Style, &str, &str)] = &[
    (Style::LlmbarCot, "Therefore, Output (a) is better.", "Therefore, Output (b) is better."),
    (Style::LlmbarVanilla, "Output (a)", "Output (b)"),
    (Style::Digit123, "1", "2"),
    (Style::ScorePair, "Final scores: 8 7", "Final scores: 7 8"),
    (Style::BracketsAbc, "Final verdict: [[A]]", "Final verdict: [[B]]"),
    (Style::BracketsAbc, "[[B]]", "[[C]]"),
    (Style::ArenaBrackets, "My final verdict is: [[A>>B]]", "My final verdict is: [[A=B]]"),
    (Style::BetterResponse, "Better response: 1", "**Better response: 2**"),
    (Style::Json, "{\"verdict\": \"A\"}", "{\"verdict\": \"tie\"}"),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn any_text_is_read_the_same_with_spaces_or_thinking_around_it(text in texts()) {
        fuzz::verdict(text.as_bytes());
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::verdict(&bytes);
        fuzz::jsonl(&bytes);
    }

    #[test]
    fn any_row_is_answered(id in any::<i64>(), text in texts(), style in 0..Style::ALL.len(), cut in 0..400_usize) {
        let row = serde_json::json!({"id": id, "text": text, "style": Style::ALL[style]}).to_string();
        fuzz::jsonl(row.as_bytes());
        fuzz::jsonl(&row.as_bytes()[..cut.min(row.len())]);
    }

    #[test]
    fn two_contradicting_final_verdicts_are_none(
        which in 0..FINALS.len(),
        turned in any::<bool>(),
        before in "([a-z]{1,9} ){0,12}",
        between in "([a-z]{1,9} ){0,12}",
        direct in any::<bool>(),
    ) {
        let (style, one, other) = FINALS[which];
        let (one, other) = if turned { (other, one) } else { (one, other) };
        // Digits and names alone decide only where they open or close the text.
        let text = match style {
            Style::Digit123 if direct => format!("{before}\n{one}\n{other}"),
            Style::LlmbarVanilla if direct => format!("{one}\n{other}"),
            Style::Digit123 | Style::LlmbarVanilla => format!("{one}\n{between}\n{other}"),
            _ => format!("{before}\n\n{one}\n\n{between}\n\n{other}"),
        };
        for style in [style, Style::Auto] {
            let parsed = parse(&text, style);
            prop_assert!(parsed.verdict.is_err(), "{}: {}: {:?}", style, parsed.reason, text);
        }
    }
}

/// Time of this thread on a processor, which other work on the machine leaves alone; where the system does not tell it, since
/// `start`.
fn spent(start: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let on_cpu =
        told.as_deref().and_then(|told| told.split(' ').next()?.parse().ok()).map(Duration::from_nanos);
    on_cpu.unwrap_or_else(|| start.elapsed())
}

/// The least of three times, in which a busy machine matters least.
fn time(text: &str, style: Style) -> Duration {
    let start = Instant::now();
    let once = || {
        let before = spent(start);
        std::hint::black_box(parse(text, style));
        spent(start) - before
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}

/// Eight times the text may take some eight times as long; what is quadratic would take sixty-four times.
#[test]
fn hostile_texts_take_time_in_proportion_to_their_length() {
    const HOSTILE: &[&str] = &[
        "[[A]] ",
        "not [[A]] \"",
        "> [[A]]\n",
        "[[",
        "{",
        "{\"a\":",
        "{\"",
        "{\"a\": 1 {",
        "{\"a\":\"",
        "{a:'",
        "{/*",
        "{a ",
        "{\"x{x",
        "{\"a\":[{\"b\":[",
        "Output (a) is better ",
        "Output (a) is better. ",
        "Therefore, Output (a) is better, ",
        "I prefer ",
        "verdict ",
        "Assistant 1: 8 ",
        "score of 8 to ",
        "Assistant 1 a b c ",
        "scores (8, 9) ",
        "8 ",
        "8\n",
        " ",
        "<think>",
        "</think>",
        "```\n",
        "\"",
        "Better response: 1\n",
        "final the my ",
        "rate it ",
        "7 or 8 ",
        "\\boxed{",
        "Wait. ",
        "thanks. ",
        "<answer>",
        "é",
        "😀",
        "neither ",
        "based on ",
    ];
    const SMALL: usize = 4_000;
    let mut slow = Vec::new();
    // An opening quotation mark that nothing closes, and a last line that is read.
    let frames = [("", ""), ("\"", ""), ("", "\n\nBetter response: 1")];
    for (piece, (before, after)) in HOSTILE.iter().flat_map(|piece| frames.map(|frame| (piece, frame))) {
        for style in [Style::Auto, Style::Rating1To10] {
            let short = format!("{before}{}{after}", piece.repeat(SMALL / piece.len()));
            let long = format!("{before}{}{after}", piece.repeat(8 * SMALL / piece.len()));
            let (of_short, of_long) = (time(&short, style), time(&long, style));
            // Below a millisecond the clock and the machine say more than the parser.
            let ratio = of_long.as_secs_f64() / of_short.as_secs_f64().max(1e-3);
            if ratio > 32.0 {
                slow.push(format!(
                    "{style}: {piece:?} eightfold took {ratio:.0} times as long ({of_short:?}, {of_long:?})"
                ));
            }
        }
    }
    assert!(slow.is_empty(), "{}", slow.join("\n"));
}
