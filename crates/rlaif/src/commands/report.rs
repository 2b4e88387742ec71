//! `rlaif report CONFIG`: the page, its curves as files, and runs side by side.

use super::stage;
use crate::cli::{ConfigArgs, ReportArgs};
use crate::context::Context;
use crate::error::{DONE, UserError};
use crate::progress::say;
use crate::report;
use crate::report::side_by_side;
use crate::report::view::{ReadRun, View};
use anyhow::Result;
use rlaif_core::config::Stage;
use std::path::Path;

/// Writes `report.html`, and with `--curves` every training curve on its own; with `--compare` `compare.html` instead.
pub fn run(args: &ReportArgs) -> Result<u8> {
    let config = args.config.as_ref().map(|file| ConfigArgs { config: file.clone(), set: args.set.clone() });
    match config {
        Some(config) if args.compare.is_empty() => write(&config, args.curves.as_deref()),
        first => compare(first, args),
    }
}

fn write(config: &ConfigArgs, curves: Option<&Path>) -> Result<u8> {
    let mut context = Context::open(config)?;
    let code = stage::run_in(&mut context, Stage::Report)?;
    let Some(folder) = curves else { return Ok(code) };
    let data = context.wait(report::collect::collect(&View::of(&context)))?;
    let written = report::write_curves(&data, folder)?;
    if written.is_empty() {
        return Err(UserError::new("no stage of this run has trained, so there are no curves")
            .hint(format!("Run `rlaif run {}` first", config.config.display()))
            .into());
    }
    written.iter().for_each(|path| say(&format!("curve `{}`", path.display())));
    Ok(code)
}

/// Reads the runs and writes nothing into their folders but the page in the first one's.
fn compare(first: Option<ConfigArgs>, args: &ReportArgs) -> Result<u8> {
    let others = args.compare.iter().map(|run| ConfigArgs { config: run.clone(), set: Vec::new() });
    let named: Vec<ConfigArgs> = first.into_iter().chain(others).collect();
    let runs: Vec<ReadRun> = named.iter().map(ReadRun::open).collect::<Result<_>>()?;
    let [first, _, ..] = runs.as_slice() else {
        return Err(UserError::new("there is one run, and nothing to compare it with")
            .hint("Name another: `rlaif report CONFIG --compare OTHER`")
            .into());
    };
    let data = side_by_side::of(&runs)?;
    let path = args.output.clone().unwrap_or_else(|| first.comparison());
    super::write_out(Some(path.as_path()), &side_by_side::render(&data)?)?;
    match args.json {
        true => super::print(&format!("{}\n", serde_json::to_string_pretty(&data)?))?,
        false => super::print(&side_by_side::table(&data))?,
    }
    say(&format!("compare `{}`", path.display()));
    Ok(DONE)
}
