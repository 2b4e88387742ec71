//! Mathematics that trainers share: pure functions of `f64` over ragged responses, without padding and without masks.

pub mod gae;
pub mod group;
pub mod kl;
pub mod whiten;

pub use gae::gae;
pub use kl::{KlCoefficient, kl_estimate};
pub use whiten::{Mean, Variance, whiten};
