//! Direct preference optimisation and its relatives: functions of the log-probs of a pair, two of a batch of them, and two of single
//! responses. Names and, where nothing else is said, conventions are TRL's.
//!
//! For chosen and rejected, lp are the summed log-probs of the response under the policy and lr under the reference, |·| its tokens;
//! a = lp_c − lr_c, b = lp_r − lr_r, Δ = a − b, Δ' = a/|c| − b/|r|, m = lp/|·|; ε is the share of flipped labels.
//!
//! | loss | minimises | from |
//! |---|---|---|
//! | `sigmoid` | −log σ(βΔ) | Rafailov et al. 2023, eq. 7 (<https://arxiv.org/abs/2305.18290>) |
//! | `cdpo` | −(1−ε) log σ(βΔ) − ε log σ(−βΔ) | Mitchell 2023 (<https://ericmitchell.ai/cdpo.pdf>); OpenRLHF's `label_smoothing` |
//! | `robust` | (−(1−ε) log σ(βΔ) + ε log σ(−βΔ)) / (1 − 2ε) | Chowdhury et al. 2024 (<https://arxiv.org/abs/2403.00409>) |
//! | `hinge` | max(0, 1 − βΔ) | Zhao et al. 2023, SLiC (<https://arxiv.org/abs/2305.10425>), with DPO's rewards |
//! | `ipo_mean` | (Δ' − 1/(2β))² | Azar et al. 2023, eq. 17 (<https://arxiv.org/abs/2310.12036>); TRL's reading |
//! | `ipo_sum` | (Δ − 1/(2β))² | OpenRLHF's reading |
//! | `sigmoid_norm` | −log σ(βΔ') | |
//! | `simpo` | −log σ(β m_c − β m_r − γ) | Meng et al. 2024, eq. 6 (<https://arxiv.org/abs/2405.14734>) |
//! | `orpo` | −m_c − β log σ(logit e^{m_c} − logit e^{m_r}), logit P = log P/(1−P) | Hong et al. 2024, eq. 6 (<https://arxiv.org/abs/2403.07691>). The first term is over the response, a mean a pair, as in the paper and LLaMA-Factory; TRL's is over prompt and response, a mean over the tokens of a batch |
//! | `kto` | ½ w_d (1 − σ(β(a − z))) + ½ w_u (1 − σ(β(z − b))) | Ethayarajh et al. 2024, eq. 8 (<https://arxiv.org/abs/2402.01306>), the mean over both responses, see [`kto`]; z is the reference point, a number to the gradient |
//! | `apo_zero_unpaired` | the same with z = 0 | D'Oosterlinck et al. 2024, eq. 7 (<https://arxiv.org/abs/2408.06266>) response by response |
//! | `exo_pair` | KL((σ(βΔ), σ(−βΔ)) ‖ (1−ε, ε)), ε above 0 | Ji et al. 2024, eq. 16 (<https://arxiv.org/abs/2402.00856>) |
//! | `nca_pair` | −log σ(βa) − ½ log σ(−βa) − ½ log σ(−βb) | Chen et al. 2024 (<https://arxiv.org/abs/2402.05369>) |
//! | `bco_pair` | −log σ(βa) − log σ(−βb) | Jung et al. 2024 (<https://arxiv.org/abs/2404.04656>) without the reward shift |
//! | `sppo_hard` | (a − 1/(2β))² + (b + 1/(2β))² | Wu et al. 2024, eq. 4.7 (<https://arxiv.org/abs/2405.00675>) |
//! | `apo_zero` | 1 − σ(βa) + σ(βb) | D'Oosterlinck et al. 2024, eq. 7 |
//! | `apo_down` | σ(βa) + 1 − σ(βΔ) | eq. 8 there |
//! | `discopop` | −(1−μ) log σ(βΔ) + μ e^{−βΔ}, μ = σ(βΔ/τ) | Lu et al. 2024, eq. 5 (<https://arxiv.org/abs/2406.08414>) |
//! | `aot`, `aot_unpaired` | of a batch, see [`aot`](super::aot) | Melnyk et al. 2024 (<https://arxiv.org/abs/2406.05882>) |

use rlaif_core::config::{DpoConfig, DpoLossKind};

use super::aot::{aot, aot_unpaired};
use super::bradley_terry::{PairGradient, smoothed};
use super::kto::{kto, sigmoid_with_slope};
use super::{cross_entropy, log_sigmoid, sigmoid};

/// Summed log-probs of the two responses of a pair under policy and reference, their lengths in tokens, and the label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLogps {
    /// Policy, chosen.
    pub chosen: f64,
    /// Policy, rejected.
    pub rejected: f64,
    /// Reference, chosen; any number for a loss without a reference.
    pub ref_chosen: f64,
    /// Reference, rejected; likewise.
    pub ref_rejected: f64,
    /// Tokens of the chosen response.
    pub chosen_len: usize,
    /// Tokens of the rejected response.
    pub rejected_len: usize,
    /// P(chosen beats rejected).
    pub p: f64,
}

/// Summed log-probs of a single response under policy and reference, and its label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResponseLogps {
    /// Policy.
    pub policy: f64,
    /// Reference.
    pub reference: f64,
    /// P(desirable).
    pub p: f64,
}

/// A loss with its numbers; a loss reads those that are its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// Which.
    pub loss: DpoLossKind,
    /// Strength of the leash to the reference; ORPO's λ, the weight of the odds ratio.
    pub beta: f64,
    /// ε.
    pub label_smoothing: f64,
    /// γ of SimPO, in units of the reward.
    pub simpo_gamma: f64,
    /// w_d.
    pub desirable_weight: f64,
    /// w_u.
    pub undesirable_weight: f64,
    /// τ of DiscoPOP.
    pub discopop_tau: f64,
}

impl Objective {
    /// The objective of a config.
    pub fn of(config: &DpoConfig) -> Self {
        Self {
            loss: config.loss,
            beta: config.beta(),
            label_smoothing: config.label_smoothing(),
            simpo_gamma: config.simpo_gamma,
            desirable_weight: config.desirable_weight,
            undesirable_weight: config.undesirable_weight,
            discopop_tau: config.discopop_tau,
        }
    }

    /// Whether it compares the policy with a reference.
    pub fn needs_reference(&self) -> bool {
        !matches!(self.loss, DpoLossKind::Simpo | DpoLossKind::Orpo)
    }

    /// Whether it needs the reference point z.
    pub fn needs_reference_point(&self) -> bool {
        self.loss == DpoLossKind::Kto
    }

    /// Implicit rewards of chosen and rejected as TRL logs them: β (lp − lr), or β lp/|·| without a reference.
    pub fn rewards(&self, pair: &PairLogps) -> (f64, f64) {
        let (chosen, rejected) = if self.needs_reference() {
            (pair.chosen - pair.ref_chosen, pair.rejected - pair.ref_rejected)
        } else {
            (pair.chosen / pair.chosen_len as f64, pair.rejected / pair.rejected_len as f64)
        };
        (self.beta * chosen, self.beta * rejected)
    }

    /// Loss of each pair of a batch and its gradient in `chosen` and `rejected`; the loss of the batch is the mean.
    ///
    /// A soft label counts p times as the label and 1 − p times as its opposite: the loss expected of labels drawn from p. Two differ:
    /// `exo_pair` takes p for its target, and those that sort a batch know no soft labels, and take the likelier side.
    ///
    /// `reference_point` is KTO's z; the others do not read it.
    pub fn losses(&self, pairs: &[PairLogps], reference_point: f64) -> Vec<PairGradient> {
        match self.loss {
            DpoLossKind::Aot => aot(pairs, self.beta, self.label_smoothing),
            DpoLossKind::AotUnpaired => aot_unpaired(pairs, self.beta, self.label_smoothing),
            _ => pairs.iter().map(|pair| self.loss_of_pair(pair, reference_point)).collect(),
        }
    }

    /// Loss of a single response and its gradient in the policy's log-prob; for the losses that take single responses.
    ///
    /// A soft label counts p times as desirable and 1 − p times as undesirable. The loss of a pair is the mean of those of its two
    /// responses.
    pub fn loss_of_response(&self, response: &ResponseLogps, reference_point: f64) -> (f64, f64) {
        let (log_ratio, z) = (response.policy - response.reference, self.anchor(reference_point));
        let (desired, desired_slope) = kto(log_ratio, true, self.beta, z);
        let (undesired, undesired_slope) = kto(log_ratio, false, self.beta, z);
        let (desirable, undesirable) =
            (response.p * self.desirable_weight, (1.0 - response.p) * self.undesirable_weight);
        (
            desirable * desired + undesirable * undesired,
            desirable * desired_slope + undesirable * undesired_slope,
        )
    }

    /// What a log-ratio is compared with, where a response is looked at by itself.
    pub fn anchor(&self, reference_point: f64) -> f64 {
        if self.needs_reference_point() { reference_point } else { 0.0 }
    }

    fn loss_of_pair(&self, pair: &PairLogps, reference_point: f64) -> PairGradient {
        // What a response is worth to the loss, and how much of that a unit of summed log-prob is.
        let (chosen_len, rejected_len) = (1.0 / pair.chosen_len as f64, 1.0 / pair.rejected_len as f64);
        let (chosen, rejected) = (pair.chosen - pair.ref_chosen, pair.rejected - pair.ref_rejected);
        let (a, b, a_slope, b_slope) = match self.loss {
            DpoLossKind::Simpo | DpoLossKind::Orpo => {
                (pair.chosen * chosen_len, pair.rejected * rejected_len, chosen_len, rejected_len)
            }
            DpoLossKind::IpoMean | DpoLossKind::SigmoidNorm => {
                (chosen * chosen_len, rejected * rejected_len, chosen_len, rejected_len)
            }
            _ => (chosen, rejected, 1.0, 1.0),
        };
        let mut sum = PairGradient { loss: 0.0, chosen: 0.0, rejected: 0.0 };
        let mut add = |weight: f64, loss: f64, chosen: f64, rejected: f64| {
            sum.loss += weight * loss;
            sum.chosen += weight * chosen * a_slope;
            sum.rejected += weight * rejected * b_slope;
        };
        if self.loss == DpoLossKind::ExoPair {
            let target = smoothed(pair.p, self.label_smoothing);
            let (loss, slope) = exo(self.beta * (a - b), target);
            add(1.0, loss, self.beta * slope, -self.beta * slope);
            return sum;
        }
        if pair.p > 0.0 {
            let at = self.hard(a, b, reference_point);
            add(pair.p, at.loss, at.chosen, at.rejected);
        }
        if pair.p < 1.0 {
            let at = self.hard(b, a, reference_point);
            add(1.0 - pair.p, at.loss, at.rejected, at.chosen);
        }
        sum
    }

    /// Loss of a hard label, and its gradient in the winner's `a` and the loser's `b`.
    fn hard(&self, a: f64, b: f64, z: f64) -> PairGradient {
        let beta = self.beta;
        let x = beta * (a - b);
        // Of a loss in x alone: its value and slope.
        let of_x =
            |(loss, slope): (f64, f64)| PairGradient { loss, chosen: beta * slope, rejected: -beta * slope };
        match self.loss {
            DpoLossKind::Sigmoid | DpoLossKind::SigmoidNorm => of_x(cross_entropy(x, 1.0)),
            DpoLossKind::Cdpo => of_x(cross_entropy(x, 1.0 - self.label_smoothing)),
            DpoLossKind::Robust => {
                let e = self.label_smoothing;
                let loss = (-(1.0 - e) * log_sigmoid(x) + e * log_sigmoid(-x)) / (1.0 - 2.0 * e);
                let slope = (-(1.0 - e) * sigmoid(-x) - e * sigmoid(x)) / (1.0 - 2.0 * e);
                of_x((loss, slope))
            }
            DpoLossKind::Hinge => of_x(((1.0 - x).max(0.0), if x < 1.0 { -1.0 } else { 0.0 })),
            DpoLossKind::IpoMean | DpoLossKind::IpoSum => {
                let distance = a - b - 1.0 / (2.0 * beta);
                PairGradient { loss: distance * distance, chosen: 2.0 * distance, rejected: -2.0 * distance }
            }
            DpoLossKind::Simpo => of_x(cross_entropy(x - self.simpo_gamma, 1.0)),
            DpoLossKind::Orpo => {
                let (odds, a_slope) = log_odds(a);
                let (other_odds, b_slope) = log_odds(b);
                let (loss, slope) = cross_entropy(odds - other_odds, 1.0);
                PairGradient {
                    loss: -a + beta * loss,
                    chosen: -1.0 + beta * slope * a_slope,
                    rejected: -beta * slope * b_slope,
                }
            }
            DpoLossKind::Kto | DpoLossKind::ApoZeroUnpaired => {
                let z = self.anchor(z);
                let (won, won_slope) = kto(a, true, beta, z);
                let (lost, lost_slope) = kto(b, false, beta, z);
                PairGradient {
                    loss: 0.5 * (self.desirable_weight * won + self.undesirable_weight * lost),
                    chosen: 0.5 * self.desirable_weight * won_slope,
                    rejected: 0.5 * self.undesirable_weight * lost_slope,
                }
            }
            DpoLossKind::NcaPair => {
                let (up, up_slope) = cross_entropy(beta * a, 1.0);
                let (anchor, anchor_slope) = cross_entropy(beta * a, 0.0);
                let (down, down_slope) = cross_entropy(beta * b, 0.0);
                PairGradient {
                    loss: up + 0.5 * anchor + 0.5 * down,
                    chosen: beta * (up_slope + 0.5 * anchor_slope),
                    rejected: beta * 0.5 * down_slope,
                }
            }
            DpoLossKind::BcoPair => {
                let (up, up_slope) = cross_entropy(beta * a, 1.0);
                let (down, down_slope) = cross_entropy(beta * b, 0.0);
                PairGradient { loss: up + down, chosen: beta * up_slope, rejected: beta * down_slope }
            }
            DpoLossKind::SppoHard => {
                let (up, down) = (a - 0.5 / beta, b + 0.5 / beta);
                PairGradient { loss: up * up + down * down, chosen: 2.0 * up, rejected: 2.0 * down }
            }
            DpoLossKind::ApoZero => {
                let (up, up_slope) = sigmoid_with_slope(beta * a);
                let (down, down_slope) = sigmoid_with_slope(beta * b);
                PairGradient { loss: 1.0 - up + down, chosen: -beta * up_slope, rejected: beta * down_slope }
            }
            DpoLossKind::ApoDown => {
                let (down, down_slope) = sigmoid_with_slope(beta * a);
                let (apart, apart_slope) = sigmoid_with_slope(x);
                PairGradient {
                    loss: down + 1.0 - apart,
                    chosen: beta * (down_slope - apart_slope),
                    rejected: beta * apart_slope,
                }
            }
            DpoLossKind::Discopop => of_x(discopop(x, self.discopop_tau)),
            DpoLossKind::ExoPair | DpoLossKind::Aot | DpoLossKind::AotUnpaired => {
                unreachable!("`losses` and `loss_of_pair` have their own ways for these")
            }
        }
    }
}

/// KL((σ(x), σ(−x)) ‖ (target, 1 − target)), and its slope in x.
fn exo(x: f64, target: f64) -> (f64, f64) {
    let (q, slope) = sigmoid_with_slope(x);
    let (log_target, log_rest) = (target.ln(), (1.0 - target).ln());
    let loss = q * (log_sigmoid(x) - log_target) + (1.0 - q) * (log_sigmoid(-x) - log_rest);
    (loss, slope * (x - (log_target - log_rest)))
}

/// −(1−m) log σ(x) + m e^{−x} with m = σ(x/τ), and its slope in x.
fn discopop(x: f64, tau: f64) -> (f64, f64) {
    let (m, m_slope) = sigmoid_with_slope(x / tau);
    // m e^{−x} in logarithms: e^{−x} alone overflows where m is 0.
    let exponential = (log_sigmoid(x / tau) - x).exp();
    let loss = -(1.0 - m) * log_sigmoid(x) + exponential;
    let slope = m_slope / tau * log_sigmoid(x) - (1.0 - m) * sigmoid(-x)
        + exponential * (sigmoid(-x / tau) / tau - 1.0);
    (loss, slope)
}

/// log(P / (1 − P)) of P = e^`logp`, and its slope in `logp`.
fn log_odds(logp: f64) -> (f64, f64) {
    // A certain response has no finite odds; float32 log-probs do not come nearer to 0 than this without being 0.
    let logp = logp.min(-f64::from(f32::EPSILON));
    let rest = -logp.exp_m1(); // 1 − P
    (logp - rest.ln(), 1.0 / rest)
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
        p: 1.0,
    };

    fn objective(loss: DpoLossKind, beta: f64) -> Objective {
        Objective {
            loss,
            beta,
            label_smoothing: 0.1,
            simpo_gamma: 0.5,
            desirable_weight: 1.0,
            undesirable_weight: 0.8,
            discopop_tau: 0.05,
        }
    }

    fn at(loss: DpoLossKind, beta: f64, pair: PairLogps) -> PairGradient {
        objective(loss, beta).losses(&[pair], 0.3)[0]
    }

    #[test]
    fn parity_vectors() {
        let got: Vec<f64> = DpoLossKind::ALL[..7].iter().map(|&loss| at(loss, 0.1, PAIR).loss).collect();
        let want = [0.6209570478, 0.6359570478, 0.6022070478, 0.85, 23.280625, 12.25, 0.6844354613];
        assert_close(&got, &want);
        assert_close(&[at(DpoLossKind::Sigmoid, 0.1, PairLogps { p: 0.8, ..PAIR }).loss], &[0.6509570478]);
        assert_close(&[at(DpoLossKind::Simpo, 2.0, PAIR).loss], &[0.9740769842]);
        let (chosen, rejected) = objective(DpoLossKind::Sigmoid, 0.1).rewards(&PAIR);
        assert_close(&[chosen, rejected], &[0.1, -0.05]);
    }

    #[test]
    fn gradients() {
        for loss in DpoLossKind::ALL {
            for (beta, p) in [(0.1, 1.0), (0.1, 0.8), (0.7, 0.0)] {
                let at = |x: &[f64]| at(loss, beta, PairLogps { chosen: x[0], rejected: x[1], p, ..PAIR });
                let here = at(&[-12.0, -15.0]);
                assert_gradient(|x| at(x).loss, &[-12.0, -15.0], &[here.chosen, here.rejected]);
            }
        }
    }

    #[test]
    fn a_pair_told_the_other_way_round_is_the_same_pair() {
        for loss in DpoLossKind::ALL {
            let p = if loss.sorts_batch() { 1.0 } else { 0.8 };
            let turned = PairLogps {
                chosen: PAIR.rejected,
                rejected: PAIR.chosen,
                ref_chosen: PAIR.ref_rejected,
                ref_rejected: PAIR.ref_chosen,
                chosen_len: PAIR.rejected_len,
                rejected_len: PAIR.chosen_len,
                p: 1.0 - p,
            };
            let (one, other) = (at(loss, 0.1, PairLogps { p, ..PAIR }), at(loss, 0.1, turned));
            assert_close(&[one.loss, one.chosen, one.rejected], &[other.loss, other.rejected, other.chosen]);
        }
    }

    /// IPO and SPPO come to rest at a log-ratio of (2p − 1)/(2β), the cross-entropies where σ(βΔ) = p.
    #[test]
    fn soft_labels_move_the_place_of_rest() {
        let p = 0.7;
        let still = |loss, beta: f64, delta: f64| {
            let pair = PairLogps { chosen: -13.0 + delta, rejected: -14.5, p, ..PAIR };
            let at = at(loss, beta, pair);
            assert!(at.chosen.abs() < 1e-12, "{loss:?}: {at:?}");
        };
        let (beta, logit) = (0.1, (p / (1.0 - p)).ln());
        still(DpoLossKind::Sigmoid, beta, logit / beta);
        still(DpoLossKind::SigmoidNorm, beta, logit / beta * 8.0);
        let smoothed: f64 = p * 0.9 + 0.3 * 0.1;
        still(DpoLossKind::ExoPair, beta, (smoothed / (1.0 - smoothed)).ln() / beta);
        still(DpoLossKind::IpoSum, beta, 0.4 / (2.0 * beta));
        still(DpoLossKind::IpoMean, beta, 0.4 / (2.0 * beta) * 8.0);
        still(DpoLossKind::SppoHard, beta, 0.4 / (2.0 * beta));
    }

    /// A pair is two responses, each by itself.
    #[test]
    fn a_pair_costs_what_its_responses_do() {
        for loss in DpoLossKind::ALL.into_iter().filter(|loss| loss.takes_responses()) {
            for p in [1.0, 0.8, 0.3] {
                let of = |policy, reference, p| {
                    objective(loss, 0.1).loss_of_response(&ResponseLogps { policy, reference, p }, 0.3)
                };
                let (chosen, slope) = of(PAIR.chosen, PAIR.ref_chosen, p);
                let (rejected, other_slope) = of(PAIR.rejected, PAIR.ref_rejected, 1.0 - p);
                let pair = at(loss, 0.1, PairLogps { p, ..PAIR });
                assert_close(&[0.5 * (chosen + rejected)], &[pair.loss]);
                assert_close(&[0.5 * slope, 0.5 * other_slope], &[pair.chosen, pair.rejected]);
                assert_gradient(|x| of(x[0], -13.0, p).0, &[-12.0], &[of(-12.0, -13.0, p).1]);
            }
        }
    }

    #[test]
    fn the_ends_are_finite() {
        for loss in DpoLossKind::ALL {
            for (chosen, rejected) in [(0.0, -2000.0), (-2000.0, 0.0), (0.0, 0.0)] {
                let pair = PairLogps { chosen, rejected, ref_chosen: -9.0, ref_rejected: -9.0, ..PAIR };
                let at = at(loss, 0.5, pair);
                assert!([at.loss, at.chosen, at.rejected].iter().all(|x| x.is_finite()), "{loss:?}: {at:?}");
            }
        }
    }
}
