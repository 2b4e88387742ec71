//! Rounds on the tiny model: each starts from what the last one tuned, holds out the same prompts, and survives kill -9.

use crate::common::Lab;
use serde_json::Value;
use std::collections::BTreeSet;

/// A lab whose rounds take a second: DPO only, learning fast enough for its policies to differ.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.edit("seed = 7", "seed = 7\nstages = ['generate', 'label', 'dpo', 'evaluate', 'report']");
    lab.edit("[dpo.optim]\nlearning_rate = 1e-4", "[dpo.optim]\nlearning_rate = 1e-3");
    lab
}

fn json(lab: &Lab, file: &str) -> Value {
    serde_json::from_str(&lab.read(file)).unwrap()
}

fn weights(lab: &Lab, run: &str) -> Vec<u8> {
    std::fs::read(lab.path(&format!("runs/{run}/models/dpo/model.safetensors"))).unwrap()
}

fn times(text: &str, piece: &str) -> usize {
    text.matches(piece).count()
}

#[test]
fn two_rounds_run_through_and_a_second_command_skips_everything() {
    let lab = lab();
    let (stdout, stderr) = lab.done(&["iterate", "rlaif.toml", "--rounds", "2", "--json"]);
    let drift: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert_eq!(drift, json(&lab, "runs/tiny/drift.json"));
    assert_eq!(drift["tuned"], "dpo");
    assert!(stderr.contains("round 2 of 2: `runs/tiny-round-2`"), "{stderr}");
    assert_eq!(
        times(&stderr, "drift of `dpo` on 4 held-out prompts"),
        2,
        "a table after each round:\n{stderr}"
    );

    let rows = drift["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["round"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    for row in rows {
        for key in ["length", "ended", "repeated_4", "kl"] {
            assert!(row[key]["value"].as_f64().unwrap().is_finite(), "{key} of {row}");
        }
        let (one, two) = (row["distinct_1"].as_f64().unwrap(), row["distinct_2"].as_f64().unwrap());
        assert!(0.0 < one && one < two && two <= 1.0, "{row}");
    }
    assert_eq!((&rows[0]["win_rate"], &rows[0]["labels"]), (&Value::Null, &Value::Null));
    for row in &rows[1..] {
        assert_eq!(row["labels"]["pairs"], 36);
        assert!(row["labels"]["decisiveness"]["value"].as_f64().unwrap() > 0.0);
        assert!((0.0..=1.0).contains(&row["win_rate"]["value"].as_f64().unwrap()));
        assert_eq!(row["known_micro_usd"], 0);
    }
    assert_eq!(rows[1]["kl"], rows[1]["kl_in_round"], "the first round starts from the first baseline");
    assert_ne!(rows[2]["kl"], rows[2]["kl_in_round"], "the second does not");

    // The second round starts from what the first tuned, draws anew, and is judged by the same model.
    let (first, second) =
        (json(&lab, "runs/tiny/manifest.json"), json(&lab, "runs/tiny-round-2/manifest.json"));
    assert_eq!(second["policy"], "runs/tiny/models/dpo");
    assert_ne!(second["policy_fingerprint"], first["policy_fingerprint"]);
    assert_ne!(second["seed"], first["seed"]);
    let judge =
        |manifest: &Value| manifest["stages"]["label"]["recipe"]["inputs"]["model of judge `tone`"].clone();
    assert_eq!(judge(&second), judge(&first));
    assert_eq!(judge(&second), first["policy_fingerprint"]);
    assert_ne!(weights(&lab, "tiny"), weights(&lab, "tiny-round-2"));

    let before = (lab.read("runs/tiny/drift.json"), weights(&lab, "tiny-round-2"));
    let (_, stderr) = lab.done(&["iterate", "rlaif.toml", "--rounds", "2"]);
    for stage in ["generate", "label", "dpo", "evaluate"] {
        let skipped = format!("{stage}: done before, nothing changed");
        assert_eq!(times(&stderr, &skipped), 2, "{stage} again:\n{stderr}");
    }
    assert!((lab.read("runs/tiny/drift.json"), weights(&lab, "tiny-round-2")) == before);

    // A round more only adds one; a changed setting recomputes its stage, and the rounds behind it.
    let (_, stderr) = lab.done(&["iterate", "rlaif.toml", "--rounds", "3"]);
    assert_eq!(times(&stderr, "evaluate: done before, nothing changed"), 2, "{stderr}");
    let longer: Value = json(&lab, "runs/tiny/drift.json");
    assert_eq!(longer["rows"].as_array().unwrap()[..3], rows[..]);
    let (_, stderr) = lab.done(&["iterate", "rlaif.toml", "--rounds", "2", "--set", "dpo.epochs=2"]);
    assert_eq!(times(&stderr, "dpo: computed again, since"), 2, "{stderr}");
    assert!(stderr.contains("generate: computed again, since policy changed"), "{stderr}");
    assert_eq!(times(&stderr, "generate: done before, nothing changed"), 1, "{stderr}");
    assert!(weights(&lab, "tiny-round-2") != before.1);
}

/// Ids of the prompts that a run evaluated on, and of those that it sampled to train on.
fn prompts_of(lab: &Lab, run: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let evaluation = json(lab, &format!("runs/{run}/evaluation.json"));
    let held_out = evaluation["samples"].as_array().unwrap().iter();
    let manifest = json(lab, &format!("runs/{run}/manifest.json"));
    let (seed, name) = (format!("run.seed={}", manifest["seed"]), format!("run.name={run}"));
    let args = ["export", "rlaif.toml", "--set", &seed, "--set", &name, "--what", "preferences"];
    let trained = lab.done(&args).0;
    let id = |row: &Value| row["prompt_id"].as_str().unwrap().to_string();
    (
        held_out.map(id).collect(),
        trained.lines().map(|line| id(&serde_json::from_str(line).unwrap())).collect(),
    )
}

#[test]
fn every_round_holds_out_the_same_prompts_though_its_seed_is_its_own() {
    let lab = lab();
    lab.edit("eval = \"eval.jsonl\"\n", "eval_fraction = 0.34\n");
    lab.done(&["iterate", "rlaif.toml", "--rounds", "3"]);
    let (held_out, _) = prompts_of(&lab, "tiny");
    assert_eq!(held_out.len(), 4);
    for run in ["tiny", "tiny-round-2", "tiny-round-3"] {
        let (evaluated, trained) = prompts_of(&lab, run);
        assert_eq!(evaluated, held_out, "{run}");
        assert!(!trained.is_empty() && trained.is_disjoint(&held_out), "{run} trains on {trained:?}");
    }

    // Without care they would not: the second round's seed alone draws another split.
    let seed = format!("run.seed={}", json(&lab, "runs/tiny-round-2/manifest.json")["seed"]);
    lab.done(&["run", "rlaif.toml", "--set", "run.name=careless", "--set", &seed]);
    let (evaluated, trained) = prompts_of(&lab, "careless");
    assert_ne!(evaluated, held_out);
    assert!(!trained.is_disjoint(&held_out), "a leak");
}

#[test]
fn an_origin_that_is_the_baseline_gives_the_baselines_numbers() {
    let lab = lab();
    let origin = format!("policy.origin={}", crate::common::tiny_llama().display());
    lab.done(&["run", "rlaif.toml", "--set", &origin]);
    let dpo = &json(&lab, "runs/tiny/evaluation.json")["policies"][1];
    assert_eq!(dpo["win_rate_origin"], dpo["win_rate"]);
    assert_eq!(dpo["kl_origin"], dpo["kl"]);
    assert!(dpo["kl"]["value"].as_f64().unwrap().abs() > 1e-6, "{dpo}");
}

#[test]
fn a_judge_that_is_the_policy_stays_the_first_rounds_model() {
    let lab = lab();
    lab.done(&["iterate", "rlaif.toml", "--rounds", "2"]);
    let labels = |run: &str| lab.done(&["export", "rlaif.toml", "--set", &format!("run.name={run}")]).0;
    let seed = format!("run.seed={}", json(&lab, "runs/tiny-round-2/manifest.json")["seed"]);
    let label_anew = |run: &str, judge: &str| {
        let (name, judge) = (format!("run.name={run}"), format!("label.judges[0].model={judge}"));
        let sets = ["policy.model=runs/tiny/models/dpo", &seed, &name, &judge];
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        lab.done(&[["run", "rlaif.toml", "--until", "label"].as_slice(), &sets].concat());
        labels(run)
    };
    let second = labels("tiny-round-2");
    assert!(!second.is_empty());
    assert!(label_anew("by-origin", &crate::common::tiny_llama().to_string_lossy()) == second);
    assert!(label_anew("by-policy", "policy") != second, "the tuned policy judges otherwise");
}

#[test]
fn later_rounds_start_from_the_tuned_policy_and_not_from_demonstrations_again() {
    let lab = lab();
    let rows: Vec<String> = (1..=8)
        .map(|i| format!("{{\"id\": \"row-{i}\", \"prompt\": \"Row {i}\", \"completion\": \"Yes {i}\"}}\n"))
        .collect();
    lab.write("rows.jsonl", &rows.concat());
    let sets = ["--set", "sft.data=rows.jsonl", "--set", "run.stages=sft,generate,label,ppo,dpo,evaluate"];
    let sets = [sets.as_slice(), &["--set", "ppo.rewards=[{kind = 'length', max_tokens = 8}]"]].concat();
    let (_, stderr) =
        lab.done(&[["iterate", "rlaif.toml", "--rounds", "2", "--tuned", "dpo"].as_slice(), &sets].concat());
    let stages = |run: &str| -> Vec<String> {
        let manifest = json(&lab, &format!("runs/{run}/manifest.json"));
        manifest["stages"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(stages("tiny"), ["dpo", "evaluate", "generate", "label", "ppo", "sft"], "{stderr}");
    assert_eq!(stages("tiny-round-2"), ["dpo", "evaluate", "generate", "label"], "{stderr}");
    let config = lab.read("runs/tiny-round-2/rlaif.toml");
    assert!(config.contains("origin = \"runs/tiny/models/sft\""), "{config}");
}

/// Kill -9 in both rounds, between them and before the report; the end is the same to the last bit.
#[test]
fn kill_and_resume_gives_the_same_drift_and_bit_equal_weights() {
    let args = ["iterate", "rlaif.toml", "--rounds", "2", "--set", "dpo.epochs=4"];
    let straight = lab();
    straight.done(&args);

    let killed = lab();
    let mut kills = 0;
    // Each appears for the first time where the process shall die.
    for file in [
        "tiny/rlaif.db",
        "tiny/models/dpo/checkpoints",
        "tiny/evaluation.json",
        "tiny/drift.json",
        "tiny-round-2/rlaif.db",
        "tiny-round-2/models/dpo/checkpoints",
        "tiny-round-2/evaluation.json",
    ] {
        let file = killed.path("runs").join(file);
        let mut child = killed
            .process(&args)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let ended = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if file.exists() => break None,
                None => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        };
        match ended {
            Some(status) => {
                assert!(status.success(), "the resumed rounds failed after {kills} kills: {status}")
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
            }
        }
    }
    assert!(kills >= 5, "only {kills} kills");
    killed.done(&args);
    for run in ["tiny", "tiny-round-2"] {
        assert!(weights(&killed, run) == weights(&straight, run), "{run} differs after {kills} kills");
    }
    assert_eq!(killed.read("runs/tiny/drift.json"), straight.read("runs/tiny/drift.json"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_says_how_the_rounds_go_on() {
    let lab = lab();
    let set = ["--set", "dpo.epochs=5000"];
    let child = lab
        .process(&[["iterate", "rlaif.toml", "--rounds", "2"].as_slice(), &set].concat())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = lab.path("runs/tiny/metrics/dpo.jsonl");
    let started = std::time::Instant::now();
    while !std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 1) {
        assert!(started.elapsed().as_secs() < 60, "DPO did not start");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    let go_on = "go on with `rlaif iterate rlaif.toml --set dpo.epochs=5000 --rounds 2`";
    assert!(stderr.contains(go_on), "{stderr}");
}

#[test]
fn rounds_that_cannot_be_are_refused_before_anything_runs() {
    let lab = lab();
    let (_, stderr) = lab.ends_with(1, &["iterate", "rlaif.toml", "--rounds", "0"]);
    assert!(stderr.contains("--rounds"), "{stderr}");
    let (_, stderr) = lab.ends_with(1, &["iterate", "rlaif.toml", "--rounds", "2", "--tuned", "ppo"]);
    assert!(stderr.contains("rounds need the stage `ppo`, which this run does not have"), "{stderr}");
    let sets = ["--set", "run.stages=generate,label,dpo"];
    let (_, stderr) =
        lab.ends_with(1, &[["iterate", "rlaif.toml", "--rounds", "2"].as_slice(), &sets].concat());
    assert!(stderr.contains("rounds need the stage `evaluate`"), "{stderr}");
    assert!(!lab.path("runs").exists());
}
