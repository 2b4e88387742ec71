//! How a trainer speaks to the program that runs it.

use rlaif_core::metrics::MetricRow;

/// Receives what a trainer has to say. All methods are called from the training thread, between units of work.
pub trait Hooks {
    /// One row of metrics, after each step and each evaluation.
    fn metrics(&mut self, row: &MetricRow);

    /// `done` of `total` steps are done; `note` says in a few words what happens now.
    fn progress(&mut self, done: u64, total: u64, note: &str);

    /// Whether to stop: the trainer finishes its step, writes a checkpoint and returns [`Outcome::Interrupted`].
    fn should_stop(&self) -> bool;

    /// Training goes on after `step` steps found in a checkpoint; metrics after it will come again.
    fn resumed(&mut self, step: u64) {
        tracing::info!(step, "resumed from a checkpoint");
    }

    /// Something a user should know that does not stop training, such as a damaged checkpoint.
    fn warning(&mut self, message: &str) {
        tracing::warn!("{message}");
    }
}

/// Hooks that listen to nothing and never stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Hooks for Silent {
    fn metrics(&mut self, _: &MetricRow) {}
    fn progress(&mut self, _: u64, _: u64, _: &str) {}
    fn should_stop(&self) -> bool {
        false
    }
}

/// How training ended.
#[derive(Debug)]
pub enum Outcome<T> {
    /// All steps are done.
    Finished(T),
    /// [`Hooks::should_stop`] said so; a checkpoint of this step is written, and the same call goes on from there.
    Interrupted {
        /// Steps done.
        step: u64,
        /// Steps in all.
        total: u64,
    },
}

impl<T> Outcome<T> {
    /// What training made, if it finished.
    pub fn finished(self) -> Option<T> {
        match self {
            Self::Finished(result) => Some(result),
            Self::Interrupted { .. } => None,
        }
    }
}
