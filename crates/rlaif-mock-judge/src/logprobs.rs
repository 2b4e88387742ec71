//! Log-probabilities in OpenAI's wire format, with what real servers do to them: bytes, the −9999.0 of "very unlikely", and
//! fewer candidates than were asked for.

use crate::opinion::Opinion;
use crate::writing::{Alternatives, Written, tokens};
use rand::{Rng, RngExt};
use rlaif_core::records::Choice;
use serde_json::{Value, json};

/// What OpenAI sends for a probability that it does not tell.
const VERY_UNLIKELY: f64 = -9999.0;

/// What else could have been said, to fill the list of candidates.
const OTHERS: [&str; 20] = [
    "The", " the", "Both", "I", "**", "\n", "Response", "Neither", "Well", " ", "It", "As", "\"", "(",
    "Based", "Let", "Here", "After", "My", "In",
];

/// `choices[0].logprobs` for the tokens of a text. Probabilities at the verdict are the opinion's; elsewhere each token is
/// nearly certain.
pub fn logprobs<R: Rng>(
    written: &Written,
    text: &str,
    opinion: &Opinion,
    top: usize,
    mass: f64,
    rng: &mut R,
) -> Value {
    let mut at = 0;
    let mut content = Vec::new();
    for token in tokens(text) {
        let range = at..at + token.len();
        at = range.end;
        let is_verdict = range.end == written.verdict.end && range.start <= written.verdict.start;
        let mut candidates = if is_verdict && !written.verdict.is_empty() {
            at_verdict(token, written, opinion, mass, rng)
        } else {
            vec![(token.to_owned(), -rng.random_range(0.0..0.01))]
        };
        let said = candidates.iter().find(|(candidate, _)| candidate == token).map_or(-0.01, |(_, lp)| *lp);
        fill_up(&mut candidates, top, rng);
        candidates.truncate(top);
        let shown: Vec<Value> = candidates.iter().map(|(token, lp)| entry(token, *lp)).collect();
        let mut said = entry(token, said);
        said["top_logprobs"] = Value::Array(shown);
        content.push(said);
    }
    json!({"content": content, "refusal": null})
}

fn entry(token: &str, logprob: f64) -> Value {
    json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()})
}

/// The labels with their probabilities, the likelier one first, each split over two ways to write it.
fn at_verdict<R: Rng>(
    token: &str,
    written: &Written,
    opinion: &Opinion,
    mass: f64,
    rng: &mut R,
) -> Vec<(String, f64)> {
    let spaced = token.starts_with(' ');
    let weights: Vec<(String, f64)> = match &written.alternatives {
        Alternatives::Labels(labels) => {
            let (p_first, p_second) = match opinion.choice {
                Choice::First => (opinion.confidence, 1.0 - opinion.confidence),
                Choice::Second => (1.0 - opinion.confidence, opinion.confidence),
                Choice::Tie => (0.25, 0.25),
            };
            vec![(labels[0].clone(), p_first), (labels[1].clone(), p_second)]
        }
        Alternatives::Ratings => {
            // A bell around the quality, one rating wide.
            let centre = 1.0 + 9.0 * opinion.quality[0].clamp(0.0, 1.0);
            let bell: Vec<f64> = (1..=10).map(|r| (-0.5 * (f64::from(r) - centre).powi(2)).exp()).collect();
            let total: f64 = bell.iter().sum();
            (1..=10).map(|r: u32| r.to_string()).zip(bell.into_iter().map(|b| b / total)).collect()
        }
    };
    let mut candidates = Vec::new();
    // The same label with and without a space are two tokens; most of its probability is on the one that is said.
    let split = rng.random_range(0.9..0.995);
    for (label, p) in weights {
        let other = if spaced { label.clone() } else { format!(" {label}") };
        let label = if spaced { format!(" {label}") } else { label };
        candidates.push((label, log(p * mass * split)));
        candidates.push((other, log(p * mass * (1.0 - split))));
    }
    if !candidates.iter().any(|(candidate, _)| candidate == token) {
        // A tie has the other half.
        candidates.push((token.to_owned(), log(mass * 0.5)));
    }
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
    candidates
}

fn log(p: f64) -> f64 {
    if p > 0.0 { p.ln() } else { VERY_UNLIKELY }
}

/// Other tokens share what is left; the last are often "very unlikely", and sometimes the list ends early.
fn fill_up<R: Rng>(candidates: &mut Vec<(String, f64)>, top: usize, rng: &mut R) {
    let shortfall = if rng.random_bool(0.2) { rng.random_range(0..3) } else { 0 };
    let sentinel_from = if rng.random_bool(0.3) { top.saturating_sub(2) } else { usize::MAX };
    let used: f64 = candidates.iter().map(|(_, lp)| lp.exp()).sum();
    let mut left = (1.0 - used).max(1e-9);
    for &other in &OTHERS {
        if candidates.len() + shortfall >= top {
            break;
        }
        if candidates.iter().any(|(candidate, _)| candidate == other) {
            continue;
        }
        left /= 2.0;
        let logprob = if candidates.len() >= sentinel_from { VERY_UNLIKELY } else { log(left) };
        candidates.push((other.to_owned(), logprob));
    }
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opinion(choice: Choice, confidence: f64) -> Opinion {
        Opinion { choice, confidence, quality: [0.7, 0.1], position_biased: false }
    }

    fn written(text: &str, verdict: std::ops::Range<usize>, alternatives: Alternatives) -> Written {
        Written { text: text.into(), verdict, alternatives }
    }

    fn labels() -> Alternatives {
        Alternatives::Labels(["A".into(), "B".into()])
    }

    fn p_of(top: &Value, word: &str) -> f64 {
        let entries = top.as_array().unwrap().iter();
        let of_word = entries.filter(|entry| entry["token"].as_str().unwrap().trim() == word);
        of_word.map(|entry| entry["logprob"].as_f64().unwrap().exp()).sum()
    }

    #[test]
    fn the_verdicts_probability_is_the_confidence() {
        for (choice, said) in [(Choice::First, "A"), (Choice::Second, "B")] {
            let written = written(said, 0..1, labels());
            let mut rng = rlaif_core::seed::stream(1, "t", 0);
            let all = logprobs(&written, said, &opinion(choice, 0.8), 20, 0.9, &mut rng);
            let token = &all["content"][0];
            let (a, b) = (p_of(&token["top_logprobs"], "A"), p_of(&token["top_logprobs"], "B"));
            assert!((a + b - 0.9).abs() < 1e-9, "mass {}", a + b);
            let p = if said == "A" { a } else { b } / (a + b);
            assert!((p - 0.8).abs() < 1e-9, "{p}");
            assert_eq!(token["token"], said);
            assert_eq!(token["bytes"], json!(said.as_bytes()));
            assert_eq!(token["top_logprobs"][0]["token"], said, "what is said is the likeliest");
        }
    }

    #[test]
    fn there_is_one_entry_a_token_and_never_more_candidates_than_asked() {
        let text = "Fine.\nBetter response: B";
        let written = written(text, text.len() - 1..text.len(), labels());
        let (mut sentinels, mut short) = (0, 0);
        for index in 0..200 {
            let mut rng = rlaif_core::seed::stream(1, "t", index);
            let all = logprobs(&written, text, &opinion(Choice::Second, 1.0), 5, 0.98, &mut rng);
            let content = all["content"].as_array().unwrap();
            assert_eq!(content.iter().map(|t| t["token"].as_str().unwrap()).collect::<String>(), text);
            for token in content {
                let top = token["top_logprobs"].as_array().unwrap();
                assert!(top.len() <= 5);
                short += usize::from(top.len() < 5);
                let values: Vec<f64> = top.iter().map(|entry| entry["logprob"].as_f64().unwrap()).collect();
                assert!(
                    values.is_sorted_by(|a, b| a >= b) && values.iter().all(|&lp| lp <= 0.0),
                    "{values:?}"
                );
                assert!(values.iter().map(|lp| lp.exp()).sum::<f64>() <= 1.0 + 1e-9);
                sentinels += values.iter().filter(|&&lp| lp == VERY_UNLIKELY).count();
            }
        }
        assert!(sentinels > 100 && short > 100, "{sentinels} sentinels, {short} short lists");
    }

    #[test]
    fn ratings_are_spread_around_the_quality() {
        let written = written("7", 0..1, Alternatives::Ratings);
        let mut rng = rlaif_core::seed::stream(1, "t", 3);
        let all = logprobs(&written, "7", &opinion(Choice::First, 1.0), 20, 1.0, &mut rng);
        let top = &all["content"][0]["top_logprobs"];
        let mean: f64 = (1..=10).map(|r: u32| f64::from(r) * p_of(top, &r.to_string())).sum();
        assert!((mean - 7.3).abs() < 0.05, "{mean}");
    }

    #[test]
    fn nothing_is_shown_where_no_candidates_are_asked_for() {
        let written = written("A", 0..1, labels());
        let mut rng = rlaif_core::seed::stream(1, "t", 0);
        let all = logprobs(&written, "A", &opinion(Choice::First, 0.8), 0, 1.0, &mut rng);
        assert_eq!(all["content"][0]["top_logprobs"], json!([]));
        assert!(all["content"][0]["logprob"].as_f64().unwrap() < 0.0);
    }
}
