//! Loading (placeholder).
/// Error.
#[derive(Debug)]
pub struct ConfigError;
/// Origin.
#[derive(Debug)]
pub struct Origin;
/// Resolved.
#[derive(Debug)]
pub struct Resolved;
