//! `rlaif config show CONFIG`: every value and where it comes from.

use crate::cli::ConfigArgs;
use crate::context::load_config;
use anyhow::Result;

/// Prints the resolved config as TOML, each value with its origin.
pub fn show(args: &ConfigArgs) -> Result<u8> {
    super::print(&load_config(args)?.to_toml())?;
    Ok(crate::error::DONE)
}
