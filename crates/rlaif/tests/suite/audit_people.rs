//! `rlaif audit` on PandaLM's three annotators says what the reference libraries say of them. The data is not ours to ship; this runs where
//! `RLAIF_SHARED` names the folder that holds it.

use crate::common::Lab;
use crate::review_lab::{response, wait};
use rlaif_core::people::HumanChoice;
use rlaif_core::records::{Choice, Order, Pair, Prompt, PromptText, Response, Split, Verdict};
use rlaif_store::Store;
use rlaif_store::store::{BASELINE, NewHumanVerdict, TRAIN_PAIRS, VerdictRow};
use serde_json::Value;
use std::collections::BTreeMap;

#[allow(dead_code, reason = "tests of the statistics use the rest")]
#[path = "../../../rlaif-core/tests/suite/golden_pandalm.rs"]
mod golden;

struct Row {
    a: String,
    b: String,
    said: [HumanChoice; 3],
}

fn rows() -> Option<Vec<Row>> {
    let Some(shared) = std::env::var_os("RLAIF_SHARED") else {
        eprintln!("skipped: RLAIF_SHARED is not set");
        return None;
    };
    let path = std::path::Path::new(&shared).join("data/pairs/pandalm.jsonl");
    let text = |response: &Value| response.as_str().map_or_else(|| response.to_string(), String::from);
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let said = |annotator: usize| match row["annotators"][annotator].as_str().unwrap() {
            "a" => HumanChoice::First,
            "b" => HumanChoice::Second,
            "tie" => HumanChoice::Tie,
            other => panic!("{other}"),
        };
        Row { a: text(&row["response_a"]), b: text(&row["response_b"]), said: [said(0), said(1), said(2)] }
    };
    Some(std::fs::read_to_string(path).unwrap().lines().map(row).collect())
}

/// A lab with these pairs, on which the judge `tone` says what the second annotator does.
fn lab(rows: &[Row]) -> Lab {
    let lab = Lab::new();
    std::fs::create_dir_all(lab.run_folder()).unwrap();
    let id = |i: usize, what: &str| format!("p{i}/{what}");
    let prompt =
        |i: usize| Prompt { id: format!("p{i}"), prompt: question(i), tags: Vec::new(), reference: None };
    let pair = |i: usize| Pair { id: id(i, "0-1"), prompt_id: format!("p{i}"), a: id(i, "0"), b: id(i, "1") };
    let verdict = |(i, row): (usize, &Row)| VerdictRow {
        pair_id: id(i, "0-1"),
        judge: "tone".into(),
        template: "contrastive".into(),
        order: Order::Ab,
        vote: 0,
        verdict: Verdict::choice(match row.said[1] {
            HumanChoice::First => Choice::First,
            HumanChoice::Second => Choice::Second,
            _ => Choice::Tie,
        }),
    };
    let prompts: Vec<(Prompt, Split)> = (0..rows.len()).map(|i| (prompt(i), Split::Train)).collect();
    let responses: Vec<Response> = rows
        .iter()
        .enumerate()
        .flat_map(|(i, row)| [response(i, 0, &row.a), response(i, 1, &row.b)])
        .collect();
    let pairs: Vec<Pair> = (0..rows.len()).map(pair).collect();
    let verdicts: Vec<VerdictRow> = rows.iter().enumerate().map(verdict).collect();
    with_store(&lab, async |store| {
        store.put_prompts(&prompts).await.unwrap();
        store.put_responses(BASELINE, &responses).await.unwrap();
        store.put_pairs(TRAIN_PAIRS, &pairs).await.unwrap();
        store.put_verdicts("test", &verdicts).await.unwrap();
    });
    lab
}

fn question(i: usize) -> PromptText {
    PromptText::Text(format!("Question {i}?"))
}

fn with_store(lab: &Lab, work: impl AsyncFnOnce(&Store)) {
    wait(async {
        let store = Store::open(lab.run_folder().join("rlaif.db")).await.unwrap();
        work(&store).await;
        store.close().await.unwrap();
    });
}

fn annotate(lab: &Lab, rows: &[Row], annotator: usize) {
    let criteria = BTreeMap::new();
    with_store(lab, async |store| {
        for (i, row) in rows.iter().enumerate() {
            let verdict = NewHumanVerdict {
                prompt: &question(i),
                a: &row.a,
                b: &row.b,
                reviewer: ["one", "two", "three"][annotator],
                queue: "all",
                a_left: i % 2 == 0,
                choice: row.said[annotator],
                criteria: &criteria,
                note: None,
                shown_ms: 1,
                judged_ms: 2,
            };
            store.put_human_verdict(&verdict).await.unwrap();
        }
    });
}

fn measured(lab: &Lab, subject: &str, measure: &str) -> Value {
    let audit: Value = serde_json::from_str(&lab.read("runs/tiny/audit.json")).unwrap();
    let rows = audit["parts"]["judges"]["measurements"].as_array().unwrap();
    let row = rows.iter().find(|row| row["subject"] == subject && row["measure"] == measure);
    row.unwrap_or_else(|| panic!("no `{measure}` of {subject}")).clone()
}

#[track_caller]
fn close(row: &Value, want: f64) {
    let got = row["value"].as_f64().unwrap_or_else(|| panic!("{row}"));
    assert!((got - want).abs() < 1e-9, "{row}, expected {want}");
}

#[test]
fn the_audit_says_of_pandalms_annotators_what_the_reference_libraries_say() {
    let Some(rows) = rows() else { return };
    let lab = lab(&rows);
    annotate(&lab, &rows, 0);
    lab.done(&["audit", "rlaif.toml"]);
    let kappa = measured(&lab, "judge `tone`", "cohen_kappa_all");
    close(&kappa, golden::KAPPA[0].0);
    assert_eq!(kappa["n"], golden::PAIRS);
    let one = measured(&lab, "people", "people_fleiss_kappa");
    assert!(one["value"].is_null() && one["note"].as_str().unwrap().contains("ratings_per_pair"), "{one}");

    annotate(&lab, &rows, 1);
    annotate(&lab, &rows, 2);
    lab.done(&["audit", "rlaif.toml"]);
    close(&measured(&lab, "people", "people_fleiss_kappa"), golden::FLEISS);
    close(&measured(&lab, "people", "people_alpha"), golden::ALPHA[1]);
    close(&measured(&lab, "people", "people_ac1"), golden::AC1);
    let row = measured(&lab, "people", "people_agreement");
    let (low, high) = (row["low"].as_f64().unwrap(), row["high"].as_f64().unwrap());
    assert!(high - low < 0.1 && row["n"] == golden::PAIRS, "{row}");
}
