//! Win rates of tuned policies: what the judges of the evaluation say, and what people would. People judge training pairs, so the correction is by
//! the error rates that a judge shows there, and holds as far as it errs alike on both.

use super::corrected::{ErrorRates, Rate, by_error_rates};
use super::looks::FITS;
use super::material::{Item, Material, Voice};
use crate::agreement::{RESAMPLES, TOGETHER};
use rlaif_core::audit::Measurement;
use rlaif_core::stats::interval::cluster_share;
use rlaif_core::stats::length::{Judged, length_controlled};
use rlaif_store::store::{BASELINE, ORIGIN};

/// The win rates of a set in which a policy meets the baseline or the origin, one of each voice. `same_panel` says whether all judges together are those
/// of the labels.
pub fn measure(
    (material, voices): &(Material, Vec<Voice>),
    (labelled, of_labels): &(Material, Vec<Voice>),
    same_panel: bool,
) -> Vec<Measurement> {
    let Some((tuned, other)) = material.items.iter().find_map(policies) else { return Vec::new() };
    let mut found = Vec::new();
    for voice in voices.iter().filter(|voice| voice.p.iter().any(Option::is_some)) {
        let subject = format!("{}, `{tuned}` over `{other}`", voice.subject);
        let of_tuned = |item: &Item, p: f64| {
            let (policy, _) = policies(item)?;
            Some(if item.a.policy == policy { p } else { 1.0 - p })
        };
        let values = material.by_prompt(|place, item| of_tuned(item, voice.p[place]?));
        let n = values.iter().map(Vec::len).sum::<usize>() as u64;
        let rate = cluster_share(&values, RESAMPLES, material.run_seed);
        found.push(Measurement::maybe(&subject, "win_rate", rate, n, "it takes verdicts on two prompts"));
        let of_length = |place: usize, item: &Item| {
            let p = of_tuned(item, voice.p[place]?)?;
            let (policy, _) = policies(item)?;
            let (ours, theirs) =
                if item.a.policy == policy { (&item.a, &item.b) } else { (&item.b, &item.a) };
            Some(Judged { chars_a: ours.length, chars_b: theirs.length, p })
        };
        let judged = material.by_prompt(of_length);
        let at_equal = length_controlled(&judged, FITS, material.run_seed).map(|it| it.rate);
        let why = "it takes verdicts on more prompts, and differences of length that are not all alike";
        found.push(Measurement::maybe(&subject, "win_rate_equal_length", at_equal, n, why));
        let rates: Vec<Rate<'_>> = material
            .items
            .iter()
            .enumerate()
            .filter_map(|(place, item)| {
                let judge = of_tuned(item, voice.p[place]?)?;
                Some(Rate { prompt: &item.pair.prompt_id, judge, people: None, audited: false })
            })
            .collect();
        let its_labels = of_labels.iter().find(|label| label.subject == voice.subject);
        found.push(match its_labels.filter(|_| voice.subject != TOGETHER || same_panel) {
            Some(label) => by_error_rates(&subject, "win_rate_corrected", &rates, errors(labelled, label)),
            None => Measurement::missing(
                &subject,
                "win_rate_corrected",
                "it judged no training pairs, which are those that people judge, so its error rates are not known",
            ),
        });
    }
    found
}

/// The policy that is evaluated, and what it is compared with.
fn policies(item: &Item) -> Option<(&str, &str)> {
    let fixed = |policy: &str| policy == BASELINE || policy == ORIGIN;
    match (fixed(&item.a.policy), fixed(&item.b.policy)) {
        (false, true) => Some((&item.a.policy, &item.b.policy)),
        (true, false) => Some((&item.b.policy, &item.a.policy)),
        _ => None,
    }
}

/// How often a voice prefers a where people do, and b where they do.
fn errors(labelled: &Material, voice: &Voice) -> ErrorRates {
    let rates: Vec<Rate<'_>> = labelled
        .items
        .iter()
        .enumerate()
        .filter_map(|(place, item)| {
            let prompt = item.pair.prompt_id.as_str();
            Some(Rate { prompt, judge: voice.p[place]?, people: item.people(), audited: item.audited })
        })
        .collect();
    ErrorRates::of(&rates)
}
