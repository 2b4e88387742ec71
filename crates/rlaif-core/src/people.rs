//! What people say of pairs, and what it comes to.
//!
//! A label of a person is about three texts and not about a row: it holds for whatever pair has the same prompt and the same two
//! responses, also after the pair was computed anew. [`PairKey`] is the name of such a pair.

use crate::config::{LabelConfig, ReviewConfig};
use crate::records::{Fate, Pair, Preference, PromptText};
use serde::{Deserialize, Serialize};

/// What stands in a preference's `judges` where people made it.
pub const HUMAN: &str = "human";

/// What a person says of two responses; which is the first is said by [`PairKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HumanChoice {
    /// The first is better.
    First,
    /// The second is better.
    Second,
    /// They are equally good.
    Tie,
    /// The person would not say: no label.
    Skip,
}

impl HumanChoice {
    /// The same choice when the two change names.
    pub fn swapped(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            other => other,
        }
    }
}

/// The name of a prompt and two responses, whichever of them is called a.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PairKey {
    /// 32 hex digits of BLAKE3 over the prompt's turns and the two texts in their order as bytes.
    pub hash: String,
    /// Whether a is the one that comes first in that order.
    pub a_first: bool,
}

impl PairKey {
    /// The key of a pair.
    pub fn of(prompt: &PromptText, a: &str, b: &str) -> Self {
        let a_first = a <= b;
        let (first, second) = if a_first { (a, b) } else { (b, a) };
        let mut hasher = blake3::Hasher::new_derive_key("rlaif 2026 reviewed pair");
        let mut put = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        for turn in prompt.messages() {
            put(&turn.role);
            put(&turn.content);
        }
        put(first);
        put(second);
        Self { hash: hasher.finalize().to_hex()[..32].to_string(), a_first }
    }

    /// The first 64 bits: the index of its random streams.
    pub fn number(&self) -> u64 {
        u64::from_str_radix(&self.hash[..16], 16).unwrap_or(0)
    }
}

/// How people voted on a pair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Votes {
    /// Those who prefer a.
    pub a: u32,
    /// Those who prefer b.
    pub b: u32,
    /// Those who find them equal.
    pub ties: u32,
    /// The first note of one of them.
    pub note: Option<String>,
}

impl Votes {
    /// Adds the choice of a person about a (first) and b (second); one who skipped has no vote.
    pub fn add(&mut self, choice: HumanChoice) {
        match choice {
            HumanChoice::First => self.a += 1,
            HumanChoice::Second => self.b += 1,
            HumanChoice::Tie => self.ties += 1,
            HumanChoice::Skip => {}
        }
    }

    /// How many there are.
    pub fn n(&self) -> u32 {
        self.a + self.b + self.ties
    }

    /// P(a beats b) = (a + ties/2 + c) / (n + 2c) = ½ + (a − b) / (2n + 4c); `None` without votes. p(a, b) + p(b, a) = 1 to the bit.
    pub fn p(&self, smoothing: f64) -> Option<f64> {
        let n = f64::from(self.n());
        let lead = (f64::from(self.a) - f64::from(self.b)) / (2.0 * n + 4.0 * smoothing);
        // 1 − p is exact from ½ upwards.
        let p = 0.5 + lead.abs();
        (self.n() > 0).then_some(if lead < 0.0 { 1.0 - p } else { p })
    }

    /// What most of them say: the choice with more votes than each of the others, else a tie. `None` without votes.
    pub fn majority(&self) -> Option<HumanChoice> {
        match self.n() {
            0 => None,
            _ if self.a > self.b && self.a > self.ties => Some(HumanChoice::First),
            _ if self.b > self.a && self.b > self.ties => Some(HumanChoice::Second),
            _ => Some(HumanChoice::Tie),
        }
    }

    /// The population standard deviation of the votes as 1, ½ and 0; `None` below two of them.
    fn spread(&self) -> Option<f64> {
        let n = f64::from(self.n());
        let mean = self.p(0.0).filter(|_| self.n() > 1)?;
        let square = |value: f64| (value - mean) * (value - mean);
        let sum = f64::from(self.a) * square(1.0)
            + f64::from(self.b) * square(0.0)
            + f64::from(self.ties) * square(0.5);
        Some((sum / n).sqrt())
    }
}

/// The preference that people's votes on a pair come to; it takes the place of the judges'. `None` without votes.
pub fn preference(
    pair: &Pair,
    votes: &Votes,
    review: &ReviewConfig,
    label: &LabelConfig,
) -> Option<Preference> {
    let p = votes.p(review.smoothing)?;
    let tie = p == 0.5 || (p - 0.5).abs() < label.tie_margin;
    Some(Preference {
        pair_id: pair.id.clone(),
        prompt_id: pair.prompt_id.clone(),
        p: Some(p),
        spread: votes.spread(),
        fate: if tie && !label.keep_ties { Fate::Tie } else { Fate::Kept },
        judges: vec![HUMAN.into()],
        explanation: votes.note.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(choices: &[HumanChoice]) -> Votes {
        let mut votes = Votes::default();
        choices.iter().for_each(|choice| votes.add(*choice));
        votes
    }

    #[test]
    fn a_key_is_of_the_texts_and_not_of_their_names() {
        let prompt = PromptText::Text("Why?".into());
        let (ab, ba) = (PairKey::of(&prompt, "yes", "no"), PairKey::of(&prompt, "no", "yes"));
        assert_eq!(ab.hash, ba.hash);
        assert!(!ab.a_first && ba.a_first);
        let as_turns = PromptText::Messages(prompt.messages());
        assert_eq!(PairKey::of(&as_turns, "yes", "no"), ab, "a text is one turn of the user");
        let others = [
            PairKey::of(&PromptText::Text("Why".into()), "yes", "no"),
            PairKey::of(&prompt, "yes", "nono"),
            PairKey::of(&prompt, "yesno", ""),
        ];
        assert!(others.iter().all(|other| other.hash != ab.hash));
    }

    #[test]
    fn votes_come_to_p_and_skips_to_nothing() {
        use HumanChoice::{First, Second, Skip, Tie};
        assert_eq!(votes(&[Skip]).p(0.0), None);
        assert_eq!(votes(&[First, Skip]).p(0.0), Some(1.0));
        assert_eq!(votes(&[First, Second, Tie, First]).p(0.0), Some(0.625));
        assert_eq!(votes(&[Second]).p(0.5), Some(0.25));
        let (ab, ba) = (votes(&[First, First, Tie]), votes(&[Second, Second, Tie]));
        assert_eq!(ab.p(0.3).unwrap() + ba.p(0.3).unwrap(), 1.0);
        assert_eq!(ab.majority(), Some(First));
        assert_eq!(votes(&[First, Second]).majority(), Some(Tie));
        assert_eq!(votes(&[]).majority(), None);
    }

    #[test]
    fn people_who_disagree_make_a_tie_and_their_spread_is_told() {
        use HumanChoice::{First, Second};
        let pair = Pair { id: "p/0-1".into(), prompt_id: "p".into(), a: "p/0".into(), b: "p/1".into() };
        let (review, label) = (ReviewConfig::default(), LabelConfig::default());
        let split = preference(&pair, &votes(&[First, Second]), &review, &label).unwrap();
        assert_eq!((split.fate, split.p, split.spread), (Fate::Tie, Some(0.5), Some(0.5)));
        let keeps = LabelConfig { keep_ties: true, ..label.clone() };
        assert_eq!(preference(&pair, &votes(&[First, Second]), &review, &keeps).unwrap().fate, Fate::Kept);
        let sure = preference(&pair, &votes(&[Second]), &review, &label).unwrap();
        assert_eq!((sure.fate, sure.p, sure.spread), (Fate::Kept, Some(0.0), None));
        assert_eq!(sure.judges, [HUMAN]);
        assert_eq!(preference(&pair, &Votes::default(), &review, &label), None);
    }
}
