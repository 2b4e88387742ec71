//! Over-optimisation: where a score that training never maximises falls while the reward rises (Gao et al. 2023,
//! <https://arxiv.org/abs/2210.10760>).

use std::collections::VecDeque;

use rlaif_core::config::WatchConfig;

/// What a rollout's scores said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// The average is the highest so far.
    Peak,
    /// It is below its peak, not beyond what may be.
    Below,
    /// It has fallen further than `max_drop` of the gain, and further than chance explains.
    Fallen,
}

/// The held-out score of a policy over the rollouts, averaged over a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    config: WatchConfig,
    window: VecDeque<Measured>,
    first: Option<Measured>,
    peak: Option<Measured>,
}

/// A mean and its variance.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Measured {
    mean: f64,
    variance: f64,
}

/// Two standard errors.
const CHANCE: f64 = 2.0;

impl Watch {
    /// Nothing seen yet.
    pub fn new(config: &WatchConfig) -> Self {
        Self { config: config.clone(), window: VecDeque::new(), first: None, peak: None }
    }

    /// Takes in the mean scores of the prompts of a rollout; what they say counts from the first full window on.
    pub fn observe(&mut self, prompt_means: &[f64]) -> Watched {
        let count = prompt_means.len() as f64;
        let mean = prompt_means.iter().sum::<f64>() / count;
        let squares = prompt_means.iter().map(|score| (score - mean).powi(2)).sum::<f64>();
        let now = Measured { mean, variance: squares / (count - 1.0).max(1.0) / count };
        self.first.get_or_insert(now);
        self.window.push_back(now);
        if self.window.len() > self.config.window.max(1) {
            self.window.pop_front();
        }
        if self.window.len() < self.config.window.max(1) {
            return Watched::Below;
        }
        let average = self.average();
        let (first, peak) = (self.first.unwrap_or(now), self.peak.unwrap_or(average));
        if self.peak.is_none() || average.mean > peak.mean {
            self.peak = Some(average);
            return Watched::Peak;
        }
        let drop = peak.mean - average.mean;
        let allowed = self.config.max_drop * (peak.mean - first.mean).max(0.0);
        match drop > allowed && drop > CHANCE * (peak.variance + average.variance).sqrt() {
            true => Watched::Fallen,
            false => Watched::Below,
        }
    }

    /// The average at its peak; none before the first full window.
    pub fn peak(&self) -> Option<f64> {
        self.peak.map(|peak| peak.mean)
    }

    fn average(&self) -> Measured {
        let count = self.window.len() as f64;
        Measured {
            mean: self.window.iter().map(|m| m.mean).sum::<f64>() / count,
            variance: self.window.iter().map(|m| m.variance).sum::<f64>() / (count * count),
        }
    }

    /// As numbers of a checkpoint.
    pub fn to_numbers(&self) -> Vec<f64> {
        let pair = |measured: &Measured| [measured.mean, measured.variance];
        let absent = Measured { mean: f64::NAN, variance: f64::NAN };
        let ends = [self.first.unwrap_or(absent), self.peak.unwrap_or(absent)];
        ends.iter().chain(&self.window).flat_map(pair).collect()
    }

    /// From [`to_numbers`](Self::to_numbers); none if they are not pairs, two at least.
    pub fn from_numbers(config: &WatchConfig, numbers: &[f64]) -> Option<Self> {
        let (pairs, rest) = numbers.as_chunks::<2>();
        let mut measured = pairs.iter().map(|&[mean, variance]| Measured { mean, variance });
        let present = |measured: Measured| Some(measured).filter(|m| !m.mean.is_nan());
        let (first, peak) = (present(measured.next()?), present(measured.next()?));
        rest.is_empty().then(|| Self { config: config.clone(), window: measured.collect(), first, peak })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        Watch::new(&WatchConfig { window: 2, max_drop: 0.1, judges: None })
    }

    /// Prompts around a mean, with a standard error of about `error`.
    fn around(mean: f64, error: f64) -> Vec<f64> {
        [-1.0, 1.0, -1.0, 1.0].map(|side| mean + side * error * 3f64.sqrt()).to_vec()
    }

    #[test]
    fn a_fall_is_told_from_noise_and_from_a_small_drop() {
        let rise = [0.0, 1.0, 2.0, 2.0];
        let after = |error: f64, then: &[f64]| {
            let mut watch = watch();
            let seen: Vec<_> =
                rise.iter().chain(then).map(|&mean| watch.observe(&around(mean, error))).collect();
            assert_eq!(seen[..4], [Watched::Below, Watched::Peak, Watched::Peak, Watched::Peak]);
            assert_eq!(watch.peak(), Some(2.0));
            seen[4..].to_vec()
        };
        assert_eq!(after(0.01, &[1.9, 1.9]), [Watched::Below, Watched::Below], "5 % of the gain may go");
        assert_eq!(after(0.01, &[1.7, 1.7]), [Watched::Below, Watched::Fallen]);
        assert_eq!(after(0.5, &[1.7, 1.7]), [Watched::Below, Watched::Below], "that may be chance");
        assert_eq!(after(0.5, &[0.4, 0.0]), [Watched::Below, Watched::Fallen]);
    }

    #[test]
    fn it_goes_on_from_a_checkpoint() {
        let mut watch = watch();
        let restored = |watch: &Watch| Watch::from_numbers(&watch.config, &watch.to_numbers());
        assert_eq!(restored(&watch).unwrap().observe(&[1.0]), Watched::Below);
        for score in [1.0, 2.0, 3.0] {
            watch.observe(&[score, score + 0.5]);
            assert_eq!(restored(&watch).as_ref(), Some(&watch));
        }
        assert_eq!(Watch::from_numbers(&watch.config, &[1.0]), None);
        assert_eq!(Watch::from_numbers(&watch.config, &[1.0; 5]), None);
    }
}
