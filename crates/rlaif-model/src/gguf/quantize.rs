//! Float32 to the kinds of tensor that we write, as llama.cpp's `gguf` package does (`gguf/quants.py`).

use half::{bf16, f16};
use rayon::prelude::*;

use super::dequantize::GgmlType;

/// Values in a block of Q8_0.
const QK8_0: usize = 32;

/// `values` in the bytes of `kind`, blocks in parallel; `None` for a kind that we do not write.
///
/// F16 and BF16 round to nearest, ties to even; what F16 cannot hold becomes infinite, which the caller has ruled out.
///
/// # Panics
/// If the values are not a whole number of blocks.
pub fn quantize(kind: GgmlType, values: &[f32]) -> Option<Vec<u8>> {
    assert!(values.len().is_multiple_of(kind.block_len()), "a row is a whole number of blocks");
    Some(match kind {
        GgmlType::F32 => values.par_iter().flat_map_iter(|value| value.to_le_bytes()).collect(),
        GgmlType::F16 => values.par_iter().flat_map_iter(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        GgmlType::BF16 => values.par_iter().flat_map_iter(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        GgmlType::Q8_0 => values.par_chunks_exact(QK8_0).flat_map_iter(q8_0).collect(),
        _ => return None,
    })
}

/// d = max |x| / 127 in float16, then q = x / d rounded half away from zero, by the d that was not yet rounded.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut block = f16::from_f32(scale).to_le_bytes().to_vec();
    block.extend(values.iter().map(|value| (value * inverse).round() as i8 as u8));
    block
}
