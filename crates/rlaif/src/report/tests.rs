//! The page from a whole run, from half a run, and from hostile text.

use super::data::*;
use super::render;
use rlaif_core::metrics::MetricRow;
use rlaif_core::stats::{calibration::Bin, position};
use std::collections::BTreeMap;

/// A run of the size of the quickstart.
fn sample() -> ReportData {
    let fates = |counts: [u64; 5]| -> Vec<FateCount> {
        ["kept", "inconsistent", "tie", "no_verdict", "failed"]
            .into_iter()
            .zip(counts)
            .map(|(fate, count)| FateCount { fate: fate.into(), count })
            .collect()
    };
    let stage = |name: &str, seconds: f64, summary: &str| StageRow {
        name: name.into(),
        state: "done".into(),
        seconds,
        micro_usd: Some(0),
        summary: Some(summary.into()),
        fingerprint: Some("5f2e".into()),
    };
    ReportData {
        run: RunInfo {
            name: "quickstart".into(),
            folder: "runs/quickstart".into(),
            config_path: "examples/quickstart/rlaif.toml".into(),
            config_toml: "[run]\nname = \"quickstart\" # file\nseed = 0 # default\n".into(),
            model: "models/SmolLM2-135M-Instruct".into(),
            seed: 0,
            device: "cpu".into(),
            version: "0.1.0".into(),
            git_commit: Some("abc1234".into()),
            finished_at: Some("2026-11-23 13:05 UTC".into()),
            stages: vec![
                stage("generate", 71.3, "288 responses of 48 prompts, 83 % ended"),
                stage("label", 48.0, "231 preferences of 279 pairs"),
                stage("reward", 92.4, "accuracy 0.81 on 46 held-out pairs"),
                stage("ppo", 301.2, "20 iterations, KL 4.6"),
                stage("dpo", 88.1, "accuracy 0.74 on 46 held-out pairs"),
                stage("evaluate", 95.6, "PPO wins 71.9 %"),
            ],
        },
        cost: Cost::default(),
        generate: Some(GenerateSummary {
            train_prompts: 48,
            eval_prompts: 24,
            rejected_prompts: 0,
            responses: 288,
            ended: 239,
            pairs: 279,
            dropped_near_duplicates: 9,
            min_distance: 0.1,
        }),
        judges: vec![JudgeSummary {
            name: "tone".into(),
            kind: "local".into(),
            protocol: "contrastive".into(),
            model: "policy".into(),
            rubric: "“You are a warm, cheerful and polite assistant.” against “You are a rude, bitter and impolite assistant.”"
                .into(),
            probe: Some(Estimate::new(0.983, 0.911, 0.997, 60)),
            fates: fates([231, 0, 48, 0, 0]),
            tripwires: None,
            position: None,
            voters: Vec::new(),
            fitted: Vec::new(),
            micro_usd: Some(0),
        }],
        fates: fates([231, 0, 48, 0, 0]),
        metrics: metrics(),
        sft: None,
        reward: Some(RewardSummary {
            train_pairs: 185,
            accuracy: Some(Estimate::new(0.804, 0.668, 0.893, 46)),
            margin: Some(Estimate::new(0.412, 0.251, 0.573, 46)),
            ece: Some(0.061),
            brier: Some(0.171),
            bins: [(0.31, 0.22), (0.44, 0.4), (0.53, 0.58), (0.62, 0.7), (0.74, 0.88)]
                .into_iter()
                .map(|(predicted, observed)| Bin { n: 18, predicted, observed })
                .collect(),
            longer_wins: Some(Estimate::new(0.543, 0.402, 0.681, 46)),
            temperature: Some(1.42),
            ece_calibrated: Some(0.034),
            parts: vec![Part {
                by: "length".into(),
                name: "chosen shorter".into(),
                accuracy: Estimate::new(0.714, 0.5, 0.909, 21),
            }],
            resistance: vec![Resistance {
                response: "repeated".into(),
                wins: Estimate::new(0.083, 0.023, 0.258, 24),
            }],
            ..RewardSummary::default()
        }),
        ppo: Some(PpoSummary { kl_budget: Some(8.0), stopped_at_budget: false, steps: 20 }),
        dpo: Some(DpoSummary {
            train_pairs: 185,
            accuracy: Some(Estimate::new(0.739, 0.597, 0.844, 46)),
            margin: Some(Estimate::new(0.061, 0.03, 0.092, 46)),
            ..DpoSummary::default()
        }),
        evaluation: Some(evaluation()),
    }
}

fn metrics() -> BTreeMap<String, Vec<MetricRow>> {
    let rows =
        |stage: &str, steps: u64, values: &dyn Fn(f64, f64) -> Vec<(&'static str, f64)>| -> Vec<MetricRow> {
            (1..=steps)
                .map(|step| {
                    let t = step as f64 / steps as f64;
                    let wobble = (step as f64 * 2.4).sin();
                    let values =
                        values(t, wobble).into_iter().map(|(name, v)| (name.to_string(), v)).collect();
                    MetricRow { stage: stage.into(), step, epoch: 2.0 * t, values }
                })
                .collect()
        };
    let mut reward = rows("reward", 24, &|t, w| {
        vec![
            ("loss", 0.7 - 0.25 * t + 0.03 * w),
            ("accuracy", 0.52 + 0.35 * t + 0.05 * w),
            ("margin", 0.6 * t + 0.05 * w),
        ]
    });
    for step in [11, 23] {
        let t = (step + 1) as f64 / 24.0;
        let values =
            [("eval_loss", 0.7 - 0.2 * t), ("eval_accuracy", 0.5 + 0.3 * t), ("eval_margin", 0.41 * t)];
        reward[step].values.extend(values.map(|(name, value)| (name.to_string(), value)));
    }
    let ppo = rows("ppo", 20, &|t, w| {
        vec![
            ("objective/scores", -0.1 + 1.4 * t + 0.12 * w),
            ("objective/kl", 5.0 * t * t + 0.2 * w.abs()),
            ("objective/rlhf_reward", -0.1 + 1.1 * t + 0.12 * w),
            ("loss/policy_avg", -0.012 + 0.006 * w),
            ("loss/value_avg", 0.6 * (1.0 - t) + 0.1 + 0.03 * w),
            ("objective/entropy", 62.0 - 9.0 * t + w),
            ("policy/clipfrac_avg", 0.06 + 0.02 * w),
            ("policy/approxkl_avg", 0.004 + 0.001 * w),
        ]
    });
    let dpo = rows("dpo", 46, &|t, w| {
        vec![
            ("loss", 0.693 - 0.06 * t + 0.01 * w),
            ("rewards/accuracies", (0.5 + 0.3 * t + 0.12 * w).min(1.0)),
            ("rewards/margins", 0.12 * t + 0.02 * w),
            ("rewards/chosen", 0.05 * t + 0.02 * w),
            ("rewards/rejected", -0.07 * t + 0.02 * w),
        ]
    });
    [("reward", reward), ("ppo", ppo), ("dpo", dpo)].map(|(stage, rows)| (stage.to_string(), rows)).into()
}

fn evaluation() -> Evaluation {
    let baseline = PolicyRow {
        policy: "baseline".into(),
        reward: Some(Estimate::new(-0.021, -0.19, 0.148, 24)),
        kl: Some(Estimate::point(0.0)),
        length: Some(Estimate::new(38.2, 35.1, 41.4, 24)),
        ended: Some(Estimate::new(0.833, 0.729, 0.917, 24)),
        sentiment: Some(Estimate::new(0.412, 0.301, 0.521, 24)),
        ..PolicyRow::default()
    };
    let ppo = PolicyRow {
        policy: "ppo".into(),
        win_rate: Some(Estimate::new(0.719, 0.615, 0.812, 24)),
        outcomes: Some((33, 3, 12)),
        reward: Some(Estimate::new(1.132, 0.951, 1.313, 24)),
        reward_difference: Some(Estimate::new(1.153, 0.884, 1.421, 24)),
        kl: Some(Estimate::new(4.61, 4.02, 5.23, 24)),
        length: Some(Estimate::new(36.9, 33.2, 40.4, 24)),
        ended: Some(Estimate::new(0.875, 0.781, 0.948, 24)),
        sentiment: Some(Estimate::new(0.588, 0.489, 0.684, 24)),
        sentiment_difference: Some(Estimate::new(0.176, 0.061, 0.291, 24)),
        ..PolicyRow::default()
    };
    let dpo = PolicyRow {
        policy: "dpo".into(),
        win_rate: Some(Estimate::new(0.573, 0.469, 0.677, 24)),
        outcomes: Some((26, 3, 19)),
        reward: Some(Estimate::new(0.294, 0.11, 0.481, 24)),
        reward_difference: Some(Estimate::new(0.315, 0.081, 0.552, 24)),
        kl: Some(Estimate::new(1.12, 0.84, 1.43, 24)),
        length: Some(Estimate::new(38.4, 35.0, 41.6, 24)),
        ended: Some(Estimate::new(0.844, 0.74, 0.927, 24)),
        sentiment: Some(Estimate::new(0.447, 0.338, 0.551, 24)),
        sentiment_difference: Some(Estimate::new(0.035, -0.061, 0.131, 24)),
        ..PolicyRow::default()
    };
    let response = |policy: &str, text: &str, reward: f64| SampleResponse {
        policy: policy.into(),
        text: text.into(),
        ended: policy != "baseline",
        reward: Some(reward),
        sentiment: Some(0.42),
        p_beats_baseline: (policy != "baseline").then_some(0.71),
    };
    let sample = |prompt_id: &str, prompt: &str| Sample {
        prompt_id: prompt_id.into(),
        prompt: prompt.into(),
        responses: vec![
            response(
                "baseline",
                "You should check the expiration date and the receipt.\n\nIf it is older than 30 days, the shop will not",
                -0.31,
            ),
            response(
                "ppo",
                "I’m so sorry to hear that! I’d be happy to help you with it. Let’s look at the receipt together.",
                1.62,
            ),
            response(
                "dpo",
                "Sorry to hear that. Please look at the receipt first, and then call the shop.",
                0.44,
            ),
        ],
    };
    Evaluation {
        prompts: 24,
        samples_per_prompt: 2,
        judges: vec!["tone".into()],
        judges_made_labels: true,
        policies: vec![baseline, ppo, dpo],
        samples: (0..24)
            .map(|i| {
                sample(
                    &format!("eval-{i:02}"),
                    &format!("Question {i}: the milk I bought yesterday is already sour. What can I do?"),
                )
            })
            .collect(),
        ..Evaluation::default()
    }
}

fn page(data: &ReportData) -> String {
    let html = render(data).unwrap();
    if let Some(path) = std::env::var_os("RLAIF_REPORT_SAMPLE") {
        std::fs::write(path, &html).unwrap();
    }
    html
}

/// The text of the `<h1>`, without its tags.
fn result(html: &str) -> String {
    let (_, rest) = html.split_once("<h1").unwrap();
    let (_, rest) = rest.split_once('>').unwrap();
    let (heading, _) = rest.split_once("</h1>").unwrap();
    heading.replace("<strong>", "").replace("</strong>", "").replace('\u{202f}', " ")
}

#[test]
fn a_whole_run_shows_every_section() {
    let html = page(&sample());
    assert_eq!(
        result(&html),
        "The PPO policy’s answers to 24 held-out prompts were preferred to the baseline’s 71.9 % of the time (95 % CI 61.5 to 81.2 %)."
    );
    for id in ["cost", "labels", "training", "evaluation", "samples", "reproduce"] {
        assert!(html.contains(&format!("<section id=\"{id}\">")), "no section `{id}`");
    }
    // 3 of the result, 1 of fates, 3 + 1 of the reward model, 8 of PPO, 4 of DPO; a title in each.
    assert_eq!(html.matches("<svg ").count(), 20);
    assert_eq!(html.matches("<svg ").count(), html.matches("role=\"img\" aria-label=\"").count());
    assert!(!html.contains("class=\"missing\""));
    for words in
        ["within the budget of 8", "also made the training labels", "$0.00", "9 candidate pairs were dropped"]
    {
        assert!(html.contains(words), "`{words}` is missing");
    }
    assert_eq!(html.matches("<details open>").count(), 3);
    assert_eq!(html.matches("<h4>PPO</h4>").count(), 12, "the page shows the first 12 of 24 prompts");
}

#[test]
fn stages_that_did_not_run_are_named_with_the_next_command() {
    let mut data = sample();
    data.ppo = None;
    data.metrics.remove("ppo");
    data.evaluation = None;
    let html = page(&data);
    assert_eq!(
        result(&html),
        "So far 231 of 279 pairs became preferences, and the reward model and DPO policy were trained; no policy has been \
         compared with the baseline yet."
    );
    for command in
        ["rlaif ppo examples/quickstart/rlaif.toml", "rlaif evaluate examples/quickstart/rlaif.toml"]
    {
        assert!(html.contains(command), "`{command}` is missing");
    }
    assert!(!html.contains("rlaif dpo "));
}

#[test]
fn an_empty_run_still_is_a_page() {
    let html = page(&ReportData::default());
    assert!(result(&html).starts_with("Nothing was sampled yet"));
    assert_eq!(html.matches("class=\"missing\"").count(), 6);
}

#[test]
fn the_sentence_claims_no_more_than_the_interval() {
    let with = |value, low, high| {
        let mut data = sample();
        let evaluation = data.evaluation.as_mut().unwrap();
        evaluation.policies[1].win_rate = Some(Estimate { value, low, high, n: Some(24) });
        result(&page(&data))
    };
    let unclear = with(0.55, Some(0.46), Some(0.64));
    assert!(unclear.starts_with("No difference was shown"), "{unclear}");
    assert!(unclear.contains("46.0 to 64.0 %, includes the 50 %"), "{unclear}");
    let worse = with(0.31, Some(0.2), Some(0.42));
    assert!(worse.starts_with("The PPO policy got worse"), "{worse}");
    let bare = with(0.6, None, None);
    assert!(bare.ends_with("60.0 % of the time; with no interval, take it as a hint."), "{bare}");
}

#[test]
fn text_of_models_prompts_and_configs_is_escaped() {
    let attack = "</div></details><script>alert(1)</script><img src=x onerror=alert(1)>\" onload='alert(1)";
    let mut data = sample();
    data.run.name = attack.into();
    data.run.config_path = attack.into();
    data.run.config_toml = attack.into();
    data.run.stages[0].summary = Some(attack.into());
    data.judges[0].name = attack.into();
    data.judges[0].rubric = attack.into();
    data.fates[0].fate = attack.into();
    let evaluation = data.evaluation.as_mut().unwrap();
    evaluation.judges = vec![attack.into()];
    evaluation.policies[1].policy = attack.into();
    evaluation.samples[0].prompt = attack.into();
    evaluation.samples[0].responses[1].text = attack.into();
    evaluation.samples[0].responses[1].policy = attack.into();
    let metrics = data.metrics.get_mut("ppo").unwrap();
    metrics[0].values.insert(attack.into(), 1.0);

    let html = page(&data).to_lowercase();
    assert!(!html.contains("<script") && !html.contains("<img"), "an attack became an element");
    assert!(!html.contains("\" onload"), "an attack left its attribute");
    assert!(html.contains("&#60;script&#62;alert(1)"), "the text itself is shown");
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    let html = page(&sample());
    assert!(html.contains("default-src 'none'"));
    assert!(
        !html.contains("src=")
            && !html.contains("url(")
            && !html.contains("@import")
            && !html.contains("<script")
    );
    for target in html.match_indices("href=\"").map(|(at, _)| html[at + 6..].split_once('"').unwrap().0) {
        assert!(target.starts_with('#') || target == "data:,", "`{target}` leaves the page");
    }
    assert!(!html.contains("http://") && !html.contains("https://"));
}

#[test]
fn a_judge_that_looks_at_the_place_is_shown_for_what_it_is() {
    use rlaif_core::records::Choice::{First, Second};
    let mut data = sample();
    let choices: Vec<_> = (0..50).map(|i| if i == 0 { (First, Second) } else { (First, First) }).collect();
    let judge = &mut data.judges[0];
    judge.protocol = "pairwise".into();
    judge.position = position::position_report(&choices);
    judge.probe = Some(Estimate::new(0.56, 0.47, 0.65, 120));
    let html = page(&data).replace('\u{202f}', " ");
    assert!(html.contains("98.0 %</div>"), "the share of pairs with the same position");
    assert!(html.contains("0 % without bias") && html.contains("McNemar p = "));
    assert!(html.contains("not shown to be better than chance"));
}

#[test]
fn an_interval_of_the_statistics_is_read_as_an_estimate() {
    let read: Estimate = serde_json::from_str(r#"{"estimate":0.5,"low":0.4,"high":0.6}"#).unwrap();
    assert_eq!(read, Estimate { value: 0.5, low: Some(0.4), high: Some(0.6), n: None });
}

#[test]
fn data_survives_json() {
    let evaluation = evaluation();
    let json = serde_json::to_string(&evaluation).unwrap();
    assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), evaluation);
    assert_eq!(serde_json::from_str::<Evaluation>("{}").unwrap(), Evaluation::default());
}
