use super::import::{Shape, import_preferences, import_preferences_from};
use super::{PreferenceData, Rows};
use rlaif_core::records::{PreferenceRow, PromptText};
use serde_json::{Value, json};
use std::path::Path;

fn read(rows: &[Value]) -> (Vec<PreferenceRow>, Vec<String>) {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let rows = import_preferences_from(lines.as_bytes(), None).unwrap();
    let good = rows.good.into_iter().map(|data| data.row).collect();
    (good, rows.bad.into_iter().map(|bad| format!("{}: {}", bad.line, bad.reason)).collect())
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

/// Written by pyarrow, as the Hub has them: `tests/golden/import/make.py`.
fn golden(name: &str) -> Rows<PreferenceData> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/import/");
    import_preferences(&Path::new(folder).join(name), None).unwrap()
}

#[test]
fn parquet_is_read_in_every_shape_and_packing() {
    let told = |rows: &Rows<PreferenceData>| -> Vec<(String, String, String, f64)> {
        assert!(rows.bad.is_empty(), "{:?}", rows.bad);
        let sides = rows.good.iter().map(|data| sides(&data.row));
        sides.map(|(prompt, chosen, rejected, p)| (prompt, chosen.into(), rejected.into(), p)).collect()
    };
    let row = |prompt: &str, chosen: &str, rejected: &str, p| {
        (prompt.to_string(), chosen.to_string(), rejected.to_string(), p)
    };
    let trl = golden("trl.parquet");
    assert_eq!(told(&trl), [row("2+2?", "4", "5", 1.0), row("2+2?", "four", "22", 1.0)]);
    assert_eq!(trl.good.iter().map(|data| data.margin).collect::<Vec<_>>(), [1.5, 0.0]);
    let hh = told(&golden("hh.parquet"));
    assert_eq!((hh.len(), &hh[299]), (300, &row("Hi 299", "Hello!", "Go.", 1.0)), "three row groups");
    assert_eq!(
        told(&golden("ultrafeedback.parquet")),
        [row("Name a colour", "Blue", "Seven", 1.0), row("Name a colour", "Grün", "Seven", 1.0)]
    );
    assert_eq!(told(&golden("argilla.parquet")), [row("Name a river", "The Rhine", "The Alps", 0.75)]);
    assert_eq!(told(&golden("hh.jsonl.gz"))[2], row("Hi 2", "Hello!", "Go.", 1.0));
}

#[test]
fn margins_and_weights_come_along_and_turn_with_the_row() {
    let rows = json!({"prompt": "?", "chosen": "a", "rejected": "b", "p": 0.2, "margin": 1.5, "weight": 3})
        .to_string()
        + "\n"
        + &json!({"prompt": "?", "chosen": "a", "rejected": "b", "weight": 0}).to_string();
    let rows = import_preferences_from(rows.as_bytes(), None).unwrap();
    let found = &rows.good[0];
    assert_eq!((found.row.chosen.as_str(), found.margin, found.weight), ("b", -1.5, 3.0));
    assert!(rows.bad[0].reason.contains("`weight` must be above 0"), "{:?}", rows.bad);
}

/// Cut off anywhere, and with each byte spoilt, a file is an error or bad rows; nothing panics or takes memory without end.
#[test]
fn damaged_files_are_told_and_break_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let of = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        import_preferences(&path, None)
    };
    for name in ["argilla.parquet", "trl.parquet", "ultrafeedback.parquet", "hh.jsonl.gz"] {
        let whole =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/import/").to_string() + name)
                .unwrap();
        for end in (4..whole.len()).step_by(7) {
            assert!(of(&whole[..end]).is_err(), "{name} up to {end}");
        }
        for at in (4..whole.len()).step_by(3) {
            let mut spoilt = whole.clone();
            spoilt[at] ^= 0xff;
            of(&spoilt).ok(); // a byte that is only text may stand
        }
    }
    let error = of(b"PAR1\x15\x04").unwrap_err();
    let told = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(
        told.contains("the Parquet file cannot be read") && told.contains("write it anew, or as JSONL"),
        "{told}"
    );
    let brotli = golden_error("brotli.parquet");
    assert!(brotli.to_lowercase().contains("brotli"), "{brotli}");
    assert!(of(b"").unwrap_err().to_string().contains("empty"));
}

fn golden_error(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/import/");
    let error = import_preferences(&Path::new(folder).join(name), None).unwrap_err();
    format!("{error}: {}", std::error::Error::source(&error).unwrap())
}
