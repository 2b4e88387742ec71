//! What a model on this machine makes of the comparisons: one number a response.

use crate::context::Context;
use crate::interrupt;
use crate::progress::Progress;
use anyhow::Result;
use rlaif_core::records::{Prompt, PromptText};
use rlaif_judge::bias::{Comparison, Item as Probed};
use rlaif_train::packing::Item;
use std::collections::{BTreeSet, HashMap};

/// Responses between two looks at Ctrl-C.
const A_UNIT: usize = 128;

/// A number for each response to each prompt; those that do not fit into the context have none.
pub struct Scores<'a>(HashMap<(&'a str, &'a str), f64>);

impl<'a> Scores<'a> {
    /// Scores every response of the items once. `end` is put behind each; `longest` is the context in tokens.
    ///
    /// # Errors
    /// If a text cannot be encoded, or the model fails.
    pub fn new(
        context: &Context,
        items: &'a [Probed],
        end: &[u32],
        longest: usize,
        what: &str,
        score: impl Fn(&[Item<'_>]) -> Result<Vec<f64>>,
    ) -> Result<Self> {
        // In the order of prompts, so that those of one stand in one forward pass and it is computed once.
        let responses: BTreeSet<(&str, &str)> = items
            .iter()
            .flat_map(|item| &item.comparisons)
            .flat_map(|it| [(it.prompt.as_str(), it.a.as_str()), (it.prompt.as_str(), it.b.as_str())])
            .collect();
        let mut encoded = Vec::new();
        let mut prompt_ids: Option<(&str, Vec<u32>)> = None;
        for (prompt, response) in responses {
            let ids = match prompt_ids.take() {
                Some((of, ids)) if of == prompt => ids,
                _ => encode(context, prompt)?,
            };
            let answer = [context.tokenizer().encode(response)?, end.to_vec()].concat();
            if !answer.is_empty() && ids.len() + answer.len() <= longest {
                encoded.push(((prompt, response), ids.clone(), answer));
            }
            prompt_ids = Some((prompt, ids));
        }
        let total = encoded.len() as u64;
        let mut progress = Progress::new("audit", "responses", 0, total);
        let mut scores = HashMap::new();
        for unit in encoded.chunks(A_UNIT) {
            interrupt::check("audit")?;
            let items: Vec<Item<'_>> =
                unit.iter().map(|(_, prompt, answer)| (prompt.as_slice(), answer.as_slice())).collect();
            scores.extend(unit.iter().map(|(key, ..)| *key).zip(score(&items)?));
            progress.set(scores.len() as u64, total, what);
        }
        progress.finish();
        Ok(Self(scores))
    }

    /// The number of a less that of b.
    pub fn margin(&self, comparison: &Comparison) -> Option<f64> {
        let of = |response: &str| self.0.get(&(comparison.prompt.as_str(), response)).copied();
        Some(of(&comparison.a)? - of(&comparison.b)?)
    }
}

/// A prompt in token ids, up to where the response begins.
pub fn encode(context: &Context, prompt: &str) -> Result<Vec<u32>> {
    context.prompt_ids(&Prompt {
        id: String::new(),
        prompt: PromptText::Text(prompt.to_owned()),
        tags: Vec::new(),
        reference: None,
    })
}
