//! Area under the ROC curve.

/// P(a random positive scores above a random negative) + ½·P(they score the same), Hanley & McNeil 1982, by ranks
/// (Mann & Whitney 1947):
///
/// AUC = (R₊ − n₊(n₊ + 1)/2) / (n₊·n₋), R₊ the rank sum of positives, ties at their mean rank.
///
/// ½ is chance. `None` where one side is empty or a score is NaN.
pub fn auc(positives: &[f64], negatives: &[f64]) -> Option<f64> {
    if positives.is_empty() || negatives.is_empty() {
        return None;
    }
    let mut scores: Vec<(f64, bool)> =
        positives.iter().map(|s| (*s, true)).chain(negatives.iter().map(|s| (*s, false))).collect();
    if scores.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut rank_sum = 0.0;
    let mut before = 0;
    // `==`, so that 0.0 and −0.0 are a tie though `total_cmp` orders them.
    for tied in scores.chunk_by(|a, b| a.0 == b.0) {
        // Ranks before+1 ..= before+len have this mean.
        let mean_rank = before as f64 + (tied.len() as f64 + 1.0) / 2.0;
        rank_sum += mean_rank * tied.iter().filter(|(_, positive)| *positive).count() as f64;
        before += tied.len();
    }
    let (n_pos, n_neg) = (positives.len() as f64, negatives.len() as f64);
    Some((rank_sum - n_pos * (n_pos + 1.0) / 2.0) / (n_pos * n_neg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden::*;

    #[test]
    fn matches_scikit_learn_with_ties() {
        let side = |wanted: f64| {
            PREDICTIONS
                .iter()
                .zip(&LABELS)
                .filter(|(_, y)| **y == wanted)
                .map(|(p, _)| *p)
                .collect::<Vec<_>>()
        };
        let got = auc(&side(1.0), &side(0.0)).unwrap();
        assert!((got - AUC).abs() < 1e-12, "{got}");
    }

    #[test]
    fn ends_and_nothing() {
        assert_eq!(auc(&[2.0, 3.0], &[0.0, 1.0]), Some(1.0));
        assert_eq!(auc(&[0.0, 1.0], &[2.0, 3.0]), Some(0.0));
        assert_eq!(auc(&[1.0, 1.0], &[1.0]), Some(0.5));
        assert_eq!(auc(&[0.0], &[-0.0]), Some(0.5));
        assert_eq!(auc(&[], &[1.0]), None);
        assert_eq!(auc(&[f64::NAN], &[1.0]), None);
    }
}
