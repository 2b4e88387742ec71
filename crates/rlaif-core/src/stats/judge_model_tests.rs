//! Golden values from another implementation, simulated judges, and what must hold to the last bit.

use super::*;
use crate::seed;
use crate::stats::golden_panel::{BALLOTS, BALLOTS_LIKELIHOOD, BIAS, STRENGTH};
use proptest::prelude::*;
use rand::RngExt;

#[test]
fn matches_scipy_on_other_nodes() {
    let mut ballots = Vec::new();
    for (item, row) in BALLOTS.split('|').enumerate() {
        for said in row.split(' ').map(str::as_bytes) {
            let (judge, first) = (usize::from(said[0] - b'0'), if said[1] == b'f' { 1.0 } else { 0.0 });
            ballots.push(Ballot { item, judge, first, weight: 1.0, mirrored: said[2] == b'b' });
        }
    }
    let got = fit(60, 3, &ballots, &[], Ridge::default());
    assert!(got.converged);
    for (judge, (s, b)) in got.judges.iter().zip(STRENGTH.iter().zip(BIAS)) {
        assert!((judge.strength.estimate - s).abs() < 1e-4, "{judge:?} {s}");
        assert!((judge.bias.estimate - b).abs() < 1e-4, "{judge:?} {b}");
    }
    assert!((got.log_likelihood - BALLOTS_LIKELIHOOD).abs() < 1e-4, "{}", got.log_likelihood);
}

/// A standard normal number: the sum of twelve uniform ones less 6 is near enough for a test of a few hundred.
fn normal(random: &mut impl RngExt) -> f64 {
    (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
}

/// Pairs shown in both orders to judges of these strengths and position biases.
fn simulate(seed: u64, pairs: usize, judges: &[(f64, f64)]) -> (Vec<Ballot>, Vec<f64>) {
    let mut random = seed::stream(seed, "test", 0);
    let mut ballots = Vec::new();
    let thetas: Vec<f64> = (0..pairs).map(|_| normal(&mut random)).collect();
    for (item, theta) in thetas.iter().enumerate() {
        for (judge, (s, b)) in judges.iter().enumerate() {
            for (mirrored, order) in [(false, 1.0), (true, -1.0)] {
                let first = random.random::<f64>() < sigmoid(order * s * theta + b);
                let first = if first { 1.0 } else { 0.0 };
                ballots.push(Ballot { item, judge, first, weight: 1.0, mirrored });
            }
        }
    }
    (ballots, thetas)
}

/// 60 experiments of 150 pairs and three judges: the 95 % intervals hold strengths and biases in 91 to 99 %.
#[test]
fn intervals_cover_strength_and_bias() {
    let judges = [(2.0, 0.8), (1.0, -1.5), (0.6, 0.0)];
    let (mut strength, mut bias) = (0, 0);
    for experiment in 0..60 {
        let (ballots, _) = simulate(experiment, 150, &judges);
        let got = fit(150, 3, &ballots, &[], Ridge::default());
        for (judge, (s, b)) in got.judges.iter().zip(judges) {
            strength += u32::from(!judge.strength.excludes(s));
            bias += u32::from(!judge.bias.excludes(b));
        }
    }
    let share = |held: u32| f64::from(held) / 180.0;
    println!("intervals hold strengths in {:.3} and biases in {:.3} of 180", share(strength), share(bias));
    assert!((0.91..=0.99).contains(&share(strength)), "strength {}", share(strength));
    assert!((0.91..=0.99).contains(&share(bias)), "bias {}", share(bias));
}

#[test]
fn a_panel_is_right_more_often_than_its_best_judge() {
    let judges = [(2.0, 0.8), (1.5, -1.5), (1.0, 0.0), (0.0, 2.0)];
    let (ballots, thetas) = simulate(77, 2000, &judges);
    let got = fit(2000, 4, &ballots, &[], Ridge::default());
    let right = |margins: &[f64]| {
        margins.iter().zip(&thetas).filter(|(m, theta)| (**m > 0.0) == (**theta > 0.0)).count() as f64
            / 2000.0
    };
    let alone: Vec<Ballot> = ballots.iter().filter(|b| b.judge == 0).copied().collect();
    let (panel, best) = (right(&got.margins), right(&got.margins_of(2000, &alone)));
    assert!(panel > best, "{panel} {best}");
    // What a judge of strength 2 is worth: Monte Carlo over the simulation.
    let of_judge = ballots
        .iter()
        .filter(|b| b.judge == 0 && (b.first == 1.0) == ((thetas[b.item] > 0.0) != b.mirrored))
        .count() as f64
        / 4000.0;
    assert!((got.judges[0].accuracy() - of_judge).abs() < 0.02, "{} {of_judge}", got.judges[0].accuracy());
    assert!((got.judges[3].accuracy() - 0.5).abs() < 0.03);
    // Margins are calibrated: the mean of P(right) is the share that is right.
    let expected = got.margins.iter().map(|m| 0.5 + m.abs()).sum::<f64>() / 2000.0;
    assert!((expected - panel).abs() < 0.02, "{expected} {panel}");
}

#[test]
fn gold_weighs_judges_that_share_a_mistake() {
    // Judges 0 and 1 follow something that is not quality and agree; judge 2 follows quality.
    let mut random = seed::stream(11, "test", 0);
    let (mut ballots, mut gold) = (Vec::new(), Vec::new());
    for item in 0..500 {
        let (quality, other) = (normal(&mut random), normal(&mut random));
        gold.push(Some(quality > 0.0));
        for (judge, seen) in [other, other, quality].into_iter().enumerate() {
            for (mirrored, order) in [(false, 1.0), (true, -1.0)] {
                let first = random.random::<f64>() < sigmoid(order * 3.0 * seen);
                let first = if first { 1.0 } else { 0.0 };
                ballots.push(Ballot { item, judge, first, weight: 1.0, mirrored });
            }
        }
    }
    let blind = fit(500, 3, &ballots, &[], Ridge::default());
    assert!(blind.judges[0].strength.estimate > blind.judges[2].strength.estimate, "{:?}", blind.judges);
    let got = fit(500, 3, &ballots, &gold, Ridge::default());
    assert!(
        !got.judges[0].strength.excludes(0.0) && !got.judges[1].strength.excludes(0.0),
        "{:?}",
        got.judges
    );
    assert!(got.judges[2].strength.low > 2.0, "{:?}", got.judges);
}

#[test]
fn nothing_said_is_nothing_known() {
    let (mut ballots, _) = simulate(3, 50, &[(2.0, 0.0)]);
    ballots.retain(|ballot| ballot.item != 4);
    let got = fit(50, 2, &ballots, &[], Ridge::default());
    assert_eq!(got.margins[4], 0.0);
    assert!(!got.judges[1].voted && got.judges[0].voted);
    // The prior and nothing else.
    assert!((got.judges[1].strength.estimate - 1.0).abs() < 1e-9);
    assert!((got.judges[1].strength.high - 1.0 - 2.0 * Z).abs() < 1e-6, "{:?}", got.judges[1]);
    assert!(fit(0, 0, &[], &[], Ridge::default()).converged);
}

#[test]
fn the_same_place_twice_says_nothing() {
    let (ballots, _) = simulate(5, 300, &[(1.5, 1.0), (1.0, 0.0)]);
    let got = fit(300, 2, &ballots, &[], Ridge::default());
    let both = [false, true].map(|mirrored| Ballot { item: 0, judge: 0, first: 1.0, weight: 1.0, mirrored });
    assert_eq!(got.margins_of(1, &both), [0.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn swapping_responses_negates_margins_exactly(
        list in prop::collection::vec((0..5_usize, 0..3_usize, 0..=2_u8, any::<bool>(), 0.1..2.0_f64), 1..30),
        swapped in prop::collection::vec(any::<bool>(), 5),
    ) {
        let ballots = |swap: bool| -> Vec<Ballot> {
            list.iter().map(|&(item, judge, first, mirrored, weight)| Ballot {
                item, judge, first: f64::from(first) / 2.0, weight, mirrored: mirrored != (swap && swapped[item]),
            }).collect()
        };
        let fit = |swap| fit(5, 3, &ballots(swap), &[], Ridge::default());
        let (straight, turned) = (fit(false), fit(true));
        for (item, (m, n)) in straight.margins.iter().zip(&turned.margins).enumerate() {
            prop_assert_eq!(*n, if swapped[item] { -m } else { *m });
        }
    }
}
