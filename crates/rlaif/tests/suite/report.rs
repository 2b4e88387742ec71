//! `rlaif report` on runs of the tiny model: what people said is on the page, and runs lie side by side.

use crate::common::Lab;
use crate::review_lab::wait;
use rlaif_core::people::HumanChoice;
use rlaif_store::Store;
use rlaif_store::store::{NewHumanVerdict, TRAIN_PAIRS};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// People judge the first pairs of a run against its judges, with a note each; returns how many.
pub fn people_contradict(folder: &Path, note: &str, most: usize) -> usize {
    wait(async {
        let store = Store::open(folder.join("rlaif.db")).await.unwrap();
        let mut judged = 0;
        for preference in store.preferences(TRAIN_PAIRS).await.unwrap().iter().take(most) {
            let Some(p) = preference.p.filter(|p| *p != 0.5) else { continue };
            let (prompt, a, b) = store.pair_texts(&preference.pair_id).await.unwrap().unwrap();
            let choice = if p > 0.5 { HumanChoice::Second } else { HumanChoice::First };
            for reviewer in ["ada", "bob"] {
                let verdict = NewHumanVerdict {
                    prompt: &prompt,
                    a: &a,
                    b: &b,
                    reviewer,
                    queue: "all",
                    a_left: true,
                    choice,
                    criteria: &BTreeMap::new(),
                    note: Some(note),
                    shown_ms: 1,
                    judged_ms: 2,
                };
                store.put_human_verdict(&verdict).await.unwrap();
            }
            judged += 1;
        }
        store.close().await.unwrap();
        judged
    })
}

#[test]
fn people_over_judges_is_what_the_page_counts() {
    let lab = Lab::new();
    lab.done(&["run", "rlaif.toml", "--until", "label"]);
    lab.done(&["report", "rlaif.toml"]);
    let before = lab.read("runs/tiny/report.html");
    assert!(before.contains("No person has labelled anything"));
    let judged = people_contradict(&lab.run_folder(), "not so", 5);
    assert!(judged >= 3, "{judged}");

    lab.done(&["report", "rlaif.toml"]);
    let html = lab.read("runs/tiny/report.html").replace('\u{202f}', " ");
    for words in [
        format!(
            "took the place of the judges’ on {judged} pairs, and turned the preference round on {judged}"
        ),
        ">human</span>".into(),
        format!("differently on {judged} of {judged} pairs"),
        "ada: ".into(),
        "not so".into(),
        "rlaif review rlaif.toml".into(),
    ] {
        assert!(html.contains(&words), "`{words}` is missing");
    }
    assert_eq!(
        html.matches("<details class=\"printed\"").count(),
        judged,
        "no samples yet, every pair that divides"
    );
}

#[test]
fn runs_lie_side_by_side_by_config_and_by_folder() {
    let lab = Lab::new();
    lab.done(&["run", "rlaif.toml"]);
    lab.done(&["run", "rlaif.toml", "--set", "run.name=other", "--set", "dpo.beta=0.3"]);
    let (table, stderr) = lab.done(&["report", "rlaif.toml", "--compare", "runs/other"]);
    assert!(stderr.contains("compare `runs/tiny/compare.html`"), "{stderr}");
    assert!(table.contains("config  dpo.beta: – | 0.3"), "{table}");
    assert_eq!(table.matches("config  ").count(), 1, "only keys that differ: {table}");
    assert!(table.contains("DPO: Win rate against baseline"), "{table}");
    let html = lab.read("runs/tiny/compare.html");
    assert!(html.contains("rlaif report rlaif.toml --compare runs/other/rlaif.toml"), "how to make it again");
    assert!(!lab.path("runs/other/compare.html").exists());

    let (json, _) =
        lab.done(&["report", "--compare", "runs/tiny", "runs/other", "--json", "-o", "both.html"]);
    let data: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(data["config"][0]["key"], "dpo.beta");
    let runs: Vec<&str> =
        data["runs"].as_array().unwrap().iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(runs, ["tiny", "other"]);
    // The same prompts, seeds and PPO: nothing differs but what beta reaches.
    let contrasts = data["contrasts"].as_array().unwrap();
    let of = |policy: &'static str| contrasts.iter().filter(move |it| it["policy"] == policy);
    assert!(of("ppo").count() > 0 && of("ppo").all(|it| it["difference"]["value"] == 0.0), "{json}");
    assert!(
        lab.read("both.html").contains("no difference is shown")
            || json.contains("\"higher\"")
            || json.contains("\"lower\"")
    );
}

#[test]
fn what_cannot_be_compared_is_said_in_words() {
    let lab = Lab::new();
    lab.done(&["run", "rlaif.toml", "--until", "generate"]);
    let (_, stderr) = lab.ends_with(1, &["report", "--compare", "runs/tiny"]);
    assert!(stderr.contains("there is one run, and nothing to compare it with"), "{stderr}");
    std::fs::create_dir(lab.path("empty")).unwrap();
    let (_, stderr) = lab.ends_with(1, &["report", "rlaif.toml", "--compare", "empty"]);
    assert!(stderr.contains("`empty` is no run folder: it has no `rlaif.toml`"), "{stderr}");
    let (_, stderr) = lab.ends_with(1, &["report", "rlaif.toml", "--compare", "gone.toml"]);
    assert!(stderr.contains("there is no config file `gone.toml`"), "{stderr}");
    // A run that has only sampled is compared in what there is.
    lab.done(&["run", "rlaif.toml", "--until", "generate", "--set", "run.name=other"]);
    let (table, _) = lab.done(&["report", "rlaif.toml", "--compare", "runs/other"]);
    assert!(table.ends_with("other against tiny: nothing can be compared.\n"), "{table}");
}
