//! How exactly the CPU multiplies float32 matrices: one setting for the whole process, in PyTorch's words
//! (`torch.set_float32_matmul_precision`).

use rlaif_core::config::MatmulPrecision;
use std::sync::atomic::{AtomicBool, Ordering};

static MEDIUM: AtomicBool = AtomicBool::new(false);

/// Says it, for every product from now on of weights with hidden states and of their gradients; attention's own stay exact. Returns how
/// this processor will multiply.
pub fn set_float32_matmul_precision(precision: MatmulPrecision) -> MatmulPrecision {
    let medium = precision == MatmulPrecision::Medium && rounds();
    MEDIUM.store(medium, Ordering::Relaxed);
    float32_matmul_precision()
}

/// How this process multiplies.
pub fn float32_matmul_precision() -> MatmulPrecision {
    if MEDIUM.load(Ordering::Relaxed) { MatmulPrecision::Medium } else { MatmulPrecision::Highest }
}

#[cfg(feature = "flex")]
fn rounds() -> bool {
    crate::kernels::bf16::available()
}

#[cfg(not(feature = "flex"))]
fn rounds() -> bool {
    false
}
