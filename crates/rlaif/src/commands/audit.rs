//! `rlaif audit CONFIG --robustness`: what known-bad responses do to the judges.

use crate::cli::AuditArgs;
use crate::context::Context;
use crate::error::{DONE, FAILED, UserError};
use crate::progress::say;
use crate::robustness::{AUDIT, FamilyRow, Trial, label_of, set_name};
use anyhow::Result;
use rlaif_core::config::JudgeConfig;
use rlaif_judge::defence::{Finding, attacks};
use std::fmt::Write;

/// Shows every judge of the config known-bad responses against honest ones; fails if one wins oftener than it may.
pub fn run(args: &AuditArgs) -> Result<u8> {
    if !args.robustness {
        return Err(UserError::new("nothing to audit was named").hint("Write `--robustness`").into());
    }
    let families = attacks::families();
    if let Some(unknown) = args.family.iter().find(|family| !families.contains(&family.as_str())) {
        return Err(UserError::new(format!("there is no family `{unknown}` of known-bad responses"))
            .hint(format!("There are {}", families.join(", ")))
            .into());
    }
    let mut context = Context::open(&args.config)?;
    let audit = context.config.audit.clone();
    let per_family = args.per_family.unwrap_or(audit.per_family);
    let probes: Vec<_> = families
        .into_iter()
        .filter(|family| args.family.is_empty() || args.family.iter().any(|wanted| wanted == family))
        .flat_map(|family| attacks::probes(family).into_iter().take(per_family))
        .collect();
    let judges = judges(&context);
    let label = label_of(&context.config.label);
    say(&format!(
        "audit: {} known-bad responses for {}",
        probes.len(),
        judges.iter().map(|judge| format!("`{}`", judge.name)).collect::<Vec<_>>().join(", ")
    ));
    let set = set_name(&context, AUDIT, &judges, &label)?;
    let trial = Trial::new(&context, "audit", &set, &probes, &judges, &label)?;
    trial.ask(&mut context)?;
    let rows = trial.rows(&context, audit.max_bad_win_rate)?;
    match args.json {
        true => super::print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?,
        false => super::print(&table(&rows, audit.max_bad_win_rate))?,
    }
    Ok(if rows.iter().any(|row| row.finding == Finding::Fail) { FAILED } else { DONE })
}

/// The judges of labels, and those of the evaluation that are others.
fn judges(context: &Context) -> Vec<JudgeConfig> {
    let mut judges = context.config.label.judges.clone();
    for judge in context.config.evaluation_judges() {
        if !judges.iter().any(|known| known.name == judge.name) {
            judges.push(judge.clone());
        }
    }
    judges
}

fn table(rows: &[FamilyRow], max_bad_win_rate: f64) -> String {
    let mut text = String::new();
    let mut judge = "";
    for row in rows {
        if row.judge != judge {
            judge = &row.judge;
            let _ = writeln!(text, "judge `{judge}`: how often a known-bad response beats an honest one");
            let _ = writeln!(
                text,
                "{:<23} {:>4} {:>5}  {:<22} {:>5} {:>8}  result",
                "family", "n", "wins", "win rate, 95 %", "ties", "missing"
            );
        }
        let share =
            format!("{:.1} % [{:.1}, {:.1}]", 100.0 * row.win_rate, 100.0 * row.low, 100.0 * row.high);
        let result = match row.finding {
            Finding::Pass => "pass",
            Finding::Fail => "FAIL",
            Finding::TooFew => "n too small",
        };
        let _ = writeln!(
            text,
            "{:<23} {:>4} {:>5}  {share:<22} {:>5} {:>8}  {result}",
            row.family, row.n, row.tally.wins, row.tally.ties, row.tally.missing
        );
    }
    let count = |finding| rows.iter().filter(|row| row.finding == finding).count();
    let _ = writeln!(
        text,
        "{} pass, {} fail, {} with n too small; allowed are {} % (`audit.max_bad_win_rate`)",
        count(Finding::Pass),
        count(Finding::Fail),
        count(Finding::TooFew),
        100.0 * max_bad_win_rate
    );
    text
}
