use super::{Row, check};
use rlaif_judge::{Style, parse};

const TABLE: &[Row] = &[
    ("8 7", "first"),
    ("8,7", "first"),
    ("7, 9", "second"),
    ("(6, 6)", "tie"),
    ("[9, 4]", "first"),
    ("8.5 9", "second"),
    ("7.25, 7.25", "tie"),
    ("10 10", "tie"),
    ("8/10 7/10", "first"),
    ("8/10 and 7/10", "first"),
    ("8 vs 9", "second"),
    ("８　７", "first"),
    ("**8 9**\n\nAssistant 2 is more precise.", "second"),
    ("```\n8 9\n```\nAssistant 2 is more precise.", "second"),
    ("Scores: 8 9", "second"),
    ("Score: 8.5 | 7", "first"),
    ("Scores: (7, 8)", "second"),
    ("**Scores:**\n8 7\n\nBoth are good.", "first"),
    ("Scores:\n9\n7\n\nThe first is deeper.", "first"),
    ("8\n7\nAssistant 1 answers in full.", "first"),
    ("85 90\nBoth explain well.", "second"),
    ("85/100 90/100", "second"),
    ("9 8\nAssistant 1 lists 12 ideas, 3 of them new since 2019; Assistant 2 lists 10.", "first"),
    ("7 9\n1. Relevance: both.\n2. Depth: the second.\n3. Accuracy: both.", "second"),
    ("Assistant 1: 8\nAssistant 2: 7", "first"),
    ("Assistant 1: 8/10\nAssistant 2: 9/10", "second"),
    ("Assistant 2: 7\nAssistant 1: 8", "first"),
    ("Assistant 1: 8, Assistant 2: 7", "first"),
    ("Assistant A = 6; Assistant B = 9", "second"),
    ("**Assistant 1:** 8 (clear)\n**Assistant 2:** 8 (clear too)", "tie"),
    ("Assistant 1's score: 6\nAssistant 2's score: 9", "second"),
    ("| Assistant | Score |\n|---|---|\n| Assistant 1 | 8 |\n| Assistant 2 | 6 |", "first"),
    ("Score for Assistant 1: 5\nScore for Assistant 2: 7", "second"),
    // Worked solutions.
    (
        "Let me solve it: 3x = 12, x = 4.\n\nAssistant 1: x = 4\nAssistant 2: x = 3\n\nScores:\nAssistant 1: 10\nAssistant 2: 2",
        "first",
    ),
    (
        "f(3) = 27 - 6 = 21.\n\nAssistant 1 got 21, Assistant 2 got 20.\n\nI would give Assistant 1 a score of 9 and Assistant 2 a score of 3.",
        "first",
    ),
    ("First, the distance is 5.\n\nI would give Assistant 1 a 4 and Assistant 2 a 10.", "second"),
    ("The area is 12.\n\nScores: 3, 10", "second"),
    ("The area is 12.\n\nScores:\n3\n10", "second"),
    ("The area is 12.\n\nFinal scores: (10, 1)", "first"),
    ("The area is 12.\n\nTherefore the ratings are 8 for Assistant 1 and 6 for Assistant 2.", "first"),
    (
        "The answer is 7.\n\nAssistant 1 receives 2/10, as its sum is wrong. Assistant 2 receives 9/10.",
        "second",
    ),
    ("Both answers are wrong. I give both assistants a score of 1.", "tie"),
    ("The sum is 40.\n\n7 9", "second"),
    ("9 8\nAs said, Assistant 1 gets a score of 9 and Assistant 2 a score of 8.", "first"),
    ("<think>9 1</think>\n2 3", "second"),
    ("总分：8 9\nScores: 8 9", "second"),
    ("Scores: 9 and 8. Assistant 1 is better.", "first"),
    ("Score 1: 8\nScore 2: 7", "first"),
    ("Assistant 1 scored 8 and Assistant 2 scored 6.", "first"),
    (
        "### Assistant 1\nClear.\n**Score: 6/10**\n\n### Assistant 2\nClear and right.\n**Score: 9/10**",
        "second",
    ),
    ("### Assistant 1: 8/10\nGood.\n\n### Assistant 2: 6/10\nBad.", "first"),
    ("| | Assistant 1 | Assistant 2 |\n|---|---|---|\n| Overall score | 7 | 8 |", "second"),
    // No verdict.
    ("### Assistant 1\nScore: 6\nScore: 7\n### Assistant 2\nScore: 9", "null"),
    ("9 2\nAssistant 2 is right.\n\nFinal scores: 2 9", "null"),
    ("-1 5", "null"),
    ("8 -7", "null"),
    ("11 8", "null"),
    ("8/10 85/100", "null"),
    ("12/10 8/10", "null"),
    ("150 200", "null"),
    ("8 7 9", "null"),
    ("8", "null"),
    ("8/10", "null"),
    ("2019 2023", "null"),
    ("8-9 7", "null"),
    ("7 or 8", "null"),
    ("Assistant 1: 7 or 8\nAssistant 2: 6", "null"),
    ("Assistant 1: 7-8\nAssistant 2: 6", "null"),
    ("Assistant 1: 8", "null"),
    ("Assistant 1: good\nAssistant 2: better", "null"),
    ("The first is a solid eight, the second a seven.", "null"),
    ("Solve it: x = 3.\n\nAssistant 1: 3\nAssistant 2: 4\n\nSo the first is right.", "null"),
    ("Scores:\nAssistant 1: 8\nAssistant 2: 6\n\nScores:\nAssistant 1: 6\nAssistant 2: 8", "null"),
    ("Helpfulness: 8 7\nAccuracy: 6 9", "null"),
    ("Score: N/A N/A", "null"),
    ("1. Assistant 1 is fine.\n2. Assistant 2 is fine.", "null"),
    ("I'm sorry, but I cannot score these.", "null"),
    ("<think>8 9", "null"),
    ("Scores: 8", "null"),
    ("Scores:", "null"),
    ("", "null"),
];

#[test]
fn score_texts() {
    check(Style::ScorePair, TABLE);
}

#[test]
fn the_scores_come_with_the_verdict() {
    for (text, want) in [
        ("8.5 9", [8.5, 9.0]),
        ("Assistant 2: 7\nAssistant 1: 8/10", [8.0, 7.0]),
        ("Both wrong. I give both assistants a score of 1.", [1.0, 1.0]),
        ("Scores: 8.5 | 7", [8.5, 7.0]),
    ] {
        assert_eq!(parse(text, Style::ScorePair).scores.as_deref(), Some(&want[..]), "{text}");
    }
}
