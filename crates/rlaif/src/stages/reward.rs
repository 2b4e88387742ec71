//! `reward`: the policy's trunk with a scalar head, trained on the preferences.

use crate::context::Context;
use crate::local_judge::TOKENS_A_BATCH;
use crate::manifest::StageOutcome;
use crate::progress::say;
use crate::report::data::RewardSummary;
use crate::resistance;
use crate::training::{StageHooks, examples, finished, percent_text, save_adapter, share_text};
use anyhow::{Context as _, Result};
use rlaif_core::config::Stage;
use rlaif_model::{SaveDtype, ScalarHead, save_reward_model};
use rlaif_train::{Scorer, split_by_prompt, train_reward};

/// Trains, or goes on from the last checkpoint.
///
/// # Errors
/// If there is nothing to train on, training fails, or the disk does.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let examples = examples(context, Stage::Reward)?;
    let decoder = context.policy()?;
    let run_seed = context.config.run.seed;
    // From zeros every pair starts at p = ½; a random head on SmolLM2 starts with margins of ±1 that must first be unlearnt.
    let head = vec![0.0; decoder.config().hidden_size];
    let head = ScalarHead::from_heads(&vec![head; context.config.reward.heads], &context.device);
    let folder = context.folder.model("reward");
    let mut hooks = StageHooks::new(context, "reward", "steps");
    let outcome =
        train_reward(decoder, head, &examples, &context.config.reward, run_seed, &folder, &mut hooks);
    hooks.finish()?;
    let trained = finished(outcome?, "reward")?;
    save_adapter(&context.policy_name(), trained.adapter.as_ref(), Some(&trained.head.mean_head()), &folder)?;
    save_reward_model(&trained.decoder, &trained.head, context.tokenizer(), &folder, SaveDtype::F32)
        .with_context(|| format!("saving the reward model in `{}`", folder.display()))?;

    let report = trained.report;
    let scorer = Scorer::new(&trained.decoder, &trained.head, TOKENS_A_BATCH);
    let (_, holdout) = split_by_prompt(&examples, context.config.reward.holdout_fraction, run_seed);
    let longest = context.policy_files.config.max_position_embeddings;
    let summary = RewardSummary {
        truncated_pairs: report.truncated_pairs as u64,
        resistance: resistance::measure(&scorer, context.tokenizer(), &holdout, longest)?,
        ..RewardSummary::of(report.train_pairs, &report.holdout, run_seed)
    };
    resistance::warnings(&summary.resistance).for_each(|told| say(&format!("warning: reward: {told}")));
    let baseline = match &summary.longer_wins {
        Some(share) => format!(", the longer one is preferred in {}", percent_text(share)),
        None => String::new(),
    };
    Ok(StageOutcome {
        summary: format!(
            "{} steps on {} preferences; {}{baseline}",
            report.steps,
            report.train_pairs,
            share_text("ranks", summary.accuracy.as_ref())
        ),
        numbers: serde_json::to_value(&summary)?,
        cost_micro_usd: Some(0),
        ..StageOutcome::default()
    })
}
