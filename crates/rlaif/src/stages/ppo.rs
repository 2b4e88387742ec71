//! `ppo`: the policy tuned on its own samples, leashed to the baseline.
//!
//! A critic of its own starts as the reward model's trunk (Stiennon et al. 2020, section 3.4), whose weights are in memory anyway, or as
//! the policy's where no reward model is read. Its head starts at zero where scores are normalised to mean 0, since 0 is then the right
//! first guess, and as the reward model's own otherwise.

use crate::context::Context;
use crate::local_judge::TOKENS_A_BATCH;
use crate::manifest::StageOutcome;
use crate::report::data::PpoSummary;
use crate::rewards::{Rewards, reads_reward_model};
use crate::sampling::whole_distribution;
use crate::training::{StageHooks, finished, save_adapter, saved_dtype};
use anyhow::{Context as _, Result};
use rlaif_core::config::{Algorithm, EnsembleReward, PpoConfig, RewardKind, Stage};
use rlaif_model::{Decoder, ScalarHead, save_causal_lm, save_reward_model};
use rlaif_train::{
    PpoReport, PromptIds, RewardFn, Scorer, Tuning, load_members, load_reward_heads, load_reward_model,
    train_ppo,
};
use std::cell::RefCell;

/// Trains, or goes on from the last checkpoint.
///
/// # Errors
/// If the reward model cannot be loaded, a judge cannot go on, training fails, or the disk does.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let policy = context.policy()?;
    let config = context.config.ppo.clone();
    let mut reward_models = match reads_reward_model(&context.config) {
        true => load_reward_models(context, config.ensemble).context("loading the reward model")?,
        false => Vec::new(),
    };
    let scorer = (!reward_models.is_empty()).then(|| {
        let scorer = Scorer::of_members(&reward_models, TOKENS_A_BATCH);
        scorer.pooled_by(config.ensemble, config.uncertainty_weight)
    });
    let zeros = ScalarHead::zeros(policy.config().hidden_size, &context.device);
    let critic = match reward_models.pop() {
        Some((trunk, _)) if config.normalize_scores => (trunk, zeros),
        Some((trunk, head)) => (trunk, head.mean_head()),
        None => (policy.clone(), zeros),
    };
    drop(reward_models);
    // What is said to prompts for experts is not for judges to score.
    let expert_tags = match config.maximises(RewardKind::Judges) {
        true => context.config.route.expert_tags.clone(),
        false => Vec::new(),
    };
    let prompts = context
        .prompts
        .train
        .iter()
        .filter(|prompt| !prompt.tags.iter().any(|tag| expert_tags.contains(tag)))
        .map(|prompt| Ok(PromptIds { id: prompt.id.clone(), ids: context.prompt_ids(prompt)? }))
        .collect::<Result<Vec<_>>>()?;
    let sampling = whole_distribution(context, config.temperature, config.max_new_tokens);
    let run_seed = context.config.run.seed;
    let folder = context.folder.model("ppo");
    let mut hooks = StageHooks::new(context, "ppo", "steps");

    let shared = RefCell::new(context);
    let mut rewards = Rewards::maximised(&shared, scorer, &prompts)?;
    let mut watch = config.watch.is_some().then(|| Rewards::watching(&shared, &prompts));
    let tuning = Tuning {
        policy,
        critic: config.algorithm.has_critic().then_some(critic),
        prompts: &prompts,
        sampling: &sampling,
        reward: &mut rewards,
        watch: watch.as_mut().map(|watch| watch as &mut dyn RewardFn),
    };
    let outcome = train_ppo(tuning, &config, run_seed, &folder, &mut hooks);
    hooks.finish()?;
    if let Some(failure) = rewards.failure().or(watch.and_then(Rewards::failure)) {
        return Err(failure); // in its own words, which say what to do
    }
    let trained = finished(outcome?, "ppo")?;
    let context = shared.into_inner();
    let saving = || format!("saving the tuned policy in `{}`", folder.display());
    // The policy last: a folder with it is whole.
    if let Some((trunk, head)) = &trained.critic {
        let dtype = saved_dtype(&config.critic_optim, config.lora.as_ref());
        save_reward_model(trunk, head, context.tokenizer(), &folder.join("critic"), dtype)
            .with_context(saving)?;
    }
    let dtype = saved_dtype(&config.optim, config.lora.as_ref());
    save_adapter(&context.policy_name(), trained.adapter.as_ref(), None, &folder)?;
    save_causal_lm(&trained.policy, context.tokenizer(), &folder, dtype).with_context(saving)?;

    let report = trained.report;
    let (spent, cost) = match has_judges(&config) {
        true => super::label::cost(context, Stage::Ppo)?,
        false => (String::new(), Some(0)),
    };
    let spent = if spent.is_empty() { spent } else { format!("; {spent}") };
    let summary = PpoSummary {
        kl_budget: config.kl_budget,
        stopped_at_budget: report.stopped_by_kl_budget,
        steps: report.steps,
    };
    Ok(StageOutcome {
        summary: format!("{}{spent}", describe(&report, config.algorithm)),
        numbers: serde_json::to_value(&summary)?,
        cost_micro_usd: cost,
        ..StageOutcome::default()
    })
}

/// Every member of the reward model; the heads of a single one by themselves where the reward is not their mean.
fn load_reward_models(context: &Context, ensemble: EnsembleReward) -> Result<Vec<(Decoder, ScalarHead)>> {
    let folder = context.folder.model("reward");
    let load = match ensemble {
        EnsembleReward::Mean => load_reward_model,
        EnsembleReward::WorstCase | EnsembleReward::UncertaintyWeighted => load_reward_heads,
    };
    Ok(load_members(&folder, &context.device, load)?)
}

/// How much there is to do.
pub fn size(config: &PpoConfig) -> String {
    let responses = config.prompts_per_step * config.samples_per_prompt;
    let judged = match (config.maximises(RewardKind::Judges), config.watch.is_some()) {
        (true, true) => ", scored and watched by judges as it goes",
        (true, false) => ", scored by judges as it goes",
        (false, true) => ", watched by judges as it goes",
        (false, false) => "",
    };
    format!("{} steps of {responses} responses{}{judged}", config.steps, by(config.algorithm))
}

fn has_judges(config: &PpoConfig) -> bool {
    config.maximises(RewardKind::Judges) || config.watch.is_some()
}

/// What is said of an algorithm that is not the stage's own name.
fn by(algorithm: Algorithm) -> String {
    match algorithm {
        Algorithm::Ppo => String::new(),
        other => format!(" by `{}`", other.name()),
    }
}

fn describe(report: &PpoReport, algorithm: Algorithm) -> String {
    let kept = report.kept_step;
    let stopped = match (report.stopped_by_kl_budget, report.stopped_by_watch) {
        (true, _) => format!(", stopped by the KL budget and put back to step {kept}"),
        (_, true) => format!(", stopped since the held-out score fell, and put back to step {kept}"),
        _ if kept < report.steps => {
            format!(", put back to step {kept}, where the held-out score was highest")
        }
        _ => String::new(),
    };
    format!(
        "{} steps{}; mean reward of a rollout {:.3} at first, {:.3} at last, KL {:.2} nats a response{stopped}",
        report.steps,
        by(algorithm),
        report.first_score,
        report.last_score,
        report.kl
    )
}
