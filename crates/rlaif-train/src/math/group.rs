//! Scores of the responses of one prompt, against each other.

/// What each score is above the mean of the others: RLOO's advantage, Kool et al. 2019; Ahmadian et al. 2024, eq. 5
/// (<https://arxiv.org/abs/2402.14740>). A score that stands alone has nothing to be above: 0.
pub fn leave_one_out(scores: &[f64]) -> Vec<f64> {
    let others = scores.len().saturating_sub(1).max(1) as f64;
    let scale = if scores.len() > 1 { scores.len() as f64 / others } else { 0.0 };
    centred(scores).into_iter().map(|above| above * scale).collect()
}

/// What each score is above their mean.
pub fn centred(scores: &[f64]) -> Vec<f64> {
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    scores.iter().map(|score| score - mean).collect()
}

/// Standard deviation (n − 1); 0 for fewer than two.
pub fn standard_deviation(scores: &[f64]) -> f64 {
    let squares = centred(scores).into_iter().map(|above| above * above).sum::<f64>();
    (squares / scores.len().saturating_sub(1).max(1) as f64).sqrt()
}

/// G_t = r_t + γ G_{t+1} of one response.
///
/// Shapes: `[T]` in and out.
pub fn discounted_returns(rewards: &[f64], gamma: f64) -> Vec<f64> {
    let mut returns = rewards.to_vec();
    for t in (0..returns.len().saturating_sub(1)).rev() {
        returns[t] += gamma * returns[t + 1];
    }
    returns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::tests::assert_close;

    const SCORES: [f64; 4] = [1.0, 0.0, 0.5, 2.0];

    #[test]
    fn parity_vectors() {
        assert_close(&leave_one_out(&SCORES), &[0.1666666667, -1.1666666667, -0.5, 1.5]);
        assert_close(&centred(&SCORES), &[0.125, -0.875, -0.375, 1.125]);
        assert_close(&[standard_deviation(&SCORES)], &[0.8539125638]);
    }

    #[test]
    fn one_score_alone_says_nothing() {
        assert_eq!((leave_one_out(&[3.0]), standard_deviation(&[3.0])), (vec![0.0], 0.0));
        assert_eq!(leave_one_out(&[]), Vec::<f64>::new());
    }

    #[test]
    fn returns_look_ahead() {
        assert_close(&discounted_returns(&[1.0, 2.0, 4.0], 0.5), &[3.0, 4.0, 4.0]);
        assert!(discounted_returns(&[], 0.5).is_empty());
    }
}
