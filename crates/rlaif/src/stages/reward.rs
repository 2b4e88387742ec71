//! `reward`: the policy's trunk with a scalar head, trained on the preferences.

use crate::context::Context;
use crate::manifest::StageOutcome;
use crate::report::data::RewardSummary;
use crate::training::{StageHooks, examples, finished, save_adapter, share_text};
use anyhow::{Context as _, Result};
use rlaif_core::config::Stage;
use rlaif_model::{SaveDtype, ScalarHead, save_reward_model};
use rlaif_train::train_reward;

/// Trains, or goes on from the last checkpoint.
///
/// # Errors
/// If there is nothing to train on, training fails, or the disk does.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let examples = examples(context, Stage::Reward)?;
    let decoder = context.policy()?;
    let run_seed = context.config.run.seed;
    // From zeros every pair starts at p = ½; a random head on SmolLM2 starts with margins of ±1 that must first be unlearnt.
    let head = ScalarHead::zeros(decoder.config().hidden_size, &context.device);
    let folder = context.folder.model("reward");
    let mut hooks = StageHooks::new(context, "reward", "steps");
    let outcome =
        train_reward(decoder, head, &examples, &context.config.reward, run_seed, &folder, &mut hooks);
    hooks.finish()?;
    let trained = finished(outcome?, "reward")?;
    save_adapter(&context.policy_name(), trained.adapter.as_ref(), Some(&trained.head), &folder)?;
    save_reward_model(&trained.decoder, &trained.head, context.tokenizer(), &folder, SaveDtype::F32)
        .with_context(|| format!("saving the reward model in `{}`", folder.display()))?;

    let report = trained.report;
    let summary = RewardSummary::of(report.train_pairs, &report.holdout, run_seed);
    Ok(StageOutcome {
        summary: format!(
            "{} steps on {} preferences; {}",
            report.steps,
            report.train_pairs,
            share_text("ranks", summary.accuracy.as_ref())
        ),
        numbers: serde_json::to_value(&summary)?,
        cost_micro_usd: Some(0),
        ..StageOutcome::default()
    })
}
