//! The folder of a run: where everything is, and the lock that keeps a second process out.

use crate::error::UserError;
use anyhow::{Context, Result};
use rlaif_core::Config;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// `{run.dir}/{run.name}`; see "Run folder" in `docs/design.md`.
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    /// Locked as long as this process lives; the system frees it however the process ends.
    _lock: Option<File>,
}

impl RunFolder {
    /// Where the folder of a config is.
    pub fn path_of(config: &Config) -> PathBuf {
        config.run.dir.join(&config.run.name)
    }

    /// Makes the folder where it is missing and locks it.
    ///
    /// # Errors
    /// If another process works in it, or it cannot be written.
    pub fn open(config: &Config) -> Result<Self> {
        let root = Self::path_of(config);
        let making = || format!("making the run folder `{}`", root.display());
        std::fs::create_dir_all(root.join("models")).with_context(making)?;
        std::fs::create_dir_all(root.join("metrics")).with_context(making)?;
        let path = root.join(".lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("opening `{}`", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                lock.read_to_string(&mut owner).ok();
                let owner = match owner.trim() {
                    "" => String::new(),
                    pid => format!(" (process {pid})"),
                };
                return Err(UserError::new(format!(
                    "the run folder `{}` is in use by another rlaif{owner}",
                    root.display()
                ))
                .hint("Wait for it, stop it, or give this run another name: `--set run.name=other`")
                .into());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking `{}`", path.display()));
            }
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .ok();
        Ok(Self { root, _lock: Some(lock) })
    }

    /// Opens the folder to read from it, while another process may be at work in it.
    ///
    /// # Errors
    /// If there is no such run.
    pub fn open_to_read(config: &Config) -> Result<Self> {
        Self::at(Self::path_of(config))
    }

    /// A run folder by its path, to read from it.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn at(root: PathBuf) -> Result<Self> {
        match root.is_dir() {
            true => Ok(Self { root, _lock: None }),
            false => Err(UserError::new(format!("there is no run in `{}`", root.display()))
                .hint("Run `rlaif run CONFIG` first")
                .into()),
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The config as resolved, with the origin of each value.
    pub fn config(&self) -> PathBuf {
        self.root.join("rlaif.toml")
    }

    /// What ran, from what, how long, at what price.
    pub fn manifest(&self) -> PathBuf {
        self.root.join("manifest.json")
    }

    /// The ledger.
    pub fn database(&self) -> PathBuf {
        database_in(&self.root)
    }

    /// A trained model: `reward`, `ppo`, `dpo`.
    pub fn model(&self, name: &str) -> PathBuf {
        self.root.join("models").join(name)
    }

    /// The metrics of a stage.
    pub fn metrics(&self, stage: &str) -> PathBuf {
        self.root.join("metrics").join(format!("{stage}.jsonl"))
    }

    /// The same as TensorBoard's event files.
    pub fn tensorboard(&self, stage: &str) -> PathBuf {
        self.root.join("tensorboard").join(stage)
    }

    /// What `evaluate` found.
    pub fn evaluation(&self) -> PathBuf {
        self.root.join("evaluation.json")
    }

    /// Other runs held against this one.
    pub fn comparison(&self) -> PathBuf {
        self.root.join("compare.html")
    }

    /// What `rlaif audit` measured.
    pub fn audit(&self) -> PathBuf {
        self.root.join("audit.json")
    }

    /// What the rounds of `rlaif iterate` came to; in the first round's folder.
    pub fn drift(&self) -> PathBuf {
        self.root.join("drift.json")
    }

    /// The page.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// Answers, critiques and revisions of the stage `revise`, one prompt a line.
    pub fn revisions(&self) -> PathBuf {
        self.root.join("revisions.jsonl")
    }

    /// Revised answers over original ones, as preferences.
    pub fn revised_pairs(&self) -> PathBuf {
        self.root.join("revised-pairs.jsonl")
    }

    /// Rows of an input file that were set aside, with their reasons.
    pub fn rejected(&self, file: &Path) -> PathBuf {
        let name = file.file_name().map_or_else(|| "input".into(), |n| n.to_string_lossy().into_owned());
        self.root.join(format!("{name}.rejected.jsonl"))
    }
}

/// The ledger in a run folder.
pub fn database_in(root: &Path) -> PathBuf {
    root.join("rlaif.db")
}

/// Writes a whole file or nothing: temporary file, fsync, rename.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_whole(path: &Path, contents: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
        .with_context(|| format!("writing `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_kept_out_and_told_who_is_in() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.run.dir = folder.path().to_path_buf();
        let first = RunFolder::open(&config).unwrap();
        let message = RunFolder::open(&config).unwrap_err().to_string();
        assert!(message.contains(&format!("(process {})", std::process::id())), "{message}");
        drop(first);
        RunFolder::open(&config).unwrap();
    }
}
