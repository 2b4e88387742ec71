//! What the stage `revise` leaves: `revisions.jsonl` with everything that was asked and written, one prompt a line, and what follows
//! from it: rows for `sft`, and preferences of revised over original answers.

use crate::context::Context;
use anyhow::{Context as _, Result};
use rlaif_core::records::{Demonstration, PreferenceRow, PromptText};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// One prompt's answer and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The prompt's id.
    pub prompt_id: String,
    /// The prompt.
    pub prompt: PromptText,
    /// The policy's first answer.
    pub original: String,
    /// Whether it ended by itself, and was not cut off at `revise.max_new_tokens`.
    pub original_ended: bool,
    /// What happened to it, in order.
    pub rounds: Vec<Round>,
}

/// One critique and revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Name of the principle that was drawn.
    pub principle: String,
    /// What was asked about the answer.
    pub critique_request: String,
    /// What the policy found.
    pub critique: String,
    /// What it was asked then.
    pub revision_request: String,
    /// What it wrote.
    pub revision: String,
    /// Whether that took the answer's place.
    pub outcome: Outcome,
}

/// What became of a revision. Unless it was taken, the answer stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It took the answer's place.
    Revised,
    /// It is the answer again.
    Unchanged,
    /// It is the critique again: a model that does not tell the two requests apart.
    Echoed,
    /// It did not end by itself: `sft` would learn answers that break off.
    CutOff,
    /// It says nothing.
    Empty,
    /// The conversation filled the context before it.
    NoRoom,
}

impl Outcome {
    /// Every outcome, with words for a summary.
    pub const ALL: [(Self, &str); 6] = [
        (Self::Revised, "revised"),
        (Self::Unchanged, "unchanged"),
        (Self::Echoed, "the critique again"),
        (Self::CutOff, "cut off"),
        (Self::Empty, "empty"),
        (Self::NoRoom, "without room"),
    ];
}

impl Revision {
    /// The last revision that was taken, with its round; none if it says what the original did.
    pub fn revised(&self) -> Option<&Round> {
        let last = self.rounds.iter().rev().find(|round| round.outcome == Outcome::Revised)?;
        (last.revision.trim() != self.original.trim()).then_some(last)
    }

    /// Revised over original. An original that was cut off makes no pair: it would lose for that, and not for what it says.
    pub fn pair(&self) -> Option<PreferenceRow> {
        let last = self.revised().filter(|_| self.original_ended && !self.original.trim().is_empty())?;
        Some(PreferenceRow {
            prompt: self.prompt.clone(),
            chosen: last.revision.clone(),
            rejected: self.original.clone(),
            p: 1.0, // nobody compared the two: that a revision is better is the method's assumption
            explanation: Some(last.critique.clone()).filter(|critique| !critique.trim().is_empty()),
            judges: vec![format!("revision/{}", last.principle)],
            prompt_id: self.prompt_id.clone(),
            pair_id: format!("{}/revision", self.prompt_id),
        })
    }
}

/// The revisions of the run so far. A last line that a kill cut off is taken away: its prompt is worked on again.
///
/// # Errors
/// If the file cannot be read or mended.
pub fn read(path: &Path) -> Result<Vec<Revision>> {
    let reading = || format!("reading `{}`", path.display());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        // A character that a kill cut in two.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            String::from_utf8_lossy(&std::fs::read(path).with_context(reading)?).into_owned()
        }
        Err(error) => return Err(error).with_context(reading),
    };
    let mut revisions = Vec::new();
    let mut whole = 0;
    for line in text.split_inclusive('\n') {
        let Some(revision) = line.strip_suffix('\n').and_then(|line| serde_json::from_str(line).ok()) else {
            break;
        };
        revisions.push(revision);
        whole += line.len();
    }
    if whole < text.len() {
        let file = OpenOptions::new().write(true).open(path).with_context(reading)?;
        file.set_len(whole as u64).and_then(|()| file.sync_all()).with_context(reading)?;
    }
    Ok(revisions)
}

/// Adds revisions with one write, on disk when this returns.
///
/// # Errors
/// If the file cannot be written.
pub fn append(path: &Path, revisions: &[Revision]) -> Result<()> {
    let mut text = String::new();
    for revision in revisions {
        text += &serde_json::to_string(revision).context("a revision is plain data")?;
        text.push('\n');
    }
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()
    };
    write().with_context(|| format!("writing `{}`", path.display()))
}

/// The revised answers as rows for `sft`, each with its place.
///
/// # Errors
/// If they cannot be read.
pub fn demonstrations(context: &Context) -> Result<Vec<(String, Demonstration)>> {
    let path = context.folder.revisions();
    let system = context.config.prompts.system.as_deref();
    let rows = read(&path)?.into_iter().enumerate().filter_map(|(number, revision)| {
        let completion = revision.revised()?.revision.clone();
        let row = Demonstration::Completion { prompt: revision.prompt, completion };
        Some((format!("{}:{}", path.display(), number + 1), crate::demonstrations::under(system, row)))
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(revision: &str, outcome: Outcome) -> Round {
        Round {
            principle: "kind".into(),
            critique_request: "?".into(),
            critique: "It is cold.".into(),
            revision_request: "!".into(),
            revision: revision.into(),
            outcome,
        }
    }

    fn revision(rounds: Vec<Round>) -> Revision {
        Revision {
            prompt_id: "p".into(),
            prompt: PromptText::Text("Hi".into()),
            original: "No.".into(),
            original_ended: true,
            rounds,
        }
    }

    #[test]
    fn the_last_revision_that_was_taken_counts() {
        let two = revision(vec![round("Yes?", Outcome::Revised), round("Yes", Outcome::CutOff)]);
        let pair = two.pair().unwrap();
        assert_eq!((pair.chosen.as_str(), pair.rejected.as_str(), pair.p), ("Yes?", "No.", 1.0));
        assert_eq!(
            (pair.judges, pair.explanation.as_deref()),
            (vec!["revision/kind".into()], Some("It is cold."))
        );
        assert_eq!(revision(vec![round("Yes", Outcome::CutOff)]).revised(), None);
        let back = revision(vec![round("Yes", Outcome::Revised), round("No. ", Outcome::Revised)]);
        assert_eq!(back.revised(), None, "two changes came back to the original");
        let cut = Revision { original_ended: false, ..two };
        assert!(cut.pair().is_none() && cut.revised().is_some());
    }

    #[test]
    fn a_line_that_was_cut_off_goes_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revisions.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        let one = revision(vec![round("Schön", Outcome::Revised)]);
        append(&path, &[one.clone(), one.clone()]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let cut = whole.len() / 2 + String::from_utf8_lossy(&whole).find('ö').unwrap() + 1; // inside the ö
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(read(&path).unwrap(), std::slice::from_ref(&one));
        append(&path, std::slice::from_ref(&one)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}
