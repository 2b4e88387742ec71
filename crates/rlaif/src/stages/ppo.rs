//! `ppo`: the policy tuned against the reward model, leashed to the baseline.
//!
//! The critic starts as the reward model's trunk (Stiennon et al. 2020, section 3.4), whose weights are in memory anyway. Its head
//! starts at zero where scores are normalised to mean 0, since 0 is then the right first guess, and as the reward model's own
//! otherwise.

use crate::context::Context;
use crate::local_judge::TOKENS_A_BATCH;
use crate::manifest::StageOutcome;
use crate::report::data::PpoSummary;
use crate::training::{StageHooks, finished};
use anyhow::{Context as _, Result};
use rlaif_model::{SamplingConfig, SaveDtype, ScalarHead, save_causal_lm, save_reward_model};
use rlaif_train::{PromptIds, Scorer, Tuning, load_reward_model, train_ppo};

/// Trains, or goes on from the last checkpoint.
///
/// # Errors
/// If the reward model cannot be loaded, training fails, or the disk does.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let policy = context.policy()?;
    let config = context.config.ppo.clone();
    let (trunk, head) = load_reward_model(&context.folder.model("reward"), &context.device)
        .context("loading the reward model")?;
    let mut scorer = Scorer::new(&trunk, &head, TOKENS_A_BATCH);
    let value_head = match config.normalize_scores {
        true => ScalarHead::zeros(trunk.config().hidden_size, &context.device),
        false => head,
    };
    let prompts = context
        .prompts
        .train
        .iter()
        .map(|prompt| Ok(PromptIds { id: prompt.id.clone(), ids: context.prompt_ids(prompt)? }))
        .collect::<Result<Vec<_>>>()?;
    let sampling = SamplingConfig {
        temperature: config.temperature,
        top_p: 1.0, // what is trained is the whole distribution
        top_k: 0,
        max_new_tokens: config.max_new_tokens.unwrap_or(context.config.generate.max_new_tokens),
        stop_ids: context.tokenizer().eos_ids().to_vec(),
        batch_size: context.config.generate.batch_size,
    };
    let run_seed = context.config.run.seed;
    let folder = context.folder.model("ppo");
    let mut hooks = StageHooks::new(context, "ppo", "steps");
    let tuning = Tuning {
        policy,
        critic: Some((trunk, value_head)),
        prompts: &prompts,
        sampling: &sampling,
        reward: &mut scorer,
        watch: None,
    };
    let outcome = train_ppo(tuning, &config, run_seed, &folder, &mut hooks);
    hooks.finish()?;
    let trained = finished(outcome?, "ppo")?;
    let saving = || format!("saving the tuned policy in `{}`", folder.display());
    // The policy last: a folder with it is whole.
    if let Some((trunk, head)) = &trained.critic {
        save_reward_model(trunk, head, context.tokenizer(), &folder.join("critic"), SaveDtype::F32)
            .with_context(saving)?;
    }
    save_causal_lm(&trained.policy, context.tokenizer(), &folder, SaveDtype::F32).with_context(saving)?;

    let report = trained.report;
    let stopped = match report.stopped_by_kl_budget {
        true => format!(", stopped by the KL budget and put back to step {}", report.kept_step),
        false => String::new(),
    };
    let summary = PpoSummary {
        kl_budget: config.kl_budget,
        stopped_at_budget: report.stopped_by_kl_budget,
        steps: report.steps,
    };
    Ok(StageOutcome {
        summary: format!(
            "{} steps; mean reward of a rollout {:.3} at first, {:.3} at last, KL {:.2} nats a response{stopped}",
            report.steps, report.first_score, report.last_score, report.kl
        ),
        numbers: serde_json::to_value(&summary)?,
        cost_micro_usd: Some(0),
        ..StageOutcome::default()
    })
}
