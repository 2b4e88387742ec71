//! A win rate in words that claim no more than it shows: a difference, that there is none that matters, or neither.

use super::compared::Compared;
use crate::report::comparison::{Conclusion, Finding};
use rlaif_core::stats::equivalence;
use rlaif_core::stats::sample_size::{Spread, prompts_needed, smallest_difference};
use rlaif_core::stats::winrate::WinRate;
use std::collections::BTreeMap;

/// The power that sample sizes are told for.
pub const POWER: f64 = 0.8;

/// What the win rate of a comparison shows.
pub fn of(compared: &Compared, rate: Option<WinRate>, margin: f64) -> Conclusion {
    let Compared { policy, other, .. } = compared;
    let Some(rate) = rate else {
        let sentence =
            format!("Nothing can be said of {policy} and {other}: below two prompts have a verdict.");
        return Conclusion { finding: Finding::Nothing, margin, sentence };
    };
    let points = prompt_points(compared);
    let n = points.len();
    let (low, high) = (100.0 * rate.rate.low, 100.0 * rate.rate.high);
    let within = same(&points, margin);
    let wins = format!(
        "it wins {:.0} % of comparisons (95 % {low:.0} to {high:.0}) on {n} prompts",
        100.0 * rate.rate.estimate
    );
    let small = if within { format!(", though by less than {}", points_of(margin)) } else { String::new() };
    let (finding, sentence) = if rate.rate.low > 0.5 {
        (Finding::Better, format!("{policy} is better than {other}: {wins}{small}."))
    } else if rate.rate.high < 0.5 {
        (Finding::Worse, format!("{policy} is worse than {other}: {wins}{small}."))
    } else if within {
        let sentence = format!(
            "No difference of more than {} between {policy} and {other}: two one-sided tests exclude it on {n} prompts.",
            points_of(margin)
        );
        (Finding::Same, sentence)
    } else {
        (Finding::Open, open(compared, &points, &rate, margin))
    };
    Conclusion { finding, margin, sentence }
}

fn open(compared: &Compared, points: &[f64], rate: &WinRate, margin: f64) -> String {
    let Compared { policy, other, .. } = compared;
    let side = |end: f64| match 100.0 * (end - 0.5) {
        d if d < 0.0 => format!("{:.0} points worse", -d),
        d => format!("{d:.0} points better"),
    };
    let n = points.len() as u64;
    let spread = spread(points);
    let visible = match smallest_difference(n, spread, POWER) {
        Some(visible) => format!("{n} prompts show a difference of {} in 4 of 5 cases", points_of(visible)),
        None => format!("{n} prompts show no difference of any size in 4 of 5 cases"),
    };
    let needed = match prompts_needed(0.5 + margin, spread, POWER) {
        Some(needed) => format!("; one of {} takes {needed}", points_of(margin)),
        None => String::new(),
    };
    format!(
        "Not enough prompts to tell: {policy} is between {} and {} than {other} (95 %). {visible}{needed}.",
        side(rate.rate.low),
        side(rate.rate.high)
    )
}

/// `5 points`, `1 point`, `2.5 points`.
pub fn points_of(share: f64) -> String {
    let points = (1000.0 * share).round() / 10.0;
    format!("{points} point{}", if points == 1.0 { "" } else { "s" })
}

/// The mean points of each prompt: 1 for a win, ½ for a tie.
pub fn prompt_points(compared: &Compared) -> Vec<f64> {
    let mut by_prompt: BTreeMap<&str, (f64, u32)> = BTreeMap::new();
    for met in &compared.met {
        if let Some(outcome) = met.outcome {
            let sum = by_prompt.entry(&met.prompt).or_default();
            *sum = (sum.0 + outcome.points(), sum.1 + 1);
        }
    }
    by_prompt.into_values().map(|(sum, n)| sum / f64::from(n)).collect()
}

/// Whether the win rate is shown to be within `margin` of ½: two one-sided t-tests over prompts. Their spread says nothing where all
/// prompts seen so far are alike, so there must also be so many that prompts decided one way would have been met, were they a share of
/// 2·margin: (1 − 2·margin)ⁿ < 0.05.
fn same(points: &[f64], margin: f64) -> bool {
    let enough = (1.0 - 2.0 * margin).powi(points.len() as i32) < 0.05;
    let half = vec![0.5; points.len()];
    enough && equivalence::paired(&half, points, -margin, margin).is_some_and(|it| it.shown())
}

/// The ties that would give prompts the spread around ½ that theirs have.
fn spread(points: &[f64]) -> Spread {
    let variance = points.iter().map(|points| (points - 0.5).powi(2)).sum::<f64>() / points.len() as f64;
    Spread::one_order((1.0 - 4.0 * variance).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::evaluate::compared::Met;
    use rlaif_core::stats::winrate::Outcome::{self, Loss, Tie, Win};
    use rlaif_core::stats::winrate::win_rate;

    fn concluded(outcomes: &[Outcome], margin: f64) -> Conclusion {
        let met = |(i, outcome): (usize, &Outcome)| Met {
            prompt: format!("q{i:04}"),
            chars: 1,
            other_chars: 1,
            outcome: Some(*outcome),
            same_text: false,
            by_judge: vec![],
            scores: BTreeMap::new(),
            people: None,
        };
        let compared = Compared {
            policy: "ppo".into(),
            other: "baseline".into(),
            preferences: BTreeMap::new(),
            met: outcomes.iter().enumerate().map(met).collect(),
        };
        let by_prompt = compared.met.iter().map(|met| (met.prompt.as_str(), met.outcome.unwrap()));
        of(&compared, win_rate(by_prompt, 500, 0), margin)
    }

    fn repeated(one: Outcome, n: usize, other: Outcome, m: usize) -> Vec<Outcome> {
        [vec![one; n], vec![other; m]].concat()
    }

    #[test]
    fn a_difference_is_told_only_where_its_interval_shows_it() {
        let better = concluded(&repeated(Win, 40, Loss, 10), 0.05);
        assert_eq!(better.finding, Finding::Better);
        assert!(better.sentence.contains("ppo is better than baseline: it wins 80 %"), "{}", better.sentence);
        assert_eq!(concluded(&repeated(Loss, 40, Win, 10), 0.05).finding, Finding::Worse);
    }

    #[test]
    fn nothing_found_in_few_prompts_is_not_said_to_be_nothing() {
        let open = concluded(&repeated(Win, 10, Loss, 10), 0.05);
        assert_eq!(open.finding, Finding::Open);
        assert!(
            open.sentence.starts_with("Not enough prompts to tell: ppo is between "),
            "{}",
            open.sentence
        );
        // All prompts decided: 783 of them show 5 points.
        assert!(open.sentence.contains("one of 5 points takes 783"), "{}", open.sentence);
        let same = concluded(&repeated(Win, 1000, Loss, 1000), 0.05);
        assert_eq!(same.finding, Finding::Same, "{}", same.sentence);
        assert!(
            same.sentence.starts_with("No difference of more than 5 points between"),
            "{}",
            same.sentence
        );
    }

    /// Four ties have no spread, and yet say little of the fifth prompt.
    #[test]
    fn a_few_ties_are_no_proof_of_sameness() {
        assert_eq!(concluded(&repeated(Tie, 2, Tie, 2), 0.05).finding, Finding::Open);
        assert_eq!(concluded(&repeated(Tie, 14, Tie, 14), 0.05).finding, Finding::Open);
        assert_eq!(concluded(&repeated(Tie, 15, Tie, 14), 0.05).finding, Finding::Same);
        assert_eq!(concluded(&[], 0.05).finding, Finding::Nothing);
    }

    #[test]
    fn a_difference_that_does_not_matter_says_so() {
        let outcomes = [repeated(Win, 60, Tie, 1900), vec![Loss; 20]].concat();
        let small = concluded(&outcomes, 0.05);
        assert_eq!(small.finding, Finding::Better);
        assert!(small.sentence.ends_with("though by less than 5 points."), "{}", small.sentence);
    }

    #[test]
    fn points_have_no_needless_digits() {
        assert_eq!(
            [points_of(0.05), points_of(0.01), points_of(0.025)],
            ["5 points", "1 point", "2.5 points"]
        );
    }
}
