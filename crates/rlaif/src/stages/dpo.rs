//! `dpo`: the policy tuned on the preferences directly.
//!
//! Where a file has single responses, every pair counts as two of them.

use crate::context::Context;
use crate::manifest::StageOutcome;
use crate::preference_data::Examples;
use crate::report::data::DpoSummary;
use crate::training::{StageHooks, examples, finished, percent_text, save_adapter, saved_dtype, share_text};
use crate::watching::{self, Watching};
use anyhow::{Context as _, Result};
use rlaif_core::config::{DpoConfig, DpoLossKind, PolicyWatchConfig, Stage};
use rlaif_model::save_causal_lm;
use rlaif_train::{PreferenceExample, ResponseExample, split_by_prompt, train_dpo_watched, train_kto};
use std::collections::HashSet;

/// Trains, or goes on from the last checkpoint.
///
/// # Errors
/// If there is nothing to train on, training fails, or the disk does.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let Examples { pairs, responses, .. } = examples(context, Stage::Dpo)?;
    let policy = context.take_policy()?;
    let run_seed = context.config.run.seed;
    let folder = context.folder.model("dpo");
    let mut hooks = StageHooks::new(context, "dpo", "steps");
    let in_pairs = responses.is_empty();
    watching::refuse_labellers(context, Stage::Dpo, &pairs)?;
    let config = DpoConfig {
        // How judges are asked is in the recipe; a checkpoint depends on it as little as on their prices.
        watch: context.config.dpo.watch.clone().map(|watch| PolicyWatchConfig { judges: None, ..watch }),
        ..context.config.dpo.clone()
    };
    let outcome = if in_pairs {
        let (train, _) = split_by_prompt(&pairs, config.holdout_fraction, run_seed);
        let asked: HashSet<&[u32]> = train.iter().map(|example| example.prompt_ids.as_slice()).collect();
        let watching = Watching::of(context, Stage::Dpo, |prompt| asked.contains(prompt))?;
        Watching::train(watching, |held_out| {
            train_dpo_watched(policy, &pairs, held_out, &config, run_seed, &folder, &mut hooks)
        })
    } else {
        // Of a hard label one side is right, also at p = ½.
        let p = |pair: &PreferenceExample| if config.soft_labels { pair.p } else { pair.p.round() };
        let of_pairs = pairs
            .into_iter()
            .flat_map(|pair| ResponseExample::of_pair(PreferenceExample { p: p(&pair), ..pair }));
        let responses: Vec<ResponseExample> = of_pairs.chain(responses).collect();
        Ok(train_kto(policy, &responses, &config, run_seed, &folder, &mut hooks)?)
    };
    hooks.finish()?;
    let trained = finished(outcome?, "dpo")?;
    let dtype = saved_dtype(&context.config.dpo.optim, context.config.dpo.lora.as_ref());
    save_adapter(&context.policy_name(), trained.adapter.as_ref(), None, &folder)?;
    save_causal_lm(&trained.policy, context.tokenizer(), &folder, dtype)
        .with_context(|| format!("saving the tuned policy in `{}`", folder.display()))?;

    let report = trained.report;
    let loss = match context.config.dpo.loss {
        DpoLossKind::Sigmoid => String::new(),
        other => format!(" of `{}`", other.name()),
    };
    let (mut summary, told) = if in_pairs {
        let summary = DpoSummary::of(report.train_pairs, &report.holdout, run_seed);
        let share = share_text("ranks", summary.accuracy.as_ref());
        (summary, format!("preferences; {share}"))
    } else {
        let summary = DpoSummary::of_responses(report.train_pairs, &report.holdout, run_seed);
        let share = match &summary.accuracy {
            None => "no responses held out".into(),
            Some(share) => {
                let held_out = report.holdout.len();
                format!(
                    "{} of {held_out} held-out ones are on their side of the reference point",
                    percent_text(share)
                )
            }
        };
        (summary, format!("responses; {share}"))
    };
    summary.watch = report.watch.as_ref().map(watching::summary);
    let (spent, cost) = watching::cost(context, Stage::Dpo)?;
    let chosen = watching::describe(summary.watch.as_ref(), report.steps);
    Ok(StageOutcome {
        summary: format!("{} steps{loss} on {} {told}{chosen}{spent}", report.steps, report.train_pairs),
        numbers: serde_json::to_value(&summary)?,
        cost_micro_usd: cost,
        ..StageOutcome::default()
    })
}
