//! Files of rows that are trained on (`sft.data`, `reward.data`, `dpo.data`): one that is missing or has a bad row stops the run before
//! any stage, since what is learnt may be only half meant.

use crate::error::UserError;
use rlaif_core::config::Stage;
use rlaif_store::jsonl::BadRow;
use std::path::Path;

/// Bad rows that are named; of more, their number is told.
const MOST_NAMED: usize = 10;

/// There is no such file.
pub fn missing(path: &Path, stage: Stage) -> UserError {
    missing_of(path, &format!("{}.data", stage.name()))
}

/// There is no such file, which this key names.
pub fn missing_of(path: &Path, key: &str) -> UserError {
    UserError::new(format!("there is no file `{}`, which `{key}` names", path.display()))
        .hint(format!("Paths in `{key}` are relative to the config file"))
}

/// "3 rows of `sft.data` cannot be trained on", and the first of them as file:line.
///
/// # Errors
/// If there is a bad row; `shape` says what a row is.
pub fn refuse_bad(path: &Path, stage: Stage, bad: &[BadRow], shape: &str) -> Result<(), UserError> {
    let name = stage.name();
    refuse_bad_of(path, &format!("{name}.data"), bad, shape, &format!("docs/trainers/{name}.md"))
}

/// [`refuse_bad`] of a file that this key names; `page` says more of its rows.
///
/// # Errors
/// If there is a bad row.
pub fn refuse_bad_of(
    path: &Path,
    key: &str,
    bad: &[BadRow],
    shape: &str,
    page: &str,
) -> Result<(), UserError> {
    if bad.is_empty() {
        return Ok(());
    }
    let named = named_rows(path, bad);
    let rows = if bad.len() == 1 { "1 row".to_string() } else { format!("{} rows", bad.len()) };
    Err(UserError::new(format!("{rows} of `{key}` cannot be trained on:{named}")).hint(format!(
        "Mend or delete these lines; a row is {shape}, see {page}. Nothing has been computed or paid for"
    )))
}

/// The first of the bad rows, a line each, and how many more there are.
pub fn named_rows(path: &Path, bad: &[BadRow]) -> String {
    let places = bad.iter().map(|row| format!("{}:{}: {}", path.display(), row.line, row.reason));
    named(places, MOST_NAMED)
}

/// The first `most` places, a line each, and how many more there are.
pub fn named(places: impl ExactSizeIterator<Item = String>, most: usize) -> String {
    let more = match places.len().saturating_sub(most) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    let first: String = places.take(most).map(|place| format!("\n  {place}")).collect();
    first + &more
}
