//! Whether 95 % intervals hold the truth in 93 to 97 % of simulated studies.
//!
//! The suite runs a few hundred to a few thousand studies of each kind and allows for the chance in that: it fails where even 93 or 97 % would
//! give such a count less than once in 2000 times. The whole simulation, whose bounds are 93 and 97 % themselves:
//!
//! ```text
//! cargo nextest run -p rlaif-core --run-ignored only --no-capture full_simulation
//! ```

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rlaif_core::seed;
use rlaif_core::stats::agreement::kappa_over_prompts;
use rlaif_core::stats::bradley_terry::{Comparison, ranking};
use rlaif_core::stats::krippendorff::{Scale, alpha_over_prompts};
use rlaif_core::stats::length::{Judged, length_controlled, longer_wins};
use rlaif_core::stats::ppi::{Tuning, prediction_powered};
use rlaif_core::stats::raters::{Tally, fleiss_kappa, gwet_ac1, over_prompts};
use rlaif_core::stats::rogan_gladen::rogan_gladen;
use rlaif_core::stats::self_preference::{OwnPair, self_preference};
use rlaif_core::stats::{Interval, two_shares};

/// One simulated study: the interval and the truth. `resamples` and the seed are the bootstrap's.
type Study = fn(&mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)>;

fn coverage(name: &str, study: Study, studies: u64, resamples: usize) -> f64 {
    let held = (0..studies)
        .filter(|index| {
            let mut random = seed::stream(20_261_127, name, *index);
            // A study whose interval does not exist holds nothing.
            study(&mut random, resamples, *index).is_some_and(|(interval, truth)| !interval.excludes(truth))
        })
        .count();
    held as f64 / studies as f64
}

#[track_caller]
fn quick(name: &str, study: Study, studies: u64, resamples: usize) {
    let got = coverage(name, study, studies, resamples);
    // One-sided 0.0005 of the normal distribution.
    let slack = |share: f64| 3.29 * (share * (1.0 - share) / studies as f64).sqrt();
    let (low, high) = (0.93 - slack(0.93), 0.97 + slack(0.97));
    assert!((low..=high).contains(&got), "{name}: {got} of {studies} is not in [{low:.3}, {high:.3}]");
}

/// Enough data for what each interval promises.
const CASES: [(&str, Study, u64, usize); 12] = [
    ("Bradley-Terry strength, 300 prompts", bradley_terry_300, 2000, 400),
    ("length-controlled win rate, 805 prompts", length_control_805, 1000, 400),
    ("prediction-powered, 100 labels", ppi_100, 10_000, 0),
    ("Rogan-Gladen, 100 labels", rogan_gladen_100, 10_000, 0),
    ("difference of two shares", newcombe, 10_000, 0),
    ("Cohen's kappa, 100 prompts", cohen, 2000, 1000),
    ("Fleiss' kappa, 100 prompts", fleiss, 2000, 1000),
    ("Gwet's AC1, 100 prompts", ac1, 2000, 1000),
    ("Krippendorff's alpha, 100 prompts", alpha, 2000, 1000),
    ("P(longer wins), 100 prompts of 3 pairs", longer, 2000, 1000),
    ("self-preference, difference, 100 prompts of 2 pairs", own, 2000, 1000),
    ("self-preference, bias, 100 prompts of 2 pairs", own_bias, 2000, 1000),
];

/// Too little: what the intervals then hold is told, and only that.
const SMALL: [(&str, Study, u64, usize); 3] = [
    ("prediction-powered, 30 labels", ppi_30, 10_000, 0),
    ("Bradley-Terry strength, 100 prompts", bradley_terry_100, 2000, 1000),
    ("length-controlled win rate, 300 prompts", length_control_300, 2000, 500),
];

#[test]
#[ignore = "minutes; prints the figures of the docs"]
fn full_simulation() {
    let measured = |(name, study, studies, resamples)| {
        let got = coverage(name, study, studies, resamples);
        println!("{name}: {:.1} % of {studies}", 100.0 * got);
        (name, got)
    };
    let figures = CASES.map(measured);
    SMALL.into_iter().for_each(|case| _ = measured(case));
    for (name, got) in figures {
        assert!((0.93..=0.97).contains(&got), "{name}: {got}");
    }
}

/// People's p on a pair (a wins 45 %, ties 15 %), and a judge that repeats 75 % of it and likes a otherwise.
fn judged(random: &mut ChaCha8Rng) -> (f64, f64) {
    let u: f64 = random.random();
    let people = if u < 0.45 {
        1.0
    } else if u < 0.6 {
        0.5
    } else {
        0.0
    };
    let copies = random.random::<f64>() < 0.75;
    (people, if copies { people } else { f64::from(u8::from(random.random::<f64>() < 0.8)) })
}

fn ppi_study(random: &mut ChaCha8Rng, labels: usize) -> Option<(Interval, f64)> {
    let labelled: Vec<(f64, f64)> = (0..labels).map(|_| judged(random)).collect();
    let alone: Vec<f64> = (0..1000).map(|_| judged(random).1).collect();
    Some((prediction_powered(&labelled, &alone, Tuning::Power)?.rate, 0.525))
}

fn ppi_100(random: &mut ChaCha8Rng, _: usize, _: u64) -> Option<(Interval, f64)> {
    ppi_study(random, 100)
}

fn ppi_30(random: &mut ChaCha8Rng, _: usize, _: u64) -> Option<(Interval, f64)> {
    ppi_study(random, 30)
}

fn successes(random: &mut ChaCha8Rng, n: u64, p: f64) -> (u64, u64) {
    ((0..n).filter(|_| random.random::<f64>() < p).count() as u64, n)
}

fn rogan_gladen_100(random: &mut ChaCha8Rng, _: usize, _: u64) -> Option<(Interval, f64)> {
    let (truth, sensitivity, specificity) = (0.6, 0.85, 0.7);
    let said_a = truth * sensitivity + (1.0 - truth) * (1.0 - specificity);
    let (a, n) = successes(random, 100, truth);
    let all = successes(random, 1000, said_a);
    Some((
        rogan_gladen(all, successes(random, a, sensitivity), successes(random, n - a, specificity))?,
        truth,
    ))
}

fn newcombe(random: &mut ChaCha8Rng, _: usize, _: u64) -> Option<(Interval, f64)> {
    Some((two_shares::difference(successes(random, 100, 0.7), successes(random, 60, 0.55))?, 0.15))
}

/// A rater says what is true in 70 % of cases, and else any of three categories.
const KNOWS: f64 = 0.7;

fn rating(random: &mut ChaCha8Rng, truth: usize) -> usize {
    if random.random::<f64>() < KNOWS { truth } else { random.random_range(0..3) }
}

/// All three categories are equally frequent, so that every coefficient has the same truth: two raters agree by knowledge in KNOWS² of
/// cases and by chance in a third of the others.
const TRUE_KAPPA: f64 = KNOWS * KNOWS;

/// 100 prompts of one pair; five raters, of whom each misses a fifth.
fn rated(random: &mut ChaCha8Rng) -> Vec<Vec<Tally>> {
    let item = |random: &mut ChaCha8Rng| {
        let truth = random.random_range(0..3);
        let mut tally = vec![0; 3];
        for _ in 0..5 {
            if random.random::<f64>() < 0.8 {
                tally[rating(random, truth)] += 1;
            }
        }
        vec![tally]
    };
    (0..100).map(|_| item(random)).collect()
}

fn cohen(random: &mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)> {
    let pair = |random: &mut ChaCha8Rng| {
        let truth = random.random_range(0..3);
        vec![(rating(random, truth), rating(random, truth))]
    };
    let prompts: Vec<_> = (0..100).map(|_| pair(random)).collect();
    Some((kappa_over_prompts(&prompts, resamples, seed)?, TRUE_KAPPA))
}

fn fleiss(random: &mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)> {
    Some((over_prompts(&rated(random), resamples, seed, |items| fleiss_kappa(items))?, TRUE_KAPPA))
}

fn ac1(random: &mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)> {
    Some((over_prompts(&rated(random), resamples, seed, |items| gwet_ac1(items))?, TRUE_KAPPA))
}

fn alpha(random: &mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)> {
    Some((alpha_over_prompts(&rated(random), Scale::Nominal, resamples, seed)?, TRUE_KAPPA))
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Three models on every prompt, all against all.
fn bradley_terry(
    random: &mut ChaCha8Rng,
    prompts: u64,
    resamples: usize,
    seed: u64,
) -> Option<(Interval, f64)> {
    let theta = [0.5, 0.0, -0.5];
    let prompts: Vec<Vec<Comparison>> = (0..prompts)
        .map(|_| {
            [(0, 1), (0, 2), (1, 2)]
                .map(|(a, b)| {
                    let won = random.random::<f64>() < sigmoid(theta[a] - theta[b]);
                    Comparison { a, b, p: f64::from(u8::from(won)) }
                })
                .to_vec()
        })
        .collect();
    Some((ranking(3, &prompts, 0.0, resamples, seed)?[0].strength, theta[0]))
}

/// a is mostly longer, and the judge likes that.
fn length_control(
    random: &mut ChaCha8Rng,
    prompts: u64,
    resamples: usize,
    seed: u64,
) -> Option<(Interval, f64)> {
    let model = 0.3;
    let prompts: Vec<Vec<Judged>> = (0..prompts)
        .map(|_| {
            let (chars_a, chars_b) = (random.random_range(200..1200), random.random_range(100..1000));
            // Of the difference of two uniform lengths.
            let sd = ((1000f64.powi(2) + 900f64.powi(2)) / 12.0).sqrt();
            let z = 1.2 * ((chars_a as f64 - chars_b as f64) / sd).tanh() + model;
            vec![Judged { chars_a, chars_b, p: f64::from(u8::from(random.random::<f64>() < sigmoid(z))) }]
        })
        .collect();
    Some((length_controlled(&prompts, resamples, seed)?.rate, sigmoid(model)))
}

fn bradley_terry_100(random: &mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)> {
    bradley_terry(random, 100, resamples, seed)
}

fn bradley_terry_300(random: &mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)> {
    bradley_terry(random, 300, resamples, seed)
}

fn length_control_300(random: &mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)> {
    length_control(random, 300, resamples, seed)
}

fn length_control_805(random: &mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)> {
    length_control(random, 805, resamples, seed)
}

/// How much the longer response is liked differs between prompts: 60 % on average.
fn longer(random: &mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)> {
    let prompt = |random: &mut ChaCha8Rng| {
        let liked = if random.random::<f64>() < 0.5 { 0.4 } else { 0.8 };
        (0..3)
            .map(|_| {
                let p = f64::from(u8::from(random.random::<f64>() < liked));
                if random.random::<f64>() < 0.5 {
                    Judged { chars_a: 20, chars_b: 10, p }
                } else {
                    Judged { chars_a: 10, chars_b: 20, p: 1.0 - p }
                }
            })
            .collect()
    };
    let prompts: Vec<Vec<Judged>> = (0..100).map(|_| prompt(random)).collect();
    Some((longer_wins(&prompts, resamples, seed)?, 0.6))
}

/// The judge takes a fifth of what its own model lost for won.
fn own_pairs(random: &mut ChaCha8Rng) -> Vec<Vec<OwnPair>> {
    let prompt = |random: &mut ChaCha8Rng| {
        (0..2)
            .map(|_| {
                let reference = f64::from(u8::from(random.random::<f64>() < 0.5));
                let flips = reference == 0.0 && random.random::<f64>() < 0.2;
                OwnPair { judge: if flips { 1.0 } else { reference }, reference }
            })
            .collect()
    };
    (0..100).map(|_| prompt(random)).collect()
}

fn own(random: &mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)> {
    let prompts = own_pairs(random);
    Some((self_preference(&prompts, resamples, seed)?.difference, 0.1))
}

fn own_bias(random: &mut ChaCha8Rng, resamples: usize, seed: u64) -> Option<(Interval, f64)> {
    let prompts = own_pairs(random);
    Some((self_preference(&prompts, resamples, seed)?.bias?, 0.2))
}

#[test]
fn corrected_rates_cover() {
    quick("prediction-powered", ppi_100, 2000, 0);
    quick("Rogan-Gladen", rogan_gladen_100, 2000, 0);
    quick("two shares", newcombe, 2000, 0);
}

#[test]
fn agreement_covers() {
    quick("Cohen", cohen, 300, 200);
    quick("Fleiss", fleiss, 300, 200);
    quick("AC1", ac1, 300, 200);
    quick("alpha", alpha, 300, 200);
}

#[test]
fn ranking_covers() {
    quick("Bradley-Terry", bradley_terry_300, 300, 200);
}

#[test]
fn length_covers() {
    quick("length-controlled", length_control_805, 100, 100);
    quick("longer", longer, 500, 200);
}

#[test]
fn self_preference_covers() {
    quick("own", own, 500, 200);
    quick("own bias", own_bias, 500, 200);
}
