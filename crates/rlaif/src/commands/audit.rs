//! `rlaif audit CONFIG`: how far the judges of a run, and what they made, can be trusted.

use crate::audit::{Part, table};
use crate::cli::AuditArgs;
use crate::context::Context;
use crate::error::{DONE, FAILED};
use anyhow::Result;
use rlaif_core::audit::Audit;

/// Measures what was asked for; fails if a bound is not kept.
pub fn run(args: &AuditArgs) -> Result<u8> {
    let mut context = Context::open(&args.config)?;
    let mut audit = Audit::default();
    for part in Part::asked(args) {
        let measured = part.measure(&mut context, args)?;
        audit.parts.insert(part.name().into(), measured);
    }
    match args.json {
        true => super::print(&format!("{}\n", serde_json::to_string_pretty(&audit)?))?,
        false => super::print(&table(&audit))?,
    }
    let mut measurements = audit.parts.values().flat_map(|part| &part.measurements);
    Ok(if measurements.any(|it| it.outcome.fails(args.strict)) { FAILED } else { DONE })
}
