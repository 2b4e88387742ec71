//! `[audit]`.

use crate::audit::Bound;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[audit]`: how judges are tried, by `rlaif audit`; nothing of it changes a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Known-bad responses of each family that a judge is shown, at most 300, each in both orders. Default 300: none that wins then
    /// shows a rate of at most 1 %.
    pub per_family: usize,
    /// How often a known-bad response may win. Default 0.01.
    pub max_bad_win_rate: f64,
    /// What each measure may be, as `cohen_kappa = { min = 0.4 }`: `rlaif audit` fails where a whole interval is beyond, or where there
    /// was nothing to measure. Default none.
    pub bounds: BTreeMap<String, Bound>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { per_family: 300, max_bad_win_rate: 0.01, bounds: BTreeMap::new() }
    }
}
