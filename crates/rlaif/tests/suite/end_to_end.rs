//! The whole pipeline on the tiny model: it runs, it skips what is done, it survives kill -9.

use crate::common::Lab;
use serde_json::Value;
use std::time::Duration;

#[test]
fn a_run_goes_from_prompts_to_a_report_and_a_second_one_skips_everything() {
    let lab = Lab::new();
    let (stdout, stderr) = lab.done(&["run", "rlaif.toml", "--json"]);
    let outcome: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert!(outcome["cost_micro_usd"].as_i64() == Some(0), "{outcome}");
    for stage in ["generate", "label", "reward", "ppo", "dpo", "evaluate", "report"] {
        assert!(
            stderr.lines().any(|line| line.starts_with(&format!("{stage}: "))),
            "{stage} is silent:\n{stderr}"
        );
    }
    let folder = lab.run_folder();
    for file in [
        "rlaif.toml",
        "manifest.json",
        "rlaif.db",
        "report.html",
        "evaluation.json",
        "metrics/reward.jsonl",
        "metrics/ppo.jsonl",
        "metrics/dpo.jsonl",
        "models/reward/model.safetensors",
        "models/ppo/model.safetensors",
        "models/dpo/config.json",
        "models/dpo/tokenizer.json",
    ] {
        assert!(folder.join(file).is_file(), "{file} is missing");
    }
    let evaluation: Value = serde_json::from_str(&lab.read("runs/tiny/evaluation.json")).unwrap();
    let policies: Vec<&str> = evaluation["policies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["policy"].as_str().unwrap())
        .collect();
    assert_eq!(policies, ["baseline", "ppo", "dpo"]);
    let dpo = &evaluation["policies"][2];
    let rate = dpo["win_rate"]["value"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&rate));
    assert!(dpo["kl"]["value"].as_f64().unwrap().is_finite());
    assert_eq!(evaluation["samples"].as_array().unwrap().len(), 4);

    let weights = lab.weights("ppo");
    let (_, stderr) = lab.done(&["run", "rlaif.toml"]);
    for stage in ["generate", "label", "reward", "ppo", "dpo", "evaluate"] {
        assert!(
            stderr.contains(&format!("{stage}: done before, nothing changed")),
            "{stage} again:\n{stderr}"
        );
    }
    assert_eq!(lab.weights("ppo"), weights);

    // The models load again, here as everywhere.
    let model = folder.join("models/dpo");
    let output = lab
        .rlaif(&["logprobs", model.to_str().unwrap()])
        .write_stdin("{\"ids\": [5, 6, 7]}\n")
        .output()
        .unwrap();
    let row: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(row["logprobs"].as_array().unwrap().len(), 2);
    let model = folder.join("models/reward");
    let question = "{\"prompt\": \"Say 1\", \"response\": \"One\"}\n";
    let output = lab.rlaif(&["score", model.to_str().unwrap()]).write_stdin(question).output().unwrap();
    let row: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(row["reward"].as_f64().unwrap().is_finite(), "{row}");
}

#[test]
fn a_changed_setting_recomputes_its_stage_and_what_follows_and_says_why() {
    let lab = Lab::new();
    lab.done(&["run", "rlaif.toml", "--until", "reward"]);
    let before = lab.weights("reward");
    let (stdout, _) = lab.done(&["plan", "rlaif.toml", "--set", "reward.epochs=2"]);
    let actions: Vec<&str> = stdout.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(
        actions,
        ["skip", "skip", "recompute", "compute", "compute", "compute", "compute"],
        "{stdout}"
    );

    let (_, stderr) = lab.done(&["reward", "rlaif.toml", "--set", "reward.epochs=2"]);
    assert!(stderr.contains("reward: computed again, since `reward.epochs` was 1, is 2"), "{stderr}");
    assert_ne!(lab.weights("reward"), before);

    let (_, stderr) = lab.done(&["run", "rlaif.toml", "--until", "reward", "--set", "reward.save_steps=1"]);
    assert!(stderr.contains("label: done before"), "{stderr}");
    assert!(stderr.contains("since `reward.epochs` was 2, is 1"), "{stderr}");
    assert_eq!(lab.weights("reward"), before, "the same recipe gives the same bytes");
}

/// Kill -9 at moments spread over the run; whatever was in flight, the end is the same to the last bit.
#[test]
fn kill_and_resume_gives_the_same_preferences_and_bit_equal_weights() {
    let straight = Lab::new();
    let started = std::time::Instant::now();
    straight.done(&["run", "rlaif.toml", "--until", "dpo"]);
    let whole = started.elapsed();
    let (preferences, _) = straight.done(&["export", "rlaif.toml"]);
    assert!(!preferences.is_empty());

    let killed = Lab::new();
    // Early kills hit start and generation, later ones training.
    let kills = killed.killed_until_done(&["run", "rlaif.toml", "--until", "dpo"], whole, 20);
    assert!(kills >= 3, "only {kills} kills");
    assert_eq!(killed.done(&["export", "rlaif.toml"]).0, preferences);
    for model in ["reward", "ppo", "dpo"] {
        assert!(killed.weights(model) == straight.weights(model), "{model} differs after {kills} kills");
    }
    for stage in ["reward", "ppo", "dpo"] {
        let file = format!("runs/tiny/metrics/{stage}.jsonl");
        assert_eq!(
            killed.read(&file),
            straight.read(&file),
            "{stage}: a row is missing, stands twice or differs"
        );
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_finishes_the_unit_and_says_how_to_go_on() {
    let lab = Lab::new();
    lab.edit("steps = 3", "steps = 2000");
    let child = lab
        .process(&["run", "rlaif.toml", "--until", "ppo"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = lab.run_folder().join("metrics/ppo.jsonl");
    let patience = std::time::Instant::now();
    while !std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 1) {
        assert!(patience.elapsed() < Duration::from_secs(60), "PPO did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("go on with `rlaif run rlaif.toml`"), "{stderr}");
}

/// Token ids of the responses by id, and the summary of the stage.
fn responses(lab: &Lab, sets: &[&str]) -> std::collections::BTreeMap<String, Value> {
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    lab.done(&[["generate", "rlaif.toml"].as_slice(), &sets].concat());
    let (lines, _) = lab.done(&[["export", "rlaif.toml", "--what", "responses"].as_slice(), &sets].concat());
    lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|row| (row["id"].as_str().unwrap().to_string(), row["token_ids"].clone()))
        .collect()
}

#[test]
fn responses_are_sampled_under_the_system_prompts_in_turn() {
    let lab = Lab::new();
    let loud = responses(&lab, &["prompts.system=Be loud"]);
    let quiet = responses(&lab, &["prompts.system=Be quiet"]);
    assert_ne!(loud, quiet, "the tiny model must react to its system prompt for this to say anything");
    let turns = responses(
        &lab,
        &["prompts.system=Be quiet", "generate.systems=[\"Be loud\", \"Be quiet\", \"Be slow\"]"],
    );
    assert_eq!(turns.len(), loud.len());
    for prompt in 1..=12 {
        let id = |index: usize| format!("baseline/train-{prompt:02}/{index}");
        // Responses 0 and 3 are the first and second of "Be loud".
        assert_eq!(turns[&id(0)], loud[&id(0)], "prompt {prompt}");
        assert_eq!(turns[&id(3)], loud[&id(1)], "prompt {prompt}");
    }

    // A prompt with a system prompt of its own keeps it.
    let own = "{\"id\": \"train-01\", \"prompt\": [{\"role\": \"system\", \"content\": \"Be loud\"}, {\"role\": \"user\", \"content\": \"Say 1\"}]}\n";
    let rest: String = lab.read("prompts.jsonl").lines().skip(1).map(|line| format!("{line}\n")).collect();
    lab.write("prompts.jsonl", &format!("{own}{rest}"));
    let kept = responses(&lab, &["generate.systems=[\"Be quiet\"]"]);
    assert_eq!(kept["baseline/train-01/0"], loud["baseline/train-01/0"]);
    assert_eq!(kept["baseline/train-02/0"], quiet["baseline/train-02/0"]);
}
