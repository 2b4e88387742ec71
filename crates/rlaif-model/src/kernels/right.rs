//! A right factor that several products share, as exact or as rounded as they shall be.

use super::bf16::{self, Packed, product_into};
use super::matrix::{Target, View, Write, product};
use rlaif_core::config::MatmulPrecision;

/// b, `[k, n]`.
pub(crate) enum Right<'a> {
    /// As it lies.
    Exact(View<'a>),
    /// Rounded and packed.
    Rounded(Packed),
}

impl<'a> Right<'a> {
    /// Packs it if that is wanted.
    pub fn of(b: View<'a>, precision: MatmulPrecision) -> Self {
        match precision {
            MatmulPrecision::Highest => Self::Exact(b),
            MatmulPrecision::Medium => Self::Rounded(Packed::new(b)),
        }
    }

    /// a b, `[m, n]` row-major.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn product(&self, a: View<'_>) -> Vec<f32> {
        match self {
            Self::Exact(b) => {
                let mut c = vec![0.0; a.rows * b.columns];
                self.write_product(&mut c, Write::Replace, a);
                c
            }
            Self::Rounded(b) => bf16::product(a, b),
        }
    }

    /// c += a b, for c `[m, n]` row-major.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn add_product(&self, c: &mut [f32], a: View<'_>) {
        self.write_product(c, Write::Add, a);
    }

    /// c = a b, or c += a b, for c `[m, n]` row-major.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn write_product(&self, c: &mut [f32], write: Write, a: View<'_>) {
        match self {
            Self::Exact(b) => {
                let target = Target::new(c, a.rows, b.columns, b.columns);
                // SAFETY: the target is borrowed mutably here and by nobody else.
                unsafe { product(target, write, 1.0, a, *b, true) };
            }
            Self::Rounded(b) => product_into(c, write, a, b),
        }
    }
}
