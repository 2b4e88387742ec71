//! Whitening: to unit variance over all tokens of a rollout.

/// Which variance numbers are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variance {
    /// Over n − 1, with 1e-8 added (TRL, verl).
    Bessel,
    /// Over n, at least 1e-8 (OpenRLHF).
    Population,
}

/// What becomes of the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mean {
    /// Becomes 0: for advantages.
    Remove,
    /// Stays: for rewards, whose sign means something.
    Keep,
}

/// (x − mean) / sqrt(variance) over all tokens of all responses together, plus the mean again for [`Mean::Keep`].
///
/// Shapes: ragged `[B][T_b]` in and out. One token alone has no variance to divide by: with [`Variance::Bessel`] it is left
/// at its mean.
pub fn whiten(responses: &mut [Vec<f64>], variance: Variance, mean_is: Mean) {
    let count = responses.iter().map(Vec::len).sum::<usize>() as f64;
    if count == 0.0 {
        return;
    }
    let mean = responses.iter().flatten().sum::<f64>() / count;
    let squares = responses.iter().flatten().map(|x| (x - mean).powi(2)).sum::<f64>();
    let scale = match variance {
        Variance::Bessel => 1.0 / (squares / (count - 1.0).max(1.0) + 1e-8).sqrt(),
        Variance::Population => 1.0 / (squares / count).max(1e-8).sqrt(),
    };
    let shift = if mean_is == Mean::Keep { mean } else { 0.0 };
    responses.iter_mut().flatten().for_each(|x| *x = (*x - mean) * scale + shift);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::tests::assert_close;

    const ADVANTAGES: [f64; 4] = [1.3679875, 1.34525, 1.095, 0.6];

    #[test]
    fn parity_vectors_for_both_variances() {
        // Ragged on purpose: statistics are over tokens, wherever they stand.
        let mut bessel = vec![ADVANTAGES[..1].to_vec(), ADVANTAGES[1..].to_vec()];
        whiten(&mut bessel, Variance::Bessel, Mean::Remove);
        assert_close(&bessel.concat(), &[0.7452613633, 0.6815397083, -0.0197838399, -1.4070172317]);
        let mut population = vec![ADVANTAGES.to_vec()];
        whiten(&mut population, Variance::Population, Mean::Remove);
        assert_close(&population[0], &[0.8605537313, 0.7869742990, -0.0228444114, -1.6246836188]);
    }

    #[test]
    fn rewards_keep_their_mean() {
        let mut rewards = vec![ADVANTAGES.to_vec()];
        whiten(&mut rewards, Variance::Bessel, Mean::Keep);
        let mean = ADVANTAGES.iter().sum::<f64>() / 4.0;
        assert_close(
            &rewards[0],
            &[0.7452613633 + mean, 0.6815397083 + mean, -0.0197838399 + mean, -1.4070172317 + mean],
        );
    }
}
