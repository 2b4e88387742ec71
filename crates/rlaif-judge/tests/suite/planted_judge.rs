//! A judge with a planted bias: where it reads it is right on 80 % of pairs, and on 56 % of pairs it chooses the same place in both
//! orders (Lee et al. 2023, table 4: the extra-small labeler), nearly always the second. (No judge can be right on 80 % of
//! single verdicts with such a bias: 0.44 + 0.56/2 = 72 % is the most.)
//!
//! `cargo test -p rlaif-judge --test planted_judge -- --nocapture` prints the numbers.

use rand::RngExt;
use rlaif_core::config::{Aggregation, LabelConfig};
use rlaif_core::records::{Choice, Fate, Order, Pair, Preference, Verdict};
use rlaif_core::seed;
use rlaif_core::stats::interval::wilson;
use rlaif_judge::{FitItem, FittedPanel, JudgeVerdict, VoterReport, aggregate, voter_reports, voters};

const ACCURACY: f64 = 0.8;
const SAME_POSITION: f64 = 0.56;

/// What one judge says of one pair, a first and b first.
type Both = [Verdict; 2];

struct Case {
    a_better: bool,
    /// What the judge would say without its bias: whether it takes a for better.
    reads_a: bool,
    hard: Both,
    soft: Both,
}

/// The planted judge on some pairs, with hard verdicts and with log-probabilities. `reads_a` is the unbiased judge of equal
/// strength, with the same luck.
fn planted(seed: u64, pairs: usize) -> Vec<Case> {
    let mut random = seed::stream(seed, "planted", 0);
    (0..pairs)
        .map(|_| {
            let a_better: bool = random.random();
            let reads_a = (random.random::<f64>() < ACCURACY) == a_better;
            // How clear the case is to it, in log-odds, uniform in [0, 2): a pull of 1.12 towards one place wins on 56 %.
            let clear = 2.0 * random.random::<f64>();
            let place = if random.random::<f64>() < 0.99 { Choice::Second } else { Choice::First };
            let pull = if place == Choice::Second { -2.0 * SAME_POSITION } else { 2.0 * SAME_POSITION };
            let by_place = clear < 2.0 * SAME_POSITION;
            let verdict = |order: Order, soft: bool| {
                let reads_first = reads_a == (order == Order::Ab);
                let log_odds = pull + if reads_first { clear } else { -clear };
                let choice = match (by_place, reads_first) {
                    (true, _) => place,
                    (false, true) => Choice::First,
                    (false, false) => Choice::Second,
                };
                let p_first = soft.then(|| 1.0 / (1.0 + (-log_odds).exp()));
                Verdict { p_first, ..Verdict::choice(choice) }
            };
            let both = |soft| [Order::Ab, Order::Ba].map(|order| verdict(order, soft));
            Case { a_better, reads_a, hard: both(false), soft: both(true) }
        })
        .collect()
}

fn pair() -> Pair {
    Pair { id: "q/0-1".into(), prompt_id: "q".into(), a: "q/0".into(), b: "q/1".into() }
}

fn shown<'a>(judge: &'a str, both: &'a Both) -> [JudgeVerdict<'a>; 2] {
    [(Order::Ab, &both[0]), (Order::Ba, &both[1])].map(|(order, verdict)| JudgeVerdict {
        judge,
        template: "t",
        weight: 1.0,
        order,
        has_order: true,
        verdict,
    })
}

fn label(both: &Both, config: &LabelConfig) -> Preference {
    aggregate(&pair(), &shown("planted", both), config, None)
}

fn report(cases: &[Case], of: impl Fn(&Case) -> &Both) -> VoterReport {
    let verdicts: Vec<_> = cases.iter().map(|case| shown("planted", of(case))).collect();
    let voters: Vec<_> = verdicts.iter().map(|verdicts| voters(verdicts, 0.5)).collect();
    voter_reports(&voters).remove(0)
}

/// The share of cases that are so.
fn share(cases: &[&Case], right: impl Fn(&Case) -> bool) -> (u64, u64) {
    (cases.iter().filter(|case| right(case)).count() as u64, cases.len() as u64)
}

#[test]
fn averaged_labels_are_as_right_as_those_of_an_unbiased_judge() {
    let cases = planted(1, 10_000);
    let all: Vec<&Case> = cases.iter().collect();
    let single = share(&all, |case| (case.hard[0].choice == Ok(Choice::First)) == case.a_better);
    let unbiased = share(&all, |case| case.reads_a == case.a_better);
    let config = LabelConfig { tie_margin: 0.0, ..LabelConfig::default() };

    // Hard verdicts: flips are discarded.
    let kept: Vec<&Case> =
        cases.iter().filter(|case| label(&case.hard, &config).fate == Fate::Kept).collect();
    let right = |case: &Case, both: &Both, config: &LabelConfig| {
        (label(both, config).p.unwrap() > 0.5) == case.a_better
    };
    let hard = share(&kept, |case| right(case, &case.hard, &config));
    let unbiased_there = share(&kept, |case| case.reads_a == case.a_better);

    // Soft verdicts: the average of both orders says which response it would choose, also where the places flip.
    let keep = LabelConfig { keep_inconsistent: true, ..config.clone() };
    let soft = share(&all, |case| right(case, &case.soft, &keep));
    let soft_flips =
        cases.iter().filter(|case| label(&case.soft, &config).fate == Fate::Inconsistent).count();

    for (what, (hits, n)) in [
        ("one order", single),
        ("unbiased judge of equal strength", unbiased),
        ("both orders, hard, flips discarded", hard),
        ("  unbiased judge on the same pairs", unbiased_there),
        ("both orders, soft, flips kept", soft),
    ] {
        println!("{what}: {:.3} of {n}", wilson(hits, n).unwrap());
    }
    let rate = |(hits, n): (u64, u64)| hits as f64 / n as f64;
    assert!(rate(single) < 0.66, "what the bias costs");
    assert!(rate(hard) >= rate(unbiased_there));
    assert!(!wilson(hard.0, hard.1).unwrap().excludes(ACCURACY));
    assert!(rate(soft) >= rate(unbiased), "{soft:?} {unbiased:?}");
    assert_eq!(soft_flips, cases.len() - kept.len(), "the same pairs flip, soft or hard");
}

/// 500 runs of 300 pairs: the report's interval holds the planted 56 % in at least 94 %, and it says to which side the bias is.
#[test]
fn the_position_report_recovers_the_planted_bias() {
    let mut held = 0;
    for run in 0..500 {
        let cases = planted(1000 + run, 300);
        let of = |case: &Case| if run % 2 == 0 { case.hard.clone() } else { case.soft.clone() };
        let said: Vec<Both> = cases.iter().map(of).collect();
        let verdicts: Vec<_> = said.iter().map(|both| shown("planted", both)).collect();
        let of_pairs: Vec<_> = verdicts.iter().map(|verdicts| voters(verdicts, 0.5)).collect();
        let same = |place| of_pairs.iter().filter(|v| v[0].choices() == Some((place, place))).count() as u64;
        let (first, second) = (same(Choice::First), same(Choice::Second));
        let interval = wilson(first + second, 300).unwrap();
        held += u32::from(!interval.excludes(SAME_POSITION));
        // The rest of the report takes a bootstrap: every fiftieth run shows that it is made of these numbers.
        if run % 50 == 0 {
            let got = voter_reports(&of_pairs).remove(0);
            let position = got.position.unwrap();
            assert_eq!((got.pairs, position.pairs, got.flips + got.votes), (300, 300, 300));
            assert_eq!((position.both_first, position.both_second), (first, second));
            assert_eq!(position.same_position, interval);
            assert!(got.direction_p_value.unwrap() < 1e-6 && second > first);
        }
    }
    println!("the interval holds 56 % in {held} of 500 runs");
    assert!(held >= 470, "{held} of 500");
    let one = report(&planted(1, 2000), |case| &case.hard).position.unwrap();
    println!(
        "of 2000 pairs: same position {:.3}, first picked {:.3}",
        one.same_position,
        one.first_picked.unwrap()
    );
    assert!(!one.same_position.excludes(SAME_POSITION));
}

/// Beside two honest judges that are right on 75 % and 65 %, the biased one still helps, and the models see its bias.
#[test]
fn fitted_panels_use_what_the_biased_judge_knows() {
    let cases = planted(2, 3000);
    let mut random = seed::stream(2, "honest", 0);
    let honest: Vec<[Both; 2]> = cases
        .iter()
        .map(|case| {
            [0.75, 0.65].map(|accuracy| {
                let a = (random.random::<f64>() < accuracy) == case.a_better;
                let (ab, ba) =
                    if a { (Choice::First, Choice::Second) } else { (Choice::Second, Choice::First) };
                [Verdict::choice(ab), Verdict::choice(ba)]
            })
        })
        .collect();
    let verdicts: Vec<Vec<JudgeVerdict<'_>>> = cases
        .iter()
        .zip(&honest)
        .map(|(case, [good, fair])| {
            [shown("planted", &case.hard), shown("good", good), shown("fair", fair)].concat()
        })
        .collect();
    let accuracy = |aggregation, gold: usize| {
        let config = LabelConfig { aggregation, tie_margin: 0.0, ..LabelConfig::default() };
        let items: Vec<FitItem<'_>> = match gold {
            0 => verdicts.iter().map(|verdicts| FitItem { verdicts, a_better: None }).collect(),
            n => {
                let known = verdicts.iter().zip(&cases).take(n);
                known.map(|(verdicts, case)| FitItem { verdicts, a_better: Some(case.a_better) }).collect()
            }
        };
        let panel = FittedPanel::fit(&items, &config);
        let right = verdicts.iter().zip(&cases).skip(500).map(|(verdicts, case)| {
            let p = aggregate(&pair(), verdicts, &config, panel.as_ref()).p.unwrap();
            let p = if case.a_better { p } else { 1.0 - p };
            if p == 0.5 { 0.5 } else { f64::from(u8::from(p > 0.5)) }
        });
        let right = right.sum::<f64>() / 2500.0;
        println!("{aggregation:?}, {gold} labelled pairs: right on {right:.3}");
        for voter in panel.iter().flat_map(FittedPanel::voters) {
            println!("  {}: accuracy {:.3} {:.3?}", voter.judge, voter.accuracy, voter.accuracy_interval);
        }
        right
    };
    let mean = accuracy(Aggregation::Mean, 0);
    let majority = accuracy(Aggregation::Majority, 0);
    let fitted = [
        accuracy(Aggregation::DawidSkene, 500),
        accuracy(Aggregation::BradleyTerry, 500),
        accuracy(Aggregation::DawidSkene, 0),
        accuracy(Aggregation::BradleyTerry, 0),
    ];
    // The best judge alone: 75 %. Ties of the mean count half.
    assert!(
        fitted[..2].iter().all(|right| *right > 0.76 && *right >= mean.max(majority) - 0.01),
        "{fitted:?}"
    );
}
