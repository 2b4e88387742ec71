//! Matrix products of bfloat16 numbers with float32 sums, where the processor has AVX512-BF16.
//!
//! Both factors are rounded to bfloat16 (nearest, ties to even) as they are packed: a in panels of [`ROWS`] rows, b in panels of
//! [`COLUMNS`] columns, both by pairs of the inner dimension, which is what one instruction multiplies and adds. The loops are those of
//! Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication" (<https://doi.org/10.1145/1356052.1356053>).

use std::ops::Range;

use burn::backend::flex::FlexTensor;

use super::matrix::{Target, Unwritten, View, Write};
use super::{Contiguous, dims, tensor};

/// Rows of a register tile: 24 sums, two columns and a factor take 27 of 32 registers.
const ROWS: usize = 12;
/// Columns of a register tile: two registers of 16.
const COLUMNS: usize = 32;
/// Most pairs of the inner dimension that are summed before a tile is written back: a panel of b is then at most 48 KB.
const DEPTH: usize = 384;
/// Most panels of rows that are packed at a time: 360 KB.
const BLOCK: usize = 20;

/// Whether this processor can.
pub(crate) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("avx512bf16")
            && std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// A right factor, packed.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Panel by panel, for each pair of rows [`COLUMNS`] pairs of numbers; what is missing is 0.
    panels: Vec<u32>,
    rows: usize,
    columns: usize,
}

impl Packed {
    /// Packs `b`, `[k, n]`.
    pub fn new(b: View<'_>) -> Self {
        let pairs = b.rows.div_ceil(2);
        let mut panels = vec![0; b.columns.div_ceil(COLUMNS) * pairs * COLUMNS];
        if pairs > 0 {
            use rayon::prelude::*;
            panels
                .par_chunks_exact_mut(pairs * COLUMNS)
                .enumerate()
                .for_each(|(panel, out)| pack_columns(b, panel * COLUMNS, out));
        }
        Self { panels, rows: b.rows, columns: b.columns }
    }

    /// n.
    pub fn columns(&self) -> usize {
        self.columns
    }

    fn pairs(&self) -> usize {
        self.rows.div_ceil(2)
    }

    /// `depth` pairs of a panel from pair `from`.
    fn part(&self, panel: usize, from: usize, depth: usize) -> &[u32] {
        &self.panels[(panel * self.pairs() + from) * COLUMNS..][..depth * COLUMNS]
    }
}

/// a b, `[m, n]` row-major.
///
/// # Panics
/// If the shapes do not fit, or the processor cannot.
pub(crate) fn product(a: View<'_>, b: &Packed) -> Vec<f32> {
    let mut c = Unwritten::new(a.rows * b.columns);
    // SAFETY: `c` is written here and by nobody else; a product that replaces writes every number.
    unsafe {
        write_product(c.target(a.rows, b.columns), Write::Replace, a, b);
        c.written()
    }
}

/// c = a b, or c += a b, for c `[m, n]` row-major.
///
/// # Panics
/// As [`product`].
pub(crate) fn product_into(c: &mut [f32], write: Write, a: View<'_>, b: &Packed) {
    assert_eq!(c.len(), a.rows * b.columns, "shapes of a product");
    let target = Target::new(c, a.rows, b.columns, b.columns);
    // SAFETY: the target is borrowed mutably here and by nobody else.
    unsafe { write_product(target, write, a, b) };
}

/// [`product_into`], which reads nothing of the target where it replaces it.
///
/// # Safety
/// Nothing else may read or write the target meanwhile, and it must still be alive.
unsafe fn write_product(c: Target, write: Write, a: View<'_>, b: &Packed) {
    use rayon::prelude::*;
    assert!(available(), "the processor multiplies bfloat16 numbers");
    assert_eq!((a.rows, a.columns, b.columns), (c.rows, b.rows, c.columns), "shapes of a product");
    let (m, n, pairs) = (a.rows, b.columns, b.pairs());
    if pairs == 0 && write == Write::Replace {
        // SAFETY: the caller's promise; rows of zeros are written, and nothing is read.
        (0..m).for_each(|row| unsafe { c.part(row, 1, 0, n).data.write_bytes(0, n) });
    }
    let depth_of_pass = pairs.div_ceil(pairs.div_ceil(DEPTH).max(1)).max(1);
    let (row_panels, panels) = (m.div_ceil(ROWS), n.div_ceil(COLUMNS));
    if row_panels * panels == 0 {
        return;
    }
    let (blocks, parts) = tasks(row_panels, panels, rayon::current_num_threads());
    (0..blocks * parts).into_par_iter().with_max_len(1).for_each_init(Vec::new, |packed, task| {
        let rows = share(row_panels, blocks, task / parts);
        let rows = rows.start * ROWS..(rows.end * ROWS).min(m);
        for from in (0..pairs).step_by(depth_of_pass) {
            let depth = depth_of_pass.min(pairs - from);
            let add = write == Write::Add || from > 0;
            pack_rows(a, rows.clone(), from..from + depth, packed);
            for panel in share(panels, parts, task % parts) {
                let width = COLUMNS.min(n - panel * COLUMNS);
                let right = b.part(panel, from, depth);
                for (left, row) in packed.chunks_exact(depth * ROWS).zip(rows.clone().step_by(ROWS)) {
                    let height = ROWS.min(rows.end - row);
                    // SAFETY: the processor can, and tasks have tiles of their own.
                    unsafe { write_tile(left, right, c.part(row, height, panel * COLUMNS, width), add) };
                }
            }
        }
    });
}

/// Into how many blocks of rows and parts of columns a product falls, so that all threads get the same: a multiple of their number,
/// of equal tasks. Rows alone are shared out where there are enough, since each part of the columns packs its rows again.
fn tasks(row_panels: usize, panels: usize, threads: usize) -> (usize, usize) {
    let fewest = row_panels.div_ceil(BLOCK);
    if fewest > threads {
        return (fewest.next_multiple_of(threads).min(row_panels), 1);
    }
    let wanted = 2 * threads;
    let blocks = (fewest..=wanted).find(|&blocks| wanted.is_multiple_of(blocks)).unwrap_or(wanted);
    (blocks, (wanted / blocks).min(panels))
}

/// The `i`-th of `parts` shares of `0..n`, which differ by one at most.
fn share(n: usize, parts: usize, i: usize) -> Range<usize> {
    i * n / parts..(i + 1) * n / parts
}

/// x W for `[N, in]` and `[in, out]`.
pub(crate) fn forward(x: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    let ([tokens, _], [inputs, outputs]) = (dims(x), dims(weight));
    let (x, weight) = (Contiguous::of(x), Contiguous::of(weight));
    let weight = Packed::new(View::new(weight.slice(), inputs, outputs, outputs));
    tensor(product(View::new(x.slice(), tokens, inputs, inputs), &weight), [tokens, outputs])
}

/// dx = dy Wᵀ, `[N, in]`.
pub(crate) fn input_gradient(grad: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    let ([tokens, _], [inputs, outputs]) = (dims(grad), dims(weight));
    let (grad, weight) = (Contiguous::of(grad), Contiguous::of(weight));
    let weight = Packed::new(View::new(weight.slice(), inputs, outputs, outputs).t());
    tensor(product(View::new(grad.slice(), tokens, outputs, outputs), &weight), [tokens, inputs])
}

/// dW = xᵀ dy, `[in, out]`.
pub(crate) fn weight_gradient(grad: &FlexTensor, x: &FlexTensor) -> FlexTensor {
    let ([tokens, outputs], [_, inputs]) = (dims(grad), dims(x));
    let (grad, x) = (Contiguous::of(grad), Contiguous::of(x));
    let grad = Packed::new(View::new(grad.slice(), tokens, outputs, outputs));
    tensor(product(View::new(x.slice(), tokens, inputs, inputs).t(), &grad), [inputs, outputs])
}

/// The nearest bfloat16, ties to even, as its bits; NaN stays NaN.
#[inline(always)]
fn nearest(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() { (bits >> 16) | 0x40 } else { rounded }
}

/// Two numbers that are multiplied and added together.
#[inline(always)]
fn pair(even: f32, odd: f32) -> u32 {
    nearest(even) | nearest(odd) << 16
}

/// A matrix as lines along its inner dimension.
#[derive(Clone, Copy)]
struct Lines<'a> {
    data: &'a [f32],
    depth: usize,
    line_stride: usize,
    depth_stride: usize,
}

impl Lines<'_> {
    /// Transposes pairs out of the lines from `first`: `out[p * width + i]` is pair `p` of line `first + i`. Lines from `count` on are 0.
    fn pack(self, first: usize, count: usize, pairs: Range<usize>, width: usize, out: &mut [u32]) {
        let whole = pairs.start..pairs.end.min(self.depth / 2).max(pairs.start);
        let packed = self.pack_whole(first, count, whole.clone(), width, out);
        self.pack_one_by_one(
            first,
            count,
            whole.start + packed..pairs.end,
            width,
            &mut out[packed * width..],
        );
    }

    /// The first of these pairs, as many as go by registers, and how many these are; none of them lacks its odd number.
    fn pack_whole(
        self,
        first: usize,
        count: usize,
        pairs: Range<usize>,
        width: usize,
        out: &mut [u32],
    ) -> usize {
        #[cfg(target_arch = "x86_64")]
        if available() && count > 0 && !pairs.is_empty() {
            let (last_line, last_depth) = (first + count - 1, 2 * pairs.end - 1);
            assert!(
                last_line * self.line_stride + last_depth * self.depth_stride < self.data.len(),
                "lines end within their matrix"
            );
            assert!(count <= width && pairs.len() * width <= out.len(), "there is room for {count} lines");
            if self.line_stride == 1 {
                // SAFETY: the processor can, and all that is read and written was just seen to be there.
                unsafe {
                    avx512::pack_across(self.data, self.depth_stride, first, count, pairs.clone(), width, out)
                };
                return pairs.len();
            }
            if self.depth_stride == 1 {
                // SAFETY: as above.
                return unsafe {
                    avx512::pack_along(self.data, self.line_stride, first, count, pairs, width, out)
                };
            }
        }
        0
    }

    fn pack_one_by_one(self, first: usize, count: usize, pairs: Range<usize>, width: usize, out: &mut [u32]) {
        let Lines { data, depth, line_stride, depth_stride } = self;
        for (p, out) in pairs.zip(out.chunks_exact_mut(width)) {
            let (even, odd) = (2 * p * depth_stride, (2 * p + 1) * depth_stride);
            for (i, out) in out[..count].iter_mut().enumerate() {
                let line = (first + i) * line_stride;
                *out = pair(data[line + even], if 2 * p + 1 < depth { data[line + odd] } else { 0.0 });
            }
            out[count..].fill(0);
        }
    }
}

/// A panel of b: columns from `first`.
fn pack_columns(b: View<'_>, first: usize, out: &mut [u32]) {
    let lines =
        Lines { data: b.data, depth: b.rows, line_stride: b.column_stride, depth_stride: b.row_stride };
    lines.pack(first, COLUMNS.min(b.columns - first), 0..b.rows.div_ceil(2), COLUMNS, out);
}

/// Panels of a: these rows, and of their inner dimension these pairs.
fn pack_rows(a: View<'_>, rows: Range<usize>, pairs: Range<usize>, out: &mut Vec<u32>) {
    let lines =
        Lines { data: a.data, depth: a.columns, line_stride: a.row_stride, depth_stride: a.column_stride };
    let panel = pairs.len() * ROWS;
    out.resize(rows.len().div_ceil(ROWS) * panel, 0);
    for (out, first) in out.chunks_exact_mut(panel).zip(rows.clone().step_by(ROWS)) {
        lines.pack(first, ROWS.min(rows.end - first), pairs.clone(), ROWS, out);
    }
}

/// c = a b, or c += a b, for a tile of at most [`ROWS`] and [`COLUMNS`].
///
/// # Safety
/// The processor must be able to, and nothing else may touch the tile.
unsafe fn write_tile(a: &[u32], b: &[u32], c: Target, add: bool) {
    #[cfg(target_arch = "x86_64")]
    macro_rules! of_height {
        ($($rows:literal)*) => {
            match c.rows {
                // SAFETY: the caller's promise.
                $($rows => unsafe { avx512::tile::<$rows>(a, b, c, add) },)*
                _ => unreachable!("a tile has 1 to {ROWS} rows"),
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    of_height!(1 2 3 4 5 6 7 8 9 10 11 12);
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no other processor is said to be able to: {a:?} {b:?} {:?} {add}", c.data);
}

/// Billions of operations a second of register tiles whose factors stay in the cache of each thread: what a product could reach.
#[cfg(test)]
pub(super) fn peak(threads: usize) -> f64 {
    use rayon::prelude::*;
    let (depth, tiles) = (64, 100_000);
    let once = || {
        let start = std::time::Instant::now();
        (0..threads).into_par_iter().for_each(|_| {
            let (a, b) = (vec![0x3f80_3f80; depth * ROWS], vec![0x3f80_3f80; depth * COLUMNS]);
            let mut c = vec![0.0; ROWS * COLUMNS];
            for _ in 0..tiles {
                // SAFETY: the tile is all of `c`.
                unsafe { write_tile(&a, &b, Target::new(&mut c, ROWS, COLUMNS, COLUMNS), false) };
            }
            std::hint::black_box(c);
        });
        (threads * tiles * 4 * depth * ROWS * COLUMNS) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(|_| once()).fold(0.0, f64::max)
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{COLUMNS, ROWS, Target};
    use std::arch::x86_64::*;
    use std::ops::Range;

    /// Lanes of a register.
    const LANES: usize = 16;

    /// The first `count` of 16 lanes.
    fn first_lanes(count: usize) -> __mmask16 {
        ((1u32 << count.min(LANES)) - 1) as __mmask16
    }

    /// Packs lines that lie side by side, their numbers `stride` apart.
    ///
    /// # Safety
    /// The processor must be able to, the numbers be there, and `out` have `width` for each pair, of which `count` are lines.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn pack_across(
        data: &[f32],
        stride: usize,
        first: usize,
        count: usize,
        pairs: Range<usize>,
        width: usize,
        out: &mut [u32],
    ) {
        for (p, out) in pairs.zip(out.chunks_exact_mut(width)) {
            for from in (0..width).step_by(LANES) {
                let read = first_lanes(count.saturating_sub(from));
                let even = data.as_ptr().wrapping_add(2 * p * stride + first + from);
                // SAFETY: lanes beyond the lines are not read, lanes beyond the width not written.
                unsafe {
                    let even = rounded(_mm512_maskz_loadu_ps(read, even));
                    let odd = rounded(_mm512_maskz_loadu_ps(
                        read,
                        data.as_ptr().wrapping_add((2 * p + 1) * stride + first + from),
                    ));
                    let both = _mm512_or_si512(even, _mm512_slli_epi32::<16>(odd));
                    _mm512_mask_storeu_epi32(
                        out.as_mut_ptr().add(from).cast(),
                        first_lanes(width - from),
                        both,
                    );
                }
            }
        }
    }

    /// The bits of the nearest bfloat16 numbers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn rounded(x: __m512) -> __m512i {
        // SAFETY: the bits of a register are what they are.
        _mm512_cvtepu16_epi32(unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) })
    }

    /// Packs lines of numbers that lie side by side, lines `stride` apart, 16 pairs at a time; returns how many of the pairs.
    ///
    /// # Safety
    /// As [`pack_across`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn pack_along(
        data: &[f32],
        stride: usize,
        first: usize,
        count: usize,
        pairs: Range<usize>,
        width: usize,
        out: &mut [u32],
    ) -> usize {
        let whole = pairs.len() / LANES * LANES;
        for from in (0..width).step_by(LANES) {
            let lanes = first_lanes(width - from);
            for at in (0..whole).step_by(LANES) {
                let mut square = [_mm512_setzero_si512(); LANES];
                for (line, square) in square.iter_mut().enumerate().take(count.saturating_sub(from)) {
                    let place =
                        data.as_ptr().wrapping_add((first + from + line) * stride + 2 * (pairs.start + at));
                    // SAFETY: 32 numbers of a line that is there.
                    *square = unsafe {
                        let (low, high) = (_mm512_loadu_ps(place), _mm512_loadu_ps(place.add(LANES)));
                        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
                    };
                }
                for (pair, line) in transposed(square).into_iter().enumerate() {
                    // SAFETY: lanes beyond the width are not written.
                    unsafe {
                        _mm512_mask_storeu_epi32(
                            out.as_mut_ptr().add((at + pair) * width + from).cast(),
                            lanes,
                            line,
                        )
                    };
                }
            }
        }
        whole
    }

    /// Rows and columns exchanged.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
        // Within each quarter of the registers: 4 x 4 numbers of four rows change places.
        let mut quarters = rows;
        for i in (0..LANES).step_by(4) {
            let [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
            let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (low2, high2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            quarters[i] = _mm512_unpacklo_epi64(low, low2);
            quarters[i + 1] = _mm512_unpackhi_epi64(low, low2);
            quarters[i + 2] = _mm512_unpacklo_epi64(high, high2);
            quarters[i + 3] = _mm512_unpackhi_epi64(high, high2);
        }
        // Then the quarters do.
        let mut columns = rows;
        for j in 0..4 {
            let [a, b, c, d] = [quarters[j], quarters[j + 4], quarters[j + 8], quarters[j + 12]];
            let (first, second) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
            let (third, fourth) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
            columns[j] = _mm512_shuffle_i32x4::<0x88>(first, third);
            columns[j + 4] = _mm512_shuffle_i32x4::<0xdd>(first, third);
            columns[j + 8] = _mm512_shuffle_i32x4::<0x88>(second, fourth);
            columns[j + 12] = _mm512_shuffle_i32x4::<0xdd>(second, fourth);
        }
        columns
    }

    /// # Safety
    /// As `write_tile`.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn tile<const HEIGHT: usize>(a: &[u32], b: &[u32], c: Target, add: bool) {
        let mut sums = [[_mm512_setzero_ps(); 2]; HEIGHT];
        for (a, b) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<COLUMNS>().0) {
            // SAFETY: both loads are of the 16 numbers from 0 and from 16 of 32; the bits of a register are what they are.
            let [b0, b1]: [__m512bh; 2] = unsafe {
                std::mem::transmute([
                    _mm512_loadu_si512(b.as_ptr().cast()),
                    _mm512_loadu_si512(b.as_ptr().add(16).cast()),
                ])
            };
            for (sums, &pair) in sums.iter_mut().zip(a) {
                // SAFETY: as above.
                let pair: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32(pair.cast_signed())) };
                sums[0] = _mm512_dpbf16_ps(sums[0], pair, b0);
                sums[1] = _mm512_dpbf16_ps(sums[1], pair, b1);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (from, sum) in [0, 16].into_iter().zip(sums) {
                let (place, lanes) = (
                    c.data.wrapping_add(row * c.row_stride + from),
                    first_lanes(c.columns.saturating_sub(from)),
                );
                // SAFETY: only lanes within the tile are read or written.
                unsafe {
                    let before = if add { _mm512_maskz_loadu_ps(lanes, place) } else { _mm512_setzero_ps() };
                    _mm512_mask_storeu_ps(place, lanes, _mm512_add_ps(*sum, before));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(seed: u64, n: usize) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| rng.random_range(-1.5..1.5)).collect()
    }

    #[test]
    fn numbers_are_rounded_as_half_rounds_them() {
        let some =
            [0.0, -0.0, 1.0, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, 3e-40, 1.003_906_2, 1.011_718_8];
        for x in some.into_iter().chain(random(1, 1000)) {
            assert_eq!(nearest(x), u32::from(bf16::from_f32(x).to_bits()), "{x}");
        }
        assert!(bf16::from_bits(nearest(f32::NAN) as u16).is_nan());
    }

    /// Tiles, panels and blocks that are whole and that are not, whichever way the factors lie.
    #[test]
    fn a_product_is_the_sum_of_rounded_products() {
        if !available() {
            println!("skipped: this processor does not multiply bfloat16 numbers");
            return;
        }
        let shapes = [
            (1, 1, 1),
            (3, 5, 7),
            (12, 32, 32),
            (13, 33, 65),
            (250, 600, 100),
            (1, 576, 1536),
            (500, 1025, 31),
            (2, 0, 3),
        ];
        let rounded = |x: f32| bf16::from_f32(x).to_f64();
        for (m, k, n) in shapes {
            let (a, b, before) = (random(2, m * k), random(3, k * n), random(4, m * n));
            for turned in [[false, false], [false, true], [true, false], [true, true]] {
                let view = |data, rows, columns, turned| match turned {
                    false => View::new(data, rows, columns, columns),
                    true => View::new(data, columns, rows, rows).t(),
                };
                let at = |v: View<'_>, i: usize, j: usize| v.data[i * v.row_stride + j * v.column_stride];
                let (va, vb) = (view(&a, m, k, turned[0]), view(&b, k, n, turned[1]));
                let mut c = before.clone();
                product_into(&mut c, Write::Add, va, &Packed::new(vb));
                for (place, (found, before)) in c.iter().zip(&before).enumerate() {
                    let (i, j) = (place / n, place % n);
                    let sum: f64 = (0..k).map(|l| rounded(at(va, i, l)) * rounded(at(vb, l, j))).sum();
                    let wanted = sum + f64::from(*before);
                    let allowed = 1e-6 * (k as f64).max(8.0);
                    assert!(
                        (f64::from(*found) - wanted).abs() < allowed,
                        "{m}x{k}x{n}, {i},{j}: {found} {wanted}"
                    );
                }
            }
        }
    }
}
