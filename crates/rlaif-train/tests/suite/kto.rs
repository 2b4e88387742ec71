//! KTO on single responses: five steps beside TRL 1.16 (`golden/make_kto_steps.py`), and what training must not depend on.

use crate::common::{
    Recorder, assert_near, assert_within, bits, constant, golden, golden_pairs, llama, preferences,
    weighted_pairs,
};
use rlaif_core::config::{DpoConfig, DpoLossKind};
use rlaif_core::metrics::{self, MetricRow};
use rlaif_train::kto_trainer::{KtoStep, ReferencedResponse};
use rlaif_train::{KtoTrainer, ResponseExample, Silent, sequence_logps, train_kto};

const LEARNING_RATE: f64 = 1e-3;

fn config(loss: DpoLossKind) -> DpoConfig {
    DpoConfig { loss, optim: constant(LEARNING_RATE), ..DpoConfig::default() }
}

fn referenced(rows: &[ResponseExample]) -> Vec<ReferencedResponse<'_>> {
    let items: Vec<_> =
        rows.iter().map(|row| (row.prompt_ids.as_slice(), row.response_ids.as_slice())).collect();
    let logps = sequence_logps(&llama(), &items, 64).unwrap();
    rows.iter().zip(logps).map(|(example, reference)| ReferencedResponse { example, reference }).collect()
}

/// The two responses of each of the twelve preferences.
fn responses() -> Vec<ResponseExample> {
    preferences().into_iter().flat_map(ResponseExample::of_pair).collect()
}

#[test]
fn steps_are_trls_whatever_the_micro_batch() {
    let trl = golden("kto_steps.json");
    let pairs = golden_pairs(&golden("training_steps.json"));
    let rows: Vec<ResponseExample> = trl["rows"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|step| step.as_array().unwrap())
        .map(|row| {
            let desirable = row[1].as_bool().unwrap();
            let [chosen, rejected] =
                ResponseExample::of_pair(pairs[row[0].as_u64().unwrap() as usize].clone());
            if desirable { chosen } else { rejected }
        })
        .collect();
    let rows = referenced(&rows);
    let number = |name: &str| trl[name].as_f64().unwrap();
    for loss in [DpoLossKind::Kto, DpoLossKind::ApoZeroUnpaired] {
        let log = trl["log"][loss.name()].as_array().unwrap();
        assert_eq!(log.len(), 5);
        for micro_batch_size in [1, 3, 4] {
            let config = DpoConfig {
                micro_batch_size,
                beta: Some(number("beta")),
                desirable_weight: number("desirable_weight"),
                undesirable_weight: number("undesirable_weight"),
                ..config(loss)
            };
            let mut trainer = KtoTrainer::new(llama(), &config, 0).unwrap();
            for (i, want) in log.iter().enumerate() {
                let got = trainer.update(&rows[4 * i..4 * i + 4], None, LEARNING_RATE, i as u64 + 1).unwrap();
                let near = |metric: &str, got: f64| {
                    let what = format!(
                        "{metric} of {}, step {}, micro-batch {micro_batch_size}",
                        loss.name(),
                        i + 1
                    );
                    assert_near(&what, got, want[metric].as_f64().unwrap());
                };
                assert_within("loss", got.loss, want["loss"].as_f64().unwrap(), 1e-4);
                near("grad_norm", got.grad_norm);
                assert_eq!(got.desirable.is_some(), want["rewards/chosen"].is_number());
                if let Some(side) = got.desirable {
                    near("rewards/chosen", side.reward);
                    near("logps/chosen", side.logps);
                }
                let side = got.undesirable.unwrap();
                near("rewards/rejected", side.reward);
                near("logps/rejected", side.logps);
                assert_eq!(got.kl.is_some(), loss == DpoLossKind::Kto);
                near("kl", got.kl.unwrap_or(0.0));
            }
        }
    }
}

fn four_steps(config: &DpoConfig, rows: &[ReferencedResponse<'_>]) -> Vec<KtoStep> {
    let mut trainer = KtoTrainer::new(llama(), config, 0).unwrap();
    (1..=4).map(|step| trainer.update(rows, None, LEARNING_RATE, step).unwrap()).collect()
}

/// With soft labels, since these responses are desirable with p.
#[test]
fn the_loss_falls_and_micro_batches_change_nothing() {
    let rows = responses();
    let rows = referenced(&rows);
    for loss in [DpoLossKind::Kto, DpoLossKind::ApoZeroUnpaired] {
        let steps = |micro_batch_size| four_steps(&DpoConfig { micro_batch_size, ..config(loss) }, &rows);
        let (whole, parts) = (steps(24), steps(5));
        assert!(whole[3].loss < whole[0].loss, "{}: {whole:?}", loss.name());
        for (whole, parts) in whole.iter().zip(&parts) {
            assert_near("loss", parts.loss, whole.loss);
            assert_near("gradient", parts.grad_norm, whole.grad_norm);
            assert_near("kl", parts.kl.unwrap_or(0.0), whole.kl.unwrap_or(0.0));
        }
    }
}

#[test]
fn stopped_and_resumed_comes_to_the_same_bits() {
    let config = DpoConfig {
        batch_size: 5,
        micro_batch_size: 2,
        save_steps: 2,
        epochs: 2,
        ..config(DpoLossKind::Kto)
    };
    let train = |dir: &std::path::Path, hooks: &mut Recorder| {
        train_kto(llama(), &responses(), &config, 5, dir, hooks).unwrap().finished()
    };
    let (straight_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut all = Recorder::default();
    let straight = train(straight_dir.path(), &mut all).unwrap();
    let mut rows = Vec::new();
    let resumed = loop {
        let mut hooks = Recorder::stopping_after(2);
        let trained = train(dir.path(), &mut hooks);
        rows.extend(hooks.rows);
        match trained {
            Some(trained) => break trained,
            None => assert_eq!(rows.len() % 2, 0),
        }
    };
    assert!(rows.len() > 4 && bits(&straight.policy) == bits(&resumed.policy));
    let lines = |rows: &[MetricRow]| rows.iter().map(MetricRow::to_json_line).collect::<Vec<_>>();
    assert_eq!(lines(&rows), lines(&all.rows));
    let last = &rows.last().unwrap().values;
    assert!(last[metrics::KL] >= 0.0 && last[metrics::EVAL_REWARDS_ACCURACIES] >= 0.0);
    assert_eq!(straight.report.holdout.len(), 6, "both responses of the three pairs of one prompt");
}

/// The two responses of a weighted pair weigh what it does.
#[test]
fn weighted_steps_are_torchs() {
    let golden_steps = golden("dpo_weighted.json");
    let rows: Vec<ResponseExample> =
        weighted_pairs(&golden_steps).into_iter().flat_map(ResponseExample::of_pair).collect();
    let rows = referenced(&rows);
    let config = DpoConfig { micro_batch_size: 3, ..config(DpoLossKind::ApoZeroUnpaired) };
    let mut trainer = KtoTrainer::new(llama(), &config, 0).unwrap();
    for (i, want) in golden_steps["log"]["apo_zero_unpaired"].as_array().unwrap().iter().enumerate() {
        let got = trainer.update(&rows[4 * i..4 * i + 4], None, LEARNING_RATE, i as u64 + 1).unwrap();
        assert_near(&format!("loss, step {}", i + 1), got.loss, want["loss"].as_f64().unwrap());
        assert_near(
            &format!("grad_norm, step {}", i + 1),
            got.grad_norm,
            want["grad_norm"].as_f64().unwrap(),
        );
    }
}

/// What is held out is ranked as it should be after a few passes, by both losses.
#[test]
fn held_out_responses_come_to_their_side_of_the_reference_point() {
    for loss in [DpoLossKind::Kto, DpoLossKind::ApoZeroUnpaired] {
        let config =
            DpoConfig { epochs: 6, batch_size: 6, soft_labels: false, beta: Some(0.5), ..config(loss) };
        let dir = tempfile::tempdir().unwrap();
        let trained = train_kto(llama(), &responses(), &config, 1, dir.path(), &mut Silent).unwrap();
        let report = trained.finished().unwrap().report;
        assert!(report.accuracy > 0.8 && report.margin > 0.0, "{}: {report:?}", loss.name());
    }
}

#[test]
fn what_cannot_be_learnt_from_is_refused() {
    let train = |rows: &[ResponseExample], loss| {
        let dir = tempfile::tempdir().unwrap();
        train_kto(llama(), rows, &config(loss), 1, dir.path(), &mut Silent).unwrap_err().to_string()
    };
    let rows = responses();
    assert!(
        train(&rows, DpoLossKind::Sigmoid).contains("the loss `sigmoid` cannot learn from single responses")
    );
    assert!(train(&rows[..2], DpoLossKind::Kto).contains("no second prompt"));
    assert!(train(&[], DpoLossKind::Kto).contains("no responses"));
    let of = |p| [ResponseExample { p, ..rows[0].clone() }, rows[2].clone()];
    assert!(train(&of(1.5), DpoLossKind::Kto).contains("p must be in [0, 1], got 1.5"));
    assert!(train(&of(f64::NAN), DpoLossKind::Kto).contains("got NaN"));
    let of = |weight| [ResponseExample { weight, ..rows[0].clone() }, rows[2].clone()];
    assert!(train(&of(0.0), DpoLossKind::Kto).contains("its weight must be above 0, got 0"));
}

/// The batch may hold one prompt only; a response elsewhere then stands in.
#[test]
fn responses_of_one_kind_are_told_of() {
    let rows: Vec<_> = responses().into_iter().filter(|row| row.p > 0.5).collect();
    let dir = tempfile::tempdir().unwrap();
    let mut hooks = Recorder::default();
    let config = DpoConfig { batch_size: 1, micro_batch_size: 1, epochs: 1, ..config(DpoLossKind::Kto) };
    train_kto(llama(), &rows, &config, 1, dir.path(), &mut hooks).unwrap().finished().unwrap();
    assert!(hooks.warnings[0].starts_with("desirable responses weigh"), "{:?}", hooks.warnings);
    assert!(hooks.rows.iter().all(|row| !row.values.contains_key(metrics::REWARDS_REJECTED)));
}
