//! Matrix products on views of slices, through the `gemm` crate.

use std::mem::MaybeUninit;

/// A matrix somewhere in a slice: `rows` x `columns`, with the distances between rows and between columns.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> View<'a> {
    /// A matrix whose rows are `row_stride` apart and whose first element is the slice's.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        check(data.len(), rows, columns, row_stride);
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix that is written: rows of `columns`, `row_stride` apart, from a raw pointer, since heads of one tensor are interleaved
/// columns that tasks write side by side.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub data: *mut f32,
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
}

// SAFETY: a Target is a pointer with a shape; whoever writes through it answers for exclusivity (see `product`).
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// All of `data`, or its leading part, as a matrix.
    pub fn new(data: &mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        check(data.len(), rows, columns, row_stride);
        Self { data: data.as_mut_ptr(), rows, columns, row_stride }
    }

    /// The part of `rows` rows from `row` and `columns` columns from `column`.
    pub fn part(self, row: usize, rows: usize, column: usize, columns: usize) -> Self {
        assert!(row + rows <= self.rows && column + columns <= self.columns, "a part lies within its matrix");
        // SAFETY: row and column are within the matrix, so the offset is within the slice it was made of.
        let data = unsafe { self.data.add(row * self.row_stride + column) };
        Self { data, rows, columns, row_stride: self.row_stride }
    }

    /// One row.
    ///
    /// # Safety
    /// Nothing else may read or write these columns of this row while the slice lives, and the matrix must still be alive.
    pub unsafe fn row<'a>(self, row: usize) -> &'a mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: in bounds by `check` and the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.row_stride), self.columns) }
    }
}

/// Numbers that nobody has written yet: what a kernel writes throughout need not be cleared first.
pub(crate) struct Unwritten(Vec<MaybeUninit<f32>>);

impl Unwritten {
    /// Room for `len` numbers.
    pub fn new(len: usize) -> Self {
        let mut room = Vec::with_capacity(len);
        // SAFETY: there is room for `len`, and such a number may hold anything.
        unsafe { room.set_len(len) };
        Self(room)
    }

    pub fn slice(&mut self) -> &mut [MaybeUninit<f32>] {
        &mut self.0
    }

    /// All of it as a matrix.
    pub fn target(&mut self, rows: usize, columns: usize) -> Target {
        check(self.0.len(), rows, columns, columns);
        Target { data: self.0.as_mut_ptr().cast(), rows, columns, row_stride: columns }
    }

    /// The numbers.
    ///
    /// # Safety
    /// Every one of them must have been written.
    pub unsafe fn written(self) -> Vec<f32> {
        let mut room = std::mem::ManuallyDrop::new(self.0);
        // SAFETY: the same memory, whose numbers the caller says are there.
        unsafe { Vec::from_raw_parts(room.as_mut_ptr().cast(), room.len(), room.capacity()) }
    }
}

fn check(len: usize, rows: usize, columns: usize, row_stride: usize) {
    let needed = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns };
    assert!(
        needed <= len && columns <= row_stride.max(columns),
        "{rows} x {columns} by {row_stride} in {len} numbers"
    );
}

/// What a product does with what the target holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Replace,
    Add,
}

/// target = factor * a b, or target += factor * a b.
///
/// # Safety
/// Nothing else may read or write the target's part meanwhile, and it must still be alive.
pub(crate) unsafe fn product(
    target: Target,
    write: Write,
    factor: f32,
    a: View<'_>,
    b: View<'_>,
    parallel: bool,
) {
    assert_eq!((a.rows, a.columns, b.columns), (target.rows, b.rows, target.columns), "shapes of a product");
    if a.rows == 0 || b.columns == 0 || a.columns == 0 {
        return; // no caller replaces by an empty sum
    }
    let parallelism = if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: `check` bounds both views and the target; exclusivity is the caller's promise.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            target.data,
            1,
            target.row_stride as isize,
            write == Write::Add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}
