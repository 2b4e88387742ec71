//! One file a stage. A stage reads from the store or the run folder and writes there; nothing reaches back.

pub mod dpo;
pub mod evaluate;
pub mod generate;
pub mod label;
pub mod ppo;
pub mod prompts;
pub mod report;
pub mod revise;
pub mod reward;
pub mod sft;

use crate::context::Context;
use crate::manifest::StageOutcome;
use crate::watching;
use anyhow::{Context as _, Result};
use rlaif_core::config::Stage;
use rlaif_train::member_folder;
use serde_json::Value;
use std::path::Path;

/// Runs a stage, or goes on with it where it stopped.
///
/// # Errors
/// Those of the stage; its finished units are kept.
pub fn run(context: &mut Context, stage: Stage) -> Result<StageOutcome> {
    match stage {
        Stage::Revise => revise::run(context),
        Stage::Sft => sft::run(context),
        Stage::Generate => generate::run(context),
        Stage::Label => label::run(context),
        Stage::Reward => reward::run(context),
        Stage::Ppo => ppo::run(context),
        Stage::Dpo => dpo::run(context),
        Stage::Evaluate => evaluate::run(context),
        Stage::Report => report::run(context),
    }
}

/// Clears away what a stage left, before it is computed for another recipe. What was bought from judges is never cleared.
///
/// # Errors
/// If the store or the run folder cannot be written.
pub fn clear(context: &Context, stage: Stage) -> Result<()> {
    let folder = &context.folder;
    let name = stage.name();
    match stage {
        Stage::Generate => context.wait(context.store.clear_prompts())?, // and with them all that was made from them
        Stage::Label => {
            context.wait(context.store.clear_label())?;
            context.wait(context.store.clear_pairs(label::POOL))?;
            context.wait(context.store.clear_policy(crate::probe::PROBE))?;
            context.wait(context.store.clear_policy(crate::probe::CALIBRATION))?;
            context.wait(context.store.clear_policy(crate::human_data::IMPORTED))?;
        }
        Stage::Revise => {
            remove(&folder.revisions())?;
            remove(&folder.revised_pairs())?;
        }
        Stage::Sft | Stage::Reward | Stage::Ppo | Stage::Dpo => {
            remove(&folder.model(name))?;
            remove(&folder.metrics(name))?;
            remove(&folder.tensorboard(name))?;
            if stage == Stage::Reward {
                remove(&folder.metrics(reward::MEMBERS).with_extension(""))?;
                remove(&folder.tensorboard(reward::MEMBERS))?;
            }
            if stage == Stage::Ppo {
                context.wait(context.store.clear_live())?;
            }
            context.wait(context.store.clear_policy(&watching::set_of(stage)))?;
        }
        Stage::Evaluate => {
            context.wait(context.store.clear_evaluate())?;
            let alone = |name: &String| [Stage::Evaluate, Stage::Report].iter().any(|it| it.name() == name);
            if context.manifest.stages.keys().all(alone) {
                context.wait(context.store.clear_prompts())?; // no other stage does
            }
            remove(&folder.evaluation())?;
        }
        Stage::Report => remove(&folder.report())?,
    }
    Ok(())
}

/// What labels of people are called among the inputs of a recipe.
pub const LABELS_OF_PEOPLE: &str = "labels of people";

/// What of an evaluation's recipe changes how its responses and verdicts are added up, or asks for more of them, and none of those that
/// there are.
const ADDED_UP: [&str; 3] = ["evaluate.against", "evaluate.margin", "evaluate.max_regressions"];

/// Whether a stage can go on with what it made for another recipe, so that it need not be cleared.
pub fn can_keep(stage: Stage, before: &Value, now: &Value) -> bool {
    let rest = |recipe: &Value| {
        let mut recipe = recipe.clone();
        if let Some(recipe) = recipe.as_object_mut() {
            ADDED_UP.iter().for_each(|key| drop(recipe.remove(*key)));
        }
        if let Some(inputs) = recipe["inputs"].as_object_mut() {
            inputs.remove(LABELS_OF_PEOPLE);
        }
        recipe
    };
    stage == Stage::Evaluate && rest(before) == rest(now)
}

/// Whether what a finished stage made is still there.
pub fn results_exist(context: &Context, stage: Stage) -> bool {
    let folder = &context.folder;
    match stage {
        Stage::Generate | Stage::Label => folder.database().is_file(),
        Stage::Revise => folder.revisions().is_file() && folder.revised_pairs().is_file(),
        Stage::Reward => {
            let (model, members) = (folder.model("reward"), context.config.reward.members);
            (1..=members).all(|number| reward::is_whole(&member_folder(&model, number, members)))
        }
        Stage::Sft | Stage::Ppo | Stage::Dpo => {
            folder.model(stage.name()).join("model.safetensors").is_file()
        }
        Stage::Evaluate => folder.evaluation().is_file(),
        Stage::Report => folder.report().is_file(),
    }
}

/// How much a stage has to do, for `rlaif plan`.
pub fn size(context: &Context, stage: Stage) -> String {
    let config = &context.config;
    let (train, eval) = (context.prompts.train.len(), context.prompts.eval.len());
    match stage {
        Stage::Revise => {
            format!("answers to {train} prompts, {} critiques and revisions of each", config.revise.rounds)
        }
        Stage::Sft => {
            let rows = match (config.sft.data.is_empty(), config.stages().contains(&Stage::Revise)) {
                (false, true) => "the rows of `sft.data` and the revised answers",
                (true, true) => "the revised answers",
                (_, false) => "the rows of `sft.data`",
            };
            format!("{} epochs over {rows}", config.sft.epochs)
        }
        Stage::Generate => format!(
            "{} responses of at most {} tokens to {train} prompts",
            train * config.generate.n,
            config.generate.max_new_tokens
        ),
        Stage::Label => label::size(context),
        Stage::Reward => {
            let members = match config.reward.members {
                1 => String::new(),
                members => format!(", {members} times"),
            };
            format!("{} epochs over the preferences{members}", config.reward.epochs)
        }
        Stage::Dpo => format!("{} epochs over the preferences", config.dpo.epochs),
        Stage::Ppo => ppo::size(&config.ppo),
        Stage::Evaluate => {
            let advice = evaluate::sample_size::of(context).map(|advice| format!("; {}", advice.sentence));
            format!(
                "{} responses of each policy to {eval} prompts{}",
                eval * config.evaluate.samples_per_prompt,
                advice.unwrap_or_default()
            )
        }
        Stage::Report => "one page".into(),
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    removed.with_context(|| format!("removing `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_evaluation_is_kept_where_it_is_only_added_up_anew() {
        let before = json!({"evaluate": {"bootstrap": 200}, "inputs": {"ppo": "x"}});
        let added = json!({
            "evaluate": {"bootstrap": 200}, "evaluate.against": "all", "evaluate.margin": 0.1,
            "evaluate.max_regressions": 0, "inputs": {"ppo": "x", "labels of people": "y"},
        });
        assert!(can_keep(Stage::Evaluate, &before, &added) && can_keep(Stage::Evaluate, &added, &before));
        assert!(!can_keep(Stage::Label, &before, &added));
        for (key, value) in [("inputs", json!({"ppo": "z"})), ("evaluate", json!({"temperature": 0.5}))] {
            let mut other = before.clone();
            other[key] = value;
            assert!(!can_keep(Stage::Evaluate, &before, &other), "{key}");
        }
    }
}
