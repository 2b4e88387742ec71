//! Krippendorff's alpha: agreement of any number of raters, with missing ratings, on a scale.

use super::raters::Tally;

/// How far two categories are apart. Verdicts on a pair are ordered (b, tie, a), with the tie between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Same or not.
    Nominal,
    /// By how many ratings lie between.
    Ordinal,
    /// By the squared distance of the categories' places, as if they were equally far from each other.
    Interval,
}

/// Krippendorff's alpha, Krippendorff 2011, "Computing Krippendorff's alpha-reliability", on tallies as [`super::raters`] makes them:
///
/// α = 1 − (n − 1)·Σ_ck o_ck δ²_ck / Σ_ck n_c n_k δ²_ck
///
/// o_ck = Σ_i n_ic(n_ik − [c = k]) / (n_i − 1) over items with at least two ratings, n_c = Σ_k o_ck, n = Σ_c n_c. δ² is
/// [c ≠ k], (Σ_{c ≤ g ≤ k} n_g − (n_c + n_k)/2)² or (c − k)².
///
/// `None` where no item has two ratings, and where all ratings are alike (there is nothing to disagree on by chance).
pub fn krippendorff_alpha(items: &[impl AsRef<[u32]>], scale: Scale) -> Option<f64> {
    let categories = items.first()?.as_ref().len();
    let mut together = vec![vec![0.0; categories]; categories];
    for tally in items.iter().map(AsRef::as_ref) {
        let n: f64 = tally.iter().map(|k| f64::from(*k)).sum();
        if n < 2.0 {
            continue;
        }
        for (c, row) in together.iter_mut().enumerate() {
            for (k, cell) in row.iter_mut().enumerate() {
                let others = f64::from(tally[k]) - if c == k { 1.0 } else { 0.0 };
                *cell += f64::from(tally[c]) * others / (n - 1.0);
            }
        }
    }
    let of: Vec<f64> = together.iter().map(|row| row.iter().sum()).collect();
    let n: f64 = of.iter().sum();
    let (mut observed, mut expected) = (0.0, 0.0);
    for c in 0..categories {
        for k in 0..categories {
            let distance = distance(scale, &of, c.min(k), c.max(k));
            observed += together[c][k] * distance;
            expected += of[c] * of[k] * distance;
        }
    }
    (expected > 0.0).then(|| 1.0 - (n - 1.0) * observed / expected)
}

/// δ² of two categories, the lower first; `of` is how many ratings each has.
fn distance(scale: Scale, of: &[f64], low: usize, high: usize) -> f64 {
    match scale {
        Scale::Nominal => f64::from(u8::from(low != high)),
        Scale::Ordinal => (of[low..=high].iter().sum::<f64>() - 0.5 * (of[low] + of[high])).powi(2),
        Scale::Interval => (high as f64 - low as f64).powi(2),
    }
}

/// [`krippendorff_alpha`] with its bootstrap interval; `prompts[i]` are the tallies of the pairs of prompt i.
pub fn alpha_over_prompts(
    prompts: &[Vec<Tally>],
    scale: Scale,
    resamples: usize,
    run_seed: u64,
) -> Option<super::Interval> {
    super::raters::over_prompts(prompts, resamples, run_seed, |items| krippendorff_alpha(items, scale))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden_audit::*;
    use crate::stats::raters::tests::golden;

    #[test]
    fn matches_krippendorff_with_and_without_missing_ratings() {
        for (table, (nominal, ordinal, interval)) in [(&COMPLETE, ALPHA_COMPLETE), (&MISSING, ALPHA_MISSING)]
        {
            let items = golden(table);
            for (scale, want) in
                [(Scale::Nominal, nominal), (Scale::Ordinal, ordinal), (Scale::Interval, interval)]
            {
                let got = krippendorff_alpha(&items, scale).unwrap();
                assert!((got - want).abs() < 1e-9, "{scale:?}: {got} {want}");
            }
        }
    }

    #[test]
    fn ends_and_nothing() {
        let alpha = |items: &[Tally]| krippendorff_alpha(items, Scale::Nominal);
        assert_eq!(alpha(&[vec![2, 0], vec![0, 2]]), Some(1.0));
        assert_eq!(alpha(&[vec![2, 0], vec![2, 0]]), None, "nothing to disagree on");
        assert_eq!(alpha(&[vec![1, 0], vec![0, 1]]), None, "nobody to agree with");
        assert_eq!(alpha(&[]), None);
    }

    #[test]
    fn alpha_has_an_interval() {
        let prompts: Vec<Vec<Tally>> = golden(&MISSING).into_iter().map(|tally| vec![tally]).collect();
        let got = alpha_over_prompts(&prompts, Scale::Ordinal, 500, 0).unwrap();
        assert!((got.estimate - ALPHA_MISSING.1).abs() < 1e-9);
        assert!(got.low < got.estimate && got.estimate < got.high, "{got}");
    }
}
