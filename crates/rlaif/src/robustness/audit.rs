//! `rlaif audit CONFIG --robustness`: what known-bad responses do to the judges.

use super::{AUDIT, Trial, label_of, set_name};
use crate::cli::AuditArgs;
use crate::context::Context;
use crate::error::UserError;
use crate::progress::say;
use anyhow::Result;
use rlaif_core::audit::Measurement;
use rlaif_core::config::JudgeConfig;
use rlaif_judge::defence::attacks;

/// Shows every judge of the config known-bad responses against honest ones, in both orders.
pub fn measure(context: &mut Context, args: &AuditArgs) -> Result<Vec<Measurement>> {
    let families = attacks::families();
    if let Some(unknown) = args.family.iter().find(|family| !families.contains(&family.as_str())) {
        return Err(UserError::new(format!("there is no family `{unknown}` of known-bad responses"))
            .hint(format!("There are {}", families.join(", ")))
            .into());
    }
    let audit = &context.config.audit;
    let max_bad_win_rate = audit.max_bad_win_rate;
    let per_family = args.per_family.unwrap_or(audit.per_family);
    let probes: Vec<_> = families
        .into_iter()
        .filter(|family| args.family.is_empty() || args.family.iter().any(|wanted| wanted == family))
        .flat_map(|family| attacks::probes(family).into_iter().take(per_family))
        .collect();
    let judges = judges(context);
    let label = label_of(&context.config.label);
    say(&format!(
        "audit: {} known-bad responses for {}",
        probes.len(),
        judges.iter().map(|judge| format!("`{}`", judge.name)).collect::<Vec<_>>().join(", ")
    ));
    let set = set_name(context, AUDIT, &judges, &label)?;
    let trial = Trial::new(context, "audit", &set, &probes, &judges, &label)?;
    trial.ask(context)?;
    trial.measurements(context, max_bad_win_rate)
}

/// The judges of labels, and those of the evaluation that are others.
pub fn judges(context: &Context) -> Vec<JudgeConfig> {
    let mut judges = context.config.label.judges.clone();
    for judge in context.config.evaluation_judges() {
        if !judges.iter().any(|known| known.name == judge.name) {
            judges.push(judge.clone());
        }
    }
    judges
}
