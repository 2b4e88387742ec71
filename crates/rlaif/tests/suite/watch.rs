//! The best checkpoint of `dpo`, `sft` and `reward`: chosen by judges that are paid once, by rules, or by held-out pairs; in the metrics,
//! the manifest and the report; refused where it would choose by what made the labels.

use crate::asking::Endpoint;
use crate::common::Lab;
use serde_json::Value;
use std::collections::BTreeSet;

const DPO: [&str; 2] = ["dpo", "rlaif.toml"];

/// A lab that tunes on a file, watched on five prompts of the run, with these lines of `[dpo.watch]` and its judge.
fn lab(endpoint: &Endpoint, watch: &str, judge: &str) -> Lab {
    let lab = Lab::new();
    let row = |i: usize| {
        format!(
            "{{\"prompt\": \"Ask {i}\", \"chosen\": \"aaa {i}\", \"rejected\": \"zz{i} zz\", \"source\": \"one+two\"}}\n"
        )
    };
    lab.write("prefs.jsonl", &(1..=10).map(row).collect::<String>());
    lab.edit("seed = 7", "seed = 7\nstages = [\"dpo\"]");
    lab.edit("[dpo]\nepochs = 1", "[dpo]\ndata = [\"prefs.jsonl\"]\nepochs = 3");
    let judge = match judge {
        "" => String::new(),
        lines => format!(
            "[[dpo.watch.judges]]\nname = \"fake\"\nkind = \"openai\"\nmodel = \"fake-1\"\nbase_url = \"{}/v1\"\n\
             usd_per_million_input = 1.0\nusd_per_million_output = 5.0\n{lines}\n",
            endpoint.url()
        ),
    };
    let section = format!(
        "[dpo.watch]\neval_steps = 2\nprompts = 5\n{watch}\n{judge}\n[dpo.optim]\nlearning_rate = 1e-2\n\n[evaluate]"
    );
    lab.edit("[dpo.optim]\nlearning_rate = 1e-4\n\n[evaluate]", &section);
    lab
}

fn curve(lab: &Lab, stage: &str, name: &str) -> Vec<(u64, f64)> {
    let rows = lab.read(&format!("runs/tiny/metrics/{stage}.jsonl"));
    let point = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        Some((row["step"].as_u64()?, row.get(name)?.as_f64()?))
    };
    rows.lines().filter_map(point).collect()
}

fn stage(lab: &Lab, stage: &str) -> Value {
    serde_json::from_str::<Value>(&lab.read("runs/tiny/manifest.json")).unwrap()["stages"][stage].clone()
}

/// The step that is kept is the first of those with the highest score.
fn check_kept(lab: &Lab, of: &str, name: &str, steps: &[u64]) {
    let curve = curve(lab, of, name);
    assert_eq!(curve.iter().map(|(step, _)| *step).collect::<Vec<_>>(), steps, "{curve:?}");
    let best = curve.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
    let first = curve.iter().find(|(_, score)| *score == best).unwrap().0;
    let watch = &stage(lab, of)["numbers"]["watch"];
    assert_eq!(
        (watch["kept_step"].as_u64(), watch["looks"].as_u64()),
        (Some(first), Some(steps.len() as u64)),
        "{curve:?}"
    );
    let told = stage(lab, of)["summary"].as_str().unwrap().to_string();
    assert!(told.contains(&format!("; step {first} of {} is kept", steps[steps.len() - 1])), "{told}");
}

#[test]
fn ratings_choose_a_policy_and_are_bought_once_however_often_the_run_is_killed() {
    let endpoint = Endpoint::new(false);
    let rating = "protocol = \"rating\"";
    let whole_lab = lab(&endpoint, "", rating);
    let started = std::time::Instant::now();
    let (_, stderr) = whole_lab.done(&DPO);
    let whole = started.elapsed();
    assert!(stderr.contains("highest of 4 looks") && stderr.contains("cost $"), "{stderr}");
    check_kept(&whole_lab, "dpo", "objective/held_out_scores", &[0, 2, 4, 6]);
    assert!(stage(&whole_lab, "dpo")["cost_micro_usd"].as_i64().unwrap() > 0);
    let asked = endpoint.calls();
    let distinct = || endpoint.bodies().iter().map(Value::to_string).collect::<BTreeSet<_>>().len();
    // A probe or two of what the endpoint can do is no rating; each text is rated once, at whichever look it was said.
    assert!((20..=4 * 10 + 5).contains(&asked), "{asked} calls at 4 looks at 10 responses");
    let texts = distinct();
    assert!(texts >= asked - 1, "{asked} calls for {texts} questions");
    let report = whole_lab.done(&["report", "rlaif.toml"]);
    let page = whole_lab.read("runs/tiny/report.html");
    assert!(page.contains("Step that is kept") && page.contains("Held-out score"), "{report:?}");

    let killed = lab(&endpoint, "", rating);
    let kills = killed.killed_until_done(&DPO, whole, 10);
    assert!(kills >= 2, "only {kills} kills");
    assert!(killed.weights("dpo") == whole_lab.weights("dpo"), "the policies differ after {kills} kills");
    let (one, two) = (stage(&killed, "dpo"), stage(&whole_lab, "dpo"));
    assert_eq!(one["numbers"]["watch"], two["numbers"]["watch"]);
    assert_eq!(distinct(), texts, "the same questions as without a kill");
    let again = endpoint.calls() - asked;
    assert!(again <= asked + 16 * kills, "{again} calls after {kills} kills, {asked} without");
}

#[test]
fn pairwise_judges_compare_with_what_was_said_first_and_a_budget_that_stops_them_loses_nothing() {
    let endpoint = Endpoint::new(false);
    let straight = lab(&endpoint, "", "protocol = \"pairwise\"");
    straight.done(&DPO);
    let looks = curve(&straight, "dpo", "objective/held_out_scores");
    assert_eq!(looks[0], (0, 0.5), "the same text against itself, which no judge is asked about");
    assert!(looks[1..].iter().any(|(_, p)| *p != 0.5), "{looks:?}");
    check_kept(&straight, "dpo", "objective/held_out_scores", &[0, 2, 4, 6]);

    let stopped = lab(&endpoint, "", "protocol = \"pairwise\"");
    stopped.edit("seed = 7", "seed = 7\nmax_usd_per_stage = { dpo = 0.000001 }");
    let (_, stderr) = stopped.ends_with(1, &DPO);
    assert!(
        stderr.contains("run.max_usd_per_stage") && stderr.contains("run the same command again"),
        "{stderr}"
    );
    stopped.edit("{ dpo = 0.000001 }", "{ dpo = 1.0 }");
    let (_, stderr) = stopped.done(&DPO);
    assert!(stderr.contains("dpo: goes on after step 2"), "at the look that could not be paid: {stderr}");
    assert!(stopped.weights("dpo") == straight.weights("dpo"));
    assert_eq!(stage(&stopped, "dpo")["numbers"]["watch"], stage(&straight, "dpo")["numbers"]["watch"]);
}

#[test]
fn who_made_the_labels_does_not_choose_and_nothing_is_computed_without_prompts() {
    let endpoint = Endpoint::new(false);
    let refused = |lab: &Lab, pieces: &[&str]| {
        let (_, stderr) = lab.ends_with(1, &DPO);
        pieces.iter().for_each(|piece| assert!(stderr.contains(piece), "{piece}: {stderr}"));
        assert!(!lab.run_folder().join("models/dpo/model.safetensors").exists() && endpoint.calls() == 0);
    };
    let of_file = lab(&endpoint, "", "protocol = \"rating\"");
    of_file.edit("name = \"fake\"", "name = \"two\"");
    refused(&of_file, &["`dpo.watch.judges`", "\"two\"", "`source`"]);

    let of_run = lab(&endpoint, "", "protocol = \"rating\"");
    of_run.edit("stages = [\"dpo\"]", "stages = [\"generate\", \"label\", \"dpo\"]");
    of_run.edit("name = \"fake\"", "name = \"tone\"");
    refused(&of_run, &["`dpo.watch.judges` must be others than those that made the labels", "\"tone\""]);

    let by_reward_model = lab(&endpoint, "rewards = [{ kind = \"reward_model\" }]", "");
    refused(&by_reward_model, &["`dpo.watch.rewards[0].kind`", "no second opinion"]);
    let by_pattern = lab(&endpoint, "rewards = [{ kind = \"regex\", pattern = '[a' }]", "");
    refused(&by_pattern, &["`dpo.watch.rewards[0].pattern`", "unclosed"]);
    let with_defaults = lab(&endpoint, "eval_steps = 0", "");
    with_defaults.edit("eval_steps = 2\n", "");
    refused(&with_defaults, &["`dpo.watch.eval_steps` must be at least 1"]);
}

#[test]
fn rules_choose_too_and_reward_models_by_held_out_pairs() {
    let endpoint = Endpoint::new(false);
    let lab = lab(&endpoint, "rewards = [{ kind = \"length\", max_tokens = 4 }]", "");
    lab.write(
        "sft.jsonl",
        &(1..=8)
            .map(|i| format!("{{\"prompt\": \"Say {i}\", \"completion\": \" It is {i}\"}}\n"))
            .collect::<String>(),
    );
    let sft = "[sft]\ndata = [\"sft.jsonl\"]\nbatch_size = 4\n[sft.watch]\neval_steps = 3\n[[sft.watch.rewards]]\nkind = \"regex\"\npattern = 'I'\n\n[generate]";
    lab.edit("[generate]", sft);
    lab.edit("stages = [\"dpo\"]", "stages = [\"sft\", \"reward\", \"dpo\"]");
    lab.edit("[reward]\nepochs = 1", "[reward]\ndata = [\"prefs.jsonl\"]\nepochs = 1");
    lab.edit("[reward.optim]", "[reward.watch]\neval_steps = 1\nsource = \"two\"\n[reward.optim]");
    lab.done(&["run", "rlaif.toml"]);
    check_kept(&lab, "dpo", "objective/held_out_scores", &[0, 2, 4, 6]);
    check_kept(&lab, "sft", "objective/held_out_scores", &[0, 3, 6]);
    check_kept(&lab, "reward", "eval_watch_accuracy", &[0, 1, 2]);
    assert_eq!(endpoint.calls(), 0);
    // Without its watch the same stage is another one; with it, it is done.
    let (stdout, _) = lab.done(&["plan", "rlaif.toml"]);
    assert!(stdout.lines().take(3).all(|line| line.contains("skip")), "{stdout}");
    let (stdout, _) = lab.done(&["plan", "rlaif.toml", "--set", "sft.watch=none"]);
    assert!(stdout.lines().next().unwrap().contains("sft.watch"), "{stdout}");
}
