//! The configs that together are the schema: one with every optional key given, and those with none.

use super::*;
use crate::audit::Bound;
use crate::records::Choice;

/// In a table of the example: its keys are the user's to choose, and each value is like this one's.
pub(super) const ANY_KEY: &str = "*";

/// As the value of [`ANY_KEY`]: the values may be anything.
pub(super) const ANY_VALUE: &str = "*";

/// Every key has a value and every list one element.
pub(super) fn full_example() -> Config {
    let mut config = Config::default();
    let lora = Some(LoraConfig::default());
    config.run.max_usd_per_stage = StageBudgets {
        sft: Some(0.5),
        label: Some(0.5),
        ppo: Some(0.5),
        dpo: Some(0.5),
        evaluate: Some(0.5),
    };
    config.prompts.eval = Some("eval.jsonl".into());
    config.policy.origin = Some(String::new());
    config.prompts.split_seed = Some(1);
    config.prompts.limit = Some(1);
    config.prompts.system = Some(String::new());
    config.label.criteria = vec![Criterion {
        name: String::new(),
        description: Some(String::new()),
        levels: vec![String::new()],
    }];
    config.label.principles = vec![String::new()];
    config.generate.systems = vec![String::new()];
    config.label.few_shot = vec![few_shot(Some(String::new()))];
    config.label.few_shot_n = Some(1);
    config.label.templates_dir = Some("templates".into());
    config.label.judges = vec![JudgeConfig {
        templates: vec![String::new()],
        only_if_unsure_below: Some(0.5),
        own_policies: vec![String::new()],
        principle: Some(String::new()),
        opposite: Some(String::new()),
        base_url: Some(String::new()),
        api_key_env: Some(String::new()),
        api_version: Some(String::new()),
        reasoning_effort: Some(String::new()),
        extra: std::iter::once((ANY_KEY.to_owned(), ANY_VALUE.into())).collect(),
        requests_per_minute: Some(1),
        tokens_per_minute: Some(1),
        sampling_temperature: Some(0.5),
        usd_per_million_input: Some(0.5),
        usd_per_million_output: Some(0.5),
        usd_per_million_cached_input: Some(0.5),
        ..JudgeConfig::default()
    }];
    config.label.max_pairs = Some(1);
    config.label.calibration = Some("calibration.jsonl".into());
    config.label.max_usd = Some(0.5);
    config.label.reuse_replies = vec!["runs/other".into()];
    config.label.probe = Some("probe.jsonl".into());
    config.revise.max_new_tokens = Some(1);
    config.revise.principles = vec![principle()];
    config.sft.data = vec!["sft.jsonl".into()];
    config.sft.neftune_noise_alpha = Some(0.5);
    config.sft.lora = lora.clone();
    config.reward.data = vec!["preferences.jsonl".into()];
    config.reward.lora = lora.clone();
    config.ppo.epochs = Some(1);
    config.ppo.kl_coef = Some(0.5);
    config.ppo.kl_estimator = Some(KlEstimator::K1);
    config.ppo.kl_place = Some(KlPlace::Token);
    config.ppo.kl_budget = Some(0.5);
    config.ppo.cliprange_high = Some(0.5);
    config.ppo.dual_clip = Some(0.5);
    config.ppo.ratio = Some(RatioLevel::Token);
    config.ppo.reduction = Some(Reduction::Bnpo);
    config.ppo.whiten_advantages = Some(true);
    config.ppo.target_approxkl = Some(0.5);
    config.ppo.score_clip = Some(0.5);
    config.ppo.watch =
        Some(WatchConfig { judges: Some(config.label.judges.clone()), ..WatchConfig::default() });
    config.ppo.judges = Some(config.label.judges.clone());
    config.ppo.rewards = vec![RewardSource {
        pattern: Some(String::new()),
        schema: Some("schema.json".into()),
        min_tokens: Some(1),
        max_tokens: Some(1),
        ..RewardSource::default()
    }];
    let watch = Some(PolicyWatchConfig {
        judges: Some(config.label.judges.clone()),
        rewards: config.ppo.rewards.clone(),
        max_new_tokens: Some(1),
        max_drop: Some(0.5),
        ..PolicyWatchConfig::default()
    });
    config.sft.watch.clone_from(&watch);
    config.dpo.watch = watch;
    config.reward.watch = Some(RewardWatchConfig {
        source: Some(String::new()),
        max_drop: Some(0.5),
        ..RewardWatchConfig::default()
    });
    config.ppo.missing_eos_penalty = Some(0.5);
    config.ppo.max_new_tokens = Some(1);
    config.ppo.lora = lora.clone();
    config.dpo.data = vec!["preferences.jsonl".into()];
    config.dpo.beta = Some(0.5);
    config.dpo.label_smoothing = Some(0.5);
    config.dpo.lora = lora;
    config.evaluate.max_new_tokens = Some(1);
    config.evaluate.models = vec![EvaluatedModel::default()];
    config.evaluate.regression = Some("regression.jsonl".into());
    config.evaluate.max_regressions = Some(1);
    let price = PriceConfig {
        input: 0.5,
        output: 0.5,
        cached_input: Some(0.5),
        cache_write: Some(0.5),
        cache_write_1h: Some(0.5),
        batch_percent: Some(1),
        flex_percent: Some(1),
        priority_percent: Some(1),
    };
    config.prices.insert(ANY_KEY.into(), price);
    config.route.rules = vec![RouteRule {
        name: Some(String::new()),
        tags: vec![String::new()],
        words: vec![String::new()],
        random_share: Some(0.5),
        unsafe_by: Some(String::new()),
        unsafe_below: Some(0.5),
        spread_above: Some(0.5),
        margin_below: Some(0.5),
        ..RouteRule::to(Destination::People)
    }];
    config.route.expert_tags = vec![String::new()];
    config.route.min_agreement = Some(0.5);
    config.route.human_data = vec!["human.jsonl".into()];
    config.evaluate.judges = Some(config.label.judges.clone());
    config.audit.bounds.insert(ANY_KEY.into(), Bound { min: Some(0.5), max: Some(0.5) });
    config
}

/// No optional key has a value; lists of tables still have one element. Two of them, for the optional keys of an element
/// of an optional list.
pub(super) fn bare_examples() -> [Config; 2] {
    let mut config = Config::default();
    // A table, since a name alone has no keys.
    config.label.criteria = vec![Criterion { levels: vec![String::new()], ..Criterion::default() }];
    config.revise.principles = vec![principle()];
    config.label.few_shot = vec![few_shot(None)];
    config.label.judges = vec![JudgeConfig { sampling_temperature: None, ..JudgeConfig::default() }];
    config.ppo.missing_eos_penalty = None;
    config.ppo.rewards = vec![RewardSource::default()];
    config.evaluate.models = vec![EvaluatedModel::default()];
    config.route.rules = vec![RouteRule::to(Destination::People)];
    let mut with_judges = config.clone();
    with_judges.evaluate.judges = Some(config.label.judges.clone());
    with_judges.ppo.judges = Some(config.label.judges.clone());
    with_judges.ppo.watch =
        Some(WatchConfig { judges: Some(config.label.judges.clone()), ..WatchConfig::default() });
    let watch = Some(PolicyWatchConfig {
        judges: Some(config.label.judges.clone()),
        rewards: config.ppo.rewards.clone(),
        ..PolicyWatchConfig::default()
    });
    with_judges.sft.watch.clone_from(&watch);
    with_judges.dpo.watch = watch;
    with_judges.reward.watch = Some(RewardWatchConfig::default());
    [config, with_judges]
}

fn principle() -> Principle {
    Principle { name: String::new(), critique: String::new(), revision: String::new() }
}

fn few_shot(explanation: Option<String>) -> FewShot {
    FewShot {
        prompt: String::new(),
        first: String::new(),
        second: String::new(),
        explanation,
        verdict: Choice::First,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn nulls(path: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Null => found.push(path.to_owned()),
            Value::Object(object) => object.iter().for_each(|(k, v)| nulls(&format!("{path}.{k}"), v, found)),
            Value::Array(items) if items.is_empty() => found.push(path.to_owned()),
            Value::Array(items) => items.iter().for_each(|v| nulls(path, v, found)),
            _ => {}
        }
    }

    /// A new optional key that is forgotten in `full_example` would be refused as unknown or of the wrong type.
    #[test]
    fn the_full_example_leaves_nothing_out() {
        let mut found = Vec::new();
        nulls("", &serde_json::to_value(full_example()).unwrap(), &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    /// A key that is `None` in the default must be `None` in `bare_examples`, or `"none"` would not empty it.
    #[test]
    fn the_bare_examples_have_every_none_of_the_default() {
        let (mut bare, mut default) = (Vec::new(), Vec::new());
        nulls("", &serde_json::to_value(&bare_examples()[0]).unwrap(), &mut bare);
        nulls("", &serde_json::to_value(Config::default()).unwrap(), &mut default);
        default.retain(|key| !bare.contains(key));
        // Empty lists in the default; the tone judge gives its principle and opposite.
        assert_eq!(
            default,
            [".revise.principles", ".label.few_shot", ".route.rules", ".ppo.rewards", ".evaluate.models"]
        );
    }
}
