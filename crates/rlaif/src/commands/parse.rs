//! `rlaif parse`: judge transcripts to verdicts.

use crate::error::{DONE, FAILED};
use anyhow::{Context, Result};
use std::io::ErrorKind;

/// Reads JSONL `{id, text, style}` on stdin, writes JSONL `{id, verdict, reason, scores}` on stdout.
pub fn run() -> Result<u8> {
    let input = std::io::stdin().lock();
    let output = std::io::BufWriter::new(std::io::stdout().lock());
    let counts = match rlaif_judge::parse::jsonl(input, output) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(DONE),
        counts => counts.context("parsing transcripts")?,
    };
    if counts.malformed == 0 {
        return Ok(DONE);
    }
    eprintln!("error: {} of {} rows could not be read", counts.malformed, counts.rows);
    eprintln!(
        "hint: Their `reason` on stdout says which line and why; a row is {{\"id\", \"text\", \"style\"}}"
    );
    Ok(FAILED)
}
