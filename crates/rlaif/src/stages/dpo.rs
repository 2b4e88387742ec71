//! `dpo`: the policy tuned on the preferences directly.

use crate::context::Context;
use crate::manifest::StageOutcome;
use crate::report::data::DpoSummary;
use crate::training::{StageHooks, examples, finished, save_adapter, share_text};
use anyhow::{Context as _, Result};
use rlaif_core::config::{DpoLossKind, Stage};
use rlaif_model::{SaveDtype, save_causal_lm};
use rlaif_train::train_dpo;

/// Trains, or goes on from the last checkpoint.
///
/// # Errors
/// If there is nothing to train on, training fails, or the disk does.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let examples = examples(context, Stage::Dpo)?;
    let policy = context.policy()?;
    let run_seed = context.config.run.seed;
    let folder = context.folder.model("dpo");
    let mut hooks = StageHooks::new(context, "dpo", "steps");
    let outcome = train_dpo(policy, &examples, &context.config.dpo, run_seed, &folder, &mut hooks);
    hooks.finish()?;
    let trained = finished(outcome?, "dpo")?;
    save_adapter(&context.policy_name(), trained.adapter.as_ref(), None, &folder)?;
    save_causal_lm(&trained.policy, context.tokenizer(), &folder, SaveDtype::F32)
        .with_context(|| format!("saving the tuned policy in `{}`", folder.display()))?;

    let report = trained.report;
    let loss = match context.config.dpo.loss {
        DpoLossKind::Sigmoid => String::new(),
        other => format!(" of `{}`", other.name()),
    };
    let summary = DpoSummary::of(report.train_pairs, &report.holdout, run_seed);
    Ok(StageOutcome {
        summary: format!(
            "{} steps{loss} on {} preferences; {}",
            report.steps,
            report.train_pairs,
            share_text("ranks", summary.accuracy.as_ref())
        ),
        numbers: serde_json::to_value(&summary)?,
        cost_micro_usd: Some(0),
        ..StageOutcome::default()
    })
}
