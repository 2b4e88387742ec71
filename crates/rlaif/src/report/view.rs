//! A run as the report reads it: from the process that makes it, or from a folder that lies somewhere.

use crate::cli::ConfigArgs;
use crate::context::{Context, load_config};
use crate::error::UserError;
use crate::manifest::Manifest;
use crate::run_folder::RunFolder;
use anyhow::{Context as _, Result};
use rlaif_core::Config;
use rlaif_store::Store;
use std::future::Future;
use std::path::{Path, PathBuf};

/// What the report needs of a run. No model and no prompt file is opened.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Its config.
    pub config: &'a Config,
    /// What stands behind a command that is about this run.
    pub arguments: &'a str,
    /// Its folder.
    pub folder: &'a RunFolder,
    /// What ran.
    pub manifest: &'a Manifest,
    /// Its ledger.
    pub store: &'a Store,
}

impl<'a> View<'a> {
    /// The run that is open.
    pub fn of(context: &'a Context) -> Self {
        Self {
            config: &context.config,
            arguments: &context.arguments,
            folder: &context.folder,
            manifest: &context.manifest,
            store: &context.store,
        }
    }
}

/// A run that is opened to be read, while another process may be at work in it.
pub struct ReadRun {
    config: Config,
    arguments: String,
    folder: RunFolder,
    manifest: Manifest,
    store: Store,
    runtime: tokio::runtime::Runtime,
}

impl ReadRun {
    /// Opens a run by its config file or its folder.
    ///
    /// # Errors
    /// If there is no such run, or it cannot be read.
    pub fn open(run: &ConfigArgs) -> Result<Self> {
        let is_folder = run.config.is_dir();
        let file = if is_folder { run.config.join("rlaif.toml") } else { run.config.clone() };
        if is_folder && !file.is_file() {
            let error = UserError::new(format!(
                "`{}` is no run folder: it has no `rlaif.toml`",
                run.config.display()
            ));
            return Err(error.hint("Name a config file, or a folder such as `runs/NAME`").into());
        }
        // What a run was made with stands in its folder; the environment of today has no say in it.
        let config = match is_folder {
            true => {
                let text = std::fs::read_to_string(&file)
                    .with_context(|| format!("reading `{}`", file.display()))?;
                let read = Config::load(&text, &[], |_| None);
                read.with_context(|| format!("`{}` cannot be used", file.display()))?.config
            }
            false => load_config(run)?.config,
        };
        // A run folder may have been moved since its config was written.
        let folder = match is_folder {
            true => RunFolder::at(run.config.clone())?,
            false => RunFolder::open_to_read(&config)?,
        };
        let manifest = Manifest::load(&folder)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let database = folder.database();
        let store = runtime
            .block_on(Store::open_read_only(&database))
            .with_context(|| format!("opening the ledger `{}`", database.display()))?;
        let named = ConfigArgs { config: file, set: run.set.clone() };
        Ok(Self { config, arguments: named.as_typed(), folder, manifest, store, runtime })
    }

    /// What is to be read.
    pub fn view(&self) -> View<'_> {
        View {
            config: &self.config,
            arguments: &self.arguments,
            folder: &self.folder,
            manifest: &self.manifest,
            store: &self.store,
        }
    }

    /// Waits for what the ledger does.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.root()
    }

    /// Where a comparison of others with it goes.
    pub fn comparison(&self) -> PathBuf {
        self.folder.comparison()
    }
}
