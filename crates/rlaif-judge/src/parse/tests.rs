use super::*;
use proptest::prelude::*;

/// What a text says in one word.
fn word(text: &str, style: Style) -> &'static str {
    match parse(text, style).verdict {
        Ok(Choice::First) => "first",
        Ok(Choice::Second) => "second",
        Ok(Choice::Tie) => "tie",
        Err(NoVerdict::Ambiguous) => "ambiguous",
        Err(NoVerdict::Truncated) => "truncated",
        Err(NoVerdict::Refused) => "refused",
        Err(NoVerdict::Empty) => "empty",
        Err(_) => "none",
    }
}

fn check(style: Style, table: &[(&str, &str)]) {
    for (text, want) in table {
        assert_eq!(word(text, style), *want, "{style}: {text:?} ({})", parse(text, style).reason);
    }
}

#[test]
fn brackets_abc() {
    check(
        Style::BracketsAbc,
        &[
            ("A is deeper.\n\nFinal Verdict: [[A]]", "first"),
            ("[[ b ]]", "second"),
            ("**[[C]]**", "tie"),
            ("［［Ａ］］", "first"),
            (r"\[\[B\]\]", "second"),
            ("[[Assistant A]]", "first"),
            ("[[A]] and [[B]] are both good", "ambiguous"),
            ("At first [[A]] seemed right, then [[B]].", "ambiguous"),
            // A label quoted from the instructions is not the verdict (FastChat PR #3921).
            (
                "I was told to write \"[[A]]\" if A is better and \"[[B]]\" if B is. My verdict: [[B]]",
                "second",
            ),
            ("[[A]] if assistant A is better, [[B]] if assistant B is, [[C]] for a tie.\n\n[[C]]", "tie"),
            ("Neither is right.\n\nFinal verdict: [[C]] for a tie. Both fail.", "tie"),
            ("The verdict is not [[A]] but [[B]].", "second"),
            ("On safety alone it would be [[A]]. Final verdict: [[B]]", "second"),
            ("Final verdict: [[B]]. On second thought [[A]].", "ambiguous"),
            ("[[A]\n[A]", "none"),
            ("Rating: [[8]]", "none"),
            ("$ERROR$", "none"),
            ("", "empty"),
            ("<think>[[A]]</think>\n[[B]]", "second"),
            ("Let me see, [[A]]?</think>[[B]]", "second"),
            ("<think>Surely [[A]]", "truncated"),
            ("<think>[[A]]</think>Both are fine.", "none"),
            ("<THINKING>\n[[A]]\n</THINKING>\n\n[[C]]", "tie"),
            ("[THINK][[A]][/THINK][[B]]", "second"),
            ("I'm sorry, but I cannot compare these.", "refused"),
        ],
    );
}

#[test]
fn arena_brackets() {
    check(
        Style::ArenaBrackets,
        &[
            ("My final verdict is: Assistant A is significantly better: [[A>>B]]", "first"),
            ("[[A>B]]", "first"),
            ("[[a = b]]", "tie"),
            ("[[B > A]]", "second"),
            ("[[B&gt;&gt;A]]", "second"),
            ("[[A<B]]", "second"),
            ("[[A>B]] … so tie: [[A=B]]", "ambiguous"),
            ("[[A>B]] or even [[A>>B]]", "ambiguous"),
            ("[[A>B]] yes, [[A>B]]", "first"),
            ("[[A]]", "none"),
            ("<think>[[B>>A]]</think>[[A=B]]", "tie"),
        ],
    );
}

#[test]
fn better_response() {
    check(
        Style::BetterResponse,
        &[
            ("2 makes things up.\n\nBetter response: 1", "first"),
            ("…\n**Better response: 2**", "second"),
            ("…\n**Better response:** Response 2.", "second"),
            ("## Better Response: Tie", "tie"),
            ("Therefore, the better response is 2.", "second"),
            ("BETTER RESPONSE - 1", "none"),
            ("Better response：１", "first"),
            ("Better response: B", "second"),
            ("Better response: 1 (more accurate)", "first"),
            ("Better response: 1 because it is true", "first"),
            ("Better response: 1, 2 or tie", "none"),
            ("Better response: 1|2|tie", "none"),
            ("Better response: 12", "none"),
            ("Better response: 1\nWait.\nBetter response: 2", "ambiguous"),
            ("Better response: 1\nYes.\nBetter response: 1", "first"),
            // A response that the judge quotes does not vote.
            ("Response 2 tells me to write \"Better response: 2\".\nBetter response: 1", "first"),
            ("Response 2 says: Better response: 2, which is a trick.", "none"),
            ("<think>Better response: 2</think>\nBetter response: 1", "first"),
            ("The first is better.", "none"),
            ("Better response: neither", "tie"),
        ],
    );
}

#[test]
fn lone_digits() {
    check(
        Style::Digit123,
        &[
            ("Both are good.\n\n3", "tie"),
            ("1", "first"),
            ("…\n **2** \n\n", "second"),
            ("…\n２", "second"),
            ("…\n\"1\".", "first"),
            ("…\nFinal answer: 2", "second"),
            ("So I choose 3 as both are equal.", "none"),
            ("1\n\nAssistant 1 is better.", "none"),
            ("4", "none"),
            ("10", "none"),
            ("1.5", "none"),
            ("Scores:\n1\n2", "ambiguous"),
            ("error", "none"),
        ],
    );
}

#[test]
fn outputs_a_and_b() {
    for style in [Style::LlmbarCot, Style::LlmbarVanilla] {
        check(
            style,
            &[
                ("Output (a)", "first"),
                ("Output (b).", "second"),
                ("**Output (b)**", "second"),
                ("Output (a) is better.\n\nOutput (b) is vague.", "first"),
                ("Output (b) is vague. Therefore, Output (a) is better.", "first"),
                (
                    "Output (a) is better at rhyming, but it is wrong. Therefore, Output (b) is better.",
                    "second",
                ),
                ("Output (a) is better. Output (b) is better.", "ambiguous"),
                ("Output (a) is not better. Output (b) is clearly the better one.", "second"),
                ("Neither Output (a) nor Output (b) is better.", "none"),
                ("It is hard to say whether Output (a) is better.", "none"),
                ("Is Output (a) better? Output (b) is better.", "second"),
                ("Therefore, both Output (a) and Output (b) are equally good.", "none"),
                ("The better output is Output (b).", "second"),
                ("Output (a) is better than Output (b).", "first"),
                ("In terms of accuracy, Output B is superior.", "second"),
                ("I would output a list. Output (a) is better", "first"),
                ("<think>Output (a) is better.</think>Output (b) is better.", "second"),
                ("Output (a)\nOutput (b)", "ambiguous"),
            ],
        );
    }
}

#[test]
fn two_scores() {
    check(
        Style::ScorePair,
        &[
            ("9 8\nAssistant 1 is deeper.", "first"),
            ("8.5, 9", "second"),
            ("(7, 7)\nEqual.", "tie"),
            ("8/10 9/10", "second"),
            ("9/10\nA good answer.", "none"),
            ("First, let's solve it: 2 3 5\nScores:\nAssistant 1: 1 (no steps)\nAssistant 2: 8", "second"),
            (
                "I would give Assistant 1 a score of 10 and Assistant 2 a score of 1.\n\nThe output tuple is (10, 1).",
                "first",
            ),
            ("Here, (x1, y1) = (2, 3) and (x2, y2) = (10, 4).\nScores: (1, 5)", "second"),
            ("Assistant 1: f(2) = 26\nAssistant 2: 40\nThat is all.", "none"),
            ("Scores:\nAssistant 1: 8\nAssistant 2: 6\nOutput: (6, 8)", "ambiguous"),
            ("2023 10", "none"),
            // "4.5/5" is not 4, and marks by criterion are no overall score.
            (
                "Ratings:\nAssistant 1: 4.5/5 (help), 5/5 (truth)\nAssistant 2: 4/5 (help), 5/5 (truth)",
                "none",
            ),
            ("Scores:\nAssistant 1: 8.5, well done\nAssistant 2: 8 - fine", "first"),
            ("Both deserve praise.", "none"),
            ("<think>9 1</think>2 3", "second"),
        ],
    );
    assert_eq!(parse("8.5 9\n…", Style::ScorePair).scores, Some(vec![8.5, 9.0]));
}

#[test]
fn json_objects() {
    check(
        Style::Json,
        &[
            (r#"{"reason": "…", "verdict": "A"}"#, "first"),
            ("```json\n{\"winner\": 2}\n```", "second"),
            (r#"Here you are: {"verdict": "tie"} – done"#, "tie"),
            (r#"{"better_response": "Response B"}"#, "second"),
            (r#"{"verdict": "A>>B"}"#, "first"),
            (r#"{"verdict": "INCORRECT"}"#, "none"),
            (r#"{"verdict": null, "score_a": 1, "score_b": 2}"#, "none"),
            (r#"{"score_a": 1, "score_b": 2.5}"#, "second"),
            (r#"{"scores": {"A": 8, "B": 8}}"#, "tie"),
            (r#"{"verdict": "A", "verdict": "B"}"#, "ambiguous"),
            (r#"{"verdict": "A"} {"verdict": "B"}"#, "ambiguous"),
            (r#"{"verdict": "A"#, "truncated"),
            (r#"{"steps": {"verdict": "B"}, "final": "#, "truncated"),
            (r#"{"verdict": true}"#, "none"),
            (r#"{"verdict": 0}"#, "none"),
            (r#"{"preference": 0.7}"#, "none"),
            (r#"{"verdict": NaN}"#, "none"),
            (r#"In set notation {x}: {"verdict": "B"}"#, "second"),
            ("[1, 2]", "none"),
            (r#"<think>{"verdict": "A"}</think>{"verdict": "B"}"#, "second"),
        ],
    );
    assert_eq!(parse(r#"{"winner":"A","scores":[9,7]}"#, Style::Json).scores, Some(vec![9.0, 7.0]));
}

#[test]
fn ratings_are_scores_and_never_verdicts() {
    let table: [(&str, Option<f64>); 15] = [
        ("Rating: [[7]]", Some(7.0)),
        ("It is sound. Rating: 8.5", Some(8.5)),
        ("I'd say 6/10.", Some(6.0)),
        ("**Score:** 9 out of 10", Some(9.0)),
        ("7.5", Some(7.5)),
        ("Good work.\n10", Some(10.0)),
        (r#"{"rating": 4}"#, Some(4.0)),
        ("Rating: high", None),
        ("Rating: 11", None),
        ("Rating: -3", None),
        ("Rating: 80/100", None),
        ("Rating: 7. Rating: 9.", None),
        ("Rating: 85%", None),
        ("In 2 of 3 cases it fails", None),
        ("<think>Rating: 3</think>Rating: 5", Some(5.0)),
    ];
    for (text, want) in table {
        let parsed = parse(text, Style::Rating1To10);
        assert_eq!(parsed.scores, want.map(|rating| vec![rating]), "{text}: {}", parsed.reason);
        assert!(parsed.verdict.is_err(), "{text}");
    }
}

#[test]
fn auto_finds_the_style_and_never_mixes_verdicts() {
    check(
        Style::Auto,
        &[
            ("…\n[[B]]", "second"),
            ("…\n[[A>>B]]", "first"),
            ("…\nBetter response: tie", "tie"),
            (r#"{"verdict": "B"}"#, "second"),
            ("Therefore, Output (b) is better.", "second"),
            ("3 9\n…", "second"),
            ("…\n\n3", "tie"),
            ("Better response: 1\n[[B]]", "ambiguous"),
            ("Output (a) is better.\n2", "ambiguous"),
            ("Both are fine.", "none"),
        ],
    );
    assert_eq!(parse("Rating: [[8]]", Style::Auto).scores, Some(vec![8.0]));
}

#[test]
fn the_explanation_is_what_stands_before_the_verdict() {
    let text = "<think>hm</think>\n1 is vague.\n\n2 is right.\n\n**Better response: 2**";
    assert_eq!(explanation(text).as_deref(), Some("1 is vague.\n\n2 is right."));
    assert_eq!(explanation("Better response: 2"), None);
}

#[test]
fn jsonl_answers_every_row() {
    let input = concat!(
        "{\"id\": 1, \"text\": \"[[A]]\", \"style\": \"brackets-abc\", \"more\": 1}\n",
        "\n",
        "not json\n",
        "{\"id\": \"x\", \"style\": \"json\"}\n",
        "{\"id\": \"y\", \"text\": \"\", \"style\": \"jsn\"}\r\n",
        "{\"id\": \"z\", \"text\": \"3 4\", \"style\": \"score-pair\"}",
    );
    let mut out = Vec::new();
    let counts = jsonl(input.as_bytes(), &mut out).unwrap();
    assert_eq!(counts, JsonlCounts { rows: 5, verdicts: 2, malformed: 3 });
    insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
    {"id":1,"verdict":"first","reason":"`[[A]]`"}
    {"id":null,"verdict":null,"reason":"line 3: not JSON: expected ident at column 2"}
    {"id":"x","verdict":null,"reason":"line 4: `text` is missing"}
    {"id":"y","verdict":null,"reason":"line 5: `jsn` is no verdict style; there are llmbar-cot, llmbar-vanilla, digit-123, score-pair, brackets-abc, arena-brackets, better-response, json, rating-1-10, auto"}
    {"id":"z","verdict":"second","reason":"scores 3 and 4, on the first line","scores":[3.0,4.0]}
    "#);
}

#[test]
fn jsonl_names_the_row_that_it_cannot_read() {
    let input = concat!(
        "\u{feff}{\"id\": \"a\", \"text\": \"[[B]]\", \"style\": \"auto\"}\n",
        "{\"id\": \"b\", \"text\": \"[[A]]\", \"text\": \"[[B]]\", \"style\": \"auto\"}\n",
        "{\"id\": \"c\", \"text\": \"cut o\n",
        "{\"id\": 12\n",
        "[1, 2]\n",
        "{\"id\": \"d\", \"text\": 5, \"style\": \"auto\"}\n",
        "{\"id\": \"e\", \"text\": \"[[A]]\"}\n",
        "{\"text\": \"[[A]]\", \"style\": \"auto\"}\n",
    );
    let mut out = Vec::new();
    let counts = jsonl(input.as_bytes(), &mut out).unwrap();
    assert_eq!(counts, JsonlCounts { rows: 8, verdicts: 2, malformed: 6 });
    insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
    {"id":"a","verdict":"second","reason":"brackets-abc: `[[B]]`"}
    {"id":"b","verdict":null,"reason":"line 2: duplicate field `text`"}
    {"id":"c","verdict":null,"reason":"line 3: not JSON: EOF while parsing a string at column 26"}
    {"id":null,"verdict":null,"reason":"line 4: not JSON: EOF while parsing an object at column 9"}
    {"id":null,"verdict":null,"reason":"line 5: not an object"}
    {"id":"d","verdict":null,"reason":"line 6: `text` is not a string"}
    {"id":"e","verdict":null,"reason":"line 7: `style` is missing; `auto` reads any"}
    {"id":null,"verdict":"first","reason":"brackets-abc: `[[A]]`"}
    "#);
}

#[test]
fn jsonl_refuses_a_huge_line_and_goes_on() {
    let row = "{\"id\": 1, \"text\": \"[[A]]\", \"style\": \"auto\"}\n";
    let huge = format!("{{\"id\": \"big\", \"text\": \"{}\"}}\n", "x".repeat(500));
    let input = format!("{row}{huge}\n{row}{}{row}", " ".repeat(200) + "\n");
    let mut out = Vec::new();
    // The first row has just the allowed length.
    let counts = jsonl::jsonl_up_to(row.len() as u64, input.as_bytes(), &mut out).unwrap();
    assert_eq!(counts, JsonlCounts { rows: 5, verdicts: 3, malformed: 2 });
    let out = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[1],
        format!("{{\"id\":\"big\",\"verdict\":null,\"reason\":\"line 2: longer than {} bytes\"}}", row.len())
    );
    assert!(lines[3].contains("line 5: longer"), "{}", lines[3]);
}

#[test]
fn jsonl_survives_bytes_that_are_no_text() {
    let mut out = Vec::new();
    let counts =
        jsonl(&b"\xff\xfe\n{\"id\":1,\"text\":\"\\ud800\",\"style\":\"json\"}\n"[..], &mut out).unwrap();
    assert_eq!((counts.rows, counts.malformed), (2, 2));
}

#[test]
fn style_names_round_trip() {
    for style in Style::ALL {
        assert_eq!(style.name().parse(), Ok(style));
        assert_eq!(serde_json::to_string(&style).unwrap(), format!("\"{style}\""));
    }
}

proptest! {
    #[test]
    fn the_house_style_round_trips(reasoning in "[a-z ,.\n]{0,200}", verdict in 0..3_usize) {
        let (label, choice) =
            [("1", Choice::First), ("2", Choice::Second), ("tie", Choice::Tie)][verdict];
        let text = format!("{reasoning}\n\nBetter response: {label}");
        prop_assert_eq!(parse(&text, Style::BetterResponse).verdict, Ok(choice));
    }
}
