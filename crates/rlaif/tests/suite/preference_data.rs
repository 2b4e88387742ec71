//! `reward.data`: a reward model from files of preferences, with and without labels of the run.

use crate::common::Lab;
use serde_json::{Value, json};
use std::path::Path;

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

/// What hh-rlhf publishes is one command away from a reward model; a row that is none is told, and costs nothing but itself.
#[test]
fn published_preferences_are_imported_and_learnt() {
    let lab = Lab::new();
    let row = |asked: u32, rejected: u32| {
        let side = |answer: &str| format!("\n\nHuman: Ask {asked}\n\nAssistant: {answer}");
        format!("{}\n", json!({"chosen": side("Yes, gladly"), "rejected": side(&format!("No {rejected}"))}))
    };
    let rows: String = (0..16).map(|i| row(i / 2, i)).collect();
    lab.write("hh.jsonl", &(rows + "{\"chosen\": \"x\"}\n"));
    let (_, told) = lab.ends_with(1, &["import", "hh.jsonl", "--source", "hh", "-o", "prefs.jsonl"]);
    assert!(
        told.contains("hh.jsonl:17: no known shape")
            && told.contains("16 preferences of `hh`, 1 rows left out"),
        "{told}"
    );
    lab.done(&["run", "rlaif.toml", "--set", "run.stages=reward,report", "--set", "reward.data=prefs.jsonl"]);
    assert_eq!(manifest(&lab)["stages"]["reward"]["numbers"]["train_pairs"], 12);
}

/// As the Hub has them; margins come along, and a file cut off on its way is told with what to do, and writes nothing.
#[test]
fn parquet_and_gzipped_files_are_imported_as_they_are() {
    let lab = Lab::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rlaif-store/tests/golden/import");
    let files = ["trl.parquet", "hh.jsonl.gz"].map(|name| golden.join(name).display().to_string());
    lab.done(&["import", &files[0], &files[1], "--source", "hub", "-o", "prefs.jsonl"]);
    let text = lab.read("prefs.jsonl");
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<&Value> = rows.iter().map(|row| &row["margin"]).collect();
    assert_eq!(told[..3], [1.5, 0.0, 0.0], "{text}");
    assert!(rows.iter().all(|row| row["source"] == "hub"), "{text}");

    let whole = std::fs::read(golden.join("trl.parquet")).unwrap();
    std::fs::write(lab.path("cut.parquet"), &whole[..whole.len() / 2]).unwrap();
    let (_, told) = lab.ends_with(1, &["import", "cut.parquet", "--source", "hub", "-o", "cut.jsonl"]);
    assert!(told.contains("cut.parquet") && told.contains("the Parquet file cannot be read"), "{told}");
    assert!(!told.contains("panicked") && !lab.path("cut.jsonl").exists(), "{told}");
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

/// Whole models: each loads by itself, they score with their spread, and all of them are read by PPO and the evaluation.
#[test]
fn members_are_models_of_their_own_and_all_of_them_are_read() {
    let lab = Lab::new();
    let members = ["--set", "reward.members=3", "--set", "ppo.ensemble=worst_case"];
    lab.done(&[&["run", "rlaif.toml"][..], &members].concat());
    let reward = manifest(&lab)["stages"]["reward"].clone();
    assert!(reward["summary"].as_str().unwrap().contains("steps of each of 3 members on"), "{reward}");
    let parts: Vec<(&str, &str)> = reward["numbers"]["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["by"].as_str().unwrap(), part["name"].as_str().unwrap()))
        .filter(|(by, _)| ["disagreement", "member"].contains(by))
        .collect();
    let want = [
        ("disagreement", "below the median"),
        ("disagreement", "from the median"),
        ("member", "1 of 3"),
        ("member", "2 of 3"),
        ("member", "3 of 3"),
    ];
    assert_eq!(parts, want);
    for metrics in ["reward", "reward-members/1", "reward-members/2"] {
        assert!(lab.read(&format!("runs/tiny/metrics/{metrics}.jsonl")).contains("\"loss\""));
    }
    let scores = |model: &str| -> Value {
        let question = "{\"prompt\": \"Ask 1\", \"response\": \"Yes\"}\n";
        let output = lab.rlaif(&["score", model]).write_stdin(question).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let together = scores("runs/tiny/models/reward");
    // The last member by itself, without the others beside it.
    std::fs::rename(lab.path("runs/tiny/models/reward/members"), lab.path("members")).unwrap();
    let alone = ["members/1", "members/2", "runs/tiny/models/reward"].map(|model| {
        let scored = scores(model);
        assert!(scored["uncertainty"].is_null(), "{scored}");
        scored["reward"].as_f64().unwrap()
    });
    let mean = alone.iter().sum::<f64>() / 3.0;
    assert!((together["reward"].as_f64().unwrap() - mean).abs() < 1e-9, "{together} and {alone:?}");
    assert!(together["uncertainty"].as_f64().unwrap() > 0.0);
    // Without its members the stage is not done.
    let (stdout, _) = lab.done(&[&["plan", "rlaif.toml"][..], &members].concat());
    assert!(stdout.lines().any(|line| line.starts_with("reward") && line.contains("recompute")), "{stdout}");
    std::fs::rename(lab.path("members"), lab.path("runs/tiny/models/reward/members")).unwrap();
    let (_, told) = lab.done(&[&["run", "rlaif.toml"][..], &members].concat());
    assert!(told.contains("reward: done before, nothing changed"), "{told}");
    // Another way to their reward trains the policy anew, and nothing before it.
    let (stdout, _) = lab.done(&["plan", "rlaif.toml", "--set", "reward.members=3"]);
    let of = |stage: &str| stdout.lines().find(|line| line.starts_with(stage)).unwrap().to_string();
    assert!(of("reward").contains("skip") && of("ppo").contains("recompute"), "{stdout}");
    let one_step = ["--set", "reward.batch_size=1000", "--set", "reward.members=3"];
    let (_, told) = lab.ends_with(1, &[&["run", "rlaif.toml"][..], &one_step].concat());
    assert!(told.contains("members 1 and 2 of the reward model would be one model twice"), "{told}");
}

#[test]
fn a_killed_ensemble_comes_to_the_same_members_and_trains_none_twice() {
    let labs = [Lab::new(), Lab::new()];
    let args = ["run", "rlaif.toml", "--set", "run.stages=reward,report", "--set", "reward.data=prefs.jsonl"];
    let args = [&args[..], &["--set", "reward.members=3", "--set", "reward.epochs=12"]].concat();
    labs.iter().for_each(|lab| lab.write("prefs.jsonl", &rows()));
    let [straight, killed] = &labs;
    let started = std::time::Instant::now();
    straight.done(&args);
    let whole = started.elapsed();
    let member = |lab: &Lab, number: usize| {
        let folder = member_folder(lab, number);
        std::fs::read(folder.join("model.safetensors")).ok()
    };
    // Killed in the middle of the second: the first is whole, and is not touched again.
    let mut child = killed.process(&args).stderr(std::process::Stdio::null()).spawn().unwrap();
    let second = member_folder(killed, 2).join("checkpoints");
    let steps = || std::fs::read_dir(&second).is_ok_and(|entries| entries.count() > 0);
    while !steps() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(member(killed, 1).is_some() && member(killed, 2).is_none() && member(killed, 3).is_none());
    let saved = || {
        let path = member_folder(killed, 1).join("model.safetensors");
        std::fs::metadata(path).unwrap().modified().unwrap()
    };
    let before = saved();
    let kills = killed.killed_until_done(&args, whole, 8);
    assert_eq!(saved(), before, "the first member was trained twice, after {kills} kills");
    for number in 1..=3 {
        assert!(member(straight, number) == member(killed, number), "member {number} after {kills} kills");
    }
    for metrics in ["reward", "reward-members/1", "reward-members/2"] {
        let file = format!("runs/tiny/metrics/{metrics}.jsonl");
        assert_eq!(straight.read(&file), killed.read(&file), "{file} after {kills} kills");
    }
}

/// Where member `number` of three is.
fn member_folder(lab: &Lab, number: usize) -> std::path::PathBuf {
    let folder = lab.run_folder().join("models/reward");
    if number == 3 { folder } else { folder.join("members").join(number.to_string()) }
}

/// Rows of TRL's unpaired shape, with a loss that looks at each response by itself.
#[test]
fn single_responses_tune_the_policy_and_mean_nothing_to_losses_of_pairs() {
    let lab = Lab::new();
    let row = |i: usize| {
        let row = json!({
            "prompt": format!("Ask {}", i / 2),
            "completion": if i.is_multiple_of(3) { "No, go away" } else { "Yes, gladly" },
            "label": !i.is_multiple_of(3),
        });
        format!("{row}\n")
    };
    lab.write("kto.jsonl", &(0..24).map(row).collect::<String>());
    let only = ["--set", "run.stages=dpo,report", "--set", "dpo.data=kto.jsonl"];
    let run = |more: &[&'static str]| [&["run", "rlaif.toml"], &only[..], more].concat();
    let (_, told) = lab.ends_with(1, &run(&[]));
    assert!(
        told.contains("kto.jsonl:1 is a single response, and `dpo.loss` = \"sigmoid\" compares"),
        "{told}"
    );
    assert!(told.contains("hint: Set `dpo.loss` to `kto` or `apo_zero_unpaired`"), "{told}");
    assert!(manifest_is_empty(&lab), "nothing was computed");

    let (_, told) = lab.done(&run(&["--set", "dpo.loss=kto", "--set", "dpo.undesirable_weight=1.5"]));
    let dpo = manifest(&lab)["stages"]["dpo"].clone();
    assert_eq!(dpo["numbers"]["train_responses"], 20, "two of twelve prompts are held out: {dpo}");
    assert!(told.contains("of 4 held-out ones are on their side of the reference point"), "{told}");
    assert!(lab.read("runs/tiny/metrics/dpo.jsonl").contains("\"kl\""));
    // Pairs beside them are two responses each.
    lab.write("prefs.jsonl", &rows());
    let both = ["--set", "dpo.data=kto.jsonl,prefs.jsonl", "--set", "dpo.loss=apo_zero_unpaired"];
    lab.done(&run(&[&both[..], &["--set", "dpo.holdout_fraction=0"]].concat()));
    assert_eq!(manifest(&lab)["stages"]["dpo"]["numbers"]["train_responses"], 24 + 2 * 16);

    let pair = "{\"prompt\": \"a\", \"chosen\": \"x\", \"rejected\": \"y\"}\n";
    lab.write("mixed.jsonl", &format!("{}{pair}{{\"prompt\": \"a\", \"completion\": \"x\"}}\n", row(1)));
    let (_, told) = lab.ends_with(1, &run(&["--set", "dpo.data=mixed.jsonl", "--set", "dpo.loss=kto"]));
    assert!(told.contains("2 rows of `dpo.data` cannot be trained on"), "{told}");
    assert!(told.contains("mixed.jsonl:2: the row is a pair, and line 1 a single response"), "{told}");
    assert!(told.contains("mixed.jsonl:3: `label` is missing"), "{told}");
    let (_, told) = lab.ends_with(1, &["run", "rlaif.toml", "--set", "reward.data=kto.jsonl"]);
    assert!(told.contains("the row is a single response, and this learns from pairs"), "{told}");
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
