//! The records that stages hand to each other; `docs/design.md` calls them the words.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One turn of a conversation, as every chat API has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

impl Message {
    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }

    /// A turn of the assistant.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant".into(), content: content.into() }
    }

    /// The system's instruction.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: "system".into(), content: content.into() }
    }
}

/// What the user asks: plain text (one user turn) or a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PromptText {
    /// One user turn.
    Text(String),
    /// A conversation that ends with a user turn.
    Messages(Vec<Message>),
}

impl PromptText {
    /// The conversation, with plain text as one user turn.
    pub fn messages(&self) -> Vec<Message> {
        match self {
            Self::Text(text) => vec![Message::user(text)],
            Self::Messages(messages) => messages.clone(),
        }
    }

    /// One string for judges and reports: the text itself, or the turns with their roles.
    pub fn display(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Messages(messages) if messages.len() == 1 => messages[0].content.clone(),
            Self::Messages(messages) => {
                messages.iter().map(|m| format!("{}: {}", m.role, m.content)).collect::<Vec<_>>().join("\n\n")
            }
        }
    }
}

/// What supervised fine-tuning imitates: one row of `sft.data`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Demonstration {
    /// An answer to a prompt.
    Completion {
        /// What is asked.
        prompt: PromptText,
        /// What is answered.
        completion: String,
    },
    /// A conversation with at least one turn of the assistant, which does not begin it.
    Messages {
        /// Its turns.
        messages: Vec<Message>,
    },
    /// Plain text.
    Text {
        /// All of it.
        text: String,
    },
}

impl Demonstration {
    /// What is asked before the assistant's first turn; none of plain text.
    pub fn prompt(&self) -> Option<PromptText> {
        match self {
            Self::Completion { prompt, .. } => Some(prompt.clone()),
            Self::Messages { messages } => {
                let asked = messages.iter().take_while(|turn| turn.role != "assistant").cloned().collect();
                Some(PromptText::Messages(asked))
            }
            Self::Text { .. } => None,
        }
    }
}

/// A prompt of the user's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    /// Unique in the run; from the file, or the first 16 hex digits of the BLAKE3 hash of the text.
    pub id: String,
    /// What is asked.
    pub prompt: PromptText,
    /// Free words such as `safety` or `medical`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// A good answer, where the user has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Which part of the pipeline a prompt belongs to; evaluation prompts are never trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Seen by generate, label, reward, ppo and dpo.
    Train,
    /// Held out from every training stage.
    Eval,
}

/// Why sampling ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model ended its turn; the end-of-turn token is the last of `token_ids`.
    Stop,
    /// `max_new_tokens` or the context was used up; the response is cut off.
    Length,
}

/// One sample of a policy for a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// `{prompt_id}/{index}`, prefixed by the policy where several are compared.
    pub id: String,
    /// The prompt it answers.
    pub prompt_id: String,
    /// Which of the prompt's samples this is, from 0.
    pub index: usize,
    /// Decoded text without special tokens.
    pub text: String,
    /// Sampled token ids, with the end-of-turn token if there was one.
    pub token_ids: Vec<u32>,
    /// Log-probability of each sampled token under the sampling temperature, before top-p and top-k; same length as `token_ids`.
    pub logprobs: Vec<f32>,
    /// Why sampling ended.
    pub finish_reason: FinishReason,
}

/// Two different responses of one prompt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// `{prompt_id}/{index_a}-{index_b}`.
    pub id: String,
    /// The prompt both answer.
    pub prompt_id: String,
    /// The response called a.
    pub a: String,
    /// The response called b.
    pub b: String,
}

/// Which response of a pair a judge is shown first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Response a stands first.
    Ab,
    /// Response b stands first.
    Ba,
}

impl Order {
    /// The other order.
    pub fn swapped(self) -> Self {
        match self {
            Self::Ab => Self::Ba,
            Self::Ba => Self::Ab,
        }
    }
}

/// What one reply says about the two responses it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The response shown first is better.
    First,
    /// The response shown second is better.
    Second,
    /// The judge says they are equal.
    Tie,
}

/// Why a reply holds no verdict. A missing verdict is missing data: it is never a tie and never counts as a vote.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoVerdict {
    /// The text gives two different verdicts.
    Ambiguous,
    /// The reply was cut off before its verdict.
    Truncated,
    /// The judge refused to judge.
    Refused,
    /// The provider's content filter withheld the reply.
    Filtered,
    /// Nothing in the text is a verdict.
    Unparsable,
    /// The reply was empty.
    Empty,
    /// A response steered the judge: it wrote the secret word that it was told never to write.
    Steered,
    /// No reply came; the failure in words.
    Failed(String),
    /// No judge was asked, by rule; why in words.
    SetAside(String),
}

/// What one reply says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The choice, or why there is none.
    pub choice: Result<Choice, NoVerdict>,
    /// P(the response shown first is better), where token log-probabilities or a stated confidence gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_first: Option<f64>,
    /// Probability mass that fell on the verdict tokens; `p_first` is renormalised over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mass: Option<f64>,
    /// Scores by criterion, in the order (first, second).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, (f64, f64)>,
    /// The judge's reasoning, where it gave some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// The principle that was drawn for this call, where the template has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principle: Option<String>,
}

impl Verdict {
    /// A choice, or why there is none, and nothing else.
    pub fn of(choice: Result<Choice, NoVerdict>) -> Self {
        Self {
            choice,
            p_first: None,
            mass: None,
            scores: BTreeMap::new(),
            explanation: None,
            principle: None,
        }
    }

    /// A verdict that is only a choice.
    pub fn choice(choice: Choice) -> Self {
        Self::of(Ok(choice))
    }

    /// A reply without a verdict.
    pub fn none(reason: NoVerdict) -> Self {
        Self::of(Err(reason))
    }

    /// P(first is better): from log-probabilities where there are some, else 1, 0 or ½ from the choice, else nothing.
    pub fn p_first_or_choice(&self) -> Option<f64> {
        self.p_first.or(match self.choice {
            Ok(Choice::First) => Some(1.0),
            Ok(Choice::Second) => Some(0.0),
            Ok(Choice::Tie) => Some(0.5),
            Err(_) => None,
        })
    }
}

/// What became of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// A preference that training uses.
    Kept,
    /// The judge chose the same position in both orders, or otherwise changed its mind when they were swapped.
    Inconsistent,
    /// The judge called it a tie, or p was within `tie_margin` of ½.
    Tie,
    /// No reply could be read.
    NoVerdict,
    /// A request failed for good.
    Failed,
    /// A rule set the pair aside before any judge was asked: too long, or neither response worth one. Or it waits for people, and what
    /// judges say of it, p, does not stand alone.
    SetAside,
}

/// What all verdicts on a pair add up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preference {
    /// The pair.
    pub pair_id: String,
    /// The prompt.
    pub prompt_id: String,
    /// P(a beats b) over all orders and judges, by `label.aggregation`; `None` where there was no verdict at all.
    pub p: Option<f64>,
    /// How far those who made p disagree: population standard deviation of p over the presentations (judge, template and order, with
    /// all its votes as one value). 0 where all say the same; `None` for a single presentation. It is not the error of p.
    pub spread: Option<f64>,
    /// What became of the pair.
    pub fate: Fate,
    /// Names of the judges (or `human`) whose verdicts made it.
    pub judges: Vec<String>,
    /// One judge's explanation of it, where there is one.
    pub explanation: Option<String>,
}

/// A preference as trainers and TRL read it: `p` is P(chosen beats rejected) ≥ ½.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreferenceRow {
    /// What was asked.
    pub prompt: PromptText,
    /// The better response.
    pub chosen: String,
    /// The worse response.
    pub rejected: String,
    /// P(chosen beats rejected), in [0.5, 1].
    pub p: f64,
    /// One judge's explanation.
    pub explanation: Option<String>,
    /// Who said so.
    pub judges: Vec<String>,
    /// The prompt's id.
    pub prompt_id: String,
    /// The pair's id.
    pub pair_id: String,
}
