use super::{Row, check};
use rlaif_judge::{Style, parse};

const TABLE: &[Row] = &[
    ("A is deeper.\n\n[[A]]", "first"),
    ("Final verdict: [[C]]", "tie"),
    ("My final verdict is [[B>>A]].", "second"),
    ("[[A=B]]", "tie"),
    ("1 is vague.\n\nBetter response: 2", "second"),
    ("**Better response: tie**", "tie"),
    ("{\"winner\": \"A\"}", "first"),
    ("```json\n{\"verdict\": \"B\"}\n```", "second"),
    ("Therefore, Output (a) is better.", "first"),
    ("Output (b)", "second"),
    ("8 9\nAssistant 2 is deeper.", "second"),
    ("Scores:\nAssistant 1: 9\nAssistant 2: 3", "first"),
    ("Both are fine.\n\n3", "tie"),
    ("Assistant 1 is right.\n\n1", "first"),
    ("1", "first"),
    ("２", "second"),
    ("...\n\\boxed{2}", "second"),
    ("[[b]]", "second"),
    ("［［Ａ＞Ｂ］］", "first"),
    ("{\"reason\": \"It ends with [[A]] and says Better response: 1\", \"winner\": \"B\"}", "second"),
    ("{\"scores\": {\"A\": 3, \"B\": 7}}", "second"),
    ("{'verdict': 'A',}", "first"),
    ("Output (a) is better in style.\n\nBetter response: 2", "second"),
    ("Response 2 scores 7/10 on clarity.\n\nBetter response: 1", "first"),
    ("Assistant A gets 8/10, Assistant B 7/10.\n\nFinal verdict: [[A]]", "first"),
    ("<think>[[A]]</think>\nBetter response: 2", "second"),
    ("<think>1</think>\n\n2", "second"),
    ("Better response: 1\n\nHope this helps!", "first"),
    ("Is it [[A]]? No.\n\nFinal verdict: [[B]]", "second"),
    ("I prefer Output (b).", "second"),
    ("Output (a) is better\n", "first"),
    ("Scores: 8 8", "tie"),
    ("In the set {1, 2}: Better response: no.\nBetter response: 1", "first"),
    // No verdict.
    ("[[A]]\n[[B]]", "null"),
    ("[[A>B]]\n[[B>A]]", "null"),
    ("[[A]]\n\nBetter response: 2", "null"),
    ("[[A]]\n\n[[B>A]]", "null"),
    ("{\"winner\": \"A\"}\n\nBetter response: 2", "null"),
    ("Output (a) is better.\n\n2", "null"),
    ("9 1\nAssistant 1 is right.\n\n2", "null"),
    ("{\"reason\": \"Output (a) is better\", \"verd", "null"),
    ("```json\n{\"reason\": \"[[A]]\", ", "null"),
    ("1\n2", "null"),
    ("Rating: 8/10", "null"),
    ("8/10", "null"),
    ("7.5", "null"),
    ("Both are good.", "null"),
    ("The first one is INCORRECT, the second one is CORRECT.", "null"),
    ("error", "null"),
    ("$ERROR$", "null"),
    ("I'm sorry, but I can't help with that.", "null"),
    ("<think>Better response: 1", "null"),
    ("{}", "null"),
    ("[[", "null"),
    ("", "null"),
];

#[test]
fn texts_of_any_style() {
    check(Style::Auto, TABLE);
}

#[test]
fn a_rating_in_auto_is_a_score() {
    for (text, want) in [("Rating: [[8]]", 8.0), ("I'd give it a 7.5/10.", 7.5), ("{\"rating\": 4}", 4.0)] {
        assert_eq!(parse(text, Style::Auto).scores, Some(vec![want]), "{text}");
    }
}
