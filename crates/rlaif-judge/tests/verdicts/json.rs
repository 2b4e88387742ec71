use super::{Row, check, word};
use rlaif_judge::{Style, parse};

const TABLE: &[Row] = &[
    (r#"{"verdict": "A"}"#, "first"),
    (r#"{"winner": "B"}"#, "second"),
    (r#"{"verdict": 1}"#, "first"),
    (r#"{"verdict": 2.0}"#, "second"),
    (r#"{"verdict": "2"}"#, "second"),
    (r#"{"preferred": "Response 2"}"#, "second"),
    (r#"{"preferred_response": "response_1"}"#, "first"),
    (r#"{"better_answer": "Answer B"}"#, "second"),
    (r#"{"Final Verdict": "tie"}"#, "tie"),
    (r#"{"overall_winner": "model_a"}"#, "first"),
    (r#"{"choice": "(b)"}"#, "second"),
    (r#"{"chosen": "A", "rejected": "B"}"#, "first"),
    (r#"{"decision": "Assistant A is better"}"#, "first"),
    (r#"{"verdict": "Response 2 is slightly better than Response 1"}"#, "second"),
    (r#"{"verdict": "[[B]]"}"#, "second"),
    (r#"{"verdict": "B>>A"}"#, "second"),
    (r#"{"verdict": "A=B"}"#, "tie"),
    (r#"{"winner": "draw"}"#, "tie"),
    (r#"{"winner": "both equally good"}"#, "tie"),
    (r#"{"winner": "equally good"}"#, "tie"),
    (
        r#"{"reasoning": "B is vague; the verdict \"B\" would be wrong", "verdict": "A", "confidence": 0.8}"#,
        "first",
    ),
    ("```json\n{\n  \"explanation\": \"…\",\n  \"winner\": \"A\"\n}\n```", "first"),
    ("Here is my judgment:\n\n{\"winner\": \"B\"}\n\nHope this helps!", "second"),
    (r#"{"evaluation": {"verdict": "B", "confidence": "high"}}"#, "second"),
    (r#"{"verdict": {"winner": "A", "reason": "short"}}"#, "first"),
    (r#"{"accuracy": {"winner": "A"}, "style": {"winner": "B"}, "overall": {"winner": "B"}}"#, "second"),
    (r#"{"accuracy": {"winner": "A"}, "style": {"winner": "A"}}"#, "first"),
    (r#"[{"verdict": "B"}]"#, "second"),
    (r#"{"ranking": ["B", "A"]}"#, "second"),
    (r#"{"winner": "A", "winner": "A"}"#, "first"),
    // Faults that do not touch the meaning.
    (r#"{"verdict": "A",}"#, "first"),
    ("{\"verdict\": \"B\", // the second one\n \"reason\": \"x\"}", "second"),
    (r#"{/* final */ "verdict": "B"}"#, "second"),
    ("{'verdict': 'A', 'reason': 'it\\'s right'}", "first"),
    ("{verdict: \"B\"}", "second"),
    ("{\"reason\": \"two\nlines\", \"verdict\": \"A\"}", "first"),
    (r#"{"reason": "\(x^2\) is right", "verdict": "B"}"#, "second"),
    ("{'verdict': 'A', 'sure': True}", "first"),
    ("｛\"verdict\"：\"A\"｝", "first"),
    ("{“verdict”: “B”}", "second"),
    (r#"In the set {1, 2} and {x}: {"verdict": "B"}"#, "second"),
    (r"\frac{a}{b} is right. {'winner': 'A'}", "first"),
    // Scores.
    (r#"{"score_a": 8, "score_b": 6}"#, "first"),
    (r#"{"scores": {"A": 7, "B": 9}}"#, "second"),
    (r#"{"scores": [8, 8]}"#, "tie"),
    (r#"{"Response 1": {"score": 6}, "Response 2": {"score": 9}}"#, "second"),
    (r#"{"assistant_1_score": 9, "assistant_2_score": 4}"#, "first"),
    (r#"{"assistant_1": "9/10", "assistant_2": "4/10"}"#, "first"),
    (r#"{"winner": "A", "scores": {"A": 9, "B": 7}}"#, "first"),
    (r#"{"winner": "tie", "score_a": 8, "score_b": 7.5}"#, "tie"),
    (r#"<think>{"verdict": "A"}</think>{"verdict": "B"}"#, "second"),
    // No verdict.
    (r#"{"winner": "A", "scores": {"A": 6, "B": 9}}"#, "null"),
    (r#"{"verdict": "A", "verdict": "B"}"#, "null"),
    (r#"{"verdict": "A", "winner": "B"}"#, "null"),
    (r#"{"accuracy": {"winner": "A"}, "style": {"winner": "B"}}"#, "null"),
    (r#"{"a": {"winner": "A", "winner": "B"}}"#, "null"),
    (r#"{"verdict": "A"} or {"verdict": "B"}"#, "null"),
    (r#"{"scores": {"A": 7, "B": 9, "A": 10}}"#, "null"),
    (r#"{"verdict": "A"#, "null"),
    (r#"{"verdict": "A""#, "null"),
    (r#"{"verdict": "A", "reason": "because it"#, "null"),
    ("```json\n{\"verdict\": \"A\",\n", "null"),
    (r#"{"verdict": "A|B|tie"}"#, "null"),
    (r#"{"verdict": "A or B"}"#, "null"),
    (r#"{"verdict": "NOT A"}"#, "null"),
    (r#"{"verdict": "CORRECT"}"#, "null"),
    (r#"{"verdict": "high"}"#, "null"),
    (r#"{"verdict": null}"#, "null"),
    (r#"{"verdict": true}"#, "null"),
    (r#"{"verdict": 0}"#, "null"),
    (r#"{"verdict": 3}"#, "null"),
    (r#"{"verdict": -1}"#, "null"),
    (r#"{"verdict": ["A", "B"]}"#, "null"),
    (r#"{"winner": "unknown", "score_a": 1, "score_b": 2}"#, "null"),
    (r#"{"score_a": 1}"#, "null"),
    (r#"{"score_a": "high", "score_b": "low"}"#, "null"),
    (r#"{"is_better": true}"#, "null"),
    (r#"{}"#, "null"),
    ("{", "null"),
    ("The winner is A.", "null"),
    (r#"I'm sorry, I can't provide JSON for this."#, "null"),
    (r#"<think>{"verdict": "A"}"#, "null"),
    ("", "null"),
];

#[test]
fn json_texts() {
    check(Style::Json, TABLE);
}

#[test]
fn repairs_are_told() {
    let repaired = parse(r#"{"verdict": "A",}"#, Style::Json);
    assert!(repaired.reason.contains("syntax was put right"), "{}", repaired.reason);
    let clean = parse(r#"{"verdict": "A"}"#, Style::Json);
    assert!(!clean.reason.contains("syntax"), "{}", clean.reason);
}

#[test]
fn any_prefix_of_an_object_is_no_verdict() {
    let whole = r#"{"reason": "Response {1} is \"better\"", "scores": {"A": 9, "B": 7}, "verdict": "A"}"#;
    assert_eq!(word(whole, Style::Json), "first");
    for end in 0..whole.len() {
        for style in [Style::Json, Style::Auto] {
            assert_eq!(word(&whole[..end], style), "null", "{style}: {}", &whole[..end]);
        }
    }
}
