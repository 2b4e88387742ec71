//! Soft labels from token log-probabilities: what the judge might have said instead of what it said.
//!
//! At the token where the verdict stands, the probabilities of all its spellings are added up: with and without a space, in upper and
//! lower case, full width. p(first) = P(first) / (P(first) + P(second)), after Lee et al. 2023, section 2.1
//! (<https://arxiv.org/abs/2309.00267>); a tie, where the judge may say so, counts half for each. What fell on other tokens makes
//! the mass smaller, and below a least mass there is no soft label.

use crate::completion::{Completion, TokenLogprob};
use rlaif_core::records::{Choice, Verdict};

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
    /// The mean on [−1, 1]: 1 is −1 and 10 is 1 (d-RLAIF, Lee et al. 2023, section 2.2.2).
    pub scaled: f64,
    /// Probability that fell on the ratings.
    pub mass: f64,
}

/// Probabilities that add up to more than this are no probabilities.
const MOST: f64 = 1.01;

/// A rating of 1 that may be the beginning of 10 is let pass only below this share of the mass: it moves the mean by less than 0.1.
const DOUBT: f64 = 0.01;

/// The distribution over the labels where the verdict stands: at the last place where the text has a label by itself. `None` if
/// there are no log-probabilities, no label, or a mass below `min_mass`.
///
/// A label of several tokens is followed from token to token until those that are left part ways. Of labels that part ways at
/// once, the first token stands for the whole.
pub fn soft_verdict(completion: &Completion, labels: &[LabelSet], min_mass: f64) -> Option<SoftVerdict> {
    let tokens = &completion.logprobs;
    let spellings: Vec<(usize, String)> = labels
        .iter()
        .enumerate()
        .flat_map(|(set, labels)| labels.labels.iter().map(move |label| (set, plain(label.as_bytes()))))
        .filter(|(_, label)| !label.is_empty())
        .collect();
    let (said, place) = last_label(tokens, &spellings)?;
    let shares = shares_at(&tokens[place..], labels.len(), &spellings)?;
    let of = |choice| -> f64 {
        labels.iter().zip(&shares).filter(|(set, _)| set.choice == choice).map(|(_, share)| share).sum()
    };
    let (first, second, tie) = (of(Choice::First), of(Choice::Second), of(Choice::Tie));
    let mass = first + second + tie;
    if !(mass > 0.0 && mass >= min_mass && mass <= MOST) {
        return None;
    }
    // The larger half is 1 minus the smaller one, so that swapping the labels gives the complement exactly.
    let smaller = (first.min(second) + 0.5 * tie) / mass;
    let p_first = if first <= second { smaller } else { 1.0 - smaller };
    Some(SoftVerdict { p_first, mass: mass.min(1.0), said: labels[said].choice })
}

/// The verdict with its soft label, where the log-probabilities are about the same verdict that was read from the text.
#[must_use]
pub fn with_soft_label(
    verdict: Verdict,
    completion: &Completion,
    labels: &[LabelSet],
    min_mass: f64,
) -> Verdict {
    let Ok(choice) = verdict.choice else { return verdict };
    match soft_verdict(completion, labels, min_mass) {
        Some(soft) if soft.said == choice => {
            Verdict { p_first: Some(soft.p_first), mass: Some(soft.mass), ..verdict }
        }
        _ => verdict,
    }
}

/// The verdict of a reply that was to be a label and nothing else, such as one of a single token. That it reached its token limit is
/// no fault then: the label is whole. `None` if the text is no label.
pub fn bare_verdict(completion: &Completion, labels: &[LabelSet], min_mass: f64) -> Option<Verdict> {
    let text = plain(completion.text.as_deref()?.as_bytes());
    let set = labels.iter().find(|set| set.labels.iter().any(|label| plain(label.as_bytes()) == text))?;
    Some(with_soft_label(Verdict::choice(set.choice), completion, labels, min_mass))
}

/// The expected rating at the last place where the text has a whole number from 1 to 10 by itself; the 10 of `7/10` is none.
/// `None` if there is no such place, the mass is below `min_mass`, or a 1 may be the beginning of a 10 that nobody can see.
pub fn soft_rating(completion: &Completion, min_mass: f64) -> Option<SoftRating> {
    let tokens = &completion.logprobs;
    let place = last_rating(tokens)?;
    let mut shares = [0.0; 11];
    let mut ten_is_a_token = false;
    for (bytes, probability) in candidates(&tokens[place]) {
        let Ok(rating @ 1..=10) = plain(bytes).parse::<usize>() else { continue };
        ten_is_a_token |= rating == 10;
        shares[rating] += probability;
    }
    if !ten_is_a_token && shares[1] > 0.0 {
        // The tokenizer may write 10 in two tokens; what follows a 1 is known only if the judge said 1.
        let said_one = plain(&tokens[place].bytes) == "1";
        match tokens.get(place + 1).filter(|_| said_one) {
            Some(next) => {
                let zero: f64 =
                    candidates(next).filter(|(bytes, _)| bytes.starts_with(b"0")).map(|(_, p)| p).sum();
                shares[10] = shares[1] * zero.min(1.0);
                shares[1] -= shares[10];
            }
            None if shares[1] > DOUBT * shares.iter().sum::<f64>() => return None,
            None => {}
        }
    }
    let mass: f64 = shares.iter().sum();
    if !(mass > 0.0 && mass >= min_mass && mass <= MOST) {
        return None;
    }
    let mean = shares.iter().enumerate().map(|(rating, share)| rating as f64 * share).sum::<f64>() / mass;
    Some(SoftRating { mean, scaled: scaled_rating(mean), mass: mass.min(1.0) })
}

/// A rating from 1 to 10 on [−1, 1].
pub fn scaled_rating(rating: f64) -> f64 {
    (rating - 1.0) / 9.0 * 2.0 - 1.0
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
    let text =
        text.trim_matches(|c: char| c.is_whitespace() || "\"'`*_[](){}<>:.,,;!#▁Ġ\u{feff}".contains(c));
    text.chars().map(half_width).flat_map(char::to_lowercase).collect()
}

/// `Ａ` as `A`: the full-width forms of ASCII.
fn half_width(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

/// The set of the last label that stands by itself in the text, and the token in which it begins.
///
/// In a text of more than the label, its case counts: `A` is a verdict there and `a` is an article.
fn last_label(tokens: &[TokenLogprob], spellings: &[(usize, String)]) -> Option<(usize, usize)> {
    let (text, starts) = joined(tokens);
    let whole = plain(text.as_bytes());
    let alone = spellings.iter().find(|(_, label)| *label == whole);
    if let Some((set, label)) = alone {
        let at = text.chars().map(half_width).collect::<String>().to_lowercase().find(label.as_str());
        // Full-width letters are three bytes long; where lengths differ the first token with text is the place.
        let by_token = tokens.iter().position(|token| !plain(&token.bytes).is_empty());
        let place = match at {
            Some(at) if text.is_ascii() => token_at(&starts, at),
            _ => by_token?,
        };
        return Some((*set, place));
    }
    let lower: String = text.chars().map(|c| half_width(c).to_ascii_lowercase()).collect();
    let offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let chars: Vec<char> = lower.chars().collect();
    let original: Vec<char> = text.chars().map(half_width).collect();
    let mut last: Option<(usize, usize)> = None;
    for (set, label) in spellings {
        let wanted: Vec<char> = label.chars().collect();
        let single_letter = wanted.len() == 1 && wanted[0].is_ascii_alphabetic();
        for at in (0..chars.len().saturating_sub(wanted.len() - 1)).rev() {
            if chars[at..at + wanted.len()] != wanted[..] {
                continue;
            }
            let by_itself = !is_word(at.checked_sub(1).map(|before| chars[before]))
                && !is_word(chars.get(at + wanted.len()).copied());
            if by_itself && (!single_letter || original[at].is_ascii_uppercase()) {
                if last.is_none_or(|(_, best)| at > best) {
                    last = Some((*set, at));
                }
                break;
            }
        }
    }
    last.map(|(set, at)| (set, token_at(&starts, offsets[at])))
}

/// The token with the last whole number from 1 to 10.
fn last_rating(tokens: &[TokenLogprob]) -> Option<usize> {
    let (text, starts) = joined(tokens);
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let mut at = bytes.len();
    while let Some(end) = (0..at).rev().find(|&at| bytes[at].is_ascii_digit()).map(|last| last + 1) {
        let start = (0..end).rev().take_while(|&at| bytes[at].is_ascii_digit()).last().unwrap_or(end - 1);
        at = start;
        let before = text[..start].trim_end();
        let part = (bytes.get(end) == Some(&b'.') && digit(Some(end + 1)))
            || (start >= 2 && bytes[start - 1] == b'.' && digit(Some(start - 2)));
        let total = before.ends_with('/') || before.ends_with("out of");
        if !part && !total && matches!(text[start..end].parse::<usize>(), Ok(1..=10)) {
            return Some(token_at(&starts, start));
        }
    }
    None
}

/// The text of all tokens, and where each begins in it. Bytes that are no UTF-8 become one replacement a byte, so that places stay
/// right.
fn joined(tokens: &[TokenLogprob]) -> (String, Vec<usize>) {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.bytes.iter().copied()).collect();
    let mut starts = Vec::with_capacity(tokens.len());
    let mut at = 0;
    for token in tokens {
        starts.push(at);
        at += token.bytes.len();
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        // One character a byte: only ASCII is looked for.
        Err(error) => error
            .into_bytes()
            .into_iter()
            .map(|byte| if byte.is_ascii() { char::from(byte) } else { '\u{1}' })
            .collect(),
    };
    (text, starts)
}

fn token_at(starts: &[usize], offset: usize) -> usize {
    starts.partition_point(|&start| start <= offset).saturating_sub(1)
}

/// Probability of each set of labels from this token on.
fn shares_at(tokens: &[TokenLogprob], sets: usize, spellings: &[(usize, String)]) -> Option<Vec<f64>> {
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
        let own_sets = open(&own);
        let complete = spellings.iter().any(|(_, label)| *label == own);
        if own_sets.is_empty() {
            return None;
        }
        if own_sets.len() > 1 && !complete {
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
                let whole = |label: &String| seen.iter().any(|(other, _)| other == label);
                if !spellings.iter().any(|(other, label)| *other == set && whole(label)) {
                    shares[set] += probability;
                }
            }
        }
        return Some(shares.into_iter().map(|share| share * reached).collect());
    }
    None
}

/// A later token of a label: nothing is taken off at its beginning.
fn rest_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(|c: char| !c.is_alphanumeric());
    text.chars().map(half_width).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests;
