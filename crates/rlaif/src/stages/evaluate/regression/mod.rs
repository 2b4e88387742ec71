//! `evaluate.regression`: prompts that must not get worse. Every policy answers each once, by its most probable tokens; rules look at the
//! answers, or judges compare them with the baseline's.

mod rules;
mod set;

pub use set::{Set, fingerprint, name_of, read};

use super::compared::{Answers, Compared, judge};
use super::measured::Measured;
use crate::context::Context;
use crate::progress::say;
use crate::report::comparison::{Regression, RegressionRow, Worse};
use crate::report::data::Estimate;
use anyhow::Result;
use rlaif_core::config::{JudgeConfig, LabelConfig};
use rlaif_core::records::{Fate, Response};
use rlaif_core::stats::interval::wilson;
use rlaif_core::stats::paired::mcnemar;
use rlaif_core::stats::winrate::Outcome;
use set::Case;
use std::collections::HashMap;

/// What checking came to, and how many units of it failed: calls of judges that failed, and what is worse where it is more than
/// `evaluate.max_regressions` allows.
pub struct Checked {
    /// For the report.
    pub regression: Regression,
    /// For the stage.
    pub failures: usize,
}

/// Checks everyone's answers, the baseline's first.
///
/// # Errors
/// If a judge or the store cannot be used; what is finished is kept.
pub fn check(
    context: &mut Context,
    set: &Set,
    measured: &[Measured],
    judges: &[JudgeConfig],
    label: &LabelConfig,
) -> Result<Checked> {
    let limit = context.config.evaluate.max_regressions.map(|limit| limit as u64);
    let count = |judged: bool| set.cases.iter().filter(|case| case.rule.is_none() == judged).count() as u64;
    let mut regression = Regression {
        file: set.file.clone(),
        rules: count(false),
        judged: count(true),
        max_regressions: limit,
        ..Regression::default()
    };
    let mut failures = 0;
    let baseline = &measured[0];
    for policy in measured {
        let is_baseline = policy.policy == baseline.policy;
        let judged = match is_baseline || regression.judged == 0 {
            true => None,
            false => Some(compare(context, set, baseline, policy, judges, label)?),
        };
        let outcomes = judged.as_ref().map(of_prompts);
        let results = results(set, &baseline.regression, &policy.regression, outcomes.as_ref());
        let mut row = row(&policy.policy, &results, is_baseline);
        let worse = results.iter().filter(|result| result.is_worse());
        let worse: Vec<Worse> = worse.map(|result| told(set, result, &policy.policy)).collect();
        row.over_limit = limit.is_some_and(|limit| worse.len() as u64 > limit);
        if row.over_limit {
            failures += worse.len();
        }
        let preferences = judged.iter().flat_map(|judged| judged.preferences.values());
        failures += preferences.filter(|preference| preference.fate == Fate::Failed).count();
        regression.worse.extend(worse);
        regression.policies.push(row);
    }
    regression.policies[1..].iter().for_each(|row| say(&format!("evaluate: {}", in_words(row, &regression))));
    Ok(Checked { regression, failures })
}

/// The judges on the prompts that they decide.
fn compare(
    context: &mut Context,
    set: &Set,
    baseline: &Measured,
    policy: &Measured,
    judges: &[JudgeConfig],
    label: &LabelConfig,
) -> Result<Compared> {
    let asked: Vec<&str> = set.judged().map(|prompt| prompt.id.as_str()).collect();
    let of = |responses: &[Response]| -> Vec<Response> {
        responses.iter().filter(|response| asked.contains(&response.prompt_id.as_str())).cloned().collect()
    };
    let name = name_of(&policy.policy);
    let answers = Answers {
        set: &name,
        prompts: set.prompts.iter().map(|prompt| (prompt.id.clone(), prompt.clone())).collect(),
        policy: &name,
        ours: &of(&policy.regression),
        theirs: &of(&baseline.regression),
    };
    judge(context, &answers, judges, label)
}

/// What judges say, by prompt.
fn of_prompts(judged: &Compared) -> HashMap<&str, Option<Outcome>> {
    judged.met.iter().map(|met| (met.prompt.as_str(), met.outcome)).collect()
}

/// One check of one policy's answer.
struct Came<'a> {
    case: &'a Case,
    baseline: &'a Response,
    answer: &'a Response,
    came_to: CameTo,
}

/// What a check came to.
#[derive(Clone, Copy, PartialEq)]
enum CameTo {
    /// By rule: whether the baseline passed, and whether the policy did.
    Rule(bool, bool),
    /// By judges, against the baseline's answer; `None` without a verdict.
    Judges(Option<Outcome>),
}

impl Came<'_> {
    fn is_worse(&self) -> bool {
        matches!(self.came_to, CameTo::Rule(true, false) | CameTo::Judges(Some(Outcome::Loss)))
    }
}

fn results<'a>(
    set: &'a Set,
    baseline: &'a [Response],
    policy: &'a [Response],
    judged: Option<&HashMap<&str, Option<Outcome>>>,
) -> Vec<Came<'a>> {
    let by_prompt = |responses: &'a [Response]| -> HashMap<&str, &'a Response> {
        responses.iter().map(|response| (response.prompt_id.as_str(), response)).collect()
    };
    let (baseline, policy) = (by_prompt(baseline), by_prompt(policy));
    let result = |case: &'a Case| {
        let prompt = set.prompts[case.prompt].id.as_str();
        let (baseline, answer) = (*baseline.get(prompt)?, *policy.get(prompt)?);
        let came_to = match &case.rule {
            Some(rule) => CameTo::Rule(rule.passes(&baseline.text), rule.passes(&answer.text)),
            None => CameTo::Judges(judged?.get(prompt).copied().flatten()),
        };
        Some(Came { case, baseline, answer, came_to })
    };
    set.cases.iter().filter_map(result).collect()
}

fn row(policy: &str, results: &[Came], is_baseline: bool) -> RegressionRow {
    let count = |what: &dyn Fn(CameTo) -> bool| results.iter().filter(|it| what(it.came_to)).count() as u64;
    let rules = count(&|it| matches!(it, CameTo::Rule(..)));
    let passed = wilson(count(&|it| matches!(it, CameTo::Rule(_, true))), rules);
    let worse = count(&|it| it == CameTo::Rule(true, false));
    let better = count(&|it| it == CameTo::Rule(false, true));
    let outcome = |outcome| count(&|it| it == CameTo::Judges(Some(outcome)));
    let judged = (outcome(Outcome::Win), outcome(Outcome::Tie), outcome(Outcome::Loss));
    let missing = count(&|it| it == CameTo::Judges(None));
    RegressionRow {
        policy: policy.into(),
        passed: passed.map(|share| Estimate::of(share, rules as usize)),
        worse,
        better,
        p_value: (!is_baseline && rules > 0).then(|| mcnemar(worse, better)),
        judged: (judged.0 + judged.1 + judged.2 + missing > 0).then_some(judged),
        missing,
        over_limit: false,
    }
}

fn told(set: &Set, result: &Came, policy: &str) -> Worse {
    Worse {
        policy: policy.into(),
        id: result.case.id.clone(),
        prompt: set.prompts[result.case.prompt].prompt.display(),
        check: rules::words(&result.case.check),
        baseline: result.baseline.text.clone(),
        answer: result.answer.text.clone(),
    }
}

/// A policy on the regression set in one line.
pub fn in_words(row: &RegressionRow, regression: &Regression) -> String {
    let mut parts = Vec::new();
    let percent = |share: &Estimate| format!("{:.0} %", 100.0 * share.value);
    if let (Some(passed), Some(p_value)) = (&row.passed, row.p_value) {
        let before = regression.policies.first().and_then(|row| row.passed.as_ref()).map(percent);
        parts.push(format!(
            "passes {} of {} rules (baseline {}), {} got worse and {} better (McNemar p = {p_value:.2})",
            percent(passed),
            regression.rules,
            before.unwrap_or_default(),
            row.worse,
            row.better
        ));
    }
    if let Some((wins, ties, losses)) = row.judged {
        parts.push(format!(
            "judges: {wins} better, {ties} equal, {losses} worse, {} without a verdict",
            row.missing
        ));
    }
    let over = match (row.over_limit, regression.max_regressions) {
        (true, Some(limit)) => format!("; more got worse than `evaluate.max_regressions` = {limit} allows"),
        _ => String::new(),
    };
    format!("{} on the regression set: {}{over}", row.policy, parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::records::{FinishReason, Prompt, PromptText};
    use rlaif_store::jsonl::Check;

    fn answers(policy: &str, texts: &[&str]) -> Vec<Response> {
        let answer = |(i, text): (usize, &&str)| Response {
            id: format!("regression/{policy}/r{i}/0"),
            prompt_id: format!("r{i}"),
            index: 0,
            text: (*text).into(),
            token_ids: vec![],
            logprobs: vec![],
            finish_reason: FinishReason::Stop,
        };
        texts.iter().enumerate().map(answer).collect()
    }

    fn set(checks: &[Check]) -> Set {
        let prompt = |i: usize| Prompt {
            id: format!("r{i}"),
            prompt: PromptText::Text(format!("ask {i}")),
            tags: vec![],
            reference: None,
        };
        let case = |(prompt, check): (usize, &Check)| Case {
            id: format!("line {}", prompt + 1),
            prompt,
            rule: rules::Rule::of(check).unwrap(),
            check: check.clone(),
        };
        Set {
            file: "r.jsonl".into(),
            prompts: (0..checks.len()).map(prompt).collect(),
            cases: checks.iter().enumerate().map(case).collect(),
        }
    }

    #[test]
    fn what_got_worse_is_what_the_baseline_passed_or_judges_call_worse() {
        let yes = || Check::Contains(vec!["yes".into()]);
        let set = set(&[yes(), yes(), yes(), Check::Judge, Check::Judge, Check::Judge]);
        let baseline = answers("baseline", &["yes", "no", "yes", "x", "x", "x"]);
        let policy = answers("ppo", &["no", "no", "yes", "y", "y", "y"]);
        let judged = HashMap::from([("r3", Some(Outcome::Loss)), ("r4", Some(Outcome::Tie)), ("r5", None)]);
        let results = results(&set, &baseline, &policy, Some(&judged));
        let worse: Vec<&str> =
            results.iter().filter(|it| it.is_worse()).map(|it| it.case.id.as_str()).collect();
        assert_eq!(worse, ["line 1", "line 4"]);
        let row = row("ppo", &results, false);
        assert_eq!((row.worse, row.better, row.p_value), (1, 0, Some(1.0)));
        assert_eq!((row.judged, row.missing), (Some((0, 1, 1)), 1));
        assert!((row.passed.unwrap().value - 1.0 / 3.0).abs() < 1e-12);
    }
}
