//! From (prompt, response) pairs to packed batches that compute nothing twice.
//!
//! Two responses of one prompt share its tokens; the same response asked for twice, as preferences do that meet the same
//! response in several pairs, is computed once; what all prompts begin with, such as a system message, is computed once.

use std::collections::{HashMap, HashSet};

use rlaif_model::{PackedBatch, Reads, SegmentId, common_prefix};

/// Fewest tokens that all prompts begin with that are worth a segment of their own.
const SHARED: usize = 8;

/// A prompt and a response, in token ids.
pub type Item<'a> = (&'a [u32], &'a [u32]);

/// A packed batch of distinct responses, and which of them each item is.
#[derive(Debug, Default)]
pub struct Packed {
    /// The stream of tokens.
    pub batch: PackedBatch,
    /// Distinct responses in stream order.
    pub responses: Vec<SegmentId>,
    /// For each item, its place in `responses`.
    pub of_item: Vec<usize>,
}

impl Packed {
    /// Packs items into one stream.
    ///
    /// # Panics
    /// If a prompt or response is empty: trainers check their data first.
    pub fn new(items: &[Item<'_>]) -> Self {
        let mut packed = Self::default();
        let distinct: HashSet<&[u32]> = items.iter().map(|item| item.0).collect();
        let shared = common_prefix(&distinct.into_iter().collect::<Vec<_>>());
        let beginning = (shared >= SHARED).then(|| packed.batch.push_prompt(&items[0].0[..shared]));
        let mut prompts: HashMap<&[u32], SegmentId> = HashMap::new();
        let mut seen: HashMap<Item<'_>, usize> = HashMap::new();
        for &(prompt, response) in items {
            let place = *seen.entry((prompt, response)).or_insert_with(|| {
                let prompt = *prompts.entry(prompt).or_insert_with(|| match beginning {
                    None => packed.batch.push_prompt(prompt),
                    Some(beginning) => packed.batch.push_prompt_after(beginning, &prompt[shared..]),
                });
                packed.responses.push(packed.batch.push_response(prompt, response));
                packed.responses.len() - 1
            });
            packed.of_item.push(place);
        }
        packed
    }

    /// The reads of all tokens of all distinct responses, one response after the other.
    pub fn token_reads(&self) -> Reads {
        let mut reads = Reads::new();
        self.responses.iter().for_each(|&response| reads.append(self.batch.response_reads(response)));
        reads
    }

    /// Stream index of the last token of each distinct response.
    pub fn last_indices(&self) -> Vec<usize> {
        self.responses.iter().map(|&response| self.batch.last_index(response)).collect()
    }

    /// Tokens of each distinct response.
    pub fn lengths(&self) -> Vec<usize> {
        self.responses.iter().map(|&response| self.batch.segment(response).len).collect()
    }
}

/// Cuts a flat `[R]` vector into responses of the given lengths.
pub fn split_by_length<T: Clone>(flat: &[T], lengths: &[usize]) -> Vec<Vec<T>> {
    let mut rest = flat;
    lengths
        .iter()
        .map(|&length| {
            let (head, tail) = rest.split_at(length);
            rest = tail;
            head.to_vec()
        })
        .collect()
}

/// Groups items into runs of at most `max_tokens` tokens (or one item, if it alone is longer); prompts that stand next to each
/// other are counted once. Returns ranges over `items`.
pub fn by_token_budget(items: &[Item<'_>], max_tokens: usize) -> Vec<std::ops::Range<usize>> {
    let mut groups = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, (prompt, response)) in items.iter().enumerate() {
        let shares_prompt = i > start && items[i - 1].0 == *prompt;
        let added = response.len() + if shares_prompt { 0 } else { prompt.len() };
        if i > start && tokens + added > max_tokens {
            groups.push(start..i);
            (start, tokens) = (i, prompt.len() + response.len());
        } else {
            tokens += added;
        }
    }
    if start < items.len() {
        groups.push(start..items.len());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_and_repeated_responses_stand_once() {
        let (a, b): (&[u32], &[u32]) = (&[1, 2], &[3]);
        let packed = Packed::new(&[(a, &[7, 8]), (a, &[9]), (b, &[7, 8]), (a, &[7, 8])]);
        assert_eq!(packed.batch.ids(), [1, 2, 7, 8, 9, 3, 7, 8]);
        assert_eq!(packed.of_item, [0, 1, 2, 0]);
        assert_eq!(packed.lengths(), [2, 1, 2]);
        assert_eq!(packed.last_indices(), [3, 4, 7]);
        assert_eq!(packed.token_reads().indices, [1, 2, 1, 5, 6]);
        assert_eq!(split_by_length(&[1, 2, 3, 4, 5], &packed.lengths()), [vec![1, 2], vec![3], vec![4, 5]]);
    }

    #[test]
    fn what_all_prompts_begin_with_stands_once() {
        let [a, b] = [5, 6].map(|last| [[1; SHARED].as_slice(), &[last]].concat());
        let packed = Packed::new(&[(&a, &[7]), (&b, &[8]), (&a, &[9])]);
        assert_eq!(packed.batch.ids()[SHARED..], [5, 7, 6, 8, 9]);
        assert_eq!(packed.token_reads().indices, [SHARED, SHARED + 2, SHARED]);
        assert_eq!(packed.batch.positions()[SHARED..], [8, 9, 8, 9, 9]);
        let shorter = Packed::new(&[(&a[1..], &[7]), (&b[1..], &[8])]);
        assert_eq!(shorter.batch.num_tokens(), 2 * (SHARED + 1));
    }

    #[test]
    fn a_budget_is_kept_and_shared_prompts_cost_nothing() {
        let (a, b): (&[u32], &[u32]) = (&[1, 2, 3], &[4, 5, 6]);
        let items: [Item<'_>; 4] = [(a, &[1]), (a, &[1, 2]), (b, &[1]), (b, &[0; 20])];
        assert_eq!(by_token_budget(&items, 6), [0..2, 2..3, 3..4]);
        assert_eq!(by_token_budget(&items, 100), vec![0..4]);
        assert!(by_token_budget(&[], 5).is_empty());
    }
}
