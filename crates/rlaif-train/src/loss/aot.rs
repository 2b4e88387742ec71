//! Alignment by optimal transport, Melnyk et al. 2024 (<https://arxiv.org/abs/2406.05882>): one distribution of rewards is to lie above
//! another at every quantile, so a batch is sorted and compared rank by rank. Which of two pairs meets which is decided by all others.

use super::bradley_terry::PairGradient;
use super::cross_entropy;
use super::dpo::PairLogps;

/// TRL's `aot`: with the margins lp_w − lp_l of a batch sorted, and those of the reference, lr_w − lr_l, sorted by themselves,
/// −(1−ε) log σ(βδ_k) − ε log σ(−βδ_k) for the difference δ_k at rank k; w is the response that the label says is better.
///
/// The loss of a rank is returned for the pair whose policy margin has that rank.
pub fn aot(pairs: &[PairLogps], beta: f64, label_smoothing: f64) -> Vec<PairGradient> {
    let margins: Vec<f64> = pairs.iter().map(|pair| sign(pair) * (pair.chosen - pair.rejected)).collect();
    let ref_margins: Vec<f64> =
        pairs.iter().map(|pair| sign(pair) * (pair.ref_chosen - pair.ref_rejected)).collect();
    let mut losses = nothing(pairs);
    for (pair, reference) in ranks(&margins).into_iter().zip(ranks(&ref_margins)) {
        let (loss, slope) =
            cross_entropy(beta * (margins[pair] - ref_margins[reference]), 1.0 - label_smoothing);
        let slope = sign(&pairs[pair]) * beta * slope;
        losses[pair] = PairGradient { loss, chosen: slope, rejected: -slope };
    }
    losses
}

/// TRL's `aot_unpaired`: [`aot`] with the log-ratios lp_w − lr_w of a batch sorted against its lp_l − lr_l.
///
/// The loss of a rank is returned for the pair whose better response has that rank.
pub fn aot_unpaired(pairs: &[PairLogps], beta: f64, label_smoothing: f64) -> Vec<PairGradient> {
    let ratios: Vec<(f64, f64)> = pairs
        .iter()
        .map(|pair| {
            let (chosen, rejected) = (pair.chosen - pair.ref_chosen, pair.rejected - pair.ref_rejected);
            if sign(pair) > 0.0 { (chosen, rejected) } else { (rejected, chosen) }
        })
        .collect();
    let (winners, losers): (Vec<f64>, Vec<f64>) = ratios.into_iter().unzip();
    let mut losses = nothing(pairs);
    for (winner, loser) in ranks(&winners).into_iter().zip(ranks(&losers)) {
        let (loss, slope) = cross_entropy(beta * (winners[winner] - losers[loser]), 1.0 - label_smoothing);
        losses[winner].loss = loss;
        *side(&mut losses[winner], sign(&pairs[winner])) = beta * slope;
        *side(&mut losses[loser], -sign(&pairs[loser])) = -beta * slope;
    }
    losses
}

/// 1 if chosen is the better one by the label, −1 if rejected is.
fn sign(pair: &PairLogps) -> f64 {
    if pair.p >= 0.5 { 1.0 } else { -1.0 }
}

fn side(gradient: &mut PairGradient, sign: f64) -> &mut f64 {
    if sign > 0.0 { &mut gradient.chosen } else { &mut gradient.rejected }
}

fn nothing(pairs: &[PairLogps]) -> Vec<PairGradient> {
    vec![PairGradient { loss: 0.0, chosen: 0.0, rejected: 0.0 }; pairs.len()]
}

/// Indices in rising order of their values.
fn ranks(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::tests::assert_gradient;

    #[test]
    fn gradients_of_a_batch() {
        // The policy's order is not the reference's, and the last label says that rejected is better.
        let numbers = [
            (-12.0, -15.0, -13.0, -14.5, 1.0),
            (-9.0, -8.5, -7.0, -9.5, 1.0),
            (-20.0, -30.0, -21.6, -24.0, 1.0),
            (-6.3, -4.2, -5.5, -5.0, 0.0),
        ];
        let batch = |x: &[f64]| -> Vec<PairLogps> {
            let pair = |(i, &(_, _, ref_chosen, ref_rejected, p)): (usize, &_)| PairLogps {
                chosen: x[2 * i],
                rejected: x[2 * i + 1],
                ref_chosen,
                ref_rejected,
                chosen_len: 8,
                rejected_len: 10,
                p,
            };
            numbers.iter().enumerate().map(pair).collect()
        };
        let here: Vec<f64> = numbers.iter().flat_map(|n| [n.0, n.1]).collect();
        for loss in [aot, aot_unpaired] {
            let gradient: Vec<f64> =
                loss(&batch(&here), 0.1, 0.05).iter().flat_map(|g| [g.chosen, g.rejected]).collect();
            let sum = |x: &[f64]| loss(&batch(x), 0.1, 0.05).iter().map(|g| g.loss).sum();
            assert_gradient(sum, &here, &gradient);
        }
    }
}
