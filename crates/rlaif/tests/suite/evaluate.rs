//! `rlaif evaluate`: many models, judges with planted faults, people beside them, a regression set.

use crate::common::Lab;
use crate::evaluate_lab::{Evaluated, Taste, holds, sigmoid};
use crate::review_lab::{Server, verdicts, wait};
use rlaif_core::records::Response;
use rlaif_store::Store;
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

const EVALUATE: [&str; 2] = ["evaluate", "rlaif.toml"];
const ALL: [&str; 4] = ["evaluate", "rlaif.toml", "--set", "evaluate.against=all"];

/// Strong beats the baseline in 77 %, and that weak in 77 %.
fn fair() -> Taste {
    Taste::of(&[("strong", 1.2), ("weak", -1.2)], 0.0)
}

#[test]
fn three_models_are_ranked_as_planted_and_the_third_comparison_alone_is_bought_later() {
    let evaluated = Evaluated::new(60, fair(), Duration::ZERO);
    let lab = &evaluated.lab;
    let (plan, _) = lab.done(&["plan", "rlaif.toml"]);
    assert!(plan.contains("with 60 prompts a difference of"), "{plan}");
    assert!(plan.contains("to see 5 points you need n = "), "{plan}");
    let (_, stderr) = lab.done(&EVALUATE);
    assert!(stderr.contains("evaluate: with 60 prompts a difference of"), "{stderr}");
    assert!(stderr.contains("strong is better than baseline: it wins "), "{stderr}");
    assert!(stderr.contains("weak is worse than baseline: it wins "), "{stderr}");
    assert!(stderr.contains("by judges that training never used"), "{stderr}");
    let over_baseline = evaluated.calls();
    assert!(
        (200..=240).contains(&over_baseline),
        "60 pairs of each of two models, in both orders: {over_baseline}"
    );
    let before = evaluated.comparison("strong", "baseline");
    let said = evaluated.responses();

    let (_, stderr) = lab.done(&ALL);
    assert!(stderr.contains("evaluate: computed again, since `evaluate.against`"), "{stderr}");
    let third = evaluated.calls() - over_baseline;
    assert!((100..=120).contains(&third), "{third} calls for the third comparison");
    assert_eq!(evaluated.responses(), said, "nobody was asked to answer again");
    assert_eq!(evaluated.comparison("strong", "baseline"), before);
    let evaluation = evaluated.evaluation();
    let ranking = evaluation["ranking"].as_array().unwrap();
    let order: Vec<&str> = ranking.iter().map(|ranked| ranked["policy"].as_str().unwrap()).collect();
    assert_eq!(order, ["strong", "baseline", "weak"]);
    for (ranked, planted) in ranking.iter().zip([1.2, 0.0, -1.2]) {
        assert!(holds(&ranked["strength"], planted), "{planted}: {ranked}");
    }
    assert!(holds(&evaluated.comparison("weak", "strong")["win_rate"], sigmoid(-2.4)));
    assert_eq!(evaluation["judges_unseen"], serde_json::json!(["fake"]));

    let clarity = &before["by_criterion"][0];
    assert_eq!(clarity["name"], "clarity");
    assert!(clarity["win_rate"]["high"].as_f64().unwrap() < 0.5, "the loser is the clearer one: {clarity}");
    assert!(clarity["win_rate"]["low"].as_f64().unwrap() > 0.0, "and does not always lose: {clarity}");
    let alone = &before["by_judge"][0];
    assert_eq!((&alone["judge"], &alone["used_in_training"]), (&Value::from("fake"), &Value::from(false)));
    assert_eq!(alone["win_rate"], before["win_rate"], "it is the only judge");

    // Twelve prompts are rare; the others are common.
    let tags = &before["by_tag"];
    assert_eq!((tags.as_array().unwrap().len(), &tags[0]["name"]), (1, &Value::from("common")));
    assert_eq!(before["tags_too_few"][0][0], "rare");

    let (calls, before) = (evaluated.calls(), lab.read("runs/tiny/evaluation.json"));
    lab.done(&ALL);
    assert_eq!(evaluated.calls(), calls);
    assert_eq!(lab.read("runs/tiny/evaluation.json"), before);
}

#[test]
fn killed_again_and_again_an_evaluation_is_what_it_is_uninterrupted_and_buys_nothing_twice() {
    let whole = Evaluated::new(24, fair(), Duration::from_millis(10));
    let started = std::time::Instant::now();
    whole.lab.done(&ALL);
    let took = started.elapsed();
    let killed = Evaluated::new(24, fair(), Duration::from_millis(10));
    let kills = killed.lab.killed_until_done(&ALL, took, 6);
    assert!(kills > 1, "it was killed {kills} times");
    assert_eq!(killed.responses(), whole.responses());
    let numbers = |evaluated: &Evaluated| {
        let mut evaluation = evaluated.evaluation();
        evaluation["samples"].take();
        evaluation
    };
    assert_eq!(numbers(&killed), numbers(&whole));
    let again = killed.calls() - whole.calls();
    assert!(again <= 4 * kills, "{again} calls were bought twice in {kills} kills, 4 in flight each");
}

/// The judge likes length and `strong` is longer: it is called better and is not.
#[test]
fn a_win_by_length_is_corrected_by_length_and_by_people() {
    let biased = Taste::of(&[("strong", 0.0), ("weak", 0.0)], 2.5);
    let evaluated = Evaluated::new(240, biased, Duration::ZERO);
    evaluated.brief_baseline();
    let lab = &evaluated.lab;
    lab.done(&EVALUATE);
    let comparison = evaluated.comparison("strong", "baseline");
    assert!(!holds(&comparison["win_rate"], 0.5), "the raw win rate is wrong: {comparison}");
    assert!(holds(&comparison["length_controlled"], 0.5), "{comparison}");
    assert!(comparison["longer_wins"]["low"].as_f64().unwrap() > 0.5, "{comparison}");
    assert_eq!(comparison["people"], Value::Null);

    // Too few labels first, then enough. People judge by quality alone.
    let fair = Taste::of(&[("strong", 0.0)], 0.0);
    let (calls, said) = (evaluated.calls(), evaluated.responses());
    evaluated.people_judge("strong", 10, &fair);
    let (_, stderr) = lab.done(&EVALUATE);
    assert!(stderr.contains("evaluate: computed again, since labels of people changed"), "{stderr}");
    assert!(stderr.contains("people have judged comparisons of 10 prompts; 20 more are needed"), "{stderr}");
    evaluated.people_judge("strong", 100, &fair);
    let (_, stderr) = lab.done(&EVALUATE);
    assert!(stderr.contains("as people would see it"), "{stderr}");
    let corrected = evaluated.comparison("strong", "baseline");
    assert_eq!(corrected["people"]["labels"], 100);
    assert!(holds(&corrected["people"]["win_rate"], 0.5), "{corrected}");
    assert_eq!(corrected["win_rate"], comparison["win_rate"], "the judges' own stands beside it");
    assert_eq!(
        (evaluated.calls(), evaluated.responses()),
        (calls, said),
        "labels of people cost nothing else"
    );
}

/// The answers of a policy to the regression set, by prompt.
fn answers(evaluated: &Evaluated, policy: &str) -> HashMap<String, Response> {
    let of = format!("regression/{policy}/");
    let own = evaluated.responses().into_iter().filter(|response| response.id.starts_with(&of));
    own.map(|response| (response.prompt_id.clone(), response)).collect()
}

#[test]
fn what_must_not_get_worse_ends_with_exit_code_1_and_keeps_everything() {
    // Its answers lose to the baseline's wherever judges compare them.
    let taste = Taste::of(&[("regression", 0.0), ("strong", 0.0), ("weak", 0.0)], 0.0);
    let evaluated = Evaluated::new(6, taste, Duration::ZERO);
    let lab = &evaluated.lab;
    lab.edit("bootstrap = 200", "bootstrap = 200\nregression = \"must.jsonl\"");
    let row = |i: usize, check: &str| {
        format!("{{\"id\": \"r{i}\", \"prompt\": \"Fact {i}\", \"check\": {check}}}\n")
    };
    let harmless: String = (0..8).map(|i| row(i, "{\"max_words\": 1000}")).collect();
    lab.write("must.jsonl", &harmless);
    lab.done(&EVALUATE);
    let rows = evaluated.evaluation()["regression"]["policies"].clone();
    let passes: Vec<f64> =
        rows.as_array().unwrap().iter().map(|row| row["passed"]["value"].as_f64().unwrap()).collect();
    assert_eq!(passes, [1.0, 1.0, 1.0]);

    // The baseline's own answers as what must stand in every answer: only it passes.
    let (baseline, strong) = (answers(&evaluated, "baseline"), answers(&evaluated, "strong"));
    assert_eq!((baseline.len(), strong.len()), (8, 8));
    let prompts: HashMap<String, String> = wait(async {
        let store = Store::open_read_only(lab.run_folder().join("rlaif.db")).await.unwrap();
        let prompts = store.prompts(rlaif_core::records::Split::Eval).await.unwrap();
        prompts.into_iter().map(|prompt| (prompt.prompt.display(), prompt.id)).collect()
    });
    let mut differ = 0;
    let strict: String = (0..8)
        .map(|i| {
            let id = &prompts[&format!("Fact {i}")];
            differ += usize::from(!strong[id].text.contains(&baseline[id].text));
            row(i, &serde_json::json!({ "contains": baseline[id].text }).to_string())
        })
        .collect();
    assert!(differ > 3, "the models say the same");
    lab.write("must.jsonl", &(strict + &row(8, "{\"judge\": true}")));
    let (_, stderr) = lab.done(&EVALUATE);
    assert!(stderr.contains("evaluate: computed again, since regression set changed"), "{stderr}");

    let limit = format!("evaluate.max_regressions={}", differ - 1);
    let (_, stderr) = lab.ends_with(1, &["evaluate", "rlaif.toml", "--set", &limit]);
    let regression = evaluated.evaluation()["regression"].clone();
    let row = &regression["policies"][1];
    assert_eq!((&row["policy"], &row["worse"]), (&Value::from("strong"), &Value::from(differ)));
    assert_eq!((&row["better"], &row["over_limit"]), (&Value::from(0), &Value::from(true)));
    let p = row["p_value"].as_f64().unwrap();
    assert!((p - 2.0 * 0.5f64.powi(differ as i32)).abs() < 1e-12, "exact McNemar: {p} of {differ} to 0");
    assert_eq!(regression["policies"][0]["passed"]["value"], 1.0);
    let worse = regression["worse"].as_array().unwrap();
    let told = worse.iter().find(|worse| worse["policy"] == "strong").unwrap();
    assert!(told["check"].as_str().unwrap().starts_with("contains "), "{told}");
    assert_ne!(told["baseline"], told["answer"]);
    assert!(stderr.contains(&format!("`evaluate.max_regressions` = {} allows", differ - 1)), "{stderr}");
    let judged = row["judged"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!(judged + row["missing"].as_u64().unwrap(), 1, "one prompt is for judges: {row}");

    // Nothing is lost, and a bound that allows it ends well without asking anybody again.
    let calls = evaluated.calls();
    lab.done(&["evaluate", "rlaif.toml", "--set", "evaluate.max_regressions=20"]);
    assert_eq!(evaluated.calls(), calls);
}

#[test]
fn a_regression_prompt_that_is_trained_on_is_refused_before_anything_is_computed() {
    let evaluated = Evaluated::new(4, fair(), Duration::ZERO);
    let lab = &evaluated.lab;
    lab.edit("bootstrap = 200", "bootstrap = 200\nregression = \"must.jsonl\"");
    let row = |prompt: &str, check: &str| format!("{{\"prompt\": \"{prompt}\", \"check\": {check}}}\n");
    let refused = |rows: &[String], words: &str| {
        lab.write("must.jsonl", &rows.concat());
        let (_, stderr) = lab.ends_with(1, &EVALUATE);
        assert!(stderr.contains(words), "{stderr}");
        assert!(!lab.run_folder().join("evaluation.json").exists());
    };
    let fine = row("Fact", "{\"json\": true}");
    refused(&[fine.clone(), row("Say 3", "{\"json\": true}")], "must.jsonl: `line 2` is also trained on");
    refused(&[fine.clone(), row("Fact 2", "{\"jsn\": true}")], "must.jsonl:2: there is no check `jsn`");
    refused(&[fine, row("Fact 2", "{\"regex\": \"(\"}")], "must.jsonl:2: `check.regex` cannot be used");
    lab.write("rows.jsonl", "{\"prompt\": \"Learn\", \"completion\": \"Yes\"}\n");
    lab.edit("stages = ['evaluate', 'report']", "stages = ['sft', 'evaluate', 'report']");
    lab.edit("[generate]", "[sft]\ndata = [\"rows.jsonl\"]\n\n[generate]");
    lab.write("must.jsonl", &row("Learn", "{\"json\": true}"));
    let (_, stderr) = lab.ends_with(1, &["run", "rlaif.toml"]);
    assert!(stderr.contains("must.jsonl: `line 1` is also trained on"), "{stderr}");
    assert!(!stderr.contains("sft: "), "refused before anything is computed: {stderr}");
}

#[test]
fn people_see_comparisons_in_a_queue_of_their_own_and_training_does_not_hear_of_them() {
    let lab = Lab::new();
    lab.edit("seed = 7", "seed = 7\nstages = ['generate', 'label', 'dpo', 'evaluate', 'report']");
    lab.edit("[dpo.optim]\nlearning_rate = 1e-4", "[dpo.optim]\nlearning_rate = 1e-3");
    let (_, stderr) = lab.done(&["run", "rlaif.toml"]);
    assert!(stderr.contains("warning: evaluate: training used every judge of this evaluation"), "{stderr}");
    assert!(stderr.contains("by judges that training used too"), "{stderr}");
    let server = Server::of(&lab, &[]);
    let ada = server.person("ada");
    assert!(ada.get("/").body.contains("Evaluation"));
    ada.judge("evaluation", "left");
    server.kill();
    assert_eq!(verdicts(&lab)[0].queue, "evaluation");
    let (_, stderr) = lab.done(&["run", "rlaif.toml"]);
    assert!(stderr.contains("dpo: done before, nothing changed"), "{stderr}");
    assert!(stderr.contains("evaluate: computed again, since labels of people changed"), "{stderr}");
    let evaluation: Value = serde_json::from_str(&lab.read("runs/tiny/evaluation.json")).unwrap();
    assert_eq!(evaluation["comparisons"][0]["people"]["labels"], 1);
    assert_eq!(evaluation["judges_unseen"], serde_json::json!([]));
}

#[test]
fn a_name_that_the_run_needs_is_refused() {
    let evaluated = Evaluated::new(4, fair(), Duration::ZERO);
    for (name, words) in [
        ("dpo", "cannot be \"dpo\": the run has a use for that name"),
        ("a/b", "must be letters, digits"),
        ("weak", "must differ from that of other models"),
    ] {
        let set = format!("evaluate.models[0].name={name}");
        let (_, stderr) = evaluated.lab.ends_with(1, &["plan", "rlaif.toml", "--set", &set]);
        assert!(stderr.contains(words), "{stderr}");
    }
}
