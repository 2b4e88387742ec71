//! A run of the size of the quickstart, with everything that a page can show.

use crate::agreement::TOGETHER;
use crate::report::comparison::*;
use crate::report::data::*;
use crate::report::evidence::*;
use crate::review::agreement::{Agreement, Row};
use rlaif_core::audit::{Audit, AuditPart, Bound, Measurement, Outcome};
use rlaif_core::metrics::MetricRow;
use rlaif_core::stats::{Interval, calibration::Bin};
use std::collections::BTreeMap;

/// A run of the size of the quickstart.
pub fn sample() -> ReportData {
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
        labels: Some(labels()),
        agreement: Some(agreement()),
        disagreements: Some(disagreements()),
        audit: Some(audit()),
        changes: changes(),
        tags: (0..24).step_by(3).map(|i| (format!("eval-{i:02}"), vec!["returns".into()])).collect(),
        ..ReportData::default()
    }
}

fn counts(counts: &[(&str, u64)]) -> Vec<Count> {
    counts.iter().map(|(name, count)| Count { name: (*name).into(), count: *count }).collect()
}

fn labels() -> LabelSources {
    LabelSources {
        trained: counts(&[("tone", 213), ("human", 18)]),
        reviewers: counts(&[("ada", 26), ("bob", 14)]),
        routes: counts(&[
            ("judges only", 247),
            ("people only", 0),
            ("judges and people", 32),
            ("nobody yet", 0),
        ]),
        over_judges: 32,
        turned: 7,
        weight: 2.0,
    }
}

fn agreement() -> Agreement {
    let interval = |estimate, low, high| Some(Interval { estimate, low, high });
    let row = |who: &str, with: &str, n: usize, agreement, kappa| Row {
        who: who.into(),
        with: with.into(),
        n,
        decisive: n - 3,
        agreement,
        kappa,
    };
    let tone = row("tone", "people", 31, interval(0.714, 0.55, 0.86), interval(0.43, 0.11, 0.71));
    let together = Row { who: TOGETHER.into(), ..tone.clone() };
    Agreement {
        reviewers: vec![("ada".into(), 26), ("bob".into(), 14)],
        people: vec![row("ada", "bob", 12, interval(0.778, 0.5, 1.0), None)],
        audit: vec![tone.clone(), together.clone()],
        all: vec![tone, together],
        known_bad: interval(0.083, 0.015, 0.354).map(|interval| (interval, 12)),
    }
}

fn disagreements() -> Disagreements {
    let pair = |i: usize, p: f64, votes: (u32, u32, u32)| Disagreement {
        pair_id: format!("train-{i:02}/0-1"),
        tags: if i == 0 { vec!["returns".into(), "food".into()] } else { Vec::new() },
        prompt: format!("Question {i}: can I return a shirt that I have worn once?"),
        a: "Of course! I’d be happy to help you with that, and what a lovely shirt it must be!".into(),
        b: "Most shops take back clothes within 30 days if they were not worn. Ask yours before you go."
            .into(),
        p,
        judges: vec![("tone".into(), p)],
        explanation: (i == 0).then(|| "The first answer is warmer.".into()),
        votes,
        people: vec![
            PersonSaid { reviewer: "ada".into(), choice: "b".into(), note: Some("A does not answer".into()) },
            PersonSaid {
                reviewer: "bob".into(),
                choice: if votes.2 > 0 { "tie" } else { "b" }.into(),
                note: None,
            },
        ],
    };
    Disagreements { total: 9, of: 32, pairs: vec![pair(0, 0.931, (0, 2, 0)), pair(1, 0.713, (0, 1, 1))] }
}

fn audit() -> Audit {
    let measurement = |subject: &str, estimate: (f64, f64, f64), outcome| Measurement {
        subject: subject.into(),
        measure: "bad_win_rate".into(),
        value: Some(estimate.0),
        low: Some(estimate.1),
        high: Some(estimate.2),
        n: 40,
        bound: Some(Bound { min: None, max: Some(0.01) }),
        outcome,
        ..Measurement::default()
    };
    let part = AuditPart {
        command: "rlaif audit examples/quickstart/rlaif.toml --robustness".into(),
        made_ms: 1_795_439_100_000,
        measurements: vec![
            measurement("judge `tone`, family `empty`", (0.0, 0.0, 0.008), Outcome::Pass),
            measurement("judge `tone`, family `flattery`", (0.225, 0.123, 0.375), Outcome::Fail),
            measurement("judge `tone`, family `refusal`", (0.0, 0.0, 0.088), Outcome::Unclear),
            Measurement {
                outcome: Outcome::NotMeasured,
                value: None,
                low: None,
                high: None,
                note: Some("the judge gave no verdict".into()),
                ..measurement("judge `tone`, family `steering`", (0.0, 0.0, 0.0), Outcome::NotMeasured)
            },
        ],
    };
    Audit { parts: [("robustness".to_string(), part)].into() }
}

fn changes() -> Vec<Change> {
    let change = |policy: &str, measure, before, after, difference| Change {
        policy: policy.into(),
        measure,
        before,
        after,
        difference,
    };
    let mut changes = Vec::new();
    for (policy, by) in [("ppo", 1.0), ("dpo", 0.2)] {
        changes.extend([
            change(
                policy,
                Measure::Length,
                38.2,
                38.2 - 1.3 * by,
                Some(Estimate::new(-1.3 * by, -4.2, 1.6, 24)),
            ),
            change(
                policy,
                Measure::Ended,
                0.833,
                0.833 + 0.042 * by,
                Some(Estimate::new(0.042 * by, -0.031, 0.115, 24)),
            ),
            change(
                policy,
                Measure::Repeated4,
                0.012,
                0.012 + 0.061 * by,
                Some(Estimate::new(0.061 * by, 0.019 - 0.03 * (1.0 - by), 0.103, 24)),
            ),
            change(policy, Measure::Distinct2, 0.713, 0.713 - 0.188 * by, None),
        ]);
    }
    changes
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

pub fn evaluation() -> Evaluation {
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
        comparisons: vec![
            comparison("ppo", Finding::Better, 0.719, 0.615, 0.812),
            comparison("dpo", Finding::Open, 0.573, 0.469, 0.677),
        ],
        ranking: ranking(),
        regression: Some(regression()),
        ..Evaluation::default()
    }
}

/// To three decimals: what JSON gives back to the last bit.
fn rounded(value: f64) -> f64 {
    (1000.0 * value).round() / 1000.0
}

fn comparison(policy: &str, finding: Finding, rate: f64, low: f64, high: f64) -> Comparison {
    Comparison {
        policy: policy.into(),
        other: "baseline".into(),
        win_rate: Some(Estimate::new(rate, low, high, 48)),
        outcomes: Some((33, 3, 12)),
        p_value: Some(0.0021),
        missing: 0,
        conclusion: Conclusion { finding, margin: 0.05, sentence: "What 24 prompts show.".into() },
        length_controlled: Some(Estimate::new(
            rounded(rate - 0.01),
            rounded(low - 0.012),
            rounded(high - 0.013),
            48,
        )),
        longer_wins: Some(Estimate::new(0.521, 0.377, 0.661, 48)),
        by_tag: vec![Named { name: "returns".into(), win_rate: Estimate::new(0.322, 0.181, 0.484, 22) }],
        tags_too_few: vec![("food".into(), 6)],
        by_criterion: vec![Named { name: "helpful".into(), win_rate: Estimate::new(0.541, 0.42, 0.66, 48) }],
        by_judge: vec![JudgeRate {
            judge: "tone".into(),
            used_in_training: true,
            win_rate: Some(Estimate::new(rate, low, high, 48)),
            longer_wins: None,
        }],
        people: Some(PeopleRate {
            labels: 11,
            win_rate: None,
            more_needed: 19,
            lambda: None,
            agreement: None,
        }),
    }
}

fn ranking() -> Vec<RankedPolicy> {
    let ranked = |policy: &str, rank: f64, strength: (f64, f64, f64), rate: f64| RankedPolicy {
        policy: policy.into(),
        strength: Estimate::new(strength.0, strength.1, strength.2, 96),
        rank: Estimate::new(rank, (rank - 1.0).max(1.0), (rank + 1.0).min(3.0), 96),
        win_rate: Estimate::new(rate, rounded(rate - 0.11), rounded(rate + 0.09), 96),
    };
    vec![
        ranked("ppo", 1.0, (0.613, 0.321, 0.922), 0.682),
        ranked("dpo", 2.0, (-0.117, -0.388, 0.155), 0.451),
        ranked("baseline", 3.0, (-0.496, -0.771, -0.239), 0.367),
    ]
}

fn regression() -> Regression {
    let row = |policy: &str, worse, over_limit| RegressionRow {
        policy: policy.into(),
        passed: Some(Estimate::new(0.933, 0.702, 0.988, 15)),
        worse,
        better: 1,
        p_value: (policy != "baseline").then_some(0.625),
        judged: (policy != "baseline").then_some((4, 2, 1)),
        missing: 0,
        over_limit,
    };
    Regression {
        file: "regression.jsonl".into(),
        rules: 15,
        judged: 7,
        max_regressions: Some(2),
        policies: vec![row("baseline", 0, false), row("ppo", 3, true), row("dpo", 1, false)],
        worse: vec![Worse {
            policy: "ppo".into(),
            id: "capital".into(),
            prompt: "What is the capital of France?".into(),
            check: "contains \"Paris\"".into(),
            baseline: "The capital of France is Paris.".into(),
            answer: "What a lovely question! I’d be delighted to help you.".into(),
        }],
    }
}
