//! `rlaif plan CONFIG`: what each stage would do and why, and what its judges would cost.

use crate::cli::PlanArgs;
use crate::context::Context;
use crate::error::DONE;
use crate::estimate::{self, Estimate, TOKENS_BY};
use crate::pipeline::{self, Action};
use crate::progress::duration_text;
use crate::stages;
use anyhow::Result;
use rlaif_core::MicroUsd;
use serde_json::json;
use std::time::Duration;

/// Prints one line a stage and one a judge and template; computes and sends nothing.
pub fn run(args: &PlanArgs) -> Result<u8> {
    let context = Context::open(&args.config)?;
    context.say_rejected();
    let steps = pipeline::plan(&context, &context.config.stages(), None, None)?;
    let mut rows = Vec::new();
    let mut any_paid = false;
    for step in &steps {
        let (action, why) = match &step.action {
            Action::Skip => ("skip", "done before, nothing changed".to_string()),
            Action::Compute => ("compute", String::new()),
            Action::Resume => ("resume", "it was interrupted".to_string()),
            Action::Recompute(why) => ("recompute", why.join("; ")),
        };
        let size = stages::size(&context, step.stage);
        let judges = match &step.action {
            Action::Skip => Vec::new(),
            _ => estimate::of_stage(&context, step.stage)?,
        };
        if !args.json {
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            super::print(&format!("{:<9} {action:<9} {size}{why}\n", step.stage.name()))?;
            judges.iter().try_for_each(|judge| super::print(&format!("{:<19} {}\n", "", line(judge))))?;
        }
        any_paid |= judges.iter().any(|judge| judge.minutes.is_some());
        rows.push(json!({
            "stage": step.stage.name(), "action": action, "why": why, "size": size, "judges": judges,
            "tokens_by": TOKENS_BY,
        }));
    }
    if args.json {
        super::print(&format!("{}\n", serde_json::Value::Array(rows)))?;
    } else if any_paid {
        super::print(&format!(
            "Tokens are {TOKENS_BY}; the time is that of an endpoint without limits and queues.\n"
        ))?;
    }
    Ok(DONE)
}

fn line(judge: &Estimate) -> String {
    let Estimate { judge: name, template, calls, answered, prompt_tokens, completion_tokens, .. } = judge;
    let spared = match judge.spared {
        0 => String::new(),
        spared => format!(", {spared} more spared by `[route]`"),
    };
    let tokens = format!("{} tokens in, {} out", rounded(*prompt_tokens), rounded(*completion_tokens));
    let Some(minutes) = judge.minutes else {
        return format!("`{name}` by `{template}`: {calls} questions{spared}, {tokens}, no calls");
    };
    let cost = match (judge.micro_usd, judge.micro_usd_at_most) {
        (Some(usual), Some(most)) => format!("{} (at most {})", MicroUsd(usual), MicroUsd(most)),
        _ => "price unknown".into(),
    };
    let time = duration_text(Duration::from_secs_f64(60.0 * minutes));
    let time = if judge.batch { format!("at most {time} in batches") } else { format!("about {time}") };
    let bought =
        if *answered > 0 { format!(", {answered} of its answers are in the ledger") } else { String::new() };
    format!("`{name}` by `{template}`: {calls} calls{spared}, {tokens}, {cost}, {time}{bought}")
}

/// `950`, `12k`, `3.4M`.
fn rounded(tokens: u64) -> String {
    match tokens {
        0..10_000 => tokens.to_string(),
        10_000..1_000_000 => format!("{}k", tokens / 1000),
        _ => format!("{:.1}M", tokens as f64 / 1e6),
    }
}
