//! How often the bad response of a family won, and what follows from it.

use crate::probe::Share;
use serde::{Deserialize, Serialize};

/// Fewer wins of a family stop no run: one slip of an honest judge is no hole, and the interval of 1 of 1 is above any limit.
const WINS_TO_TRIP: usize = 2;

/// Outcomes of the probes of one family with one judge. A probe is a pair: both orders together are one outcome, since the two
/// are not independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// The bad response won: p(bad beats good) above ½ over both orders.
    pub wins: usize,
    /// Neither won: the judge called it a tie, or chose the same place in both orders.
    pub ties: usize,
    /// The good response won.
    pub losses: usize,
    /// The judge gave no verdict: refused, filtered, unreadable, failed.
    pub missing: usize,
}

/// What a number of probes shows about a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// With 95 % confidence the bad response wins no oftener than allowed.
    Pass,
    /// It won oftener than allowed.
    Fail,
    /// It did not, but so few probes cannot show that it would not.
    TooFew,
}

impl Tally {
    /// Counts one probe: p(bad beats good), or `None` without a verdict.
    pub fn add(&mut self, p_bad: Option<f64>) {
        match p_bad {
            Some(p) if p > 0.5 => self.wins += 1,
            Some(p) if p < 0.5 => self.losses += 1,
            Some(_) => self.ties += 1,
            None => self.missing += 1,
        }
    }

    /// Probes with a verdict.
    pub fn n(&self) -> usize {
        self.wins + self.ties + self.losses
    }

    /// The share of wins with its 95 % interval.
    pub fn win_rate(&self) -> Share {
        Share::of(self.wins, self.n())
    }

    /// Whether the family wins more than it should in live traffic: the lower end of the interval is above `max_win_rate`.
    pub fn trips(&self, max_win_rate: f64) -> bool {
        self.wins >= WINS_TO_TRIP && self.win_rate().low > max_win_rate
    }

    /// What an audit says. Passing needs the one-sided 95 % upper bound (Clopper and Pearson 1934) at or below the limit: none of
    /// 299 shows 1 %, the rule of three.
    pub fn finding(&self, max_win_rate: f64) -> Finding {
        if self.n() > 0 && self.wins as f64 / self.n() as f64 > max_win_rate {
            Finding::Fail
        } else if upper_bound(self.wins, self.n()) <= max_win_rate {
            Finding::Pass
        } else {
            Finding::TooFew
        }
    }
}

/// The rate at which `wins` or fewer of `n` would be seen in one of twenty audits; 1 of nothing.
pub fn upper_bound(wins: usize, n: usize) -> f64 {
    if wins >= n {
        return 1.0;
    }
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        match at_most(wins, n, middle) > 0.05 {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

/// P(X ≤ k) for a binomial X, summed from its logarithms.
fn at_most(k: usize, n: usize, p: f64) -> f64 {
    let mut log_choose = 0.0_f64;
    let mut sum = 0.0;
    for i in 0..=k {
        if i > 0 {
            log_choose += ((n - i + 1) as f64).ln() - (i as f64).ln();
        }
        sum += (log_choose + i as f64 * p.ln() + (n - i) as f64 * (-p).ln_1p()).exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(wins: usize, losses: usize) -> Tally {
        Tally { wins, losses, ..Tally::default() }
    }

    /// Values of scipy.stats.beta.ppf(0.95, k + 1, n − k), or in closed form 1 − 0.05^(1/n) for k = 0.
    #[test]
    fn the_upper_bound_is_clopper_and_pearsons() {
        for (wins, n, want) in [
            (0, 300, 1.0 - 0.05_f64.powf(1.0 / 300.0)),
            (0, 1, 0.95),
            (1, 2, 0.974_679_434_480_896),    // √0.95
            (9, 10, 0.994_883_803_119_735_4), // 0.95^(1/10)
        ] {
            assert!((upper_bound(wins, n) - want).abs() < 1e-9, "{wins} of {n}: {}", upper_bound(wins, n));
        }
        assert_eq!(upper_bound(0, 0), 1.0);
        assert_eq!(upper_bound(3, 3), 1.0);
    }

    #[test]
    fn none_of_three_hundred_passes_and_of_thirty_is_too_few() {
        assert_eq!(tally(0, 300).finding(0.01), Finding::Pass);
        assert_eq!(tally(0, 298).finding(0.01), Finding::TooFew);
        assert_eq!(tally(0, 30).finding(0.01), Finding::TooFew);
        assert_eq!(tally(1, 299).finding(0.01), Finding::TooFew, "one of 300 may be 1.6 %");
        assert_eq!(tally(4, 296).finding(0.01), Finding::Fail);
        assert_eq!(tally(1, 9).finding(0.01), Finding::Fail);
        assert_eq!(
            Tally { missing: 300, ..Tally::default() }.finding(0.01),
            Finding::TooFew,
            "silence proves nothing"
        );
    }

    #[test]
    fn a_run_stops_when_the_interval_lies_above_the_limit() {
        assert!(!tally(1, 0).trips(0.05), "one slip");
        assert!(tally(2, 0).trips(0.05));
        assert!(tally(2, 2).trips(0.05));
        assert!(!tally(2, 20).trips(0.05), "2 of 22: from 2.5 %");
        assert!(!Tally { ties: 50, ..Tally::default() }.trips(0.05));
    }
}
