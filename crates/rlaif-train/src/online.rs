//! Tuning on the policy's own samples, whatever the algorithm: sample, score, measure, learn; and when to stop.
//!
//! ```text
//! prompts ─▶ sample ─▶ score ─▶ log-probs, values ─▶ advantages ─▶ update ─┐
//!    ▲                   └─ the watch: a score that nothing maximises      │
//!    └─────────────────────── until the steps are done ◀───────────────────┘
//! ```
//! With `asynchronous` the next rollout is sampled while this one is scored (`ahead.rs`).
//! A `kl_budget` and a [`Watch`] end it earlier, and put back the last policy within the budget, or the one at the watch's peak.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use rlaif_core::config::PpoConfig;
use rlaif_core::{metrics, metrics::MetricRow};
use rlaif_model::{Adapter, Decoder, SamplingConfig, ScalarHead};

use crate::advantage::{groups, penalties};
use crate::ahead::{Rollout, Sampler, while_sampling};
use crate::checkpoint::{Checkpoint, Checkpoints, Fingerprint, Snapshot};
use crate::data::{PromptIds, epoch_order};
use crate::error::{Result, TrainError};
use crate::hooks::{Hooks, Outcome};
use crate::ppo_trainer::{PpoRates, PpoTrainer, PpoUpdate, raw_scores};
use crate::rollout::{Experience, ScoreNormalizer};
use crate::schedule::learning_rate;
use crate::score::RewardFn;
use crate::watch::{Watch, Watched};

/// What a tuning works with.
pub struct Tuning<'a> {
    /// The policy; as it comes, it is the reference too.
    pub policy: Decoder,
    /// Where values start, for algorithms that have them. With LoRA, a clone of the policy shares its weights.
    pub critic: Option<(Decoder, ScalarHead)>,
    /// What is answered.
    pub prompts: &'a [PromptIds],
    /// Stop tokens and batch size; temperature and longest response are the config's (the longest response is that of here if the
    /// config has none).
    pub sampling: &'a SamplingConfig,
    /// What is maximised.
    pub reward: &'a mut dyn RewardFn,
    /// What only watches; read if the config has a `watch`.
    pub watch: Option<&'a mut dyn RewardFn>,
}

/// A tuned policy.
#[derive(Debug)]
pub struct TrainedPpo {
    /// The policy, adapters merged.
    pub policy: Decoder,
    /// The policy's adapters by themselves, if it trained any.
    pub adapter: Option<Adapter>,
    /// A critic of its own, adapters merged, and its head.
    pub critic: Option<(Decoder, ScalarHead)>,
    /// What training came to.
    pub report: PpoReport,
}

/// What a tuning came to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PpoReport {
    /// Steps done.
    pub steps: u64,
    /// Step after which the policy that is kept was made; fewer than `steps` if an earlier one was put back.
    pub kept_step: u64,
    /// Whether training stopped because the KL budget was passed.
    pub stopped_by_kl_budget: bool,
    /// Whether training stopped because the watch's score had fallen.
    pub stopped_by_watch: bool,
    /// Last measured KL to the reference of a response, nats; of the kept policy where there is a budget or a watch.
    pub kl: f64,
    /// Mean raw score of the first rollout, which is the baseline's.
    pub first_score: f64,
    /// Mean raw score of the last rollout; of the kept policy where there is a budget or a watch.
    pub last_score: f64,
}

/// A policy that may be put back.
struct Kept {
    step: u64,
    kl: f64,
    score: f64,
    parameters: BTreeMap<String, Vec<f32>>,
}

/// Everything of a tuning that a checkpoint holds, beside the trainer.
struct Progress {
    done: u64,
    first_score: f64,
    last_score: f64,
    kl: f64,
    watch: Option<Watch>,
    /// The last policy whose KL was measured within the budget.
    within_budget: Option<Kept>,
    /// The policy at the peak of the watch.
    peak: Option<Kept>,
    /// The next rollout, where it was sampled already.
    ahead: Option<Rollout>,
}

/// Tunes the policy to please the reward, near its starting point; checkpoints go to `dir/checkpoints`.
///
/// Called again after it was stopped or killed, it goes on from the newest checkpoint and comes to the same weights.
///
/// # Errors
/// If there are no prompts, one does not fit the model, a score or loss is not finite, or the disk fails.
pub fn train_ppo(
    tuning: Tuning<'_>,
    config: &PpoConfig,
    run_seed: u64,
    dir: &Path,
    hooks: &mut dyn Hooks,
) -> Result<Outcome<TrainedPpo>> {
    let Tuning { policy, critic, prompts, sampling, reward, watch: mut held_out } = tuning;
    let sampling = SamplingConfig {
        temperature: config.temperature,
        max_new_tokens: config.max_new_tokens.unwrap_or(sampling.max_new_tokens),
        ..sampling.clone()
    };
    check_prompts(prompts, &policy)?;
    if let Some((trunk, _)) = &critic {
        check_vocabularies(policy.config().vocab_size, trunk.config().vocab_size)?;
    }
    let mut fingerprint = Fingerprint::new("ppo", &(config, format!("{sampling:?}")), run_seed);
    for prompt in prompts {
        fingerprint.bytes(prompt.id.as_bytes()).ids(&prompt.ids);
    }
    fingerprint.weights(&policy);
    if let Some((trunk, head)) = &critic {
        fingerprint.weights(trunk).numbers(&head.values());
    }
    let checkpoints = Checkpoints::open(dir, fingerprint.finish())?;
    let config = &PpoConfig { max_new_tokens: Some(sampling.max_new_tokens), ..config.clone() };
    let mut trainer = PpoTrainer::new(policy, critic, config, run_seed)?;

    let total = config.steps as u64;
    let warmup = if config.algorithm.has_critic() { config.critic_warmup_steps as u64 } else { 0 };
    let mut progress = Progress::new(config);
    if let Some(mut checkpoint) = checkpoints.newest(&mut |w| hooks.warning(w))? {
        progress.resume(&mut trainer, config, &mut checkpoint)?;
        hooks.resumed(progress.done);
    }

    let (mut passed_budget, mut fallen) = (false, false);
    // With a budget or a watch there is one more rollout, which only measures the final policy.
    let measures_last = config.kl_budget.is_some() || progress.watch.is_some();
    let rollouts = if measures_last { total + 1 } else { total };
    while progress.done < rollouts {
        let done = progress.done;
        let asked_at = |step: u64| -> Vec<&PromptIds> {
            let places = prompts_of_rollout(prompts.len(), config.prompts_per_step, step, run_seed);
            places.into_iter().map(|place| &prompts[place]).collect()
        };
        let asked = asked_at(done);
        let Rollout { sampled_at, mut experiences, parameters } = match progress.ahead.take() {
            Some(rollout) => rollout,
            None => {
                let mut told = |note: &str| hooks.progress(done, total, note);
                let experiences = Sampler::of(&trainer, &sampling).roll_out(&asked, done, &mut told)?;
                Rollout { sampled_at: done, experiences, parameters: None }
            }
        };
        hooks.progress(done, total, "scoring");
        let named = |error: TrainError| error.on_rows(asked.iter().map(|prompt| prompt.id.as_str()));
        // The last rollout, if it only measures, is of the final policy.
        let mut score = || raw_scores(&experiences, reward, done + 1).map_err(named);
        let scores = if config.asynchronous && done + 1 < total {
            let sampler = Sampler::of(&trainer, &sampling);
            let (scores, rollout) = while_sampling(&sampler, &asked_at(done + 1), done, score)?;
            let parameters = measures_last.then(|| trainer.policy.export_parameters());
            progress.ahead = Some(Rollout { parameters, ..rollout });
            scores
        } else {
            score()?
        };
        let of_baseline = sampled_at <= warmup;
        let unscored = trainer.measure(&mut experiences, scores, of_baseline, done + 1).map_err(named)?;
        if unscored > 0 {
            hooks.warning(&format!("step {}: {unscored} responses have no score and are left out", done + 1));
        }
        let kl = mean(&experiences, Experience::kl);
        let score = mean(&experiences, |e| e.raw_score);
        let keep = |trainer: &PpoTrainer| Kept {
            step: sampled_at,
            kl,
            score,
            parameters: parameters.clone().unwrap_or_else(|| trainer.policy.export_parameters()),
        };
        if let Some(budget) = config.kl_budget {
            if kl > budget {
                passed_budget = true;
                break;
            }
            progress.within_budget = Some(keep(&trainer));
        }
        let mut held_out_score = None;
        if let (Some(watch), Some(held_out)) = (&mut progress.watch, &mut held_out) {
            let means = prompt_means(&experiences, &raw_scores(&experiences, &mut **held_out, done + 1)?);
            if !means.is_empty() {
                held_out_score = Some(means.iter().sum::<f64>() / means.len() as f64);
                match watch.observe(&means) {
                    Watched::Peak => progress.peak = Some(keep(&trainer)),
                    Watched::Below => {}
                    Watched::Fallen => {
                        fallen = true;
                        break;
                    }
                }
            }
        }
        (progress.kl, progress.last_score) = (kl, score);
        if done == 0 {
            progress.first_score = score;
        }
        if done == total {
            break;
        }

        hooks.progress(done, total, "learning");
        let policy_rate = (done >= warmup)
            .then(|| learning_rate(&config.optim, done - warmup, total.saturating_sub(warmup)));
        let rates =
            PpoRates { policy: policy_rate, critic: learning_rate(&config.critic_optim, done, total) };
        let updates = trainer.update(&experiences, rates, done + 1).map_err(named)?;
        progress.done += 1;
        let done = progress.done;
        let mut row = row_of(&experiences, &updates, &trainer, rates, done, prompts.len());
        if let Some(score) = held_out_score {
            row.set(metrics::OBJECTIVE_HELD_OUT_SCORES, score);
        }
        hooks.metrics(&row);
        trainer.kl.update(kl, experiences.len());

        let stopping = hooks.should_stop();
        if stopping || done == total || done.is_multiple_of(config.save_steps.max(1) as u64) {
            let mut snapshot = Snapshot::default();
            progress.write_to(&trainer, &mut snapshot);
            checkpoints.save(done, &snapshot)?;
        }
        if stopping && done < total {
            return Ok(Outcome::Interrupted { step: done, total });
        }
    }

    let steps = progress.done;
    // A peak was measured before the budget was passed.
    let put_back = match progress.peak {
        Some(peak) => Some(peak),
        None if passed_budget => progress.within_budget,
        None => None,
    };
    let (mut kept_step, mut kl, mut last_score) = (steps, progress.kl, progress.last_score);
    if let Some(kept) = put_back {
        trainer.policy.import_parameters(&kept.parameters)?;
        (kept_step, kl, last_score) = (kept.step, kept.kl, kept.score);
    }
    if passed_budget {
        hooks.warning(&format!(
            "the KL budget of {} nats a response was passed after step {steps}; the policy of step {kept_step} is kept",
            config.kl_budget.unwrap_or(f64::NAN)
        ));
    }
    if fallen {
        hooks.warning(&format!(
            "the held-out score has fallen from its peak of {:.3} by step {steps}, while the reward is what training raises: \
             over-optimisation; the policy of step {kept_step} is kept",
            progress.watch.as_ref().and_then(Watch::peak).unwrap_or(f64::NAN)
        ));
    }
    hooks.progress(total, total, "");
    let report = PpoReport {
        steps,
        kept_step,
        stopped_by_kl_budget: passed_budget,
        stopped_by_watch: fallen,
        kl,
        first_score: progress.first_score,
        last_score,
    };
    let adapter = trainer.policy.adapter();
    let (policy, _) = trainer.policy.into_model();
    let critic = trainer.critic.map(|critic| {
        let (trunk, head) = critic.into_model();
        (trunk, head.expect("a critic has a head"))
    });
    Ok(Outcome::Finished(TrainedPpo { policy, adapter, critic, report }))
}

impl Progress {
    fn new(config: &PpoConfig) -> Self {
        Self {
            done: 0,
            first_score: f64::NAN,
            last_score: f64::NAN,
            kl: 0.0,
            watch: config.watch.as_ref().map(Watch::new),
            within_budget: None,
            peak: None,
            ahead: None,
        }
    }

    fn write_to<'a>(&'a self, trainer: &'a PpoTrainer, snapshot: &mut Snapshot<'a>) {
        trainer.policy.write_to("policy", snapshot);
        if let Some(critic) = &trainer.critic {
            critic.write_to("critic", snapshot);
        }
        snapshot.numbers("kl_coef".into(), vec![trainer.kl.value]);
        snapshot.numbers("score_normalizer".into(), trainer.scores.to_numbers());
        snapshot.numbers("scores_and_kl".into(), vec![self.first_score, self.last_score, self.kl]);
        if let Some(watch) = &self.watch {
            snapshot.numbers("watch".into(), watch.to_numbers());
        }
        if let Some(rollout) = &self.ahead {
            rollout.write_to(snapshot);
        }
        for (name, kept) in [("within_budget", &self.within_budget), ("peak", &self.peak)] {
            let Some(kept) = kept else { continue };
            snapshot.numbers(name.into(), vec![kept.step as f64, kept.kl, kept.score]);
            for (parameter, values) in &kept.parameters {
                snapshot.tensor(format!("{name}/{parameter}"), Cow::Borrowed(values));
            }
        }
    }

    fn resume(
        &mut self,
        trainer: &mut PpoTrainer,
        config: &PpoConfig,
        checkpoint: &mut Checkpoint,
    ) -> Result<()> {
        trainer.policy.read_from("policy", checkpoint)?;
        if let Some(critic) = &mut trainer.critic {
            critic.read_from("critic", checkpoint)?;
        }
        trainer.kl.value = checkpoint.number("kl_coef")?;
        let damaged = |what: &str| TrainError::Checkpoint {
            path: checkpoint.path.clone(),
            reason: format!("`{what}` has too few numbers"),
        };
        trainer.scores = ScoreNormalizer::from_numbers(checkpoint.numbers("score_normalizer")?)
            .ok_or_else(|| damaged("score_normalizer"))?;
        let &[first, last, kl] = checkpoint.numbers("scores_and_kl")? else {
            return Err(damaged("scores_and_kl"));
        };
        (self.first_score, self.last_score, self.kl) = (first, last, kl);
        if let Some(watch) = &config.watch {
            self.watch = Some(
                Watch::from_numbers(watch, checkpoint.numbers("watch")?).ok_or_else(|| damaged("watch"))?,
            );
        }
        self.within_budget = Kept::read_from("within_budget", checkpoint);
        self.peak = Kept::read_from("peak", checkpoint);
        self.ahead = Rollout::read_from(checkpoint, config)?;
        self.done = checkpoint.step;
        Ok(())
    }
}

impl Kept {
    fn read_from(name: &str, checkpoint: &mut Checkpoint) -> Option<Self> {
        let Ok(&[step, kl, score]) = checkpoint.numbers(name) else { return None };
        let parameters = checkpoint.take_tensors(&format!("{name}/"));
        Some(Self { step: step as u64, kl, score, parameters })
    }
}

/// Prompts of a step: an endless sequence of shuffled passes over all prompts, `count` a step.
fn prompts_of_rollout(prompts: usize, count: usize, step: u64, run_seed: u64) -> Vec<usize> {
    let first = step * count as u64;
    let mut epoch = u64::MAX;
    let mut order = Vec::new();
    (first..first + count as u64)
        .map(|position| {
            if position / prompts as u64 != epoch {
                epoch = position / prompts as u64;
                order = epoch_order(prompts, epoch, run_seed, "ppo/prompts");
            }
            order[(position % prompts as u64) as usize]
        })
        .collect()
}

fn check_prompts(prompts: &[PromptIds], policy: &Decoder) -> Result<()> {
    if prompts.is_empty() {
        let next_step = "add prompts, or lower `prompts.eval_fraction`".to_string();
        return Err(TrainError::NoData { trainer: "ppo", what: "prompts", next_step });
    }
    for prompt in prompts {
        policy.check_ids(&prompt.ids).map_err(|error| TrainError::BadExample {
            prompt_id: prompt.id.clone(),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

/// A reward model, and the critic that starts as it, read the policy's token ids.
fn check_vocabularies(policy: usize, reward_model: usize) -> Result<()> {
    if policy == reward_model {
        return Ok(());
    }
    let reason = format!(
        "the policy has a vocabulary of {policy} tokens and the reward model one of {reward_model}, so that the same ids are other words to it; \
         train the reward model from this policy"
    );
    Err(rlaif_model::ModelError::Input { reason }.into())
}

/// One row under TRL's names.
fn row_of(
    experiences: &[Experience],
    updates: &[PpoUpdate],
    trainer: &PpoTrainer,
    rates: PpoRates,
    step: u64,
    prompts: usize,
) -> MetricRow {
    let config = &trainer.config;
    let count = updates.len().max(1) as f64;
    let average = |of: fn(&PpoUpdate) -> f64| updates.iter().map(of).sum::<f64>() / count;
    let non_score = |e: &Experience| penalties(e, trainer.kl.value, config).iter().sum::<f64>();
    let episodes = step * experiences.len() as u64;
    let epoch = (step * config.prompts_per_step as u64) as f64 / prompts as f64;
    let mut row = MetricRow::new("ppo", step, epoch)
        .with(metrics::OBJECTIVE_KL, mean(experiences, Experience::kl))
        .with(metrics::OBJECTIVE_KL_COEF, trainer.kl.value)
        .with(metrics::OBJECTIVE_ENTROPY, mean(experiences, |e| -e.old_logprobs.iter().sum::<f64>()))
        .with(metrics::OBJECTIVE_NON_SCORE_REWARD, mean(experiences, non_score))
        .with(metrics::OBJECTIVE_RLHF_REWARD, mean(experiences, |e| e.score + non_score(e)))
        .with(metrics::OBJECTIVE_SCORES, mean(experiences, |e| e.score))
        .with(metrics::OBJECTIVE_RAW_SCORES, mean(experiences, |e| e.raw_score))
        .with(metrics::OBJECTIVE_LENGTH, mean(experiences, |e| e.response_ids.len() as f64))
        .with(metrics::POLICY_APPROXKL_AVG, average(|u| u.approxkl))
        .with(metrics::POLICY_CLIPFRAC_AVG, average(|u| u.policy_clipfrac))
        .with(metrics::POLICY_GRAD_NORM, average(|u| u.policy_grad_norm))
        .with(metrics::LOSS_POLICY_AVG, average(|u| u.policy_loss))
        .with(metrics::VAL_RATIO, average(|u| u.ratio))
        .with(metrics::VAL_NUM_EOS_TOKENS, experiences.iter().filter(|e| e.ended).count() as f64)
        .with(metrics::LR, rates.policy.unwrap_or(0.0))
        .with(metrics::EPISODE, episodes as f64);
    if config.algorithm.has_critic() {
        row.set(metrics::LOSS_VALUE_AVG, average(|u| u.value_loss));
        row.set(metrics::VAL_CLIPFRAC_AVG, average(|u| u.value_clipfrac));
        row.set(metrics::VAL_GRAD_NORM, average(|u| u.value_grad_norm));
    }
    row
}

fn mean(experiences: &[Experience], of: impl Fn(&Experience) -> f64) -> f64 {
    experiences.iter().map(of).sum::<f64>() / experiences.len() as f64
}

/// Means over the responses of each prompt; prompts without a score are left out.
fn prompt_means(experiences: &[Experience], scores: &[Option<f64>]) -> Vec<f64> {
    groups(experiences)
        .into_iter()
        .filter_map(|group| {
            let known: Vec<f64> = scores[group].iter().flatten().copied().collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reward_model_of_another_vocabulary_is_refused() {
        assert!(check_vocabularies(320, 320).is_ok());
        let error = check_vocabularies(320, 49152).unwrap_err().to_string();
        assert!(error.contains("320 tokens") && error.contains("49152"), "{error}");
    }

    #[test]
    fn steps_go_through_all_prompts_before_any_comes_again() {
        let mut seen: Vec<usize> = (0..5).flat_map(|step| prompts_of_rollout(10, 4, step, 3)).collect();
        let second = seen.split_off(10);
        for mut pass in [seen.clone(), second.clone()] {
            pass.sort_unstable();
            assert_eq!(pass, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(seen, second);
        assert_eq!(prompts_of_rollout(2, 5, 0, 3).len(), 5, "more prompts a step than there are");
    }
}
