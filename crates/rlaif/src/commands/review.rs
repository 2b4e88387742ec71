//! `rlaif review CONFIG`: a web page on which people judge the run's pairs.

use crate::cli::{ConfigArgs, ReviewArgs};
use crate::context::load_config;
use crate::error::{DONE, UserError};
use crate::interrupt;
use crate::people;
use crate::progress::say;
use crate::review::{self, Options};
use crate::run_folder::RunFolder;
use crate::stages::evaluate::players;
use anyhow::Result;
use rlaif_store::Store;
use rlaif_store::store::TRAIN_PAIRS;

/// Serves until Ctrl-C. Opens no model: only the ledger is needed.
pub fn run(args: &ReviewArgs) -> Result<u8> {
    let config = load_config(&args.config)?.config;
    RunFolder::open_to_read(&config)?; // nothing to review is no reason to make a folder
    let folder = RunFolder::open(&config)?;
    interrupt::install()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open_with(&folder.database(), config.run.durability).await?;
        let mut sets = players::sets(&config);
        sets.push(TRAIN_PAIRS.into());
        let there = store.pair_sets().await?;
        if !there.iter().any(|set| sets.contains(set)) {
            return Err(UserError::new(format!("the run in `{}` has no pairs yet", folder.root().display()))
                .hint(format!("Run `rlaif run {} --until label` first", args.config.as_typed()))
                .into());
        }
        let options = Options { listen: args.listen, names: args.allow_host.clone() };
        review::serve(config, store, &options).await
    })?;
    runtime.block_on(summary(&folder, &args.config))?;
    Ok(DONE)
}

/// Says what there is now, and what becomes of it.
async fn summary(folder: &RunFolder, args: &ConfigArgs) -> Result<()> {
    let store = Store::open_read_only(&folder.database()).await?;
    let verdicts = store.human_verdicts().await?;
    let labels = people::labels(&verdicts).count();
    let next = match labels {
        0 => String::new(),
        _ => format!("; `rlaif run {}` trains with them", args.as_typed()),
    };
    say(&format!("review: {labels} labels of people are in the ledger{next}"));
    Ok(())
}
