//! `rlaif run CONFIG`: the whole pipeline.

use crate::cli::RunArgs;
use crate::context::Context;
use crate::error::{DONE, FAILED};
use crate::pipeline;
use crate::stages::report::Outcome;
use anyhow::Result;
use rlaif_core::config::Stage;

/// Runs every stage of `run.stages` that is not done, and says what came out.
pub fn run(args: &RunArgs) -> Result<u8> {
    let mut context = Context::open(&args.config)?;
    context.say_rejected();
    let (from, until) = (args.from.map(Stage::from), args.until.map(Stage::from));
    let mut stages = context.config.stages();
    let named: Vec<Stage> = from.into_iter().chain(until).filter(|stage| !stages.contains(stage)).collect();
    stages.extend(named);
    let steps = pipeline::plan(&context, &stages, from, until)?;
    pipeline::announce(&steps);
    context.begin()?;
    let failures = pipeline::run(&mut context, &steps)?;
    let outcome = Outcome::collect(&context, failures)?;
    match args.json {
        true => super::print(&format!("{}\n", serde_json::to_string_pretty(&outcome)?))?,
        false => eprint!("{}", outcome.text(&args.config.config)),
    }
    Ok(if failures + context.prompts.rejected > 0 { FAILED } else { DONE })
}
