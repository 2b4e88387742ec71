//! `rlaif parse`: judge transcripts to verdicts.

use crate::error::{DONE, FAILED};
use anyhow::{Context, Result};

/// Reads JSONL `{id, text, style}` on stdin, writes JSONL `{id, verdict, reason, scores}` on stdout.
pub fn run() -> Result<u8> {
    let input = std::io::stdin().lock();
    let output = std::io::BufWriter::new(std::io::stdout().lock());
    let counts = rlaif_judge::parse::jsonl(input, output).context("parsing transcripts")?;
    Ok(if counts.malformed > 0 { FAILED } else { DONE })
}
