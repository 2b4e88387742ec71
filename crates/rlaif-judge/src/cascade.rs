//! Cascades: a cheap judge first, a strong one only where the cheap one is unsure.

use crate::aggregate::aggregate;
use crate::pairwise::JudgeVerdict;
use rlaif_core::config::{Aggregation, LabelConfig};
use rlaif_core::records::{Fate, Pair, Preference};

/// Whether the next judge is asked about a pair, given what the judges before it have said: where they left it without a vote
/// (they contradict themselves, say nothing, or failed), or |p − ½| of their mean is below `below`.
///
/// The mean is taken whatever `label.aggregation` is: a fitted panel is not known before all judges have spoken.
pub fn goes_on(pair: &Pair, so_far: &[JudgeVerdict<'_>], config: &LabelConfig, below: f64) -> bool {
    let preference = judged_so_far(pair, so_far, config);
    match (preference.fate, preference.p) {
        (Fate::Kept | Fate::Tie, Some(p)) => (p - 0.5).abs() < below,
        _ => true,
    }
}

/// How far the judges so far are from a decision: |p − ½| of their mean, 0 where they have no vote. What `least_sure` sorts by.
pub fn sureness(pair: &Pair, so_far: &[JudgeVerdict<'_>], config: &LabelConfig) -> f64 {
    let preference = judged_so_far(pair, so_far, config);
    match (preference.fate, preference.p) {
        (Fate::Kept | Fate::Tie, Some(p)) => (p - 0.5).abs(),
        _ => 0.0,
    }
}

fn judged_so_far(pair: &Pair, so_far: &[JudgeVerdict<'_>], config: &LabelConfig) -> Preference {
    let plain = LabelConfig {
        aggregation: Aggregation::Mean,
        keep_inconsistent: false,
        keep_ties: false,
        tie_margin: 0.0,
        vote_smoothing: config.vote_smoothing,
        judges: Vec::new(),
        ..LabelConfig::default()
    };
    aggregate(pair, so_far, &plain, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::records::{Choice, NoVerdict, Order, Verdict};

    fn pair() -> Pair {
        Pair { id: "q/0-1".into(), prompt_id: "q".into(), a: "q/0".into(), b: "q/1".into() }
    }

    fn soft(p_first: f64) -> Verdict {
        let choice = if p_first >= 0.5 { Choice::First } else { Choice::Second };
        Verdict { p_first: Some(p_first), ..Verdict::choice(choice) }
    }

    fn said(ab: &Verdict, ba: &Verdict, test: impl Fn(&[JudgeVerdict<'_>])) {
        let of = |order, verdict| JudgeVerdict {
            judge: "cheap",
            template: "t",
            weight: 1.0,
            order,
            has_order: true,
            verdict,
        };
        test(&[of(Order::Ab, ab), of(Order::Ba, ba)]);
    }

    #[test]
    fn the_next_judge_is_asked_where_the_first_is_unsure_or_has_no_vote() {
        let config = LabelConfig { keep_inconsistent: true, tie_margin: 0.4, ..LabelConfig::default() };
        let table = [
            (soft(0.9), soft(0.1), 0.4, false),
            (soft(0.65), soft(0.35), 0.15, true),
            (soft(0.75), soft(0.25), 0.25, false),
            // The same place twice, though the mean is far from ½; also where such pairs are kept for training.
            (soft(0.99), soft(0.55), 0.0, true),
            (Verdict::choice(Choice::Tie), Verdict::choice(Choice::Tie), 0.0, true),
            (Verdict::none(NoVerdict::Unparsable), soft(0.1), 0.0, true),
            (Verdict::none(NoVerdict::Failed("429".into())), soft(0.1), 0.0, true),
        ];
        for (ab, ba, sure, wanted) in table {
            said(&ab, &ba, |verdicts| {
                assert_eq!(goes_on(&pair(), verdicts, &config, 0.2), wanted, "{ab:?} {ba:?}");
                assert!((sureness(&pair(), verdicts, &config) - sure).abs() < 1e-12, "{ab:?} {ba:?}");
            });
        }
        assert!(goes_on(&pair(), &[], &config, 0.0), "nobody has said anything yet");
    }
}
