//! One file a command.

pub mod audit;
pub mod batch;
pub mod config;
pub mod export;
pub mod export_model;
pub mod import;
pub mod iterate;
pub mod logprobs;
pub mod parse;
pub mod plan;
pub mod report;
pub mod review;
pub mod run;
pub mod score;
pub mod stage;

use crate::error::UserError;
use crate::run_folder::write_whole;
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{BufRead, Write};
use std::path::Path;

/// Writes a whole text to stdout. Whoever reads may have seen enough, as `head` does: that is no error.
///
/// # Errors
/// If it cannot be written for another reason.
pub fn print(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing stdout"),
    }
}

/// Writes a whole text to a file, or to stdout if there is none: whole or not at all where the path is a file; straight through where it
/// is a pipe or a device, which must not be replaced.
///
/// # Errors
/// If it cannot be written.
fn write_out(path: Option<&Path>, text: &str) -> Result<()> {
    match path {
        None => print(text),
        Some(path) if path.metadata().is_ok_and(|found| !found.is_file()) => {
            std::fs::write(path, text).with_context(|| format!("writing `{}`", path.display()))
        }
        Some(path) => write_whole(path, text.as_bytes()),
    }
}

/// Answers each JSONL line of stdin on stdout. A line that cannot be answered becomes `{"error": …}` with its number, so that
/// answers stay in step with questions; the returned count of them changes the exit code.
fn answer_lines<Q: DeserializeOwned>(
    expected: &str,
    mut answer: impl FnMut(Q) -> Result<Value>,
) -> Result<usize> {
    let mut failed = 0;
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    let mut input = std::io::stdin().lock();
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        if input.read_until(b'\n', &mut bytes).context("reading stdin")? == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&bytes);
        if line.trim().is_empty() {
            continue;
        }
        let answered = serde_json::from_str::<Q>(line.trim())
            .map_err(|error| UserError::new(format!("not {expected}: {error}")).into())
            .and_then(&mut answer);
        let row = answered.unwrap_or_else(|error| {
            failed += 1;
            eprintln!("error: line {number}: {error:#}");
            serde_json::json!({ "error": format!("line {number}: {error:#}") })
        });
        match writeln!(output, "{row}").and_then(|()| output.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            written => written.context("writing stdout")?,
        }
    }
    Ok(failed)
}
