//! `rlaif revise|sft|generate|label|reward|ppo|dpo|evaluate|report CONFIG`: one stage.

use crate::cli::ConfigArgs;
use crate::context::Context;
use crate::error::{DONE, FAILED};
use crate::pipeline;
use anyhow::Result;
use rlaif_core::config::Stage;

/// Runs one stage, also one that `run.stages` leaves out. Units of it that failed before are tried again.
pub fn run(args: &ConfigArgs, stage: Stage) -> Result<u8> {
    run_in(&mut Context::open(args)?, stage)
}

/// [`run`] in a run that is open.
pub fn run_in(context: &mut Context, stage: Stage) -> Result<u8> {
    context.say_rejected();
    let mut has = context.config.stages();
    if !has.contains(&stage) {
        has.push(stage);
    }
    pipeline::retry_failures(context, stage)?;
    let steps = pipeline::plan(context, &has, Some(stage), Some(stage))?;
    pipeline::announce(&steps);
    context.begin()?;
    let failures = pipeline::run(context, &steps)? + context.prompts.rejected;
    Ok(if failures > 0 { FAILED } else { DONE })
}
