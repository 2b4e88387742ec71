//! The stage `revise`: answers, critiques and revisions are kept prompt by prompt, and what was revised is what `sft` learns.

use crate::common::Lab;
use serde_json::Value;
use std::collections::BTreeSet;

/// A lab whose model has been taught to end its answers, which the golden one never does, and to answer in several ways; it revises
/// under two principles.
fn lab() -> Lab {
    let teacher = Lab::new();
    let row = |i: usize| {
        let said = ["ab", "b", "cde", "dd", "ea"][i % 5];
        format!("{{\"prompt\": \"Say {}\", \"completion\": \" {said}\"}}\n", 1 + i % 12)
    };
    teacher.write("sft.jsonl", &(0..60).map(row).collect::<String>());
    teacher.edit(
        "[generate]",
        "[sft]\ndata = [\"sft.jsonl\"]\nepochs = 30\n[sft.optim]\nlearning_rate = 3e-3\n\n[generate]",
    );
    teacher.done(&["sft", "rlaif.toml"]);

    let lab = Lab::new();
    std::fs::create_dir(lab.path("taught")).unwrap();
    for file in std::fs::read_dir(teacher.run_folder().join("models/sft")).unwrap().flatten() {
        if file.path().is_file() {
            std::fs::copy(file.path(), lab.path("taught").join(file.file_name())).unwrap();
        }
    }
    let model = format!("model = \"{}\"", crate::common::tiny_llama().display());
    lab.edit(&model, "model = \"taught\"");
    let revise = r#"[revise]
rounds = 2
temperature = 1.0
batch_size = 5
[[revise.principles]]
name = "kind"
critique = "Is it cold?"
revision = "Be warm."
[[revise.principles]]
name = "clear"
critique = "Is it vague?"
revision = "Be clear."

[sft]
epochs = 2
batch_size = 4
save_steps = 1
[sft.optim]
learning_rate = 1e-3

[generate]"#;
    lab.edit("[generate]", revise);
    lab
}

fn lines(lab: &Lab, file: &str) -> Vec<Value> {
    let text = lab.read(&format!("runs/tiny/{file}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn revised_answers_are_kept_with_all_that_was_asked_and_learnt() {
    let lab = lab();
    let (stdout, _) = lab.done(&["plan", "rlaif.toml"]);
    let mut plan = stdout.lines();
    assert_eq!(
        plan.next(),
        Some("revise    compute   answers to 12 prompts, 2 critiques and revisions of each")
    );
    assert_eq!(plan.next(), Some("sft       compute   2 epochs over the revised answers"));
    let (_, stderr) = lab.done(&["run", "rlaif.toml", "--until", "generate"]);

    let revisions = lines(&lab, "revisions.jsonl");
    let ids: Vec<&str> = revisions.iter().map(|row| row["prompt_id"].as_str().unwrap()).collect();
    assert_eq!(ids, (1..=12).map(|i| format!("train-{i:02}")).collect::<Vec<_>>());
    let rounds = || revisions.iter().flat_map(|row| row["rounds"].as_array().unwrap());
    assert_eq!(rounds().count(), 24);
    let asked: BTreeSet<(&str, &str, &str)> = rounds()
        .map(|round| {
            let of = |key: &str| round[key].as_str().unwrap();
            (of("principle"), of("critique_request"), of("revision_request"))
        })
        .collect();
    let wanted = [("clear", "Is it vague?", "Be clear."), ("kind", "Is it cold?", "Be warm.")];
    assert_eq!(asked, BTreeSet::from(wanted), "both principles are drawn, each with its own requests");
    assert!(rounds().any(|round| !round["critique"].as_str().unwrap().is_empty()));

    // What counts is the last revision that was taken; it beats the original if that ended.
    let mut revised = 0;
    let mut pairs = Vec::new();
    for row in &revisions {
        let taken = |round: &&Value| round["outcome"] == "revised";
        let Some(last) = row["rounds"].as_array().unwrap().iter().rfind(taken) else { continue };
        if last["revision"] == row["original"] {
            continue;
        }
        revised += 1;
        if row["original_ended"] == true {
            pairs.push((row["prompt"].clone(), last["revision"].clone(), row["original"].clone()));
        }
    }
    assert!(revised >= 3 && pairs.len() >= 3, "too few are revised for this to say anything: {stderr}");
    let kept: Vec<_> = lines(&lab, "revised-pairs.jsonl")
        .into_iter()
        .map(|pair| (pair["prompt"].clone(), pair["chosen"].clone(), pair["rejected"].clone()))
        .collect();
    assert_eq!(kept, pairs);
    let echoes = |round: &Value| round["outcome"] == "revised" && round["revision"] == round["critique"];
    assert!(!rounds().any(echoes), "a critique was taken for an answer");
    assert!(
        stderr.contains(&format!("revise: {revised} of 12 answers are new and {} make a pair", pairs.len())),
        "{stderr}"
    );
    // One prompt is held out.
    assert!(stderr.contains(&format!(" steps on {} rows; loss on 1 held-out rows", revised - 1)), "{stderr}");

    let (stdout, _) = lab.done(&["plan", "rlaif.toml", "--set", "sft.optim.learning_rate=1e-4"]);
    assert!(stdout.starts_with("revise    skip") && stdout.contains("\nsft       recompute"), "{stdout}");
    let (stdout, _) = lab.done(&["plan", "rlaif.toml", "--set", "revise.principles[0].critique=Why?"]);
    let all_again = stdout.lines().take(3).all(|line| line.split_whitespace().nth(1) == Some("recompute"));
    assert!(all_again && stdout.contains("`revise.principles.1.critique`"), "{stdout}");
}

/// Revised over original answers are pairs of the reward model and of DPO, in the order of the stages.
#[test]
fn revised_pairs_are_learnt_where_the_config_says_so() {
    let lab = lab();
    let only = ["--set", "run.stages=revise,reward,dpo,report", "--set", "reward.holdout_fraction=0"];
    let learns = ["--set", "reward.revisions=true", "--set", "dpo.revisions=true"];
    let args =
        |command: &'static str, more: &[&'static str]| [&[command, "rlaif.toml"], &only[..], more].concat();
    let (_, stderr) = lab.ends_with(1, &args("reward", &learns));
    assert!(stderr.contains("stage `reward` needs `revise`, which has not run"), "{stderr}");
    let (_, stderr) = lab.done(&args("run", &learns));
    let pairs = lines(&lab, "revised-pairs.jsonl").len();
    assert!(pairs >= 3, "{stderr}");
    let manifest: Value = serde_json::from_str(&lab.read("runs/tiny/manifest.json")).unwrap();
    assert_eq!(manifest["stages"]["reward"]["numbers"]["train_pairs"], pairs, "{stderr}");
    assert!(stderr.contains(&format!("dpo: {pairs} pairs are revised over original answers")), "{stderr}");

    let (stdout, _) = lab.done(&[&args("plan", &learns)[..], &["--set", "revise.temperature=0.9"]].concat());
    let again =
        |stage: &str| stdout.lines().any(|line| line.starts_with(stage) && line.contains("recompute"));
    assert!(again("revise") && again("reward") && again("dpo"), "{stdout}");

    // Nobody but the policy says that they are better: not enough for prompts that are for experts.
    let of_prompts: BTreeSet<String> =
        lines(&lab, "revised-pairs.jsonl").iter().map(|row| row["prompt_id"].to_string()).collect();
    let rows: String = (1..=12)
        .map(|i| {
            let id = format!("train-{i:02}");
            let expert = of_prompts.first() == Some(&format!("\"{id}\""));
            let tags = if expert { "[\"law\"]" } else { "[]" };
            format!("{{\"id\": \"{id}\", \"prompt\": \"Say {i}\", \"tags\": {tags}}}\n")
        })
        .collect();
    lab.write("prompts.jsonl", &rows);
    let (_, stderr) = lab.done(&[&args("run", &learns)[..], &["--set", "route.expert_tags=law"]].concat());
    assert!(
        stderr.contains(&format!("dpo: {} pairs are revised over original answers", pairs - 1)),
        "{stderr}"
    );
    let (_, stderr) = lab.ends_with(1, &args("run", &["--set", "dpo.revisions=true"]));
    assert!(stderr.contains("stage `reward` needs `label`"), "{stderr}");
}

#[test]
fn a_killed_run_comes_to_the_same_revisions_and_weights() {
    let more = ["--set", "revise.rounds=6", "--set", "revise.batch_size=2"];
    let straight = lab();
    let args = [&["run", "rlaif.toml", "--until", "sft"], &more[..]].concat();
    let started = std::time::Instant::now();
    straight.done(&args);
    let whole = started.elapsed();

    let killed = lab();
    let kills = killed.killed_until_done(&args, whole, 10);
    assert!(kills >= 2, "only {kills} kills");
    for file in ["revisions.jsonl", "revised-pairs.jsonl", "metrics/sft.jsonl"] {
        let file = format!("runs/tiny/{file}");
        assert_eq!(killed.read(&file), straight.read(&file), "{file} after {kills} kills");
    }
    assert!(killed.weights("sft") == straight.weights("sft"), "weights differ after {kills} kills");
}

#[test]
fn what_cannot_be_revised_keeps_its_reason_and_nothing_to_learn_is_told() {
    let lab = lab();
    let long = "x".repeat(120); // bytes are tokens here, and the context has 128
    lab.edit("critique = \"Is it cold?\"", &format!("critique = \"{long}\""));
    lab.edit("critique = \"Is it vague?\"", &format!("critique = \"{long}\""));
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml"]);
    assert!(
        stderr.contains("revise: 0 of 12 answers are new and 0 make a pair; of all rounds 24 without room"),
        "{stderr}"
    );
    assert!(stderr.contains("no answer was revised") && stderr.contains("revisions.jsonl"), "{stderr}");

    // The golden model ends nothing: answers that break off are not taken.
    let plain = Lab::new();
    let set = [
        "revise",
        "rlaif.toml",
        "--set",
        "revise.rounds=1",
        "--set",
        "revise.principles=[{ name = \"a\", critique = \"b\", revision = \"c\" }]",
    ];
    let (_, stderr) = plain.done(&set);
    assert!(stderr.contains("cut off") && stderr.contains("revise: 0 of 12"), "{stderr}");
    let (_, stderr) = Lab::new().ends_with(1, &["revise", "rlaif.toml"]);
    assert!(stderr.contains("`revise.rounds` is 0"), "{stderr}");
}
