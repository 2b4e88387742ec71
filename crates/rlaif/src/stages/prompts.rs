//! The prompts: read at the start of every command, split into training and evaluation, with what cannot be used set aside.

use crate::error::UserError;
use crate::manifest::PromptCounts;
use crate::preference_data;
use crate::run_folder::{RunFolder, write_whole};
use anyhow::{Context as _, Result};
use rlaif_core::config::Stage;
use rlaif_core::records::{Message, Prompt, Split};
use rlaif_core::{Config, seed};
use rlaif_model::ModelFiles;
use rlaif_store::jsonl::{BadRow, Rows, read_prompts};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// The prompts of a run.
#[derive(Debug, Default)]
pub struct Prompts {
    /// Those that are trained on, in the order of the file.
    pub train: Vec<Prompt>,
    /// Those that are held out, in the order of their file.
    pub eval: Vec<Prompt>,
    /// Rows that were set aside.
    pub rejected: usize,
    /// What to tell the user about them, one line a file.
    pub complaints: Vec<String>,
    /// Hash of all prompts, their split, and what the policy is told before them.
    pub fingerprint: String,
}

impl Prompts {
    /// The prompts of a split.
    pub fn of(&self, split: Split) -> &[Prompt] {
        match split {
            Split::Train => &self.train,
            Split::Eval => &self.eval,
        }
    }

    /// All prompts with their splits.
    pub fn with_splits(&self) -> Vec<(Prompt, Split)> {
        let of = |split: Split| self.of(split).iter().map(move |prompt| (prompt.clone(), split));
        of(Split::Train).chain(of(Split::Eval)).collect()
    }

    /// For the manifest.
    pub fn counts(&self) -> PromptCounts {
        PromptCounts { train: self.train.len(), eval: self.eval.len(), rejected: self.rejected }
    }
}

/// The conversation of a prompt as the policy sees it: with `prompts.system` before one that has no system prompt.
pub fn conversation(config: &Config, prompt: &Prompt) -> Vec<Message> {
    conversation_under(config.prompts.system.as_deref(), prompt)
}

/// The conversation of a prompt with `system` before one that has no system prompt.
pub fn conversation_under(system: Option<&str>, prompt: &Prompt) -> Vec<Message> {
    under_system(system, prompt.prompt.messages())
}

/// A conversation with `system` before it if it has no system prompt.
pub fn under_system(system: Option<&str>, mut messages: Vec<Message>) -> Vec<Message> {
    if let Some(system) = system
        && messages.first().is_none_or(|message| message.role != "system")
    {
        messages.insert(0, Message::system(system));
    }
    messages
}

/// Reads and splits the prompt files. Rows that cannot be used are written to `{file}.rejected.jsonl` in the run folder.
///
/// # Errors
/// If a file is missing or holds no usable prompt.
pub fn read(config: &Config, base: &Path, folder: &RunFolder, policy: &ModelFiles) -> Result<Prompts> {
    let mut prompts = Prompts::default();
    let train_path = base.join(&config.prompts.train);
    if !needs_prompts(config) && !train_path.exists() {
        prompts.fingerprint = "none".into();
        return Ok(prompts);
    }
    let mut train = usable(config, policy, rows(&train_path, "prompts.train")?);
    let eval = match &config.prompts.eval {
        None => {
            if let Some(limit) = config.prompts.limit {
                train.good.truncate(limit);
            }
            let split_seed = config.prompts.split_seed.unwrap_or(config.run.seed);
            let (rest, held_out) = split(train.good, config.prompts.eval_fraction, split_seed);
            train.good = rest;
            held_out
        }
        Some(path) => {
            let path = base.join(path);
            let mut eval = usable(config, policy, rows(&path, "prompts.eval")?);
            // A prompt that is trained on says nothing as a held-out one, wherever `limit` cuts.
            let ids: HashSet<&str> = train.good.iter().map(|prompt| prompt.id.as_str()).collect();
            let texts: HashSet<String> = train.good.iter().map(|prompt| prompt.prompt.display()).collect();
            let (good, leaked): (Vec<Prompt>, Vec<Prompt>) = eval
                .good
                .into_iter()
                .partition(|p| !ids.contains(p.id.as_str()) && !texts.contains(&p.prompt.display()));
            eval.aside
                .extend(leaked.iter().map(|p| aside(p, "its id or text is also in `prompts.train`".into())));
            if let Some(limit) = config.prompts.limit {
                train.good.truncate(limit);
            }
            prompts.tell(folder, &path, &eval.aside)?;
            good
        }
    };
    prompts.tell(folder, &train_path, &train.aside)?;
    (prompts.train, prompts.eval) = (train.good, eval);
    let missing = match (prompts.train.is_empty(), prompts.eval.is_empty()) {
        (true, _) => Some("train"),
        (_, true) if config.stages().contains(&Stage::Evaluate) => Some("eval"),
        _ => None,
    };
    if let Some(split) = missing {
        let why = prompts.complaints.join("; ");
        return Err(UserError::new(format!("no prompt is left for `prompts.{split}`; {why}"))
            .hint("Give more prompts, raise `policy.max_length`, or see `prompts.eval_fraction`")
            .into());
    }
    let hashed = json!({ "train": prompts.train, "eval": prompts.eval, "system": config.prompts.system });
    prompts.fingerprint = blake3::hash(hashed.to_string().as_bytes()).to_hex()[..32].to_string();
    Ok(prompts)
}

/// Whether a stage of the run asks anything: training on files does not.
fn needs_prompts(config: &Config) -> bool {
    config.stages().into_iter().any(|stage| match stage {
        _ if config.policy_watch(stage).is_some() => true,
        Stage::Reward | Stage::Dpo => preference_data::reads_labels(config, stage),
        Stage::Sft | Stage::Report => false,
        Stage::Revise | Stage::Generate | Stage::Label | Stage::Ppo | Stage::Evaluate => true,
    })
}

fn rows(path: &Path, key: &str) -> Result<Rows<Prompt>> {
    if !path.exists() {
        return Err(UserError::new(format!("there is no file `{}`, which `{key}` names", path.display()))
            .hint("Paths in `[prompts]` are relative to the config file")
            .into());
    }
    read_prompts(path).with_context(|| format!("reading the prompts of `{key}`"))
}

/// Prompts that can be used, and what was set aside as JSON rows.
struct Usable {
    good: Vec<Prompt>,
    aside: Vec<Value>,
}

/// Sets prompts aside that the model cannot be asked.
fn usable(config: &Config, policy: &ModelFiles, rows: Rows<Prompt>) -> Usable {
    let longest = policy.config.max_position_embeddings.min(config.policy.max_length);
    let generated = config.generate.max_new_tokens;
    let room = [
        Some(generated),
        config.revise.max_new_tokens,
        config.ppo.max_new_tokens,
        config.evaluate.max_new_tokens,
        config.sft.watch.as_ref().and_then(|watch| watch.max_new_tokens),
        config.dpo.watch.as_ref().and_then(|watch| watch.max_new_tokens),
    ];
    let room = room.into_iter().flatten().max().unwrap_or(generated);
    let systems = systems_of(config);
    let mut usable = Usable { good: Vec::new(), aside: rows.bad.iter().map(bad_row).collect() };
    for prompt in rows.good {
        let why = systems.iter().find_map(|system| {
            match policy.tokenizer.encode_chat(&conversation_under(*system, &prompt), true) {
                Err(error) => Some(error.to_string()),
                Ok(ids) if ids.is_empty() => Some("it has no token".into()),
                Ok(ids) if ids.len() + room > longest => Some(format!(
                    "{} tokens leave no room for {room} new ones in a context of {longest} (`policy.max_length`)",
                    ids.len()
                )),
                Ok(_) => None,
            }
        });
        match why {
            Some(why) => usable.aside.push(aside(&prompt, why)),
            None => usable.good.push(prompt),
        }
    }
    usable
}

/// Every system prompt under which a prompt may be asked.
fn systems_of(config: &Config) -> Vec<Option<&str>> {
    let usual = std::iter::once(config.prompts.system.as_deref());
    usual.chain(config.generate.systems.iter().map(|system| Some(system.as_str()))).collect()
}

fn bad_row(row: &BadRow) -> Value {
    json!({ "line": row.line, "reason": row.reason, "excerpt": row.excerpt })
}

fn aside(prompt: &Prompt, reason: String) -> Value {
    json!({ "id": prompt.id, "reason": reason, "prompt": prompt.prompt })
}

impl Prompts {
    /// Keeps what was set aside of a file, and a word about it.
    fn tell(&mut self, folder: &RunFolder, file: &Path, aside: &[Value]) -> Result<()> {
        let kept = folder.rejected(file);
        let Some(first) = aside.first() else {
            std::fs::remove_file(&kept).ok(); // of an earlier version of the file
            return Ok(());
        };
        let text: String = aside.iter().map(|row| format!("{row}\n")).collect();
        write_whole(&kept, text.as_bytes())?;
        let place = match first.get("line") {
            Some(line) => format!("line {line}"),
            None => format!("`{}`", first["id"].as_str().unwrap_or_default()),
        };
        self.rejected += aside.len();
        self.complaints.push(format!(
            "warning: {} row{} of `{}` set aside in `{}` ({place}: {})",
            aside.len(),
            if aside.len() == 1 { "" } else { "s" },
            file.display(),
            kept.display(),
            first["reason"].as_str().unwrap_or_default()
        ));
        Ok(())
    }
}

/// Holds out a share of the prompts, at least one and never all. Which ones hangs on each prompt's id and the seed, so that a
/// prompt more moves at most one other.
fn split(prompts: Vec<Prompt>, fraction: f64, split_seed: u64) -> (Vec<Prompt>, Vec<Prompt>) {
    let count = (fraction * prompts.len() as f64).round() as usize;
    let count = if fraction > 0.0 && prompts.len() > 1 { count.clamp(1, prompts.len() - 1) } else { 0 };
    let draw: HashMap<String, u64> = prompts
        .iter()
        .map(|p| (p.id.clone(), seed::derive(split_seed, &format!("split/{}", p.id), 0)))
        .collect();
    let mut drawn: Vec<u64> = draw.values().copied().collect();
    drawn.sort_unstable();
    let limit = count.checked_sub(1).map(|last| drawn[last]);
    prompts.into_iter().partition(|prompt| limit.is_none_or(|limit| draw[&prompt.id] > limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::records::PromptText;

    fn prompt(id: usize) -> Prompt {
        let prompt = PromptText::Text(format!("ask {id}"));
        Prompt { id: format!("p{id}"), prompt, tags: vec![], reference: None }
    }

    #[test]
    fn the_split_hangs_on_seed_and_id_alone() {
        let ids = |prompts: &[Prompt]| prompts.iter().map(|p| p.id.clone()).collect::<HashSet<_>>();
        let all: Vec<Prompt> = (0..40).map(prompt).collect();
        let (train, eval) = split(all.clone(), 0.25, 3);
        assert_eq!((train.len(), eval.len()), (30, 10));
        let mut reversed = all.clone();
        reversed.reverse();
        assert_eq!(ids(&split(reversed, 0.25, 3).1), ids(&eval));
        assert_ne!(ids(&split(all.clone(), 0.25, 4).1), ids(&eval));
        let more: Vec<Prompt> = (0..41).map(prompt).collect();
        assert!(ids(&split(more, 0.25, 3).1).intersection(&ids(&eval)).count() >= 9);
        assert_eq!(split(vec![prompt(0)], 0.5, 3).1.len(), 0, "never all");
        assert_eq!(split(all[..2].to_vec(), 0.01, 3).1.len(), 1, "at least one");
        assert_eq!(split(all, 0.0, 3).1.len(), 0);
    }
}
