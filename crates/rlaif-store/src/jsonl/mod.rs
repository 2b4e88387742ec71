//! JSONL in and out: one JSON value a line.
//!
//! Reading is lenient by row and strict within one: a row that is not what it should be is kept aside with its line number
//! and the reason, and the rows after it are read all the same. Files are written whole or not at all.

mod demonstrations;
mod import;
#[cfg(test)]
mod import_tests;
mod lines;
mod parquet;
mod preferences;
mod prompts;
mod regression;
mod responses;
mod write;

pub use demonstrations::{read_demonstrations, read_demonstrations_from};
pub use import::{Shape, import_preferences, import_preferences_from};
pub use lines::{BadRow, MAX_LINE_BYTES, next_line};
pub use preferences::{
    PreferenceData, ProbePair, preference_line, preference_lines, read_preference_data,
    read_preference_data_from, read_preferences, read_preferences_from, read_probe, read_probe_from,
    write_preferences,
};
pub use prompts::{prompt_id, read_prompts, read_prompts_from};
pub use regression::{Check, RegressionRow, read_regression, read_regression_from};
pub use responses::{ResponseData, TuningRow, read_tuning_rows, read_tuning_rows_from};
pub use write::{write_bad_rows, write_jsonl};

use crate::{Result, StoreError};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// What a file holds: the rows that can be used, and those that cannot, with the reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows<T> {
    /// Good rows, in the order of the file.
    pub good: Vec<T>,
    /// Bad rows, in the order of the file.
    pub bad: Vec<BadRow>,
}

/// Reads a file with `read`; a file without a single good row is an error, as no stage could go on.
fn read_file<T>(
    path: &Path,
    read: impl FnOnce(BufReader<File>) -> std::io::Result<Rows<T>>,
) -> Result<Rows<T>> {
    let file = File::open(path).map_err(|e| StoreError::from_io(path, "opening", e))?;
    let rows = read(BufReader::new(file)).map_err(|e| StoreError::from_io(path, "reading", e))?;
    if !rows.good.is_empty() {
        return Ok(rows);
    }
    let why = match rows.bad.as_slice() {
        [] => "the file is empty".to_owned(),
        [first, rest @ ..] => {
            let others = match rest.len() {
                0 => String::new(),
                n => format!(", and {n} more like it or with faults of their own"),
            };
            format!("line {}: {}{others}", first.line, first.reason)
        }
    };
    Err(StoreError::NoRows { path: path.to_path_buf(), why })
}

#[cfg(test)]
mod tests;
