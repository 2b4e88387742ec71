//! Judges that this program loads: what log-probabilities say about responses.
//!
//! * **contrastive**: how much likelier a response is under a principle than under its opposite. There is no order, hence no
//!   position to be biased by, and each response is scored once however many pairs it is in.
//! * **pairwise**: the log-probabilities of the verdict tokens, such as `A` and `B` (Lee et al. 2023, section 2.1,
//!   <https://arxiv.org/abs/2309.00267>); ask in both orders and average through [`crate::aggregate()`]. A template of two steps
//!   lets the model explain first, greedily.
//! * **rating**: the expectation over the probabilities of 1 to 10 as the next token (section 2.4 there).

use crate::soft::{choice_of, expectation, p_first, rescale};
use rlaif_core::config::JudgeConfig;
use rlaif_core::records::{Message, NoVerdict, Verdict};
use std::collections::HashMap;

/// What the program gives us of a model, so that this crate knows no tensors.
pub trait LogprobModel {
    /// What can go wrong inside.
    type Error;

    /// Log-probabilities of each response's text tokens after its conversation, without the end-of-turn token: one row an
    /// item, one value a token; an empty row for a response without tokens.
    ///
    /// # Errors
    /// Those of the model, such as an item longer than the context.
    fn response_logprobs(&mut self, items: &[ScoreItem]) -> Result<Vec<Vec<f32>>, Self::Error>;

    /// Log-probabilities of the candidates as the one next token: one row an item, one value a candidate, −∞ for a candidate
    /// that is not exactly one token.
    ///
    /// # Errors
    /// Those of the model, such as an item longer than the context.
    fn next_token_logprobs(
        &mut self,
        items: &[NextTokenItem],
        candidates: &[&str],
    ) -> Result<Vec<Vec<f32>>, Self::Error>;

    /// What the model says next in each conversation, always taking the likeliest token: at most `max_tokens` of them.
    ///
    /// # Errors
    /// Those of the model, such as a conversation longer than the context.
    fn greedy(
        &mut self,
        conversations: &[Vec<Message>],
        max_tokens: usize,
    ) -> Result<Vec<Greedy>, Self::Error>;
}

/// What a model said of its own accord.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Greedy {
    /// The text.
    pub text: String,
    /// Whether it ended its turn; otherwise the text was cut off.
    pub ended: bool,
}

/// A response to score in its conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScoreItem {
    /// The conversation, ending with a user turn.
    pub messages: Vec<Message>,
    /// The assistant's turn.
    pub response: String,
}

/// A place where the next token is of interest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NextTokenItem {
    /// The conversation, ending with a user turn.
    pub messages: Vec<Message>,
    /// What the assistant has said already.
    pub prefix: String,
}

/// A principle, its opposite, and how sharply a difference counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contrast<'a> {
    /// System prompt of the principle.
    pub principle: &'a str,
    /// System prompt of its opposite.
    pub opposite: &'a str,
    /// p = σ(difference / temperature).
    pub temperature: f64,
}

impl<'a> Contrast<'a> {
    /// Of a contrastive judge's config; `None` if it lacks the principle or its opposite.
    pub fn of(judge: &'a JudgeConfig) -> Option<Self> {
        Some(Self {
            principle: judge.principle.as_deref()?,
            opposite: judge.opposite.as_deref()?,
            temperature: judge.temperature,
        })
    }
}

/// Score of each response: the mean over its tokens of log p(y | x, principle) − log p(y | x, opposite), with the principle
/// and its opposite as system prompts in place of the conversation's own.
///
/// Equal items are scored once. The score of a response without tokens is `None`.
///
/// # Errors
/// Those of the model.
///
/// # Panics
/// If the model breaks its contract: as many rows as items, as many values under the principle as under its opposite.
pub fn contrastive_scores<M: LogprobModel>(
    model: &mut M,
    contrast: &Contrast<'_>,
    items: &[ScoreItem],
) -> Result<Vec<Option<f64>>, M::Error> {
    let mut place: HashMap<&ScoreItem, usize> = HashMap::new();
    let mut unique: Vec<&ScoreItem> = Vec::new();
    for item in items {
        place.entry(item).or_insert_with(|| {
            unique.push(item);
            unique.len() - 1
        });
    }
    // The principle's half and the opposite's half, so that a batch holds prompts of one system prompt.
    let asked: Vec<ScoreItem> = [contrast.principle, contrast.opposite]
        .iter()
        .flat_map(|system| unique.iter().map(|item| under(system, item)))
        .collect();
    let rows = model.response_logprobs(&asked)?;
    assert_eq!(rows.len(), asked.len(), "a model gives one row of log-probabilities an item");
    let (principle, opposite) = rows.split_at(unique.len());
    let scores: Vec<Option<f64>> =
        principle.iter().zip(opposite).map(|(with, against)| mean_log_ratio(with, against)).collect();
    Ok(items.iter().map(|item| scores[place[item]]).collect())
}

/// p(a beats b) = σ((s_a − s_b) / temperature), with p(a, b) + p(b, a) = 1 exactly.
pub fn contrastive_p(score_a: f64, score_b: f64, temperature: f64) -> f64 {
    let x = (score_a - score_b) / temperature;
    let upper = 1.0 / (1.0 + (-x.abs()).exp()); // in [½, 1], where 1 − upper is exact
    if x >= 0.0 { upper } else { 1.0 - upper }
}

/// The verdict on (a, b) from their scores; none where a response had no tokens to score.
pub fn contrastive_verdict(score_a: Option<f64>, score_b: Option<f64>, temperature: f64) -> Verdict {
    match (score_a, score_b) {
        (Some(a), Some(b)) if a.is_finite() && b.is_finite() => soft(contrastive_p(a, b, temperature), None),
        (None, _) | (_, None) => Verdict::none(NoVerdict::Empty),
        _ => Verdict::none(NoVerdict::Failed("the judge's log-probabilities are not finite".into())),
    }
}

/// How a verdict token may be spelt.
fn spellings(label: &str) -> [String; 4] {
    let lower = label.to_lowercase();
    [label.to_owned(), format!(" {label}"), lower.clone(), format!(" {lower}")]
}

/// Below this probability on all verdict tokens together, the model was about to say something else, and what little fell
/// on them is no verdict. SmolLM2-135M has a mean mass of 0.26 (`docs/judging.md`, 2026-11).
pub const MIN_MASS: f64 = 0.02;

/// One verdict a presentation from the log-probabilities of the two labels and their variants. The items are conversations that
/// end with the question, and what the assistant has begun to say.
///
/// # Errors
/// Those of the model.
///
/// # Panics
/// If the model breaks its contract: one row an item, one value a candidate.
pub fn token_verdicts<M: LogprobModel>(
    model: &mut M,
    items: &[NextTokenItem],
    labels: &[String; 2],
) -> Result<Vec<Verdict>, M::Error> {
    let spelt = [spellings(&labels[0]), spellings(&labels[1])].concat();
    let candidates: Vec<&str> = spelt.iter().map(String::as_str).collect();
    let rows = model.next_token_logprobs(items, &candidates)?;
    assert_eq!(rows.len(), items.len(), "a model gives one row of log-probabilities an item");
    // Digits have no lower case: the same token must not count twice.
    let distinct = |row: &[f32], at: usize| -> Vec<f32> {
        let own = &spelt[4 * at..4 * at + 4];
        let first = |i: &usize| own.iter().position(|other| other == &own[*i]) == Some(*i);
        (0..4).filter(first).map(|i| row[4 * at + i]).collect()
    };
    Ok(rows
        .iter()
        .map(|row| {
            assert_eq!(row.len(), candidates.len(), "a model gives one log-probability a candidate");
            verdict_from_logprobs(&distinct(row, 0), &distinct(row, 1))
        })
        .collect())
}

/// One rating an item, from −1 to 1: the expectation over the probabilities of 1 to 10 as what comes next. Where a tokenizer
/// writes 10 as 1 and 0, its probability is that of both, one after the other.
///
/// # Errors
/// Those of the model.
///
/// # Panics
/// If the model breaks its contract: one row an item, one value a candidate.
pub fn ratings<M: LogprobModel>(
    model: &mut M,
    items: &[NextTokenItem],
) -> Result<Vec<Result<f64, NoVerdict>>, M::Error> {
    let spelt: Vec<[String; 2]> =
        (1..=10).map(|rating| [format!("{rating}"), format!(" {rating}")]).collect();
    let candidates: Vec<&str> = spelt.iter().flatten().map(String::as_str).collect();
    let rows = model.next_token_logprobs(items, &candidates)?;
    assert_eq!(rows.len(), items.len(), "a model gives one row of log-probabilities an item");
    let p = |row: &[f32], at: usize| f64::from(row[at]).exp();
    // 10 is one token in either spelling, or it is written after a 1: with the space that stands before it, if any does.
    let one_token = rows.first().is_some_and(|row| row[18].is_finite() || row[19].is_finite());
    let mut after_one: Vec<[f64; 2]> = vec![[0.0; 2]; items.len()];
    if !one_token {
        for (spelling, one) in spelt[0].iter().enumerate() {
            let begun: Vec<NextTokenItem> = items
                .iter()
                .map(|item| NextTokenItem { prefix: format!("{}{one}", item.prefix), ..item.clone() })
                .collect();
            for (after, row) in after_one.iter_mut().zip(model.next_token_logprobs(&begun, &["0"])?) {
                after[spelling] = p(&row, 0);
            }
        }
    }
    Ok(rows
        .iter()
        .zip(after_one)
        .map(|(row, zero)| {
            assert_eq!(row.len(), candidates.len(), "a model gives one log-probability a candidate");
            let mut ratings: [f64; 10] = std::array::from_fn(|i| p(row, 2 * i) + p(row, 2 * i + 1));
            let ten = p(row, 0) * zero[0] + p(row, 1) * zero[1];
            ratings[0] -= ten;
            ratings[9] += ten;
            match expectation(&ratings) {
                Some((rating, mass)) if mass >= MIN_MASS => Ok(rescale(rating)),
                Some(_) => Err(NoVerdict::Unparsable),
                None if row.iter().any(|logprob| logprob.is_nan()) => {
                    Err(NoVerdict::Failed("the judge's log-probabilities are not finite".into()))
                }
                None => Err(NoVerdict::Unparsable),
            }
        })
        .collect())
}

/// p(first) = Σ exp(first) / (Σ exp(first) + Σ exp(second)); the denominator is the mass. −∞ is a token that does not exist.
pub fn verdict_from_logprobs(first: &[f32], second: &[f32]) -> Verdict {
    let mass_of = |logprobs: &[f32]| logprobs.iter().map(|&l| f64::from(l).exp()).sum::<f64>();
    let (first, second) = (mass_of(first), mass_of(second));
    let mass = first + second;
    if !mass.is_finite() {
        return Verdict::none(NoVerdict::Failed("the judge's log-probabilities are not finite".into()));
    }
    if mass < MIN_MASS {
        return Verdict { mass: Some(mass), ..Verdict::none(NoVerdict::Unparsable) };
    }
    soft(p_first(first, second, 0.0), Some(mass))
}

fn soft(p_first: f64, mass: Option<f64>) -> Verdict {
    Verdict { p_first: Some(p_first), mass, ..Verdict::choice(choice_of(p_first)) }
}

/// The item with `system` as its only system prompt.
fn under(system: &str, item: &ScoreItem) -> ScoreItem {
    let turns = item.messages.iter().filter(|m| m.role != "system").cloned();
    let messages = std::iter::once(Message::system(system)).chain(turns).collect();
    ScoreItem { messages, response: item.response.clone() }
}

fn mean_log_ratio(with: &[f32], against: &[f32]) -> Option<f64> {
    assert_eq!(with.len(), against.len(), "a response has the same tokens under both prompts");
    let sum: f64 = with.iter().zip(against).map(|(&w, &a)| f64::from(w) - f64::from(a)).sum();
    (!with.is_empty()).then(|| sum / with.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rlaif_core::records::Choice;

    /// Likes words that its system prompt has: log-prob −1 a known word, −3 an unknown one.
    struct Words {
        scored: usize,
        verdict: Vec<f32>,
        zero: f32,
    }

    impl LogprobModel for Words {
        type Error = std::convert::Infallible;

        fn response_logprobs(&mut self, items: &[ScoreItem]) -> Result<Vec<Vec<f32>>, Self::Error> {
            self.scored += items.len();
            Ok(items
                .iter()
                .map(|item| {
                    assert_eq!(item.messages.iter().filter(|m| m.role == "system").count(), 1);
                    let known = |word: &str| item.messages[0].content.contains(word);
                    item.response.split_whitespace().map(|w| if known(w) { -1.0 } else { -3.0 }).collect()
                })
                .collect())
        }

        fn next_token_logprobs(
            &mut self,
            items: &[NextTokenItem],
            candidates: &[&str],
        ) -> Result<Vec<Vec<f32>>, Self::Error> {
            let zero = vec![self.zero; candidates.len()];
            let row = if candidates == ["0"] { zero } else { self.verdict.clone() };
            assert_eq!(candidates.len(), row.len());
            Ok(vec![row; items.len()])
        }

        fn greedy(
            &mut self,
            conversations: &[Vec<Message>],
            _max_tokens: usize,
        ) -> Result<Vec<Greedy>, Self::Error> {
            Ok(vec![Greedy { text: "Fine.".into(), ended: true }; conversations.len()])
        }
    }

    fn item(response: &str) -> ScoreItem {
        ScoreItem {
            messages: vec![Message::system("You are rude."), Message::user("Hi")],
            response: response.into(),
        }
    }

    const TONE: Contrast<'static> =
        Contrast { principle: "You are kind and warm.", opposite: "You are cold.", temperature: 0.5 };

    #[test]
    fn the_score_is_the_mean_log_ratio_and_each_response_is_scored_once() {
        let mut model = Words { scored: 0, verdict: vec![], zero: 0.0 };
        let items = [item("kind words"), item("cold words here now"), item("kind words"), item("")];
        let scores = contrastive_scores(&mut model, &TONE, &items).unwrap();
        assert_eq!(scores, [Some(1.0), Some(-0.5), Some(1.0), None]);
        assert_eq!(model.scored, 6, "three different responses under two prompts");
    }

    #[test]
    fn the_better_response_wins_through_a_sigmoid() {
        let verdict = contrastive_verdict(Some(1.0), Some(-0.5), 0.5);
        assert_eq!(verdict.choice, Ok(Choice::First));
        assert!((verdict.p_first.unwrap() - 0.952_574_126_822_433_4).abs() < 1e-15, "σ(3)");
        assert_eq!(contrastive_verdict(Some(1.0), Some(1.0), 0.5).choice, Ok(Choice::Tie));
        assert_eq!(contrastive_verdict(Some(1.0), None, 0.5).choice, Err(NoVerdict::Empty));
        assert!(matches!(
            contrastive_verdict(Some(f64::NAN), Some(1.0), 0.5).choice,
            Err(NoVerdict::Failed(_))
        ));
    }

    #[test]
    fn all_spellings_of_a_verdict_count() {
        let none = f32::NEG_INFINITY;
        let l = |p: f32| p.ln();
        let verdict = vec![l(0.1), l(0.2), none, none, l(0.05), none, l(0.05), none];
        let mut model = Words { scored: 0, verdict, zero: 0.0 };
        let asked = NextTokenItem { messages: vec![Message::user("?")], prefix: "Better response:".into() };
        let labels = ["A".to_owned(), "B".to_owned()];
        let verdict = &token_verdicts(&mut model, std::slice::from_ref(&asked), &labels).unwrap()[0];
        assert_eq!(verdict.choice, Ok(Choice::First));
        assert!((verdict.p_first.unwrap() - 0.75).abs() < 1e-6);
        assert!((verdict.mass.unwrap() - 0.4).abs() < 1e-6);
        // "1" has no lower case: its token counts once.
        let digits = ["1".to_owned(), "2".to_owned()];
        model.verdict = vec![l(0.1), l(0.2), l(0.1), l(0.2), l(0.1), none, l(0.1), none];
        let verdict = &token_verdicts(&mut model, &[asked], &digits).unwrap()[0];
        assert!((verdict.mass.unwrap() - 0.4).abs() < 1e-6);
    }

    /// `docs/parity.md`, section 7, d-RLAIF, with 10 as one token and as two.
    #[test]
    fn ratings_are_expectations() {
        let p = [0.01, 0.01, 0.02, 0.03, 0.05, 0.08, 0.20, 0.35, 0.15, 0.10_f32];
        let asked = [NextTokenItem { messages: vec![Message::user("?")], prefix: "Rating:".into() }];
        let spelt = |p: &[f32]| p.iter().flat_map(|p| [f32::NEG_INFINITY, p.ln()]).collect::<Vec<_>>();
        let mut model = Words { scored: 0, verdict: spelt(&p), zero: 0.0 };
        let rating = |model: &mut Words| ratings(model, &asked).unwrap()[0].clone().unwrap();
        assert!((rating(&mut model) - 0.442_222_222_2).abs() < 1e-6);
        let mut split = p;
        (split[0], split[9]) = (p[0] + p[9], 0.0);
        model.verdict = spelt(&split);
        model.zero = (p[9] / split[0]).ln();
        assert!((rating(&mut model) - 0.442_222_222_2).abs() < 1e-6);
        model.verdict = vec![-9.0; 20];
        assert_eq!(ratings(&mut model, &asked).unwrap()[0], Err(NoVerdict::Unparsable));
    }

    #[test]
    fn a_model_that_would_say_something_else_gives_no_verdict() {
        assert_eq!(verdict_from_logprobs(&[-9.0], &[-9.5]).choice, Err(NoVerdict::Unparsable));
        assert_eq!(verdict_from_logprobs(&[f32::NEG_INFINITY], &[f32::NEG_INFINITY]).p_first, None);
        assert!(matches!(verdict_from_logprobs(&[f32::NAN], &[-1.0]).choice, Err(NoVerdict::Failed(_))));
    }

    proptest! {
        #[test]
        fn swapping_gives_the_complement_exactly(a in -50.0..50.0_f64, b in -50.0..50.0_f64, t in 0.01..10.0_f64) {
            prop_assert_eq!(contrastive_p(a, b, t) + contrastive_p(b, a, t), 1.0);
        }
    }
}
