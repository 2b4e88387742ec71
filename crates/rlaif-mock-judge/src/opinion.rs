//! What the judge thinks: how good each response is, and which one it names, with the planted accuracy and biases.

use crate::extract::Question;
use crate::options::{Options, Position};
use rand::{Rng, RngExt};
use regex::Regex;
use rlaif_core::records::Choice;
use std::sync::LazyLock;

/// What the judge has made up its mind to say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Opinion {
    /// The response that it names.
    pub choice: Choice,
    /// How sure it says it is of that, from ½ to 1.
    pub confidence: f64,
    /// Quality of the responses as the oracle has it; the first one's is the rating of a single response.
    pub quality: [f64; 2],
    /// True if position alone decided.
    pub position_biased: bool,
}

static MARKER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\[q=(-?\d+(?:\.\d+)?)\]").expect("a constant pattern"));

/// The oracle: the last `[q=0.73]` in a response, or else a number in [0, 1) that is drawn from its text.
pub fn quality(text: &str, seed: u64) -> f64 {
    // Most responses have no marker; looking for its first bytes is many times faster than the pattern.
    if text.contains("[q=")
        && let Some(value) = MARKER.captures_iter(text).last().and_then(|found| found[1].parse().ok())
    {
        return value;
    }
    let mut hasher = blake3::Hasher::new_derive_key("rlaif-mock-judge 2026 quality");
    hasher.update(&seed.to_le_bytes()).update(text.as_bytes());
    let bytes = hasher.finalize().as_bytes()[..8].try_into().expect("8 of 32 bytes");
    (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Decides. `rng` is a stream of this request, so that the same request gets the same answer.
///
/// A share `position_bias` names a fixed position. In the others
/// P(the better one) = σ(logit(accuracy) + length_bias · (its length − the other's) / mean length + self_preference · own +
/// word_bias · words), own being 1 where it has the mark of the judge's own model and the other has not, −1 the other way round, else 0,
/// and words the like for the words of bias_for.
///
/// Confidence is calibrated where no bias interferes: of verdicts given with confidence c, a share c is right.
pub fn decide<R: Rng>(question: &Question, whole: &str, options: &Options, rng: &mut R) -> Opinion {
    let quality = match question.responses.as_slice() {
        [first, second] => [quality(first, options.seed), quality(second, options.seed)],
        [only] => [quality(only, options.seed), 0.5],
        // Nothing to compare: the whole prompt stands for a pair, so that the answer is at least always the same.
        _ => [quality(whole, options.seed), 0.5],
    };
    // All draws are taken whether needed or not, so that one setting moves no other's.
    let [biased, correct, equal, sure, surer]: [f64; 5] = rng.random();
    let first_choice = |first: bool| if first { Choice::First } else { Choice::Second };
    if biased < options.position_bias {
        return Opinion {
            choice: first_choice(options.biased_to == Position::First),
            confidence: confidence(options.accuracy, sure),
            quality,
            position_biased: true,
        };
    }
    let gap = quality[0] - quality[1];
    if question.offers_tie && gap.abs() < options.tie_below {
        return Opinion { choice: Choice::Tie, confidence: 0.5, quality, position_biased: false };
    }
    // Between equals a coin says who counts as better.
    let better_is_first = if gap == 0.0 { equal < 0.5 } else { gap > 0.0 };
    let towards_better = if better_is_first { 1.0 } else { -1.0 };
    let liking = options.length_bias * relative_length(question)
        + options.self_preference * own(question, options)
        + options.word_bias * words(question, &options.bias_for);
    let logit = logit(options.accuracy) + liking * towards_better;
    let is_right = correct < sigmoid(logit);
    Opinion {
        choice: first_choice(better_is_first == is_right),
        confidence: confidence_given(is_right == (options.accuracy >= 0.5), options.accuracy, [sure, surer]),
        quality,
        position_biased: false,
    }
}

/// (length of the first − length of the second) / their mean, in characters: from −2 to 2.
fn relative_length(question: &Question) -> f64 {
    let [first, second] = question.responses.as_slice() else { return 0.0 };
    let (first, second) = (first.chars().count() as f64, second.chars().count() as f64);
    if first + second == 0.0 { 0.0 } else { (first - second) / ((first + second) / 2.0) }
}

/// 1 if the first alone has one of these words, −1 if the second alone does, else 0.
fn words(question: &Question, words: &[String]) -> f64 {
    let [first, second] = question.responses.as_slice() else { return 0.0 };
    let has = |text: &str| {
        let mut own = text.split(|c: char| !c.is_alphanumeric());
        f64::from(u8::from(own.any(|word| words.iter().any(|known| known == word))))
    };
    has(first) - has(second)
}

/// 1 where only the first response is the judge's own, −1 where only the second is, else 0.
fn own(question: &Question, options: &Options) -> f64 {
    let (Some(mark), [first, second]) = (&options.own_mark, question.responses.as_slice()) else {
        return 0.0;
    };
    f64::from(u8::from(first.contains(mark))) - f64::from(u8::from(second.contains(mark)))
}

/// The shape of the confidences: c = ½ + ½·v with v from Beta(α, 1), α = m/(1 − m), so that c has the mean of the accuracy
/// (m = 2·accuracy − 1; of its mirror image where it is below ½). An error is the constant that they all are.
fn shape(accuracy: f64) -> Result<f64, f64> {
    let mean = 2.0 * accuracy.max(1.0 - accuracy) - 1.0;
    match mean {
        m if m <= 0.0 => Err(0.5),
        m if m >= 1.0 => Err(1.0),
        m => Ok(m / (1.0 - m)),
    }
}

/// A confidence, whatever becomes of the verdict.
fn confidence(accuracy: f64, uniform: f64) -> f64 {
    match shape(accuracy) {
        Err(constant) => constant,
        Ok(alpha) => 0.5 + 0.5 * uniform.powf(1.0 / alpha),
    }
}

/// The confidence of a verdict that is right or wrong: the density above times c or 1 − c, by Bayes. In v these are a mixture of
/// Beta(α, 1) and Beta(α + 1, 1), and Beta(α, 2), the product of one from each.
fn confidence_given(is_right: bool, accuracy: f64, [first, second]: [f64; 2]) -> f64 {
    let alpha = match shape(accuracy) {
        Err(constant) => return constant,
        Ok(alpha) => alpha,
    };
    let [narrow, wide] = [1.0 / alpha, 1.0 / (alpha + 1.0)];
    let v = match is_right {
        false => first.powf(narrow) * second.powf(wide),
        true if second < (alpha + 1.0) / (2.0 * alpha + 1.0) => first.powf(narrow),
        true => first.powf(wide),
    };
    0.5 + 0.5 * v
}

/// Bounded, so that a judge that is never wrong still has a logit that a bias can be added to.
fn logit(p: f64) -> f64 {
    let p = p.clamp(1e-12, 1.0 - 1e-12);
    (p / (1.0 - p)).ln()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(first: &str, second: &str) -> Question {
        Question { responses: vec![first.into(), second.into()], offers_tie: true, ..Question::default() }
    }

    fn opinions(question: &Question, options: &Options, n: u64) -> Vec<Opinion> {
        let one = |i| decide(question, "", options, &mut rlaif_core::seed::stream(5, "test", i));
        (0..n).map(one).collect()
    }

    fn share(opinions: &[Opinion], of: impl Fn(&Opinion) -> bool) -> f64 {
        opinions.iter().filter(|opinion| of(opinion)).count() as f64 / opinions.len() as f64
    }

    /// Five standard deviations of a share.
    fn assert_share(got: f64, want: f64, n: f64) {
        let bound = 5.0 * (want * (1.0 - want) / n).sqrt() + 1e-12;
        assert!((got - want).abs() <= bound, "{got}, expected {want} within {bound}");
    }

    #[test]
    fn quality_is_read_or_drawn() {
        assert_eq!(quality("good [q=0.1] better [q=0.73]", 0), 0.73);
        let drawn = quality("hello", 0);
        assert!((0.0..1.0).contains(&drawn));
        assert_eq!(drawn, quality("hello", 0));
        assert_ne!(drawn, quality("hello", 1));
        let mean = (0..2000).map(|i| quality(&format!("text {i}"), 3)).sum::<f64>() / 2000.0;
        assert!((mean - 0.5).abs() < 0.04, "{mean}");
    }

    #[test]
    fn accuracy_and_position_bias_are_what_was_planted() {
        let n = 20_000;
        for (accuracy, bias) in [(1.0, 0.0), (0.8, 0.0), (0.8, 0.3), (0.3, 0.0)] {
            let options =
                Options { accuracy, position_bias: bias, biased_to: Position::Second, ..Options::default() };
            let said = opinions(&pair("a [q=0.9]", "b [q=0.2]"), &options, n);
            assert_share(share(&said, |o| o.position_biased), bias, n as f64);
            assert_share(share(&said, |o| o.choice == Choice::First), (1.0 - bias) * accuracy, n as f64);
        }
    }

    #[test]
    fn length_bias_shifts_the_logit() {
        let n = 20_000;
        let options = Options { accuracy: 0.5, length_bias: 1.5, ..Options::default() };
        // 30 characters against 10: (30 − 10) / 20 = 1.
        let long = format!("{}[q=0.4]", "x".repeat(23));
        let said = opinions(&pair(&long, "xxx[q=0.9]"), &options, n);
        assert_share(share(&said, |o| o.choice == Choice::First), sigmoid(1.5), n as f64);
    }

    #[test]
    fn a_weakness_for_words_shifts_the_logit_wherever_they_stand() {
        let n = 20_000;
        let bias_for = vec!["Jacob".to_owned(), "James".to_owned()];
        let options = Options { accuracy: 0.5, bias_for, word_bias: 1.0, ..Options::default() };
        let first = |one: &str, other: &str| {
            share(&opinions(&pair(one, other), &options, n), |o| o.choice == Choice::First)
        };
        assert_share(first("“Jacob” won.", "Hannah won."), sigmoid(1.0), n as f64);
        assert_share(first("Hannah won.", "So James won."), sigmoid(-1.0), n as f64);
        assert_share(first("James won.", "Jacob won."), 0.5, n as f64);
        assert_share(first("Jacobs won.", "Hannah won."), 0.5, n as f64);
    }

    #[test]
    fn self_preference_shifts_the_logit_to_its_own() {
        let n = 20_000;
        let own_mark = Some("[own]".into());
        let options = Options { accuracy: 0.7, self_preference: 1.2, own_mark, ..Options::default() };
        let better_own = opinions(&pair("a [own][q=0.9]", "b [q=0.2]"), &options, n);
        let logit = (0.7_f64 / 0.3).ln();
        assert_share(share(&better_own, |o| o.choice == Choice::First), sigmoid(logit + 1.2), n as f64);
        let worse_own = opinions(&pair("a [q=0.9]", "b [own][q=0.2]"), &options, n);
        assert_share(share(&worse_own, |o| o.choice == Choice::First), sigmoid(logit - 1.2), n as f64);
        let both = opinions(&pair("a [own][q=0.9]", "b [own][q=0.2]"), &options, n);
        assert_share(share(&both, |o| o.choice == Choice::First), 0.7, n as f64);
    }

    #[test]
    fn confidence_is_calibrated_with_the_accuracy_as_its_mean() {
        let options = Options { accuracy: 0.75, ..Options::default() };
        let said = opinions(&pair("a [q=0.9]", "b [q=0.2]"), &options, 40_000);
        let mean = said.iter().map(|o| o.confidence).sum::<f64>() / said.len() as f64;
        assert!((mean - 0.75).abs() < 0.005, "{mean}");
        for low in [0.5, 0.6, 0.7, 0.8, 0.9] {
            let bin: Vec<Opinion> =
                said.iter().copied().filter(|o| (low..low + 0.1).contains(&o.confidence)).collect();
            let expected = bin.iter().map(|o| o.confidence).sum::<f64>() / bin.len() as f64;
            assert_share(share(&bin, |o| o.choice == Choice::First), expected, bin.len() as f64);
        }
    }

    #[test]
    fn equals_are_a_tie_where_one_is_offered_and_a_coin_elsewhere() {
        let options = Options { tie_below: 0.1, ..Options::default() };
        let said = opinions(&pair("a [q=0.5]", "b [q=0.55]"), &options, 10);
        assert!(said.iter().all(|o| o.choice == Choice::Tie));
        let said = opinions(&pair("a [q=0.5]", "b [q=0.5]"), &Options::default(), 2000);
        assert_share(share(&said, |o| o.choice == Choice::First), 0.5, 2000.0);
    }
}
