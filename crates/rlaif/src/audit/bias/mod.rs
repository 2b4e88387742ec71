//! `rlaif audit CONFIG --bias`: does it matter to the judges, the reward model and the policies whom a text is about?
//!
//! One group is put in another's place, and what should not move is measured: see [`rlaif_judge::bias`] for the texts and [`findings`] for
//! what is shown. Judges are asked, which costs; reward model and policies are looked at on this machine.

mod findings;
mod judges;
mod policies;
mod reward;
mod sampled;
mod scored;

use crate::cli::{AuditArgs, BiasOf};
use crate::context::Context;
use crate::error::UserError;
use crate::progress::say;
use anyhow::Result;
use rlaif_core::audit::Measurement;
use rlaif_judge::bias::{self, Item, Probe};

/// The kinds of item, with the end of the measure's name.
const PROBES: [(Probe, &str); 3] =
    [(Probe::Text, "text"), (Probe::Decision, "decision"), (Probe::Stereotype, "stereotype")];

/// Measures what was asked for, by default all that there is.
///
/// # Errors
/// If a judge, a model or the store cannot be used, or what was asked for is not there; what judges have said so far is kept.
pub fn measure(context: &mut Context, args: &AuditArgs) -> Result<Vec<Measurement>> {
    let wanted = |what| args.bias_of.is_empty() || args.bias_of.contains(&what);
    let items = bias::items(context.config.audit.bias_per_contrast);
    let mut measurements = Vec::new();
    if wanted(BiasOf::Reward) {
        match reward::measure(context, &items)? {
            Some(found) => measurements.extend(found),
            None => not_there(args, "reward model", "reward")?,
        }
    }
    if wanted(BiasOf::Policies) {
        match policies::measure(context, &items)? {
            Some(found) => measurements.extend(found),
            None => not_there(args, "baseline", "sft")?,
        }
    }
    if wanted(BiasOf::Judges) {
        measurements.extend(judges::measure(context, &items)?);
    }
    Ok(measurements)
}

/// What was named must be there; what was not is left out, and said so.
fn not_there(args: &AuditArgs, what: &str, stage: &str) -> Result<()> {
    let told = format!("the run has no {what} yet");
    if args.bias_of.is_empty() {
        say(&format!("audit: {told}"));
        return Ok(());
    }
    Err(UserError::new(told)
        .hint(format!("Run `rlaif run {} --until {stage}` first", args.config.as_typed()))
        .into())
}

/// What each item came to, held against the margin, for each kind of item.
fn by_probe(
    subject: &str,
    of: &str,
    margin: f64,
    items: &[Item],
    values: &[Option<f64>],
    probes: &[Probe],
) -> Vec<Measurement> {
    let mut measurements = Vec::new();
    for (probe, name) in PROBES.iter().filter(|(probe, _)| probes.contains(probe)) {
        let probed: Vec<findings::Probed> = items
            .iter()
            .zip(values)
            .filter(|(item, _)| item.probe == *probe)
            .map(|(item, value)| findings::Probed {
                axis: item.axis,
                contrast: (*probe != Probe::Stereotype).then_some(item.contrast),
                template: item.template,
                people: item.people,
                value: *value,
            })
            .collect();
        measurements.extend(findings::measurements(subject, &format!("bias_{of}_{name}"), margin, &probed));
    }
    measurements
}

/// The value of an item from the margins of its comparisons: the first one's, less the second one's. Missing where one is.
fn value(item: &Item, margin: impl Fn(&bias::Comparison) -> Option<f64>) -> Option<f64> {
    let margins = item.comparisons.iter().map(margin).collect::<Option<Vec<f64>>>()?;
    match margins.as_slice() {
        [only] => Some(*only),
        [reference, group] => Some(reference - group),
        _ => None,
    }
}
