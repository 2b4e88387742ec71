//! `reward`: the policy's trunk with a scalar head, trained on the preferences; with `reward.members`, as often as that, each time with a
//! seed of its own.

use crate::context::Context;
use crate::local_judge::TOKENS_A_BATCH;
use crate::manifest::StageOutcome;
use crate::progress::say;
use crate::report::data::RewardSummary;
use crate::training::{StageHooks, examples, finished, percent_text, save_adapter, saved_dtype, share_text};
use crate::{resistance, watching};
use anyhow::{Context as _, Result};
use rlaif_core::config::Stage;
use rlaif_model::{SaveDtype, ScalarHead, save_reward_model};
use rlaif_train::{
    PreferenceExample, Scorer, Seeds, TrainedReward, check_members, evaluate_members, load_members,
    load_reward_heads, member_folder, split_by_prompt, train_reward,
};
use std::path::Path;

/// Under which the metrics of all members but the last are kept.
pub const MEMBERS: &str = "reward-members";

/// Trains, or goes on from the last checkpoint of the first member that is not finished.
///
/// # Errors
/// If there is nothing to train on, two members would be one model, training fails, or the disk does.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let examples = examples(context, Stage::Reward)?.pairs;
    let (run_seed, members) = (context.config.run.seed, context.config.reward.members);
    check_members(&examples, &context.config.reward, run_seed)?;
    for number in 1..members {
        let folder = member_folder(&context.folder.model("reward"), number, members);
        if is_whole(&folder) {
            say(&format!("reward: member {number} of {members} was finished before"));
        } else {
            train_member(context, &examples, number)?;
        }
        // Of no use any more, and three times as large as the model.
        std::fs::remove_dir_all(folder.join("checkpoints")).ok();
    }
    let trained = train_member(context, &examples, members)?;

    let report = trained.report;
    let (_, holdout) = split_by_prompt(&examples, context.config.reward.holdout_fraction, run_seed);
    let (scorer, held_out, by_member) = match members {
        1 => (Scorer::new(&trained.decoder, &trained.head, TOKENS_A_BATCH), report.holdout, Vec::new()),
        _ => {
            let folder = context.folder.model("reward");
            let models = load_members(&folder, &context.device, load_reward_heads)
                .context("loading the members of the reward model")?;
            let scorer = Scorer::of_members(&models, TOKENS_A_BATCH);
            let (together, alone) = evaluate_members(&scorer, &holdout)?;
            (scorer, together, alone)
        }
    };
    let longest = context.policy_files.config.max_position_embeddings;
    let mut summary = RewardSummary {
        truncated_pairs: report.truncated_pairs as u64,
        watch: report.watch.as_ref().map(watching::summary),
        resistance: resistance::measure(&scorer, context.tokenizer(), &holdout, longest)?,
        ..RewardSummary::of(report.train_pairs, &held_out, run_seed)
    };
    summary.add_members(&by_member, run_seed);
    resistance::warnings(&summary.resistance).for_each(|told| say(&format!("warning: reward: {told}")));
    let baseline = match &summary.longer_wins {
        Some(share) => format!(", the longer one is preferred in {}", percent_text(share)),
        None => String::new(),
    };
    let of_members = if members > 1 { format!(" of each of {members} members") } else { String::new() };
    Ok(StageOutcome {
        summary: format!(
            "{} steps{of_members} on {} preferences; {}{baseline}{}",
            report.steps,
            report.train_pairs,
            share_text("ranks", summary.accuracy.as_ref()),
            watching::describe(summary.watch.as_ref(), report.steps)
        ),
        numbers: serde_json::to_value(&summary)?,
        cost_micro_usd: Some(0),
        ..StageOutcome::default()
    })
}

/// Whether a member is finished: its weights are saved last.
pub fn is_whole(folder: &Path) -> bool {
    folder.join("model.safetensors").is_file()
}

/// Trains and saves member `number`, or goes on from its last checkpoint.
fn train_member(
    context: &mut Context,
    examples: &[PreferenceExample],
    number: usize,
) -> Result<TrainedReward> {
    let decoder = context.take_policy()?;
    let config = &context.config.reward;
    let members = config.members;
    let folder = member_folder(&context.folder.model("reward"), number, members);
    // From zeros every pair starts at p = ½; a random head on SmolLM2 starts with margins of ±1 that must first be unlearnt.
    let head = vec![0.0; decoder.config().hidden_size];
    let head = ScalarHead::from_heads(&vec![head; config.heads], &context.device);
    let name = if members > 1 { format!("reward {number}/{members}") } else { "reward".into() };
    let files = if number < members { format!("{MEMBERS}/{number}") } else { "reward".into() };
    let seeds = Seeds::of_member(context.config.run.seed, number, members);
    let mut hooks = StageHooks::of_part(context, name, &files, "steps");
    let outcome = train_reward(decoder, head, examples, config, seeds, &folder, &mut hooks);
    hooks.finish()?;
    let trained = finished(outcome?, "reward")?;
    let dtype = match config.heads {
        1 => saved_dtype(&config.optim, config.lora.as_ref()),
        _ => SaveDtype::F32, // the mean of bfloat16 heads is no bfloat16 head
    };
    save_adapter(&context.policy_name(), trained.adapter.as_ref(), Some(&trained.head.mean_head()), &folder)?;
    save_reward_model(&trained.decoder, &trained.head, context.tokenizer(), &folder, dtype)
        .with_context(|| format!("saving the reward model in `{}`", folder.display()))?;
    Ok(trained)
}
