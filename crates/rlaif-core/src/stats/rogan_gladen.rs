//! What people would say of all pairs, from a judge's verdicts and its error rates.
//!
//! Usable where the judge's error rates on the labelled pairs are those on all pairs, whichever pairs were labelled: they may be
//! picked for people's verdict, or come from another model's responses. Verdicts are two-valued: ties are left out, or put on one side.
//! Not usable for a judge near chance (sensitivity + specificity near 1), where the interval is nearly all of [0, 1]. Where the labelled
//! pairs are a random sample, [`super::ppi`] takes ties and p, and its interval is narrower.

use super::interval::{Interval, Z};

/// The share of pairs on which people would prefer a, corrected for the judge's errors, Rogan & Gladen 1978,
/// <https://doi.org/10.1093/oxfordjournals.aje.a112510>:
///
/// θ = (r + sp − 1) / (se + sp − 1), cut off at 0 and 1
///
/// r is the share of pairs on which the judge prefers a, se that among pairs on which people prefer a, and sp the share on which it prefers
/// b among those on which people do. Each is (count, of how many).
///
/// The interval is that of Lang & Reiczigel 2014, <https://doi.org/10.1016/j.prevetmed.2013.09.015> (eq. 4, 6, 7, 16, 17), which also counts
/// that se and sp are estimates: with se′, sp′ by (k + 1)/(n + 2) and r′ by (k + z²/2)/(n + z²),
///
/// θ′ + 2z²·(θ′·v_se − (1 − θ′)·v_sp) ± z·√(v_r + θ′²·v_se + (1 − θ′)²·v_sp) / (se′ + sp′ − 1), v their variances
///
/// `None` where one of the three is of nothing, and for a judge no better than chance (se + sp ≤ 1): its verdicts say nothing.
pub fn rogan_gladen(
    prefers_a: (u64, u64),
    sensitivity: (u64, u64),
    specificity: (u64, u64),
) -> Option<Interval> {
    let share = |(k, n): (u64, u64)| (n > 0 && k <= n).then(|| k as f64 / n as f64);
    let corrected = |r: f64, se: f64, sp: f64| (se + sp > 1.0).then(|| (r + sp - 1.0) / (se + sp - 1.0));
    let estimate = corrected(share(prefers_a)?, share(sensitivity)?, share(specificity)?)?.clamp(0.0, 1.0);

    let z2 = Z * Z;
    let (r, r_variance) = pulled(prefers_a, z2);
    let (se, se_variance) = pulled(sensitivity, 2.0);
    let (sp, sp_variance) = pulled(specificity, 2.0);
    let centre = corrected(r, se, sp)?;
    let shift = 2.0 * z2 * (centre * se_variance - (1.0 - centre) * sp_variance);
    let variance = r_variance + centre.powi(2) * se_variance + (1.0 - centre).powi(2) * sp_variance;
    let half = Z * variance.sqrt() / (se + sp - 1.0);
    let end = |value: f64| value.clamp(0.0, 1.0);
    Some(Interval { estimate, low: end(centre + shift - half), high: end(centre + shift + half) })
}

/// A share pulled towards ½ by so many more observations, and its variance.
fn pulled((k, n): (u64, u64), more: f64) -> (f64, f64) {
    let n_more = n as f64 + more;
    let share = (k as f64 + more / 2.0) / n_more;
    (share, share * (1.0 - share) / n_more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden_audit::ROGAN_GLADEN;

    #[test]
    fn matches_the_formula_in_numpy() {
        for (prefers_a, sensitivity, specificity, want) in ROGAN_GLADEN {
            let got = rogan_gladen(prefers_a, sensitivity, specificity).unwrap();
            let errors = [got.estimate - want.0, got.low - want.1, got.high - want.2];
            assert!(errors.iter().all(|error| error.abs() < 1e-9), "{got:?} {want:?}");
        }
    }

    /// 1000 pairs of which people prefer a on 600, a judge with se 0.9 and sp 0.7: it says a on 540 + 120.
    #[test]
    fn the_truth_comes_back() {
        let got = rogan_gladen((660, 1000), (900, 1000), (700, 1000)).unwrap();
        assert!((got.estimate - 0.6).abs() < 1e-12, "{got}");
        assert!(!got.excludes(0.6) && got.excludes(0.66), "{got}");
    }

    #[test]
    fn a_judge_by_chance_says_nothing() {
        assert_eq!(rogan_gladen((50, 100), (30, 60), (20, 40)), None);
        assert_eq!(rogan_gladen((50, 100), (0, 0), (20, 40)), None);
        assert_eq!(rogan_gladen((0, 0), (9, 10), (20, 20)), None);
    }
}
