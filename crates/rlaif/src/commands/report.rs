//! `rlaif report CONFIG`: the page, and its curves as files.

use super::stage;
use crate::cli::ReportArgs;
use crate::context::Context;
use crate::error::UserError;
use crate::progress::say;
use crate::report;
use anyhow::Result;
use rlaif_core::config::Stage;

/// Writes `report.html`, and with `--curves` every training curve on its own.
pub fn run(args: &ReportArgs) -> Result<u8> {
    let mut context = Context::open(&args.config)?;
    let code = stage::run_in(&mut context, Stage::Report)?;
    let Some(folder) = &args.curves else { return Ok(code) };
    let written = report::write_curves(&report::collect::collect(&context)?, folder)?;
    if written.is_empty() {
        return Err(UserError::new("no stage of this run has trained, so there are no curves")
            .hint(format!("Run `rlaif run {}` first", args.config.config.display()))
            .into());
    }
    written.iter().for_each(|path| say(&format!("curve `{}`", path.display())));
    Ok(code)
}
