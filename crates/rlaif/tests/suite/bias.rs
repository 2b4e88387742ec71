//! Social-bias probes: a judge with a weakness for some names, one without, and the models of a small run.

use crate::common::{Lab, tiny_llama};
use rlaif_mock_judge::{MockJudge, Options};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Men's given names in the probes; no other group is named so.
const MEN: [&str; 8] = ["James", "Jacob", "Carlos", "Omar", "Kofi", "Arjun", "Jun", "Petro"];

/// A lab whose judge is this one, at 1 dollar a million tokens.
fn judged_by(judge: &MockJudge) -> Lab {
    let lab = Lab::new();
    let rows = format!(
        "[[label.judges]]\nname = \"mock\"\nkind = \"openai\"\nprotocol = \"pairwise\"\nmodel = \"mock-judge\"\n\
         base_url = \"{}\"\nusd_per_million_input = 1.0\nusd_per_million_output = 1.0\nmax_concurrency = 64\n",
        judge.base_url()
    );
    lab.judged_by(&rows, "");
    lab.edit("[run]", "[run]\ndurability = \"process\"");
    lab
}

fn measurements(audit: &str) -> Vec<Value> {
    let audit: Value = serde_json::from_str(audit).unwrap_or_else(|error| panic!("{error}: {audit}"));
    audit["parts"]["bias"]["measurements"].as_array().unwrap().clone()
}

fn of<'m>(all: &'m [Value], subject: &str, measure: &str) -> &'m Value {
    all.iter()
        .find(|it| it["subject"] == subject && it["measure"] == measure)
        .unwrap_or_else(|| panic!("no {measure} of {subject}: {all:#?}"))
}

fn outcomes<'m>(all: &'m [Value], measure: &'m str) -> impl Iterator<Item = (&'m str, &'m str)> {
    all.iter()
        .filter(move |it| it["measure"] == measure)
        .map(|it| (it["subject"].as_str().unwrap(), it["outcome"].as_str().unwrap()))
}

const AUDIT: [&str; 6] = ["audit", "rlaif.toml", "--bias", "--bias-of", "judges", "--json"];

#[test]
fn a_judge_with_a_weakness_for_mens_names_fails_on_gender_alone_and_is_not_paid_twice() {
    let bias_for = MEN.map(String::from).to_vec();
    let options = Options { accuracy: 0.5, bias_for, word_bias: 4.0, ..Options::default() };
    let judge = MockJudge::start_on_thread(options).unwrap();
    let lab = judged_by(&judge);
    let audit = [&AUDIT[..], &["--set", "audit.bias_per_contrast=16"]].concat();
    let (stdout, stderr) = lab.ends_with(1, &audit);
    let calls = judge.ledger().summary().calls;
    assert!(stderr.contains("`mock` by `explain` on bias probes: "), "{stderr}");
    let told: u64 = {
        let line = stderr.lines().find(|line| line.contains("on bias probes: ")).unwrap();
        assert!(line.contains(" calls, $") && line.contains(" at most"), "{line}");
        line.split("on bias probes: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(told, calls, "what was announced is what was asked");
    let found = measurements(&stdout);
    let gender = of(&found, "judge `mock`, gender", "bias_judge_text");
    assert_eq!(gender["outcome"], "fail", "{gender}");
    assert!(gender["value"].as_f64().unwrap() > 0.3, "{gender}");
    assert!(gender["note"].as_str().unwrap().starts_with("men's names over women's names"), "{gender}");
    for (subject, outcome) in outcomes(&found, "bias_judge_text").filter(|(it, _)| !it.ends_with("gender")) {
        assert_ne!(outcome, "fail", "{subject}");
    }
    for measure in ["bias_judge_decision", "bias_judge_stereotype"] {
        assert!(outcomes(&found, measure).all(|(_, outcome)| outcome != "fail"), "{found:#?}");
        assert_eq!(outcomes(&found, measure).count(), 9, "eight axes and all together");
    }

    assert_eq!(lab.ends_with(1, &audit).0.len(), stdout.len());
    assert_eq!(judge.ledger().summary().calls, calls, "nothing is bought twice");
    let more = [&AUDIT[..], &["--set", "audit.bias_per_contrast=17"]].concat();
    lab.ends_with(1, &more);
    let again = judge.ledger().summary();
    assert!(again.calls > calls && again.calls < calls + calls / 4, "only what is new is asked");
    assert_eq!(again.bought_again, 0);
    let (preferences, _) = lab.ends_with(1, &["export", "rlaif.toml"]);
    assert!(preferences.is_empty(), "no probe becomes a preference: {preferences}");
}

#[test]
fn a_judge_without_one_passes_where_there_are_enough_items_and_is_unclear_where_there_are_few() {
    let judge = MockJudge::start_on_thread(Options { tie_below: 0.7, ..Options::default() }).unwrap();
    let lab = judged_by(&judge);
    let few = [&AUDIT[..], &["--set", "audit.bias_per_contrast=3"]].concat();
    let (stdout, _) = lab.done(&few);
    let found = measurements(&stdout);
    assert!(outcomes(&found, "bias_judge_text").any(|(_, outcome)| outcome == "unclear"), "{found:#?}");
    assert!(found.iter().all(|it| it["outcome"] != "fail"), "{found:#?}");
    lab.ends_with(1, &[&few[..], &["--strict"]].concat());

    let many = ["--set", "audit.bias_per_contrast=32", "--set", "audit.bias_margin.judge=0.15"];
    let found = measurements(&lab.done(&[&AUDIT[..], &many].concat()).0);
    for (subject, outcome) in outcomes(&found, "bias_judge_text") {
        assert_eq!(outcome, "pass", "{subject}: {}", of(&found, subject, "bias_judge_text"));
    }
    assert!(found.iter().all(|it| it["outcome"] != "fail"), "{found:#?}");
}

#[test]
fn the_money_for_judges_is_not_passed() {
    let judge = MockJudge::start_on_thread(Options::default()).unwrap();
    let lab = judged_by(&judge);
    let (_, stderr) = lab.ends_with(1, &[&AUDIT[..], &["--set", "label.max_usd=0.02"]].concat());
    assert!(stderr.contains("label.max_usd"), "{stderr}");
    assert!(judge.ledger().summary().calls < 200, "{stderr}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The golden model with room for a paragraph: its positions are rotations, so that it needs no more weights.
fn with_room(lab: &Lab) {
    let model = lab.path("model");
    copy(&tiny_llama(), &model);
    let mut config: Value = serde_json::from_slice(&fs::read(model.join("config.json")).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(1024);
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    lab.edit(&tiny_llama().display().to_string(), &model.display().to_string());
}

#[test]
fn reward_model_and_policies_are_measured_and_a_policy_that_nothing_changed_passes() {
    let lab = Lab::new();
    with_room(&lab);
    let audit = |of: &'static str| {
        let few = ["--set", "audit.bias_per_contrast=3", "--set", "audit.bias_max_new_tokens=6"];
        [&["audit", "rlaif.toml", "--bias", "--json", "--bias-of", of][..], &few].concat()
    };
    let (_, stderr) = lab.ends_with(1, &audit("reward"));
    assert!(
        stderr.contains("the run has no reward model yet") && stderr.contains("--until reward"),
        "{stderr}"
    );
    lab.done(&["run", "rlaif.toml", "--until", "reward"]);

    let output = lab.rlaif(&audit("reward")).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "a tiny model's opinion is noise");
    let found = measurements(&String::from_utf8_lossy(&output.stdout));
    for measure in ["bias_reward_text", "bias_reward_decision", "bias_reward_stereotype"] {
        assert_eq!(outcomes(&found, measure).count(), 9);
        let all = of(&found, "reward model, all axes", measure);
        assert_ne!(all["value"], 0.0, "{all}");
        assert!(
            all["note"].as_str().unwrap().contains("of 8 responses of the baseline to held-out prompts")
                || all["note"].as_str().unwrap().contains("responses of the baseline to training prompts"),
            "{all}"
        );
        assert_eq!(all["n"], if measure.ends_with("stereotype") { 64 } else { 66 }, "{all}");
    }

    // The baseline itself stands where `ppo` would leave its policy.
    copy(&lab.path("model"), &lab.run_folder().join("models/ppo"));
    let output = lab.rlaif(&audit("policies")).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let found = measurements(&stdout);
    let sampled = ["bias_policy_sentiment", "bias_policy_length", "bias_policy_refusal"];
    let scored = ["bias_policy_text", "bias_policy_decision", "bias_policy_stereotype"];
    for measure in scored.iter().chain(&sampled) {
        let changed = of(&found, "what `ppo` changed, all axes", measure);
        assert_eq!((&changed["value"], &changed["outcome"]), (&json!(0.0), &json!("pass")), "{changed}");
    }
    for measure in &scored[1..] {
        let own = of(&found, "policy `baseline`, all axes", measure);
        assert_ne!(own["value"], 0.0, "{own}");
        assert_eq!(own["value"], of(&found, "policy `ppo`, all axes", measure)["value"]);
    }
    let own_text = found.iter().filter(|it| it["measure"] == "bias_policy_text");
    assert!(
        own_text.clone().count() == 9
            && own_text.clone().all(|it| it["subject"].as_str().unwrap().starts_with("what"))
    );
    let again = lab.rlaif(&audit("policies")).output().unwrap();
    assert_eq!(measurements(&String::from_utf8_lossy(&again.stdout)), found, "the same every time");

    let short = [&audit("policies")[..], &["--set", "policy.model=golden"]].concat();
    copy(&tiny_llama(), &lab.path("golden"));
    fs::remove_dir_all(lab.run_folder().join("models/ppo")).unwrap();
    let output = lab.rlaif(&short).output().unwrap();
    let found = measurements(&String::from_utf8_lossy(&output.stdout));
    let decision = of(&found, "policy `baseline`, gender", "bias_policy_decision");
    assert_eq!(decision["outcome"], "not_measured", "what does not fit is not measured: {decision}");
}
