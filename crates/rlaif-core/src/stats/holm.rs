//! Many tests at once: Holm 1979, <https://www.jstor.org/stable/4615733>.

/// p values adjusted so that the chance of even one false finding among all stays below the level each is held against, in their order:
/// the i-th smallest of m times m − i + 1, at most 1, and never below a smaller one's.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|one, other| p_values[*one].total_cmp(&p_values[*other]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut floor = 0.0_f64;
    for (rank, place) in order.into_iter().enumerate() {
        floor = floor.max(p_values[place] * (p_values.len() - rank) as f64).min(1.0);
        adjusted[place] = floor;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// statsmodels: `multipletests(p, method="holm")[1]`.
    #[test]
    fn it_matches_statsmodels() {
        let got = holm(&[0.01, 0.04, 0.03, 0.005, 0.2]);
        let want = [0.04, 0.09, 0.09, 0.025, 0.2];
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12), "{got:?}");
        assert_eq!(holm(&[]), Vec::<f64>::new());
        assert_eq!(holm(&[0.7, 0.9]), [1.0, 1.0]);
    }
}
