//! What an audit is made of. Each part measures; what it measured is held against `audit.bounds`, kept in `audit.json`, and shown as one table.

pub mod bias;
mod judges;
mod preferences;
mod table;

pub use table::table;

use crate::cli::AuditArgs;
use crate::context::Context;
use crate::error::UserError;
use crate::robustness;
use crate::run_folder::{RunFolder, write_whole};
use anyhow::{Context as _, Result};
use rlaif_core::audit::{Audit, AuditPart, Measurement};
use rlaif_core::clock::now_ms;

/// A part of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What the ledger says of judges.
    Judges,
    /// The same pairs again.
    Repeat,
    /// Known-bad responses against honest ones.
    Robustness,
    /// One group in another's place.
    Bias,
    /// What is trained on: duplicates, contradictions, imbalance, leaks, personal data.
    Preferences,
}

impl Part {
    /// Its name, which is also its flag.
    pub fn name(self) -> &'static str {
        match self {
            Self::Judges => "judges",
            Self::Repeat => "repeat",
            Self::Robustness => "robustness",
            Self::Bias => "bias",
            Self::Preferences => "preferences",
        }
    }

    /// The parts that were asked for; where none was, those that ask no judge anything.
    pub fn asked(args: &AuditArgs) -> Vec<Self> {
        let flags = [
            (args.judges, Self::Judges),
            (args.preferences, Self::Preferences),
            (args.repeat, Self::Repeat),
            (args.bias, Self::Bias),
            (args.robustness, Self::Robustness),
        ];
        let asked: Vec<Self> = flags.into_iter().filter_map(|(asked, part)| asked.then_some(part)).collect();
        if asked.is_empty() { vec![Self::Judges, Self::Preferences] } else { asked }
    }

    /// Measures, and keeps what was measured in the run's `audit.json`.
    ///
    /// # Errors
    /// If a judge, a model or the store cannot be used; what judges have said so far is kept.
    pub fn measure(self, context: &mut Context, args: &AuditArgs) -> Result<AuditPart> {
        let measured = match self {
            Self::Judges => judges::measure(context)?,
            Self::Repeat => judges::repeat::measure(context)?,
            Self::Robustness => robustness::audit::measure(context, args)?,
            Self::Bias => bias::measure(context, args)?,
            Self::Preferences => preferences::measure(context)?,
        };
        let bounds = &context.config.audit.bounds;
        let part = AuditPart {
            command: format!("rlaif audit {} --{}", args.config.as_typed(), self.name()),
            made_ms: now_ms().cast_unsigned(),
            measurements: measured.into_iter().map(|it: Measurement| it.judged(bounds)).collect(),
        };
        let mut audit = read(&context.folder)?.unwrap_or_default();
        audit.parts.insert(self.name().into(), part.clone());
        write_whole(&context.folder.audit(), serde_json::to_string_pretty(&audit)?.as_bytes())?;
        Ok(part)
    }
}

/// What audits of this run have measured so far; `None` if there was none.
///
/// # Errors
/// If the file cannot be read.
pub fn read(folder: &RunFolder) -> Result<Option<Audit>> {
    let path = folder.audit();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading `{}`", path.display())),
    };
    let audit = serde_json::from_str(&text).map_err(|error| {
        UserError::new(format!("`{}` is no audit: {error}", path.display()))
            .hint("Delete it and run `rlaif audit` again")
    })?;
    Ok(Some(audit))
}
