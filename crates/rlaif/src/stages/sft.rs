//! `sft`: the baseline, fine-tuned on demonstrations; what comes of it is the policy of every later stage.

use crate::context::Context;
use crate::demonstrations;
use crate::error::UserError;
use crate::manifest::StageOutcome;
use crate::progress::say;
use crate::report::data::SftSummary;
use crate::revisions;
use crate::training::{StageHooks, finished, save_adapter, saved_dtype};
use crate::watching::{self, Watching};
use anyhow::{Context as _, Result};
use rlaif_core::config::{PolicyWatchConfig, SftConfig, Stage};
use rlaif_model::save_causal_lm;
use rlaif_train::{Fitted, SftExample, fit, split_rows, train_sft_watched};

/// Trains, or goes on from the last checkpoint.
///
/// # Errors
/// If a row cannot be learnt from, training fails, or the disk does.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let rows = examples(context)?;
    let policy = context.base_policy()?;
    let run_seed = context.config.run.seed;
    let folder = context.folder.model("sft");
    let mut hooks = StageHooks::new(context, "sft", "steps");
    let config = SftConfig {
        watch: context.config.sft.watch.clone().map(|watch| PolicyWatchConfig { judges: None, ..watch }),
        ..context.config.sft.clone()
    };
    let (train, _) = split_rows(&rows, config.holdout_fraction, run_seed);
    let watching =
        Watching::of(context, Stage::Sft, |prompt| train.iter().any(|row| row.ids.starts_with(prompt)))?;
    let outcome = Watching::train(watching, |held_out| {
        train_sft_watched(policy, &rows, held_out, &config, run_seed, &folder, &mut hooks)
    });
    hooks.finish()?;
    let trained = finished(outcome?, "sft")?;
    let dtype = saved_dtype(&context.config.sft.optim, context.config.sft.lora.as_ref());
    save_adapter(&context.config.policy.model, trained.adapter.as_ref(), None, &folder)?;
    save_causal_lm(&trained.policy, context.tokenizer(), &folder, dtype)
        .with_context(|| format!("saving the fine-tuned policy in `{}`", folder.display()))?;

    let report = trained.report;
    let summary = SftSummary {
        watch: report.watch.as_ref().map(watching::summary),
        ..SftSummary::of(report.train_rows, &report.holdout)
    };
    let (spent, cost) = watching::cost(context, Stage::Sft)?;
    let chosen = watching::describe(summary.watch.as_ref(), report.steps);
    let held_out = match (&summary.loss_before, &summary.loss, &summary.change) {
        (Some(before), Some(after), change) => {
            let interval = change.and_then(|change| change.interval());
            let interval =
                interval.map_or(String::new(), |(low, high)| format!(", 95 % {low:.2} to {high:.2}"));
            let change = after - before;
            format!(
                "loss on {} held-out rows {before:.2} to {after:.2} ({change:+.2}{interval})",
                report.holdout.len()
            )
        }
        _ => "no rows held out".to_string(),
    };
    Ok(StageOutcome {
        summary: format!("{} steps on {} rows; {held_out}{chosen}{spent}", report.steps, report.train_rows),
        numbers: serde_json::to_value(&summary)?,
        cost_micro_usd: cost,
        ..StageOutcome::default()
    })
}

/// The rows of `sft.data`, and behind them the revised answers, in token ids and as long as they may be.
fn examples(context: &Context) -> Result<Vec<SftExample>> {
    let stages = context.config.stages();
    let mut found = demonstrations::read(context, &stages)?;
    if stages.contains(&Stage::Revise) {
        found.rows.extend(revisions::demonstrations(context)?);
    }
    if found.of_evaluation > 0 {
        say(&format!("sft: {} rows are left out: the evaluation asks their prompts", found.of_evaluation));
    }
    if found.rows.is_empty() {
        return Err(UserError::new("no answer was revised, and there is nothing else to learn from")
            .hint(format!(
                "See what was written in `{}`; a longer `revise.max_new_tokens`, other principles or a larger model may help",
                context.folder.revisions().display()
            ))
            .into());
    }
    let config = &context.config.sft;
    let rows = found
        .rows
        .into_iter()
        .map(|(place, row)| {
            SftExample::of(place.clone(), &row, context.tokenizer(), config.completion_only_loss)
                .with_context(|| format!("row `{place}` of `sft.data` cannot be learnt from"))
        })
        .collect::<Result<Vec<_>>>()?;
    let limit = config.max_length.min(context.policy_files.config.max_position_embeddings);
    let Fitted { rows, truncated, dropped } = fit(rows, limit, config.too_long)?;
    if truncated > 0 {
        say(&format!("sft: {truncated} rows are longer than {limit} tokens, and their ends are cut off"));
    }
    if dropped > 0 {
        say(&format!(
            "sft: {dropped} rows are left out: within {limit} tokens there is nothing of them to learn"
        ));
    }
    Ok(rows)
}
