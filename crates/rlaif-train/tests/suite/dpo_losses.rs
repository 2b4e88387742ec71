//! Every `dpo.loss`: its value (`golden/make_dpo_losses.py`), five steps of it beside TRL 1.16 on the same weights and batches
//! (`golden/make_dpo_steps.py`), five with weights (`golden/make_dpo_weighted.py`), and what training with it must not depend on.

use crate::common::{
    Recorder, assert_near, constant, golden, golden_pairs, llama, numbers, preferences, referenced,
    weighted_pairs,
};
use rlaif_core::config::{DpoConfig, DpoLossKind};
use rlaif_core::metrics;
use rlaif_train::dpo_trainer::{DpoStep, ReferencedPair, Unrelated};
use rlaif_train::loss::{Objective, PairLogps};
use rlaif_train::{DpoTrainer, PreferenceExample, Silent, TrainError, sequence_logps, train_dpo};

const LEARNING_RATE: f64 = 1e-3;
const BOS: u32 = 1;

/// A config that a run may have: soft labels but where they are refused.
fn config(loss: DpoLossKind) -> DpoConfig {
    let optim = constant(LEARNING_RATE);
    DpoConfig { loss, soft_labels: !loss.sorts_batch(), optim, ..DpoConfig::default() }
}

/// Pairs of which each meets the answers to the prompt `partner` says.
fn with_unrelated<'a>(
    pairs: &'a [PreferenceExample],
    partner: impl Fn(usize) -> usize,
) -> Vec<ReferencedPair<'a>> {
    let answers = |i: usize| [pairs[partner(i)].chosen_ids.as_slice(), &pairs[partner(i)].rejected_ids];
    let mut all = referenced(pairs);
    for (i, pair) in all.iter_mut().enumerate() {
        let items = answers(i).map(|answer| (pairs[i].prompt_ids.as_slice(), answer));
        let ref_logps = sequence_logps(&llama(), &items, 64).unwrap();
        pair.unrelated = Some(Unrelated { answers: answers(i), ref_logps: [ref_logps[0], ref_logps[1]] });
    }
    all
}

#[test]
fn every_loss_has_its_golden_value() {
    let golden = golden("dpo_losses.json");
    let number = |name: &str| golden[name].as_f64().unwrap();
    let pairs = |p: f64| -> Vec<PairLogps> {
        let pair = |row: &serde_json::Value| {
            let row = numbers(row);
            PairLogps {
                chosen: row[0],
                rejected: row[1],
                ref_chosen: row[2],
                ref_rejected: row[3],
                chosen_len: row[4] as usize,
                rejected_len: row[5] as usize,
                p,
            }
        };
        golden["pairs"].as_array().unwrap().iter().map(pair).collect()
    };
    for loss in DpoLossKind::ALL {
        let objective = Objective::of(&DpoConfig {
            loss,
            beta: Some(number("beta")),
            label_smoothing: Some(number("label_smoothing")),
            simpo_gamma: number("simpo_gamma"),
            discopop_tau: number("discopop_tau"),
            desirable_weight: number("desirable_weight"),
            undesirable_weight: number("undesirable_weight"),
            ..DpoConfig::default()
        });
        let want = &golden["losses"][loss.name()];
        for (label, p) in [("hard", 1.0), ("soft", number("p"))] {
            let Some(want) = want[label].as_f64() else {
                assert!(loss.sorts_batch(), "{} has no value", loss.name());
                continue;
            };
            let losses = objective.losses(&pairs(p), number("kl"));
            let got = losses.iter().map(|loss| loss.loss).sum::<f64>() / losses.len() as f64;
            assert!((got - want).abs() < 1e-12, "{}, {label}: got {got}, want {want}", loss.name());
        }
    }
}

#[test]
fn steps_are_trls_whatever_the_micro_batch() {
    let trl = golden("dpo_steps.json");
    let dpo_pairs = golden_pairs(&golden("training_steps.json"));
    let mut cpo_pairs = dpo_pairs.clone();
    cpo_pairs.iter_mut().for_each(|pair| pair.prompt_ids.insert(0, BOS)); // TRL's CPO trainer, which has SimPO, does so
    let [dpo_pairs, cpo_pairs] = [&dpo_pairs, &cpo_pairs].map(|pairs| with_unrelated(pairs, |i| i ^ 1)); // two a batch
    let losses = trl["log"].as_object().unwrap();
    assert_eq!(losses.len(), 15);
    for (name, log) in losses {
        for micro_batch_size in [1, 2] {
            let loss = DpoLossKind::ALL.into_iter().find(|loss| loss.name() == name).unwrap();
            // As in the script.
            let config = DpoConfig {
                micro_batch_size,
                beta: (name == "sigmoid_norm").then_some(2.0),
                label_smoothing: (name == "exo_pair").then_some(0.01),
                undesirable_weight: 0.8,
                ..config(loss)
            };
            let pairs = if name == "simpo" { &cpo_pairs } else { &dpo_pairs };
            let mut trainer = DpoTrainer::new(llama(), &config, 0).unwrap();
            for (i, want) in log.as_array().unwrap().iter().enumerate() {
                let got = trainer.update(&pairs[2 * i..2 * i + 2], LEARNING_RATE, i as u64 + 1).unwrap();
                let near = |metric: &str, got: f64| {
                    let what = format!("{metric} of {name}, step {}, micro-batch {micro_batch_size}", i + 1);
                    assert_near(&what, got, want[metric].as_f64().unwrap());
                };
                near("loss", got.loss);
                near("grad_norm", got.grad_norm);
                near("rewards/chosen", got.chosen_reward);
                near("rewards/rejected", got.rejected_reward);
                if name != "simpo" {
                    near("logps/chosen", got.chosen_logps); // its trainer logs means over tokens
                    near("logps/rejected", got.rejected_logps);
                }
                if let Some(kl) = got.kl {
                    near("kl", kl);
                }
            }
        }
    }
}

#[test]
fn weighted_steps_are_torchs_whatever_the_micro_batch() {
    let golden_steps = golden("dpo_weighted.json");
    let pairs = weighted_pairs(&golden_steps);
    let pairs = referenced(&pairs);
    for loss in [DpoLossKind::Sigmoid, DpoLossKind::ApoZeroUnpaired] {
        for micro_batch_size in [1, 2] {
            let config = DpoConfig { micro_batch_size, ..config(loss) };
            let mut trainer = DpoTrainer::new(llama(), &config, 0).unwrap();
            for (i, want) in golden_steps["log"][loss.name()].as_array().unwrap().iter().enumerate() {
                let got = trainer.update(&pairs[2 * i..2 * i + 2], LEARNING_RATE, i as u64 + 1).unwrap();
                let what = |metric: &str| format!("{metric} of {}, step {}", loss.name(), i + 1);
                assert_near(&what("loss"), got.loss, want["loss"].as_f64().unwrap());
                assert_near(&what("grad_norm"), got.grad_norm, want["grad_norm"].as_f64().unwrap());
            }
        }
    }
}

/// A pair of weight 3 is a pair that stands there three times; where ranks have no weight, it is any other.
#[test]
fn a_weight_counts_as_that_many_pairs() {
    let first = |pairs: &[PreferenceExample], loss, micro_batch_size| {
        let config = DpoConfig { micro_batch_size, ..config(loss) };
        let mut trainer = DpoTrainer::new(llama(), &config, 0).unwrap();
        trainer.update(&with_unrelated(pairs, |_| 0), 1e-4, 1).unwrap()
    };
    let plain = preferences()[..4].to_vec();
    let repeated = [&plain[..], &[plain[1].clone(), plain[1].clone()]].concat();
    let mut weighted = plain.clone();
    weighted[1].weight = 3.0;
    for loss in DpoLossKind::ALL {
        let name = loss.name();
        for micro_batch_size in [1, 4] {
            let got = first(&weighted, loss, micro_batch_size);
            let of_plain = first(&plain, loss, micro_batch_size);
            if loss.sorts_batch() {
                assert_eq!((got.loss, got.grad_norm), (of_plain.loss, of_plain.grad_norm), "{name}");
                continue;
            }
            let want = first(&repeated, loss, micro_batch_size);
            assert_near(&format!("loss of {name}"), got.loss, want.loss);
            assert_near(&format!("gradient of {name}"), got.grad_norm, want.grad_norm);
            assert!((got.grad_norm / of_plain.grad_norm - 1.0).abs() > 1e-2, "{name}: the weight matters");
        }
    }
    weighted.iter_mut().for_each(|pair| pair.weight = 3.0);
    let (all, none) = (first(&weighted, DpoLossKind::Sigmoid, 4), first(&plain, DpoLossKind::Sigmoid, 4));
    assert_near("loss", all.loss, none.loss);
    assert_near("gradient", all.grad_norm, none.grad_norm);
}

/// Four steps on one batch of twelve pairs.
fn four_steps(config: &DpoConfig, pairs: &[ReferencedPair<'_>]) -> Vec<DpoStep> {
    let mut trainer = DpoTrainer::new(llama(), config, 0).unwrap();
    (1..=4).map(|step| trainer.update(pairs, LEARNING_RATE, step).unwrap()).collect()
}

#[test]
fn every_loss_falls_and_micro_batches_change_nothing() {
    let pairs = preferences();
    let pairs = with_unrelated(&pairs, |i| (i + 1) % 12);
    for loss in DpoLossKind::ALL {
        let steps = |micro_batch_size| four_steps(&DpoConfig { micro_batch_size, ..config(loss) }, &pairs);
        let (whole, parts) = (steps(12), steps(5));
        let name = loss.name();
        assert!(whole[3].loss < whole[0].loss, "{name}: {whole:?}");
        for (number, (whole, parts)) in whole.iter().zip(&parts).enumerate() {
            let near = |what: &str, got, want| assert_near(&format!("{what} of {name}, {number}"), got, want);
            near("loss", parts.loss, whole.loss);
            near("gradient", parts.grad_norm, whole.grad_norm);
            near("reward", parts.chosen_reward, whole.chosen_reward);
        }
    }
}

#[test]
fn losses_without_a_reference_read_none() {
    let pairs = preferences();
    let mut pairs = referenced(&pairs);
    for pair in &mut pairs {
        (pair.ref_chosen, pair.ref_rejected) = (f64::NAN, f64::NAN);
    }
    for loss in [DpoLossKind::Simpo, DpoLossKind::Orpo] {
        assert!(four_steps(&config(loss), &pairs)[3].loss.is_finite());
        let dir = tempfile::tempdir().unwrap();
        let mut hooks = Recorder::stopping_after(1);
        train_dpo(llama(), &preferences(), &config(loss), 1, dir.path(), &mut hooks).unwrap();
        let state = std::fs::read_to_string(dir.path().join("checkpoints/step-000001/state.json")).unwrap();
        assert!(state.contains(r#""ref_logps": []"#), "{state}");
    }
    assert!(matches!(
        DpoTrainer::new(llama(), &config(DpoLossKind::Sigmoid), 0).unwrap().update(&pairs, 1e-3, 1),
        Err(TrainError::NotFinite { .. })
    ));
}

#[test]
fn held_out_pairs_are_measured_by_the_loss_that_trains() {
    let data = preferences();
    for loss in [DpoLossKind::Orpo, DpoLossKind::Kto, DpoLossKind::AotUnpaired, DpoLossKind::IpoMean] {
        let config = DpoConfig { epochs: 1, batch_size: 9, holdout_fraction: 0.25, ..config(loss) };
        let dir = tempfile::tempdir().unwrap();
        let mut hooks = Recorder::default();
        let outcome = train_dpo(llama(), &data, &config, 1, dir.path(), &mut hooks).unwrap();
        let trained = outcome.finished().unwrap();
        let last = &hooks.rows.last().unwrap().values;
        assert_eq!(last.contains_key(metrics::KL), loss == DpoLossKind::Kto);

        // The pairs of one prompt of the four; the policy is its own log-probs, the tiny llama the reference.
        let holdout: Vec<PreferenceExample> = data
            .iter()
            .filter(|pair| pair.prompt_id == trained.report.holdout[0].prompt_id)
            .cloned()
            .collect();
        let reference = referenced(&holdout);
        let trainer = DpoTrainer::new(trained.policy, &config, 0).unwrap();
        let at = trainer.pair_logps(&reference).unwrap();
        let objective = Objective::of(&config);
        let rewards: Vec<f64> = at.iter().map(|at| objective.rewards(at).0).collect();
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / at.len() as f64;
        assert_near("reward", last[metrics::EVAL_REWARDS_CHOSEN], mean(rewards));
        if loss != DpoLossKind::Kto {
            let losses = objective.losses(&at, 0.0).iter().map(|loss| loss.loss).collect();
            assert_near(loss.name(), last[metrics::EVAL_LOSS], mean(losses));
        }
    }
}

#[test]
fn kto_needs_a_second_prompt() {
    let data: Vec<_> = preferences().into_iter().filter(|pair| pair.prompt_id == "p0").collect();
    let dir = tempfile::tempdir().unwrap();
    let error = train_dpo(llama(), &data, &config(DpoLossKind::Kto), 1, dir.path(), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("no second prompt"), "{error}");
    let pairs = preferences();
    let error = DpoTrainer::new(llama(), &config(DpoLossKind::Kto), 0)
        .unwrap()
        .update(&referenced(&pairs), 1e-3, 1)
        .unwrap_err();
    assert!(error.to_string().contains("answers to another prompt"), "{error}");
}
