//! What is wrong with a set of preferences, whoever labelled them: pure functions on texts.
//!
//! | module | finds |
//! |---|---|
//! | [`near`] | texts that are nearly the same, without comparing all with all |
//! | [`duplicates`] | prompts, pairs and responses that stand there more than once |
//! | [`cycles`] | labels that contradict each other, and A over B over C over A |
//! | [`imbalance`] | what the chosen responses have in common besides being better |
//! | [`leakage`] | evaluation prompts and their answers among what is trained on |
//! | [`personal`] | e-mail addresses, phone numbers, IBANs, cards, IP addresses and secrets |
//!
//! Texts are compared as [`crate::similarity`] normalises them: lower case, runs of whitespace as one space.

pub mod cycles;
pub mod duplicates;
pub mod imbalance;
pub mod leakage;
pub mod near;
pub mod personal;

use crate::similarity::normalise;
use crate::stats::interval::{self, Interval};
use std::collections::HashMap;

/// Below this distance ([`crate::similarity::distance`]) two texts are nearly the same: one edit in ten characters.
pub const NEAR: f64 = 0.1;

/// A preference of the set.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledPair {
    /// The pair's id in the run, or `FILE:LINE`.
    pub id: String,
    /// The prompt's id.
    pub prompt_id: String,
    /// What was asked, as one string.
    pub prompt: String,
    /// The better response.
    pub chosen: String,
    /// The worse response.
    pub rejected: String,
    /// P(chosen beats rejected), in [½, 1].
    pub p: f64,
    /// Who labelled it: judges joined by `+`, `human`, or what its file says.
    pub source: String,
    /// The prompt's tags.
    pub tags: Vec<String>,
    /// Whether the chosen response is the one called a; `None` where no order is known.
    pub chosen_is_a: Option<bool>,
}

/// A response with a verdict of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledResponse {
    /// `FILE:LINE`.
    pub id: String,
    /// What was asked, as one string.
    pub prompt: String,
    /// The response.
    pub response: String,
}

/// Each different text, normalised, once.
#[derive(Debug, Default)]
pub struct Texts {
    /// The texts, in the order of their first appearance.
    pub normalised: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Texts {
    /// The number of a text.
    pub fn number(&mut self, text: &str) -> u32 {
        let text = normalise(text);
        if let Some(known) = self.numbers.get(&text) {
            return *known;
        }
        let number = u32::try_from(self.normalised.len()).unwrap_or(u32::MAX);
        self.normalised.push(text.clone());
        self.numbers.insert(text, number);
        number
    }
}

/// A pair by the numbers of its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Numbered {
    /// Among the prompts.
    pub prompt: u32,
    /// Among the responses.
    pub chosen: u32,
    /// Among the responses.
    pub rejected: u32,
}

/// The texts of a set, each once.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Prompts.
    pub prompts: Texts,
    /// Responses, whatever they answer.
    pub responses: Texts,
    /// The pairs, in their order.
    pub pairs: Vec<Numbered>,
}

impl Numbers {
    /// Gives the texts of a set their numbers.
    pub fn of(pairs: &[LabelledPair]) -> Self {
        let mut numbers = Self::default();
        for pair in pairs {
            let numbered = Numbered {
                prompt: numbers.prompts.number(&pair.prompt),
                chosen: numbers.responses.number(&pair.chosen),
                rejected: numbers.responses.number(&pair.rejected),
            };
            numbers.pairs.push(numbered);
        }
        numbers
    }

    /// A value of each pair, added up by prompt; pairs without one are left out.
    pub fn by_prompt(&self, mut value: impl FnMut(usize) -> Option<f64>) -> Vec<Sum> {
        let mut sums = vec![Sum::default(); self.prompts.normalised.len()];
        for (index, pair) in self.pairs.iter().enumerate() {
            if let Some(value) = value(index) {
                sums[pair.prompt as usize].add(value);
            }
        }
        sums
    }
}

/// Values of one prompt, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sum {
    /// Their sum.
    pub sum: f64,
    /// How many there are.
    pub n: u64,
}

impl Sum {
    /// One value more.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.n += 1;
    }
}

/// Draws of all bootstraps together: 20 million take a fifth of a second, and 200 resamples remain for 100,000 prompts.
const DRAWS: usize = 20_000_000;

/// The mean of all values with a bootstrap interval over prompts; `None` below two prompts with values.
pub fn mean(prompts: &[Sum], resamples: usize, run_seed: u64) -> Option<Interval> {
    let prompts: Vec<&Sum> = prompts.iter().filter(|sum| sum.n > 0).collect();
    let resamples = resamples.min((DRAWS / prompts.len().max(1)).max(200));
    interval::bootstrap(&prompts, resamples, run_seed, |draw| {
        let (sum, n) = draw.iter().fold((0.0, 0), |(sum, n), it| (sum + it.sum, n + it.n));
        (n > 0).then(|| sum / n as f64)
    })
}

/// A share of pairs, likewise, [`interval::unanimous`] where all prompts came out alike.
pub fn share(prompts: &[Sum], resamples: usize, run_seed: u64) -> Option<Interval> {
    let filled = prompts.iter().filter(|sum| sum.n > 0).count() as u64;
    Some(interval::unanimous(mean(prompts, resamples, run_seed)?, filled, [0.0, 1.0]))
}

#[cfg(test)]
pub(crate) fn pair(id: &str, prompt: &str, chosen: &str, rejected: &str, source: &str) -> LabelledPair {
    LabelledPair {
        id: id.into(),
        prompt_id: prompt.into(),
        prompt: prompt.into(),
        chosen: chosen.into(),
        rejected: rejected.into(),
        p: 1.0,
        source: source.into(),
        tags: Vec::new(),
        chosen_is_a: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_over_pairs_and_their_intervals_over_prompts() {
        let set =
            [pair("1", "p", "a", "b", "x"), pair("2", "P ", "a", "c", "x"), pair("3", "q", "a", "b", "x")];
        let numbers = Numbers::of(&set);
        let sums = numbers.by_prompt(|index| Some(f64::from(u8::from(index == 0))));
        assert_eq!(sums, [Sum { sum: 1.0, n: 2 }, Sum { sum: 0.0, n: 1 }]);
        let found = share(&sums, 500, 1).unwrap();
        assert!(
            (found.estimate - 1.0 / 3.0).abs() < 1e-12 && found.low == 0.0 && found.high == 0.5,
            "{found:?}"
        );
        let none = share(&numbers.by_prompt(|_| Some(0.0)), 500, 1).unwrap();
        assert!(none.estimate == 0.0 && (none.high - interval::wilson(0, 2).unwrap().high).abs() < 1e-12);
        assert_eq!(share(&numbers.by_prompt(|_| None), 500, 1), None);
        assert_eq!(mean(&sums[..1], 500, 1), None, "one prompt has no interval");
    }
}
