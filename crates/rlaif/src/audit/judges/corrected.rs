//! What people would say of a rate that a judge measured: prediction-powered inference where people judged a random sample of the pairs, else
//! Rogan & Gladen from the judge's error rates on whatever people judged.

use super::material::{Material, Voice};
use crate::agreement::RESAMPLES;
use rlaif_core::audit::Measurement;
use rlaif_core::people::HumanChoice;
use rlaif_core::stats::interval::cluster_share;
use rlaif_core::stats::ppi::{Corrected, Tuning, prediction_powered};
use rlaif_core::stats::rogan_gladen::rogan_gladen;
use std::collections::BTreeMap;

/// Prompts that people must have judged for a 95 % interval to hold the truth in 94 % of studies; with 30 it does in 90 %. See
/// `rlaif_core::stats::ppi`.
pub const ENOUGH_LABELS: usize = 100;

/// What a judge, and people, say of one pair: P(what is counted).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate<'a> {
    /// On which the pair depends.
    pub prompt: &'a str,
    /// The judge.
    pub judge: f64,
    /// People, where they said something.
    pub people: Option<f64>,
    /// Whether the pair is in the random sample that people judged.
    pub audited: bool,
}

/// How often the judge says what people say, of pairs on which both decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorRates {
    /// Of those that people say are (count, of how many).
    pub sensitivity: (u64, u64),
    /// Of those that people say are not.
    pub specificity: (u64, u64),
}

impl ErrorRates {
    /// Counts them.
    pub fn of(rates: &[Rate<'_>]) -> Self {
        let mut found = Self::default();
        for rate in rates.iter().filter(|rate| rate.judge != 0.5) {
            let Some(people) = rate.people.filter(|people| *people != 0.5) else { continue };
            let group = if people > 0.5 { &mut found.sensitivity } else { &mut found.specificity };
            group.0 += u64::from((rate.judge > 0.5) == (people > 0.5));
            group.1 += 1;
        }
        found
    }
}

/// The mean of `people` over all pairs, from those of the random sample and the judge's word on all; where there is no such sample, from the judge's
/// error rates. Pairs of one prompt are averaged first, so the mean is over prompts.
pub fn corrected(subject: &str, measure: &str, rates: &[Rate<'_>], run_seed: u64) -> Measurement {
    let sampled = by_sample(subject, measure, rates, run_seed);
    sampled.unwrap_or_else(|| by_error_rates(subject, measure, rates, ErrorRates::of(rates)))
}

fn by_sample(subject: &str, measure: &str, rates: &[Rate<'_>], run_seed: u64) -> Option<Measurement> {
    let (mut labelled, mut others) = (BTreeMap::<&str, Vec<(f64, f64)>>::new(), BTreeMap::new());
    for rate in rates {
        match rate.people.filter(|_| rate.audited) {
            Some(people) => labelled.entry(rate.prompt).or_default().push((people, rate.judge)),
            None => others.entry(rate.prompt).or_insert_with(Vec::new).push(rate.judge),
        }
    }
    others.retain(|prompt, _| !labelled.contains_key(prompt));
    let both: Vec<(f64, f64)> = labelled.values().map(|said| mean_of_both(said)).collect();
    let alone: Vec<f64> = others.values().map(|said| said.iter().sum::<f64>() / said.len() as f64).collect();
    if let Some(Corrected { rate, judge, labelled, .. }) = prediction_powered(&both, &alone, Tuning::Power) {
        let said = format!(
            "the judge says {:.1} %; by prediction-powered inference from {labelled} labelled prompts",
            100.0 * judge
        );
        let note = format!("{said}{}", more(labelled));
        return Some(Measurement::of(subject, measure, rate, labelled as u64).note(note));
    }
    let people: Vec<Vec<f64>> = both.iter().map(|(people, _)| vec![*people]).collect();
    let rate = cluster_share(&people, RESAMPLES, run_seed).filter(|_| alone.len() < 2)?;
    let note = format!("people have judged a pair of every prompt{}", more(people.len()));
    Some(Measurement::of(subject, measure, rate, people.len() as u64).note(note))
}

/// The share of pairs that people would count, from the judge's verdicts on them and its error rates elsewhere.
pub fn by_error_rates(subject: &str, measure: &str, rates: &[Rate<'_>], errors: ErrorRates) -> Measurement {
    let counted = rates.iter().filter(|rate| rate.judge > 0.5).count() as u64;
    let decided = rates.iter().filter(|rate| rate.judge != 0.5).count() as u64;
    let ErrorRates { sensitivity, specificity } = errors;
    let labels = (sensitivity.1 + specificity.1) as usize;
    match rogan_gladen((counted, decided), sensitivity, specificity) {
        Some(rate) => Measurement::of(subject, measure, rate, decided).note(format!(
            "the judge says {:.1} % of {decided} decided; by Rogan & Gladen from {labels} labels{}",
            100.0 * counted as f64 / decided as f64,
            more(labels)
        )),
        None => Measurement::missing(
            subject,
            measure,
            format!(
                "it takes labels of people on which the judge is right more often than not; there are {labels}{}",
                more(labels)
            ),
        ),
    }
}

/// Whether the labels of a voice are right: 1 where it chooses what most people do, ½ where they call it a tie. On pairs that people have not seen
/// it says max(p, 1 − p).
pub fn label_accuracy(material: &Material, voice: &Voice) -> Measurement {
    let rates: Vec<Rate<'_>> = material
        .items
        .iter()
        .enumerate()
        .filter_map(|(place, item)| {
            let choice = material.choice(voice, place).filter(|choice| *choice != HumanChoice::Tie)?;
            let p = voice.p[place]?;
            let right = |people: HumanChoice| match people {
                HumanChoice::Tie => 0.5,
                people => f64::from(u8::from(people == choice)),
            };
            let prompt = item.pair.prompt_id.as_str();
            Some(Rate {
                prompt,
                judge: p.max(1.0 - p),
                people: item.majority().map(right),
                audited: item.audited,
            })
        })
        .collect();
    by_sample(&voice.subject, "label_accuracy", &rates, material.run_seed).unwrap_or_else(|| {
        let why = format!("people have judged too little of the random audit{}", more(0));
        Measurement::missing(&voice.subject, "label_accuracy", why)
    })
}

fn mean_of_both(said: &[(f64, f64)]) -> (f64, f64) {
    let n = said.len() as f64;
    let (people, judge) = said.iter().fold((0.0, 0.0), |(y, f), (people, judge)| (y + people, f + judge));
    (people / n, judge / n)
}

/// How many more labels it takes until the interval holds what it says.
fn more(labels: usize) -> String {
    match ENOUGH_LABELS.checked_sub(labels).filter(|more| *more > 0) {
        None => String::new(),
        Some(more) => format!(
            "; too few for the interval to hold what it says: {more} more of the queue `audit` (`rlaif review`)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(prompt: &str, judge: f64, people: Option<f64>) -> Rate<'_> {
        Rate { prompt, judge, people, audited: people.is_some() }
    }

    #[test]
    fn pairs_of_a_prompt_are_averaged_and_a_labelled_prompt_is_not_counted_twice() {
        let rates = [
            rate("p", 1.0, Some(0.0)),
            rate("p", 0.0, Some(0.0)),
            rate("p", 1.0, None),
            rate("q", 1.0, Some(1.0)),
            rate("r", 1.0, None),
            rate("s", 1.0, None),
            rate("s", 0.0, None),
        ];
        let got = corrected("judge `x`", "longer_wins_corrected", &rates, 0);
        let want = prediction_powered(&[(0.0, 0.5), (1.0, 1.0)], &[1.0, 0.5], Tuning::Power).unwrap();
        assert_eq!((got.value, got.low, got.n), (Some(want.rate.estimate), Some(want.rate.low), 2));
        assert!(got.note.unwrap().contains("98 more of the queue `audit`"));
    }

    #[test]
    fn a_chosen_sample_is_corrected_by_error_rates_and_no_label_by_nothing() {
        let mut rates = Vec::new();
        let mut add = |n: usize, judge: f64, people: Option<f64>| {
            rates.extend((0..n).map(|_| Rate { prompt: "p", judge, people, audited: false }));
        };
        add(40, 1.0, Some(1.0));
        add(10, 0.0, Some(1.0));
        add(45, 0.0, Some(0.0));
        add(5, 1.0, Some(0.0));
        add(3, 0.5, Some(1.0));
        add(100, 1.0, None);
        assert_eq!(ErrorRates::of(&rates), ErrorRates { sensitivity: (40, 50), specificity: (45, 50) });
        let got = corrected("judge `x`", "longer_wins_corrected", &rates, 0);
        let want = rogan_gladen((145, 200), (40, 50), (45, 50)).unwrap();
        assert_eq!((got.value, got.high, got.n), (Some(want.estimate), Some(want.high), 200));
        assert!(!got.note.unwrap().contains("more of the queue"), "100 labels are enough");
        let got = corrected("judge `x`", "longer_wins_corrected", &[rate("p", 1.0, None)], 0);
        assert!(got.value.is_none() && got.note.unwrap().contains("100 more"));
    }

    #[test]
    fn what_people_judged_whole_is_theirs() {
        let rates = [rate("p", 0.0, Some(1.0)), rate("q", 0.0, Some(1.0)), rate("r", 0.0, Some(0.0))];
        let got = corrected("judge `x`", "longer_wins_corrected", &rates, 0);
        assert_eq!((got.value, got.n), (Some(2.0 / 3.0), 3));
    }
}
