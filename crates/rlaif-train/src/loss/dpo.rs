//! Direct preference optimisation and its relatives: one scalar function of how the log-prob ratios differ.

use super::bradley_terry::PairGradient;
use super::{log_sigmoid, sigmoid};

/// Which function of the pair's log-ratio difference is minimised.
///
/// With Δ = (lp_c − lr_c) − (lp_r − lr_r), sums over response tokens, and Δ' the same with per-token means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DpoLoss {
    /// −(p log σ(βΔ) + (1−p) log σ(−βΔ)): Rafailov et al. 2023, eq. 7 (<https://arxiv.org/abs/2305.18290>) at p = 1.
    Soft,
    /// Soft with p = 1 − ε for every pair: cDPO, Mitchell 2023 (<https://ericmitchell.ai/cdpo.pdf>).
    Conservative {
        /// Share of flipped labels.
        label_smoothing: f64,
    },
    /// (−(1−ε) log σ(βΔ) + ε log σ(−βΔ)) / (1 − 2ε): Chowdhury et al. 2024 (<https://arxiv.org/abs/2403.00409>).
    Robust {
        /// Share of flipped labels, below ½.
        label_smoothing: f64,
    },
    /// max(0, 1 − βΔ): Zhao et al. 2023, SLiC (<https://arxiv.org/abs/2305.10425>), as in TRL.
    Hinge,
    /// (Δ − 1/(2β))²: Azar et al. 2023, eq. 17 (<https://arxiv.org/abs/2310.12036>); OpenRLHF's reading.
    IpoSum,
    /// (Δ' − 1/(2β))²: TRL's reading.
    IpoMean,
    /// −log σ(βΔ'): TRL's `sigmoid_norm`.
    SigmoidNorm,
}

/// Summed log-probs of the two responses of a pair under policy and reference, and their lengths in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLogps {
    /// Policy, chosen.
    pub chosen: f64,
    /// Policy, rejected.
    pub rejected: f64,
    /// Reference, chosen.
    pub ref_chosen: f64,
    /// Reference, rejected.
    pub ref_rejected: f64,
    /// Tokens of the chosen response.
    pub chosen_len: usize,
    /// Tokens of the rejected response.
    pub rejected_len: usize,
}

impl PairLogps {
    /// Implicit reward of the chosen response, β · (lp_c − lr_c).
    pub fn chosen_reward(&self, beta: f64) -> f64 {
        beta * (self.chosen - self.ref_chosen)
    }

    /// Implicit reward of the rejected response, β · (lp_r − lr_r).
    pub fn rejected_reward(&self, beta: f64) -> f64 {
        beta * (self.rejected - self.ref_rejected)
    }
}

/// Loss of one pair with label p = P(chosen beats rejected), and its gradient in `chosen` and `rejected`.
///
/// `p` counts in [`DpoLoss::Soft`] only; the others are for hard labels.
pub fn dpo_loss(loss: DpoLoss, pair: &PairLogps, beta: f64, p: f64) -> PairGradient {
    let (chosen, rejected) = (pair.chosen - pair.ref_chosen, pair.rejected - pair.ref_rejected);
    // How much a unit of summed log-prob counts: per-token means divide by the length.
    let (chosen_weight, rejected_weight) = match loss {
        DpoLoss::IpoMean | DpoLoss::SigmoidNorm => {
            (1.0 / pair.chosen_len as f64, 1.0 / pair.rejected_len as f64)
        }
        _ => (1.0, 1.0),
    };
    let delta = chosen * chosen_weight - rejected * rejected_weight;
    let x = beta * delta;
    let cross_entropy =
        |p: f64| (-(p * log_sigmoid(x) + (1.0 - p) * log_sigmoid(-x)), beta * (sigmoid(x) - p));
    let (loss, slope) = match loss {
        DpoLoss::Soft => cross_entropy(p),
        DpoLoss::SigmoidNorm => cross_entropy(1.0),
        DpoLoss::Conservative { label_smoothing } => cross_entropy(1.0 - label_smoothing),
        DpoLoss::Robust { label_smoothing: e } => {
            let loss = (-(1.0 - e) * log_sigmoid(x) + e * log_sigmoid(-x)) / (1.0 - 2.0 * e);
            let slope = (-(1.0 - e) * sigmoid(-x) - e * sigmoid(x)) / (1.0 - 2.0 * e);
            (loss, beta * slope)
        }
        DpoLoss::Hinge => ((1.0 - x).max(0.0), if x < 1.0 { -beta } else { 0.0 }),
        DpoLoss::IpoSum | DpoLoss::IpoMean => {
            let distance = delta - 1.0 / (2.0 * beta);
            (distance * distance, 2.0 * distance)
        }
    };
    PairGradient { loss, chosen: slope * chosen_weight, rejected: -slope * rejected_weight }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::tests::{assert_close, assert_gradient};

    const PAIR: PairLogps = PairLogps {
        chosen: -12.0,
        rejected: -15.0,
        ref_chosen: -13.0,
        ref_rejected: -14.5,
        chosen_len: 8,
        rejected_len: 10,
    };

    const ALL: [DpoLoss; 7] = [
        DpoLoss::Soft,
        DpoLoss::Conservative { label_smoothing: 0.1 },
        DpoLoss::Robust { label_smoothing: 0.1 },
        DpoLoss::Hinge,
        DpoLoss::IpoSum,
        DpoLoss::IpoMean,
        DpoLoss::SigmoidNorm,
    ];

    #[test]
    fn parity_vectors() {
        let got = ALL.map(|loss| dpo_loss(loss, &PAIR, 0.1, 1.0).loss);
        let want = [0.6209570478, 0.6359570478, 0.6022070478, 0.85, 12.25, 23.280625, 0.6844354613];
        assert_close(&got, &want);
        assert_close(&[dpo_loss(DpoLoss::Soft, &PAIR, 0.1, 0.8).loss], &[0.6509570478]);
        assert_close(&[PAIR.chosen_reward(0.1), PAIR.rejected_reward(0.1)], &[0.1, -0.05]);
    }

    #[test]
    fn gradients() {
        for loss in ALL {
            let at =
                |x: &[f64]| dpo_loss(loss, &PairLogps { chosen: x[0], rejected: x[1], ..PAIR }, 0.1, 0.8);
            let here = at(&[-12.0, -15.0]);
            assert_gradient(|x| at(x).loss, &[-12.0, -15.0], &[here.chosen, here.rejected]);
        }
    }
}
