//! Direct preference optimisation, Rafailov et al. 2023 (<https://arxiv.org/abs/2305.18290>), and its relatives
//! ([`loss::dpo`](crate::loss::dpo)).
//!
//! Differs from the paper and from TRL's `DPOTrainer` in:
//! * labels are soft by default: −(p log σ(βΔ) + (1 − p) log σ(−βΔ)), which is the paper's loss at p = 1;
//! * reference log-probs are computed once, before training, and kept in the checkpoints; the reference then takes no memory, and
//!   losses without a reference never make one;
//! * losses that look at a batch (AOT's order, KTO's reference point) look at all of it, whatever the micro-batches; TRL's look at what
//!   one device has in one pass;
//! * a pair counts by its weight: the loss is Σ w · loss / Σ w over the batch. Metrics, KTO's reference point and the losses that sort a
//!   batch, in which no rank belongs to one pair, do not read it;
//! * KTO's reference point meets each prompt with answers to another prompt of the whole data; in a batch there may be only one;
//! * chosen and rejected share their prompt in the packed batch, and the pairs of a prompt stand together in an epoch, so that a
//!   response that meets several others is computed once;
//! * the learning rate does not start at 0 (see [`schedule`](crate::schedule)).

use std::collections::BTreeMap;
use std::path::Path;

use rlaif_core::config::DpoConfig;
use rlaif_core::{metrics, metrics::MetricRow, seed};
use rlaif_model::{Adapter, Decoder};

use crate::best::WatchReport;
use crate::best_policy::{BestPolicy, HeldOut};
use crate::checkpoint::{Checkpoints, Fingerprint, Snapshot};
use crate::data::{
    HoldoutPair, PreferenceExample, accuracy, batch_of_step, check_preferences, split_by_prompt,
};
use crate::error::{Result, TrainError, finite};
use crate::hooks::{Hooks, Outcome};
use crate::learner::{Learner, to_f64};
use crate::loss::{Objective, PairLogps};
use crate::packing::{Item, Packed, split_by_length};
use crate::reward_trainer::{items_of, label, margins, mean_margin};
use crate::schedule::learning_rate;
use crate::score::sequence_logps;

/// Tokens of a forward pass without gradients.
const EVAL_TOKENS: usize = 2048;

/// A tuned policy.
#[derive(Debug)]
pub struct TrainedPolicy {
    /// The policy, adapters merged.
    pub policy: Decoder,
    /// The adapters by themselves, if it trained any.
    pub adapter: Option<Adapter>,
    /// What training came to.
    pub report: DpoReport,
}

/// What DPO came to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DpoReport {
    /// Optimizer steps.
    pub steps: u64,
    /// Pairs, or single responses, trained on.
    pub train_pairs: usize,
    /// Loss of the last step of this process; NaN if it only loaded a finished checkpoint.
    pub loss: f64,
    /// Every held-out pair with the margin of implicit rewards, for intervals; of a single response, that over the reference point.
    pub holdout: Vec<HoldoutPair>,
    /// Share of held-out pairs that the implicit rewards rank as labelled; NaN if none are held out.
    pub accuracy: f64,
    /// Mean margin of implicit rewards on held-out pairs.
    pub margin: f64,
    /// How the best policy was chosen, where `dpo.watch` did.
    pub watch: Option<WatchReport>,
}

/// A preference with its log-probs under the reference.
#[derive(Debug, Clone, Copy)]
pub struct ReferencedPair<'a> {
    /// The preference.
    pub example: &'a PreferenceExample,
    /// log p_ref(chosen | prompt); not read by losses without a reference.
    pub ref_chosen: f64,
    /// log p_ref(rejected | prompt); likewise.
    pub ref_rejected: f64,
    /// For KTO's reference point.
    pub unrelated: Option<Unrelated<'a>>,
}

/// Two answers to another prompt, with their log-probs to the pair's own prompt under the reference.
#[derive(Debug, Clone, Copy)]
pub struct Unrelated<'a> {
    /// The answers.
    pub answers: [&'a [u32]; 2],
    /// log p_ref(answer | prompt) of each.
    pub ref_logps: [f64; 2],
}

/// Metrics of one optimizer step, averaged over its pairs; only the loss by their weights.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DpoStep {
    /// The loss.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Implicit reward of chosen responses.
    pub chosen_reward: f64,
    /// Implicit reward of rejected responses.
    pub rejected_reward: f64,
    /// Share of pairs whose chosen response has the higher implicit reward.
    pub accuracy: f64,
    /// Summed log-prob of chosen responses.
    pub chosen_logps: f64,
    /// Summed log-prob of rejected responses.
    pub rejected_logps: f64,
    /// KTO's reference point, an estimate of KL(policy ‖ reference) that is at least 0; nats.
    pub kl: Option<f64>,
    /// Tokens that gradients came from.
    pub tokens: usize,
}

/// One policy in training: [`train_dpo`] without data order, files and hooks.
#[derive(Debug)]
pub struct DpoTrainer {
    /// The policy and its optimizer.
    pub learner: Learner,
    config: DpoConfig,
    objective: Objective,
}

impl DpoTrainer {
    /// Makes the policy trainable as the config says.
    ///
    /// # Errors
    /// If a LoRA target does not exist.
    pub fn new(policy: Decoder, config: &DpoConfig, run_seed: u64) -> Result<Self> {
        let lora_seed = seed::derive(run_seed, "dpo/lora", 0);
        let learner = Learner::new(policy, None, &config.optim, config.lora.as_ref(), lora_seed)?;
        Ok(Self { learner, config: config.clone(), objective: Objective::of(config) })
    }

    /// One optimizer step on `pairs`, in micro-batches. `step` counts from 1.
    ///
    /// # Errors
    /// If the loss or the gradient is not finite; the weights are then unchanged.
    pub fn update(&mut self, pairs: &[ReferencedPair<'_>], learning_rate: f64, step: u64) -> Result<DpoStep> {
        let (count, micro_batch_size) = (pairs.len() as f64, self.config.micro_batch_size.max(1));
        let total: f64 = pairs.iter().map(|pair| self.weight(pair)).sum();
        let kl = self.reference_point(pairs)?;
        // What a pair meets in the order of its batch must not depend on the micro-batches: one look at all of it first.
        let ahead = match self.objective.loss.sorts_batch() && pairs.len() > micro_batch_size {
            true => Some(self.objective.losses(&self.pair_logps(pairs)?, kl.unwrap_or(0.0))),
            false => None,
        };
        let mut metrics = DpoStep { kl, ..DpoStep::default() };
        for (number, micro) in pairs.chunks(micro_batch_size).enumerate() {
            let examples: Vec<&PreferenceExample> = micro.iter().map(|pair| pair.example).collect();
            let packed = Packed::new(&items_of(&examples));
            let lengths = packed.lengths();
            let reads = packed.token_reads();
            let hidden = self.learner.hidden(&packed.batch, &reads.indices); // [N, H]
            let logprobs = self.learner.decoder.logprobs(&hidden, &reads, 1.0); // [R]
            let logps: Vec<f64> = split_by_length(&to_f64(&logprobs), &lengths)
                .iter()
                .map(|tokens| tokens.iter().sum())
                .collect();
            let places = packed.of_item.chunks(2);
            let at: Vec<PairLogps> = micro
                .iter()
                .zip(places.clone())
                .map(|(pair, places)| self.at(pair, logps[places[0]], logps[places[1]]))
                .collect();
            let losses = match &ahead {
                Some(losses) => losses[number * micro_batch_size..][..micro.len()].to_vec(),
                None => self.objective.losses(&at, kl.unwrap_or(0.0)),
            };

            let mut response_gradient = vec![0.0; lengths.len()];
            for (((pair, at), loss), places) in micro.iter().zip(&at).zip(&losses).zip(places) {
                let weighed = |x: f64| x * self.weight(pair) / total;
                response_gradient[places[0]] += weighed(loss.chosen);
                response_gradient[places[1]] += weighed(loss.rejected);
                let (chosen_reward, rejected_reward) = self.objective.rewards(at);
                metrics.loss += weighed(loss.loss);
                metrics.chosen_reward += chosen_reward / count;
                metrics.rejected_reward += rejected_reward / count;
                metrics.accuracy += f64::from(chosen_reward > rejected_reward) / count;
                metrics.chosen_logps += at.chosen / count;
                metrics.rejected_logps += at.rejected / count;
            }
            finite("the loss", metrics.loss, step)?;
            // A response's log-prob is the sum over its tokens: each token has the response's gradient.
            let gradient: Vec<f64> = response_gradient
                .iter()
                .zip(&lengths)
                .flat_map(|(&g, &n)| std::iter::repeat_n(g, n))
                .collect();
            self.learner.backward(&logprobs, &gradient);
            metrics.tokens += packed.batch.num_tokens();
        }
        metrics.grad_norm = self.learner.step(learning_rate, step)?;
        Ok(metrics)
    }

    /// Log-probs of pairs, without learning from them.
    ///
    /// # Errors
    /// If a pair cannot go through the model.
    pub fn pair_logps(&self, pairs: &[ReferencedPair<'_>]) -> Result<Vec<PairLogps>> {
        let examples: Vec<&PreferenceExample> = pairs.iter().map(|pair| pair.example).collect();
        let logps = sequence_logps(&self.learner.decoder, &items_of(&examples), EVAL_TOKENS)?;
        Ok(pairs.iter().zip(logps.chunks(2)).map(|(pair, logps)| self.at(pair, logps[0], logps[1])).collect())
    }

    /// KTO's reference point z = max(0, mean[log p(y' | x) − log p_ref(y' | x)]) over prompts x with answers y' to other prompts,
    /// Ethayarajh et al. 2024, section 4.1; none for other losses.
    ///
    /// # Errors
    /// If a pair has no answers to another prompt.
    pub fn reference_point(&self, pairs: &[ReferencedPair<'_>]) -> Result<Option<f64>> {
        if !self.objective.needs_reference_point() {
            return Ok(None);
        }
        let (mut items, mut ref_logps): (Vec<Item<'_>>, Vec<f64>) = Default::default();
        for pair in pairs {
            let unrelated = pair.unrelated.ok_or_else(|| TrainError::BadExample {
                prompt_id: pair.example.prompt_id.clone(),
                reason: "the loss `kto` needs answers to another prompt".into(),
            })?;
            items.extend(unrelated.answers.map(|answer| (pair.example.prompt_ids.as_slice(), answer)));
            ref_logps.extend(unrelated.ref_logps);
        }
        let logps = sequence_logps(&self.learner.decoder, &items, EVAL_TOKENS)?;
        let sum: f64 = logps.iter().zip(&ref_logps).map(|(logp, reference)| logp - reference).sum();
        Ok(Some((sum / items.len() as f64).max(0.0)))
    }

    /// How much a pair counts.
    fn weight(&self, pair: &ReferencedPair<'_>) -> f64 {
        if self.objective.loss.sorts_batch() { 1.0 } else { pair.example.weight }
    }

    fn at(&self, pair: &ReferencedPair<'_>, chosen: f64, rejected: f64) -> PairLogps {
        PairLogps {
            chosen,
            rejected,
            ref_chosen: pair.ref_chosen,
            ref_rejected: pair.ref_rejected,
            chosen_len: pair.example.chosen_ids.len(),
            rejected_len: pair.example.rejected_ids.len(),
            p: label(pair.example.p, self.config.soft_labels),
        }
    }
}

/// Tunes `policy` on preferences; the reference, where the loss has one, is `policy` as it comes. Checkpoints go to `dir/checkpoints`.
///
/// Called again after it was stopped or killed, it goes on from the newest checkpoint and comes to the same weights.
///
/// # Errors
/// If there are no preferences, one does not fit the model, the loss is not finite, or the disk fails.
pub fn train_dpo(
    policy: Decoder,
    data: &[PreferenceExample],
    config: &DpoConfig,
    run_seed: u64,
    dir: &Path,
    hooks: &mut dyn Hooks,
) -> Result<Outcome<TrainedPolicy>> {
    train_dpo_watched(policy, data, None, config, run_seed, dir, hooks)
}

/// [`train_dpo`], whose policy is the best one by what `held_out` says, as `dpo.watch` has it.
///
/// # Errors
/// As [`train_dpo`], or if a look fails.
pub fn train_dpo_watched(
    policy: Decoder,
    data: &[PreferenceExample],
    held_out: Option<HeldOut<'_>>,
    config: &DpoConfig,
    run_seed: u64,
    dir: &Path,
    hooks: &mut dyn Hooks,
) -> Result<Outcome<TrainedPolicy>> {
    check_preferences("dpo", data, &policy)?;
    let (train, holdout) = split_by_prompt(data, config.holdout_fraction, run_seed);
    let objective = Objective::of(config);
    let unrelated = match objective.needs_reference_point() {
        true => unrelated_answers(&train, &holdout, policy.config().max_position_embeddings)?,
        false => Vec::new(),
    };
    let mut fingerprint = Fingerprint::new("dpo", config, run_seed);
    BestPolicy::fingerprint(held_out.as_ref(), &mut fingerprint);
    let checkpoints = Checkpoints::open(dir, fingerprint.preferences(data).weights(&policy).finish())?;

    let batch_size = config.batch_size.max(1);
    let steps_per_epoch = train.len().div_ceil(batch_size) as u64;
    let total = steps_per_epoch * config.epochs as u64;
    let steps = (total, steps_per_epoch);
    let mut best = BestPolicy::new("dpo", config.watch.as_ref(), held_out, &policy, steps, run_seed)?;
    let mut trainer = DpoTrainer::new(policy, config, run_seed)?;
    let reference = objective.needs_reference().then(|| trainer.learner.decoder.without_adapter());
    let (mut done, mut tokens) = (0, 0.0);
    let everything: Vec<&PreferenceExample> = train.iter().chain(&holdout).copied().collect();
    let mut ref_logps = Vec::new(); // chosen and rejected in turns; then, for KTO, of unrelated answers likewise
    if let Some(mut checkpoint) = checkpoints.newest(&mut |w| hooks.warning(w))? {
        trainer.learner.read_from("policy", &mut checkpoint)?;
        (done, tokens) = (checkpoint.step, checkpoint.number("num_tokens")?);
        ref_logps = checkpoint.numbers("ref_logps")?.to_vec();
        best.read_from(&mut checkpoint)?;
        hooks.resumed(done);
    } else if let Some(reference) = &reference {
        hooks.progress(0, total, "reference log-probs");
        let mut items = items_of(&everything);
        for (pair, answers) in everything.iter().zip(&unrelated) {
            items.extend(answers.map(|answer| (pair.prompt_ids.as_slice(), answer)));
        }
        ref_logps = sequence_logps(reference, &items, EVAL_TOKENS)?;
        save(&checkpoints, 0, &trainer, &best, tokens, &ref_logps)?;
    }
    drop(reference);
    let referenced = reference_pairs(&everything, &unrelated, &ref_logps);
    let (train, holdout) = referenced.split_at(train.len());

    let prompts: Vec<&str> = train.iter().map(|pair| pair.example.prompt_id.as_str()).collect();
    let mut evaluation = None;
    let mut loss = f64::NAN;
    while best.goes_on(&trainer.learner, done, hooks)? {
        hooks.progress(done, total, "");
        let batch = batch_of_step(&prompts, batch_size, done, run_seed, "dpo/order");
        let pairs: Vec<ReferencedPair<'_>> = batch.iter().map(|&i| train[i]).collect();
        let rate = learning_rate(&config.optim, done, total);
        let named =
            |error: TrainError| error.on_rows(pairs.iter().map(|pair| pair.example.prompt_id.as_str()));
        let step = trainer.update(&pairs, rate, done + 1).map_err(named)?;
        done += 1;
        loss = step.loss;
        tokens += step.tokens as f64;

        let mut row = MetricRow::new("dpo", done, done as f64 / steps_per_epoch as f64)
            .with(metrics::LOSS, step.loss)
            .with(metrics::GRAD_NORM, step.grad_norm)
            .with(metrics::LEARNING_RATE, rate)
            .with(metrics::REWARDS_CHOSEN, step.chosen_reward)
            .with(metrics::REWARDS_REJECTED, step.rejected_reward)
            .with(metrics::REWARDS_ACCURACIES, step.accuracy)
            .with(metrics::REWARDS_MARGINS, step.chosen_reward - step.rejected_reward)
            .with(metrics::LOGPS_CHOSEN, step.chosen_logps)
            .with(metrics::LOGPS_REJECTED, step.rejected_logps)
            .with(metrics::NUM_TOKENS, tokens);
        if let Some(kl) = step.kl {
            row.set(metrics::KL, kl);
        }
        evaluation = None;
        if done.is_multiple_of(steps_per_epoch) && !holdout.is_empty() {
            hooks.progress(done, total, "held-out pairs");
            evaluation = Some(evaluate(&trainer, holdout, &mut row)?);
        }
        hooks.metrics(&row);

        let stopping = hooks.should_stop();
        let saves = done == total || done.is_multiple_of(config.save_steps.max(1) as u64);
        if stopping || saves || best.is_due(done) {
            save(&checkpoints, done, &trainer, &best, tokens, &ref_logps)?;
        }
        if stopping && done < total {
            return Ok(Outcome::Interrupted { step: done, total });
        }
    }

    let watch = best.put_back(done, &mut trainer.learner, hooks)?;
    let holdout = match evaluation.filter(|_| watch.as_ref().is_none_or(|watch| watch.kept_step == done)) {
        Some(pairs) => pairs,
        None if holdout.is_empty() => Vec::new(),
        None => evaluate(&trainer, holdout, &mut MetricRow::new("dpo", total, config.epochs as f64))?,
    };
    hooks.progress(total, total, "");
    let report = DpoReport {
        steps: done,
        train_pairs: train.len(),
        loss,
        accuracy: accuracy(&holdout),
        margin: mean_margin(&holdout),
        holdout,
        watch,
    };
    let adapter = trainer.learner.adapter();
    Ok(Outcome::Finished(TrainedPolicy { policy: trainer.learner.into_model().0, adapter, report }))
}

/// For every pair, those of `train` first, two answers to another prompt of `train`, cut to the room that its prompt leaves.
///
/// Held-out pairs meet answers that are trained on, never the other way round.
fn unrelated_answers<'a>(
    train: &[&'a PreferenceExample],
    holdout: &[&'a PreferenceExample],
    context: usize,
) -> Result<Vec<[&'a [u32]; 2]>> {
    let mut by_prompt: BTreeMap<&str, Vec<&'a PreferenceExample>> = BTreeMap::new();
    for &pair in train {
        by_prompt.entry(&pair.prompt_id).or_default().push(pair);
    }
    let place: BTreeMap<&str, usize> = by_prompt.keys().enumerate().map(|(i, &id)| (id, i)).collect();
    let prompts: Vec<&Vec<&'a PreferenceExample>> = by_prompt.values().collect();
    if prompts.len() < 2 {
        let next_step = "label pairs of more prompts: the loss `kto` compares with answers to other prompts";
        return Err(TrainError::NoData {
            trainer: "dpo",
            what: "second prompt",
            next_step: next_step.into(),
        });
    }
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    let answers = train.iter().chain(holdout).enumerate().map(|(number, pair)| {
        let next = place.get(pair.prompt_id.as_str()).map_or(number, |place| place + 1) % prompts.len();
        let met = met.entry(&pair.prompt_id).or_default();
        let other = prompts[next][*met % prompts[next].len()];
        *met += 1;
        let room = context - pair.prompt_ids.len();
        [&other.chosen_ids, &other.rejected_ids].map(|answer| &answer[..answer.len().min(room)])
    });
    Ok(answers.collect())
}

/// Pairs with their parts of `ref_logps`, which is empty for a loss without a reference.
fn reference_pairs<'a>(
    examples: &[&'a PreferenceExample],
    unrelated: &[[&'a [u32]; 2]],
    ref_logps: &[f64],
) -> Vec<ReferencedPair<'a>> {
    let two = |i: usize| match ref_logps.is_empty() {
        true => [0.0; 2],
        false => [ref_logps[2 * i], ref_logps[2 * i + 1]],
    };
    let pair = |(i, &example): (usize, &&'a PreferenceExample)| ReferencedPair {
        example,
        ref_chosen: two(i)[0],
        ref_rejected: two(i)[1],
        unrelated: unrelated.get(i).map(|&answers| Unrelated { answers, ref_logps: two(examples.len() + i) }),
    };
    examples.iter().enumerate().map(pair).collect()
}

/// Held-out pairs and their row of metrics; to a loss that looks at a batch they are one.
fn evaluate(
    trainer: &DpoTrainer,
    holdout: &[ReferencedPair<'_>],
    row: &mut MetricRow,
) -> Result<Vec<HoldoutPair>> {
    let at = trainer.pair_logps(holdout)?;
    let reference_point = trainer.reference_point(holdout)?;
    let losses = trainer.objective.losses(&at, reference_point.unwrap_or(0.0));
    let (chosen, rejected): (Vec<f64>, Vec<f64>) = at.iter().map(|at| trainer.objective.rewards(at)).unzip();
    let rewards: Vec<f64> = chosen.iter().zip(&rejected).flat_map(|(&c, &r)| [c, r]).collect();
    let examples: Vec<&PreferenceExample> = holdout.iter().map(|pair| pair.example).collect();
    let pairs = margins(&examples, &rewards);
    let mean = |sum: f64| sum / holdout.len() as f64;
    row.set(metrics::EVAL_LOSS, mean(losses.iter().map(|loss| loss.loss).sum()));
    row.set(metrics::EVAL_REWARDS_ACCURACIES, accuracy(&pairs));
    row.set(metrics::EVAL_REWARDS_MARGINS, mean_margin(&pairs));
    row.set(metrics::EVAL_REWARDS_CHOSEN, mean(chosen.iter().sum()));
    row.set(metrics::EVAL_REWARDS_REJECTED, mean(rejected.iter().sum()));
    row.set(metrics::EVAL_LOGPS_CHOSEN, mean(at.iter().map(|at| at.chosen).sum()));
    row.set(metrics::EVAL_LOGPS_REJECTED, mean(at.iter().map(|at| at.rejected).sum()));
    Ok(pairs)
}

fn save(
    checkpoints: &Checkpoints,
    step: u64,
    trainer: &DpoTrainer,
    best: &BestPolicy<'_>,
    tokens: f64,
    ref_logps: &[f64],
) -> Result<()> {
    let mut snapshot = Snapshot::default();
    trainer.learner.write_to("policy", &mut snapshot);
    snapshot.numbers("num_tokens".into(), vec![tokens]);
    snapshot.numbers("ref_logps".into(), ref_logps.to_vec());
    best.write_to(&mut snapshot);
    checkpoints.save(step, &snapshot)
}
