//! Replies that other runs have bought (`label.reuse_replies`): taken where a request is the same to the byte.

use super::Assignment;
use super::sending::sets;
use crate::context::Context;
use crate::error::UserError;
use crate::progress::say;
use crate::run_folder::database_in;
use anyhow::{Context as _, Result};
use rlaif_core::config::JudgeConfig;
use rlaif_store::Store;
use std::collections::HashSet;
use std::path::PathBuf;

/// Planned requests that are looked for at once.
const PAGE: usize = 256;

/// The ledgers of other runs, opened to read only.
pub struct OtherRuns {
    runs: Vec<(PathBuf, Store)>,
}

impl OtherRuns {
    /// Those that the config names. This run itself may be among them, so that several configs can share a list, and is left out.
    ///
    /// # Errors
    /// If one is not there, or is of another version of this program.
    pub fn open(context: &Context) -> Result<Self> {
        let mut runs = Vec::new();
        let own = context.folder.database().canonicalize().ok();
        for folder in &context.config.label.reuse_replies {
            let database = database_in(&context.resolve(folder));
            if !database.is_file() {
                return Err(UserError::new(format!(
                    "`label.reuse_replies` names `{}`, and there is no `{}`",
                    folder.display(),
                    database.display()
                ))
                .hint("Name the folder of a run, such as `runs/NAME`, relative to the config file; or leave it out")
                .into());
            }
            if database.canonicalize().ok() == own {
                continue;
            }
            let store = context
                .wait(Store::open_to_reuse(&database))
                .with_context(|| format!("opening `{}` of `label.reuse_replies`", folder.display()))?;
            runs.push((folder.clone(), store));
        }
        Ok(Self { runs })
    }

    /// Takes the good replies to a judge's planned requests, and says how many.
    ///
    /// # Errors
    /// If a ledger cannot be read, or this run's not be written.
    pub fn take(&self, context: &Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
        if self.runs.is_empty() {
            return Ok(());
        }
        let (sets, mut after) = (sets(work), 0);
        let mut taken = vec![0; self.runs.len()];
        loop {
            let page = context.wait(context.store.planned_in(&judge.name, &sets, after, PAGE))?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            let mut open: HashSet<&str> = page.iter().map(|request| request.request_key.as_str()).collect();
            for ((folder, other), taken) in self.runs.iter().zip(&mut taken) {
                let keys: Vec<&str> =
                    page.iter().map(|r| r.request_key.as_str()).filter(|key| open.contains(key)).collect();
                let found = context.wait(other.good_replies(&keys))?;
                for reply in &found {
                    open.remove(reply.request_key.as_str());
                }
                let origin = folder.display().to_string();
                *taken += context.wait(context.store.put_reused(work.stage, &origin, &found))?;
            }
        }
        for ((folder, _), taken) in self.runs.iter().zip(taken).filter(|(_, taken)| *taken > 0) {
            let (stage, judge, folder) = (work.stage, &judge.name, folder.display());
            say(&format!("{stage}: {taken} replies of `{judge}` are taken from `{folder}`"));
        }
        Ok(())
    }
}
