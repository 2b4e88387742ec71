//! `rlaif import`: preferences that others published, as JSONL, gzipped or as Parquet, as rows that `reward.data` and `dpo.data` read.

use crate::cli::{ImportArgs, ImportShape};
use crate::error::{DONE, FAILED};
use crate::progress::say;
use anyhow::{Context, Result};
use rlaif_core::records::PromptText;
use rlaif_store::jsonl::{Shape, import_preferences, preference_line};
use serde_json::Value;

/// Bad rows of a file that are told; the rest are counted.
const TOLD: usize = 5;

/// Reads the files, writes their rows, and tells what was left out.
pub fn run(args: &ImportArgs) -> Result<u8> {
    let shape = args.shape.map(|shape| match shape {
        ImportShape::Trl => Shape::Trl,
        ImportShape::Hh => Shape::Hh,
        ImportShape::Ultrafeedback => Shape::UltraFeedback,
        ImportShape::Argilla => Shape::Argilla,
    });
    let (mut rows, mut left_out) = (Vec::new(), 0);
    for path in &args.files {
        let file =
            import_preferences(path, shape).with_context(|| format!("importing `{}`", path.display()))?;
        for bad in file.bad.iter().take(TOLD) {
            say(&format!("{}:{}: {}", path.display(), bad.line, bad.reason));
        }
        if file.bad.len() > TOLD {
            say(&format!("{}: and {} more rows", path.display(), file.bad.len() - TOLD));
        }
        left_out += file.bad.len();
        rows.extend(file.good);
    }
    // All rows need the same fields, as Arrow wants it.
    let conversational = rows.iter().any(|data| matches!(data.row.prompt, PromptText::Messages(_)));
    let (margins, weights) =
        (rows.iter().any(|data| data.margin != 0.0), rows.iter().any(|data| data.weight != 1.0));
    let mut text = String::new();
    for data in &rows {
        let mut line = preference_line(&data.row, conversational);
        if let Value::Object(fields) = &mut line {
            fields.insert("source".into(), args.source.clone().into());
            if margins {
                fields.insert("margin".into(), data.margin.into());
            }
            if weights {
                fields.insert("weight".into(), data.weight.into());
            }
        }
        text.push_str(&format!("{line}\n"));
    }
    super::write_out(args.output.as_deref(), &text)?;
    say(&format!("{} preferences of `{}`, {left_out} rows left out", rows.len(), args.source));
    Ok(if left_out > 0 { FAILED } else { DONE })
}
