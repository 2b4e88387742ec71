//! `revise`: the baseline answers every training prompt, criticises its answer under a principle and revises it; Bai et al. 2022
//! (<https://arxiv.org/abs/2212.08073>), section 3.
//!
//! Differs from the paper in:
//! * critique and revision are turns of one conversation through the model's own chat template, and there are no examples before them;
//! * prompts are those of the run, not red-teaming ones;
//! * only the last revision of an answer is learnt, not all of them;
//! * a revision that breaks off, is empty, changes nothing or repeats the critique does not take the answer's place.

use crate::context::Context;
use crate::interrupt;
use crate::manifest::StageOutcome;
use crate::progress::Progress;
use crate::revisions::{self, Outcome, Revision, Round};
use crate::sampling::prompt_seed;
use anyhow::{Context as _, Result};
use rlaif_core::config::Principle;
use rlaif_core::records::{FinishReason, Message, Prompt};
use rlaif_model::{GenerateRequest, Generator, Sample, SamplingConfig};
use rlaif_store::jsonl::write_preferences;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Works on the prompts that have no line in `revisions.jsonl` yet, and writes the pairs.
///
/// # Errors
/// If the model cannot be used or the disk fails; finished prompts are kept.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let config = &context.config.revise;
    let generator = Generator::new(&context.base_policy()?);
    let principles = config.principles();
    let path = context.folder.revisions();
    let have: BTreeSet<String> =
        revisions::read(&path)?.into_iter().map(|revision| revision.prompt_id).collect();
    let prompts = &context.prompts.train;
    let is_there = |prompt: &Prompt| have.contains(&prompt.id);
    let mut done = prompts.iter().filter(|prompt| is_there(prompt)).count() as u64;
    let mut progress = Progress::new("revise", "prompts", done, prompts.len() as u64);
    // Units are cut from all prompts, not from what is left, so that a resumed run decodes the same batches.
    for unit in prompts.chunks(config.batch_size) {
        if unit.iter().all(is_there) {
            continue;
        }
        interrupt::check("revise")?;
        let mut writer = Writer::new(context, &generator, unit)?;
        progress.set(done, prompts.len() as u64, "answers");
        writer.answer()?;
        for round in 0..config.rounds {
            progress.set(done, prompts.len() as u64, &format!("round {} of {}", round + 1, config.rounds));
            writer.revise(round, &principles)?;
        }
        let new: Vec<Revision> =
            writer.revisions.into_iter().filter(|revision| !have.contains(&revision.prompt_id)).collect();
        revisions::append(&path, &new)?;
        done += new.len() as u64;
        progress.set(done, prompts.len() as u64, "");
    }
    progress.finish();
    finish(context)
}

/// Writes the pairs and counts what became of the answers.
fn finish(context: &Context) -> Result<StageOutcome> {
    let all = revisions::read(&context.folder.revisions())?;
    let pairs: Vec<_> = all.iter().filter_map(Revision::pair).collect();
    write_preferences(&context.folder.revised_pairs(), &pairs)?;
    let revised = all.iter().filter(|revision| revision.revised().is_some()).count();
    let mut counts: BTreeMap<Outcome, usize> = BTreeMap::new();
    for round in all.iter().flat_map(|revision| &revision.rounds) {
        *counts.entry(round.outcome).or_default() += 1;
    }
    let named =
        Outcome::ALL.iter().filter_map(|(outcome, name)| Some(format!("{} {name}", counts.get(outcome)?)));
    Ok(StageOutcome {
        summary: format!(
            "{revised} of {} answers are new and {} make a pair; of all rounds {}",
            all.len(),
            pairs.len(),
            named.collect::<Vec<_>>().join(", ")
        ),
        numbers: json!({ "prompts": all.len(), "revised": revised, "pairs": pairs.len(), "rounds": counts }),
        cost_micro_usd: Some(0),
        ..StageOutcome::default()
    })
}

/// A unit of prompts whose answers are written, criticised and revised side by side.
struct Writer<'a> {
    context: &'a Context,
    generator: &'a Generator,
    prompts: &'a [Prompt],
    sampling: SamplingConfig,
    /// Of each prompt, up to where its answer is now.
    conversations: Vec<Vec<Message>>,
    revisions: Vec<Revision>,
}

impl<'a> Writer<'a> {
    fn new(context: &'a Context, generator: &'a Generator, prompts: &'a [Prompt]) -> Result<Self> {
        let config = &context.config.revise;
        let sampling = SamplingConfig {
            temperature: config.temperature,
            top_p: 1.0,
            top_k: 0,
            max_new_tokens: config.max_new_tokens.unwrap_or(context.config.generate.max_new_tokens),
            stop_ids: context.tokenizer().eos_ids().to_vec(),
            batch_size: config.batch_size,
        };
        let conversations = prompts.iter().map(|prompt| context.conversation(prompt)).collect();
        Ok(Self { context, generator, prompts, sampling, conversations, revisions: Vec::new() })
    }

    /// The first answers.
    fn answer(&mut self) -> Result<()> {
        let asked = self.conversations.iter().cloned().map(Some).collect();
        for (prompt, sample) in self.prompts.iter().zip(self.say(asked, "revise/answer")?) {
            let sample =
                sample.with_context(|| format!("prompt `{}` leaves no room for an answer", prompt.id))?;
            self.revisions.push(Revision {
                prompt_id: prompt.id.clone(),
                prompt: prompt.prompt.clone(),
                original: self.text(&sample),
                original_ended: sample.finish == FinishReason::Stop,
                rounds: Vec::new(),
            });
        }
        Ok(())
    }

    /// One critique and revision of each answer as it is now.
    fn revise(&mut self, round: usize, principles: &[Principle]) -> Result<()> {
        let drawn: Vec<&Principle> =
            self.prompts.iter().map(|prompt| self.draw(prompt, round, principles)).collect();
        let answers: Vec<String> =
            self.revisions.iter().map(|revision| answer_now(revision).to_string()).collect();
        let mut asked: Vec<Vec<Message>> = self.conversations.clone();
        for ((asked, answer), principle) in asked.iter_mut().zip(&answers).zip(&drawn) {
            asked.extend([Message::assistant(answer), Message::user(&principle.critique)]);
        }
        // What is empty cannot be criticised: templates and models take an empty turn for none.
        let open = |asked: &[Vec<Message>], written: &[String]| -> Vec<Option<Vec<Message>>> {
            asked
                .iter()
                .zip(written)
                .map(|(asked, text)| (!text.trim().is_empty()).then(|| asked.clone()))
                .collect()
        };
        let critiques = self.say(open(&asked, &answers), &format!("revise/critique/{round}"))?;
        let no_room: Vec<bool> = critiques.iter().map(Option::is_none).collect();
        let critiques: Vec<String> = critiques
            .iter()
            .map(|said| said.as_ref().map_or(String::new(), |said| self.text(said)))
            .collect();
        for ((asked, critique), principle) in asked.iter_mut().zip(&critiques).zip(&drawn) {
            asked.extend([Message::assistant(critique), Message::user(&principle.revision)]);
        }
        let said = self.say(open(&asked, &critiques), &format!("revise/revision/{round}"))?;
        for (((place, said), critique), principle) in said.into_iter().enumerate().zip(critiques).zip(drawn) {
            let revision = said.as_ref().map_or(String::new(), |said| self.text(said));
            let outcome = match said.map(|said| said.finish) {
                None if answers[place].is_empty() || (critique.is_empty() && !no_room[place]) => {
                    Outcome::Empty
                }
                None => Outcome::NoRoom,
                Some(FinishReason::Length) => Outcome::CutOff,
                Some(FinishReason::Stop) if revision.is_empty() => Outcome::Empty,
                Some(FinishReason::Stop) if revision == answers[place] => Outcome::Unchanged,
                Some(FinishReason::Stop) if revision == critique => Outcome::Echoed,
                Some(FinishReason::Stop) => Outcome::Revised,
            };
            self.revisions[place].rounds.push(Round {
                principle: principle.name.clone(),
                critique_request: principle.critique.clone(),
                critique,
                revision_request: principle.revision.clone(),
                revision,
                outcome,
            });
        }
        Ok(())
    }

    /// The principle of a prompt's round: it hangs on the seed and the prompt's id alone.
    fn draw<'p>(&self, prompt: &Prompt, round: usize, principles: &'p [Principle]) -> &'p Principle {
        let draw = prompt_seed(self.context.config.run.seed, &format!("revise/principle/{round}"), prompt);
        &principles[(draw % principles.len() as u64) as usize]
    }

    /// What the policy says next in each conversation; none where there is none or no room.
    fn say(&self, asked: Vec<Option<Vec<Message>>>, purpose: &str) -> Result<Vec<Option<Sample>>> {
        let room =
            self.generator.config().max_position_embeddings.saturating_sub(self.sampling.max_new_tokens);
        let mut requests = Vec::new();
        let mut places = Vec::new();
        for (place, (prompt, messages)) in self.prompts.iter().zip(&asked).enumerate() {
            let Some(messages) = messages else { continue };
            let prompt_ids = self.context.tokenizer().encode_chat(messages, true)?;
            if prompt_ids.len() <= room {
                let seed = prompt_seed(self.context.config.run.seed, purpose, prompt);
                requests.push(GenerateRequest { prompt_ids, n: 1, seed });
                places.push(place);
            }
        }
        let samples = self
            .generator
            .generate(&requests, &self.sampling, &mut |_| {})
            .with_context(|| format!("sampling for `{purpose}`"))?;
        let mut said = vec![None; asked.len()];
        for (place, sample) in places.into_iter().zip(samples.into_iter().flatten()) {
            said[place] = Some(sample);
        }
        Ok(said)
    }

    fn text(&self, sample: &Sample) -> String {
        self.context.tokenizer().decode(&sample.ids, true).trim().to_string()
    }
}

/// The last revision that was taken, or the original.
fn answer_now(revision: &Revision) -> &str {
    let taken = revision.rounds.iter().rev().find(|round| round.outcome == Outcome::Revised);
    taken.map_or(&revision.original, |round| &round.revision)
}
