//! Next-token prediction: negative log-likelihood.

/// −Σ log p / n over some of the n tokens of a batch, and its slope in each log p.
///
/// TRL's `nll`: a mean over all tokens that are learnt of the whole batch, however it is cut into micro-batches, so that a long row
/// weighs more than a short one; parts of a batch add up.
///
/// Shapes: `logprobs` and the gradient: `[R]`.
pub fn nll(logprobs: &[f64], tokens_of_batch: usize) -> (f64, Vec<f64>) {
    let n = tokens_of_batch as f64;
    (-logprobs.iter().sum::<f64>() / n, vec![-1.0 / n; logprobs.len()])
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_close, assert_gradient};
    use super::*;

    #[test]
    fn parts_add_up_to_the_mean_of_the_whole() {
        let logprobs = [-0.5, -2.0, -1.0, -0.25, -4.0];
        let (whole, gradient) = nll(&logprobs, 5);
        assert_close(&[whole, nll(&logprobs[..2], 5).0 + nll(&logprobs[2..], 5).0], &[1.55, 1.55]);
        assert_gradient(|x| nll(x, 5).0, &logprobs, &gradient);
        assert_gradient(|x| nll(x, 5).0, &logprobs[..2], &nll(&logprobs[..2], 5).1);
    }
}
