//! The stage `sft`: what it makes is the policy of every later stage, it survives kill -9, and it refuses bad rows before it trains.

use crate::common::Lab;
use serde_json::Value;

/// A lab whose config has demonstrations, `rows` of them.
fn lab_with(rows: &str) -> Lab {
    let lab = Lab::new();
    lab.write("sft.jsonl", rows);
    let sft = "[sft]\ndata = [\"sft.jsonl\"]\nepochs = 2\nbatch_size = 4\nmicro_batch_size = 2\nsave_steps = 1\n[sft.optim]\nlearning_rate = 1e-3\n\n[generate]";
    lab.edit("[generate]", sft);
    lab
}

fn rows() -> String {
    let row = |i: usize| {
        format!(
            "{{\"prompt\": \"Ask {i}\", \"completion\": \" Fine {i}, thanks\"}}\n{{\"text\": \"It is {i}\"}}\n"
        )
    };
    (1..=6).map(row).collect()
}

/// What `sft` made is the policy: a run that has its model as `policy.model` comes to the same bits.
#[test]
fn every_later_stage_starts_from_what_sft_made() {
    let lab = lab_with(&rows());
    let (stdout, _) = lab.done(&["plan", "rlaif.toml"]);
    assert!(stdout.starts_with("sft       compute   2 epochs over the rows of `sft.data`"), "{stdout}");
    let (_, stderr) = lab.done(&["run", "rlaif.toml"]);
    assert!(
        stderr.lines().any(|line| line.starts_with("sft: 6 steps on 11 rows; loss on 1 held-out rows")),
        "{stderr}"
    );
    let metrics = lab.read("runs/tiny/metrics/sft.jsonl");
    let steps: Vec<u64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [0, 1, 2, 3, 4, 5, 6]);
    assert!(lab.read("runs/tiny/report.html").contains("Loss on held-out rows"));
    lab.done(&["report", "rlaif.toml", "--curves", "curves"]);
    let curve = lab.read("curves/sft-loss-nats-a-token.svg");
    assert!(
        curve.starts_with("<svg xmlns=")
            && curve.contains(">eval_loss<")
            && curve.trim_end().ends_with("</svg>")
    );
    assert_eq!(curve.matches("<svg").count(), curve.matches("</svg>").count());
    assert!(lab.path("curves/dpo-loss.svg").is_file() && lab.path("curves/ppo-entropy.svg").is_file());

    let other = Lab::new();
    let model = lab.run_folder().join("models/sft");
    let set = format!("policy.model={}", model.display());
    other.done(&["run", "rlaif.toml", "--set", &set]);
    let export = |lab: &Lab, what: &str| lab.done(&["export", "rlaif.toml", "--what", what]).0;
    for what in ["responses", "preferences"] {
        assert_eq!(export(&lab, what), export(&other, what), "{what}");
    }
    for model in ["reward", "ppo", "dpo"] {
        assert!(lab.weights(model) == other.weights(model), "{model}");
    }
    let plain = Lab::new();
    plain.done(&["generate", "rlaif.toml"]);
    assert_ne!(export(&plain, "responses"), export(&lab, "responses"), "the rows taught nothing");
}

#[test]
fn other_rows_train_again_and_what_follows_too_and_a_moved_file_does_not() {
    let lab = lab_with(&rows());
    lab.done(&["run", "rlaif.toml", "--until", "generate"]);
    let before = lab.weights("sft");
    let actions = |args: &[&str]| -> Vec<String> {
        let (stdout, _) = lab.done(&[&["plan", "rlaif.toml"], args].concat());
        stdout.lines().take(2).map(|line| line.split_whitespace().nth(1).unwrap().to_string()).collect()
    };
    lab.write("moved.jsonl", &lab.read("sft.jsonl"));
    assert_eq!(actions(&["--set", "sft.data=[\"moved.jsonl\"]"]), ["skip", "skip"]);
    assert_eq!(
        actions(&["--set", "sft.data=[]"])[0],
        "recompute",
        "without the stage `generate` comes first"
    );
    lab.write("sft.jsonl", &rows().replace("Fine 3", "Bad 3"));
    assert_eq!(actions(&[]), ["recompute", "recompute"]);
    let (_, stderr) = lab.ends_with(1, &["generate", "rlaif.toml"]);
    assert!(stderr.contains("stage `generate` needs `sft`, which was run with other settings"), "{stderr}");
    let (_, stderr) = lab.done(&["sft", "rlaif.toml"]);
    assert!(stderr.contains("sft: computed again, since rows changed"), "{stderr}");
    assert_ne!(lab.weights("sft"), before);
    lab.write("sft.jsonl", &rows());
    lab.done(&["sft", "rlaif.toml"]);
    assert!(lab.weights("sft") == before, "the same rows give the same bytes");
}

#[test]
fn a_killed_run_comes_to_the_same_bytes() {
    let more = ["--set", "sft.epochs=12"];
    let straight = lab_with(&rows());
    let started = std::time::Instant::now();
    straight.done(&[&["sft", "rlaif.toml"], &more[..]].concat());
    let whole = started.elapsed();

    let killed = lab_with(&rows());
    let kills = killed.killed_until_done(&[&["sft", "rlaif.toml"], &more[..]].concat(), whole, 10);
    assert!(kills >= 2, "only {kills} kills");
    assert!(killed.weights("sft") == straight.weights("sft"), "weights differ after {kills} kills");
    let metrics = "runs/tiny/metrics/sft.jsonl";
    assert_eq!(killed.read(metrics), straight.read(metrics), "a row is missing, stands twice or differs");
}

#[test]
fn bad_rows_are_named_by_file_and_line_before_anything_is_trained() {
    let long = format!("{{\"prompt\": \"Ask\", \"completion\": \"{}\"}}\n", "x".repeat(300));
    for (bad, says) in [
        ("{\"prompt\": \"Ask\", \"completion\": \"\"}\n", "sft.jsonl:13: `completion` is empty"),
        (
            "{\"question\": \"Ask\", \"answer\": \"x\"}\n",
            "sft.jsonl:13: the row has none of `prompt` with `completion`",
        ),
        ("{\"prompt\": \"Ask\", \n", "sft.jsonl:13: not JSON"),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n",
            "row `sft.jsonl:13` of `sft.data` cannot be learnt from",
        ),
        (&long, "row `sft.jsonl:13` with 304 tokens is longer than 128"),
    ] {
        let lab = lab_with(&format!("{}{bad}", rows()));
        let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml"]);
        assert!(stderr.contains(says), "no `{says}` in:\n{stderr}");
        assert!(!lab.run_folder().join("metrics/sft.jsonl").exists(), "it trained:\n{stderr}");
    }
    let lab = lab_with(&rows());
    let bytes = [rows().as_bytes(), b"{\"text\": \"\xff\"}\n"].concat();
    std::fs::write(lab.path("sft.jsonl"), bytes).unwrap();
    let (_, stderr) = lab.ends_with(1, &["sft", "rlaif.toml"]);
    assert!(
        stderr.contains("sft.jsonl:13: not UTF-8") && stderr.contains("hint: Mend or delete"),
        "{stderr}"
    );
    lab.write("sft.jsonl", "\n");
    let (_, stderr) = lab.ends_with(1, &["sft", "rlaif.toml"]);
    assert!(stderr.contains("`sft.jsonl`, which `sft.data` names, has no row"), "{stderr}");
    std::fs::remove_file(lab.path("sft.jsonl")).unwrap();
    let (_, stderr) = lab.ends_with(1, &["sft", "rlaif.toml"]);
    assert!(stderr.contains("there is no file `sft.jsonl`, which `sft.data` names"), "{stderr}");
    let (_, stderr) = Lab::new().ends_with(1, &["sft", "rlaif.toml"]);
    assert!(stderr.contains("`sft.data` names no file"), "{stderr}");
    let (_, stderr) = Lab::new().ends_with(1, &["run", "rlaif.toml", "--set", "run.stages=sft,generate"]);
    assert!(
        stderr
            .contains("`sft.data` must name at least one file where `run.stages` has `sft` and not `revise`"),
        "{stderr}"
    );
}

#[test]
fn long_rows_and_prompts_of_the_evaluation_are_left_out_aloud() {
    let long = format!("{{\"prompt\": \"Ask\", \"completion\": \"{}\"}}\n", "x".repeat(300));
    let lab = lab_with(&format!("{}{long}{{\"prompt\": \"Tell 3\", \"completion\": \"No\"}}\n", rows()));
    let (_, stderr) = lab.done(&["sft", "rlaif.toml", "--set", "sft.too_long=drop"]);
    for said in [
        "sft: 1 rows are left out: the evaluation asks their prompts",
        "sft: 1 rows are left out: within 128 tokens there is nothing of them to learn",
        "sft: 6 steps on 11 rows",
    ] {
        assert!(stderr.contains(said), "no `{said}` in:\n{stderr}");
    }
    let (_, stderr) = lab.done(&["sft", "rlaif.toml", "--set", "sft.too_long=truncate"]);
    assert!(
        stderr.contains("sft: 1 rows are longer than 128 tokens, and their ends are cut off"),
        "{stderr}"
    );
}
