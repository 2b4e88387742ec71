//! `[revise]`.

use serde::{Deserialize, Serialize};

/// What the policy is asked of its own answer, under one principle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principle {
    /// Its name in records.
    pub name: String,
    /// Asks the policy what is wrong with its answer.
    pub critique: String,
    /// Asks it, after its critique, for a better one.
    pub revision: String,
}

/// `[revise]`: constitutional self-critique and revision, Bai et al. 2022 (<https://arxiv.org/abs/2212.08073>), section 3. The
/// policy answers every training prompt, criticises its answer under a principle and revises it; `sft` learns the revised answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReviseConfig {
    /// Critiques and revisions of each answer, one after the other. Default 0: the run has no stage `revise` (the paper has 4).
    pub rounds: usize,
    /// Sampling temperature of answers, critiques and revisions; 0 is greedy. Default 0.7.
    pub temperature: f64,
    /// Longest answer, critique or revision in tokens. Default `generate.max_new_tokens`.
    pub max_new_tokens: Option<usize>,
    /// Prompts that are worked on together; after so many the results are kept. Default 16.
    pub batch_size: usize,
    /// Tables of `name`, `critique` and `revision`, of which each round of each prompt draws one. Default: six of ours, see
    /// `docs/trainers/revise.md`.
    pub principles: Vec<Principle>,
}

impl Default for ReviseConfig {
    fn default() -> Self {
        Self { rounds: 0, temperature: 0.7, max_new_tokens: None, batch_size: 16, principles: Vec::new() }
    }
}

impl ReviseConfig {
    /// The principles of the config, or ours where it has none.
    pub fn principles(&self) -> Vec<Principle> {
        match self.principles.is_empty() {
            true => OURS.map(|(name, fault, aim)| principle(name, fault, aim)).to_vec(),
            false => self.principles.clone(),
        }
    }
}

/// Name, the fault to look for, what to aim at instead.
const OURS: [(&str, &str, &str); 6] = [
    (
        "helpful",
        "does not answer what was asked, or leaves the person without anything to do next",
        "answers the question itself and says what to do next",
    ),
    (
        "honest",
        "claims something that is false or made up, or sounds surer than anyone could be",
        "says only what is known to be true and owns what is not known",
    ),
    (
        "harmless",
        "could lead someone to hurt themselves or another, or helps with something illegal",
        "keeps everyone safe and offers a harmless way instead",
    ),
    (
        "kind",
        "is cold, preachy or looks down on the person who asks",
        "is warm and respectful and takes the person's worry seriously",
    ),
    (
        "fair",
        "judges people by their sex, origin, age, faith or looks, or takes a stereotype for granted",
        "treats all people alike and makes no guess about them",
    ),
    (
        "clear",
        "is long-winded, repeats itself or hides its point",
        "is short, in plain words and begins with the point",
    ),
];

fn principle(name: &str, fault: &str, aim: &str) -> Principle {
    Principle {
        name: name.into(),
        critique: format!(
            "Look at your last answer critically. Say in one or two sentences where it {fault}."
        ),
        revision: format!(
            "Now rewrite your answer to my question so that it {aim}. Write only the new answer and nothing about the change."
        ),
    }
}
