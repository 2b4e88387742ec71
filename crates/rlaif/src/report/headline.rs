//! The result in one sentence that claims no more than its interval does.

use super::comparison::Finding;
use super::data::{Estimate, PolicyRow, ReportData};
use super::format::{Unit, count, number, percent, plural};
use rlaif_core::stats::sample_size::{Spread, smallest_difference};

/// The power of the difference that is said to be visible.
const POWER: f64 = 0.8;

/// Prompts that show no smaller difference from 50 % than this are too few to tell; our choice, of no source.
const TOO_FEW: f64 = 0.1;

/// The first thing on the page.
pub struct Headline {
    /// The sentence up to the number.
    pub before: String,
    /// The number that is set in colour; empty if there is none yet.
    pub number: String,
    /// The rest of the sentence.
    pub after: String,
    /// What belongs beside it, one sentence each.
    pub support: Vec<String>,
}

/// `ppo` is PPO; `baseline` and models that were brought along are themselves.
pub fn policy_name(policy: &str) -> String {
    if matches!(policy, "ppo" | "dpo" | "sft") { policy.to_uppercase() } else { policy.into() }
}

/// Tuned policies that were compared with the baseline, PPO first: it is what the run is about.
pub fn compared(data: &ReportData) -> Vec<(&PolicyRow, Estimate)> {
    let Some(evaluation) = &data.evaluation else { return Vec::new() };
    let mut rows: Vec<_> = evaluation.policies.iter().filter_map(|p| Some((p, p.win_rate?))).collect();
    rows.sort_by_key(|(row, _)| row.policy != "ppo");
    rows
}

/// Writes the sentence and its company.
pub fn headline(data: &ReportData) -> Headline {
    let compared = compared(data);
    let Some((policy, win_rate)) = compared.first() else { return without_comparison(data) };
    let (before, after) = result(policy, win_rate, data);

    let mut support = Vec::new();
    for (other, win_rate) in &compared[1..] {
        let name = policy_name(&other.policy);
        support.push(format!("{name}: {}{}.", Unit::Share.with_interval(win_rate), chance(win_rate)));
    }
    support.extend(independent(policy, data));
    support.extend(reward_sentence(policy, data));
    support.extend(sentiment_sentence(policy, win_rate));
    if data.evaluation.as_ref().is_some_and(|e| e.judges_made_labels) {
        support.push(
            "The judge of this comparison also made the training labels: the win rate says how well the policy learnt \
             what this judge prefers, not how good its answers are in general."
                .into(),
        );
    }
    Headline { before, number: Unit::Share.value(win_rate), after, support }
}

/// The sentence before and after its number.
fn result(policy: &PolicyRow, win_rate: &Estimate, data: &ReportData) -> (String, String) {
    let name = policy_name(&policy.policy);
    let prompts = data.evaluation.as_ref().map_or(0, |e| e.prompts);
    let answers =
        format!("answers to {} were preferred to the baseline’s", plural(prompts, "held-out prompt"));
    let Some(interval) = Unit::Share.interval(win_rate) else {
        return (
            format!("The {name} policy’s {answers}"),
            " of the time; with no interval, take it as a hint.".into(),
        );
    };
    if win_rate.is_above(0.5) {
        (format!("The {name} policy’s {answers}"), format!(" of the time (95\u{202f}% CI {interval})."))
    } else if win_rate.is_below(0.5) {
        (
            format!("The {name} policy got worse: its {answers} only"),
            format!(" of the time (95\u{202f}% CI {interval})."),
        )
    } else {
        let after = format!(
            " of the time, and the 95\u{202f}% interval, {interval}, includes the 50\u{202f}% that chance would give."
        );
        let (says, visible) = undecided(policy, prompts, data);
        (format!("{says}: the {name} policy’s {answers}"), after + &visible)
    }
}

/// What an interval that includes ½ means: that there is no large difference, or that so few prompts could not show one.
fn undecided(policy: &PolicyRow, prompts: u64, data: &ReportData) -> (&'static str, String) {
    let comparison = data.evaluation.as_ref().and_then(|it| it.over_baseline(&policy.policy));
    if let Some(conclusion) = comparison.map(|it| &it.conclusion).filter(|it| it.finding == Finding::Same) {
        let margin = percent(conclusion.margin);
        return ("No difference that would matter", format!(" It is shown to be within {margin} of that."));
    }
    let ties = policy
        .outcomes
        .map_or(0.0, |(wins, ties, losses)| ties as f64 / (wins + ties + losses).max(1) as f64);
    match smallest_difference(prompts, Spread::one_order(ties), POWER) {
        None => ("Not enough prompts to tell", " So few prompts can show no difference at all.".into()),
        Some(visible) => {
            let rate = percent(0.5 + visible);
            let power = percent(POWER);
            if visible > TOO_FEW {
                (
                    "Not enough prompts to tell",
                    format!(
                        " So many prompts show a win rate of {rate} with {power} probability, and lower ones less often."
                    ),
                )
            } else {
                (
                    "No difference was shown",
                    format!(
                        " A true win rate of {rate} or more would have been seen with {power} probability."
                    ),
                )
            }
        }
    }
}

/// What judges say that training never used, and what people would say.
fn independent(policy: &PolicyRow, data: &ReportData) -> Vec<String> {
    let Some(comparison) = data.evaluation.as_ref().and_then(|it| it.over_baseline(&policy.policy)) else {
        return Vec::new();
    };
    let unseen = comparison.by_judge.iter().filter(|judge| !judge.used_in_training);
    let mut sentences: Vec<String> = unseen
        .filter_map(|judge| {
            let rate = judge.win_rate?;
            let size = Unit::Share.with_interval(&rate);
            Some(format!("By {} alone, which training never used: {size}{}.", judge.judge, chance(&rate)))
        })
        .collect();
    if let Some(rate) = comparison.people.as_ref().and_then(|people| people.win_rate) {
        let size = Unit::Share.with_interval(&rate);
        sentences
            .push(format!("Corrected by what people said of some comparisons: {size}{}.", chance(&rate)));
    }
    if let Some(rate) = comparison.length_controlled {
        sentences.push(format!("At equal length: {}{}.", Unit::Share.with_interval(&rate), chance(&rate)));
    }
    sentences
}

fn chance(win_rate: &Estimate) -> &'static str {
    if win_rate.interval().is_some() && !win_rate.is_above(0.5) && !win_rate.is_below(0.5) {
        ", which chance could explain"
    } else {
        ""
    }
}

fn reward_sentence(policy: &PolicyRow, data: &ReportData) -> Option<String> {
    let difference = policy.reward_difference?;
    let mut sentence = if difference.is_above(0.0) {
        format!("Mean reward rose by {}", Unit::Plain.with_interval(&difference))
    } else if difference.is_below(0.0) {
        format!("Mean reward fell by {}", Unit::Plain.with_interval(&difference.negated()))
    } else {
        format!("Mean reward did not change measurably: {}", Unit::Difference.with_interval(&difference))
    };
    if let Some(kl) = policy.kl {
        sentence.push_str(&format!(", at a KL of {} nats a response", number(kl.value)));
        let budget = data.ppo.as_ref().and_then(|p| p.kl_budget).filter(|_| policy.policy == "ppo");
        match budget {
            Some(budget) if kl.value <= budget => {
                sentence.push_str(&format!(", within the budget of {budget}"))
            }
            Some(budget) => sentence.push_str(&format!(", over the budget of {budget}")),
            None => {}
        }
    }
    sentence.push('.');
    Some(sentence)
}

/// The lexicon knows nothing of the judge; whether it agrees is worth a sentence either way.
fn sentiment_sentence(policy: &PolicyRow, win_rate: &Estimate) -> Option<String> {
    let difference = policy.sentiment_difference?;
    let size = Unit::Difference.with_interval(&difference);
    let up = difference.is_above(0.0);
    let down = difference.is_below(0.0);
    let verdict = match (up, down, win_rate.is_above(0.5)) {
        (true, _, true) => "agrees that answers got warmer",
        (true, _, false) => "finds the answers warmer",
        (_, true, _) => "finds the answers colder",
        _ => "finds no clear difference",
    };
    Some(format!("The sentiment lexicon VADER, which is not the judge, {verdict}: {size}."))
}

/// What can be said before anything was compared.
fn without_comparison(data: &ReportData) -> Headline {
    let kept: u64 = data.fates.iter().filter(|f| f.fate == "kept").map(|f| f.count).sum();
    let judged: u64 = data.fates.iter().map(|f| f.count).sum();
    let trained: Vec<_> = [
        ("reward model", data.reward.is_some()),
        ("PPO policy", data.ppo.is_some()),
        ("DPO policy", data.dpo.is_some()),
    ]
    .into_iter()
    .filter(|(_, ran)| *ran)
    .map(|(name, _)| name)
    .collect();
    let (before, number, mut after) = match (&data.generate, judged) {
        (_, 1..) => {
            ("So far".into(), count(kept), format!(" of {} became preferences", plural(judged, "pair")))
        }
        (Some(generate), 0) => ("So far".into(), count(generate.responses), " responses were sampled".into()),
        (None, 0) => ("Nothing was sampled yet".into(), String::new(), String::new()),
    };
    if let Some((last, rest)) = trained.split_last() {
        let names =
            if rest.is_empty() { (*last).to_string() } else { format!("{} and {last}", rest.join(", ")) };
        after
            .push_str(&format!(", and the {names} {} trained", if rest.is_empty() { "was" } else { "were" }));
    }
    after.push_str("; no policy has been compared with the baseline yet.");
    Headline { before, number, after, support: Vec::new() }
}
