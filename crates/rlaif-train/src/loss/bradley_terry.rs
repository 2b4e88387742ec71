//! The reward model's loss.

use super::cross_entropy;

/// Loss of one pair, and its gradient with respect to the two numbers the model gave it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairGradient {
    /// The loss.
    pub loss: f64,
    /// d loss / d (number of the chosen response).
    pub chosen: f64,
    /// d loss / d (number of the rejected response).
    pub rejected: f64,
}

/// Bradley-Terry with soft labels: cross-entropy of P(chosen wins) = σ(r_c − r_r − margin) to the label p, and TRL's centering.
///
/// loss = −(p · log σ(d) + (1 − p) · log σ(−d)) + center · (r_c + r_r)²,  d = r_c − r_r − margin
///
/// p = 1 is Ouyang et al. 2022, eq. 1 (<https://arxiv.org/abs/2203.02155>); soft p is Lee et al. 2023, section 3.2
/// (<https://arxiv.org/abs/2309.00267>); centering is Eisenstein et al. 2023, section 2 (<https://arxiv.org/abs/2312.09244>).
pub fn bradley_terry(chosen: f64, rejected: f64, p: f64, margin: f64, center: f64) -> PairGradient {
    let (loss, slope) = cross_entropy(chosen - rejected - margin, p);
    let sum = chosen + rejected;
    PairGradient {
        loss: loss + center * sum * sum,
        chosen: slope + 2.0 * center * sum,
        rejected: -slope + 2.0 * center * sum,
    }
}

/// A label of which a share ε is taken to be flipped: p(1 − ε) + (1 − p)ε.
///
/// Its cross-entropy is (1 − ε) times that of p plus ε times that of 1 − p (Wang et al. 2024,
/// <https://arxiv.org/abs/2401.06080>).
pub fn smoothed(p: f64, epsilon: f64) -> f64 {
    p * (1.0 - epsilon) + (1.0 - p) * epsilon
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::tests::{assert_close, assert_gradient};

    const CHOSEN: [f64; 3] = [1.2, -0.3, 0.5];
    const REJECTED: [f64; 3] = [0.4, 0.1, -1.0];

    fn mean(p: [f64; 3], margin: [f64; 3], center: f64) -> f64 {
        (0..3).map(|i| bradley_terry(CHOSEN[i], REJECTED[i], p[i], margin[i], center).loss).sum::<f64>() / 3.0
    }

    #[test]
    fn parity_vectors() {
        let (hard, none) = ([1.0; 3], [0.0; 3]);
        let plain = mean(hard, none, 0.0);
        let soft = mean([0.9, 0.6, 0.75], none, 0.0);
        let with_margin = mean(hard, [0.0, 0.5, 1.0], 0.0);
        let centering = mean(hard, none, 0.01) - plain;
        assert_close(
            &[plain, with_margin, soft, centering],
            &[0.4951763988, 0.6954438416, 0.5935097321, 0.0095],
        );
    }

    #[test]
    fn smoothing_mixes_the_losses_of_the_label_and_its_opposite() {
        let loss = |p: f64| bradley_terry(1.2, 0.4, p, 0.3, 0.0).loss;
        for p in [1.0, 0.7, 0.5, 0.0] {
            assert_close(&[loss(smoothed(p, 0.2))], &[0.8 * loss(p) + 0.2 * loss(1.0 - p)]);
            assert_eq!(smoothed(p, 0.0).to_bits(), p.to_bits());
        }
    }

    #[test]
    fn gradient() {
        let loss = |x: &[f64]| bradley_terry(x[0], x[1], 0.7, 0.2, 0.03).loss;
        let at = bradley_terry(1.2, -0.4, 0.7, 0.2, 0.03);
        assert_gradient(loss, &[1.2, -0.4], &[at.chosen, at.rejected]);
    }
}
