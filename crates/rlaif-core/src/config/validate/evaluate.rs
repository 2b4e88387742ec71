//! `[evaluate]`.

use super::{Checks, check_judges};
use crate::config::Config;
use std::collections::BTreeSet;

/// What the ledger calls other policies and sets of pairs.
const TAKEN: [&str; 11] = [
    "baseline",
    "calibration",
    "dpo",
    "evaluate",
    "origin",
    "pool",
    "ppo",
    "probe",
    "regression",
    "sft",
    "train",
];

/// What names begin with that stages and audits make for themselves.
const TAKEN_BEGINNINGS: [&str; 6] = ["audit", "dpo-", "ppo-", "route", "sft-", "tripwires"];

impl Config {
    pub(super) fn check_evaluate(&self, check: &mut Checks) {
        let evaluate = &self.evaluate;
        check.at_least("evaluate.samples_per_prompt", evaluate.samples_per_prompt, 1);
        check.at_least("evaluate.temperature", evaluate.temperature, 0.0);
        // A 95 % percentile interval of fewer resamples rests on one or two of them.
        check.at_least("evaluate.bootstrap", evaluate.bootstrap, 100);
        if !(evaluate.margin > 0.0 && evaluate.margin < 0.5) {
            check.add("evaluate.margin", format!("must be above 0 and below 0.5, got {}", evaluate.margin));
        }
        if evaluate.regression.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            check.add("evaluate.regression", "must not be empty".into());
        }
        if evaluate.max_regressions.is_some() && evaluate.regression.is_none() {
            check.add("evaluate.max_regressions", "bounds nothing without `evaluate.regression`".into());
        }
        if let Some(judges) = &evaluate.judges {
            check_judges(check, self, "evaluate.judges", judges);
        }
        self.check_models(check);
    }

    fn check_models(&self, check: &mut Checks) {
        let mut names = BTreeSet::new();
        for (index, model) in self.evaluate.models.iter().enumerate() {
            let key = |name: &str| format!("evaluate.models[{index}].{name}");
            let name = model.name.as_str();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                let must = "must be letters, digits, `.`, `_` and `-`, and not begin with a dot";
                check.add(&key("name"), format!("{must}, got {name:?}"));
            } else if TAKEN.contains(&name) || TAKEN_BEGINNINGS.iter().any(|taken| name.starts_with(taken)) {
                check.add(&key("name"), format!("cannot be {name:?}: the run has a use for that name"));
            } else if !names.insert(name) {
                check.add(&key("name"), format!("must differ from that of other models, got {name:?} again"));
            }
            if model.model.trim().is_empty() {
                check.add(&key("model"), "must not be empty".into());
            }
        }
    }
}
