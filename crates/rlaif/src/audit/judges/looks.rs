//! Whether a voice goes by looks: the longer response, the one with more markdown. A judge may be right to: what counts is what people say of
//! the same pairs.

use super::corrected::{Rate, corrected};
use super::material::{Item, Material, Voice};
use crate::agreement::RESAMPLES;
use rlaif_core::audit::Measurement;
use rlaif_core::stats::interval::{cluster_difference, cluster_share};
use rlaif_core::stats::length::length_coefficient;

/// Bootstrap draws of the coefficient of length, each of which is a fit.
pub const FITS: usize = 200;

/// p of the response that has more of something, from p of a.
type OfMore = fn(&Item, f64) -> Option<f64>;

/// P(the longer wins) and P(the one with more markdown wins), each as the judge says, as people would say, and how far the judge is off.
pub fn measure(material: &Material, voice: &Voice) -> Vec<Measurement> {
    let mut found = wins(
        material,
        voice,
        Item::of_longer,
        ["longer_wins", "longer_wins_corrected", "longer_wins_excess"],
        "too few pairs of different length have a verdict",
    );
    let judged = material.by_prompt(|place, item| Some(item.judged(voice.p[place]?)));
    let n = judged.iter().map(Vec::len).sum::<usize>() as u64;
    let coefficient = length_coefficient(&judged, FITS, material.run_seed);
    let why = "it takes five prompts with verdicts on pairs of different length";
    found.push(Measurement::maybe(&voice.subject, "length_coefficient", coefficient, n, why));
    found.extend(wins(
        material,
        voice,
        Item::of_marked,
        ["markdown_wins", "markdown_wins_corrected", "markdown_wins_excess"],
        "too few pairs that differ in markdown have a verdict",
    ));
    found
}

/// The same of people alone, on the pairs that they judged.
pub fn people(material: &Material) -> Vec<Measurement> {
    let of = |measure: &str, of_more: OfMore, why: &str| {
        let values = material.by_prompt(|_, item| of_more(item, item.people()?));
        let n = values.iter().map(Vec::len).sum::<usize>() as u64;
        Measurement::maybe("people", measure, cluster_share(&values, RESAMPLES, material.run_seed), n, why)
    };
    vec![
        of("people_longer_wins", Item::of_longer, "people have judged too few pairs of different length"),
        of(
            "people_markdown_wins",
            Item::of_marked,
            "people have judged too few pairs that differ in markdown",
        ),
    ]
}

fn wins(
    material: &Material,
    voice: &Voice,
    of_more: OfMore,
    [wins, as_people, excess]: [&str; 3],
    few: &str,
) -> Vec<Measurement> {
    let seed = material.run_seed;
    let values = material.by_prompt(|place, item| of_more(item, voice.p[place]?));
    let n = values.iter().map(Vec::len).sum::<usize>() as u64;
    let rates: Vec<Rate<'_>> = material
        .items
        .iter()
        .enumerate()
        .filter_map(|(place, item)| {
            Some(Rate {
                prompt: &item.pair.prompt_id,
                judge: of_more(item, voice.p[place]?)?,
                people: item.people().and_then(|p| of_more(item, p)),
                audited: item.audited,
            })
        })
        .collect();
    let differences = material
        .by_prompt(|place, item| Some(of_more(item, voice.p[place]?)? - of_more(item, item.people()?)?));
    let labelled = differences.iter().map(Vec::len).sum::<usize>() as u64;
    vec![
        Measurement::maybe(&voice.subject, wins, cluster_share(&values, RESAMPLES, seed), n, few),
        corrected(&voice.subject, as_people, &rates, seed),
        Measurement::maybe(
            &voice.subject,
            excess,
            cluster_difference(&differences, RESAMPLES, seed),
            labelled,
            "people have judged too few of these pairs",
        ),
    ]
}
