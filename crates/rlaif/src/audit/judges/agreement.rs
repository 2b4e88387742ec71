//! Whether judges say what people say, and what each other say.

use super::material::{Item, Material, Voice};
use crate::agreement::{Agreement, RESAMPLES, agreement};
use rlaif_core::audit::Measurement;
use rlaif_core::people::HumanChoice;
use rlaif_core::stats::Interval;
use rlaif_core::stats::krippendorff::{Scale, alpha_over_prompts};
use rlaif_core::stats::raters::{Tally, fleiss_kappa, gwet_ac1, observed_agreement, over_prompts};

/// A voice against what most people say: on the random audit, which holds for all pairs, and on all that people judged.
pub fn with_people(material: &Material, voice: &Voice) -> Vec<Measurement> {
    let of = |wanted: fn(&Item) -> bool| {
        let both = material.items.iter().enumerate().filter(|(_, item)| wanted(item));
        let both = both.filter_map(|(place, item)| {
            Some((item.pair.prompt_id.as_str(), item.majority()?, material.choice(voice, place)?))
        });
        agreement(both, material.run_seed)
    };
    let two = |found: Agreement, accuracy: &str, kappa: &str, where_from: &str| {
        let few = format!("people have judged too little of {where_from}: `rlaif review`");
        let alike = format!("{few}, or both always say one and the same");
        [
            Measurement::maybe(&voice.subject, accuracy, found.accuracy, found.decisive as u64, &few),
            Measurement::maybe(&voice.subject, kappa, found.kappa, found.n as u64, &alike),
        ]
    };
    let audited = two(of(|item| item.audited), "accuracy", "cohen_kappa", "the random audit");
    let all = two(of(|_| true), "accuracy_all", "cohen_kappa_all", "the pairs");
    audited.into_iter().chain(all).collect()
}

/// People among themselves, over pairs that two or more of them judged.
pub fn people(material: &Material) -> Vec<Measurement> {
    let tally = |_, item: &Item| {
        let votes = item.votes.as_ref().filter(|votes| votes.n() > 1)?;
        Some(vec![votes.b, votes.ties, votes.a])
    };
    let names = ["people_agreement", "people_fleiss_kappa", "people_alpha", "people_ac1"];
    let few = "too few pairs have two verdicts of people: `review.ratings_per_pair`";
    raters("people", names, &material.by_prompt(tally), few, material.run_seed)
}

/// Judges among themselves: all, then each two.
pub fn judges(material: &Material, voices: &[&Voice]) -> Vec<Measurement> {
    let tally = |place, _: &Item| {
        let mut tally = vec![0; 3];
        for voice in voices {
            tally[match material.choice(voice, place) {
                Some(HumanChoice::Second) => 0,
                Some(HumanChoice::Tie) => 1,
                Some(HumanChoice::First) => 2,
                Some(HumanChoice::Skip) | None => continue,
            }] += 1;
        }
        (tally.iter().sum::<u32>() > 1).then_some(tally)
    };
    let names = ["judges_agreement", "judges_fleiss_kappa", "judges_alpha", "judges_ac1"];
    let few = "too few pairs have verdicts of two judges";
    let mut found =
        raters("judges among themselves", names, &material.by_prompt(tally), few, material.run_seed);
    for (i, one) in voices.iter().enumerate() {
        for other in &voices[i + 1..] {
            let both = material.items.iter().enumerate().filter_map(|(place, item)| {
                let (one, other) = (material.choice(one, place)?, material.choice(other, place)?);
                Some((item.pair.prompt_id.as_str(), one, other))
            });
            let Agreement { n, kappa, .. } = agreement(both, material.run_seed);
            let subject = format!("{} and {}", one.subject, other.subject);
            let why = "too few pairs have verdicts of both, or both always say one and the same";
            found.push(Measurement::maybe(subject, "judges_cohen_kappa", kappa, n as u64, why));
        }
    }
    found
}

/// Names in the order: share of the same, Fleiss' kappa, Krippendorff's alpha, AC1. Tallies are of b, tie, a: a tie is nearer to each than they
/// are to each other, which alpha takes into account.
fn raters(
    subject: &str,
    [same, fleiss, alpha, ac1]: [&str; 4],
    prompts: &[Vec<Tally>],
    few: &str,
    seed: u64,
) -> Vec<Measurement> {
    let n = prompts.iter().map(Vec::len).sum::<usize>() as u64;
    let of = |statistic: fn(&[&Tally]) -> Option<f64>| over_prompts(prompts, RESAMPLES, seed, statistic);
    let alike = format!("{few}, or all are alike");
    let told = |measure: &str, interval: Option<Interval>, why: &str| {
        Measurement::maybe(subject, measure, interval, n, why)
    };
    vec![
        told(same, of(|items| observed_agreement(items)), few),
        told(fleiss, of(|items| fleiss_kappa(items)), &alike),
        told(alpha, alpha_over_prompts(prompts, Scale::Ordinal, RESAMPLES, seed), &alike),
        told(ac1, of(|items| gwet_ac1(items)), few),
    ]
}
