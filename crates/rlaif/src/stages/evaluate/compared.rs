//! Judges on two policies' responses: one pair a sample, blind, and what each pair came to.

use super::measured::Measured;
use crate::context::Context;
use crate::interrupt;
use crate::judging::{self, Assignment};
use anyhow::Result;
use rand::RngExt;
use rlaif_core::config::{JudgeConfig, LabelConfig};
use rlaif_core::people::HumanChoice;
use rlaif_core::records::{Fate, Order, Pair, Preference, Prompt, Response};
use rlaif_core::seed;
use rlaif_core::stats::winrate::Outcome;
use rlaif_store::store::VerdictRow;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// Two responses to the same prompt with the same seed, seen from the policy whose wins are counted.
pub struct Met {
    /// The prompt.
    pub prompt: String,
    /// Its length in characters.
    pub chars: u64,
    /// The length of the other's.
    pub other_chars: u64,
    /// What it came to; `None` without a verdict.
    pub outcome: Option<Outcome>,
    /// Both said the same: a tie that nobody was asked about.
    pub same_text: bool,
    /// What it came to by each judge alone, in their order.
    pub by_judge: Vec<Option<Outcome>>,
    /// Mean score by criterion less the other's, where verdicts hold scores.
    pub scores: BTreeMap<String, f64>,
    /// What most people said of it, where any did.
    pub people: Option<Outcome>,
}

/// All that two policies' comparison came to.
pub struct Compared {
    /// Whose wins are counted.
    pub policy: String,
    /// Whom it met.
    pub other: String,
    /// The judges' preferences by the policy's response, seen from it; none where both said the same.
    pub preferences: BTreeMap<String, Preference>,
    /// Every two responses, in the order of the policy's.
    pub met: Vec<Met>,
}

/// Lets the judges compare a policy with another one.
///
/// # Errors
/// If a judge or the store cannot be used; what is finished is kept.
pub fn compare(
    context: &mut Context,
    set: &str,
    other: &Measured,
    policy: &Measured,
    judges: &[JudgeConfig],
    label: &LabelConfig,
) -> Result<Compared> {
    interrupt::check("evaluate")?;
    let prompts = context.prompts.eval.iter().map(|prompt| (prompt.id.clone(), prompt.clone())).collect();
    let answers =
        Answers { set, prompts, policy: &policy.policy, ours: &policy.responses, theirs: &other.responses };
    let met = judge(context, &answers, judges, label)?;
    Ok(Compared { policy: policy.policy.clone(), other: other.policy.clone(), ..met })
}

/// Responses of two policies to the same prompts.
pub struct Answers<'a> {
    /// The set of pairs in the store.
    pub set: &'a str,
    /// The prompts by id.
    pub prompts: HashMap<String, Prompt>,
    /// What the ids of our responses begin with.
    pub policy: &'a str,
    /// Those whose wins are counted.
    pub ours: &'a [Response],
    /// The others.
    pub theirs: &'a [Response],
}

/// Asks the judges which of two policies' responses is better; the names of both are left out of the result.
///
/// # Errors
/// If a judge or the store cannot be used; what is finished is kept.
pub fn judge(
    context: &mut Context,
    answers: &Answers,
    judges: &[JudgeConfig],
    label: &LabelConfig,
) -> Result<Compared> {
    let set = answers.set;
    let pairs = pairs(context.config.run.seed, answers);
    let responses = answers.theirs.iter().chain(answers.ours);
    let mut work = Assignment {
        pairs,
        prompts: Cow::Borrowed(&answers.prompts),
        responses: Cow::Owned(responses.map(|response| (response.id.clone(), response.clone())).collect()),
        ..Assignment::empty("evaluate", set, judges, label)
    };
    work.rule()?;
    context.wait(context.store.put_pairs(set, &work.pairs))?;
    let judged = judging::judge(context, &work)?.preferences;
    let opinions = judging::opinions(context, &work)?;
    let verdicts = context.wait(context.store.verdicts(set))?;
    let votes = context.wait(context.store.human_votes(set))?;

    let by_judge: Vec<BTreeMap<String, Preference>> = opinions
        .into_iter()
        .map(|opinion| turned(&work.pairs, opinion.preferences, answers.policy))
        .collect();
    let scores = scores(&work.pairs, &verdicts, judges, answers.policy);
    let people: HashMap<&str, Outcome> = work
        .pairs
        .iter()
        .filter_map(|pair| {
            let (_, votes) = votes.get(&pair.id)?;
            let (ours, ours_is_a) = ours(pair, answers.policy);
            Some((ours, said(votes.majority()?, ours_is_a)?))
        })
        .collect();
    let theirs = by_place(answers.theirs);
    let preferences = turned(&work.pairs, judged, answers.policy);
    let met = answers.ours.iter().filter_map(|response| {
        let other = theirs.get(&(response.prompt_id.as_str(), response.index))?;
        Some(Met {
            prompt: response.prompt_id.clone(),
            chars: response.text.chars().count() as u64,
            other_chars: other.text.chars().count() as u64,
            outcome: outcome(preferences.get(&response.id)),
            same_text: !preferences.contains_key(&response.id),
            by_judge: by_judge.iter().map(|of_judge| outcome(of_judge.get(&response.id))).collect(),
            scores: scores.get(response.id.as_str()).cloned().unwrap_or_default(),
            people: people.get(response.id.as_str()).copied(),
        })
    });
    let met = met.collect();
    Ok(Compared { policy: String::new(), other: String::new(), preferences, met })
}

fn by_place(responses: &[Response]) -> HashMap<(&str, usize), &Response> {
    responses.iter().map(|response| ((response.prompt_id.as_str(), response.index), response)).collect()
}

/// One pair a sample: the policy's against the other's of the same seed. Which is called a is drawn, so that nothing about a pair says
/// whose response is whose. Equal texts make no pair: they are ties that no judge needs to see.
fn pairs(run_seed: u64, answers: &Answers) -> Vec<Pair> {
    let theirs = by_place(answers.theirs);
    let mut pairs = Vec::new();
    for ours in answers.ours {
        let Some(theirs) = theirs.get(&(ours.prompt_id.as_str(), ours.index)) else { continue };
        if ours.text.trim() == theirs.text.trim() {
            continue;
        }
        let id = format!("{}/{}/{}", answers.set, ours.prompt_id, ours.index);
        let swap = seed::stream(run_seed, &format!("blind/{id}"), 0).random::<bool>();
        let (a, b) = if swap { (&theirs.id, &ours.id) } else { (&ours.id, &theirs.id) };
        pairs.push(Pair { id, prompt_id: ours.prompt_id.clone(), a: a.clone(), b: b.clone() });
    }
    pairs
}

/// The policy's response of a pair, and whether it is a.
fn ours<'p>(pair: &'p Pair, policy: &str) -> (&'p str, bool) {
    let ours_is_a = pair.a.strip_prefix(policy).is_some_and(|rest| rest.starts_with('/'));
    (if ours_is_a { &pair.a } else { &pair.b }, ours_is_a)
}

/// Preferences seen from the policy: p is P(its response beats the other's).
fn turned(pairs: &[Pair], preferences: Vec<Preference>, policy: &str) -> BTreeMap<String, Preference> {
    pairs
        .iter()
        .zip(preferences)
        .map(|(pair, mut preference)| {
            let (ours, ours_is_a) = ours(pair, policy);
            preference.p = preference.p.map(|p| if ours_is_a { p } else { 1.0 - p });
            (ours.to_string(), preference)
        })
        .collect()
}

/// What a comparison came to. A verdict that changed with the order is a tie; a missing one is missing.
fn outcome(preference: Option<&Preference>) -> Option<Outcome> {
    let Some(preference) = preference else { return Some(Outcome::Tie) }; // the same text twice
    match (preference.fate, preference.p) {
        (Fate::Kept, Some(p)) if p > 0.5 => Some(Outcome::Win),
        (Fate::Kept, Some(p)) if p < 0.5 => Some(Outcome::Loss),
        (Fate::Kept | Fate::Tie | Fate::Inconsistent, _) => Some(Outcome::Tie),
        (Fate::NoVerdict | Fate::Failed | Fate::SetAside, _) => None,
    }
}

/// What people said of a and b, seen from the policy.
fn said(choice: HumanChoice, ours_is_a: bool) -> Option<Outcome> {
    match if ours_is_a { choice } else { choice.swapped() } {
        HumanChoice::First => Some(Outcome::Win),
        HumanChoice::Second => Some(Outcome::Loss),
        HumanChoice::Tie => Some(Outcome::Tie),
        HumanChoice::Skip => None,
    }
}

/// By the policy's response and criterion: the mean of its score less the other's over judges, templates, orders and votes.
fn scores<'p>(
    pairs: &'p [Pair],
    verdicts: &[VerdictRow],
    judges: &[JudgeConfig],
    policy: &str,
) -> HashMap<&'p str, BTreeMap<String, f64>> {
    let by_id: HashMap<&str, &Pair> = pairs.iter().map(|pair| (pair.id.as_str(), pair)).collect();
    let mut sums: HashMap<&str, BTreeMap<String, (f64, u32)>> = HashMap::new();
    for row in verdicts.iter().filter(|row| judges.iter().any(|judge| judge.name == row.judge)) {
        let Some(pair) = by_id.get(row.pair_id.as_str()) else { continue };
        let (response, ours_is_a) = ours(pair, policy);
        let ours_is_first = ours_is_a == (row.order == Order::Ab);
        for (criterion, (first, second)) in &row.verdict.scores {
            let difference = if ours_is_first { first - second } else { second - first };
            let sum = sums.entry(response).or_default().entry(criterion.clone()).or_default();
            *sum = (sum.0 + difference, sum.1 + 1);
        }
    }
    let mean = |(criterion, (sum, n)): (String, (f64, u32))| (criterion, sum / f64::from(n));
    sums.into_iter().map(|(response, sums)| (response, sums.into_iter().map(mean).collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::records::{Choice, Verdict};

    fn preference(fate: Fate, p: Option<f64>) -> Preference {
        Preference {
            pair_id: "ppo/q/0".into(),
            prompt_id: "q".into(),
            p,
            spread: None,
            fate,
            judges: vec![],
            explanation: None,
        }
    }

    fn pair(a: &str, b: &str) -> Pair {
        Pair { id: "ppo/q/0".into(), prompt_id: "q".into(), a: a.into(), b: b.into() }
    }

    #[test]
    fn a_win_is_the_policys_whichever_response_was_called_a() {
        for (pair, p) in [(pair("ppo/q/0", "baseline/q/0"), 0.9), (pair("baseline/q/0", "ppo/q/0"), 0.1)] {
            let turned = turned(&[pair], vec![preference(Fate::Kept, Some(p))], "ppo");
            assert!((turned["ppo/q/0"].p.unwrap() - 0.9).abs() < 1e-12);
            assert_eq!(outcome(turned.get("ppo/q/0")), Some(Outcome::Win));
        }
        assert_eq!(ours(&pair("ppo-2/q/0", "ppo/q/0"), "ppo"), ("ppo/q/0", false), "names that begin alike");
    }

    #[test]
    fn a_missing_verdict_is_missing_and_never_a_tie() {
        assert_eq!(outcome(Some(&preference(Fate::Failed, None))), None);
        assert_eq!(outcome(Some(&preference(Fate::NoVerdict, None))), None);
        assert_eq!(outcome(Some(&preference(Fate::Inconsistent, Some(0.7)))), Some(Outcome::Tie));
        assert_eq!(outcome(None), Some(Outcome::Tie), "equal texts");
    }

    #[test]
    fn people_and_scores_are_seen_from_the_policy_too() {
        assert_eq!(said(HumanChoice::First, true), Some(Outcome::Win));
        assert_eq!(said(HumanChoice::First, false), Some(Outcome::Loss));
        assert_eq!(said(HumanChoice::Skip, true), None);
        let row = |order, scores| VerdictRow {
            pair_id: "ppo/q/0".into(),
            judge: "j".into(),
            template: "t".into(),
            order,
            vote: 0,
            verdict: Verdict {
                scores: BTreeMap::from([("clarity".to_string(), scores)]),
                ..Verdict::choice(Choice::Tie)
            },
        };
        let judges = [JudgeConfig { name: "j".into(), ..JudgeConfig::default() }];
        // Ours is b: first in the order ba. It leads by 3, then by 1.
        let pairs = [pair("baseline/q/0", "ppo/q/0")];
        let rows = [row(Order::Ab, (5.0, 8.0)), row(Order::Ba, (7.0, 6.0))];
        assert_eq!(scores(&pairs, &rows, &judges, "ppo")["ppo/q/0"]["clarity"], 2.0);
    }
}
