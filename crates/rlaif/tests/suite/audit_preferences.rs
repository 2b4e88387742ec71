//! `rlaif audit --preferences`: whatever is planted in what is trained on is found and named, and a clean set passes.

use crate::common::Lab;
use serde_json::{Value, json};

/// What is trained on comes from a file alone.
const FROM_FILE: [&str; 5] =
    ["rlaif.toml", "--set", "run.stages=reward,report", "--set", "reward.data=prefs.jsonl"];

fn row(prompt: &str, chosen: &str, rejected: &str, source: &str) -> Value {
    json!({"prompt": prompt, "chosen": chosen, "rejected": rejected, "source": source})
}

/// Rows that have nothing in common.
fn clean() -> Vec<Value> {
    const TOPICS: [&str; 12] = [
        "volcanoes",
        "knitting patterns",
        "tax law",
        "jazz harmony",
        "bees",
        "suspension bridges",
        "sourdough",
        "black holes",
        "chess openings",
        "coral reefs",
        "mechanical watches",
        "the Hanseatic League",
    ];
    let row = |(i, topic): (usize, &&str)| {
        let ask = format!(
            "{} {topic}?",
            ["What is known of", "Who should read about", "Why does anybody study"][i % 3]
        );
        let good = format!("There is much to say on {topic}, above all number {}.", i * i + 7);
        let bad = format!("{topic} bore me");
        let (chosen, rejected) = if i % 2 == 0 { (good, bad) } else { (bad, good) };
        row(&ask, &chosen, &rejected, if i < 6 { "ann" } else { "bob" })
    };
    TOPICS.iter().enumerate().map(row).collect()
}

fn write(lab: &Lab, rows: &[Value]) {
    lab.write("prefs.jsonl", &rows.iter().map(|row| format!("{row}\n")).collect::<String>());
}

/// What the audit measured, from `--json`.
fn audited(lab: &Lab, code: i32, more: &[&str]) -> (Value, String) {
    let command = [&["audit", "--preferences", "--json"][..], &FROM_FILE, more].concat();
    let (stdout, _) = lab.ends_with(code, &command);
    (serde_json::from_str(&stdout).unwrap(), stdout)
}

fn measured<'a>(audit: &'a Value, measure: &str) -> &'a Value {
    let all = audit["parts"]["preferences"]["measurements"].as_array().unwrap();
    all.iter().find(|it| it["measure"] == measure).unwrap_or_else(|| panic!("no {measure} in {audit}"))
}

fn value(audit: &Value, measure: &str) -> f64 {
    measured(audit, measure)["value"]
        .as_f64()
        .unwrap_or_else(|| panic!("{measure}: {}", measured(audit, measure)))
}

/// The examples of a measure, as one text.
fn examples(audit: &Value, measure: &str) -> String {
    measured(audit, measure)["examples"].to_string()
}

/// Every count that is 0 in a set without faults.
const COUNTS: [&str; 20] = [
    "duplicate_pairs",
    "near_duplicate_pairs",
    "duplicate_prompts",
    "near_duplicate_prompts",
    "duplicate_responses",
    "near_duplicate_responses",
    "near_equal_sides",
    "contradictions",
    "contradictions_within_source",
    "cyclic_triads",
    "cyclic_prompts",
    "leaked_prompts",
    "near_leaked_prompts",
    "leaked_references",
    "personal_email",
    "personal_phone",
    "personal_iban",
    "personal_card",
    "personal_ip",
    "secrets",
];

const REFERENCE: &str = "A reference that nobody would write by chance.";

fn lab() -> Lab {
    let lab = Lab::new();
    let eval = [
        json!({"id": "eval-1", "prompt": "Where does the river Danube end?", "reference": REFERENCE}),
        json!({"id": "eval-2", "prompt": "Name the tallest tree of Europe", "reference": "yes"}),
        json!({"id": "eval-3", "prompt": "Tell 3"}),
    ];
    lab.write("eval.jsonl", &eval.map(|row| format!("{row}\n")).concat());
    lab
}

#[test]
fn a_clean_set_keeps_every_bound() {
    let lab = lab();
    write(&lab, &clean());
    let bounds: Vec<String> = COUNTS.iter().map(|name| format!("audit.bounds.{name}.max=0")).collect();
    let bounds: Vec<&str> = bounds.iter().flat_map(|bound| ["--set", bound]).collect();
    let (audit, _) = audited(&lab, 0, &bounds);
    for count in COUNTS {
        let it = measured(&audit, count);
        assert_eq!((it["value"].as_f64(), &it["outcome"]), (Some(0.0), &json!("pass")), "{it}");
    }
    assert_eq!(value(&audit, "pairs"), 12.0);
    assert_eq!(value(&audit, "chosen_longer"), 0.5);
    assert_eq!(value(&audit, "largest_source"), 0.5);
    assert_eq!(value(&audit, "label_margin"), 1.0);
    let share = measured(&audit, "duplicate_pairs_share");
    assert!(
        share["value"] == 0.0 && share["high"].as_f64().unwrap() > 0.1,
        "none of twelve is not none at all: {share}"
    );
    assert_eq!(measured(&audit, "chosen_is_a")["value"], Value::Null, "no order is known of a file");
    // The same is in the run's folder, and its command measures it again.
    let kept: Value = serde_json::from_str(&lab.read("runs/tiny/audit.json")).unwrap();
    assert_eq!(kept["parts"]["preferences"]["measurements"], audit["parts"]["preferences"]["measurements"]);
    let command = kept["parts"]["preferences"]["command"].as_str().unwrap();
    assert!(command.starts_with("rlaif audit rlaif.toml") && command.ends_with("--preferences"), "{command}");
}

#[test]
fn planted_duplicates_contradictions_and_cycles_are_found() {
    let lab = lab();
    let mut rows = clean();
    let first = rows[0].clone();
    let text = |field: &str| first[field].as_str().unwrap().to_string();
    rows.push(row(&text("prompt").to_uppercase(), &text("chosen"), &text("rejected"), "ann")); // 13: exact
    rows.push(row(&text("prompt"), &text("chosen").replace("much", "mucl"), &text("rejected"), "ann")); // 14: near
    rows.push(row(&text("prompt"), &text("rejected"), &text("chosen"), "bob")); // 15: against 1
    rows.push(row("Which?", "alpha", "beta", "ann")); // 16 to 18: a cycle
    rows.push(row("Which?", "beta", "gamma delta", "ann"));
    rows.push(row("Which?", "gamma delta", "alpha", "bob"));
    rows.push(row(
        "And now?",
        "a much longer text than any other one",
        "a much longer text than any other one!",
        "ann",
    )); // 19
    rows.push(row("And then?", "left", "right", "ann")); // 20 and 21: one source says both
    rows.push(row("And then?", "Right", "left", "ann"));
    write(&lab, &rows);
    let (audit, _) = audited(&lab, 0, &[]);
    for (measure, count, named) in [
        ("duplicate_pairs", 1.0, "`prefs.jsonl:13` is `prefs.jsonl:1`"),
        ("near_duplicate_pairs", 1.0, "`prefs.jsonl:14` is nearly `prefs.jsonl:1`"),
        ("duplicate_prompts", 1.0, "`prefs.jsonl:13` asks what `prefs.jsonl:1`"),
        ("contradictions", 2.0, "`prefs.jsonl:1` (by `ann`) against `prefs.jsonl:15` (by `bob`)"),
        ("contradictions_within_source", 1.0, ""),
        ("cyclic_triads", 1.0, "`prefs.jsonl:16`, `prefs.jsonl:17`, `prefs.jsonl:18`"),
        ("cyclic_prompts", 1.0, "3 responses on cycles"),
        ("near_equal_sides", 1.0, "`prefs.jsonl:19`"),
        ("near_duplicate_responses", 2.0, "`prefs.jsonl:14` nearly as in `prefs.jsonl:1`"),
    ] {
        assert_eq!(value(&audit, measure), count, "{}", measured(&audit, measure));
        assert!(examples(&audit, measure).contains(named), "{}", measured(&audit, measure));
    }
    assert_eq!(value(&audit, "contradictions_share"), 2.0 / 2.0);
    // A bound that is not kept is the exit code, and the table shows which rows it is about.
    let bound =
        [&["audit", "--preferences"][..], &FROM_FILE, &["--set", "audit.bounds.contradictions.max=1"]]
            .concat();
    let (table, _) = lab.ends_with(1, &bound);
    assert!(table.contains("FAIL") && table.contains("- `prefs.jsonl:20` (by `ann`) against"), "{table}");
    let bound =
        [&["audit", "--preferences"][..], &FROM_FILE, &["--set", "audit.bounds.contradictions.max=2"]]
            .concat();
    lab.ends_with(0, &bound);
}

#[test]
fn what_is_evaluated_on_is_found_in_what_is_trained_on() {
    let lab = lab();
    let mut rows = clean();
    rows.push(row("where does the  river danube END?", "In the sea", "Nowhere", "ann"));
    rows.push(row("Name the tallest trees of Europe", "A fir", "A fern", "ann"));
    rows.push(row("Something else", &format!("I say: {}", REFERENCE.to_lowercase()), "yes", "ann"));
    write(&lab, &rows);
    let (audit, _) = audited(&lab, 1, &["--set", "audit.bounds.leaked_prompts.max=0"]);
    assert_eq!(value(&audit, "leaked_prompts"), 1.0);
    assert!(examples(&audit, "leaked_prompts").contains("`eval-1` is in `prefs.jsonl:13`"));
    assert_eq!(value(&audit, "near_leaked_prompts"), 1.0);
    assert!(examples(&audit, "near_leaked_prompts").contains("`eval-2` is in `prefs.jsonl:14`"));
    assert!((value(&audit, "leaked_prompts_share") - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(value(&audit, "leaked_references"), 1.0);
    assert!(examples(&audit, "leaked_references").contains("`prefs.jsonl:15` has the answer of `eval-1`"));
}

#[test]
fn personal_data_is_told_by_row_and_never_shown() {
    const DATA: [(&str, &str); 6] = [
        ("personal_email", "jane.doe@acme.org"),
        ("personal_phone", "+49 30 9018-2054"),
        ("personal_iban", "DE89 3704 0044 0532 0130 00"),
        ("personal_card", "4111 1111 1111 1111"),
        ("personal_ip", "91.198.174.192"),
        ("secrets", concat!("gh", "p_16C7e42F292c6912E7710c838347Ae178B4a")),
    ];
    let lab = lab();
    let mut rows = clean();
    for (i, (_, datum)) in DATA.iter().enumerate() {
        rows.push(row(
            &format!("Say what number {i} is to you"),
            &format!("It is {datum}, I think"),
            &format!("no {i}"),
            "ann",
        ));
    }
    write(&lab, &rows);
    let (audit, stdout) = audited(&lab, 0, &[]);
    let (table, told) = lab.ends_with(0, &[&["audit", "--preferences"][..], &FROM_FILE].concat());
    let kept = lab.read("runs/tiny/audit.json");
    for (i, (measure, datum)) in DATA.iter().enumerate() {
        assert_eq!(value(&audit, measure), 1.0, "{}", measured(&audit, measure));
        let example = examples(&audit, measure);
        assert!(
            example.contains(&format!("`prefs.jsonl:{}`, chosen: ", 13 + i)) && example.contains('•'),
            "{example}"
        );
        for text in [&stdout, &table, &told, &kept] {
            assert!(!text.contains(datum), "{datum} is given out");
        }
    }
    assert!((value(&audit, "personal_share") - 6.0 / 18.0).abs() < 1e-12);
}

#[test]
fn a_runs_own_labels_are_audited_without_a_flag() {
    let lab = Lab::new();
    let (table, _) = lab.ends_with(0, &["audit", "rlaif.toml", "--preferences"]);
    assert!(table.contains("there is nothing to look through"), "{table}");
    let bound = ["audit", "rlaif.toml", "--preferences", "--set", "audit.bounds.contradictions.max=0"];
    let (table, _) = lab.ends_with(1, &bound);
    assert!(table.contains("NOT MEASURED"), "nothing is not good: {table}");
    lab.done(&["run", "rlaif.toml", "--until", "label"]);
    let (stdout, _) = lab.ends_with(0, &["audit", "rlaif.toml", "--json"]);
    let audit: Value = serde_json::from_str(&stdout).unwrap();
    let exported = lab.done(&["export", "rlaif.toml"]).0.lines().count();
    assert_eq!(value(&audit, "pairs"), exported as f64);
    assert_eq!(value(&audit, "contradictions"), 0.0);
    assert_eq!(examples(&audit, "largest_source"), json!([format!("`tone`: {exported}")]).to_string());
    let is_a = measured(&audit, "chosen_is_a");
    assert!(is_a["n"] == exported && is_a["low"].as_f64() < is_a["high"].as_f64(), "{is_a}");
}
