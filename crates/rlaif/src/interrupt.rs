//! Ctrl-C: once finishes the unit in flight and says how to go on, twice leaves now.

use crate::error::{INTERRUPTED, Interrupted};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static LISTENING: OnceLock<()> = OnceLock::new();

/// Listens for Ctrl-C (and SIGTERM) from now on; a process does so once, however many runs it opens.
pub fn install() -> anyhow::Result<()> {
    if LISTENING.get().is_some() {
        return Ok(());
    }
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            // Units are committed whole, so leaving here loses only the one in flight.
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprintln!("\nstopping after the unit in flight; press Ctrl-C again to leave now");
    })?;
    LISTENING.set(()).ok();
    Ok(())
}

/// Whether the user asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Returns with [`Interrupted`] if the user asked to stop; called between units.
pub fn check(stage: &str) -> anyhow::Result<()> {
    match requested() {
        true => Err(Interrupted { stage: stage.to_string() }.into()),
        false => Ok(()),
    }
}
