//! Dawid & Skene's own data, simulated judges, and what must hold to the last bit.

use super::*;
use crate::seed;
use crate::stats::golden_panel::{ERRORS, LIKELIHOOD, SHARE, TABLE_1, TRUTH};
use proptest::prelude::*;
use rand::RngExt;

fn vote(item: usize, judge: usize, class: usize, mirrored: bool) -> Vote {
    Vote { item, judge, class, weight: 1.0, mirrored }
}

fn anaesthetists() -> Vec<Vote> {
    let mut votes = Vec::new();
    for (patient, row) in TABLE_1.split('|').enumerate() {
        for (judge, said) in row.split(' ').enumerate() {
            votes.extend(said.bytes().map(|class| vote(patient, judge, usize::from(class - b'1'), false)));
        }
    }
    votes
}

#[test]
fn the_anaesthetists_of_the_paper() {
    let got = fit(&Scheme::classes(4), 45, 5, &anaesthetists(), &[]);
    assert!(got.converged);
    assert!((got.log_likelihood - LIKELIHOOD).abs() < 1e-6, "{} {LIKELIHOOD}", got.log_likelihood);
    let close = |got: f64, want: f64, what: &str| assert!((got - want).abs() < 1e-5, "{what}: {got} {want}");
    for (got, want) in got.prevalence.iter().zip(SHARE) {
        close(*got, want, "share");
    }
    for (got, want) in got.confusion.iter().flatten().flatten().zip(ERRORS.as_flattened().as_flattened()) {
        close(*got, *want, "error rate");
    }
    for (got, want) in got.posterior.iter().flatten().zip(TRUTH.as_flattened()) {
        close(*got, *want, "posterior");
    }
    // The paper's table 2, to its two digits: marginals, and the first observer's first row.
    for (got, printed) in got.prevalence.iter().zip([0.40, 0.42, 0.11, 0.07]) {
        assert!((got - printed).abs() < 0.005, "{:?}", got);
    }
    assert!((got.confusion[0][0][0] - 0.89).abs() < 0.005);
}

/// Pairs shown in both orders to judges with these (P(first | first is better), P(second | second is better)).
fn simulate(seed: u64, pairs: usize, judges: &[(f64, f64)]) -> (Vec<Vote>, Vec<usize>) {
    let mut random = seed::stream(seed, "test", 0);
    let mut votes = Vec::new();
    let truths: Vec<usize> = (0..pairs).map(|_| usize::from(random.random::<bool>())).collect();
    for (item, &truth) in truths.iter().enumerate() {
        for (judge, &(first, second)) in judges.iter().enumerate() {
            for mirrored in [false, true] {
                let shown = if mirrored { 1 - truth } else { truth };
                let right = random.random::<f64>() < if shown == 0 { first } else { second };
                votes.push(vote(item, judge, if right { shown } else { 1 - shown }, mirrored));
            }
        }
    }
    (votes, truths)
}

fn right(fit: &Fit, truths: &[usize]) -> f64 {
    let right = fit.posterior.iter().zip(truths).filter(|(p, truth)| p[**truth] > 0.5).count();
    right as f64 / truths.len() as f64
}

#[test]
fn error_rates_and_position_bias_of_simulated_judges_are_recovered() {
    let judges = [(0.95, 0.55), (0.8, 0.8), (0.6, 0.9), (0.55, 0.5)];
    let (votes, truths) = simulate(1, 3000, &judges);
    let got = fit(&Scheme::pairs(), 3000, 4, &votes, &[]);
    assert!(got.converged);
    for (confusion, (first, second)) in got.confusion.iter().zip(judges) {
        assert!((confusion[0][0] - first).abs() < 0.04, "{confusion:?} {first}");
        assert!((confusion[1][1] - second).abs() < 0.04, "{confusion:?} {second}");
    }
    // A vote a judge, the worst counting as much as the best, is right less often.
    let mut sums = vec![0_i32; 3000];
    for vote in &votes {
        sums[vote.item] += if (vote.class == 0) != vote.mirrored { 1 } else { -1 };
    }
    let majority = sums.iter().zip(&truths).map(|(sum, truth)| match (sum.signum(), truth) {
        (0, _) => 0.5,
        (1, 0) | (-1, 1) => 1.0,
        _ => 0.0,
    });
    let majority = majority.sum::<f64>() / 3000.0;
    assert!(right(&got, &truths) > majority + 0.01, "{} {majority}", right(&got, &truths));
    // What it calls 90 % is 90 %.
    let sure: Vec<bool> = got
        .posterior
        .iter()
        .zip(&truths)
        .filter(|(p, _)| (0.85..0.95).contains(&p[0].max(p[1])))
        .map(|(p, truth)| p[*truth] > 0.5)
        .collect();
    let share = sure.iter().filter(|right| **right).count() as f64 / sure.len() as f64;
    assert!(sure.len() > 100 && (0.85..0.96).contains(&share), "{share} of {}", sure.len());
}

/// 100 experiments of 150 pairs and three judges: the 95 % intervals hold the judges' true accuracy in 92 to 99 %.
#[test]
fn accuracy_intervals_cover() {
    let judges = [(0.9, 0.7), (0.7, 0.7), (0.65, 0.85)];
    let (mut held, mut all) = (0, 0);
    for experiment in 0..100 {
        let (votes, _) = simulate(experiment, 150, &judges);
        let got = fit(&Scheme::pairs(), 150, 3, &votes, &[]);
        for (interval, (first, second)) in got.accuracy.iter().zip(judges) {
            all += 1;
            held += u32::from(!interval.unwrap().excludes((first + second) / 2.0));
        }
    }
    let share = f64::from(held) / f64::from(all);
    println!("accuracy intervals hold the truth in {share:.3} of {all}");
    assert!((0.92..=0.99).contains(&share), "{share}");
}

#[test]
fn gold_tells_right_judges_from_ones_that_agree() {
    // Two judges that share a mistake on 40 % of pairs (they prefer the longer, say), and one that is right on 85 %.
    let mut random = seed::stream(4, "test", 0);
    let (mut votes, mut truths) = (Vec::new(), Vec::new());
    for item in 0..600 {
        let truth = usize::from(random.random::<bool>());
        let fooled = random.random::<f64>() < 0.4;
        let shared = if fooled { 1 - truth } else { truth };
        for judge in 0..2 {
            votes.push(vote(item, judge, shared, false));
        }
        let alone = if random.random::<f64>() < 0.85 { truth } else { 1 - truth };
        votes.push(vote(item, 2, alone, false));
        truths.push(truth);
    }
    let blind = fit(&Scheme::pairs(), 600, 3, &votes, &[]);
    assert!(blind.accuracy[0].unwrap().estimate > 0.9, "agreement looks like accuracy: {:?}", blind.accuracy);
    let gold: Vec<Option<usize>> = truths.iter().take(200).map(|truth| Some(*truth)).collect();
    let known: Vec<Vote> = votes.iter().filter(|vote| vote.item < 200).copied().collect();
    let fitted = fit(&Scheme::pairs(), 200, 3, &known, &gold);
    for (interval, want) in fitted.accuracy.iter().zip([0.6, 0.6, 0.85]) {
        assert!(!interval.unwrap().excludes(want), "{interval:?} {want}");
    }
    let rest: Vec<Vote> =
        votes.iter().filter(|v| v.item >= 200).map(|v| Vote { item: v.item - 200, ..*v }).collect();
    let posterior = fitted.posterior_of(400, &rest);
    let share = |posterior: &[Vec<f64>]| {
        posterior.iter().zip(&truths[200..]).filter(|(p, truth)| p[**truth] > 0.5).count() as f64 / 400.0
    };
    assert!(share(&posterior) > 0.8 && share(&blind.posterior[200..]) < 0.7);
}

#[test]
fn missing_votes_are_missing() {
    let (mut votes, truths) = simulate(5, 2000, &[(0.8, 0.8), (0.75, 0.75), (0.9, 0.9)]);
    let mut random = seed::stream(6, "test", 0);
    votes.retain(|vote| vote.item != 7 && random.random::<f64>() < 0.5);
    let got = fit(&Scheme::pairs(), 2000, 4, &votes, &[]);
    assert_eq!(got.posterior[7], [0.5, 0.5], "nothing is known of an item without votes");
    assert_eq!(got.accuracy[3], None, "nor of a judge without any");
    for (interval, want) in got.accuracy.iter().zip([0.8, 0.75, 0.9]) {
        assert!((interval.unwrap().estimate - want).abs() < 0.04, "{interval:?} {want}");
    }
    assert!(right(&got, &truths) > 0.8);
    let empty = fit(&Scheme::pairs(), 0, 0, &[], &[]);
    assert!(empty.converged && empty.posterior.is_empty());
}

#[test]
fn ties_can_be_a_truth_or_only_a_vote() {
    // A pair in three is no better either way, and the judges see it nine times in ten.
    let mut random = seed::stream(8, "test", 0);
    let mut votes = Vec::new();
    for item in 0..900 {
        for judge in 0..3 {
            let seen = if random.random::<f64>() < 0.9 { item % 3 } else { random.random_range(0..3) };
            votes.push(vote(item, judge, seen, false));
        }
    }
    let got = fit(&Scheme::pairs_with_ties(), 900, 3, &votes, &[]);
    assert!((got.prevalence[2] - 1.0 / 3.0).abs() < 0.03, "{:?}", got.prevalence);
    assert_eq!(got.prevalence[0], got.prevalence[1]);
    assert!(got.posterior.iter().skip(2).step_by(3).filter(|p| p[2] > 0.9).count() > 250);
    // As a vote only, a tie is evidence for neither.
    let forced = fit(&Scheme::pairs(), 900, 3, &votes, &[]);
    let tied = vec![vote(0, 0, 2, false), vote(0, 0, 2, true)];
    assert_eq!(forced.posterior_of(1, &tied)[0], [0.5, 0.5]);
}

#[test]
fn a_judge_that_only_looks_where_moves_nothing() {
    let (mut votes, _) = simulate(9, 400, &[(0.8, 0.8), (0.8, 0.8)]);
    for item in 0..400 {
        votes.extend([vote(item, 2, 1, false), vote(item, 2, 1, true)]);
    }
    let got = fit(&Scheme::pairs(), 400, 3, &votes, &[]);
    assert!(got.confusion[2][0][1] > 0.98 && got.confusion[2][1][1] > 0.98, "{:?}", got.confusion[2]);
    let both = [vote(0, 2, 1, false), vote(0, 2, 1, true)];
    assert_eq!(got.posterior_of(1, &both)[0], [0.5, 0.5]);
}

proptest! {
    /// Calling a b and b a in some pairs turns their orders round and must turn their posteriors round, to the last bit.
    #[test]
    fn swapping_responses_swaps_posteriors_exactly(
        list in prop::collection::vec((0..6_usize, 0..3_usize, 0..3_usize, any::<bool>(), 0.1..2.0_f64), 1..40),
        swapped in prop::collection::vec(any::<bool>(), 6),
        ties in any::<bool>(),
    ) {
        let scheme = if ties { Scheme::pairs_with_ties() } else { Scheme::pairs() };
        let votes = |swap: bool| -> Vec<Vote> {
            list.iter().map(|&(item, judge, class, mirrored, weight)| {
                Vote { item, judge, class, weight, mirrored: mirrored != (swap && swapped[item]) }
            }).collect()
        };
        // Votes that fall together are summed in their order, which a swap does not change.
        let (straight, turned) = (fit(&scheme, 6, 3, &votes(false), &[]), fit(&scheme, 6, 3, &votes(true), &[]));
        for (item, (p, q)) in straight.posterior.iter().zip(&turned.posterior).enumerate() {
            let want = if swapped[item] { (p[1], p[0]) } else { (p[0], p[1]) };
            prop_assert_eq!((q[0], q[1]), want);
        }
        prop_assert_eq!(straight.confusion, turned.confusion);
    }
}
