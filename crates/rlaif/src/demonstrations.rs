//! The rows of `[sft]`: read whole before anything is computed. Unlike a prompt, a row that cannot be used is not set aside: it is an
//! error with its place, since what is imitated is worth a look.

use crate::context::Context;
use crate::data_files::{missing, refuse_bad};
use crate::error::UserError;
use crate::stages::prompts::under_system;
use anyhow::{Context as _, Result};
use rlaif_core::config::Stage;
use rlaif_core::records::{Demonstration, Prompt, PromptText};
use rlaif_store::jsonl::read_demonstrations_from;
use serde_json::json;
use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// What a row of `sft.data` is, in words.
const SHAPE: &str = r#"{"prompt", "completion"}, {"messages": […]} or {"text"}"#;

/// What supervised fine-tuning learns from.
#[derive(Debug)]
pub struct Demonstrations {
    /// Each with its file and line, conversations under `prompts.system`, in the order of the files.
    pub rows: Vec<(String, Demonstration)>,
    /// Rows that were left out because the evaluation asks what they answer.
    pub of_evaluation: usize,
    /// Hash of the rows.
    pub fingerprint: String,
}

/// Reads the files of `sft.data`.
///
/// # Errors
/// If there are none and no stage `revise` either, one is missing, a row is no demonstration, or none is left.
pub fn read(context: &Context, has: &[Stage]) -> Result<Demonstrations> {
    let config = &context.config;
    let only_files = !has.contains(&Stage::Revise);
    if only_files && config.sft.data.is_empty() {
        return Err(UserError::new("stage `sft` has nothing to learn from: `sft.data` names no file")
            .hint("Write `data = [\"sft.jsonl\"]` under `[sft]`, with rows such as {\"prompt\": \"…\", \"completion\": \"…\"}")
            .into());
    }
    let asked: HashSet<String> = context.prompts.eval.iter().map(|p: &Prompt| p.prompt.display()).collect();
    let mut rows = Vec::new();
    let mut of_evaluation = 0;
    for path in &config.sft.data {
        let path = context.resolve(path);
        for (line, row) in read_file(&path)? {
            if answers_any(&row, &asked) {
                of_evaluation += 1;
                continue;
            }
            rows.push((format!("{}:{line}", path.display()), under(config.prompts.system.as_deref(), row)));
        }
    }
    if only_files && rows.is_empty() {
        return Err(UserError::new(
            "all rows of `sft.data` answer prompts of the evaluation, and none is left to learn from",
        )
        .hint("Give other rows, or other prompts in `prompts.eval`")
        .into());
    }
    let hashed = json!(rows.iter().map(|(_, row)| row).collect::<Vec<_>>());
    let fingerprint = blake3::hash(hashed.to_string().as_bytes()).to_hex()[..32].to_string();
    Ok(Demonstrations { rows, of_evaluation, fingerprint })
}

fn read_file(path: &Path) -> Result<Vec<(u64, Demonstration)>> {
    if !path.exists() {
        return Err(missing(path, Stage::Sft).into());
    }
    let reading = || format!("reading the rows `{}` of `sft.data`", path.display());
    let file = File::open(path).with_context(reading)?;
    let rows = read_demonstrations_from(BufReader::new(file)).with_context(reading)?;
    refuse_bad(path, Stage::Sft, &rows.bad, SHAPE)?;
    if rows.good.is_empty() {
        return Err(UserError::new(format!("`{}`, which `sft.data` names, has no row", path.display()))
            .hint("Write rows such as {\"prompt\": \"…\", \"completion\": \"…\"}, one a line")
            .into());
    }
    Ok(rows.good)
}

/// Whether a row answers a prompt of the evaluation, as its whole prompt or in one of the user's turns.
fn answers_any(row: &Demonstration, asked: &HashSet<String>) -> bool {
    let turns = match row {
        Demonstration::Completion { prompt, .. } => prompt.messages(),
        Demonstration::Messages { messages } => messages.clone(),
        Demonstration::Text { .. } => return false,
    };
    row.prompt().is_some_and(|prompt| asked.contains(&prompt.display()))
        || turns.iter().any(|turn| turn.role == "user" && asked.contains(&turn.content))
}

/// The row with `system` before a conversation that has no system prompt: the policy is asked in no other way.
pub fn under(system: Option<&str>, row: Demonstration) -> Demonstration {
    match row {
        _ if system.is_none() => row,
        Demonstration::Completion { prompt, completion } => Demonstration::Completion {
            prompt: PromptText::Messages(under_system(system, prompt.messages())),
            completion,
        },
        Demonstration::Messages { messages } => {
            Demonstration::Messages { messages: under_system(system, messages) }
        }
        Demonstration::Text { .. } => row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::records::Message;

    #[test]
    fn what_the_evaluation_asks_is_found_in_any_turn() {
        let asked = HashSet::from(["Hi".to_string()]);
        let completion = |prompt: &str| Demonstration::Completion {
            prompt: PromptText::Text(prompt.into()),
            completion: "Hello".into(),
        };
        assert!(answers_any(&completion("Hi"), &asked) && !answers_any(&completion("Hi!"), &asked));
        let turns =
            [Message::user("Ho"), Message::assistant("Hi"), Message::user("Hi"), Message::assistant("?")];
        let messages = |turns: &[Message]| Demonstration::Messages { messages: turns.to_vec() };
        assert!(answers_any(&messages(&turns), &asked) && !answers_any(&messages(&turns[..2]), &asked));
        let under = |row: Demonstration| under(Some("Be brief"), row).prompt().unwrap().messages();
        assert_eq!(under(completion("Hi")), [Message::system("Be brief"), Message::user("Hi")]);
        assert_eq!(under(messages(&turns))[..2], [Message::system("Be brief"), Message::user("Ho")]);
    }
}
