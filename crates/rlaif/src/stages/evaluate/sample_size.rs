//! What so many prompts can show, before any is answered.

use super::conclusion::{POWER, points_of};
use crate::context::Context;
use crate::report::comparison::SampleSize;
use anyhow::Result;
use rlaif_core::records::{Fate, Preference};
use rlaif_core::stats::sample_size::{Spread, prompts_needed, smallest_difference};
use rlaif_store::store::TRAIN_PAIRS;

/// Share of comparisons that come to ½ where nothing is known of the judges; our choice. Judges that contradict themselves on a third of
/// close pairs are common (Zheng et al. 2023, table 2: GPT-4 35 %).
const ASSUMED: f64 = 1.0 / 3.0;

/// Training pairs with a verdict from which the share is read.
const ENOUGH_PAIRS: usize = 20;

/// Advice for the held-out prompts of a run. Samples of one prompt are taken to be alike, so that more of them show nothing more: if they
/// differ, a little less is needed.
///
/// # Errors
/// If the store cannot be read.
pub fn of(context: &Context) -> Result<SampleSize> {
    let measured = ties(&context.wait(context.store.preferences(TRAIN_PAIRS))?);
    Ok(advice(context.prompts.eval.len() as u64, context.config.evaluate.margin, measured))
}

/// Share of ties and of verdicts that changed with the order, among pairs with a verdict.
fn ties(preferences: &[Preference]) -> Option<f64> {
    let count = |fates: &[Fate]| preferences.iter().filter(|it| fates.contains(&it.fate)).count();
    let (even, all) =
        (count(&[Fate::Tie, Fate::Inconsistent]), count(&[Fate::Kept, Fate::Tie, Fate::Inconsistent]));
    (all >= ENOUGH_PAIRS).then(|| even as f64 / all as f64)
}

fn advice(prompts: u64, margin: f64, measured: Option<f64>) -> SampleSize {
    let ties = measured.unwrap_or(ASSUMED);
    let spread = Spread::one_order(ties);
    let visible = smallest_difference(prompts, spread, POWER);
    let needed = prompts_needed(0.5 + margin, spread, POWER);
    let seen = match visible {
        Some(visible) => format!("a difference of {} from 50 % can be seen", points_of(visible)),
        None => "no difference from 50 % can be seen".into(),
    };
    let take = match needed {
        Some(needed) => format!("to see {} you need n = {needed}", points_of(margin)),
        None => format!("{} cannot be seen, so many are ties", points_of(margin)),
    };
    let how = match measured {
        Some(_) => "come to a tie, as the training pairs do",
        None => "come to a tie, which is an assumption",
    };
    SampleSize {
        prompts,
        visible,
        margin,
        needed,
        ties,
        ties_from: if measured.is_some() { "the training pairs" } else { "assumption" }.into(),
        sentence: format!(
            "with {prompts} prompts {seen} (80 % power); {take}, if {:.0} % of comparisons {how}",
            100.0 * ties
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_says_what_can_be_seen_and_what_is_needed() {
        let none = advice(783, 0.05, Some(0.0));
        assert_eq!(none.needed, Some(783), "the size that statsmodels gives");
        assert!((none.visible.unwrap() - 0.05).abs() < 1e-3);
        assert!(
            none.sentence.contains("with 783 prompts a difference of 5 points from 50 %"),
            "{}",
            none.sentence
        );
        let assumed = advice(4, 0.05, None);
        assert_eq!((assumed.visible, assumed.ties_from.as_str()), (None, "assumption"));
        assert!(assumed.sentence.contains("no difference from 50 % can be seen"), "{}", assumed.sentence);
        assert!(assumed.needed < none.needed, "ties vary less");
    }

    #[test]
    fn the_share_of_ties_is_of_pairs_with_a_verdict() {
        let pair = |fate| Preference {
            pair_id: String::new(),
            prompt_id: String::new(),
            p: None,
            spread: None,
            fate,
            judges: vec![],
            explanation: None,
        };
        let of = |fates: &[(Fate, usize)]| {
            let all: Vec<Preference> =
                fates.iter().flat_map(|(fate, n)| std::iter::repeat_with(|| pair(*fate)).take(*n)).collect();
            ties(&all)
        };
        let fates = [(Fate::Kept, 15), (Fate::Tie, 2), (Fate::Inconsistent, 3), (Fate::NoVerdict, 30)];
        assert_eq!(of(&fates), Some(0.25));
        assert_eq!(of(&fates[..2]), None, "17 pairs are too few");
    }
}
