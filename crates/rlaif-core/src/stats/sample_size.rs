//! How many prompts it takes to see a win rate that differs from ½, and the smallest difference that so many can show.
//!
//! Two-sided at 5 %, by the normal approximation: n = (z₀.₉₇₅·σ₀ + z_power·σ₁)² / (rate − ½)², where σ₀ and σ₁ are the standard deviations of
//! a prompt's points at ½ and at the rate. The win rate is the one the judge measures: a judge that errs shrinks the true difference
//! before any of this.

use super::interval::Z;
use super::position::PositionReport;
use super::special::{normal_cdf, normal_quantile};

/// How a prompt's points spread. One order gives 1, ½ or 0; the mean of two orders also ¾ and ¼.
///
/// Var = m(1 − m) − ties/4 − half_ties·3/16 at win rate m: what is neither won nor lost says less, and varies less.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Share of prompts that come to ½.
    pub ties: f64,
    /// Share of prompts that come to ¼ or ¾.
    pub half_ties: f64,
}

impl Spread {
    /// One order, with this share of ties.
    pub fn one_order(ties: f64) -> Self {
        Self { ties, half_ties: 0.0 }
    }

    /// Both orders: where a judge chose the same place twice, or a tie twice, the prompt comes to ½, and where one order alone gave a tie,
    /// to ¼ or ¾. `ties` is the share of prompts with a tie in both orders. `None` for a report of no pairs.
    pub fn both_orders(report: &PositionReport, ties: f64) -> Option<Self> {
        let n = report.pairs as f64;
        (report.pairs > 0).then(|| Self {
            ties: ties + (report.both_first + report.both_second) as f64 / n,
            half_ties: report.half_ties as f64 / n,
        })
    }

    /// The highest win rate that leaves room for the ties.
    fn best_rate(self) -> f64 {
        1.0 - self.ties / 2.0 - self.half_ties / 4.0
    }

    fn deviation(self, rate: f64) -> f64 {
        (rate * (1.0 - rate) - self.ties / 4.0 - self.half_ties * 3.0 / 16.0).max(0.0).sqrt()
    }

    fn valid(self) -> bool {
        self.ties >= 0.0 && self.half_ties >= 0.0 && self.ties + self.half_ties < 1.0
    }
}

/// Prompts needed to see that a win rate is not ½, with this probability (power) if it truly is `rate`.
///
/// `None` for a rate of ½, one that the ties leave no room for, or a power outside (0, 1).
pub fn prompts_needed(rate: f64, spread: Spread, power: f64) -> Option<u64> {
    exactly_needed(rate, spread, power).map(|n| n.ceil() as u64)
}

fn exactly_needed(rate: f64, spread: Spread, power: f64) -> Option<f64> {
    let better = rate.max(1.0 - rate);
    let possible = spread.valid() && better > 0.5 && better <= spread.best_rate();
    if !(possible && power > 0.0 && power < 1.0) {
        return None;
    }
    let reach = Z * spread.deviation(0.5) + normal_quantile(power) * spread.deviation(better);
    Some((reach.max(0.0) / (better - 0.5)).powi(2))
}

/// The probability to see that a win rate of `rate` is not ½ with so many prompts; 0.05 at a rate of ½. `None` for no prompts or a rate
/// that the ties leave no room for.
pub fn power(rate: f64, spread: Spread, prompts: u64) -> Option<f64> {
    let better = rate.max(1.0 - rate);
    if prompts == 0 || !spread.valid() || !(better >= 0.5 && better <= spread.best_rate()) {
        return None;
    }
    let scale = (prompts as f64).sqrt();
    let (critical, shift) = (Z * spread.deviation(0.5), (better - 0.5) * scale);
    Some(match spread.deviation(better) {
        0.0 => f64::from(u8::from(shift > critical)),
        sd => normal_cdf((shift - critical) / sd) + normal_cdf((-shift - critical) / sd),
    })
}

/// The smallest difference of a win rate from ½ that so many prompts show with this power. `None` where they show none.
pub fn smallest_difference(prompts: u64, spread: Spread, power: f64) -> Option<f64> {
    let enough = |rate: f64| exactly_needed(rate, spread, power).is_some_and(|n| n <= prompts as f64);
    let (mut low, mut high) = (0.5, spread.best_rate());
    if !enough(high) {
        return None;
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high - 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Choice::{First, Second, Tie};
    use crate::stats::golden_audit::SAMPLE_SIZE;
    use crate::stats::position::position_report;

    #[test]
    fn matches_statsmodels() {
        for (rate, ties, half_ties, power, want) in SAMPLE_SIZE {
            let got = exactly_needed(rate, Spread { ties, half_ties }, power).unwrap();
            assert!((got - want).abs() < 1e-9 * want, "{rate} {ties}: {got} {want}");
        }
        assert_eq!(prompts_needed(0.55, Spread::one_order(0.0), 0.8), Some(783));
    }

    #[test]
    fn size_difference_and_power_agree() {
        let spread = Spread { ties: 0.3, half_ties: 0.1 };
        let n = prompts_needed(0.56, spread, 0.8).unwrap();
        let difference = smallest_difference(n, spread, 0.8).unwrap();
        assert!(difference <= 0.06 && difference > 0.0598, "{difference}");
        assert!((power(0.56, spread, n).unwrap() - 0.8).abs() < 1e-3);
        assert!((power(0.44, spread, n).unwrap() - 0.8).abs() < 1e-3);
        assert!((power(0.5, spread, n).unwrap() - 0.05).abs() < 1e-9);
    }

    #[test]
    fn ties_of_both_orders_come_from_what_a_judge_did() {
        let choices =
            [(First, Second), (First, First), (Tie, Tie), (Second, Second), (First, Tie), (Second, First)];
        let report = position_report(&choices).unwrap();
        let got = Spread::both_orders(&report, 1.0 / 6.0).unwrap();
        assert!((got.ties - 0.5).abs() < 1e-12 && (got.half_ties - 1.0 / 6.0).abs() < 1e-12, "{got:?}");
        // The points of these six prompts, by hand: 1, ½, ½, ½, ¾, 0.
        let points = [1.0, 0.5, 0.5, 0.5, 0.75, 0.0];
        let mean = points.iter().sum::<f64>() / 6.0;
        let variance = points.iter().map(|x| x * x).sum::<f64>() / 6.0 - mean * mean;
        assert!((got.deviation(mean).powi(2) - variance).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_is_none() {
        let none = Spread::one_order(0.0);
        assert_eq!(prompts_needed(0.5, none, 0.8), None);
        assert_eq!(prompts_needed(0.9, Spread::one_order(0.5), 0.8), None, "half of all are ties");
        assert_eq!(prompts_needed(0.6, none, 1.0), None);
        assert_eq!(prompts_needed(f64::NAN, none, 0.8), None);
        assert_eq!(prompts_needed(0.6, Spread::one_order(1.5), 0.8), None);
        assert_eq!(smallest_difference(2, none, 0.8), None);
        assert_eq!(power(0.6, none, 0), None);
    }
}
