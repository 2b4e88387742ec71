//! What chooses the best checkpoint: it must be able to, and it must not be what training learns from.

use super::super::{Config, PolicyWatchConfig, RewardKind, Stage};
use super::{Checks, Ends, check_judges, check_sources};

impl Config {
    pub(super) fn check_watches(&self, check: &mut Checks) {
        for stage in [Stage::Sft, Stage::Dpo] {
            if let Some(watch) = self.policy_watch(stage) {
                self.check_policy_watch(check, stage, watch);
            }
        }
        if let Some(watch) = &self.reward.watch {
            check_looks(check, "reward.watch", watch.eval_steps, watch.window, watch.max_drop);
            if watch.source.as_ref().is_some_and(|source| source.trim().is_empty()) {
                check.add("reward.watch.source", "must not be empty".into());
            }
            if self.reward.holdout_fraction == 0.0 {
                let message = "must be above 0 with `[reward.watch]`, which looks at held-out pairs, got 0";
                check.add("reward.holdout_fraction", message.into());
            }
        }
    }

    fn check_policy_watch(&self, check: &mut Checks, stage: Stage, watch: &PolicyWatchConfig) {
        let section = format!("{}.watch", stage.name());
        let key = |name: &str| format!("{section}.{name}");
        check_looks(check, &section, watch.eval_steps, watch.window, watch.max_drop);
        check.at_least(&key("prompts"), watch.prompts, 1);
        check.at_least(&key("samples_per_prompt"), watch.samples_per_prompt, 1);
        check.at_least(&key("temperature"), watch.temperature, 0.0);
        if let Some(max_new_tokens) = watch.max_new_tokens {
            check.at_least(&key("max_new_tokens"), max_new_tokens, 1);
        }
        check_sources(check, &key("rewards"), &watch.rewards);
        if let Some(index) = watch.rewards.iter().position(|source| source.kind == RewardKind::RewardModel) {
            let message =
                "cannot be \"reward_model\": it has learnt from the labels, and is no second opinion";
            check.add(&key(&format!("rewards[{index}].kind")), message.into());
        }
        check_judges(check, self, &key("judges"), watch.judges.as_deref().unwrap_or_default());
        if watch.judges.is_some() && !watch.asks_judges() {
            let message = format!("are given, but no part of `{}` has `kind` = \"judges\"", key("rewards"));
            check.add(&key("judges"), message);
        }
        if !self.stages().contains(&stage) {
            return;
        }
        let judges = self.choosing_judges(stage);
        if watch.asks_judges() && judges.is_empty() {
            check.add(&key("judges"), "must name at least one judge".into());
        }
        let learns_labels =
            stage == Stage::Dpo && (self.dpo.data.is_empty() || self.run.stages.contains(&Stage::Label));
        // By name, as everywhere: that is what verdicts are kept under.
        let made_labels = |name: &str| self.label.judges.iter().any(|judge| judge.name == name);
        if let Some(judge) = judges.iter().find(|judge| learns_labels && made_labels(&judge.name)) {
            let message = format!(
                "must be others than those that made the labels: who is pleased by training cannot tell where it goes too far, got {:?} in both",
                judge.name
            );
            check.add(&key("judges"), message);
        }
    }
}

fn check_looks(check: &mut Checks, section: &str, eval_steps: usize, window: usize, max_drop: Option<f64>) {
    check.at_least(&format!("{section}.eval_steps"), eval_steps, 1);
    check.at_least(&format!("{section}.window"), window, 1);
    if let Some(max_drop) = max_drop {
        check.share(&format!("{section}.max_drop"), max_drop, Ends::Both);
    }
}
