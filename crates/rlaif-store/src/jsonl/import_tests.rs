use super::import::{Shape, import_preferences, import_preferences_from};
use rlaif_core::records::{PreferenceRow, PromptText};
use serde_json::{Value, json};

fn read(rows: &[Value]) -> (Vec<PreferenceRow>, Vec<String>) {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let rows = import_preferences_from(lines.as_bytes(), None).unwrap();
    (rows.good, rows.bad.into_iter().map(|bad| format!("{}: {}", bad.line, bad.reason)).collect())
}

fn sides(row: &PreferenceRow) -> (String, &str, &str, f64) {
    (row.prompt.display(), &row.chosen, &row.rejected, row.p)
}

#[test]
fn transcripts_are_cut_into_turns() {
    let (good, bad) = read(&[
        json!({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}),
        json!({"chosen": "\n\nHuman: a\n\nb\n\nAssistant: c\n\nHuman: d\n\nAssistant: e",
               "rejected": "\n\nHuman: a\n\nb\n\nAssistant: c\n\nHuman: d\n\nAssistant: f"}),
        json!({"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: b\n\nAssistant: y"}),
        json!({"chosen": "\n\nHuman: a\n\nAssistant:", "rejected": "\n\nHuman: a\n\nAssistant: y"}),
        json!({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"}),
    ]);
    assert_eq!(good.len(), 2);
    assert_eq!(sides(&good[0]), ("Hi".into(), "Hello!", "Go.", 1.0));
    let PromptText::Messages(turns) = &good[1].prompt else { panic!("{:?}", good[1].prompt) };
    let said: Vec<(&str, &str)> =
        turns.iter().map(|turn| (turn.role.as_str(), turn.content.as_str())).collect();
    assert_eq!(said, [("user", "a\n\nb"), ("assistant", "c"), ("user", "d")]);
    assert_eq!((good[1].chosen.as_str(), good[1].rejected.as_str()), ("e", "f"));
    assert_eq!(good[1].pair_id, "line-2");
    assert_eq!(
        bad,
        [
            "3: `chosen` and `rejected` differ before their last turns: they answer different prompts",
            "4: turn 2 of `chosen` is empty",
            "5: `chosen` must end with a turn of `assistant`",
        ]
    );
}

#[test]
fn conversations_may_hold_the_prompt() {
    let turns =
        |answer: &str| json!([{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": answer}]);
    let (good, bad) = read(&[
        json!({"prompt": "2+2?", "chosen": turns("4"), "rejected": turns("5"), "score_chosen": 9}),
        json!({"prompt": "2+2?", "chosen": "5", "rejected": "4", "p": 0.2}),
        json!({"question": "?"}),
    ]);
    assert_eq!(
        good.iter().map(sides).collect::<Vec<_>>(),
        [("2+2?".into(), "4", "5", 1.0), ("2+2?".into(), "4", "5", 0.8)]
    );
    assert_eq!(bad, ["3: no known shape of preferences has these fields: `question`"]);
}

#[test]
fn every_two_scored_completions_of_different_scores_are_a_preference() {
    let completion =
        |response: &str, score: f64| json!({"response": response, "overall_score": score, "model": "m"});
    let (good, bad) = read(&[
        json!({"instruction": "Say", "completions": [completion("a", 7.0), completion("b", 7.0), completion("c", 8.5)]}),
        json!({"instruction": "Say", "completions": [completion("a", 7.0), completion("b", 7.0)]}),
        json!({"instruction": "Say", "completions": [completion("a", 7.0), {"response": "b", "overall_score": "N/A"}]}),
    ]);
    assert_eq!(
        good.iter().map(sides).collect::<Vec<_>>(),
        [("Say".into(), "c", "a", 1.0), ("Say".into(), "c", "b", 1.0)]
    );
    assert_eq!([good[0].pair_id.as_str(), &good[1].pair_id], ["line-1-0", "line-1-1"]);
    assert_eq!(
        bad,
        [
            "2: no two of `completions` differ in score",
            "3: `completions[1]` has no number as `overall_score`"
        ]
    );
}

/// Two people for a, one for b, and one whose answer is a draft.
#[test]
fn all_who_ranked_are_heard() {
    let fields = json!({"prompt": "Q", "response-1": "a", "response-2": "b"});
    let names = |first: &str, second: &str, status: &str| json!({"value": [first, second], "status": status});
    let second = json!({"fields": fields, "responses": {"ranking": [
        names("response-1", "response-2", "submitted"), names("response-1", "response-2", "submitted"),
        names("response-2", "response-1", "submitted"), names("response-2", "response-1", "draft")],
        "comment": [{"value": "nice", "status": "submitted"}]}});
    let rank = |a: u64, b: u64| {
        let value = json!([{"value": "response-1", "rank": a}, {"value": "response-2", "rank": b}]);
        json!({"status": "submitted", "values": {"ranking": {"value": value}}})
    };
    let first = json!({"fields": fields, "responses": [rank(2, 1), rank(1, 1)]});
    let nobody = json!({"fields": fields, "responses": []});
    let (good, bad) = read(&[second.clone(), first, nobody]);
    assert_eq!(
        good.iter().map(sides).collect::<Vec<_>>(),
        [("Q".into(), "a", "b", 2.0 / 3.0), ("Q".into(), "b", "a", 0.75)]
    );
    assert_eq!(bad, ["3: nobody ranked two of its `fields`"]);

    let array = json!([second, 3]).to_string();
    let rows = import_preferences_from(array.as_bytes(), Some(Shape::Argilla)).unwrap();
    assert_eq!((rows.good.len(), rows.bad.len(), rows.bad[0].line), (1, 1, 2));
}

#[test]
fn files_that_are_no_json_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for (bytes, hint) in [(&b"PAR1\x15\x04"[..], "to_json"), (&[0x1f, 0x8b, 8, 0], "gunzip"), (b"", "empty")]
    {
        let path = folder.path().join("data");
        std::fs::write(&path, bytes).unwrap();
        let error = import_preferences(&path, None).unwrap_err().to_string();
        assert!(error.contains(hint), "{error}");
    }
}
