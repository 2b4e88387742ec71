//! llama.cpp's blocks of few bits to float32 (`ggml-quants.c`, `dequantize_row_*`).
//!
//! Every kind cuts a row into blocks; a block has a scale `d` (and a minimum `m` in the `_1` and `_K` kinds) in float16,
//! and small integers `q`: a value is `d q` or `d q + m`. K kinds have blocks of 256, cut again into groups with scales
//! of their own.

use half::{bf16, f16};
use rayon::prelude::*;

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "these are llama.cpp's names")]
#[expect(missing_docs, reason = "the module's documentation says what they are")]
pub enum GgmlType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// Values in a block of a K kind.
const QK_K: usize = 256;

impl GgmlType {
    /// The names, for messages.
    pub const SUPPORTED: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";

    /// The kind with a number in the file, or the name of one that we do not have.
    pub(crate) fn from_code(code: u32) -> Result<Self, String> {
        let name = match code {
            0 => return Ok(GgmlType::F32),
            1 => return Ok(GgmlType::F16),
            2 => return Ok(GgmlType::Q4_0),
            3 => return Ok(GgmlType::Q4_1),
            6 => return Ok(GgmlType::Q5_0),
            7 => return Ok(GgmlType::Q5_1),
            8 => return Ok(GgmlType::Q8_0),
            12 => return Ok(GgmlType::Q4_K),
            13 => return Ok(GgmlType::Q5_K),
            14 => return Ok(GgmlType::Q6_K),
            30 => return Ok(GgmlType::BF16),
            9 => "Q8_1",
            10 => "Q2_K",
            11 => "Q3_K",
            15 => "Q8_K",
            16 => "IQ2_XXS",
            17 => "IQ2_XS",
            18 => "IQ3_XXS",
            19 => "IQ1_S",
            20 => "IQ4_NL",
            21 => "IQ3_S",
            22 => "IQ2_S",
            23 => "IQ4_XS",
            24 => "I8",
            25 => "I16",
            26 => "I32",
            27 => "I64",
            28 => "F64",
            29 => "IQ1_M",
            34 => "TQ1_0",
            35 => "TQ2_0",
            39 => "MXFP4",
            other => return Err(format!("number {other}")),
        };
        Err(name.to_string())
    }

    /// The kind's number in a file.
    pub(crate) fn code(self) -> u32 {
        match self {
            GgmlType::F32 => 0,
            GgmlType::F16 => 1,
            GgmlType::Q4_0 => 2,
            GgmlType::Q4_1 => 3,
            GgmlType::Q5_0 => 6,
            GgmlType::Q5_1 => 7,
            GgmlType::Q8_0 => 8,
            GgmlType::Q4_K => 12,
            GgmlType::Q5_K => 13,
            GgmlType::Q6_K => 14,
            GgmlType::BF16 => 30,
        }
    }

    /// Values in a block.
    pub fn block_len(self) -> usize {
        match self {
            GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 => 1,
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q8_0 => 32,
            GgmlType::Q4_K | GgmlType::Q5_K | GgmlType::Q6_K => QK_K,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            GgmlType::F32 => 4,
            GgmlType::F16 | GgmlType::BF16 => 2,
            GgmlType::Q4_0 => 2 + 16,
            GgmlType::Q4_1 => 4 + 16,
            GgmlType::Q5_0 => 2 + 4 + 16,
            GgmlType::Q5_1 => 4 + 4 + 16,
            GgmlType::Q8_0 => 2 + 32,
            GgmlType::Q4_K => 4 + 12 + 128,
            GgmlType::Q5_K => 4 + 12 + 32 + 128,
            GgmlType::Q6_K => 128 + 64 + 16 + 2,
        }
    }
}

/// Every value of `bytes` as float32, blocks in parallel.
///
/// # Panics
/// If `bytes` is not a whole number of blocks; the reader has made sure of it.
pub fn dequantize(kind: GgmlType, bytes: &[u8]) -> Vec<f32> {
    /// Enough blocks a task that handing it out costs nothing.
    const VALUES_A_TASK: usize = 1 << 15;
    assert!(bytes.len().is_multiple_of(kind.block_bytes()), "a tensor is a whole number of blocks");
    let one_block: fn(&[u8], &mut [f32]) = match kind {
        GgmlType::F32 => |block, out| out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
        GgmlType::F16 => |block, out| out[0] = half_at(block, 0),
        GgmlType::BF16 => |block, out| out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
        GgmlType::Q4_0 => q4_0,
        GgmlType::Q4_1 => q4_1,
        GgmlType::Q5_0 => q5_0,
        GgmlType::Q5_1 => q5_1,
        GgmlType::Q8_0 => q8_0,
        GgmlType::Q4_K => q4_k,
        GgmlType::Q5_K => q5_k,
        GgmlType::Q6_K => q6_k,
    };
    let (len, size) = (kind.block_len(), kind.block_bytes());
    let blocks_a_task = VALUES_A_TASK / len;
    let mut values = vec![0.0; bytes.len() / size * len];
    values.par_chunks_mut(blocks_a_task * len).zip(bytes.par_chunks(blocks_a_task * size)).for_each(
        |(values, bytes)| {
            for (out, block) in values.chunks_exact_mut(len).zip(bytes.chunks_exact(size)) {
                one_block(block, out);
            }
        },
    );
    values
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (i, byte) in block[2..].iter().enumerate() {
        out[i] = d * (f32::from(byte & 15) - 8.0);
        out[i + 16] = d * (f32::from(byte >> 4) - 8.0);
    }
}

fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, byte) in block[4..].iter().enumerate() {
        out[i] = d * f32::from(byte & 15) + m;
        out[i + 16] = d * f32::from(byte >> 4) + m;
    }
}

/// The low four bits of each value, and its fifth from the bit field `high`.
fn five_bits(high: &[u8], low: &[u8], i: usize) -> (f32, f32) {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    let first = u32::from(low[i] & 15) | ((high >> i) & 1) << 4;
    let second = u32::from(low[i] >> 4) | ((high >> (i + 16)) & 1) << 4;
    (first as f32, second as f32)
}

fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for i in 0..16 {
        let (first, second) = five_bits(&block[2..6], &block[6..], i);
        out[i] = d * (first - 16.0);
        out[i + 16] = d * (second - 16.0);
    }
}

fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for i in 0..16 {
        let (first, second) = five_bits(&block[4..8], &block[8..], i);
        out[i] = d * first + m;
        out[i + 16] = d * second + m;
    }
}

fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (value, byte) in out.iter_mut().zip(&block[2..]) {
        *value = d * f32::from(*byte as i8);
    }
}

/// Scale and minimum of group `j` of 8, six bits each, packed into twelve bytes (`get_scale_min_k4`).
fn scale_and_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
        let min = (packed[j + 4] >> 4) | (packed[j] >> 6) << 4;
        (scale, min)
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, min) = (half_at(block, 0), half_at(block, 2));
    let (scales, low) = (&block[4..16], &block[16..]);
    for (j, group) in out.chunks_exact_mut(32).enumerate() {
        let (scale, offset) = scale_and_min(scales, j);
        let (scale, offset) = (d * scale, min * offset);
        let shift = 4 * (j % 2); // two groups share 32 bytes: low halves, then high halves
        for (value, byte) in group.iter_mut().zip(&low[j / 2 * 32..]) {
            *value = scale * f32::from(byte >> shift & 15) - offset;
        }
    }
}

fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, min) = (half_at(block, 0), half_at(block, 2));
    let (scales, high, low) = (&block[4..16], &block[16..48], &block[48..]);
    for (j, group) in out.chunks_exact_mut(32).enumerate() {
        let (scale, offset) = scale_and_min(scales, j);
        let (scale, offset) = (d * scale, min * offset);
        let shift = 4 * (j % 2);
        for (i, value) in group.iter_mut().enumerate() {
            let q = (low[j / 2 * 32 + i] >> shift & 15) | (high[i] >> j & 1) << 4;
            *value = scale * f32::from(q) - offset;
        }
    }
}

fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for (j, group) in out.chunks_exact_mut(32).enumerate() {
        // 128 values use 64 bytes of low bits and 32 of high bits; within them, groups 0 and 1 are the low halves of the
        // first and second 32 bytes, groups 2 and 3 the high halves.
        let (part, quarter) = (j / 4, j % 4);
        let low = &low[part * 64 + quarter % 2 * 32..];
        let high = &high[part * 32..];
        for (i, value) in group.iter_mut().enumerate() {
            let q = (low[i] >> (4 * (quarter / 2)) & 15) | (high[i] >> (2 * quarter) & 3) << 4;
            let scale = f32::from(scales[2 * j + i / 16] as i8);
            *value = d * scale * (f32::from(q) - 32.0);
        }
    }
}
