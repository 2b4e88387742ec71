//! What is evaluated on among what is trained on.

use super::near::near_among;
use crate::similarity::normalise;
use aho_corasick::AhoCorasick;
use std::collections::HashMap;

/// Characters of a reference answer, normalised, below which finding it in a response says nothing: `yes`, a name, a number.
pub const SHORTEST_REFERENCE: usize = 24;

/// How an evaluation prompt stands among the training prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leak {
    /// The same text, after normalisation.
    Same(usize),
    /// Nearly the same text.
    Near(usize),
}

/// For each prompt that is held out, the training prompt that it is, or is near to.
pub fn leaked_prompts(held_out: &[&str], train: &[&str]) -> Vec<Option<Leak>> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut distinct = Vec::new();
    for (place, text) in train.iter().enumerate() {
        let text = normalise(text);
        if !places.contains_key(&text) {
            places.insert(text.clone(), place);
            distinct.push(text);
        }
    }
    let held_out: Vec<String> = held_out.iter().map(|text| normalise(text)).collect();
    let near = near_among(&held_out, &distinct);
    let leak = |(text, near): (&String, Option<u32>)| match (places.get(text), near) {
        (Some(place), _) => Some(Leak::Same(*place)),
        (None, Some(near)) => Some(Leak::Near(places[&distinct[near as usize]])),
        (None, None) => None,
    };
    held_out.iter().zip(near).map(leak).collect()
}

/// Finds reference answers in texts, in time that grows with the texts alone (Aho & Corasick 1975).
#[derive(Debug)]
pub struct References {
    automaton: Option<AhoCorasick>,
    places: Vec<usize>,
}

impl References {
    /// Those of at least [`SHORTEST_REFERENCE`] characters. `None` if their automaton does not fit into memory.
    pub fn new(references: &[&str]) -> Option<Self> {
        let long = |text: &String| text.chars().count() >= SHORTEST_REFERENCE;
        let (places, texts): (Vec<usize>, Vec<String>) =
            references.iter().map(|text| normalise(text)).enumerate().filter(|(_, text)| long(text)).unzip();
        let automaton = match texts.is_empty() {
            true => None,
            false => Some(AhoCorasick::new(&texts).ok()?),
        };
        Some(Self { automaton, places })
    }

    /// How many are looked for.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The first reference that a text contains as whole words, by its place.
    pub fn within(&self, text: &str) -> Option<usize> {
        let text = normalise(text);
        let at_word = |at: usize| {
            let before = text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
            let after = text[at..].chars().next().is_none_or(|c| !c.is_alphanumeric());
            before || after
        };
        let mut matches = self.automaton.as_ref()?.find_overlapping_iter(&text);
        let found = matches.find(|found| at_word(found.start()) && at_word(found.end()))?;
        Some(self.places[found.pattern().as_usize()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaks_are_found_through_case_space_and_small_edits() {
        let train = ["Why is the sky blue in the daytime?", "Name a river", "name  a RIVER"];
        let held_out = [
            "why is the  sky blue in the daytime?",
            "Why is the sky blue in the day time?",
            "What is a prime number?",
            "Name a River",
        ];
        assert_eq!(
            leaked_prompts(&held_out, &train),
            [Some(Leak::Same(0)), Some(Leak::Near(0)), None, Some(Leak::Same(1))]
        );
    }

    #[test]
    fn reference_answers_are_found_as_whole_words() {
        let references =
            References::new(&["yes", "The capital of France is Paris", "capital of france is paris, and it"])
                .unwrap();
        assert_eq!(references.len(), 2);
        assert_eq!(references.within("Well: the CAPITAL of\nFrance is Paris."), Some(1));
        assert_eq!(references.within("the capital of france is parisian"), None);
        assert_eq!(references.within("the capital of France is paris, and it is old"), Some(1));
        assert_eq!(references.within("yes"), None, "too short to say anything");
        let none = References::new(&["no"]).unwrap();
        assert!(none.is_empty() && none.within("no").is_none());
    }
}
