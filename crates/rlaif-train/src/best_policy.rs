//! The best policy: every so many steps it answers prompts that are not trained on, and somebody who does not please it says how well.

use rlaif_core::config::PolicyWatchConfig;
use rlaif_core::records::FinishReason;
use rlaif_core::{metrics, seed};
use rlaif_model::{Decoder, GenerateRequest, SamplingConfig, generate};

use crate::best::{Best, Looks, WatchReport};
use crate::checkpoint::{Checkpoint, Fingerprint, Snapshot};
use crate::data::PromptIds;
use crate::error::{Result, TrainError};
use crate::hooks::Hooks;
use crate::learner::Learner;
use crate::packing::Item;

/// Says how good what a policy says is. Training never maximises it.
pub trait HeldOutScore {
    /// One score for each (prompt, response), in order; none for a response that could not be scored. `first` is what the policy said to
    /// the same prompts, in the same order, before it learnt: what judges that compare compare with.
    ///
    /// # Errors
    /// If scoring as such fails.
    fn score(&mut self, said: &[Item<'_>], first: &[Item<'_>]) -> Result<Vec<Option<f64>>>;
}

impl<F: FnMut(&[u32], &[u32]) -> f64> HeldOutScore for F {
    fn score(&mut self, said: &[Item<'_>], _: &[Item<'_>]) -> Result<Vec<Option<f64>>> {
        Ok(said.iter().map(|(prompt, response)| Some(self(prompt, response))).collect())
    }
}

/// Who looks at a policy in training, and what it answers then.
pub struct HeldOut<'a> {
    /// What is answered; the stage does not train on it.
    pub prompts: &'a [PromptIds],
    /// Temperature, longest response, stop tokens and batch size.
    pub sampling: &'a SamplingConfig,
    /// Who scores the answers.
    pub score: &'a mut dyn HeldOutScore,
}

/// [`Best`] of a policy; without a watch it only counts the steps.
pub(crate) struct BestPolicy<'a> {
    total: u64,
    watched: Option<Watched<'a>>,
}

struct Watched<'a> {
    best: Best,
    held_out: HeldOut<'a>,
    samples_per_prompt: usize,
    run_seed: u64,
    /// What the policy said before it learnt, prompt by prompt.
    first: Vec<Vec<u32>>,
}

/// Names of a checkpoint.
const FIRST: &str = "best/said_first";

impl<'a> BestPolicy<'a> {
    /// Nothing looked at yet.
    ///
    /// # Errors
    /// If there are no prompts to look at, or one does not fit the model.
    pub fn new(
        stage: &'static str,
        config: Option<&PolicyWatchConfig>,
        held_out: Option<HeldOut<'a>>,
        policy: &Decoder,
        (total, steps_per_epoch): (u64, u64),
        run_seed: u64,
    ) -> Result<Self> {
        let Some((config, held_out)) = config.zip(held_out) else { return Ok(Self { total, watched: None }) };
        if held_out.prompts.is_empty() {
            let next_step =
                format!("raise `{stage}.holdout_fraction`, or add prompts that it does not train on");
            return Err(TrainError::NothingHeldOut { trainer: stage, what: "prompt".into(), next_step });
        }
        for prompt in held_out.prompts {
            policy.check_ids(&prompt.ids).map_err(|error| TrainError::BadExample {
                prompt_id: prompt.id.clone(),
                reason: error.to_string(),
            })?;
        }
        let best = Best::new(Looks::of_policy(stage, config, total, steps_per_epoch));
        let samples_per_prompt = config.samples_per_prompt.max(1);
        Ok(Self {
            total,
            watched: Some(Watched { best, held_out, samples_per_prompt, run_seed, first: Vec::new() }),
        })
    }

    /// Adds what is looked at to what the training depends on.
    pub fn fingerprint(held_out: Option<&HeldOut<'_>>, fingerprint: &mut Fingerprint) {
        let Some(held_out) = held_out else { return };
        fingerprint
            .bytes(format!("{:?}", SamplingConfig { batch_size: 0, ..held_out.sampling.clone() }).as_bytes());
        for prompt in held_out.prompts {
            fingerprint.bytes(prompt.id.as_bytes()).ids(&prompt.ids);
        }
    }

    /// Whether training goes on after step `done`; looks at the policy where a look is due.
    ///
    /// # Errors
    /// If sampling or scoring fails.
    pub fn goes_on(&mut self, learner: &Learner, done: u64, hooks: &mut dyn Hooks) -> Result<bool> {
        let over = match &mut self.watched {
            Some(watched) if watched.best.looks.is_due(done) => watched.look(learner, done, hooks)?,
            _ => false,
        };
        Ok(done < self.total && !over)
    }

    /// Whether there is a look after step `done`, before which there is to be a checkpoint.
    pub fn is_due(&self, done: u64) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.best.looks.is_due(done))
    }

    /// Makes the learner what was best; none without a watch.
    ///
    /// # Errors
    /// As [`Best::put_back`].
    pub fn put_back(
        self,
        done: u64,
        learner: &mut Learner,
        hooks: &mut dyn Hooks,
    ) -> Result<Option<WatchReport>> {
        match self.watched {
            Some(watched) => watched.best.put_back(done, learner, hooks),
            None => Ok(None),
        }
    }

    pub fn write_to<'s>(&'s self, snapshot: &mut Snapshot<'s>) {
        let Some(watched) = &self.watched else { return };
        watched.best.write_to(snapshot);
        let with_length = |ids: &Vec<u32>| {
            let ids: Vec<f64> = ids.iter().map(|&id| f64::from(id)).collect();
            [vec![ids.len() as f64], ids].concat()
        };
        snapshot.numbers(FIRST.into(), watched.first.iter().flat_map(with_length).collect());
    }

    /// Takes over what [`write_to`](Self::write_to) wrote.
    ///
    /// # Errors
    /// If something is missing.
    pub fn read_from(&mut self, checkpoint: &mut Checkpoint) -> Result<()> {
        let Some(watched) = &mut self.watched else { return Ok(()) };
        watched.best.read_from(checkpoint)?;
        let mut rest = checkpoint.numbers(FIRST)?;
        while let Some((&length, after)) = rest.split_first() {
            let (ids, after) =
                after.split_at_checked(length as usize).ok_or_else(|| TrainError::Checkpoint {
                    path: checkpoint.path.clone(),
                    reason: format!("`{FIRST}` is not what was written"),
                })?;
            watched.first.push(ids.iter().map(|&id| id as u32).collect());
            rest = after;
        }
        Ok(())
    }
}

impl Watched<'_> {
    /// One look; whether training is over.
    fn look(&mut self, learner: &Learner, done: u64, hooks: &mut dyn Hooks) -> Result<bool> {
        let (said, ended) = self.sample(learner, done, hooks)?;
        if self.first.is_empty() {
            self.first.clone_from(&said);
        }
        hooks.progress(done, self.best.looks.total, "scoring");
        let prompts = self
            .held_out
            .prompts
            .iter()
            .flat_map(|p| std::iter::repeat_n(p.ids.as_slice(), self.samples_per_prompt));
        let items: Vec<Item<'_>> = prompts.clone().zip(said.iter().map(Vec::as_slice)).collect();
        let first: Vec<Item<'_>> = prompts.zip(self.first.iter().map(Vec::as_slice)).collect();
        let scores = self.held_out.score.score(&items, &first)?;

        let of_prompt = |scores: &[Option<f64>]| {
            let known: Vec<f64> = scores.iter().flatten().copied().collect();
            known.iter().sum::<f64>() / known.len() as f64 // NaN of none
        };
        let scores: Vec<f64> = scores.chunks(self.samples_per_prompt).map(of_prompt).collect();
        let known: Vec<f64> = scores.iter().copied().filter(|score| !score.is_nan()).collect();
        let tokens: usize = said.iter().map(Vec::len).sum();
        hooks.metrics(
            &self
                .best
                .looks
                .row(done)
                .with(metrics::OBJECTIVE_HELD_OUT_SCORES, known.iter().sum::<f64>() / known.len() as f64)
                .with(metrics::OBJECTIVE_LENGTH, tokens as f64 / said.len() as f64)
                .with(metrics::VAL_NUM_EOS_TOKENS, ended as f64),
        );
        Ok(self.best.take(done, scores, learner, hooks))
    }

    /// What the policy says now, prompt by prompt, and how many responses ended by themselves. Seeds are those of every look, so that two
    /// policies differ by what they learnt and as little as can be by chance.
    fn sample(&self, learner: &Learner, done: u64, hooks: &mut dyn Hooks) -> Result<(Vec<Vec<u32>>, usize)> {
        let purpose = format!("{}/watch", self.best.looks.stage);
        let request = |(place, prompt): (usize, &PromptIds)| GenerateRequest {
            prompt_ids: prompt.ids.clone(),
            n: self.samples_per_prompt,
            seed: seed::derive(self.run_seed, &purpose, place as u64),
        };
        let requests: Vec<GenerateRequest> = self.held_out.prompts.iter().enumerate().map(request).collect();
        let samples = generate(&learner.decoder, &requests, self.held_out.sampling, &mut |progress| {
            let (sampled, all) = (progress.samples_done, progress.samples_total);
            hooks.progress(done, self.best.looks.total, &format!("held-out prompts {sampled}/{all}"));
        })?;
        let samples: Vec<_> = samples.into_iter().flatten().collect();
        let ended = samples.iter().filter(|sample| sample.finish == FinishReason::Stop).count();
        Ok((samples.into_iter().map(|sample| sample.ids).collect(), ended))
    }
}
