//! Learning from a rollout: proximal policy optimisation, Schulman et al. 2017 (<https://arxiv.org/abs/1707.06347>), as
//! Ziegler et al. 2019 (<https://arxiv.org/abs/1909.08593>) use it on language models, and its relatives.
//!
//! Algorithms differ in [`advantage`](crate::advantage), and in the loss that the policy has here. [`online`](crate::online) samples,
//! and says when it is enough.
//!
//! Differs from TRL's `PPOTrainer` in:
//! * policy and critic have an optimizer each (as OpenRLHF and verl); `vf_coef` is for a critic on the policy's trunk;
//! * scores are normalised by what the baseline's responses score, before the penalty of a missing end;
//! * the score stands on the last token by default; `score_placement = "after_last"` is TRL's;
//! * the critic may warm up alone;
//! * no reference copy with LoRA: the reference is the policy without its adapters.

use burn::tensor::Tensor;
use rlaif_core::config::{Algorithm, CriticTrunk, KlPlace, PpoConfig, RatioLevel, Reduction};
use rlaif_core::seed;
use rlaif_model::{Decoder, ModelError, ScalarHead};

use crate::advantage::{assign_advantages, best_and_worst};
use crate::data::epoch_order;
use crate::error::{Result, TrainError, finite};
use crate::learner::{Learner, to_f64};
use crate::loss::{
    Clip, PolicyLoss, kl_loss, log_sigmoid, policy_gradient_loss, policy_loss, sequence_policy_loss, sigmoid,
    value_loss,
};
use crate::math::KlCoefficient;
use crate::packing::{Item, Packed, split_by_length};
use crate::rollout::{Experience, ScoreNormalizer, measure_logprobs, measure_values, pack_values};
use crate::score::RewardFn;

/// Metrics of one mini-batch update.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PpoUpdate {
    /// Mean policy loss.
    pub policy_loss: f64,
    /// Mean clipped value loss.
    pub value_loss: f64,
    /// Gradient norm of the policy before clipping; 0 while only the critic learns. With a critic on the policy's trunk, of both.
    pub policy_grad_norm: f64,
    /// Gradient norm of a critic of its own before clipping.
    pub value_grad_norm: f64,
    /// ½ mean (log ρ)².
    pub approxkl: f64,
    /// Share of ratios at which a clip decides.
    pub policy_clipfrac: f64,
    /// Share of values whose loss is clipped.
    pub value_clipfrac: f64,
    /// Mean ratio ρ.
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

/// Policy, reference and critic in training: [`train_ppo`](crate::train_ppo) without sampling, files and hooks.
#[derive(Debug)]
pub struct PpoTrainer {
    /// The policy and its optimizer; it has a head if the critic is on its trunk.
    pub policy: Learner,
    /// The policy's frozen starting point.
    pub reference: Decoder,
    /// A critic of its own, its head and its optimizer.
    pub critic: Option<Learner>,
    /// The weight of the KL penalty.
    pub kl: KlCoefficient,
    /// The baseline's scores.
    pub scores: ScoreNormalizer,
    pub(crate) config: PpoConfig,
    pub(crate) run_seed: u64,
}

/// What the means of a mini-batch are over.
struct Counts {
    /// Responses that the policy learns from.
    responses: f64,
    /// Their tokens.
    tokens: f64,
    /// Tokens that a mini-batch of this rollout has on average.
    average_tokens: f64,
    /// Tokens of the longest response that may be.
    longest: f64,
    /// Ratios.
    ratios: f64,
    /// Values.
    values: f64,
}

impl PpoTrainer {
    /// Makes policy and critic trainable as the config says; the reference is `policy` as it comes, in the
    /// dtype of what trains.
    ///
    /// `critic` is read by algorithms that have one; only its head is, if it is to be on the policy's trunk. With LoRA, policy and critic
    /// that were cloned from one decoder go on sharing its weights, unless they are rounded to bfloat16, each for itself.
    ///
    /// # Errors
    /// If a LoRA target does not exist, the temperature is not above 0, or there is no critic for an algorithm that has one.
    pub fn new(
        policy: Decoder,
        critic: Option<(Decoder, ScalarHead)>,
        config: &PpoConfig,
        run_seed: u64,
    ) -> Result<Self> {
        let input = |reason: String| TrainError::from(ModelError::Input { reason });
        if config.temperature <= 0.0 {
            return Err(input(format!("`ppo.temperature` must be above 0, got {}", config.temperature)));
        }
        let (trunk, head) = match critic.filter(|_| config.algorithm.has_critic()) {
            Some((trunk, head)) if config.critic == CriticTrunk::Own => (Some((trunk, head)), None),
            Some((_, head)) => (None, Some(head)),
            None if config.algorithm.has_critic() => {
                return Err(input(format!("`{}` needs a critic", config.algorithm.name())));
            }
            None => (None, None),
        };
        let (lora, seed_of) = (config.lora.as_ref(), |index| seed::derive(run_seed, "ppo/lora", index));
        let policy = Learner::new(policy, head, &config.optim, lora, seed_of(0))?;
        let reference = policy.decoder.without_adapter();
        let critic = trunk
            .map(|(trunk, head)| Learner::new(trunk, Some(head), &config.critic_optim, lora, seed_of(1)))
            .transpose()?;
        let (kl, scores) = (KlCoefficient::new(config), ScoreNormalizer::default());
        Ok(Self { policy, reference, critic, kl, scores, config: config.clone(), run_seed })
    }

    /// Fills in everything that [`update`](Self::update) needs, given the raw scores. Responses without one are taken out; returns how
    /// many. Log-probs that are there already stay.
    ///
    /// With `is_baseline` the scores are of the untouched policy, and set the normalisation.
    ///
    /// # Errors
    /// If no response can be scored, or a score is not finite.
    pub fn measure(
        &mut self,
        experiences: &mut Vec<Experience>,
        scores: Vec<Option<f64>>,
        is_baseline: bool,
        step: u64,
    ) -> Result<usize> {
        let sampled = experiences.len();
        for (experience, score) in experiences.iter_mut().zip(scores) {
            experience.raw_score = score.unwrap_or(f64::NAN);
        }
        experiences.retain(|experience| !experience.raw_score.is_nan());
        if experiences.is_empty() {
            let reason = format!("none of the {sampled} responses of step {step} has a score");
            return Err(TrainError::Reward { reason });
        }
        if self.config.normalize_scores && is_baseline {
            self.scores.observe(experiences.iter().map(|e| e.raw_score));
        }
        for experience in experiences.iter_mut() {
            experience.score = match self.config.normalize_scores {
                true => self.scores.apply(experience.raw_score),
                false => experience.raw_score,
            };
            if let Some(most) = self.config.score_clip {
                experience.score = experience.score.clamp(-most, most);
            }
            if !experience.ended {
                experience.score -= self.config.missing_eos_penalty.unwrap_or(0.0);
            }
        }
        // Those of a rollout that was sampled ahead are of the policy that sampled it.
        if experiences.iter().any(|experience| experience.old_logprobs.is_empty()) {
            measure_logprobs(experiences, &self.policy.decoder, &self.reference, self.config.temperature)?;
        }
        let critic = self.critic.as_ref().unwrap_or(&self.policy);
        if let Some(head) = &critic.head {
            measure_values(experiences, &critic.decoder, head);
        }
        assign_advantages(experiences, self.kl.value, &self.config);
        Ok(sampled - experiences.len())
    }

    /// Learns from a rollout that is measured: passes over its mini-batches, in micro-batches. `step` counts from 1.
    ///
    /// # Errors
    /// If a loss or a gradient is not finite.
    pub fn update(
        &mut self,
        experiences: &[Experience],
        rates: PpoRates,
        step: u64,
    ) -> Result<Vec<PpoUpdate>> {
        let pairs = match self.config.algorithm {
            Algorithm::OnlineDpo => Some(best_and_worst(experiences)),
            _ => None,
        };
        let units = pairs.as_ref().map_or(experiences.len(), Vec::len);
        let (epochs, mini_batches) = (self.config.epochs(), self.config.mini_batches.max(1));
        let mut updates = Vec::new();
        for epoch in 0..epochs {
            let pass = (step - 1) * epochs as u64 + epoch as u64;
            let order = epoch_order(units, pass, self.run_seed, "ppo/minibatches");
            for mini in order.chunks(units.div_ceil(mini_batches).max(1)) {
                let mut mini = mini.to_vec();
                mini.sort_unstable(); // responses of one prompt side by side share it in the micro-batch
                let (update, go_on) = match &pairs {
                    Some(pairs) => {
                        let pairs: Vec<[&Experience; 2]> = mini
                            .iter()
                            .map(|&i| [&experiences[pairs[i].0], &experiences[pairs[i].1]])
                            .collect();
                        (self.update_on_pairs(&pairs, rates, step)?, true)
                    }
                    None => {
                        let mini: Vec<&Experience> = mini.iter().map(|&i| &experiences[i]).collect();
                        let counts = self.counts(&mini, experiences);
                        self.update_mini_batch(&mini, &counts, rates, step)?
                    }
                };
                updates.push(update);
                if !go_on {
                    return Ok(updates);
                }
            }
        }
        Ok(updates)
    }

    fn counts(&self, mini: &[&Experience], rollout: &[Experience]) -> Counts {
        let tokens_of = |e: &Experience| if self.counts_for_policy(e) { e.response_ids.len() } else { 0 };
        let responses = mini.iter().filter(|e| self.counts_for_policy(e)).count() as f64;
        let tokens = mini.iter().map(|e| tokens_of(e)).sum::<usize>() as f64;
        let rollout_tokens = rollout.iter().map(tokens_of).sum::<usize>() as f64;
        let longest = rollout.iter().map(|e| e.response_ids.len()).max().unwrap_or(1);
        Counts {
            responses,
            tokens,
            average_tokens: rollout_tokens * mini.len() as f64 / rollout.len() as f64,
            longest: self.config.max_new_tokens.unwrap_or(longest) as f64,
            ratios: if self.has_token_ratios() { tokens } else { responses },
            values: mini.iter().map(|e| e.values.len()).sum::<usize>() as f64,
        }
    }

    fn counts_for_policy(&self, experience: &Experience) -> bool {
        experience.ended || !self.config.mask_truncated
    }

    fn has_token_ratios(&self) -> bool {
        !self.config.algorithm.has_ratio() || self.config.ratio() == RatioLevel::Token
    }

    /// One step of policy and critic. Says no at the end if the policy has gone further from the one that sampled than
    /// `target_approxkl` allows; it then stays where it was.
    fn update_mini_batch(
        &mut self,
        mini: &[&Experience],
        counts: &Counts,
        rates: PpoRates,
        step: u64,
    ) -> Result<(PpoUpdate, bool)> {
        let mut metrics = PpoUpdate::default();
        let has_shared_critic = self.policy.head.is_some();
        for micro in mini.chunks(self.config.micro_batch_size.max(1)) {
            if rates.policy.is_some() || has_shared_critic {
                self.accumulate_policy(micro, counts, rates.policy.is_some(), &mut metrics);
                finite("the policy loss", metrics.policy_loss, step)?;
            }
            if self.critic.is_some() {
                self.accumulate_critic(micro, counts, &mut metrics);
            }
            finite("the value loss", metrics.value_loss, step)?;
        }
        if self.config.target_approxkl.is_some_and(|target| metrics.approxkl > 1.5 * target) {
            self.policy.discard_gradients();
            self.critic.iter_mut().for_each(Learner::discard_gradients);
            return Ok((metrics, false));
        }
        match rates.policy {
            Some(rate) => metrics.policy_grad_norm = self.policy.step(rate, step)?,
            None => {
                metrics.ratio = 1.0;
                if has_shared_critic {
                    metrics.value_grad_norm = self.policy.step(rates.critic, step)?;
                }
            }
        }
        if let Some(critic) = &mut self.critic {
            metrics.value_grad_norm = critic.step(rates.critic, step)?;
        }
        Ok((metrics, true))
    }

    /// Adds the gradients of a micro-batch to the policy, and those of the values that are read from its trunk; while the policy does
    /// not `learn`, only those of the head.
    fn accumulate_policy(
        &mut self,
        micro: &[&Experience],
        counts: &Counts,
        learns: bool,
        metrics: &mut PpoUpdate,
    ) {
        let (packed, reads) = pack_values(micro);
        // Values are read where log-probs are, and after the last token where that counts.
        let hidden = self.policy.hidden(&packed.batch, &reads.indices); // [N, H]
        let values = self.policy.head.as_ref().map(|head| {
            let hidden = if learns { hidden.clone() } else { hidden.clone().detach() };
            head.forward(&hidden, &reads.indices) // [R_v]
        });
        let values = values.map(|output| {
            let mut gradient = self.value_gradient(&output, micro, &packed, &reads.lengths, counts, metrics);
            gradient.iter_mut().for_each(|slope| *slope *= self.config.vf_coef);
            (output, gradient)
        });
        let logprobs = learns.then(|| {
            let temperature = self.config.temperature;
            let output = self.policy.decoder.logprobs(&hidden, &packed.token_reads(), temperature); // [R]
            let gradient = self.policy_gradient(&output, micro, &packed, counts, metrics);
            (output, gradient)
        });
        match (&logprobs, &values) {
            (Some((output, gradient)), None) | (None, Some((output, gradient))) => {
                self.policy.backward(output, gradient);
            }
            (Some((logprobs, of_policy)), Some((values, of_values))) => {
                self.policy.backward_both([(logprobs, of_policy), (values, of_values)]);
            }
            (None, None) => {}
        }
    }

    /// d loss / d logprob of each token read, `[R]`.
    fn policy_gradient(
        &self,
        output: &Tensor<1>,
        micro: &[&Experience],
        packed: &Packed,
        counts: &Counts,
        metrics: &mut PpoUpdate,
    ) -> Vec<f64> {
        let logprobs = split_by_length(&to_f64(output), &packed.lengths());
        let mut gradients: Vec<Vec<f64>> = logprobs.iter().map(|tokens| vec![0.0; tokens.len()]).collect();
        let kl_coef = if self.config.kl_place() == KlPlace::Loss { self.kl.value } else { 0.0 };
        for (experience, &place) in micro.iter().zip(&packed.of_item) {
            if !self.counts_for_policy(experience) {
                continue;
            }
            let loss = self.policy_loss_of(experience, &logprobs[place]);
            let (of_response, of_token) = self.weights(experience, counts);
            add_scaled(&mut gradients[place], &loss.gradient, of_response);
            metrics.policy_loss += loss.sum * of_response;
            if kl_coef > 0.0 {
                let sampled =
                    self.config.kl_correction.then_some((&*experience.old_logprobs, self.config.ratio()));
                let estimator = self.config.kl_estimator();
                let (sum, slopes) = kl_loss(estimator, &logprobs[place], &experience.ref_logprobs, sampled);
                add_scaled(&mut gradients[place], &slopes, kl_coef * of_token);
                metrics.policy_loss += sum * kl_coef * of_token;
            }
            metrics.approxkl += loss.approxkl_sum / counts.ratios;
            metrics.policy_clipfrac += loss.clipped as f64 / counts.ratios;
            metrics.ratio += loss.ratio_sum / counts.ratios;
        }
        gradients.concat()
    }

    fn policy_loss_of(&self, experience: &Experience, logprobs: &[f64]) -> PolicyLoss {
        let config = &self.config;
        let (old, advantages) = (&experience.old_logprobs, &experience.advantages);
        if !config.algorithm.has_ratio() {
            return policy_gradient_loss(logprobs, old, advantages);
        }
        let clip = Clip {
            low: config.cliprange,
            high: config.cliprange_high.unwrap_or(config.cliprange),
            dual: config.dual_clip,
        };
        match config.ratio() {
            RatioLevel::Token => policy_loss(logprobs, old, advantages, &clip),
            // The advantages of a response are all the same here.
            RatioLevel::Sequence => sequence_policy_loss(logprobs, old, advantages[0], &clip, false),
            RatioLevel::SequenceMean => sequence_policy_loss(logprobs, old, advantages[0], &clip, true),
        }
    }

    /// What the loss of a response, a sum over its ratios, is multiplied by, and what that of each of its tokens.
    fn weights(&self, experience: &Experience, counts: &Counts) -> (f64, f64) {
        let length = experience.response_ids.len() as f64;
        if !self.has_token_ratios() {
            return (1.0 / counts.responses, 1.0 / (counts.responses * length));
        }
        let of_token = match self.config.reduction() {
            Reduction::Grpo => 1.0 / (counts.responses * length),
            Reduction::Dapo => 1.0 / counts.average_tokens,
            Reduction::Bnpo => 1.0 / counts.tokens,
            Reduction::DrGrpo => 1.0 / (counts.responses * counts.longest),
        };
        (of_token, of_token)
    }

    /// Adds the value gradient of a micro-batch to a critic of its own.
    fn accumulate_critic(&mut self, micro: &[&Experience], counts: &Counts, metrics: &mut PpoUpdate) {
        let Some(critic) = &mut self.critic else { return };
        let (packed, reads) = pack_values(micro);
        let hidden = critic.hidden(&packed.batch, &reads.indices); // [N, H]
        let head = critic.head.as_ref().expect("a critic has a head");
        let output = head.forward(&hidden, &reads.indices); // [R]
        let gradient = self.value_gradient(&output, micro, &packed, &reads.lengths, counts, metrics);
        if let Some(critic) = &mut self.critic {
            critic.backward(&output, &gradient);
        }
    }

    /// d loss / d value, `[R]`; `lengths` are the values of each distinct response.
    fn value_gradient(
        &self,
        output: &Tensor<1>,
        micro: &[&Experience],
        packed: &Packed,
        lengths: &[usize],
        counts: &Counts,
        metrics: &mut PpoUpdate,
    ) -> Vec<f64> {
        let predicted = split_by_length(&to_f64(output), lengths);
        let mut gradients: Vec<Vec<f64>> = predicted.iter().map(|values| vec![0.0; values.len()]).collect();
        for (experience, &place) in micro.iter().zip(&packed.of_item) {
            let loss = value_loss(
                &predicted[place],
                &experience.values,
                &experience.returns,
                self.config.cliprange_value,
            );
            add_scaled(&mut gradients[place], &loss.gradient, 1.0 / counts.values);
            metrics.value_loss += loss.sum / counts.values;
            metrics.value_clipfrac += loss.clipped as f64 / counts.values;
        }
        gradients.concat()
    }

    /// One step of online DPO, Guo et al. 2024 (<https://arxiv.org/abs/2402.04792>): −log σ(β (log-ratio of the best − log-ratio of
    /// the worst)), a mean over the prompts. β is the KL coefficient.
    fn update_on_pairs(
        &mut self,
        pairs: &[[&Experience; 2]],
        rates: PpoRates,
        step: u64,
    ) -> Result<PpoUpdate> {
        let mut metrics = PpoUpdate { ratio: 1.0, ..PpoUpdate::default() };
        let (count, beta) = (pairs.len() as f64, self.kl.value);
        for micro in pairs.chunks((self.config.micro_batch_size / 2).max(1)) {
            let items: Vec<Item<'_>> = micro.as_flattened().iter().map(|e| e.item()).collect();
            let packed = Packed::new(&items);
            let (reads, temperature) = (packed.token_reads(), self.config.temperature);
            let hidden = self.policy.hidden(&packed.batch, &reads.indices); // [N, H]
            let output = self.policy.decoder.logprobs(&hidden, &reads, temperature); // [R]
            let logprobs = split_by_length(&to_f64(&output), &packed.lengths());
            let mut gradients: Vec<Vec<f64>> =
                logprobs.iter().map(|tokens| vec![0.0; tokens.len()]).collect();
            for (pair, places) in micro.iter().zip(packed.of_item.chunks(2)) {
                let log_ratio = |side: usize| {
                    logprobs[places[side]].iter().sum::<f64>() - pair[side].ref_logprobs.iter().sum::<f64>()
                };
                let margin = beta * (log_ratio(0) - log_ratio(1));
                metrics.policy_loss -= log_sigmoid(margin) / count;
                let slope = beta * sigmoid(-margin) / count;
                gradients[places[0]].iter_mut().for_each(|gradient| *gradient -= slope);
                gradients[places[1]].iter_mut().for_each(|gradient| *gradient += slope);
            }
            finite("the policy loss", metrics.policy_loss, step)?;
            self.policy.backward(&output, &gradients.concat());
        }
        if let Some(rate) = rates.policy {
            metrics.policy_grad_norm = self.policy.step(rate, step)?;
        }
        Ok(metrics)
    }
}

/// One score for each response, as `reward` gives them.
///
/// # Errors
/// If they are not as many, or one is not finite.
pub(crate) fn raw_scores(
    experiences: &[Experience],
    reward: &mut dyn RewardFn,
    step: u64,
) -> Result<Vec<Option<f64>>> {
    let items: Vec<Item<'_>> = experiences.iter().map(Experience::item).collect();
    let scores = reward.score(&items)?;
    if scores.len() != experiences.len() {
        let reason = format!("{} scores for {} responses", scores.len(), experiences.len());
        return Err(TrainError::Reward { reason });
    }
    scores.iter().flatten().try_for_each(|&score| finite("a score", score, step).map(drop))?;
    Ok(scores)
}

/// `into += scale · values`.
fn add_scaled(into: &mut [f64], values: &[f64], scale: f64) {
    into.iter_mut().zip(values).for_each(|(into, value)| *into += scale * value);
}
