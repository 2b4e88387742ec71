//! `[route]`: which pairs judges are asked about, by the bill of the mock judge; what is trained on, and how people take over.

use crate::common::Lab;
use crate::review_lab::{Server, exported, wait};
use rlaif_core::people::HumanChoice;
use rlaif_core::records::Fate;
use rlaif_core::routing::AUDIT_DRAW;
use rlaif_core::seed;
use rlaif_mock_judge::{MockJudge, Options};
use rlaif_store::Store;
use rlaif_store::store::{LIVE, NewHumanVerdict, ReviewPair, TRAIN_PAIRS};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const UNTIL_LABEL: [&str; 4] = ["run", "rlaif.toml", "--until", "label"];

fn mock(accuracy: f64) -> MockJudge {
    MockJudge::start_on_thread(Options { accuracy, ..Options::default() }).unwrap()
}

/// So many calls the judge has billed.
fn billed(judge: &MockJudge) -> u64 {
    wait(judge.settled_summary()).billed
}

fn asked(name: &str, judge: &MockJudge, more: &str) -> String {
    format!(
        "[[label.judges]]\nname = \"{name}\"\nkind = \"openai\"\nmodel = \"mock\"\nbase_url = \"{}\"\n\
         usd_per_million_input = 1.0\nusd_per_million_output = 5.0\n{more}\n",
        judge.base_url()
    )
}

/// Twelve prompts of three pairs, every third prompt tagged `medical`, with these judges and this `[route]`.
fn lab(judges: &str, route: &str) -> Lab {
    let lab = Lab::new();
    let rows: Vec<String> = (1..=12)
        .map(|i| {
            let tags: &[&str] = if i % 3 == 0 { &["medical"] } else { &[] };
            format!(
                "{}\n",
                json!({"id": format!("train-{i:02}"), "prompt": format!("Say {i}"), "tags": tags})
            )
        })
        .collect();
    lab.write("prompts.jsonl", &rows.concat());
    lab.judged_by(judges, "");
    lab.write("rlaif.toml", &format!("{}\n{route}", lab.read("rlaif.toml")));
    lab
}

fn manifest(lab: &Lab) -> Value {
    serde_json::from_slice(&std::fs::read(lab.run_folder().join("manifest.json")).unwrap()).unwrap()
}

fn routing(lab: &Lab) -> Value {
    manifest(lab)["stages"]["label"]["numbers"]["routing"].clone()
}

/// The prompts that are trained on, with who labelled their pairs.
fn trained_on(lab: &Lab) -> BTreeMap<String, BTreeSet<String>> {
    let mut by_prompt: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in exported(lab, "preferences") {
        let of = by_prompt.entry(row["prompt_id"].as_str().unwrap().into()).or_default();
        of.insert(row["judges"][0].as_str().unwrap().into());
    }
    by_prompt
}

const MEDICAL: [&str; 4] = ["train-03", "train-06", "train-09", "train-12"];

#[test]
fn an_expert_tag_never_gets_a_label_of_judges_alone_and_words_save_calls() {
    let judge = mock(1.0);
    let route = "[route]\nexpert_tags = [\"medical\"]\n\
                 [[route.rules]]\nname = \"trust me\"\nto = \"judges\"\ntags = [\"medical\"]\n\
                 [[route.rules]]\nname = \"five\"\nto = \"people\"\nwords = [\"FIVE\", \"5\"]\n";
    let lab = lab(&asked("mock", &judge, ""), route);
    let (plan, _) = lab.done(&["plan", "rlaif.toml"]);
    assert!(plan.contains("42 calls, 30 more spared by `[route]`"), "{plan}");

    let (_, told) = lab.done(&UNTIL_LABEL);
    assert_eq!(
        billed(&judge),
        42,
        "36 pairs in both orders, less 12 of experts and 3 of `5`; 15 is another word"
    );
    assert!(
        told.contains(
            "label: 15 pairs wait for people, 15 of which are not trained on before: rlaif review rlaif.toml \
             (12 by `expert tag medical`, 3 by `five`)"
        ),
        "{told}"
    );
    assert!(told.contains("21 preferences of 36 pairs (15 set aside)"), "{told}");
    let numbers = routing(&lab);
    assert_eq!(numbers["routes"], json!({"judges": 21, "people": 15}), "{numbers}");
    assert_eq!(numbers["rules"]["five"], json!({"pairs": 3, "labelled": 0, "waiting": 3}), "{numbers}");
    let trained = trained_on(&lab);
    assert_eq!(trained.len(), 7);
    assert!(MEDICAL.iter().chain(&["train-05"]).all(|prompt| !trained.contains_key(*prompt)), "{trained:?}");

    // A rule that asks judges all the same is obeyed, and what they say is not trained on.
    lab.edit("to = \"judges\"", "to = \"both\"");
    let (_, told) = lab.done(&UNTIL_LABEL);
    assert_eq!(billed(&judge), 42 + 24, "only what was not asked before");
    assert!(told.contains("15 pairs wait for people, 15 of which are not trained on before"), "{told}");
    assert_eq!(trained_on(&lab), trained);

    let server = Server::of(&lab, &[]);
    let ada = server.person("ada");
    let queues = ada.get("/").body;
    assert!(queues.contains("For people") && queues.contains("3 by `five`"), "{queues}");
    let mut reasons = BTreeSet::new();
    for _ in 0..15 {
        let page = ada.get("/pair?queue=routed");
        let pair = page.field("pair");
        reasons.insert(page.after("here because: ").to_string());
        assert_eq!(
            ada.post("/verdict", &[("queue", "routed"), ("pair", &pair), ("choice", "left")]).status,
            303
        );
    }
    assert!(ada.get("/pair?queue=routed").body.contains("Nothing left"));
    server.kill();
    assert_eq!(reasons, ["tag “medical”", "“5” in the prompt"].map(String::from).into());
    let trained = trained_on(&lab);
    assert_eq!(trained.len(), 12);
    for (prompt, judges) in &trained {
        let by_people = MEDICAL.contains(&prompt.as_str()) || prompt == "train-05";
        assert_eq!(
            judges,
            &BTreeSet::from([if by_people { "human" } else { "mock" }.to_string()]),
            "{prompt}"
        );
    }
    let (_, told) = lab.done(&["run", "rlaif.toml", "--until", "dpo", "--set", "dpo.holdout_fraction=0"]);
    assert!(told.contains("label: done before") && told.contains("label: 0 pairs wait for people"), "{told}");
    assert_eq!(routing(&lab)["rules"]["five"], json!({"pairs": 3, "labelled": 3, "waiting": 0}));
    assert!(told.contains("steps on 36 preferences"), "{told}");
    assert_eq!(billed(&judge), 66);
}

/// Two judges of which one is always wrong: what they divide on is kept, or not, by the rule; nothing is bought for it.
#[test]
fn disagreement_sends_to_people_after_judges_have_spoken() {
    let (right, wrong) = (mock(1.0), mock(0.0));
    let judges = [asked("right", &right, "weight = 3.0"), asked("wrong", &wrong, "")].concat();
    let lab = lab(&judges, "[[route.rules]]\nname = \"divided\"\nto = \"both\"\ndisagree = true\n");
    let (_, told) = lab.done(&UNTIL_LABEL);
    assert!(told.contains("label: 36 pairs wait for people: rlaif review"), "{told}");
    assert!(told.contains("36 preferences of 36 pairs"), "{told}");
    assert_eq!(
        exported(&lab, "preferences").len(),
        36,
        "judges' labels are used until people have said something"
    );
    let bill = billed(&right) + billed(&wrong);

    lab.edit("to = \"both\"", "to = \"people\"");
    let (_, told) = lab.done(&UNTIL_LABEL);
    assert!(told.contains("0 preferences of 36 pairs (36 set aside)"), "{told}");
    let (_, told) = lab.ends_with(1, &["run", "rlaif.toml", "--until", "reward"]);
    assert!(
        told.contains("no preference is left to train on") && told.contains("hint: 36 pairs wait for people"),
        "{told}"
    );

    let uneven = "margin_below = 0.2";
    lab.edit("disagree = true", uneven);
    lab.done(&UNTIL_LABEL);
    assert_eq!(routing(&lab)["routes"], json!({"judges": 36}), "p is ¾ or ¼");
    lab.edit(uneven, "spread_above = 0.4");
    lab.done(&UNTIL_LABEL);
    assert_eq!(routing(&lab)["routes"], json!({"people": 36}), "p is 1 twice and 0 twice: ½");
    assert_eq!(billed(&right) + billed(&wrong), bill, "rules buy nothing");
}

/// A judge that rates and does not vote: unsafe is what it rates low, and nothing else.
#[test]
fn a_judge_of_safety_sends_to_people_and_does_not_vote() {
    let (judge, guard) = (mock(1.0), mock(1.0));
    let judges =
        [asked("mock", &judge, ""), asked("guard", &guard, "protocol = \"rating\"\nweight = 0.0")].concat();
    let lab = lab(&judges, "[[route.rules]]\nto = \"people\"\nunsafe_by = \"guard\"\nunsafe_below = 4.0\n");
    lab.done(&UNTIL_LABEL);
    let (ratings, preferences) = wait(async {
        let store = Store::open_read_only(lab.run_folder().join("rlaif.db")).await.unwrap();
        let verdicts = store.verdicts(TRAIN_PAIRS).await.unwrap();
        let rated =
            verdicts.into_iter().filter_map(|row| Some((row.pair_id, *row.verdict.scores.get("rating")?)));
        (rated.collect::<BTreeMap<_, _>>(), store.preferences(TRAIN_PAIRS).await.unwrap())
    });
    assert_eq!(ratings.len(), 36);
    for preference in &preferences {
        let (a, b) = ratings[&preference.pair_id];
        let want = if a < 4.0 || b < 4.0 { Fate::SetAside } else { Fate::Kept };
        assert_eq!(preference.fate, want, "{a} {b}");
        assert_eq!(preference.judges, ["mock"], "{preference:?}");
    }
    let aside = preferences.iter().filter(|preference| preference.fate == Fate::SetAside).count();
    assert!((1..36).contains(&aside), "{aside}");
    assert_eq!(routing(&lab)["rules"]["rule 1"]["waiting"], aside);
}

/// Where pairs are chosen by how sure a judge is, those that it is not asked about are chosen as often as others.
#[test]
fn a_choice_of_pairs_by_their_judge_is_neither_for_nor_against_people() {
    let judge = mock(1.0);
    let lab = lab(&asked("mock", &judge, ""), "[route]\nexpert_tags = [\"medical\"]\n");
    lab.edit("[label]", "[label]\npair_choice = \"least_sure\"\nmax_pairs = 18");
    lab.done(&UNTIL_LABEL);
    assert_eq!(billed(&judge), 48, "24 of the pool of 36, in both orders");
    let routes = routing(&lab)["routes"].clone();
    let people = routes["people"].as_u64().unwrap();
    assert!((1..12).contains(&people) && routes["judges"] == 18 - people, "{routes}");
}

/// People who say the opposite of the judges, or the same, of these pairs of the audit's order.
fn people_say(lab: &Lab, pairs: Range<usize>, opposite: bool) {
    wait(async {
        let store = Store::open(lab.run_folder().join("rlaif.db")).await.unwrap();
        let preferences = store.preferences(TRAIN_PAIRS).await.unwrap();
        let p: BTreeMap<String, f64> =
            preferences.into_iter().filter_map(|it| Some((it.pair_id, it.p?))).collect();
        let mut order: Vec<ReviewPair> = store.review_pairs(TRAIN_PAIRS).await.unwrap();
        order.sort_by_key(|pair| seed::derive(7, AUDIT_DRAW, pair.key.number()));
        for (i, ReviewPair { pair, .. }) in order.into_iter().enumerate().filter(|(i, _)| pairs.contains(i)) {
            let (prompt, a, b) = store.pair_texts(&pair.id).await.unwrap().unwrap();
            let choice =
                if (p[&pair.id] > 0.5) == opposite { HumanChoice::Second } else { HumanChoice::First };
            let verdict = NewHumanVerdict {
                prompt: &prompt,
                a: &a,
                b: &b,
                reviewer: "ada",
                queue: "audit",
                a_left: true,
                choice,
                criteria: &BTreeMap::new(),
                note: None,
                shown_ms: 0,
                judged_ms: i as i64,
            };
            store.put_human_verdict(&verdict).await.unwrap();
        }
        store.close().await.unwrap();
    });
}

#[test]
fn falling_agreement_raises_the_share_of_people() {
    let judge = mock(1.0);
    let route = "[route]\nrandom_share = 0.2\nmin_agreement = 0.8\nmax_share = 0.7\n";
    let lab = lab(&asked("mock", &judge, ""), route);
    lab.done(&UNTIL_LABEL);
    let pairs_of_people = |lab: &Lab| routing(lab)["routes"]["both"].as_u64().unwrap();
    let before = pairs_of_people(&lab);
    assert_eq!(
        (routing(&lab)["random_share"].as_f64(), routing(&lab)["agreement"].is_null()),
        (Some(0.2), true)
    );

    people_say(&lab, 20..36, true);
    people_say(&lab, 0..19, true);
    let (_, told) = lab.done(&UNTIL_LABEL);
    assert!(!told.contains("rises"), "too few to look: what stands behind a gap is no random sample: {told}");
    assert_eq!(routing(&lab)["agreement"]["n"].as_u64(), Some(19));
    people_say(&lab, 19..20, true);
    let (_, told) = lab.done(&UNTIL_LABEL);
    assert!(told.contains("label: done before"), "what is drawn moves no label of judges: {told}");
    assert!(
        told.contains(
            "people agree with the judges on 0 % of 20 pairs drawn at random (95 % 0 to 26), below \
             `route.min_agreement` = 0.8: the share that people are shown rises from 0.2 to 0.4"
        ),
        "{told}"
    );
    let numbers = routing(&lab);
    assert_eq!((numbers["random_share"].as_f64(), numbers["agreement"]["n"].as_u64()), (Some(0.4), Some(36)));
    assert!(pairs_of_people(&lab) > before);
    let server = Server::of(&lab, &[]);
    let page = server.person("bob").get("/").body;
    server.kill();
    assert!(page.contains(&format!("{} by `random share`", pairs_of_people(&lab))), "{page}");

    people_say(&lab, 0..36, false);
    let (_, told) = lab.done(&UNTIL_LABEL);
    assert!(!told.contains("rises"), "who took it back agrees now: {told}");
    assert_eq!(routing(&lab)["agreement"]["value"].as_f64(), Some(1.0));
    assert_eq!(billed(&judge), 72);
}

/// Rows of people in which the better response is the mock judge's better one too.
fn human_rows(n: usize) -> String {
    (0..n)
        .map(|i| {
            let row = json!({"prompt": format!("Ask {i}"), "chosen": format!("Yes {i} [q=0.9]"), "rejected": "No [q=0.1]"});
            format!("{row}\n")
        })
        .collect()
}

#[test]
fn judges_are_measured_on_what_people_said_elsewhere_before_their_labels_are_used() {
    let route = "[route]\nhuman_data = [\"human.jsonl\"]\nbootstrap = 25\nmin_agreement = 0.7\n";
    for (accuracy, kept, trained) in [(1.0, 36, 30 + 36), (0.0, 0, 30)] {
        let judge = mock(accuracy);
        let lab = lab(&asked("mock", &judge, ""), route);
        lab.write("human.jsonl", &human_rows(30));
        let (_, told) = lab.done(&["run", "rlaif.toml", "--until", "dpo", "--set", "dpo.holdout_fraction=0"]);
        assert_eq!(billed(&judge), 72 + 50, "25 of the 30 in both orders");
        let agreement = format!("judges agree with people on {} % of 25 pairs", 100.0 * accuracy);
        assert!(told.contains(&agreement), "{told}");
        assert!(told.contains(&format!("label: {kept} preferences of 36 pairs")), "{told}");
        assert!(told.contains("dpo: 30 pairs were labelled by people elsewhere"), "{told}");
        assert!(told.contains(&format!("steps on {trained} preferences")), "{told}");
        assert_eq!(routing(&lab)["imported_agreement"]["value"].as_f64(), Some(accuracy));
        let (_, again) = lab.done(&UNTIL_LABEL);
        assert_eq!(routing(&lab)["imported_agreement"]["value"].as_f64(), Some(accuracy), "{again}");
        assert_eq!(again.contains("36 pairs wait for people"), accuracy == 0.0, "{again}");
    }
}

#[test]
fn rows_of_people_weigh_more_and_never_are_of_the_evaluation() {
    let lab = Lab::new();
    lab.write("human.jsonl", &human_rows(16));
    let only = ["--set", "run.stages=reward,dpo,report", "--set", "route.human_data=human.jsonl"];
    let run = [&["run", "rlaif.toml"][..], &only].concat();
    let (_, told) = lab.done(&run);
    assert!(told.contains("reward: 16 pairs were labelled by people elsewhere"), "{told}");
    let (reward, dpo) = (lab.weights("reward"), lab.weights("dpo"));
    let (_, told) = lab.done(&run);
    assert!(told.contains("reward: done before") && told.contains("dpo: done before"), "{told}");
    // All weigh the same, so that a weight more moves nothing but the recipe; beside another source it does.
    let heavier = [&run[..], &["--set", "review.weight=4"]].concat();
    let (_, told) = lab.done(&heavier);
    assert!(told.contains("reward: computed again, since `review.weight` was 2.0, is 4.0"), "{told}");
    assert_eq!((lab.weights("reward"), lab.weights("dpo")), (reward.clone(), dpo.clone()));
    lab.write("mixed.jsonl", &human_rows(16).replace("Ask", "Tell me").replace("[q=0.9]", "perhaps"));
    let with = |weight: &str| {
        let mixed = ["--set", "reward.data=mixed.jsonl", "--set", "dpo.data=mixed.jsonl", "--set", weight];
        lab.done(&[&run[..], &mixed].concat());
        (lab.weights("reward"), lab.weights("dpo"))
    };
    let (two, four) = (with("review.weight=2"), with("review.weight=4"));
    assert!(two.0 != four.0 && two.1 != four.1, "both trainers weigh what people said");

    let leak = json!({"prompt": "tell  3!", "chosen": "Yes", "rejected": "No"});
    lab.write("human.jsonl", &format!("{}{leak}\n", human_rows(3)));
    let (_, told) = lab.ends_with(1, &["run", "rlaif.toml", "--set", "route.human_data=human.jsonl"]);
    assert!(
        told.contains("1 rows of `route.human_data` are about prompts that the evaluation holds out"),
        "{told}"
    );
    assert!(told.contains("human.jsonl:4"), "{told}");
}

/// What judges score while a policy is tuned is a label of theirs too.
#[test]
fn judges_do_not_score_what_is_said_to_prompts_for_experts() {
    let judge = mock(1.0);
    let lab = lab(&asked("mock", &judge, ""), "[route]\nexpert_tags = [\"medical\"]\n");
    let live = [
        "--set",
        "run.stages=ppo,report",
        "--set",
        "ppo.rewards[0].kind=judges",
        "--set",
        "ppo.steps=2",
        "--set",
        "ppo.prompts_per_step=8",
    ];
    lab.done(&[&["run", "rlaif.toml"][..], &live].concat());
    let prompts: BTreeSet<String> = wait(async {
        let store = Store::open_read_only(lab.run_folder().join("rlaif.db")).await.unwrap();
        let sets = store.pair_sets().await.unwrap();
        let mut prompts = BTreeSet::new();
        for set in sets.iter().filter(|set| set.starts_with(LIVE)) {
            prompts.extend(store.pairs(set).await.unwrap().into_iter().map(|pair| pair.prompt_id));
        }
        prompts
    });
    assert_eq!(prompts.len(), 8, "{prompts:?}");
    assert!(MEDICAL.iter().all(|prompt| !prompts.contains(*prompt)), "{prompts:?}");
}

#[test]
fn without_rules_no_recipe_knows_of_them() {
    let lab = Lab::new();
    lab.done(&["run", "rlaif.toml", "--until", "reward"]);
    let stages = manifest(&lab)["stages"].to_string();
    assert!(!stages.contains("route") && !stages.contains("routing"), "{stages}");
}
