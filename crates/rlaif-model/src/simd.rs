//! Loops over slices that the compiler turns into vector code, compiled for AVX-512, for AVX2 and for the baseline, and
//! picked at run time: a released binary is built for the oldest x86-64 and must not crawl on a new one.
//!
//! Sums run over 16 independent lanes, since float addition may not be reordered by the compiler.

/// Lanes of a sum: one AVX-512 register, or two of AVX2.
pub(crate) const LANES: usize = 16;

/// Defines a function three times over one body, and picks by the processor's features. Everything that the body calls must
/// be `#[inline(always)]` to be compiled with them.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                if std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor has the features that the function was compiled with.
                    return unsafe { avx512($($arg),*) };
                }
                if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// Sum of `term` over slices of one length, element by element, in [`LANES`] lanes.
#[inline(always)]
pub(crate) fn sum_lanes<const K: usize>(slices: [&[f32]; K], term: impl Fn([f32; K]) -> f32) -> f32 {
    let len = slices.iter().map(|slice| slice.len()).min().unwrap_or(0);
    // Whole arrays: of a slice the compiler cannot tell that 16 more elements are there, and asks for each.
    let (whole, rest) = (slices.map(|x| x[..len].as_chunks::<LANES>().0), len - len % LANES..len);
    let mut lanes = [0f32; LANES];
    for chunk in 0..len / LANES {
        let arrays = whole.map(|arrays| &arrays[chunk]);
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(arrays.map(|array| array[lane]));
        }
    }
    let rest: f32 = rest.map(|i| term(slices.map(|slice| slice[i]))).sum();
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0] + rest
}

/// sum_i a_i b_i
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_lanes([a, b], |[a, b]| a * b)
}

/// y += factor x
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

/// Largest element; -inf of none. NaN is skipped, and surfaces in the sum that follows.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for array in whole {
        for (lane, &x) in lanes.iter_mut().zip(array) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
}

/// e^x to 2 units in the last place by Cephes' polynomial, without a branch or a call so that it vectorises; below -87.3 the
/// smallest normal number stands for the result, above 88 the largest finite power; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4; // ln 2 in two parts
    let poly = ((((1.987_569_1e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r
        + 1.666_666_5e-1)
        * r
        + 0.5;
    let mantissa = poly * r * r + r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    mantissa * f32::from_bits((exponent.wrapping_add(127) << 23) as u32)
}

multiversion! {
    /// Turns scores into softmax weights in place and returns log(sum(exp(scores))).
    pub(crate) fn softmax(scores: &mut [f32]) -> f32 {
        let largest = max(scores);
        for s in scores.iter_mut() {
            *s = exp(*s - largest);
        }
        let sum = sum_lanes([scores], |[score]| score);
        let inverse = 1.0 / sum;
        for s in scores.iter_mut() {
            *s *= inverse;
        }
        largest + sum.ln()
    }
}

multiversion! {
    /// log(sum(exp(factor * logits)))
    pub(crate) fn log_sum_exp(logits: &[f32], factor: f32) -> f32 {
        let largest = max(logits); // factor > 0
        let sum = sum_lanes([logits], |[logit]| exp((logit - largest) * factor));
        largest * factor + sum.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got / want - 1.0).abs() < 2.4e-7, "exp({x}) = {got}, want {want}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn sums_do_not_forget_the_remainder() {
        for len in [0, 1, 15, 16, 17, 50] {
            let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
            assert_eq!(dot(&x, &x), (0..len).map(|i| (i * i) as f32).sum::<f32>());
            assert_eq!(max(&x), if len == 0 { f32::NEG_INFINITY } else { (len - 1) as f32 });
        }
        let mut weights = vec![1.0, 2.0, 3.0];
        let log_sum = softmax(&mut weights);
        assert!((log_sum - log_sum_exp(&[1.0, 2.0, 3.0], 1.0)).abs() < 1e-6);
        assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
