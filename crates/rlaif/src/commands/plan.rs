//! `rlaif plan CONFIG`: what each stage would do and why.

use crate::cli::PlanArgs;
use crate::context::Context;
use crate::error::DONE;
use crate::pipeline::{self, Action};
use crate::stages;
use anyhow::Result;
use serde_json::json;

/// Prints one line a stage; computes and sends nothing.
pub fn run(args: &PlanArgs) -> Result<u8> {
    let context = Context::open(&args.config)?;
    context.say_rejected();
    let steps = pipeline::plan(&context, &context.config.run.stages, None, None)?;
    let mut rows = Vec::new();
    for step in &steps {
        let (action, why) = match &step.action {
            Action::Skip => ("skip", "done before, nothing changed".to_string()),
            Action::Compute => ("compute", String::new()),
            Action::Resume => ("resume", "it was interrupted".to_string()),
            Action::Recompute(why) => ("recompute", why.join("; ")),
        };
        let size = stages::size(&context, step.stage);
        rows.push(json!({ "stage": step.stage.name(), "action": action, "why": why, "size": size }));
        if !args.json {
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            println!("{:<9} {action:<9} {size}{why}", step.stage.name());
        }
    }
    if args.json {
        println!("{}", serde_json::Value::Array(rows));
    }
    Ok(DONE)
}
