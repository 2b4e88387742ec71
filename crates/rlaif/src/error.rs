//! What the user reads when something goes wrong, and the exit code that goes with it.
//!
//! ```text
//! error: stage `label` stopped
//!   caused by: judge `gpt` refused the key in `OPENAI_API_KEY`
//! hint: Set the variable to a valid key and run the same command again; what arrived is kept
//! ```

use std::fmt;
use std::process::ExitCode;

/// Done.
pub const DONE: u8 = 0;
/// Finished with failures, or the user can mend it.
pub const FAILED: u8 = 1;
/// Something that should not happen.
pub const BUG: u8 = 2;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// An error that the user can mend: what and where, and the next step.
#[derive(Debug)]
pub struct UserError {
    message: String,
    hint: Option<String>,
}

impl UserError {
    /// An error without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// The same with the next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UserError {}

/// A stage stopped because of Ctrl-C, with everything that was finished kept.
#[derive(Debug)]
pub struct Interrupted {
    /// What was running, for the message.
    pub stage: String,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted in stage `{}`", self.stage)
    }
}

impl std::error::Error for Interrupted {}

/// Prints the chain of causes and says the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let code = exit_code(error);
    if code == INTERRUPTED {
        eprintln!("{error}");
        return ExitCode::from(INTERRUPTED);
    }
    eprint!("{}", render(error));
    ExitCode::from(code)
}

/// The error as it is printed.
fn render(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for (depth, cause) in error.chain().enumerate() {
        let message = cause.to_string();
        // Wrappers that repeat their cause would say everything twice.
        if depth > 0 && last.contains(message.trim()) {
            continue;
        }
        let indented = message.trim_end().replace('\n', "\n    ");
        text += &match depth {
            0 => format!("error: {}\n", message.trim_end()),
            _ => format!("  caused by: {indented}\n"),
        };
        last = message;
    }
    if let Some(hint) = error.chain().find_map(hint_of) {
        text += &format!("hint: {hint}\n");
    } else if exit_code(error) == BUG {
        text += "hint: This should not happen; everything finished so far is kept, and the same command goes on from there\n";
    }
    text
}

fn hint_of(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<UserError>() {
        return error.hint.clone();
    }
    let io = cause.downcast_ref::<std::io::Error>()?;
    match io.kind() {
        std::io::ErrorKind::StorageFull => {
            Some("Free some space and run the same command again; finished work is kept".into())
        }
        std::io::ErrorKind::PermissionDenied => Some("Check who owns the file or folder".into()),
        _ => None,
    }
}

/// Whether the user can mend it (1), it was Ctrl-C (130), or it is ours to mend (2).
fn exit_code(error: &anyhow::Error) -> u8 {
    let mut code = BUG;
    for cause in error.chain() {
        if cause.is::<Interrupted>() {
            return INTERRUPTED;
        }
        let mendable = cause.is::<UserError>()
            || cause.is::<std::io::Error>()
            || cause.is::<rlaif_core::config::ConfigError>()
            || cause.is::<rlaif_model::ModelError>()
            || cause.is::<rlaif_store::StoreError>()
            || cause.is::<rlaif_train::TrainError>();
        if mendable {
            code = FAILED;
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_user_error_is_printed_with_its_causes_and_hint() {
        let error = Err::<(), _>(UserError::new("`prompts.jsonl` holds no prompt").hint("Add a line"))
            .context("reading the prompts")
            .expect_err("it is an error");
        assert_eq!(
            render(&error),
            "error: reading the prompts\n  caused by: `prompts.jsonl` holds no prompt\nhint: Add a line\n"
        );
        assert_eq!(exit_code(&error), FAILED);
    }

    #[test]
    fn an_unknown_error_is_a_bug_and_an_interrupt_is_130() {
        assert_eq!(exit_code(&anyhow::anyhow!("index out of range")), BUG);
        let error = anyhow::Error::new(Interrupted { stage: "ppo".into() }).context("running `ppo`");
        assert_eq!(exit_code(&error), INTERRUPTED);
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let error =
            anyhow::Error::new(std::io::Error::from(std::io::ErrorKind::StorageFull)).context("writing");
        assert!(render(&error).contains("hint: Free some space"), "{}", render(&error));
        assert_eq!(exit_code(&error), FAILED);
    }
}
