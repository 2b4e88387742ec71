//! How values are spread, for the report's bar charts.

use serde::{Deserialize, Serialize};

/// Counts in bins of equal width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Lower end of the first bin.
    pub low: f64,
    /// Upper end of the last bin.
    pub high: f64,
    /// Values in each bin; a bin holds its lower end, the last one both.
    pub counts: Vec<u64>,
    /// Values that were not finite, and are in no bin.
    pub not_finite: u64,
}

impl Histogram {
    /// Width of a bin.
    pub fn width(&self) -> f64 {
        (self.high - self.low) / self.counts.len() as f64
    }
}

/// Counts values between their smallest and largest, as `numpy.histogram`; `None` if none is finite or `bins` is 0. Values that are
/// all the same get bins around them, one wide in all.
pub fn histogram(values: &[f64], bins: usize) -> Option<Histogram> {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = (finite().reduce(f64::min)?, finite().reduce(f64::max)?);
    let (low, high) = if low == high { (low - 0.5, high + 0.5) } else { (low, high) };
    histogram_between(values, low, high, bins)
}

/// Counts values in bins between fixed ends, such as 0 and 1; values outside count in the first or last bin, so that none is
/// lost. `None` if `bins` is 0 or the ends are not in order.
pub fn histogram_between(values: &[f64], low: f64, high: f64, bins: usize) -> Option<Histogram> {
    if bins == 0 || !(low < high && low.is_finite() && high.is_finite()) {
        return None;
    }
    let mut counts = vec![0; bins];
    let mut not_finite = 0;
    for value in values {
        if value.is_finite() {
            let share = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
            // A negative float becomes 0 here.
            counts[((share * bins as f64) as usize).min(bins - 1)] += 1;
        } else {
            not_finite += 1;
        }
    }
    Some(Histogram { low, high, counts, not_finite })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_numpy() {
        // numpy.histogram([1, 2, 1, 4, 5, 3], 4) → [2, 1, 1, 2], 1..5
        let got = histogram(&[1.0, 2.0, 1.0, 4.0, 5.0, 3.0], 4).unwrap();
        assert_eq!((got.low, got.high, got.counts.as_slice()), (1.0, 5.0, [2, 1, 1, 2].as_slice()));
        assert_eq!(got.width(), 1.0);
    }

    #[test]
    fn nothing_is_lost_or_invented() {
        let got = histogram_between(&[-1.0, 0.5, 2.0, f64::NAN, f64::INFINITY], 0.0, 1.0, 2).unwrap();
        assert_eq!((got.counts, got.not_finite), (vec![1, 2], 2));
        assert_eq!(histogram(&[f64::NAN], 3), None);
        assert_eq!(histogram(&[], 3), None);
        assert_eq!(histogram(&[7.0, 7.0], 2).unwrap().counts, [0, 2]);
        assert_eq!(histogram(&[f64::MIN, f64::MAX], 2).unwrap().counts, [1, 1]);
    }
}
