//! Which judges training has used: what they say of the outcome is in part what was learnt of them.

use crate::context::Context;
use rlaif_core::Config;
use rlaif_core::config::{JudgeConfig, Stage};

/// Of each judge of the evaluation, whether a stage that this run has, or that has run, used it or another judge of the same model: for
/// labels, as a reward, or to choose a checkpoint. Another prompt or principle does not make another judge of a model.
pub fn used(context: &Context) -> Vec<bool> {
    let config = &context.config;
    let stages = config.stages();
    let has = |stage: Stage| stages.contains(&stage) || context.manifest.stage(stage).is_some();
    let used = in_training(config, &has);
    let is_used = |judge: &JudgeConfig| used.iter().any(|other| same_model(judge, other));
    config.evaluation_judges().iter().map(is_used).collect()
}

fn in_training<'c>(config: &'c Config, has: &dyn Fn(Stage) -> bool) -> Vec<&'c JudgeConfig> {
    let of = |stage: Stage, judges: &'c [JudgeConfig]| if has(stage) { judges } else { &[] };
    let judges = [
        of(Stage::Label, &config.label.judges),
        of(Stage::Ppo, config.tuning_judges()),
        of(Stage::Ppo, config.watching_judges()),
        of(Stage::Sft, config.choosing_judges(Stage::Sft)),
        of(Stage::Dpo, config.choosing_judges(Stage::Dpo)),
    ];
    judges.into_iter().flatten().collect()
}

fn same_model(one: &JudgeConfig, other: &JudgeConfig) -> bool {
    one.kind == other.kind && one.model == other.model && one.base_url() == other.base_url()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judge_is_used_by_the_stages_that_ran_and_whatever_it_was_asked() {
        let judge = |model: &str, principle: &str| JudgeConfig {
            model: model.into(),
            principle: Some(principle.into()),
            ..JudgeConfig::default()
        };
        let mut config = Config::default();
        config.label.judges = vec![judge("a", "Be kind.")];
        config.evaluate.judges = Some(vec![judge("a", "Be brief."), judge("b", "Be kind.")]);
        let of = |has: &[Stage]| -> Vec<bool> {
            let used = in_training(&config, &|stage| has.contains(&stage));
            let is_used = |judge| used.iter().any(|other| same_model(judge, other));
            config.evaluation_judges().iter().map(is_used).collect()
        };
        assert_eq!(of(&[Stage::Label, Stage::Dpo]), [true, false]);
        assert_eq!(of(&[Stage::Evaluate]), [false, false], "nothing was labelled");
    }
}
