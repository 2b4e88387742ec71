//! Packed batches: one stream of tokens without padding.
//!
//! A prompt `P` with responses `A` and `B`, and a stand-alone sequence `S`, are the stream `P A B S` with four segments;
//! `A` and `B` name `P` as their parent, attend to all of it, and not to each other:
//!
//! ```
//! use rlaif_model::PackedBatch;
//!
//! let mut batch = PackedBatch::new();
//! let prompt = batch.push_prompt(&[10, 11, 12]);
//! let first = batch.push_response(prompt, &[20, 21]);
//! let second = batch.push_response(prompt, &[30]);
//! assert_eq!(batch.positions(), [0, 1, 2, 3, 4, 3]);
//! // Token 30 is predicted at the prompt's last token, as token 20 is; token 21 is predicted at token 20.
//! let reads = batch.response_reads(first);
//! assert_eq!((reads.indices, reads.targets), (vec![2, 3], vec![20, 21]));
//! assert_eq!(batch.response_reads(second).indices, [2]);
//! ```
//!
//! What several prompts begin with, such as a system message, can stand before all of them once
//! ([`push_prompt_after`](PackedBatch::push_prompt_after)).

/// Names one segment of a [`PackedBatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(usize);

/// A run of tokens that attend causally to each other, and to all of their parent and what stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Index of the first token in the stream.
    pub start: usize,
    /// Number of tokens.
    pub len: usize,
    /// Index of the segment that stands before this one in its sequence: the prompt of a response, or what a prompt begins with.
    pub parent: Option<usize>,
}

/// Where to read the model and what to ask it: at stream index `indices[r]`, how likely is `targets[r]` to come next?
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// Stream indices of the tokens whose hidden state predicts the target.
    pub indices: Vec<usize>,
    /// Token ids that are predicted.
    pub targets: Vec<u32>,
}

impl Reads {
    /// No reads.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of reads.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether nothing is read.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Adds the reads of `other` behind these.
    pub fn append(&mut self, other: Reads) {
        self.indices.extend(other.indices);
        self.targets.extend(other.targets);
    }
}

/// One stream of tokens with the segments that say which tokens attend to which.
#[derive(Debug, Clone, Default)]
pub struct PackedBatch {
    ids: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<Segment>,
}

impl PackedBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sequence that stands alone.
    ///
    /// # Panics
    /// If `ids` is empty: a segment without a token has no hidden state to read.
    pub fn push_sequence(&mut self, ids: &[u32]) -> SegmentId {
        self.push(ids, None)
    }

    /// Adds a prompt, to which responses can be attached with [`push_response`](Self::push_response).
    ///
    /// # Panics
    /// If `ids` is empty.
    pub fn push_prompt(&mut self, ids: &[u32]) -> SegmentId {
        self.push(ids, None)
    }

    /// Adds the rest of a prompt that begins with the tokens of `beginning`, as other prompts do.
    ///
    /// # Panics
    /// If `ids` is empty, or something stands before `beginning`.
    pub fn push_prompt_after(&mut self, beginning: SegmentId, ids: &[u32]) -> SegmentId {
        assert!(self.segments[beginning.0].parent.is_none(), "a beginning stands before all else");
        self.push(ids, Some(beginning.0))
    }

    /// Adds a response that attends to `prompt` and to itself.
    ///
    /// # Panics
    /// If `ids` is empty.
    pub fn push_response(&mut self, prompt: SegmentId, ids: &[u32]) -> SegmentId {
        self.push(ids, Some(prompt.0))
    }

    fn push(&mut self, ids: &[u32], parent: Option<usize>) -> SegmentId {
        assert!(!ids.is_empty(), "a segment needs at least one token");
        let offset = parent.map_or(0, |p| prefix_len(&self.segments, p) + self.segments[p].len);
        self.segments.push(Segment { start: self.ids.len(), len: ids.len(), parent });
        self.ids.extend_from_slice(ids);
        self.positions.extend((offset..offset + ids.len()).map(|p| p as u32));
        SegmentId(self.segments.len() - 1)
    }

    /// Token ids, `[N]`.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Position of each token in its sequence, `[N]`; a response goes on where its prompt ends.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// All segments in stream order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segment named `id`.
    pub fn segment(&self, id: SegmentId) -> &Segment {
        &self.segments[id.0]
    }

    /// Number of tokens in the stream.
    pub fn num_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Whether the batch has no token.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Stream index of the last token of a segment.
    pub fn last_index(&self, id: SegmentId) -> usize {
        let segment = self.segment(id);
        segment.start + segment.len - 1
    }

    /// The reads of every token of a response: the first is predicted by the prompt's last token.
    ///
    /// # Panics
    /// If the segment has no parent; see [`sequence_reads`](Self::sequence_reads).
    pub fn response_reads(&self, response: SegmentId) -> Reads {
        let segment = self.segment(response);
        let parent = segment.parent.expect("response_reads is for segments made by push_response");
        let mut indices = Vec::with_capacity(segment.len);
        indices.push(self.last_index(SegmentId(parent)));
        indices.extend(segment.start..segment.start + segment.len - 1);
        Reads { indices, targets: self.ids[segment.start..segment.start + segment.len].to_vec() }
    }

    /// The reads of every token of a segment but its first: next-token prediction within the segment.
    pub fn sequence_reads(&self, sequence: SegmentId) -> Reads {
        let segment = self.segment(sequence);
        let end = segment.start + segment.len;
        Reads {
            indices: (segment.start..end - 1).collect(),
            targets: self.ids[segment.start + 1..end].to_vec(),
        }
    }
}

/// Tokens that all of several prompts begin with, and that none of them ends with.
pub fn common_prefix(prompts: &[&[u32]]) -> usize {
    let [first, others @ ..] = prompts else { return 0 };
    let alike = |other: &&[u32]| first.iter().zip(*other).take_while(|(a, b)| a == b).count();
    let common = others.iter().map(alike).min().unwrap_or(0);
    prompts.iter().map(|prompt| prompt.len().saturating_sub(1)).fold(common, usize::min)
}

/// The segments that stand before segment `s` in its sequence, in order.
pub(crate) fn ancestors(segments: &[Segment], s: usize) -> Vec<usize> {
    let mut found: Vec<usize> =
        std::iter::successors(segments[s].parent, |&parent| segments[parent].parent).collect();
    found.reverse();
    found
}

/// Tokens that stand before segment `s` in its sequence.
pub(crate) fn prefix_len(segments: &[Segment], s: usize) -> usize {
    ancestors(segments, s).into_iter().map(|ancestor| segments[ancestor].len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_restart_for_sequences_and_go_on_for_responses() {
        let mut batch = PackedBatch::new();
        let prompt = batch.push_prompt(&[1, 2]);
        let response = batch.push_response(prompt, &[3, 4, 5]);
        let sequence = batch.push_sequence(&[6, 7]);
        assert_eq!(batch.positions(), [0, 1, 2, 3, 4, 0, 1]);
        assert_eq!((batch.last_index(prompt), batch.last_index(response)), (1, 4));
        assert_eq!(batch.sequence_reads(sequence), Reads { indices: vec![5], targets: vec![7] });
        let mut reads = batch.response_reads(response);
        reads.append(batch.sequence_reads(sequence));
        assert_eq!(reads, Reads { indices: vec![1, 2, 3, 5], targets: vec![3, 4, 5, 7] });
    }

    #[test]
    fn a_prompt_and_its_response_go_on_after_what_prompts_begin_with() {
        let mut batch = PackedBatch::new();
        let beginning = batch.push_prompt(&[1, 2, 3]);
        let prompt = batch.push_prompt_after(beginning, &[4, 5]);
        let response = batch.push_response(prompt, &[6, 7]);
        assert_eq!(batch.positions(), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(batch.response_reads(response).indices, [4, 5]);
    }

    #[test]
    fn a_common_prefix_leaves_something_of_every_prompt() {
        assert_eq!(common_prefix(&[&[1, 2, 3], &[1, 2, 4, 5]]), 2);
        assert_eq!(common_prefix(&[&[1, 2], &[1, 2, 3]]), 1);
        assert_eq!(common_prefix(&[&[1, 2], &[2, 2]]), 0);
        assert_eq!((common_prefix(&[&[1, 2]]), common_prefix(&[])), (0, 0));
        assert_eq!(common_prefix(&[&[], &[1]]), 0);
    }
}
