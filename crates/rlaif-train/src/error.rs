//! What can go wrong in training, with the facts in fields.

use std::path::{Path, PathBuf};

use rlaif_model::ModelError;

/// Shorthand for results of this crate.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Everything that can go wrong in `rlaif-train`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The model refused its input or its files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// There is nothing to train on.
    #[error("{trainer} has no {what} to train on; {next_step}")]
    NoData {
        /// `sft`, `reward`, `dpo` or `ppo`.
        trainer: &'static str,
        /// Preferences or prompts.
        what: &'static str,
        /// What the user can do.
        next_step: String,
    },
    /// There is nothing to choose the best checkpoint by.
    #[error("{trainer} has no {what} to choose the best checkpoint by; {next_step}")]
    NothingHeldOut {
        /// `sft`, `reward` or `dpo`.
        trainer: &'static str,
        /// Pairs or prompts.
        what: String,
        /// What the user can do.
        next_step: String,
    },
    /// A preference or prompt that cannot be trained on.
    #[error("prompt `{prompt_id}` cannot be trained on: {reason}")]
    BadExample {
        /// Whose.
        prompt_id: String,
        /// Why.
        reason: String,
    },
    /// A row of a demonstration that cannot be trained on.
    #[error("row `{row}` cannot be trained on: {reason}")]
    BadRow {
        /// Its file and line.
        row: String,
        /// Why.
        reason: String,
    },
    /// Demonstrations that are too long, where that is to be an error.
    #[error(
        "row `{row}` with {tokens} tokens is longer than {limit}, the smaller of `sft.max_length` and the model's context ({count} rows are); shorten them, raise `sft.max_length` if it is the smaller, or let `sft.too_long` be \"drop\" or \"truncate\""
    )]
    LongRows {
        /// File and line of the first.
        row: String,
        /// Its length.
        tokens: usize,
        /// How many there are.
        count: usize,
        /// The longest that is allowed.
        limit: usize,
    },
    /// Two members of an ensemble would be the same model.
    #[error(
        "members {first} and {second} of the reward model would be one model twice: each step of both learns from the same of the {pairs} \
         pairs, and nothing else differs; lower `reward.batch_size`, which is {batch_size}, train adapters (`[reward.lora]`), or cut \
         responses (`reward.truncated_negatives`)"
    )]
    SameMembers {
        /// Number of the one, from 1.
        first: usize,
        /// Number of the other.
        second: usize,
        /// Pairs that are trained on.
        pairs: usize,
        /// `reward.batch_size`.
        batch_size: usize,
    },
    /// A loss, gradient or score became NaN or infinite; training stops before it spreads to the weights, and the last checkpoint stays.
    #[error(
        "{what} is {value} at step {step}{}; look at these rows and at the last rows of the metrics, or lower the learning rate: \
         the checkpoint before it is kept",
        told(rows)
    )]
    NotFinite {
        /// Loss, gradient norm, score, ….
        what: &'static str,
        /// NaN, inf or -inf.
        value: f64,
        /// Step, from 1.
        step: u64,
        /// The prompts or rows that the step learnt from.
        rows: Vec<String>,
    },
    /// The reward function failed.
    #[error("cannot score responses: {reason}")]
    Reward {
        /// What it said.
        reason: String,
    },
    /// The operating system refused to read or write a file.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// "read", "write", ….
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A checkpoint is damaged; the one before it is tried.
    #[error("checkpoint `{}` cannot be used: {reason}", path.display())]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl TrainError {
    /// Names the rows of the step in which a number was not finite; other errors stay as they are.
    pub(crate) fn on_rows<'a>(self, of_step: impl IntoIterator<Item = &'a str>) -> Self {
        match self {
            Self::NotFinite { what, value, step, rows } if rows.is_empty() => {
                let mut rows: Vec<String> = Vec::new();
                for row in of_step {
                    if !rows.iter().any(|known| known == row) {
                        rows.push(row.to_string());
                    }
                }
                Self::NotFinite { what, value, step, rows }
            }
            other => other,
        }
    }

    /// For `map_err` on file operations.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
        let path = path.to_path_buf();
        move |source| TrainError::Io { action, path, source }
    }
}

/// `value`, or the error that it is not a number to go on with.
pub(crate) fn finite(what: &'static str, value: f64, step: u64) -> Result<f64> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(TrainError::NotFinite { what, value, step, rows: Vec::new() })
    }
}

/// ", on `a`, `b` and 3 more"; nothing without rows.
fn told(rows: &[String]) -> String {
    const SHOWN: usize = 8;
    let names: Vec<String> = rows.iter().take(SHOWN).map(|row| format!("`{row}`")).collect();
    match (names.is_empty(), rows.len().saturating_sub(SHOWN)) {
        (true, _) => String::new(),
        (_, 0) => format!(", on {}", names.join(", ")),
        (_, more) => format!(", on {} and {more} more", names.join(", ")),
    }
}
