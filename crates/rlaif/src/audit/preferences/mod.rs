//! `rlaif audit CONFIG --preferences`: what is wrong with what the run trains on. Nobody is asked anything.
//!
//! Counts are of the very set that is trained on and have no interval: a bound such as `leaked_prompts = { max = 0 }` holds or does not.
//! Shares say what more of the same would bring, with intervals over prompts.

mod findings;
mod set;

pub use set::{TrainingSet, read};

use crate::context::Context;
use crate::progress::say;
use anyhow::Result;
use rlaif_core::audit::Measurement;

/// Who is measured.
pub const SUBJECT: &str = "preferences";

/// Measures everything.
///
/// # Errors
/// If the store or a file of preferences cannot be read.
pub fn measure(context: &Context) -> Result<Vec<Measurement>> {
    let set = read(context)?;
    say(&format!(
        "audit: {} preferences and {} single responses, against {} evaluation prompts",
        set.pairs.len(),
        set.responses.len(),
        context.prompts.eval.len()
    ));
    Ok(findings::measurements(context, &set))
}
