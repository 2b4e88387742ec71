//! `rlaif audit CONFIG`: how far each judge, each of its templates and all of them together can be trusted, by what is in the ledger.
//!
//! | file | measures |
//! |---|---|
//! | [`material`] | nothing: pairs, what people said, what judges said |
//! | [`agreement`] | agreement with people, of people and of judges |
//! | [`position`] | whether the place decides |
//! | [`looks`] | whether length or markdown decides |
//! | [`own`] | self-preference |
//! | [`missing`] | verdicts that did not come, and what they hang on |
//! | [`corrected`] | what people would say of a rate |
//! | [`win_rates`] | the same of the evaluation |
//! | [`repeat`] | whether a judge says the same when asked again; this one asks |

mod agreement;
mod corrected;
mod looks;
mod material;
mod missing;
mod own;
mod position;
pub mod repeat;
mod win_rates;

use crate::agreement::TOGETHER;
use crate::context::Context;
use crate::robustness::audit::judges;
use crate::robustness::{AUDIT_SETS, TRIPWIRES};
use crate::stages::label::POOL;
use crate::{error::UserError, probe};
use anyhow::Result;
use material::{Material, Voice};
use rlaif_core::audit::Measurement;
use rlaif_store::store::{LIVE, TRAIN_PAIRS};

/// What this part measures of a run; each stands in the audit, at least with why it could not be measured.
const MEASURED: [&str; 40] = [
    "accuracy",
    "cohen_kappa",
    "accuracy_all",
    "cohen_kappa_all",
    "label_accuracy",
    "same_position",
    "first_rate",
    "mcnemar_p",
    "longer_wins",
    "longer_wins_corrected",
    "longer_wins_excess",
    "length_coefficient",
    "markdown_wins",
    "markdown_wins_corrected",
    "markdown_wins_excess",
    "self_preference",
    "self_preference_bias",
    "missing",
    "refused",
    "filtered",
    "unreadable",
    "steered",
    "failed",
    "missing_long",
    "missing_from_longer",
    "missing_policy",
    "win_rate",
    "win_rate_equal_length",
    "win_rate_corrected",
    "judges_cohen_kappa",
    "judges_agreement",
    "judges_fleiss_kappa",
    "judges_alpha",
    "judges_ac1",
    "people_agreement",
    "people_fleiss_kappa",
    "people_alpha",
    "people_ac1",
    "people_longer_wins",
    "people_markdown_wins",
];

/// Measures everything that needs no judge to be asked.
///
/// # Errors
/// If nothing was labelled yet, or the store cannot be read.
pub fn measure(context: &Context) -> Result<Vec<Measurement>> {
    let labels = Material::read(context, TRAIN_PAIRS, &context.config.label.judges)?;
    if labels.0.items.is_empty() {
        return Err(UserError::new("there are no pairs whose judges could be audited")
            .hint("Run `rlaif run CONFIG --until label` first")
            .into());
    }
    let has_origin = context.config.policy.origin.is_some();
    let mut sets = vec![labels];
    for set in context.wait(context.store.pair_sets())? {
        let of_no_stage = [AUDIT_SETS, TRIPWIRES, LIVE, probe::PROBE, probe::CALIBRATION, POOL];
        if set != TRAIN_PAIRS && !of_no_stage.iter().any(|kind| set.starts_with(kind)) {
            sets.push(Material::read(context, &set, &judges(context))?);
        }
    }
    let (labels, evaluations) = (&sets[0], &sets[1..]);
    let mut found = Vec::new();
    for voice in &labels.1 {
        found.extend(of_labels(&labels.0, voice));
        found.extend(of_own(voice, &sets, has_origin));
    }
    let alone: Vec<&Voice> = labels.1.iter().filter(|voice| is_whole_judge(voice)).collect();
    found.extend(agreement::judges(&labels.0, &alone));
    found.extend(agreement::people(&labels.0));
    found.extend(looks::people(&labels.0));

    let same_panel = context.config.evaluation_judges() == context.config.label.judges
        && !context.config.label.aggregation.is_fitted();
    for evaluation in evaluations {
        found.extend(win_rates::measure(evaluation, labels, same_panel));
    }
    for judge in judges(context).iter().filter(|judge| !context.config.label.judges.contains(judge)) {
        found.extend(own::measure(&format!("judge `{}`", judge.name), judge, &sets, has_origin));
    }
    for (material, voices) in evaluations {
        let only_here = |voice: &&Voice| {
            let labels = |judge| !context.config.label.judges.contains(judge);
            voice.judge.as_ref().is_some_and(labels) && voice.asked.iter().any(|asked| !asked.is_empty())
        };
        for voice in voices.iter().filter(only_here) {
            let in_set = |it: Measurement| Measurement {
                subject: format!("{}, set `{}`", it.subject, material.set),
                ..it
            };
            found.extend(position::measure(material, voice).into_iter().map(in_set));
            found.extend(missing::measure(material, voice).into_iter().map(in_set));
        }
    }
    for name in MEASURED {
        if !found.iter().any(|it| it.measure == name) {
            found.push(Measurement::missing(TOGETHER, name, "the ledger holds nothing to measure it by"));
        }
    }
    Ok(found)
}

/// Everything of one voice on the training pairs.
fn of_labels(material: &Material, voice: &Voice) -> Vec<Measurement> {
    let mut found = agreement::with_people(material, voice);
    found.push(corrected::label_accuracy(material, voice));
    found.extend(position::measure(material, voice));
    found.extend(looks::measure(material, voice));
    if voice.judge.is_some() {
        found.extend(missing::measure(material, voice));
    }
    found
}

fn of_own(voice: &Voice, sets: &[(Material, Vec<Voice>)], has_origin: bool) -> Vec<Measurement> {
    match &voice.judge {
        Some(judge) if is_whole_judge(voice) => own::measure(&voice.subject, judge, sets, has_origin),
        _ => Vec::new(),
    }
}

/// Whether a voice is a judge with all its templates.
fn is_whole_judge(voice: &Voice) -> bool {
    voice.judge.as_ref().is_some_and(|judge| voice.subject == format!("judge `{}`", judge.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::audit::measure;

    #[test]
    fn every_measure_has_its_words() {
        for name in MEASURED.into_iter().chain(repeat::MEASURED) {
            assert!(measure(name).is_some(), "{name}");
        }
    }
}
