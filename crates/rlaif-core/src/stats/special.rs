//! Student's t quantile, for intervals of small samples.

/// ln Γ(x) for x > 0: Lanczos' approximation with g = 7 and 9 terms, coefficients of Godfrey (2001), relative error
/// below 1e-13.
fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let t = x + 7.5;
    let series = COEFFICIENTS[1..]
        .iter()
        .enumerate()
        .fold(COEFFICIENTS[0], |sum, (i, coefficient)| sum + coefficient / (x + i as f64 + 1.0));
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + series.ln()
}

/// Regularised incomplete beta function I_x(a, b) by its continued fraction (DLMF 8.17.22, evaluated by Lentz's method).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast only below the mean; above it, by symmetry.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    let tiny = 1e-300;
    let guard = |value: f64| if value.abs() < tiny { tiny } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / guard(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..300 {
        let m = f64::from(m);
        for numerator in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / guard(1.0 + numerator * d);
            c = guard(1.0 + numerator / c);
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// P(T ≤ t) of Student's t with `freedom` degrees of freedom.
fn student_cdf(t: f64, freedom: f64) -> f64 {
    let tail = 0.5 * incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5);
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// The t with P(T ≤ t) = `p`, for p in (½, 1), by bisection of [`student_cdf`].
pub(super) fn student_quantile(p: f64, freedom: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while student_cdf(high, freedom) < p {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if student_cdf(middle, freedom) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Two-sided p value of a t statistic.
pub(super) fn student_two_sided(t: f64, freedom: f64) -> f64 {
    incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5)
}

/// Two-sided p value of `k` successes of `n` under probability ½: 2·P(X ≤ min(k, n − k)), at most 1.
pub(super) fn binomial_two_sided(k: u64, n: u64) -> f64 {
    let less = k.min(n - k);
    if 2 * less == n {
        return 1.0;
    }
    // P(X ≤ k) = I_½(n − k, k + 1)
    (2.0 * incomplete_beta(0.5, (n - less) as f64, less as f64 + 1.0)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden::{BINOMIAL, STUDENT_T};

    #[test]
    fn quantiles_match_scipy() {
        for (freedom, want) in STUDENT_T {
            let got = student_quantile(0.975, freedom);
            assert!((got - want).abs() < 1e-9 * want, "{freedom}: {got} {want}");
        }
        for (k, n, want) in BINOMIAL {
            let got = binomial_two_sided(k, n);
            assert!((got - want).abs() < 1e-12 + 1e-9 * want, "{k} of {n}: {got} {want}");
        }
    }
}
