//! The evaluation for a terminal, a line a fact.

use crate::report::comparison::{Comparison, PeopleRate, RankedPolicy};
use crate::report::data::{Estimate, Evaluation, PolicyRow};
use rlaif_store::store::BASELINE;

/// Everything that is worth a line.
pub fn lines(evaluation: &Evaluation) -> Vec<String> {
    let mut lines: Vec<String> = evaluation.policies.iter().skip(1).map(describe).collect();
    for comparison in &evaluation.comparisons {
        lines.push(comparison.conclusion.sentence.clone());
        let between = match comparison.other.as_str() {
            BASELINE => comparison.policy.clone(),
            other => format!("{} against {other}", comparison.policy),
        };
        lines.extend(details(comparison).into_iter().map(|detail| format!("{between}: {detail}")));
    }
    if !evaluation.ranking.is_empty() {
        let place = |ranked: &RankedPolicy| {
            let (low, high) = ranked.rank.interval().unwrap_or((ranked.rank.value, ranked.rank.value));
            format!("{:.0}. {} (95 % place {low:.0} to {high:.0})", ranked.rank.value, ranked.policy)
        };
        let places: Vec<String> = evaluation.ranking.iter().map(place).collect();
        lines.push(format!("ranking: {}", places.join(", ")));
    }
    lines
}

/// What stands behind one win rate.
fn details(comparison: &Comparison) -> Vec<String> {
    let mut details = Vec::new();
    if let Some(controlled) = &comparison.length_controlled {
        let longer = comparison
            .longer_wins
            .map_or(String::new(), |longer| format!("; the longer response wins {}", percent(&longer)));
        details.push(format!("at equal length {}{longer}", percent(controlled)));
    }
    if comparison.by_judge.len() > 1 {
        let of_judge = comparison.by_judge.iter().filter_map(|judge| {
            let seen = if judge.used_in_training { "used in training" } else { "never used in training" };
            Some(format!("`{}`, {seen}, {}", judge.judge, percent(judge.win_rate.as_ref()?)))
        });
        details.push(format!("by judge: {}", of_judge.collect::<Vec<_>>().join("; ")));
    }
    for (what, parts) in [("tag", &comparison.by_tag), ("criterion", &comparison.by_criterion)] {
        let parts: Vec<String> =
            parts.iter().map(|part| format!("{} {}", part.name, percent(&part.win_rate))).collect();
        if !parts.is_empty() {
            details.push(format!("by {what}: {}", parts.join("; ")));
        }
    }
    if !comparison.tags_too_few.is_empty() {
        let few: Vec<String> =
            comparison.tags_too_few.iter().map(|(tag, n)| format!("{tag} ({n})")).collect();
        details.push(format!("too few comparisons to say anything of a tag: {}", few.join(", ")));
    }
    details.extend(comparison.people.as_ref().map(people));
    details
}

fn people(people: &PeopleRate) -> String {
    match &people.win_rate {
        Some(rate) => {
            format!("as people would see it {}, from {} labelled prompts", percent(rate), people.labels)
        }
        None => format!(
            "people have judged comparisons of {} prompts; {} more are needed to correct the win rate by them",
            people.labels, people.more_needed
        ),
    }
}

/// The result in one sentence, with which of its judges training has never used.
pub fn headline(evaluation: &Evaluation) -> String {
    let rates: Vec<String> = evaluation
        .policies
        .iter()
        .skip(1)
        .filter_map(|policy| Some(format!("{} wins {:.0} %", policy.policy, 100.0 * policy.win_rate?.value)))
        .collect();
    if rates.is_empty() {
        return format!(
            "no policy was compared with the baseline on {} held-out prompts",
            evaluation.prompts
        );
    }
    let names: Vec<String> = evaluation.judges_unseen.iter().map(|name| format!("`{name}`")).collect();
    let unseen = match names.len() {
        0 => "by judges that training used too".to_string(),
        n if n == evaluation.judges.len() => "by judges that training never used".to_string(),
        _ => format!("by judges of which training never used {}", names.join(", ")),
    };
    format!(
        "{} of comparisons with the baseline on {} held-out prompts, {unseen}",
        rates.join(", "),
        evaluation.prompts
    )
}

/// A policy in one line.
pub fn describe(policy: &PolicyRow) -> String {
    let mut parts = Vec::new();
    if let Some(rate) = &policy.win_rate {
        parts.push(format!("win rate {}", percent(rate)));
    }
    if let Some(rate) = &policy.win_rate_origin {
        parts.push(format!("over the first baseline {}", percent(rate)));
    }
    if let Some(reward) = &policy.reward_difference {
        parts.push(format!("reward {}", signed(reward)));
    }
    if let Some(kl) = &policy.kl {
        parts.push(format!("KL {:.2} nats a response", kl.value));
    }
    if let Some(sentiment) = &policy.sentiment_difference {
        parts.push(format!("sentiment {}", signed(sentiment)));
    }
    format!("{}: {}", policy.policy, parts.join(", "))
}

fn with(estimate: &Estimate, digits: usize) -> (String, String) {
    let ends = match estimate.interval() {
        Some((low, high)) => format!(" (95 % {low:.digits$} to {high:.digits$})"),
        None => String::new(),
    };
    (format!("{:.digits$}", estimate.value), ends)
}

fn signed(difference: &Estimate) -> String {
    let (value, ends) = with(difference, 3);
    format!("{}{value}{ends}", if difference.value >= 0.0 { "+" } else { "" })
}

/// `54 (95 % 48 to 60) %`
fn percent(share: &Estimate) -> String {
    let scaled = Estimate {
        value: 100.0 * share.value,
        low: share.low.map(|low| 100.0 * low),
        high: share.high.map(|high| 100.0 * high),
        n: share.n,
    };
    let (value, ends) = with(&scaled, 0);
    format!("{value}{ends} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::comparison::JudgeRate;

    #[test]
    fn the_headline_says_which_judge_training_never_used() {
        let rate = Some(Estimate::new(0.6, 0.5, 0.7, 40));
        let row =
            |policy: &str, win_rate| PolicyRow { policy: policy.into(), win_rate, ..PolicyRow::default() };
        let mut evaluation = Evaluation {
            prompts: 20,
            judges: vec!["a".into(), "b".into()],
            judges_unseen: vec!["b".into()],
            policies: vec![row("baseline", None), row("ppo", rate)],
            ..Evaluation::default()
        };
        let start = "ppo wins 60 % of comparisons with the baseline on 20 held-out prompts, by judges ";
        assert_eq!(headline(&evaluation), format!("{start}of which training never used `b`"));
        evaluation.judges_unseen.clear();
        assert_eq!(headline(&evaluation), format!("{start}that training used too"));
        evaluation.judges_unseen = evaluation.judges.clone();
        assert_eq!(headline(&evaluation), format!("{start}that training never used"));
    }

    #[test]
    fn each_number_has_its_line() {
        let rate = |value| Some(Estimate::new(value, value - 0.1, value + 0.1, 40));
        let judge = |judge: &str, used_in_training| JudgeRate {
            judge: judge.into(),
            used_in_training,
            win_rate: rate(0.6),
            longer_wins: None,
        };
        let comparison = Comparison {
            policy: "dpo".into(),
            other: "ppo".into(),
            length_controlled: rate(0.5),
            longer_wins: rate(0.8),
            by_judge: vec![judge("a", true), judge("b", false)],
            people: Some(PeopleRate { labels: 4, more_needed: 26, ..PeopleRate::default() }),
            ..Comparison::default()
        };
        let evaluation = Evaluation { comparisons: vec![comparison], ..Evaluation::default() };
        assert_eq!(
            lines(&evaluation)[1..],
            [
                "dpo against ppo: at equal length 50 (95 % 40 to 60) %; the longer response wins 80 (95 % 70 to 90) %",
                "dpo against ppo: by judge: `a`, used in training, 60 (95 % 50 to 70) %; `b`, never used in training, 60 (95 % 50 to 70) %",
                "dpo against ppo: people have judged comparisons of 4 prompts; 26 more are needed to correct the win rate by them",
            ]
        );
    }
}
