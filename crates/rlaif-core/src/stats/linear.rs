//! Small dense symmetric systems, for the information matrices of fits: tens of rows, not thousands.

/// The inverse of a symmetric positive definite matrix by Cholesky's decomposition A = L·Lᵀ; `None` where it is not positive
/// definite (to rounding) or not finite.
pub(super) fn inverse(matrix: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
    let n = matrix.len();
    let mut lower = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let rest = matrix[i][j] - (0..j).map(|k| lower[i][k] * lower[j][k]).sum::<f64>();
            if i == j {
                // A pivot that is all rounding has no inverse worth the name, nor has one that is no number.
                if !rest.is_finite() || rest <= 1e-12 * matrix[i][i].abs() {
                    return None;
                }
                lower[i][i] = rest.sqrt();
            } else {
                lower[i][j] = rest / lower[j][j];
            }
        }
    }
    let mut inverse = vec![vec![0.0; n]; n];
    for column in 0..n {
        // L·y = e, then Lᵀ·x = y.
        let mut x = vec![0.0; n];
        for i in 0..n {
            let unit = if i == column { 1.0 } else { 0.0 };
            x[i] = (unit - (0..i).map(|k| lower[i][k] * x[k]).sum::<f64>()) / lower[i][i];
        }
        for i in (0..n).rev() {
            x[i] = (x[i] - (i + 1..n).map(|k| lower[k][i] * x[k]).sum::<f64>()) / lower[i][i];
        }
        for (row, value) in inverse.iter_mut().zip(x) {
            row[column] = value;
        }
    }
    Some(inverse)
}

/// gᵀ·A·g
pub(super) fn quadratic(matrix: &[Vec<f64>], vector: &[f64]) -> f64 {
    let row = |row: &Vec<f64>| row.iter().zip(vector).map(|(a, g)| a * g).sum::<f64>();
    matrix.iter().zip(vector).map(|(r, g)| g * row(r)).sum()
}

/// Adds s·sᵀ for a sparse s.
pub(super) fn add_outer(matrix: &mut [Vec<f64>], sparse: &[(usize, f64)]) {
    for &(i, a) in sparse {
        for &(j, b) in sparse {
            matrix[i][j] += a * b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_of_a_matrix_whose_inverse_is_known() {
        // The inverse of the second-difference matrix of size 4, times 5: min(i, j)·(5 − max(i, j)).
        let n = 4;
        let matrix: Vec<Vec<f64>> = (0..n)
            .map(|i: usize| {
                (0..n)
                    .map(|j| match i.abs_diff(j) {
                        0 => 2.0,
                        1 => -1.0,
                        _ => 0.0,
                    })
                    .collect()
            })
            .collect();
        let got = inverse(&matrix).unwrap();
        for (i, row) in got.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                let want = ((i.min(j) + 1) * (n - i.max(j))) as f64 / 5.0;
                assert!((value - want).abs() < 1e-12, "{i} {j}: {value} {want}");
            }
        }
        assert!((quadratic(&matrix, &[1.0, 2.0, 3.0, 4.0]) - 20.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_positive_definite_has_none() {
        assert_eq!(inverse(&[vec![1.0, 2.0], vec![2.0, 1.0]]), None);
        assert_eq!(inverse(&[vec![1.0, 1.0], vec![1.0, 1.0]]), None);
        assert_eq!(inverse(&[vec![f64::NAN]]), None);
    }
}
