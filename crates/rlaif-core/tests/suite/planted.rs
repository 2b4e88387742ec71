//! A study with a judge whose faults are known: each is found, and the corrected win rate holds the truth where the raw one does not.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rlaif_core::records::Choice;
use rlaif_core::seed;
use rlaif_core::stats::equivalence;
use rlaif_core::stats::interval;
use rlaif_core::stats::length::{Judged, length_controlled, longer_wins};
use rlaif_core::stats::position::position_report;
use rlaif_core::stats::ppi::{Tuning, prediction_powered};
use rlaif_core::stats::rogan_gladen::rogan_gladen;
use rlaif_core::stats::self_preference::{OwnPair, self_preference};

/// What is wrong with a judge, in log-odds.
#[derive(Clone, Copy)]
struct Faults {
    position: f64,
    length: f64,
    own: f64,
}

const FAULTY: Faults = Faults { position: 1.0, length: 1.5, own: 1.2 };
const FAIR: Faults = Faults { position: 0.0, length: 0.0, own: 0.0 };

/// A pair: a is of the judge's own model on every second prompt, and mostly longer.
struct Pair {
    a_better: bool,
    own: bool,
    chars_a: u64,
    chars_b: u64,
    /// Places, in orders ab and ba.
    choices: (Choice, Choice),
}

impl Pair {
    fn people(&self) -> f64 {
        f64::from(u8::from(self.a_better))
    }

    /// P(a beats b) over both orders.
    fn judge(&self) -> f64 {
        let won = [self.choices.0 == Choice::First, self.choices.1 == Choice::Second];
        won.iter().filter(|won| **won).count() as f64 / 2.0
    }
}

/// P(people prefer a).
const TRUTH: f64 = 0.45;

fn study(random: &mut ChaCha8Rng, pairs: usize, faults: Faults) -> Vec<Pair> {
    let pair = |random: &mut ChaCha8Rng, index: usize| {
        let (a_better, own) = (random.random::<f64>() < TRUTH, index.is_multiple_of(2));
        let (chars_a, chars_b) = (random.random_range(300..1500), random.random_range(100..1200));
        let gap = ((chars_a as f64 - chars_b as f64) / 400.0).tanh();
        let for_a =
            if a_better { 1.5 } else { -1.5 } + faults.length * gap + if own { faults.own } else { 0.0 };
        let mut chooses = |for_first: f64| {
            let p = 1.0 / (1.0 + (-(for_first + faults.position)).exp());
            if random.random::<f64>() < p { Choice::First } else { Choice::Second }
        };
        Pair { a_better, own, chars_a, chars_b, choices: (chooses(for_a), chooses(-for_a)) }
    };
    (0..pairs).map(|index| pair(random, index)).collect()
}

fn judged(pairs: &[Pair], p: fn(&Pair) -> f64) -> Vec<Vec<Judged>> {
    pairs
        .iter()
        .map(|pair| vec![Judged { chars_a: pair.chars_a, chars_b: pair.chars_b, p: p(pair) }])
        .collect()
}

fn own(pairs: &[Pair]) -> Vec<Vec<OwnPair>> {
    let own = |pair: &Pair| vec![OwnPair { judge: pair.judge(), reference: pair.people() }];
    pairs.iter().filter(|pair| pair.own).map(own).collect()
}

#[test]
fn each_fault_is_found() {
    let pairs = study(&mut seed::stream(0, "planted", 0), 1500, FAULTY);
    let choices: Vec<_> = pairs.iter().map(|pair| pair.choices).collect();
    let position = position_report(&choices).unwrap();
    assert!(position.p_value < 1e-6 && position.first_picked.unwrap().low > 0.55, "{position:?}");
    assert!(longer_wins(&judged(&pairs, Pair::judge), 500, 0).unwrap().low > 0.6);
    let longer_of_people = longer_wins(&judged(&pairs, Pair::people), 500, 0).unwrap();
    assert!(longer_of_people.high < 0.55, "people do not mind length: {longer_of_people}");
    let own = self_preference(&own(&pairs), 500, 0).unwrap();
    assert!(own.difference.low > 0.1 && own.bias.unwrap().low > 0.1, "{own:?}");
    let controlled = length_controlled(&judged(&pairs, Pair::judge), 200, 0).unwrap();
    assert!(
        controlled.length > 0.3 && controlled.rate.estimate < controlled.raw.estimate - 0.05,
        "{controlled:?}"
    );
}

#[test]
fn a_fair_judge_is_shown_to_be_fair() {
    let pairs = study(&mut seed::stream(0, "planted", 1), 3000, FAIR);
    let choices: Vec<_> = pairs.iter().map(|pair| pair.choices).collect();
    let position = position_report(&choices).unwrap();
    let turned = position.both_first + position.both_second;
    assert!(position.p_value > 0.05, "{position:?}");
    assert!(equivalence::share(position.both_first, turned, 0.4, 0.6).unwrap().shown());
    assert!(!self_preference(&own(&pairs), 500, 0).unwrap().bias.unwrap().excludes(0.0));
    let (people, judge): (Vec<f64>, Vec<f64>) =
        pairs.iter().map(|pair| (pair.people(), pair.judge())).unzip();
    // It errs on both sides: its win rate is pulled to ½, but by less than 5 points.
    assert!(equivalence::paired(&people, &judge, -0.05, 0.05).unwrap().shown());
}

/// Over 300 studies of 1000 pairs with 150 labels: raw and corrected intervals that hold the truth.
#[test]
fn corrected_intervals_hold_the_truth_and_raw_ones_do_not() {
    let (mut raw, mut powered, mut rated) = (0, 0, 0);
    for index in 0..300 {
        let pairs = study(&mut seed::stream(1, "planted", index), 1000, FAULTY);
        let (labelled, rest) = pairs.split_at(150);
        let points: Vec<f64> = pairs.iter().map(Pair::judge).collect();
        raw += u32::from(!interval::mean(&points).unwrap().excludes(TRUTH));
        let both: Vec<(f64, f64)> = labelled.iter().map(|pair| (pair.people(), pair.judge())).collect();
        let alone: Vec<f64> = rest.iter().map(Pair::judge).collect();
        let corrected = prediction_powered(&both, &alone, Tuning::Power).unwrap();
        powered += u32::from(!corrected.rate.excludes(TRUTH));
        // Of one order only, so that verdicts are two-valued.
        let said_a = |pair: &&Pair| pair.choices.0 == Choice::First;
        let (better, worse): (Vec<&Pair>, Vec<&Pair>) = labelled.iter().partition(|pair| pair.a_better);
        let share = |all: Vec<&Pair>, said: bool| {
            (all.iter().filter(|pair| said_a(pair) == said).count() as u64, all.len() as u64)
        };
        let corrected =
            rogan_gladen(share(rest.iter().collect(), true), share(better, true), share(worse, false));
        rated += u32::from(!corrected.unwrap().excludes(TRUTH));
    }
    assert_eq!(raw, 0, "of 300");
    // 95 % of 300 is 285, with a standard deviation of 3.8.
    assert!((273..=297).contains(&powered), "{powered} of 300");
    assert!((273..=299).contains(&rated), "{rated} of 300");
}
