//! Panels of simulated judges.

use super::*;
use crate::aggregate::aggregate;
use rand::RngExt;
use rlaif_core::records::{Choice, Pair, Verdict};
use rlaif_core::seed;

/// One voter's verdict in one order: judge, template, order, has_order, verdict.
type Said = (&'static str, &'static str, Order, bool, Verdict);

fn views(said: &[Said]) -> Vec<JudgeVerdict<'_>> {
    said.iter()
        .map(|(judge, template, order, has_order, verdict)| JudgeVerdict {
            judge,
            template,
            weight: 1.0,
            order: *order,
            has_order: *has_order,
            verdict,
        })
        .collect()
}

/// Pairs of which a is better in half: a strong judge, a weak one, one with a strong liking for the second place, and a contrastive
/// one whose p are all between 0.45 and 0.55 and right more often the further from ½.
fn simulate(seed: u64, pairs: usize) -> (Vec<Vec<Said>>, Vec<bool>) {
    let mut random = seed::stream(seed, "test", 0);
    let mut all = Vec::new();
    let truths: Vec<bool> = (0..pairs).map(|_| random.random()).collect();
    for &a_better in &truths {
        let mut said: Vec<Said> = Vec::new();
        for (judge, template, right, second) in [
            ("strong", "t", 0.85, 0.0),
            ("weak", "t", 0.65, 0.0),
            ("weak", "u", 0.55, 0.0),
            ("placed", "t", 0.8, 0.56),
        ] {
            let a_wins = (random.random::<f64>() < right) == a_better;
            let by_place = random.random::<f64>() < second;
            for order in [Order::Ab, Order::Ba] {
                let choice = match by_place || a_wins != (order == Order::Ab) {
                    true => Choice::Second,
                    false => Choice::First,
                };
                said.push((judge, template, order, true, Verdict::choice(choice)));
            }
        }
        let far: f64 = random.random();
        let right = random.random::<f64>() < 0.5 + 0.45 * far;
        let p = if right == a_better { 0.5 + 0.05 * far } else { 0.5 - 0.05 * far };
        let choice = if p > 0.5 { Choice::First } else { Choice::Second };
        said.push((
            "timid",
            "contrastive",
            Order::Ab,
            false,
            Verdict { p_first: Some(p), ..Verdict::choice(choice) },
        ));
        all.push(said);
    }
    (all, truths)
}

fn pair() -> Pair {
    Pair { id: "q/0-1".into(), prompt_id: "q".into(), a: "q/0".into(), b: "q/1".into() }
}

/// (share of pairs with p on the right side, ½ for p = ½; mean log-likelihood of the truth; all p)
fn score(
    all: &[Vec<Said>],
    truths: &[bool],
    config: &LabelConfig,
    panel: Option<&FittedPanel>,
) -> (f64, f64) {
    let n = truths.len() as f64;
    let (mut right, mut log) = (0.0, 0.0);
    for (said, a_better) in all.iter().zip(truths) {
        let p = aggregate(&pair(), &views(said), config, panel).p.unwrap();
        let p = if *a_better { p } else { 1.0 - p };
        right += if p == 0.5 { 0.5 } else { f64::from(u8::from(p > 0.5)) };
        log += p.max(1e-9).ln();
    }
    (right / n, log / n)
}

#[test]
fn fitted_panels_weigh_judges_and_their_p_means_what_it_says() {
    let (all, truths) = simulate(1, 2000);
    let views: Vec<Vec<JudgeVerdict<'_>>> = all.iter().map(|said| views(said)).collect();
    let of = |aggregation| {
        let config = LabelConfig { aggregation, tie_margin: 0.0, ..LabelConfig::default() };
        let items: Vec<FitItem<'_>> =
            views.iter().map(|verdicts| FitItem { verdicts, a_better: None }).collect();
        let panel = FittedPanel::fit(&items, &config);
        let score = score(&all, &truths, &config, panel.as_ref());
        (score, panel)
    };
    let (mean, none) = of(Aggregation::Mean);
    assert!(none.is_none());
    let (majority, _) = of(Aggregation::Majority);
    let (dawid_skene, panel) = of(Aggregation::DawidSkene);
    let (bradley_terry, strengths) = of(Aggregation::BradleyTerry);
    println!(
        "mean {mean:?}\nmajority {majority:?}\nDawid-Skene {dawid_skene:?}\nBradley-Terry {bradley_terry:?}"
    );
    // The strong judge alone is right on 85 %.
    assert!(dawid_skene.0 > mean.0.max(majority.0) && dawid_skene.0 > 0.86, "{dawid_skene:?}");
    // It does not see that the timid judge knows when it knows.
    assert!(bradley_terry.0 > majority.0 && bradley_terry.0 > 0.84, "{bradley_terry:?}");
    for fitted in [dawid_skene, bradley_terry] {
        assert!(fitted.1 > mean.1 && fitted.1 > majority.1, "p means what it says: {fitted:?}");
    }
    // The place is of no matter where both orders were read: the biased judge's votes are the 44 % that it read, 80 % right.
    // The ridge of Bradley-Terry pulls every strength towards knowing nothing.
    for (panel, within) in [(panel.unwrap(), 0.06), (strengths.unwrap(), 0.07)] {
        for (judge, template, want) in [
            ("strong", "t", 0.85),
            ("weak", "t", 0.65),
            ("weak", "u", 0.55),
            ("placed", "t", 0.8),
            ("timid", "contrastive", 0.725),
        ] {
            let learnt = panel.voters();
            let got = learnt.iter().find(|v| v.judge == judge && v.template == template).unwrap();
            assert!(!got.single_order && (got.accuracy - want).abs() < within, "{got:?} {want}");
        }
    }
}

/// Each pair in one order, drawn at random: position bias must be fitted, since it cannot be averaged away.
#[test]
fn position_bias_is_fitted_where_pairs_were_seen_in_one_order() {
    let (all, truths) = simulate(5, 3000);
    let mut random = seed::stream(5, "order", 0);
    let all: Vec<Vec<Said>> = all
        .into_iter()
        .map(|said| {
            let order = if random.random() { Order::Ab } else { Order::Ba };
            said.into_iter().filter(|s| s.2 == order || !s.3).collect()
        })
        .collect();
    let views_of: Vec<Vec<JudgeVerdict<'_>>> = all.iter().map(|said| views(said)).collect();
    let gold = |n: usize| -> Vec<FitItem<'_>> {
        let known = views_of.iter().zip(&truths).take(n);
        known.map(|(verdicts, truth)| FitItem { verdicts, a_better: Some(*truth) }).collect()
    };
    let config = |aggregation| LabelConfig { aggregation, tie_margin: 0.0, ..LabelConfig::default() };
    let placed = |panel: &FittedPanel| panel.voters().into_iter().find(|v| v.judge == "placed").unwrap();

    let dawid_skene = FittedPanel::fit(&gold(1000), &config(Aggregation::DawidSkene)).unwrap();
    // 56 % by place, the second; else right on 80 %.
    let got = placed(&dawid_skene);
    assert!((got.right_first.unwrap() - 0.44 * 0.8).abs() < 0.05, "{got:?}");
    assert!((got.right_second.unwrap() - (0.56 + 0.44 * 0.8)).abs() < 0.05, "{got:?}");
    let bradley_terry = FittedPanel::fit(&gold(1000), &config(Aggregation::BradleyTerry)).unwrap();
    assert!(placed(&bradley_terry).position_bias.unwrap().high < -0.5);
    let strong = bradley_terry.voters().into_iter().find(|v| v.judge == "strong").unwrap();
    assert!(!strong.position_bias.unwrap().excludes(0.0), "{strong:?}");

    let of = |aggregation, panel: Option<&FittedPanel>| {
        score(&all[1000..], &truths[1000..], &config(aggregation), panel)
    };
    let mean = of(Aggregation::Mean, None);
    for fitted in
        [of(Aggregation::DawidSkene, Some(&dawid_skene)), of(Aggregation::BradleyTerry, Some(&bradley_terry))]
    {
        println!("one order: mean {mean:?}, fitted {fitted:?}");
        assert!(fitted.0 > mean.0 && fitted.1 > mean.1, "{fitted:?} {mean:?}");
    }
}

#[test]
fn a_timid_judge_is_worth_what_its_grades_are_worth() {
    let (all, truths) = simulate(2, 1500);
    let timid: Vec<Vec<Said>> =
        all.into_iter().map(|said| said.into_iter().filter(|s| s.0 == "timid").collect()).collect();
    let config =
        LabelConfig { aggregation: Aggregation::DawidSkene, tie_margin: 0.0, ..LabelConfig::default() };
    let views_of: Vec<Vec<JudgeVerdict<'_>>> = timid.iter().map(|said| views(said)).collect();
    let items: Vec<FitItem<'_>> = views_of
        .iter()
        .zip(&truths)
        .take(500)
        .map(|(verdicts, truth)| FitItem { verdicts, a_better: Some(*truth) })
        .collect();
    let panel = FittedPanel::fit(&items, &config).unwrap();
    let p = |far: f64| {
        let said: [Said; 1] = [(
            "timid",
            "contrastive",
            Order::Ab,
            false,
            Verdict { p_first: Some(0.5 + far), ..Verdict::choice(Choice::First) },
        )];
        aggregate(&pair(), &views(&said), &config, Some(&panel)).p.unwrap()
    };
    // Right on 50 + 45·far %: 61 % below the median and 84 % above it.
    assert!((p(0.01) - 0.6125).abs() < 0.06, "{}", p(0.01));
    assert!((p(0.04) - 0.8375).abs() < 0.06, "{}", p(0.04));
    // Its own p, 0.51 to 0.54, are far from that.
    let fitted = score(&timid[500..], &truths[500..], &config, Some(&panel));
    let plain = LabelConfig { aggregation: Aggregation::Mean, ..config.clone() };
    let own = score(&timid[500..], &truths[500..], &plain, None);
    assert!(fitted.1 > own.1 + 0.05, "{fitted:?} {own:?}");
}

#[test]
fn strangers_and_silence_say_nothing() {
    let config = LabelConfig { aggregation: Aggregation::BradleyTerry, ..LabelConfig::default() };
    assert!(FittedPanel::fit(&[], &config).is_none());
    let (all, _) = simulate(3, 50);
    let views_of: Vec<Vec<JudgeVerdict<'_>>> = all.iter().map(|said| views(said)).collect();
    let items: Vec<FitItem<'_>> =
        views_of.iter().map(|verdicts| FitItem { verdicts, a_better: None }).collect();
    for aggregation in [Aggregation::BradleyTerry, Aggregation::DawidSkene] {
        let config = LabelConfig { aggregation, ..LabelConfig::default() };
        let panel = FittedPanel::fit(&items, &config).unwrap();
        let stranger: [Said; 1] = [("new", "t", Order::Ab, true, Verdict::choice(Choice::First))];
        let verdicts = views(&stranger);
        let of_stranger = voters(&verdicts, 0.5);
        assert_eq!(panel.margin(&of_stranger.iter().collect::<Vec<_>>()), 0.0);
        assert_eq!(panel.margin(&[]), 0.0);
    }
}
