//! The functions that intervals and tests are made of: Student's t, the normal and binomial distributions, the logistic function.

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
pub(super) fn student_cdf(t: f64, freedom: f64) -> f64 {
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

/// P(X ≥ k) of a binomial X: I_p(k, n − k + 1).
pub(super) fn binomial_at_least(k: u64, n: u64, p: f64) -> f64 {
    if k == 0 { 1.0 } else { incomplete_beta(p, k as f64, (n - k) as f64 + 1.0) }
}

/// P(X ≤ k) of a binomial X: as many failures as n − k, so that small tails keep their digits.
pub(super) fn binomial_at_most(k: u64, n: u64, p: f64) -> f64 {
    binomial_at_least(n - k, n, 1.0 - p)
}

/// Φ(x): by Marsaglia's series (2004) around 0, by Laplace's continued fraction in the tails, whose relative error stays
/// below 1e-12.
pub(super) fn normal_cdf(x: f64) -> f64 {
    const TAIL: f64 = 3.0;
    const TERMS: u32 = 200; // the fraction's, at 3 the most that are needed
    let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
    if x.abs() > TAIL {
        let fraction = (1..=TERMS).rev().fold(x.abs(), |rest, k| x.abs() + f64::from(k) / rest);
        let tail = density / fraction;
        return if x > 0.0 { 1.0 - tail } else { tail };
    }
    let (mut term, mut sum, mut odd) = (x, 0.0, 1.0);
    while sum + term != sum {
        sum += term;
        odd += 2.0;
        term *= x * x / odd;
    }
    0.5 + density * sum
}

/// Φ⁻¹(p) for p in (0, 1), by bisection of [`normal_cdf`].
pub(super) fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// σ(x)
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// ln σ(x), also where σ(x) is 0 in floating point.
pub(super) fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden::{BINOMIAL, STUDENT_T};
    use crate::stats::golden_audit::{BINOMIAL_AT_LEAST, NORMAL_CDF, NORMAL_QUANTILE};

    #[test]
    fn normal_and_binomial_match_scipy() {
        for (x, want) in NORMAL_CDF {
            let got = normal_cdf(x);
            assert!((got - want).abs() < 1e-11 * want, "{x}: {got} {want}");
        }
        for (p, want) in NORMAL_QUANTILE {
            let got = normal_quantile(p);
            assert!((got - want).abs() < 1e-9, "{p}: {got} {want}");
        }
        for (k, n, p, want) in BINOMIAL_AT_LEAST {
            let got = binomial_at_least(k, n, p);
            assert!((got - want).abs() < 1e-10 * want, "{k} {n} {p}: {got} {want}");
            let below = k.checked_sub(1).map_or(0.0, |k| binomial_at_most(k, n, p));
            assert!((got + below - 1.0).abs() < 1e-12, "{k} {n} {p}");
        }
    }

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
