//! What stands there more than once.

use super::near::{earlier_near, groups};
use super::{LabelledPair, Numbered, Numbers};
use std::collections::HashMap;

/// What is the same as something before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    /// The later one: a pair, by its place in the set, or a text, by its number.
    pub later: usize,
    /// The first one.
    pub first: usize,
}

/// Repeats of a set.
#[derive(Debug, Default)]
pub struct Duplicates {
    /// Pairs with the prompt, the chosen and the rejected response of an earlier one.
    pub pairs: Vec<Repeat>,
    /// Pairs of which all three are near those of an earlier one, and are not the same.
    pub near_pairs: Vec<Repeat>,
    /// Prompts that stand under more than one id: pairs by their place, the first of each further id.
    pub prompts: Vec<Repeat>,
    /// Prompts, by number, that are near an earlier one.
    pub near_prompts: Vec<Repeat>,
    /// Responses, by number, that answer more than one prompt, with the first pairs in which they answer the first and the second.
    pub responses: Vec<Repeat>,
    /// Responses, by number, that are near an earlier one.
    pub near_responses: Vec<Repeat>,
    /// How many different ids prompts have.
    pub prompt_ids: usize,
}

/// Finds them.
pub fn duplicates(pairs: &[LabelledPair], numbers: &Numbers) -> Duplicates {
    let mut found = Duplicates::default();
    let near_prompts = earlier_near(&numbers.prompts.normalised);
    let near_responses = earlier_near(&numbers.responses.normalised);
    found.near_prompts = near_repeats(&near_prompts);
    found.near_responses = near_repeats(&near_responses);
    let (prompt_group, response_group) = (groups(&near_prompts), groups(&near_responses));
    let (mut exact, mut near) = (HashMap::new(), HashMap::new());
    let mut ids: HashMap<(u32, &str), usize> = HashMap::new();
    let mut first_of_prompt: HashMap<u32, usize> = HashMap::new();
    let mut answers: HashMap<u32, (u32, usize, bool)> = HashMap::new();
    for (index, (pair, numbered)) in pairs.iter().zip(&numbers.pairs).enumerate() {
        let first = *exact.entry(*numbered).or_insert(index);
        let grouped = Numbered {
            prompt: prompt_group[numbered.prompt as usize],
            chosen: response_group[numbered.chosen as usize],
            rejected: response_group[numbered.rejected as usize],
        };
        let first_near = *near.entry(grouped).or_insert(index);
        if first < index {
            found.pairs.push(Repeat { later: index, first });
        } else if first_near < index {
            found.near_pairs.push(Repeat { later: index, first: first_near });
        }
        let first = *first_of_prompt.entry(numbered.prompt).or_insert(index);
        if !ids.contains_key(&(numbered.prompt, pair.prompt_id.as_str())) {
            ids.insert((numbered.prompt, &pair.prompt_id), index);
            if first < index {
                found.prompts.push(Repeat { later: index, first });
            }
        }
        for response in [numbered.chosen, numbered.rejected] {
            let (prompt, first, told) = answers.entry(response).or_insert((numbered.prompt, index, false));
            if *prompt != numbered.prompt && !*told {
                *told = true;
                found.responses.push(Repeat { later: index, first: *first });
            }
        }
    }
    found.prompt_ids = ids.len();
    found
}

fn near_repeats(near: &[Option<u32>]) -> Vec<Repeat> {
    let repeats = near.iter().enumerate();
    repeats.filter_map(|(later, first)| Some(Repeat { later, first: (*first)? as usize })).collect()
}

#[cfg(test)]
mod tests {
    use super::super::pair;
    use super::*;

    #[test]
    fn repeats_are_told_exact_and_near_and_each_once() {
        let long = "the answer is that plants make sugar from light and water";
        let set = [
            pair("1", "How do plants eat?", long, "no idea", "a"),
            pair("2", "How do plants EAT?", &long.to_uppercase(), "No  idea", "b"),
            pair("3", "How do plants eat?", &format!("{long}."), "no idea", "a"),
            pair("4", "What is the tallest mountain?", "Mount Everest", "no idea", "a"),
            pair("5", "How do plants eat?", "no idea", long, "a"),
        ];
        let found = duplicates(&set, &Numbers::of(&set));
        assert_eq!(found.pairs, [Repeat { later: 1, first: 0 }]);
        assert_eq!(found.near_pairs, [Repeat { later: 2, first: 0 }]);
        assert_eq!(found.prompts, [Repeat { later: 1, first: 0 }], "another id, the same text");
        assert_eq!(found.prompt_ids, 3);
        assert_eq!(found.responses, [Repeat { later: 3, first: 0 }], "`no idea` answers two prompts");
        assert_eq!(found.near_responses.len(), 1);
        assert!(found.near_prompts.is_empty());
    }

    /// Pairs of one prompt share the prompt and half their responses, and are none the less different.
    #[test]
    fn pairs_of_a_long_prompt_are_no_repeats() {
        let prompt = "summarise this: ".to_string() + &"many words of a long text ".repeat(40);
        let set = [pair("1", &prompt, "one", "two", "a"), pair("2", &prompt, "one", "three", "a")];
        let found = duplicates(&set, &Numbers::of(&set));
        assert!(found.pairs.is_empty() && found.near_pairs.is_empty() && found.prompts.is_empty());
    }
}
