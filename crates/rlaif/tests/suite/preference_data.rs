//! `reward.data`: a reward model from files of preferences, with and without labels of the run.

use crate::common::Lab;
use serde_json::{Value, json};

/// Sixteen preferences over eight prompts.
fn rows() -> String {
    (0..16)
        .map(|i| {
            let row = json!({
                "prompt": format!("Ask {}", i / 2), "chosen": "Yes, gladly", "rejected": format!("No {i}"),
                "source": if i % 2 == 0 { "human" } else { "tone" },
            });
            format!("{row}\n")
        })
        .collect()
}

fn manifest(lab: &Lab) -> Value {
    serde_json::from_slice(&std::fs::read(lab.run_folder().join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn a_reward_model_needs_neither_labels_nor_prompts_where_it_has_a_file() {
    let lab = Lab::new();
    lab.write("prefs.jsonl", &rows());
    lab.edit("prompts.jsonl", "not-there.jsonl");
    let only = ["rlaif.toml", "--set", "run.stages=reward,report", "--set", "reward.data=prefs.jsonl"];
    let run = [&["run"][..], &only].concat();
    lab.done(&run);
    let trained = manifest(&lab)["stages"]["reward"].clone();
    assert_eq!(trained["numbers"]["train_pairs"], 12, "two of eight prompts are held out: {trained}");
    let first = lab.weights("reward");
    let (_, told) = lab.done(&run);
    assert!(told.contains("reward: done before, nothing changed"), "{told}");
    lab.write("prefs.jsonl", &rows().replace("gladly", "surely"));
    let (_, told) = lab.done(&run);
    assert!(told.contains("reward: computed again"), "{told}");
    assert_ne!(lab.weights("reward"), first, "other rows, another model");
}

#[test]
fn a_file_is_trained_on_beside_the_runs_own_preferences() {
    let lab = Lab::new();
    lab.write("prefs.jsonl", &rows());
    lab.done(&["run", "rlaif.toml", "--until", "reward", "--set", "reward.holdout_fraction=0"]);
    let own = manifest(&lab)["stages"]["reward"]["numbers"]["train_pairs"].as_u64().unwrap();
    let with = ["--set", "reward.holdout_fraction=0", "--set", "reward.data=prefs.jsonl"];
    lab.done(&[&["run", "rlaif.toml", "--until", "reward"][..], &with].concat());
    assert_eq!(manifest(&lab)["stages"]["reward"]["numbers"]["train_pairs"], own + 16);
}

/// Heads beside a model that transformers loads, scores with their spread, and what came of the tricks.
#[test]
fn several_heads_score_with_their_uncertainty() {
    let lab = Lab::new();
    lab.write("prefs.jsonl", &rows());
    let config = ["rlaif.toml", "--set", "run.stages=reward,report", "--set", "reward.data=prefs.jsonl"];
    lab.done(
        &[&["run"][..], &config, &["--set", "reward.heads=3", "--set", "reward.optim.learning_rate=1e-3"]]
            .concat(),
    );
    let numbers = manifest(&lab)["stages"]["reward"]["numbers"].clone();
    assert_eq!(numbers["longer_wins"]["value"], 1.0, "every chosen response is the longer one: {numbers}");
    let tricks: Vec<&str> =
        numbers["resistance"].as_array().unwrap().iter().map(|r| r["response"].as_str().unwrap()).collect();
    assert_eq!(tricks, ["constant", "repeated", "empty"]);
    assert!(lab.run_folder().join("models/reward/heads.safetensors").is_file());
    let question = "{\"prompt\": \"Ask 1\", \"response\": \"Yes\"}\n";
    let output = lab.rlaif(&["score", "runs/tiny/models/reward"]).write_stdin(question).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer["reward"].is_number() && answer["uncertainty"].as_f64().unwrap() > 0.0, "{answer}");
}

#[test]
fn bad_rows_are_refused_by_line_before_anything_is_computed() {
    let lab = Lab::new();
    let bad = "{\"prompt\": \"a\", \"chosen\": \"x\", \"rejected\": \"x\"}\n{\"prompt\": \"a\", \"chosen\": \"x\"}\n";
    lab.write("prefs.jsonl", &format!("{}{bad}", rows()));
    let (_, told) = lab.ends_with(1, &["run", "rlaif.toml", "--set", "reward.data=prefs.jsonl"]);
    assert!(told.contains("2 rows of `reward.data` cannot be trained on"), "{told}");
    assert!(told.contains("prefs.jsonl:17: `chosen` and `rejected` are the same text"), "{told}");
    assert!(told.contains("prefs.jsonl:18: `rejected` is missing"), "{told}");
    assert!(told.contains("hint: Mend or delete these lines"), "{told}");
    assert!(manifest_is_empty(&lab), "nothing was computed");

    let (_, told) = lab.ends_with(1, &["run", "rlaif.toml", "--set", "dpo.data=nowhere.jsonl"]);
    assert!(told.contains("there is no file `nowhere.jsonl`, which `dpo.data` names"), "{told}");
}

fn manifest_is_empty(lab: &Lab) -> bool {
    !lab.run_folder().join("manifest.json").exists()
        || manifest(lab)["stages"].as_object().is_none_or(serde_json::Map::is_empty)
}
