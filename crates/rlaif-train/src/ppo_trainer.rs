//! Proximal policy optimisation against a reward function, Schulman et al. 2017 (<https://arxiv.org/abs/1707.06347>), as
//! Ziegler et al. 2019 (<https://arxiv.org/abs/1909.08593>) use it on language models.
//!
//! Each step: sample prompts and responses; log-probs under policy and reference, values; scores; token rewards with KL penalty;
//! GAE; whitened advantages; `epochs` passes of clipped losses over mini-batches.
//!
//! Differs from TRL's `PPOTrainer` in:
//! * policy and critic have an optimizer each (as OpenRLHF and verl), so there is no `vf_coef`;
//! * scores are normalised by what the baseline's responses score, before the penalty of a missing end;
//! * the score stands on the last token by default; `score_placement = "after_last"` is TRL's;
//! * the critic may warm up alone, and `kl_budget` stops training and puts back the last policy measured within it;
//! * no dropout, no reference copy with LoRA: the reference is the policy without its adapters.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use rlaif_core::config::PpoConfig;
use rlaif_core::records::FinishReason;
use rlaif_core::{metrics, metrics::MetricRow, seed};
use rlaif_model::{Decoder, GenerateRequest, SamplingConfig, ScalarHead, generate};

use crate::checkpoint::{Checkpoint, Checkpoints, Fingerprint, Snapshot};
use crate::data::{PromptIds, epoch_order};
use crate::error::{Result, TrainError, finite};
use crate::hooks::{Hooks, Outcome};
use crate::learner::{Learner, to_f64};
use crate::loss::{policy_loss, value_loss};
use crate::math::{KlCoefficient, kl_estimate};
use crate::packing::{Item, Packed, split_by_length};
use crate::rollout::{
    Experience, ScoreNormalizer, assign_rewards, estimate_advantages, measure_logprobs, measure_values,
    pack_values,
};
use crate::schedule::learning_rate;
use crate::score::RewardFn;

/// A tuned policy with its critic.
#[derive(Debug)]
pub struct TrainedPpo {
    /// The policy, adapters merged.
    pub policy: Decoder,
    /// The critic's trunk, adapters merged.
    pub critic: Decoder,
    /// The critic's head.
    pub value_head: ScalarHead,
    /// What training came to.
    pub report: PpoReport,
}

/// What PPO came to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PpoReport {
    /// Steps done.
    pub steps: u64,
    /// Step after which the policy that is kept was made; fewer than `steps` if the KL budget was passed.
    pub kept_step: u64,
    /// Whether training stopped because the KL budget was passed.
    pub stopped_by_kl_budget: bool,
    /// Last measured KL to the reference of a response, nats; of the kept policy where there is a budget.
    pub kl: f64,
    /// Mean raw score of the first rollout, which is the baseline's.
    pub first_score: f64,
    /// Mean raw score of the last rollout whose KL is within the budget.
    pub last_score: f64,
}

/// Metrics of one mini-batch update.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PpoUpdate {
    /// Mean clipped policy loss.
    pub policy_loss: f64,
    /// Mean clipped value loss.
    pub value_loss: f64,
    /// Gradient norm of the policy before clipping; 0 while only the critic learns.
    pub policy_grad_norm: f64,
    /// Gradient norm of the critic before clipping.
    pub value_grad_norm: f64,
    /// ½ mean (logp − logp_old)².
    pub approxkl: f64,
    /// Share of tokens whose policy loss is clipped.
    pub policy_clipfrac: f64,
    /// Share of values whose loss is clipped.
    pub value_clipfrac: f64,
    /// Mean ratio.
    pub ratio: f64,
}

/// Learning rates of one step; the policy has none while only the critic learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PpoRates {
    /// Of the policy.
    pub policy: Option<f64>,
    /// Of the critic.
    pub critic: f64,
}

/// Policy, reference and critic in training: [`train_ppo`] without files and hooks.
#[derive(Debug)]
pub struct PpoTrainer {
    /// The policy and its optimizer.
    pub policy: Learner,
    /// The policy's frozen starting point.
    pub reference: Decoder,
    /// The critic, its head and its optimizer.
    pub critic: Learner,
    /// The weight of the KL penalty.
    pub kl: KlCoefficient,
    /// The baseline's scores.
    pub scores: ScoreNormalizer,
    config: PpoConfig,
    run_seed: u64,
}

impl PpoTrainer {
    /// Makes policy and critic trainable as the config says; the reference is `policy` as it comes.
    ///
    /// With LoRA, policy and critic that were cloned from one decoder go on sharing its weights.
    ///
    /// # Errors
    /// If a LoRA target does not exist, or the temperature is not above 0.
    pub fn new(
        policy: Decoder,
        critic: Decoder,
        value_head: ScalarHead,
        config: &PpoConfig,
        run_seed: u64,
    ) -> Result<Self> {
        if config.temperature <= 0.0 {
            let reason = format!("`ppo.temperature` must be above 0, got {}", config.temperature);
            return Err(rlaif_model::ModelError::Input { reason }.into());
        }
        let (lora, seed_of) = (config.lora.as_ref(), |index| seed::derive(run_seed, "ppo/lora", index));
        Ok(Self {
            reference: policy.frozen(),
            policy: Learner::new(policy, None, &config.optim, lora, seed_of(0))?,
            critic: Learner::new(critic, Some(value_head), &config.critic_optim, lora, seed_of(1))?,
            kl: KlCoefficient::new(config),
            scores: ScoreNormalizer::default(),
            config: config.clone(),
            run_seed,
        })
    }

    /// Learns from a rollout that is measured and rewarded: `epochs` passes over `mini_batches`, in micro-batches.
    /// `step` counts from 1.
    ///
    /// # Errors
    /// If a loss or a gradient is not finite.
    pub fn update(
        &mut self,
        experiences: &[Experience],
        rates: PpoRates,
        step: u64,
    ) -> Result<Vec<PpoUpdate>> {
        let (epochs, mini_batches) = (self.config.epochs, self.config.mini_batches.max(1));
        let mut updates = Vec::new();
        for epoch in 0..epochs {
            let pass = (step - 1) * epochs as u64 + epoch as u64;
            let order = epoch_order(experiences.len(), pass, self.run_seed, "ppo/minibatches");
            for mini in order.chunks(experiences.len().div_ceil(mini_batches)) {
                let mut mini = mini.to_vec();
                mini.sort_unstable(); // responses of one prompt side by side share it in the micro-batch
                let mini: Vec<&Experience> = mini.into_iter().map(|i| &experiences[i]).collect();
                updates.push(self.update_mini_batch(&mini, rates, step)?);
            }
        }
        Ok(updates)
    }

    fn update_mini_batch(&mut self, mini: &[&Experience], rates: PpoRates, step: u64) -> Result<PpoUpdate> {
        let tokens = mini.iter().map(|e| e.old_logprobs.len()).sum::<usize>() as f64;
        let values = mini.iter().map(|e| e.values.len()).sum::<usize>() as f64;
        let mut metrics = PpoUpdate::default();
        for micro in mini.chunks(self.config.micro_batch_size.max(1)) {
            if rates.policy.is_some() {
                self.accumulate_policy(micro, tokens, &mut metrics);
                finite("the policy loss", metrics.policy_loss, step)?;
            }
            self.accumulate_critic(micro, values, &mut metrics);
            finite("the value loss", metrics.value_loss, step)?;
        }
        if let Some(rate) = rates.policy {
            metrics.policy_grad_norm = self.policy.step(rate, step)?;
        } else {
            metrics.ratio = 1.0;
        }
        metrics.value_grad_norm = self.critic.step(rates.critic, step)?;
        Ok(metrics)
    }

    /// Adds the policy gradient of a micro-batch; means are over the `tokens` of the whole mini-batch.
    fn accumulate_policy(&mut self, micro: &[&Experience], tokens: f64, metrics: &mut PpoUpdate) {
        let packed = Packed::new(&micro.iter().map(|e| e.item()).collect::<Vec<_>>());
        let policy = &self.policy.decoder;
        let hidden = policy.hidden(&packed.batch); // [N, H]
        let output = policy.logprobs(&hidden, &packed.token_reads(), self.config.temperature); // [R]
        let logprobs = split_by_length(&to_f64(&output), &packed.lengths());
        let mut gradients: Vec<Vec<f64>> = logprobs.iter().map(|tokens| vec![0.0; tokens.len()]).collect();
        for (experience, &place) in micro.iter().zip(&packed.of_item) {
            let loss = policy_loss(
                &logprobs[place],
                &experience.old_logprobs,
                &experience.advantages,
                self.config.cliprange,
            );
            add_scaled(&mut gradients[place], &loss.gradient, 1.0 / tokens);
            metrics.policy_loss += loss.sum / tokens;
            metrics.approxkl += loss.approxkl_sum / tokens;
            metrics.policy_clipfrac += loss.clipped as f64 / tokens;
            metrics.ratio += loss.ratio_sum / tokens;
        }
        self.policy.backward(&output, &gradients.concat());
    }

    /// Adds the value gradient of a micro-batch; means are over the `values` of the whole mini-batch.
    fn accumulate_critic(&mut self, micro: &[&Experience], values: f64, metrics: &mut PpoUpdate) {
        let (packed, reads) = pack_values(micro);
        let head = self.critic.head.as_ref().expect("a critic has a head");
        let output: Tensor<1> = head.forward(&self.critic.decoder.hidden(&packed.batch), &reads.indices); // [R]
        let predicted = split_by_length(&to_f64(&output), &reads.lengths);
        let mut gradients: Vec<Vec<f64>> = predicted.iter().map(|values| vec![0.0; values.len()]).collect();
        for (experience, &place) in micro.iter().zip(&packed.of_item) {
            let loss = value_loss(
                &predicted[place],
                &experience.values,
                &experience.returns,
                self.config.cliprange_value,
            );
            add_scaled(&mut gradients[place], &loss.gradient, 1.0 / values);
            metrics.value_loss += loss.sum / values;
            metrics.value_clipfrac += loss.clipped as f64 / values;
        }
        self.critic.backward(&output, &gradients.concat());
    }

    /// Fills in everything that [`update`](Self::update) needs but the scores, which `reward` gives.
    ///
    /// The scores of the first `critic_warmup_steps` + 1 rollouts are the baseline's and set the normalisation.
    ///
    /// # Errors
    /// If responses cannot be scored, or a score is not finite.
    pub fn measure(
        &mut self,
        experiences: &mut [Experience],
        reward: &mut dyn RewardFn,
        step: u64,
    ) -> Result<()> {
        let items: Vec<Item<'_>> = experiences.iter().map(Experience::item).collect();
        let raw_scores = reward.score(&items)?;
        if raw_scores.len() != experiences.len() {
            let reason = format!("{} scores for {} responses", raw_scores.len(), experiences.len());
            return Err(TrainError::Reward { reason });
        }
        raw_scores.iter().try_for_each(|&score| finite("a score", score, step).map(drop))?;
        if self.config.normalize_scores && step <= self.config.critic_warmup_steps as u64 + 1 {
            self.scores.observe(raw_scores.iter().copied());
        }
        for (experience, raw_score) in experiences.iter_mut().zip(raw_scores) {
            experience.raw_score = raw_score;
            experience.score = match self.config.normalize_scores {
                true => self.scores.apply(raw_score),
                false => raw_score,
            };
            if !experience.ended {
                experience.score -= self.config.missing_eos_penalty.unwrap_or(0.0);
            }
        }
        measure_logprobs(experiences, &self.policy.decoder, &self.reference, self.config.temperature)?;
        let head = self.critic.head.as_ref().expect("a critic has a head");
        measure_values(experiences, &self.critic.decoder, head);
        assign_rewards(experiences, self.kl.value, self.config.kl_estimator);
        estimate_advantages(experiences, &self.config);
        Ok(())
    }
}

/// The last policy whose KL was measured within the budget.
struct WithinBudget {
    step: u64,
    kl: f64,
    score: f64,
    parameters: BTreeMap<String, Vec<f32>>,
}

/// Tunes `policy` to please `reward`, near its starting point; checkpoints go to `dir/checkpoints`.
///
/// `sampling` gives the stop tokens and the batch size; temperature and longest response are the config's (the longest response
/// is that of `sampling` if the config has none). With LoRA, pass clones of one decoder as policy and critic to share weights.
/// Called again after it was stopped or killed, it goes on from the newest checkpoint and comes to the same weights.
///
/// # Errors
/// If there are no prompts, one does not fit the model, a score or loss is not finite, or the disk fails.
pub fn train_ppo(
    policy: Decoder,
    critic: Decoder,
    value_head: ScalarHead,
    reward: &mut dyn RewardFn,
    prompts: &[PromptIds],
    config: &PpoConfig,
    sampling: &SamplingConfig,
    run_seed: u64,
    dir: &Path,
    hooks: &mut dyn Hooks,
) -> Result<Outcome<TrainedPpo>> {
    let sampling = SamplingConfig {
        temperature: config.temperature,
        max_new_tokens: config.max_new_tokens.unwrap_or(sampling.max_new_tokens),
        ..sampling.clone()
    };
    check_prompts(prompts, &policy)?;
    let mut fingerprint = Fingerprint::new("ppo", &(config, format!("{sampling:?}")), run_seed);
    for prompt in prompts {
        fingerprint.bytes(prompt.id.as_bytes()).ids(&prompt.ids);
    }
    fingerprint.weights(&policy).weights(&critic).numbers(&value_head.values());
    let checkpoints = Checkpoints::open(dir, fingerprint.finish())?;
    let mut trainer = PpoTrainer::new(policy, critic, value_head, config, run_seed)?;

    let total = config.steps as u64;
    let warmup = config.critic_warmup_steps as u64;
    let (mut done, mut first_score, mut last_score, mut kl) = (0, f64::NAN, f64::NAN, 0.0);
    let mut within: Option<WithinBudget> = None;
    if let Some(mut checkpoint) = checkpoints.newest(&mut |w| hooks.warning(w))? {
        within = trainer.resume(&mut checkpoint)?;
        done = checkpoint.step;
        if let &[first, last, measured] = checkpoint.numbers("scores_and_kl")? {
            (first_score, last_score, kl) = (first, last, measured);
        }
        hooks.resumed(done);
    }

    let mut passed_budget = false;
    // With a budget there is one more rollout, which only measures the final policy.
    let rollouts = if config.kl_budget.is_some() { total + 1 } else { total };
    while done < rollouts {
        let mut experiences = roll_out(&trainer, prompts, config, &sampling, done, total, hooks)?;
        hooks.progress(done, total, "scoring");
        trainer.measure(&mut experiences, reward, done + 1)?;
        let measured = mean(&experiences, Experience::kl);
        let score = mean(&experiences, |e| e.raw_score);
        if let Some(budget) = config.kl_budget {
            if measured > budget {
                passed_budget = true;
                break;
            }
            let parameters = trainer.policy.export_parameters();
            within = Some(WithinBudget { step: done, kl: measured, score, parameters });
        }
        (kl, last_score) = (measured, score);
        if done == 0 {
            first_score = score;
        }
        if done == total {
            break;
        }

        hooks.progress(done, total, "learning");
        let policy_rate = (done >= warmup)
            .then(|| learning_rate(&config.optim, done - warmup, total.saturating_sub(warmup)));
        let rates =
            PpoRates { policy: policy_rate, critic: learning_rate(&config.critic_optim, done, total) };
        let updates = trainer.update(&experiences, rates, done + 1)?;
        done += 1;
        hooks.metrics(&row_of(&experiences, &updates, &trainer, rates, done, prompts.len(), config));
        trainer.kl.update(measured, experiences.len());

        let stopping = hooks.should_stop();
        if stopping || done == total || done.is_multiple_of(config.save_steps.max(1) as u64) {
            let mut snapshot = Snapshot::default();
            trainer.write_to(&mut snapshot, within.as_ref());
            snapshot.numbers("scores_and_kl".into(), vec![first_score, last_score, kl]);
            checkpoints.save(done, &snapshot)?;
        }
        if stopping && done < total {
            return Ok(Outcome::Interrupted { step: done, total });
        }
    }

    let steps = done;
    let mut kept_step = done;
    if let (true, Some(within)) = (passed_budget, within) {
        trainer.policy.import_parameters(&within.parameters)?;
        (kept_step, kl, last_score) = (within.step, within.kl, within.score);
        hooks.warning(&format!(
            "the KL budget of {} nats a response was passed after step {steps}; the policy of step {kept_step} is kept",
            config.kl_budget.unwrap_or(f64::NAN)
        ));
    }
    hooks.progress(total, total, "");
    let report =
        PpoReport { steps, kept_step, stopped_by_kl_budget: passed_budget, kl, first_score, last_score };
    let (policy, _) = trainer.policy.into_model();
    let (critic, value_head) = trainer.critic.into_model();
    Ok(Outcome::Finished(TrainedPpo {
        policy,
        critic,
        value_head: value_head.expect("a critic has a head"),
        report,
    }))
}

impl PpoTrainer {
    fn write_to<'a>(&'a self, snapshot: &mut Snapshot<'a>, within: Option<&'a WithinBudget>) {
        self.policy.write_to("policy", snapshot);
        self.critic.write_to("critic", snapshot);
        snapshot.numbers("kl_coef".into(), vec![self.kl.value]);
        snapshot.numbers("score_normalizer".into(), self.scores.to_numbers());
        if let Some(within) = within {
            snapshot.numbers("within_budget".into(), vec![within.step as f64, within.kl, within.score]);
            for (name, values) in &within.parameters {
                snapshot.tensor(format!("within_budget/{name}"), Cow::Borrowed(values));
            }
        }
    }

    fn resume(&mut self, checkpoint: &mut Checkpoint) -> Result<Option<WithinBudget>> {
        self.policy.read_from("policy", checkpoint)?;
        self.critic.read_from("critic", checkpoint)?;
        self.kl.value = checkpoint.number("kl_coef")?;
        let damaged = || TrainError::Checkpoint {
            path: checkpoint.path.clone(),
            reason: "its score statistics are not three numbers".into(),
        };
        self.scores =
            ScoreNormalizer::from_numbers(checkpoint.numbers("score_normalizer")?).ok_or_else(damaged)?;
        let Ok(&[step, kl, score]) = checkpoint.numbers("within_budget") else { return Ok(None) };
        let parameters = checkpoint.take_tensors("within_budget/");
        Ok(Some(WithinBudget { step: step as u64, kl, score, parameters }))
    }
}

/// Samples the responses of step `done` + 1 from the policy as it is.
fn roll_out(
    trainer: &PpoTrainer,
    prompts: &[PromptIds],
    config: &PpoConfig,
    sampling: &SamplingConfig,
    done: u64,
    total: u64,
    hooks: &mut dyn Hooks,
) -> Result<Vec<Experience>> {
    let run_seed = trainer.run_seed;
    let chosen = prompts_of_step(prompts.len(), config.prompts_per_step, done, run_seed);
    let requests: Vec<GenerateRequest> = chosen
        .iter()
        .enumerate()
        .map(|(place, &prompt)| GenerateRequest {
            prompt_ids: prompts[prompt].ids.clone(),
            n: config.samples_per_prompt,
            seed: seed::derive(run_seed, "ppo/sample", done * config.prompts_per_step as u64 + place as u64),
        })
        .collect();
    let mut sampler = trainer.policy.decoder.frozen();
    sampler.merge_lora(); // one product a projection instead of three
    let samples = generate(&sampler, &requests, sampling, &mut |progress| {
        hooks.progress(
            done,
            total,
            &format!("sampling {}/{}", progress.samples_done, progress.samples_total),
        );
    })?;
    let mut experiences = Vec::with_capacity(chosen.len() * config.samples_per_prompt);
    for (request, samples) in requests.into_iter().zip(samples) {
        for sample in samples {
            let (ids, ended) = (sample.ids, sample.finish == FinishReason::Stop);
            let prompt_ids = request.prompt_ids.clone();
            experiences.push(Experience::new(prompt_ids, ids, ended, config, sampling.max_new_tokens));
        }
    }
    Ok(experiences)
}

/// Prompts of a step: an endless sequence of shuffled passes over all prompts, `count` a step.
fn prompts_of_step(prompts: usize, count: usize, step: u64, run_seed: u64) -> Vec<usize> {
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

/// One row under TRL's names.
fn row_of(
    experiences: &[Experience],
    updates: &[PpoUpdate],
    trainer: &PpoTrainer,
    rates: PpoRates,
    step: u64,
    prompts: usize,
    config: &PpoConfig,
) -> MetricRow {
    let average = |of: fn(&PpoUpdate) -> f64| updates.iter().map(of).sum::<f64>() / updates.len() as f64;
    let non_score = |e: &Experience| {
        let tokens = e.old_logprobs.iter().zip(&e.ref_logprobs);
        tokens.map(|(old, re)| -trainer.kl.value * kl_estimate(config.kl_estimator, *old, *re)).sum::<f64>()
    };
    let episodes = step * experiences.len() as u64;
    let epoch = (step * config.prompts_per_step as u64) as f64 / prompts as f64;
    MetricRow::new("ppo", step, epoch)
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
        .with(metrics::LOSS_VALUE_AVG, average(|u| u.value_loss))
        .with(metrics::VAL_CLIPFRAC_AVG, average(|u| u.value_clipfrac))
        .with(metrics::VAL_GRAD_NORM, average(|u| u.value_grad_norm))
        .with(metrics::VAL_RATIO, average(|u| u.ratio))
        .with(metrics::VAL_NUM_EOS_TOKENS, experiences.iter().filter(|e| e.ended).count() as f64)
        .with(metrics::LR, rates.policy.unwrap_or(0.0))
        .with(metrics::EPISODE, episodes as f64)
}

fn mean(experiences: &[Experience], of: impl Fn(&Experience) -> f64) -> f64 {
    experiences.iter().map(of).sum::<f64>() / experiences.len() as f64
}

/// `into += scale · values`.
fn add_scaled(into: &mut [f64], values: &[f64], scale: f64) {
    into.iter_mut().zip(values).for_each(|(into, value)| *into += scale * value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_through_all_prompts_before_any_comes_again() {
        let mut seen: Vec<usize> = (0..5).flat_map(|step| prompts_of_step(10, 4, step, 3)).collect();
        let second = seen.split_off(10);
        for mut pass in [seen.clone(), second.clone()] {
            pass.sort_unstable();
            assert_eq!(pass, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(seen, second);
        assert_eq!(prompts_of_step(2, 5, 0, 3).len(), 5, "more prompts a step than there are");
    }
}
