//! What the replies to a template's steps say. Pure: the same replies always give the same verdict.

use super::labels::Labels;
use crate::answer::{Answer, Token};
use crate::parse::{Style, parse};
use regex::Regex;
use rlaif_core::records::{Choice, NoVerdict, Verdict};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Below this probability on all ratings among an endpoint's top candidates, they are no probabilities of a rating.
const MIN_MASS: f64 = 0.5;

/// What may stand before the one token that is asked for.
static LEAD: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^[\s*_`#>]*(?:(?:better|best)\s+response|verdict|answer|rating|score)?\s*(?:is)?\s*[:=]?[\s*_`\[\(\x22']*(?:response\s+)?")
        .expect("a constant pattern")
});

/// A verdict in words, in the template's own labels.
pub(super) fn text(plain: &str, style: Style, tie: bool) -> Verdict {
    let parsed = parse(plain, style);
    let mut scores = BTreeMap::new();
    if let Some([first, second]) = parsed.scores.as_deref() {
        scores.insert("overall".to_owned(), (*first, *second));
    }
    let choice = match parsed.verdict {
        Ok(Choice::Tie) if !tie => Err(NoVerdict::Unparsable), // it was not on offer
        verdict => verdict,
    };
    Verdict { scores, explanation: crate::parse::explanation(plain), ..Verdict::of(choice) }
}

/// Ratings on each criterion: a line `name: LABEL = 7, LABEL = 5`. A criterion without one such line, or with two that differ, has
/// none.
pub(super) fn criterion_scores(
    plain: &str,
    names: &[&str],
    labels: &[String; 2],
) -> BTreeMap<String, (f64, f64)> {
    let mut scores = BTreeMap::new();
    for name in names {
        let [name, first, second] = [*name, &labels[0], &labels[1]].map(|word| regex::escape(word.trim()));
        let number = r"(10|[1-9])(?:\.(\d+))?(?:\s*/\s*10)?";
        let pattern = format!(
            r"(?im)^[\s*_`\-\u{{2022}}\d.)#]*{name}[\s*_`]*[:\u{{2013}}-][\s*_`]*(?:response\s+)?{first}\s*[=:]\s*{number}[\s*_`]*[,;/|]?\s*(?:and\s+)?(?:response\s+)?{second}\s*[=:]\s*{number}"
        );
        let Ok(pattern) = Regex::new(&pattern) else { continue };
        let value = |found: &regex::Captures<'_>, at: usize| -> Option<f64> {
            let fraction = found.get(at + 1).map_or("0", |digits| digits.as_str());
            format!("{}.{fraction}", &found[at]).parse().ok().filter(|rating| (1.0..=10.0).contains(rating))
        };
        let mut found: Vec<(f64, f64)> =
            pattern.captures_iter(plain).filter_map(|found| value(&found, 1).zip(value(&found, 3))).collect();
        found.dedup();
        if let [pair] = found.as_slice() {
            scores.insert(unescaped(names, &name), *pair);
        }
    }
    scores
}

fn unescaped(names: &[&str], escaped: &str) -> String {
    let same = |name: &&&str| regex::escape(name.trim()) == escaped;
    names.iter().find(same).map_or(escaped, |name| name.trim()).to_owned()
}

/// A verdict from the log-probabilities at the place of its label; from the text alone where there are none.
///
/// p(first) = Σ exp(first) / (Σ exp(first) + Σ exp(second)) over the ways to write a label (Lee et al. 2023, section 2.1).
pub(super) fn token(answer: &Answer, said: &str, labels: &Labels, min_mass: f64) -> Verdict {
    let at = place(&answer.tokens);
    let mass_of = |label: &String| mass(at.map_or(&[][..], |at| &answer.tokens[at].alternatives), label);
    let [first, second] = [mass_of(&labels.shown[0]), mass_of(&labels.shown[1])];
    let mass = first + second;
    if mass > 0.0 && mass >= min_mass && mass.is_finite() {
        let p_first = first / mass;
        return Verdict { p_first: Some(p_first), mass: Some(mass), ..Verdict::choice(choice_of(p_first)) };
    }
    let word = label_said(said);
    let named = |label: &String| word.eq_ignore_ascii_case(label);
    let choice = match (named(&labels.shown[0]), named(&labels.shown[1])) {
        (true, false) => Ok(Choice::First),
        (false, true) => Ok(Choice::Second),
        _ => Err(NoVerdict::Unparsable),
    };
    Verdict { mass: at.map(|_| mass), ..Verdict::of(choice) }
}

/// A rating from 1 to 10: the expectation over the probabilities of the ratings at its place (Lee et al. 2023, section 2.4), or
/// the rating in words where there are none.
///
/// # Errors
/// If the answer is no rating.
pub(super) fn rating(answer: &Answer, said: &str) -> Result<f64, NoVerdict> {
    if let Some(at) = place(&answer.tokens) {
        let here = &answer.tokens[at].alternatives;
        let mut probabilities: [f64; 10] = std::array::from_fn(|i| mass(here, &(i + 1).to_string()));
        // Where 10 is written as 1 and 0, its probability is in that of 1.
        let next = answer.tokens.get(at + 1);
        if probabilities[9] == 0.0
            && answer.tokens[at].text.trim() == "1"
            && let Some(next) = next
        {
            let zero: f64 = next.alternatives.iter().filter(|(t, _)| t == "0").map(|(_, lp)| lp.exp()).sum();
            probabilities[9] = probabilities[0] * zero.min(1.0);
            probabilities[0] -= probabilities[9];
        }
        if let Some((rating, mass)) = expectation(&probabilities)
            && mass >= MIN_MASS
        {
            return Ok(rating);
        }
    }
    let parsed = parse(said, Style::Rating1To10);
    match (parsed.scores.as_deref(), parsed.verdict) {
        (Some([rating]), _) => Ok(*rating),
        (_, Err(reason)) => Err(reason),
        _ => Err(NoVerdict::Unparsable),
    }
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

/// The probability of all ways to write a label: spaces around it, either case.
fn mass(alternatives: &[(String, f64)], label: &str) -> f64 {
    let is_label = |token: &str| token.trim().eq_ignore_ascii_case(label);
    alternatives.iter().filter(|(token, _)| is_label(token)).map(|(_, logprob)| logprob.exp()).sum()
}

/// The token that holds the first character of what is asked for.
fn place(tokens: &[Token]) -> Option<usize> {
    let text: String = tokens.iter().map(|token| token.text.as_str()).collect();
    let lead = LEAD.find(&text).map_or(0, |lead| lead.end());
    let mut end = 0;
    tokens.iter().position(|token| {
        end += token.text.len();
        end > lead
    })
}

/// The first word after what may stand before it.
fn label_said(said: &str) -> &str {
    let lead = LEAD.find(said).map_or(0, |lead| lead.end());
    let rest = &said[lead..];
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    // "A is vague" begins with an article, or with a label: only a line of its own is a verdict.
    if rest[end..].lines().next().is_some_and(|line| line.chars().any(char::is_alphanumeric)) {
        ""
    } else {
        &rest[..end]
    }
}

pub(crate) fn choice_of(p_first: f64) -> Choice {
    match p_first {
        p if p > 0.5 => Choice::First,
        p if p < 0.5 => Choice::Second,
        _ => Choice::Tie,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        let front: super::super::FrontMatter = toml::from_str(
            "name = \"x\"\ndescription = \"\"\nprotocol = \"pairwise\"\nfields = []\nlabels = [\"A\", \"B\"]\nsteps = []",
        )
        .unwrap();
        Labels::fixed(&front)
    }

    fn said(tokens: &[(&str, &[(&str, f64)])]) -> Answer {
        let tokens: Vec<Token> = tokens
            .iter()
            .map(|(text, alternatives)| Token {
                text: (*text).into(),
                alternatives: alternatives.iter().map(|(t, p)| ((*t).to_owned(), p.ln())).collect(),
            })
            .collect();
        let text = tokens.iter().map(|token| token.text.as_str()).collect::<String>();
        Answer { text: Ok(text), tokens, usage: None, completion: None }
    }

    fn verdict(answer: &Answer) -> Verdict {
        token(answer, answer.text.as_deref().unwrap(), &labels(), MIN_MASS)
    }

    #[test]
    fn the_verdict_is_read_at_its_place_over_all_spellings() {
        let lead: &[(&str, &[(&str, f64)])] = &[
            ("Better", &[("Better", 1.0)]),
            (" response", &[(" response", 1.0)]),
            (":", &[(":", 1.0)]),
            (" A", &[(" A", 0.5), ("A", 0.1), (" B", 0.2), (" b", 0.0), ("Neither", 0.2)]),
        ];
        let soft = verdict(&said(lead));
        assert!((soft.p_first.unwrap() - 0.75).abs() < 1e-12, "{soft:?}");
        assert!((soft.mass.unwrap() - 0.8).abs() < 1e-12);
        let bare = verdict(&said(&[("B", &[("B", 0.9), ("A", 0.1)])]));
        assert_eq!(bare.choice, Ok(Choice::Second));
        assert!((bare.p_first.unwrap() - 0.1).abs() < 1e-12);
    }

    #[test]
    fn without_probabilities_the_label_itself_is_the_verdict_and_nothing_is_guessed() {
        for (text, want) in [
            ("A", Ok(Choice::First)),
            ("Better response: B", Ok(Choice::Second)),
            ("**Better response: (b)**", Ok(Choice::Second)),
            ("A response that is good", Err(NoVerdict::Unparsable)),
            ("C", Err(NoVerdict::Unparsable)),
            ("", Err(NoVerdict::Unparsable)),
        ] {
            let verdict = verdict(&Answer::of_text(text));
            assert_eq!((verdict.choice, verdict.p_first), (want, None), "{text:?}");
        }
        // Most of the mass fell on something else: the label that was said is all there is.
        let thin = verdict(&said(&[("A", &[("A", 0.2), ("B", 0.1), ("The", 0.7)])]));
        assert_eq!((thin.choice, thin.p_first), (Ok(Choice::First), None));
    }

    /// `docs/parity.md`, section 7, d-RLAIF.
    #[test]
    fn golden_expectation_of_ratings() {
        let p = [0.01, 0.01, 0.02, 0.03, 0.05, 0.08, 0.20, 0.35, 0.15, 0.10];
        let (rating, mass) = expectation(&p).unwrap();
        assert!((rating - 7.49).abs() < 1e-12 && (mass - 1.0).abs() < 1e-12);
        assert!((rescale(rating) - 0.442_222_222_2).abs() < 1e-9);
        assert_eq!((rescale(1.0), rescale(10.0)), (-1.0, 1.0));
        let half = p.map(|p| p / 2.0);
        assert!((expectation(&half).unwrap().0 - 7.49).abs() < 1e-12, "only the mass on ratings counts");
        assert_eq!(expectation(&[0.0; 10]), None);

        let alternatives: Vec<(String, f64)> = p.iter().zip(1..).map(|(p, r)| (format!("{r}"), *p)).collect();
        let alternatives: Vec<(&str, f64)> = alternatives.iter().map(|(t, p)| (t.as_str(), *p)).collect();
        let answer = said(&[("Rating", &[]), (":", &[]), (" ", &[]), ("8", &alternatives)]);
        assert!((rating_of(&answer).unwrap() - 7.49).abs() < 1e-9);
    }

    fn rating_of(answer: &Answer) -> Result<f64, NoVerdict> {
        rating(answer, answer.text.as_deref().unwrap())
    }

    #[test]
    fn ten_in_two_tokens_is_no_one() {
        let answer = said(&[("1", &[("1", 0.8), ("9", 0.2)]), ("0", &[("0", 0.75)])]);
        let want = 0.8 * 0.75 * 10.0 + 0.8 * 0.25 * 1.0 + 0.2 * 9.0;
        assert!((rating_of(&answer).unwrap() - want).abs() < 1e-12);
        assert_eq!(rating_of(&Answer::of_text("Rating: 7")), Ok(7.0));
        assert!(rating_of(&Answer::of_text("quite good")).is_err());
    }

    #[test]
    fn ratings_on_criteria_are_read_line_by_line() {
        let labels = ["1".to_owned(), "2".to_owned()];
        let text = "**accuracy**: 1 = 7, 2 = 5.5 (a slip)\n- clarity: 1 = 10/10, 2 = 3/10 (vague)\nhelpfulness: 1 = 12, 2 = 3\nsafety: 1 = 4, 2 = 4\nsafety: 1 = 5, 2 = 4\n\nBetter response: 1";
        let scores =
            criterion_scores(text, &["accuracy", "clarity", "helpfulness", "safety", "a (b)"], &labels);
        assert_eq!(scores.get("accuracy"), Some(&(7.0, 5.5)));
        assert_eq!(scores.get("clarity"), Some(&(10.0, 3.0)));
        assert_eq!(scores.len(), 2, "out of range and contradictory ones are none: {scores:?}");
    }
}
