//! Demonstrations as token ids, with what of them is learnt.

use rlaif_core::config::LongRow;
use rlaif_core::records::{Demonstration, Message};
use rlaif_model::Tokenizer;

use crate::error::{Result, TrainError};

/// A demonstration in token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SftExample {
    /// Where it stands, such as `sft.jsonl:3`, for messages.
    pub id: String,
    /// The same for rows of one prompt, which are held out together.
    pub prompt_id: String,
    /// All of its tokens.
    pub ids: Vec<u32>,
    /// TRL's `completion_mask`: whether a token is learnt. As long as `ids`; the first token, which nothing predicts, never is.
    pub mask: Vec<bool>,
}

impl SftExample {
    /// Tokenises a row as the policy will be asked: a prompt through the chat template, with the template's end of a turn behind a
    /// completion; for a model without one, and for `text`, as it stands, with the model's end-of-text token behind it.
    ///
    /// With `completion_only`, completions and assistant turns are learnt; otherwise, and of `text`, all tokens but the first.
    ///
    /// # Errors
    /// If the chat template refuses the row, or a row of `messages` meets a model without a template.
    pub fn of(
        id: String,
        row: &Demonstration,
        tokenizer: &Tokenizer,
        completion_only: bool,
    ) -> Result<Self, rlaif_model::ModelError> {
        let (ids, mut mask) = match row {
            Demonstration::Text { text } => {
                let ids = with_end(tokenizer, text, |text| tokenizer.encode(text))?;
                let mask = vec![true; ids.len()];
                (ids, mask)
            }
            Demonstration::Messages { messages } => turns(tokenizer, messages, 0)?,
            Demonstration::Completion { prompt, completion } => {
                let mut messages = prompt.messages();
                if tokenizer.chat_template().is_some() {
                    messages.push(Message::assistant(completion));
                    let last = messages.iter().filter(|turn| turn.role == "assistant").count() - 1;
                    turns(tokenizer, &messages, last)?
                } else {
                    plain(tokenizer, &messages, completion)?
                }
            }
        };
        if !completion_only {
            mask.fill(true);
        }
        if let Some(first) = mask.first_mut() {
            *first = false;
        }
        let prompt = match row.prompt() {
            Some(prompt) => serde_json::to_vec(&prompt.messages()),
            None => serde_json::to_vec(row),
        };
        let prompt = prompt.expect("texts always serialise");
        Ok(Self { id, prompt_id: blake3::hash(&prompt).to_hex()[..16].to_string(), ids, mask })
    }

    /// Number of tokens that are learnt.
    pub fn learnt(&self) -> usize {
        self.mask.iter().filter(|learnt| **learnt).count()
    }
}

/// Ids and mask of a conversation; the assistant's turns from number `first` on are learnt.
fn turns(
    tokenizer: &Tokenizer,
    messages: &[Message],
    first: usize,
) -> Result<(Vec<u32>, Vec<bool>), rlaif_model::ModelError> {
    let (mut ids, mut mask, mut number) = (Vec::new(), Vec::new(), 0);
    for turn in tokenizer.encode_turns(messages)? {
        mask.extend(std::iter::repeat_n(turn.is_assistant && number >= first, turn.ids.len()));
        number += usize::from(turn.is_assistant);
        ids.extend(turn.ids);
    }
    Ok((ids, mask))
}

/// Ids and mask of a completion to a model without a chat template. Prompt and completion are tokenised together, as TRL does, unless a
/// token would reach over the end of the prompt, which the model never sees when it is asked.
fn plain(
    tokenizer: &Tokenizer,
    messages: &[Message],
    completion: &str,
) -> Result<(Vec<u32>, Vec<bool>), rlaif_model::ModelError> {
    let prompt = tokenizer.encode_chat(messages, true)?;
    let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
    let before = contents.join("\n\n");
    let ids = with_end(tokenizer, completion, |completion| {
        let whole = tokenizer.encode(&format!("{before}{completion}"))?;
        match whole.starts_with(&prompt) {
            true => Ok(whole),
            false => Ok([prompt.clone(), tokenizer.encode(completion)?].concat()),
        }
    })?;
    let mask = (0..ids.len()).map(|place| place >= prompt.len()).collect();
    Ok((ids, mask))
}

/// The ids of a text and one end-of-text token behind it, where the model has one. The text of that token at the end of a row, where
/// files made for TRL may have it, is the token and not its letters.
fn with_end(
    tokenizer: &Tokenizer,
    text: &str,
    encode: impl Fn(&str) -> Result<Vec<u32>, rlaif_model::ModelError>,
) -> Result<Vec<u32>, rlaif_model::ModelError> {
    let Some(&end) = tokenizer.eos_ids().first() else { return encode(text) };
    let written = tokenizer.id_to_bytes(end).and_then(|bytes| String::from_utf8(bytes).ok());
    let text = written
        .as_deref()
        .filter(|end| !end.is_empty())
        .and_then(|end| text.strip_suffix(end))
        .unwrap_or(text);
    let mut ids = encode(text)?;
    ids.push(end);
    Ok(ids)
}

/// Rows that can be trained on, and how many could not as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitted {
    /// None longer than the limit, each with something to learn.
    pub rows: Vec<SftExample>,
    /// Rows of which only the beginning is left.
    pub truncated: usize,
    /// Rows that were left out.
    pub dropped: usize,
}

/// Brings rows to at most `limit` tokens, as `too_long` says.
///
/// # Errors
/// If a row is longer and `too_long` is to refuse it.
pub fn fit(rows: Vec<SftExample>, limit: usize, too_long: LongRow) -> Result<Fitted> {
    let long = || rows.iter().filter(|row| row.ids.len() > limit);
    if let (LongRow::Refuse, Some(first)) = (too_long, long().next()) {
        let (row, tokens, count) = (first.id.clone(), first.ids.len(), long().count());
        return Err(TrainError::LongRows { row, tokens, count, limit });
    }
    let total = rows.len();
    let mut truncated = 0;
    let fitting = |mut row: SftExample| {
        if row.ids.len() > limit {
            if too_long == LongRow::Drop {
                return None;
            }
            row.ids.truncate(limit);
            row.mask.truncate(limit);
            truncated += usize::from(row.learnt() > 0);
        }
        (row.learnt() > 0).then_some(row)
    };
    let rows: Vec<SftExample> = rows.into_iter().filter_map(fitting).collect();
    Ok(Fitted { dropped: total - rows.len(), truncated, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt: usize, completion: usize) -> SftExample {
        let mask = [vec![false; prompt], vec![true; completion]].concat();
        SftExample {
            id: format!("f:{prompt}"),
            prompt_id: String::new(),
            ids: vec![5; prompt + completion],
            mask,
        }
    }

    #[test]
    fn long_rows_are_refused_dropped_or_cut_as_asked() {
        let rows = || vec![row(2, 2), row(3, 4), row(9, 1), row(5, 5)];
        let error = fit(rows(), 6, LongRow::Refuse).unwrap_err().to_string();
        assert!(error.contains("`f:3` with 7 tokens") && error.contains("3 rows"), "{error}");
        let dropped = fit(rows(), 6, LongRow::Drop).unwrap();
        assert_eq!((dropped.rows.len(), dropped.dropped, dropped.truncated), (1, 3, 0));
        let cut = fit(rows(), 6, LongRow::Truncate).unwrap();
        assert_eq!((cut.rows.len(), cut.dropped, cut.truncated), (3, 1, 2));
        assert_eq!((cut.rows[2].ids.len(), cut.rows[2].learnt()), (6, 1));
        assert_eq!(fit(rows(), 10, LongRow::Refuse).unwrap().rows, rows());
    }
}
