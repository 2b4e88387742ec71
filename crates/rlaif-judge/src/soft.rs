//! Soft labels from token log-probabilities: what the judge might have said instead of what it said.
//!
//! At the token where the verdict stands, the probabilities of all its spellings are added up: with and without a space, in upper and
//! lower case, full width. p(first) = P(first) / (P(first) + P(second)), after Lee et al. 2023, section 2.1
//! (<https://arxiv.org/abs/2309.00267>); a tie, where the judge may say so, counts half for each. What fell on other tokens makes
//! the mass smaller, and below a least mass there is no soft label.
//!
//! A reply in words is read where its verdict stands ([`with_soft_label`]), one that was to be a single token where that token is
//! due ([`token_verdict`]); ratings likewise.

mod place;

use crate::completion::TokenLogprob;
use crate::parse::{Style, half_width, parse};
use rlaif_core::records::{Choice, NoVerdict, Verdict};

/// How one verdict may be spelt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSet {
    /// What it means.
    pub choice: Choice,
    /// Its spellings, without the variants of space, case and width: `1`, `A`, `QX`, `tie`.
    pub labels: Vec<String>,
}

impl LabelSet {
    /// A verdict with one spelling.
    pub fn new(choice: Choice, label: impl Into<String>) -> Self {
        Self { choice, labels: vec![label.into()] }
    }
}

/// A verdict's distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftVerdict {
    /// P(the response shown first is better), renormalised over the labels.
    pub p_first: f64,
    /// Probability that fell on the labels.
    pub mass: f64,
    /// What the judge said at that place.
    pub said: Choice,
}

/// A rating's distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftRating {
    /// Σ i·P(i) over 1 to 10, renormalised.
    pub mean: f64,
    /// Probability that fell on the ratings.
    pub mass: f64,
}

/// Probabilities that add up to more than this are no probabilities.
const MOST: f64 = 1.01;

/// A rating of 1 that may be the beginning of 10 is let pass only below this share of the mass: it moves the mean by less than 0.1.
const DOUBT: f64 = 0.01;

/// The distribution over the labels where the verdict stands: after words such as `Better response:`, or at the end of the text.
/// `None` if there are no log-probabilities, no verdict, or a mass below `min_mass`.
///
/// A label of several tokens is followed from token to token until those that are left part ways. Of labels that part ways at
/// once, the first token stands for the whole.
pub fn soft_verdict(tokens: &[TokenLogprob], labels: &[LabelSet], min_mass: f64) -> Option<SoftVerdict> {
    let spellings = spellings(labels);
    let (said, place) = place::of_verdict(tokens, &spellings)?;
    let shares = Shares::at(&tokens[place..], labels, &spellings)?;
    let (p_first, mass) = shares.p_first(min_mass)?;
    Some(SoftVerdict { p_first, mass, said: labels[said].choice })
}

/// The verdict with its soft label, where the log-probabilities are about the same verdict that was read from the text.
#[must_use]
pub fn with_soft_label(
    verdict: Verdict,
    tokens: &[TokenLogprob],
    labels: &[LabelSet],
    min_mass: f64,
) -> Verdict {
    let Ok(choice) = verdict.choice else { return verdict };
    match soft_verdict(tokens, labels, min_mass) {
        Some(soft) if soft.said == choice => {
            Verdict { p_first: Some(soft.p_first), mass: Some(soft.mass), ..verdict }
        }
        _ => verdict,
    }
}

/// The verdict of a reply that was to be a label and nothing else: from the probabilities where the label is due, whatever was said
/// there. Where there are none, or their mass is below `min_mass`, the label that was said is a verdict without p.
pub fn token_verdict(tokens: &[TokenLogprob], said: &str, labels: &[LabelSet], min_mass: f64) -> Verdict {
    let due = place::of_token(tokens);
    let shares = due.and_then(|at| Shares::at(&tokens[at..], labels, &spellings(labels)));
    if let Some(shares) = shares
        && let Some((p_first, mass)) = shares.p_first(min_mass)
    {
        return Verdict { p_first: Some(p_first), mass: Some(mass), ..Verdict::choice(shares.choice()) };
    }
    let word = plain(place::token_said(said).as_bytes());
    let set = labels.iter().find(|set| set.labels.iter().any(|label| plain(label.as_bytes()) == word));
    let choice = set.map(|set| set.choice).ok_or(NoVerdict::Unparsable);
    Verdict { mass: due.map(|_| shares.map_or(0.0, |shares| shares.mass())), ..Verdict::of(choice) }
}

/// The rating of a reply that was to be a number from 1 to 10 and nothing else: the expectation where the number is due (d-RLAIF,
/// Lee et al. 2023, section 2.2.2), or the number that was said where there are no probabilities, or too few.
///
/// # Errors
/// If the reply is no rating.
pub fn token_rating(tokens: &[TokenLogprob], said: &str, min_mass: f64) -> Result<f64, NoVerdict> {
    let soft = place::of_token(tokens).and_then(|at| soft_rating(&tokens[at..], min_mass));
    soft.map_or_else(|| rating_said(said), |soft| Ok(soft.mean))
}

/// The rating of a reply in words: the number that was said, or the expectation at its place.
///
/// # Errors
/// If the reply is no rating.
pub fn text_rating(tokens: &[TokenLogprob], said: &str, min_mass: f64) -> Result<f64, NoVerdict> {
    let rating = rating_said(said)?;
    let soft = place::of_rating(tokens)
        .filter(|(read, _)| f64::from(*read) == rating)
        .and_then(|(_, at)| soft_rating(&tokens[at..], min_mass));
    Ok(soft.map_or(rating, |soft| soft.mean))
}

/// The distribution over the ratings at the first of these tokens. `None` if there is none, its mass is below `min_mass`, or a 1 may
/// be the beginning of a 10 that nobody can see.
pub fn soft_rating(tokens: &[TokenLogprob], min_mass: f64) -> Option<SoftRating> {
    let (here, rest) = tokens.split_first()?;
    let mut shares = [0.0; 10];
    let mut ten_is_a_token = false;
    for (bytes, probability) in candidates(here) {
        let Ok(rating @ 1..=10) = plain(bytes).parse::<usize>() else { continue };
        ten_is_a_token |= rating == 10;
        shares[rating - 1] += probability;
    }
    if !ten_is_a_token && shares[0] > 0.0 {
        // The tokenizer may write 10 in two tokens; what follows a 1 is known only if the judge said 1.
        let said_one = plain(&here.bytes) == "1";
        match rest.first().filter(|_| said_one) {
            Some(next) => {
                let zero: f64 =
                    candidates(next).filter(|(bytes, _)| bytes.starts_with(b"0")).map(|(_, p)| p).sum();
                shares[9] = shares[0] * zero.min(1.0);
                shares[0] -= shares[9];
            }
            None if shares[0] > DOUBT * shares.iter().sum::<f64>() => return None,
            None => {}
        }
    }
    let (mean, mass) = expectation(&shares)?;
    (mass >= min_mass && mass <= MOST).then_some(SoftRating { mean, mass: mass.min(1.0) })
}

/// s = Σ i·P(i) / Σ P(i) over the ratings 1 to 10, and Σ P(i); `None` without any mass.
pub fn expectation(probabilities: &[f64; 10]) -> Option<(f64, f64)> {
    let mass: f64 = probabilities.iter().sum();
    let weighted: f64 = probabilities.iter().zip(1..).map(|(p, rating)| p * f64::from(rating)).sum();
    (mass.is_finite() && mass > 0.0).then(|| (weighted / mass, mass))
}

/// A rating on the scale of a reward: 1 is −1 and 10 is 1, linear between (Lee et al. 2023 say "normalised to [−1, 1]").
pub fn rescale(rating: f64) -> f64 {
    (rating - 5.5) / 4.5
}

/// P(first) / (P(first) + P(second)) with a tie as half of each. The larger half is 1 minus the smaller one, so that exchanging first
/// and second gives the complement exactly.
pub(crate) fn p_first(first: f64, second: f64, tie: f64) -> f64 {
    let smaller = (first.min(second) + 0.5 * tie) / (first + second + tie);
    if first <= second { smaller } else { 1.0 - smaller }
}

/// What a probability chooses.
pub(crate) fn choice_of(p_first: f64) -> Choice {
    match p_first {
        p if p > 0.5 => Choice::First,
        p if p < 0.5 => Choice::Second,
        _ => Choice::Tie,
    }
}

fn rating_said(said: &str) -> Result<f64, NoVerdict> {
    let parsed = parse(said, Style::Rating1To10);
    match (parsed.scores.as_deref(), parsed.verdict) {
        (Some([rating]), _) => Ok(*rating),
        (_, Err(reason)) => Err(reason),
        _ => Err(NoVerdict::Unparsable),
    }
}

/// Every spelling with the place of its set.
fn spellings(labels: &[LabelSet]) -> Vec<(usize, String)> {
    let of_set = |(set, labels): (usize, &LabelSet)| {
        labels.labels.iter().map(|label| (set, plain(label.as_bytes()))).collect::<Vec<_>>()
    };
    labels.iter().enumerate().flat_map(of_set).filter(|(_, label)| !label.is_empty()).collect()
}

/// Probability of each verdict.
#[derive(Debug, Clone, Copy)]
struct Shares {
    first: f64,
    second: f64,
    tie: f64,
}

impl Shares {
    /// From the first of these tokens on; `None` if what was said there has no probability.
    fn at(tokens: &[TokenLogprob], labels: &[LabelSet], spellings: &[(usize, String)]) -> Option<Self> {
        let shares = shares_of_sets(tokens, labels.len(), spellings)?;
        let of = |choice| -> f64 {
            labels.iter().zip(&shares).filter(|(set, _)| set.choice == choice).map(|(_, share)| share).sum()
        };
        Some(Self { first: of(Choice::First), second: of(Choice::Second), tie: of(Choice::Tie) })
    }

    fn mass(self) -> f64 {
        self.first + self.second + self.tie
    }

    /// p(first) and the mass behind it, if it is enough and no more than there can be.
    fn p_first(self, min_mass: f64) -> Option<(f64, f64)> {
        let mass = self.mass();
        let enough = mass > 0.0 && mass >= min_mass && mass <= MOST;
        enough.then(|| (p_first(self.first, self.second, self.tie), mass.min(1.0)))
    }

    /// The likeliest verdict.
    fn choice(self) -> Choice {
        match self.tie > self.first.max(self.second) {
            true => Choice::Tie,
            false => choice_of(p_first(self.first, self.second, self.tie)),
        }
    }
}

/// Probability of each set of labels from the first of these tokens on.
fn shares_of_sets(tokens: &[TokenLogprob], sets: usize, spellings: &[(usize, String)]) -> Option<Vec<f64>> {
    let mut said = String::new();
    let mut reached = 1.0;
    for token in tokens {
        let after = |bytes: &[u8]| {
            // What stands around the label belongs to its first token only.
            let text = if said.is_empty() { plain(bytes) } else { rest_of(bytes) };
            format!("{said}{text}")
        };
        let open = |text: &str| -> Vec<usize> {
            let mut sets: Vec<usize> = spellings
                .iter()
                .filter(|(_, label)| text.len() > said.len() && label.starts_with(text))
                .map(|(set, _)| *set)
                .collect();
            sets.dedup();
            sets
        };
        let own = after(&token.bytes);
        if own == said {
            // Space or a quotation mark before the label.
            if !said.is_empty() {
                return None;
            }
            reached *= token.logprob?.min(0.0).exp();
            continue;
        }
        let whole = |text: &String| spellings.iter().any(|(_, label)| label == text);
        if open(&own).len() > 1 && !whole(&own) {
            reached *= token.logprob?.min(0.0).exp();
            said = own;
            continue;
        }
        let seen: Vec<(String, f64)> =
            candidates(token).map(|(bytes, probability)| (after(bytes), probability)).collect();
        let mut shares = vec![0.0; sets];
        for (text, probability) in &seen {
            if let Some((set, _)) = spellings.iter().find(|(_, label)| label == text) {
                shares[*set] += probability;
                continue;
            }
            // The beginning of a label counts for it where no token is the whole of it.
            if let [set] = open(text)[..] {
                let seen = |label: &String| seen.iter().any(|(other, _)| other == label);
                if !spellings.iter().any(|(other, label)| *other == set && seen(label)) {
                    shares[set] += probability;
                }
            }
        }
        return Some(shares.into_iter().map(|share| share * reached).collect());
    }
    None
}

/// What could have stood in a token's place, each once, the token itself among them; without those whose probability is not said.
fn candidates(token: &TokenLogprob) -> impl Iterator<Item = (&[u8], f64)> {
    let own = (token.bytes.as_slice(), token.logprob);
    let in_top = token.top.iter().any(|(bytes, _)| *bytes == token.bytes);
    let mut seen: Vec<&[u8]> = Vec::new();
    let top = token.top.iter().map(|(bytes, logprob)| (bytes.as_slice(), *logprob));
    (!in_top).then_some(own).into_iter().chain(top).filter_map(move |(bytes, logprob)| {
        if seen.contains(&bytes) {
            return None;
        }
        seen.push(bytes);
        Some((bytes, logprob?.min(0.0).exp()))
    })
}

/// A token or label without what may stand around it, in ASCII and lower case: ` Ａ` and `**a` are `a`.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || "\"'`*_[](){}<>:.,;!#▁Ġ\u{feff}".contains(c));
    text.chars().map(half_width).flat_map(char::to_lowercase).collect()
}

/// A later token of a label: nothing is taken off at its beginning.
fn rest_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(|c: char| !c.is_alphanumeric());
    text.chars().map(half_width).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests;
