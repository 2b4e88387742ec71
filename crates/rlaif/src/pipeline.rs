//! Which stages run, which are skipped, and which must be computed again, and why.
//!
//! A stage is done for a fingerprint: the hash of its config section, the seed and the fingerprints of what it reads. The same
//! fingerprint is never computed twice. All fingerprints follow from the config and the input files, so the whole plan is known,
//! and told, before anything is computed.

use crate::context::Context;
use crate::demonstrations;
use crate::error::UserError;
use crate::judging::reuse::OtherRuns;
use crate::judging::templates;
use crate::manifest::{self, StageOutcome, StageRecord, State};
use crate::progress::{duration_text, say};
use crate::{allocator, human_data, interrupt, people, preference_data, rewards, routing, stages, watching};
use anyhow::{Context as _, Result};
use rlaif_core::config::{
    Config, EvaluateConfig, JudgeConfig, JudgeKind, LabelConfig, MatmulPrecision, PpoConfig, Stage,
    WatchConfig,
};
use rlaif_model::ModelFiles;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What is to be done about a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Finished for this fingerprint.
    Skip,
    /// Never started.
    Compute,
    /// Started for this fingerprint and not finished.
    Resume,
    /// Finished or started for another one: what changed, in words.
    Recompute(Vec<String>),
}

/// One stage of a plan.
#[derive(Debug, Clone)]
pub struct Step {
    /// Which.
    pub stage: Stage,
    /// Everything its result depends on.
    pub recipe: Value,
    /// Hash of that.
    pub fingerprint: String,
    /// What to do.
    pub action: Action,
}

/// What a stage reads, of the stages that this run has.
pub fn inputs(config: &Config, stage: Stage, has: &[Stage]) -> Vec<Stage> {
    let wanted: &[Stage] = match stage {
        Stage::Revise => &[],
        Stage::Sft => &[Stage::Revise],
        // All of these read the policy, which is what `sft` made where there is such a stage.
        Stage::Generate => &[Stage::Sft],
        Stage::Label => &[Stage::Sft, Stage::Generate],
        Stage::Reward | Stage::Dpo => &[Stage::Revise, Stage::Sft, Stage::Label],
        Stage::Ppo if rewards::reads_reward_model(config) => &[Stage::Sft, Stage::Reward],
        Stage::Ppo => &[Stage::Sft],
        // The reward model, where there is one, scores what is evaluated.
        Stage::Evaluate => &[Stage::Sft, Stage::Reward, Stage::Ppo, Stage::Dpo],
        Stage::Report => &[
            Stage::Revise,
            Stage::Sft,
            Stage::Generate,
            Stage::Label,
            Stage::Reward,
            Stage::Ppo,
            Stage::Dpo,
            Stage::Evaluate,
        ],
    };
    let required = |input: Stage| {
        !matches!(stage, Stage::Evaluate | Stage::Report) && !matches!(input, Stage::Revise | Stage::Sft)
    };
    let is_read = |input: Stage| match (stage, input) {
        (Stage::Reward | Stage::Dpo, Stage::Revise) => preference_data::reads_revisions(config, stage),
        (Stage::Reward | Stage::Dpo, Stage::Label) => preference_data::reads_labels(config, stage),
        _ => true,
    };
    let reads = |input: &Stage| is_read(*input) && (required(*input) || has.contains(input));
    wanted.iter().copied().filter(reads).collect()
}

/// The steps of the stages between `from` and `until`, with what is to be done about each.
///
/// # Errors
/// If a stage before `from` that is read was never finished, or a needed stage is not part of the run.
pub fn plan(
    context: &Context,
    has: &[Stage],
    from: Option<Stage>,
    until: Option<Stage>,
) -> Result<Vec<Step>> {
    let mut fingerprints = BTreeMap::new();
    let mut steps = Vec::new();
    for stage in Stage::ALL {
        let recipe = recipe(context, stage, has, &fingerprints)?;
        let fingerprint = manifest::fingerprint(&recipe);
        fingerprints.insert(stage, fingerprint.clone());
        let selected = has.contains(&stage)
            && from.is_none_or(|from| stage >= from)
            && until.is_none_or(|until| stage <= until);
        if !selected {
            continue;
        }
        for input in inputs(&context.config, stage, has) {
            let planned = steps.iter().any(|step: &Step| step.stage == input);
            if !planned && stage != Stage::Report && !context.manifest.is_done(input, &fingerprints[&input]) {
                let (name, needs) = (stage.name(), input.name());
                let why = match context.manifest.stage(input) {
                    None => "has not run".to_string(),
                    Some(record) if record.fingerprint == fingerprints[&input] => {
                        "is not finished".to_string()
                    }
                    Some(_) => "was run with other settings".to_string(),
                };
                return Err(UserError::new(format!("stage `{name}` needs `{needs}`, which {why}"))
                    .hint(format!(
                        "Run `rlaif {needs} CONFIG` first, or `rlaif run CONFIG --until {name}` for all of it"
                    ))
                    .into());
            }
        }
        let action = action(context, stage, &fingerprint, &recipe);
        steps.push(Step { stage, recipe, fingerprint, action });
    }
    Ok(steps)
}

fn action(context: &Context, stage: Stage, fingerprint: &str, recipe: &Value) -> Action {
    match context.manifest.stage(stage) {
        None => Action::Compute,
        Some(record) if record.fingerprint != fingerprint => {
            Action::Recompute(manifest::differences(&record.recipe, recipe))
        }
        Some(record) if record.state == State::Started => Action::Resume,
        Some(_) if stage == Stage::Report => Action::Compute, // quick, and the page may have been improved
        Some(_) if !stages::results_exist(context, stage) => {
            Action::Recompute(vec!["its results are gone from the run folder".into()])
        }
        Some(_) => Action::Skip,
    }
}

/// Says what will be skipped and what is computed again, and why, before anything is.
pub fn announce(steps: &[Step]) {
    for step in steps {
        let name = step.stage.name();
        match &step.action {
            Action::Skip => say(&format!("{name}: done before, nothing changed")),
            Action::Resume => say(&format!("{name}: goes on where it stopped")),
            Action::Recompute(why) => {
                say(&format!("{name}: computed again, since {}", why.join("; ")));
            }
            Action::Compute => {}
        }
    }
}

/// Opens a finished stage again if units of it failed, and forgets the stages that read it: their input may change.
///
/// # Errors
/// If the manifest cannot be written.
pub fn retry_failures(context: &mut Context, stage: Stage) -> Result<()> {
    let Some(record) = context.manifest.stages.get_mut(stage.name()) else { return Ok(()) };
    if record.failures == 0 || record.state == State::Started {
        return Ok(());
    }
    say(&format!("{}: {} units that failed are tried again", stage.name(), record.failures));
    record.state = State::Started;
    let mut changed = vec![stage];
    for later in Stage::ALL {
        if inputs(&context.config, later, &Stage::ALL).iter().any(|input| changed.contains(input)) {
            changed.push(later);
            context.manifest.stages.remove(later.name());
        }
    }
    context.manifest.save(&context.folder)
}

/// Runs the steps in order; returns how many units failed in all of them, those of skipped stages included.
///
/// # Errors
/// The first error of a stage; what it and the stages before it finished is kept.
pub fn run(context: &mut Context, steps: &[Step]) -> Result<usize> {
    check_judges(context, steps)?;
    for step in steps.iter().filter(|step| step.action != Action::Skip) {
        preference_data::read(context, step.stage)?;
        if step.stage == Stage::Evaluate {
            stages::evaluate::regression::read(context)?;
        }
        if matches!(step.stage, Stage::Label | Stage::Reward | Stage::Dpo) {
            human_data::read(context)?;
        }
    }
    let mut failures = 0;
    for step in steps {
        let name = step.stage.name();
        if step.action == Action::Skip {
            failures += context.manifest.stage(step.stage).map_or(0, |record| record.failures);
            if step.stage == Stage::Label {
                routing::tell_again(context)?;
            }
            continue;
        }
        interrupt::check(name)?;
        begin(context, step)?;
        let started = Instant::now();
        allocator::at_work(step.stage);
        let result = stages::run(context, step.stage);
        let seconds = started.elapsed().as_secs_f64();
        let record =
            context.manifest.stages.get_mut(name).context("the stage was begun, so it has a record")?;
        record.wall_seconds += seconds;
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                // The error is what the user must see; failing to note the time must not hide it.
                context.manifest.save(&context.folder).ok();
                return Err(error).with_context(|| stopped(&context.resume_command, name));
            }
        };
        let StageOutcome { summary, numbers, failures: failed, cost_micro_usd } = outcome;
        say(&format!("{name}: {summary} ({})", duration_text(Duration::from_secs_f64(record.wall_seconds))));
        if failed > 0 {
            say(&format!(
                "{name}: {failed} units failed; `rlaif {name} {}` tries them again",
                context.arguments
            ));
        }
        failures += failed;
        record.state = State::Done;
        record.summary = summary;
        record.numbers = numbers;
        record.failures = failed;
        record.cost_micro_usd = cost_micro_usd;
        context.manifest.save(&context.folder)?;
    }
    Ok(failures)
}

/// Refuses to begin what would stop at a judge without its key, without what its templates show, or at a rule, hours later.
fn check_judges(context: &Context, steps: &[Step]) -> Result<()> {
    for step in steps.iter().filter(|step| step.action != Action::Skip) {
        let config = &context.config;
        let (judges, prompts, with_probe) = match step.stage {
            Stage::Label => {
                (config.label.judges.clone(), &context.prompts.train, config.label.probe.is_some())
            }
            Stage::Ppo => {
                rewards::check(context)?;
                let judges = [config.tuning_judges(), config.watching_judges()].concat();
                (judges, &context.prompts.train, false)
            }
            Stage::Sft | Stage::Dpo => {
                watching::check(context, step.stage)?;
                (config.choosing_judges(step.stage).to_vec(), &context.prompts.train, false)
            }
            Stage::Evaluate => (config.evaluation_judges().to_vec(), &context.prompts.eval, false),
            _ => continue,
        };
        for warning in templates::check(context, &judges, prompts, with_probe)? {
            say(&format!("warning: {warning}"));
        }
        for judge in judges.iter().filter(|judge| judge.kind.is_remote()) {
            crate::judging::openai::client(judge)?;
        }
        if judges.iter().any(|judge| judge.kind.is_remote()) {
            OtherRuns::open(context)?;
        }
    }
    Ok(())
}

fn stopped(resume_command: &str, stage: &str) -> String {
    match interrupt::requested() {
        true => {
            format!("stopped in `{stage}`; everything finished is kept, go on with `{resume_command}`")
        }
        false => format!("stage `{stage}` stopped"),
    }
}

/// Notes that the stage has begun, and clears away what another recipe left.
///
/// # Errors
/// If the manifest or the store cannot be written.
pub fn begin(context: &mut Context, step: &Step) -> Result<()> {
    let name = step.stage.name();
    if step.action == Action::Resume {
        return Ok(());
    }
    // The record goes first and comes back last: whenever this process dies, no record vouches for results that are gone.
    let before = context.manifest.stages.remove(name);
    context.manifest.save(&context.folder)?;
    if !before.is_some_and(|before| stages::can_keep(step.stage, &before.recipe, &step.recipe)) {
        stages::clear(context, step.stage)?;
    }
    let record = StageRecord {
        fingerprint: step.fingerprint.clone(),
        state: State::Started,
        wall_seconds: 0.0,
        cost_micro_usd: None,
        summary: String::new(),
        failures: 0,
        numbers: Value::Null,
        recipe: step.recipe.clone(),
    };
    context.manifest.stages.insert(name.into(), record);
    context.manifest.save(&context.folder)
}

/// Everything that the result of a stage depends on. Settings that change only speed, memory or money are left out, so that a
/// run that stopped for want of memory can go on with a smaller batch.
fn recipe(
    context: &Context,
    stage: Stage,
    has: &[Stage],
    fingerprints: &BTreeMap<Stage, String>,
) -> Result<Value> {
    let config = &context.config;
    let section = |value: serde_json::Result<Value>, leave_out: &[&str]| -> Result<Value> {
        let mut value = value.context("a config section is plain data")?;
        if let Some(map) = value.as_object_mut() {
            leave_out.iter().for_each(|key| drop(map.shift_remove(*key)));
        }
        Ok(value)
    };
    let mut inputs_of = serde_json::Map::new();
    let mut input = |name: &str, fingerprint: &str| inputs_of.insert(name.into(), fingerprint.into());
    for read in inputs(config, stage, has) {
        input(read.name(), &fingerprints[&read]);
    }
    for (file, fingerprint) in preference_data::fingerprints(context, stage)? {
        input(&file, &fingerprint);
    }
    if matches!(stage, Stage::Reward | Stage::Dpo)
        && preference_data::reads_labels(config, stage)
        && let Some(fingerprint) = context.wait(people::fingerprint(&context.store, config))?
    {
        input(stages::LABELS_OF_PEOPLE, &fingerprint);
    }
    let learns = matches!(stage, Stage::Reward | Stage::Dpo);
    if learns || stage == Stage::Label && config.route.measures() {
        for (file, fingerprint) in human_data::fingerprints(context)? {
            input(&file, &fingerprint);
        }
    }
    if !preference_data::reads_labels(config, stage) {
        input("policy", &context.policy_fingerprint);
    }
    let mut recipe = json!({ "stage": stage.name(), "run.seed": config.run.seed });
    let mut put = |key: &str, value: Value| recipe[key] = value;
    for (key, value) in route_recipe(config, stage)? {
        put(key, value);
    }
    match stage {
        Stage::Revise | Stage::Sft if !has.contains(&stage) => {}
        Stage::Revise if config.revise.rounds == 0 => {
            return Err(UserError::new("stage `revise` has nothing to do: `revise.rounds` is 0")
                .hint("Write `rounds = 1` under `[revise]`")
                .into());
        }
        Stage::Revise => {
            // Without `batch_size`, which moves nothing but rounding and is part of no other stage's recipe either.
            put("revise", section(serde_json::to_value(&config.revise), &["batch_size", "principles"])?);
            put("revise.principles", serde_json::to_value(config.revise.principles())?);
            put("generate.max_new_tokens", config.generate.max_new_tokens.into());
            input("prompts", &context.prompts.fingerprint);
            input("policy", &context.policy_fingerprint);
        }
        Stage::Sft => {
            put("sft", section(serde_json::to_value(&config.sft), &["data", "save_steps", "watch"])?);
            input("rows", &demonstrations::read(context, has)?.fingerprint);
            input("policy", &context.policy_fingerprint);
        }
        Stage::Generate => {
            put(
                "generate",
                section(serde_json::to_value(&config.generate), &["batch_size", "min_distance"])?,
            );
            put("policy.max_length", config.policy.max_length.into());
            input("prompts", &context.prompts.fingerprint);
            input("policy", &context.policy_fingerprint);
        }
        Stage::Label => {
            put(
                "label",
                section(
                    serde_json::to_value(&config.label),
                    &[
                        "judges",
                        "max_usd",
                        "reuse_replies",
                        "probe",
                        "calibration",
                        "tripwire_rate",
                        "tripwire_max_win_rate",
                        "templates_dir",
                    ],
                )?,
            );
            put("label.judges", judges_recipe(&config.label.judges)?);
            put("generate.min_distance", config.generate.min_distance.into());
            input("probe", &context.probe_fingerprint()?);
            input("calibration", &context.calibration_fingerprint()?);
            for (judge, fingerprint) in context.local_judge_fingerprints(&config.label.judges)? {
                input(&format!("model of judge `{judge}`"), &fingerprint);
            }
            for (template, fingerprint) in templates::fingerprints(context, &config.label.judges)? {
                input(&template, &fingerprint);
            }
        }
        Stage::Reward => {
            put("reward", section(serde_json::to_value(&config.reward), &["save_steps", "watch"])?);
            if let Some(watch) = &config.reward.watch {
                put("reward.watch", serde_json::to_value(watch)?);
            }
        }
        Stage::Ppo => {
            let watch = config.ppo.watch.clone().map(|watch| WatchConfig { judges: None, ..watch });
            let ppo = PpoConfig { watch, judges: None, ..config.ppo.clone() };
            put("ppo", section(serde_json::to_value(&ppo), &["save_steps"])?);
            put("generate.max_new_tokens", config.generate.max_new_tokens.into());
            let judges = [config.tuning_judges(), config.watching_judges()].concat();
            if !judges.is_empty() {
                put("ppo.judges", judges_recipe(config.tuning_judges())?);
                put("ppo.watch.judges", judges_recipe(config.watching_judges())?);
                put("label.asking", asking_recipe(&config.label)?);
                put("label.max_response_chars", config.label.max_response_chars.into());
                put("label.too_long", serde_json::to_value(config.label.too_long)?);
                put("label.vote_smoothing", config.label.vote_smoothing.into());
            }
            if !rewards::reads_reward_model(config) {
                input("prompts", &context.prompts.fingerprint);
                input("policy", &context.policy_fingerprint);
            }
            for (rule, fingerprint) in rewards::fingerprints(context)? {
                input(&rule, &fingerprint);
            }
            for (judge, fingerprint) in context.local_judge_fingerprints(&judges)? {
                input(&format!("model of judge `{judge}`"), &fingerprint);
            }
            for (template, fingerprint) in templates::fingerprints(context, &judges)? {
                input(&template, &fingerprint);
            }
        }
        Stage::Dpo => {
            put("dpo", section(serde_json::to_value(&config.dpo), &["save_steps", "watch"])?);
        }
        Stage::Evaluate => {
            let judges = config.evaluation_judges();
            let apart = ["judges", "models", "against", "margin", "regression", "max_regressions"];
            put("evaluate", section(serde_json::to_value(&config.evaluate), &apart)?);
            for (key, value) in evaluate_recipe(&config.evaluate)? {
                put(&key, value);
            }
            put("evaluate.judges", judges_recipe(judges)?);
            put("label.tie_margin", config.label.tie_margin.into());
            put("label.rules", config.label.rules.into());
            put("label.max_response_chars", config.label.max_response_chars.into());
            put("label.too_long", serde_json::to_value(config.label.too_long)?);
            put("label.asking", asking_recipe(&config.label)?);
            put("label.vote_smoothing", config.label.vote_smoothing.into());
            put("generate.max_new_tokens", config.generate.max_new_tokens.into());
            input("prompts", &context.prompts.fingerprint);
            input("policy", &context.policy_fingerprint);
            if let Some(origin) = &context.origin_fingerprint {
                input("origin", origin);
            }
            for model in &config.evaluate.models {
                let files = ModelFiles::open(&model.model).and_then(|files| files.fingerprint());
                let opening = || format!("opening the model `{}` of `evaluate.models`", model.name);
                input(&format!("model `{}`", model.name), &files.with_context(opening)?);
            }
            if let Some(fingerprint) = stages::evaluate::regression::fingerprint(context)? {
                input("regression set", &fingerprint);
            }
            if let Some(fingerprint) = context.wait(people::evaluation_fingerprint(&context.store))? {
                input(stages::LABELS_OF_PEOPLE, &fingerprint);
            }
            for (judge, fingerprint) in context.local_judge_fingerprints(judges)? {
                input(&format!("model of judge `{judge}`"), &fingerprint);
            }
            for (template, fingerprint) in templates::fingerprints(context, judges)? {
                input(&template, &fingerprint);
            }
        }
        Stage::Report => {}
    }
    if has.contains(&stage)
        && let Some(watch) = watching::recipe(context, stage)?
    {
        recipe[format!("{}.watch", stage.name())] = watch.settings;
        inputs_of.extend(watch.inputs.into_iter().map(|(name, fingerprint)| (name, fingerprint.into())));
    }
    if stage != Stage::Report && config.run.float32_matmul_precision != MatmulPrecision::Highest {
        recipe["run.float32_matmul_precision"] = serde_json::to_value(config.run.float32_matmul_precision)?;
    }
    recipe["inputs"] = Value::Object(inputs_of);
    Ok(recipe)
}

/// What of `[evaluate]` differs from its default, of the keys that a run from before they were there knows nothing of.
fn evaluate_recipe(evaluate: &EvaluateConfig) -> Result<Vec<(String, Value)>> {
    let default = EvaluateConfig::default();
    let mut recipe = Vec::new();
    let mut put = |key: &str, value: Value, default: Value| {
        if value != default {
            recipe.push((format!("evaluate.{key}"), value));
        }
    };
    put("against", serde_json::to_value(evaluate.against)?, serde_json::to_value(default.against)?);
    put("margin", evaluate.margin.into(), default.margin.into());
    put("max_regressions", evaluate.max_regressions.into(), Value::Null);
    let names: Vec<&str> = evaluate.models.iter().map(|model| model.name.as_str()).collect();
    put("models", names.into(), Vec::<Value>::new().into());
    Ok(recipe)
}

/// What of `[route]` the result of a stage depends on: nothing where it routes nothing. Shares that are drawn at random are trained on as
/// judges label them, until people do.
fn route_recipe(config: &Config, stage: Stage) -> Result<Vec<(&'static str, Value)>> {
    let route = &config.route;
    let mut recipe = Vec::new();
    let revised =
        matches!(stage, Stage::Reward | Stage::Dpo) && preference_data::reads_revisions(config, stage);
    let judged = stage == Stage::Ppo && !config.tuning_judges().is_empty();
    if !route.expert_tags.is_empty() && (stage == Stage::Label || revised || judged) {
        recipe.push(("route.expert_tags", serde_json::to_value(&route.expert_tags)?));
    }
    if !route.rules.is_empty() && stage == Stage::Label {
        recipe.push(("route.rules", serde_json::to_value(&route.rules)?));
    }
    if route.measures() && stage == Stage::Label {
        recipe.push(("route.bootstrap", route.bootstrap.into()));
        recipe.push(("route.min_agreement", serde_json::to_value(route.min_agreement)?));
    }
    if !route.human_data.is_empty() && matches!(stage, Stage::Reward | Stage::Dpo) {
        recipe.push(("review.weight", config.review.weight.into()));
    }
    Ok(recipe)
}

/// What of `[label]` is filled into the templates of every judge.
pub fn asking_recipe(label: &LabelConfig) -> Result<Value> {
    let LabelConfig { criteria, shuffle_criteria, principles, few_shot, few_shot_n, .. } = label;
    Ok(json!({
        "criteria": serde_json::to_value(criteria)?, "shuffle_criteria": shuffle_criteria, "principles": principles,
        "few_shot": serde_json::to_value(few_shot)?, "few_shot_n": few_shot_n,
    }))
}

/// What of a judge its verdicts depend on: not how fast, how patiently or at what price it is asked.
pub fn judges_recipe(judges: &[JudgeConfig]) -> Result<Value> {
    let changes_nothing = [
        "batch",
        "batch_poll_seconds",
        "max_concurrency",
        "max_retries",
        "max_resends",
        "requests_per_minute",
        "tokens_per_minute",
        "strict_model",
        "timeout_seconds",
        "api_key_env",
        "prompt_cache",
        "usd_per_million_input",
        "usd_per_million_output",
        "usd_per_million_cached_input",
        "allow_unknown_price",
        "own_policies", // for audits only
    ];
    let recipe_of = |judge: &JudgeConfig| -> Result<Value> {
        let mut value = serde_json::to_value(judge).context("a judge's section is plain data")?;
        if let Some(map) = value.as_object_mut() {
            changes_nothing.iter().for_each(|key| drop(map.shift_remove(*key)));
            if judge.kind == JudgeKind::Local && judge.templates.is_empty() {
                map.shift_remove("max_tokens");
            }
        }
        Ok(value)
    };
    judges.iter().map(recipe_of).collect::<Result<Vec<_>>>().map(Value::Array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::config::{RewardKind, RewardSource};

    #[test]
    fn a_stage_reads_what_the_design_says() {
        let (all, mut config) = (Stage::ALL, Config::default());
        let of = |stage, has: &[Stage]| inputs(&Config::default(), stage, has);
        assert_eq!(of(Stage::Reward, &all), [Stage::Sft, Stage::Label]);
        assert_eq!(of(Stage::Ppo, &all), [Stage::Sft, Stage::Reward]);
        assert_eq!(of(Stage::Evaluate, &all), [Stage::Sft, Stage::Reward, Stage::Ppo, Stage::Dpo]);
        assert_eq!(of(Stage::Generate, &[Stage::Generate]), [], "a run without `sft` is as it was");
        assert_eq!(of(Stage::Evaluate, &[Stage::Generate, Stage::Label, Stage::Dpo]), [Stage::Dpo]);
        assert_eq!(of(Stage::Ppo, &[Stage::Ppo]), [Stage::Reward], "what is required stays required");
        config.ppo.rewards = vec![RewardSource { kind: RewardKind::Judges, ..RewardSource::default() }];
        assert_eq!(inputs(&config, Stage::Ppo, &[Stage::Ppo]), []);
    }

    #[test]
    fn a_stage_with_files_reads_labels_only_where_the_run_makes_them() {
        let mut config = Config::default();
        config.reward.data = vec!["preferences.jsonl".into()];
        assert_eq!(inputs(&config, Stage::Reward, &Stage::ALL), [Stage::Sft, Stage::Label]);
        config.run.stages = vec![Stage::Reward, Stage::Dpo];
        assert_eq!(inputs(&config, Stage::Reward, &config.run.stages), []);
        assert_eq!(inputs(&config, Stage::Dpo, &config.run.stages), [Stage::Label]);
    }

    #[test]
    fn revised_answers_are_read_where_the_config_says_so() {
        let mut config = Config::default();
        config.dpo.revisions = true;
        assert_eq!(inputs(&config, Stage::Dpo, &Stage::ALL), [Stage::Revise, Stage::Sft, Stage::Label]);
        assert_eq!(inputs(&config, Stage::Reward, &Stage::ALL), [Stage::Sft, Stage::Label]);
        config.run.stages = vec![Stage::Revise, Stage::Sft, Stage::Dpo];
        let has = config.run.stages.clone();
        assert_eq!(inputs(&config, Stage::Dpo, &has), [Stage::Revise, Stage::Sft]);
        assert_eq!(inputs(&config, Stage::Reward, &has), [Stage::Sft, Stage::Label]);
    }

    #[test]
    fn a_recipe_of_judges_leaves_out_speed_and_money() {
        let judge = JudgeConfig::default();
        let other = JudgeConfig {
            max_concurrency: 1,
            batch: true,
            usd_per_million_input: Some(2.0),
            ..judge.clone()
        };
        assert_eq!(judges_recipe(std::slice::from_ref(&judge)).unwrap(), judges_recipe(&[other]).unwrap());
        let warmer = JudgeConfig { temperature: 0.5, ..judge.clone() };
        assert_ne!(judges_recipe(&[judge]).unwrap(), judges_recipe(&[warmer]).unwrap());
    }
}
