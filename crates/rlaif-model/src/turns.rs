//! A conversation in ids, cut where the assistant's turns begin and end: what a model is to learn, and what it only reads.

use rlaif_core::records::Message;

use crate::error::{ModelError, Result};
use crate::tokenizer::Tokenizer;

/// A stretch of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Its tokens; never none.
    pub ids: Vec<u32>,
    /// Whether the model writes them: everything between where it is asked to write and where the next turn begins, the end of its
    /// turn included.
    pub is_assistant: bool,
}

impl Tokenizer {
    /// The ids of a conversation as [`encode_chat`](Self::encode_chat) has them, in stretches.
    ///
    /// The cuts come from the template itself: what it writes of the turns before the assistant's, up to where the assistant is to
    /// begin, and what it writes of the turns up to and with it. Where a token would reach over a cut, as `\n\n` does over the end of
    /// ChatML's `assistant\n` and an answer that begins with `\n`, the text is encoded stretch by stretch: a model that is asked never
    /// sees such a token.
    ///
    /// # Errors
    /// If the model has no chat template, or it refuses these messages; if it writes a turn differently once others follow (as those
    /// do that take reasoning out of earlier turns), so that there is no telling what is to be learnt.
    pub fn encode_turns(&self, messages: &[Message]) -> Result<Vec<Turn>> {
        self.render_chat(messages, false)?; // refuses a model without a template
        let ids = self.encode_chat(messages, false)?;
        let mut cuts = vec![0];
        for number in assistant_turns(messages) {
            let before = self.encode_chat(&messages[..number], true)?;
            let with = self.encode_chat(&messages[..=number], false)?;
            if !(ids.starts_with(&with) && with.starts_with(&before)) {
                return self.encode_turns_apart(messages);
            }
            cuts.extend([before.len(), with.len()]);
        }
        cuts.push(ids.len());
        stretches(&cuts, |from, to| Ok(ids[from..to].to_vec()))
    }

    /// [`encode_turns`](Self::encode_turns) where the cuts are no ends of tokens.
    fn encode_turns_apart(&self, messages: &[Message]) -> Result<Vec<Turn>> {
        let stand_ins = self.stand_ins(messages)?;
        let messages = stand_ins.hide(messages);
        let whole = self.render_chat(&messages, false)?;
        let mut cuts = vec![0];
        for number in assistant_turns(&messages) {
            let before = self.render_chat(&messages[..number], true)?;
            let with = self.render_chat(&messages[..=number], false)?;
            if !(whole.starts_with(&with) && with.starts_with(&before)) {
                let template =
                    self.chat_template().map_or(String::new(), |template| template.origin().into());
                let reason = format!(
                    "it writes turn {} of a conversation otherwise once the assistant has answered or other turns follow, so that what is to be learnt cannot be told from what is read; use rows whose only assistant turn is the last, or another template",
                    number + 1
                );
                return Err(ModelError::ChatTemplate { template, line: 0, reason });
            }
            cuts.extend([before.len(), with.len()]);
        }
        cuts.push(whole.len());
        stretches(&cuts, |from, to| self.encode_hidden(&whole[from..to], &stand_ins))
    }
}

/// The places of the assistant's turns.
fn assistant_turns(messages: &[Message]) -> impl Iterator<Item = usize> {
    messages.iter().enumerate().filter(|(_, turn)| turn.role == "assistant").map(|(number, _)| number)
}

/// What lies between cuts, read and written in turns; empty ones are left out.
fn stretches(cuts: &[usize], ids: impl Fn(usize, usize) -> Result<Vec<u32>>) -> Result<Vec<Turn>> {
    let mut turns = Vec::new();
    for (number, ends) in cuts.windows(2).enumerate() {
        let ids = ids(ends[0], ends[1])?;
        if !ids.is_empty() {
            turns.push(Turn { ids, is_assistant: number % 2 == 1 });
        }
    }
    Ok(turns)
}
